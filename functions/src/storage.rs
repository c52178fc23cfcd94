//! The two buckets. Nothing else speaks to S3.
//!
//! The futures of the SDK are many kilobytes each, so they are boxed where they are made:
//! inside the futures of their callers they would be copied with every move.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, MetadataDirective, ObjectIdentifier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use modunest_core::keys::{ObjectKey, StagingKey};
use modunest_core::publish::Missing;
use modunest_tlog::TileId;

use crate::error::Error;
use crate::faults;

const S3: &str = "S3";
/// Most keys in a DeleteObjects call (S3 API reference).
const DELETE_MAX_KEYS: usize = 1_000;

/// A presigned upload.
pub(crate) struct Presigned {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: BTreeMap<String, String>,
}

/// An object that was read whole, and the entity tag it had.
pub(crate) struct Fetched {
    pub(crate) bytes: Bytes,
    pub(crate) etag: String,
}

/// What reading an object came to.
pub(crate) enum Fetch {
    Found(Fetched),
    Absent,
    /// It is longer than the caller wants to read.
    TooLong,
}

/// Both buckets.
#[derive(Clone)]
pub(crate) struct Storage {
    client: Client,
    /// Signs URLs for where publishers reach S3.
    presigner: Client,
    staging: String,
    public: String,
}

fn failed<E>(operation: &'static str, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    Error::from_aws(S3, operation, error)
}

/// Answers that a condition did not hold: 412, or 409 when another conditional write to the
/// key is under way (S3 User Guide, "Conditional writes").
fn precondition<E>(error: &SdkError<E>) -> bool {
    error.raw_response().is_some_and(|response| matches!(response.status().as_u16(), 409 | 412))
}

fn absent<E>(error: &SdkError<E>) -> bool {
    error.raw_response().is_some_and(|response| response.status().as_u16() == 404)
}

/// A key as `x-amz-copy-source` wants it. Our keys are hexadecimal digits, letters and
/// slashes, which need no encoding.
fn copy_source(bucket: &str, key: StagingKey) -> String {
    format!("{bucket}/{key}")
}

/// Reads an object of a bucket whole, if it is not longer than `max_bytes`.
pub(crate) async fn fetch(
    client: &Client,
    bucket: &str,
    key: String,
    max_bytes: u64,
) -> Result<Fetch, Error> {
    let mut answer = match Box::pin(client.get_object().bucket(bucket).key(key).send()).await {
        Ok(answer) => answer,
        Err(error) if absent(&error) => return Ok(Fetch::Absent),
        Err(error) => return Err(failed("GetObject", &error)),
    };
    let declared = u64::try_from(answer.content_length().unwrap_or_default()).unwrap_or(u64::MAX);
    if declared > max_bytes {
        return Ok(Fetch::TooLong);
    }
    let mut bytes = BytesMut::with_capacity(usize::try_from(declared).unwrap_or_default());
    loop {
        let piece = answer.body.try_next().await.map_err(|error| Error::Unavailable {
            service: S3,
            operation: "GetObject",
            detail: error.to_string(),
        })?;
        let Some(piece) = piece else { break };
        if (bytes.len() + piece.len()) as u64 > max_bytes {
            return Ok(Fetch::TooLong);
        }
        bytes.extend_from_slice(&piece);
    }
    let etag = answer.e_tag.unwrap_or_default();
    Ok(Fetch::Found(Fetched { bytes: bytes.freeze(), etag }))
}

impl Storage {
    pub(crate) fn new(client: Client, presigner: Client, staging: String, public: String) -> Self {
        Storage { client, presigner, staging, public }
    }

    /// Whether both buckets answer.
    pub(crate) async fn reachable(&self) -> Result<(), Error> {
        for bucket in [&self.staging, &self.public] {
            Box::pin(self.client.head_bucket().bucket(bucket).send())
                .await
                .map_err(|error| failed("HeadBucket", &error))?;
        }
        Ok(())
    }

    async fn exists(&self, bucket: &str, key: String) -> Result<bool, Error> {
        match Box::pin(self.client.head_object().bucket(bucket).key(key).send()).await {
            Ok(_) => Ok(true),
            Err(error) if absent(&error) => Ok(false),
            Err(error) => Err(failed("HeadObject", &error)),
        }
    }

    pub(crate) async fn is_public(&self, key: ObjectKey) -> Result<bool, Error> {
        self.exists(&self.public, key.to_string()).await
    }

    pub(crate) async fn is_staged(&self, key: StagingKey) -> Result<bool, Error> {
        self.exists(&self.staging, key.to_string()).await
    }

    pub(crate) async fn get_public(&self, key: ObjectKey, max_bytes: u64) -> Result<Fetch, Error> {
        fetch(&self.client, &self.public, key.to_string(), max_bytes).await
    }

    pub(crate) async fn get_staged(&self, key: StagingKey, max_bytes: u64) -> Result<Fetch, Error> {
        fetch(&self.client, &self.staging, key.to_string(), max_bytes).await
    }

    /// Stores an object that is named by its content; one that is there already is the same.
    pub(crate) async fn put_content(&self, key: ObjectKey, bytes: Bytes) -> Result<(), Error> {
        self.put_absent(key, bytes).await.map(|_| ())
    }

    /// Stores an object unless there is one. Answers whether it did.
    async fn put_absent(&self, key: ObjectKey, bytes: Bytes) -> Result<bool, Error> {
        let request = self.put(key, bytes).if_none_match("*");
        match faults::write(Box::pin(request.send())).await {
            Ok(_) => Ok(true),
            // 409 is no proof that the other write will be carried out.
            Err(error) if precondition(&error) && self.is_public(key).await? => Ok(false),
            Err(error) => Err(failed("PutObject", &error)),
        }
    }

    /// Stores a tile of the log, whose bytes follow from its place. One that is there already
    /// must be the same: another one would be of another log.
    pub(crate) async fn put_tile(&self, tile: TileId, bytes: Bytes) -> Result<(), Error> {
        let key = ObjectKey::Tile(tile);
        if self.put_absent(key, bytes.clone()).await? {
            return Ok(());
        }
        match self.get_public(key, bytes.len() as u64).await? {
            Fetch::Found(fetched) if fetched.bytes == bytes => Ok(()),
            _ => Err(Error::Forked(tile)),
        }
    }

    /// Replaces an object that changes, if it is still the one with the entity tag `last`;
    /// `None` where there is none yet. Answers the new entity tag, or `None` when it is
    /// another.
    pub(crate) async fn put_changing(
        &self,
        key: ObjectKey,
        bytes: Vec<u8>,
        last: Option<&str>,
    ) -> Result<Option<String>, Error> {
        let request = self.put(key, bytes.into());
        let request = match last {
            Some(etag) => request.if_match(etag),
            None => request.if_none_match("*"),
        };
        match faults::write(Box::pin(request.send())).await {
            Ok(answer) => Ok(Some(answer.e_tag.unwrap_or_default())),
            // 404: the object that was seen has been deleted.
            Err(error) if precondition(&error) || absent(&error) => Ok(None),
            Err(error) => Err(failed("PutObject", &error)),
        }
    }

    fn put(&self, key: ObjectKey, bytes: Bytes) -> PutObjectFluentBuilder {
        self.client
            .put_object()
            .bucket(&self.public)
            .key(key.to_string())
            .content_type(key.content_type())
            .cache_control(key.cache_policy().header_value())
            .body(ByteStream::from(bytes))
    }

    /// Makes a checked upload public: a copy within S3 of exactly the bytes that were read.
    pub(crate) async fn publish_upload(
        &self,
        from: StagingKey,
        etag: &str,
        to: ObjectKey,
    ) -> Result<(), Error> {
        let request = self
            .client
            .copy_object()
            .bucket(&self.public)
            .key(to.to_string())
            .copy_source(copy_source(&self.staging, from))
            .copy_source_if_match(etag)
            .metadata_directive(MetadataDirective::Replace)
            .content_type(to.content_type())
            .cache_control(to.cache_policy().header_value());
        faults::write(Box::pin(request.send()))
            .await
            .map(|_| ())
            .map_err(|error| failed("CopyObject", &error))
    }

    /// A URL for one upload of exactly these bytes, once.
    pub(crate) async fn presign(
        &self,
        key: StagingKey,
        missing: Missing,
        valid_for: Duration,
    ) -> Result<Presigned, Error> {
        let config = PresigningConfig::expires_in(valid_for)
            .map_err(|_| Error::Broken("the validity of a presigned URL is out of bounds"))?;
        let length = i64::try_from(missing.size_bytes)
            .map_err(|_| Error::Broken("an archive's size is out of bounds"))?;
        let request = Box::pin(
            self.presigner
                .put_object()
                .bucket(&self.staging)
                .key(key.to_string())
                .content_length(length)
                .checksum_sha256(STANDARD.encode(missing.archive.as_bytes()))
                .if_none_match("*")
                .presigned(config),
        )
        .await
        .map_err(|error| failed("presign", &error))?;
        Ok(Presigned {
            method: request.method().to_owned(),
            url: request.uri().to_owned(),
            headers: request
                .headers()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        })
    }

    /// Writes the marker whose storage event starts a session without uploads.
    pub(crate) async fn put_ready(&self, key: StagingKey) -> Result<(), Error> {
        self.put_staged(key, Bytes::new()).await
    }

    /// Writes what the registry itself keeps in the staging bucket.
    pub(crate) async fn put_staged(&self, key: StagingKey, bytes: Bytes) -> Result<(), Error> {
        let request = self
            .client
            .put_object()
            .bucket(&self.staging)
            .key(key.to_string())
            .body(ByteStream::from(bytes));
        faults::write(Box::pin(request.send()))
            .await
            .map(|_| ())
            .map_err(|error| failed("PutObject", &error))
    }

    /// Removes uploads and markers; what is not there is removed already.
    pub(crate) async fn delete_staged(&self, keys: &[StagingKey]) -> Result<(), Error> {
        for keys in keys.chunks(DELETE_MAX_KEYS) {
            let incomplete = |_| Error::Broken("a deletion is incomplete");
            let mut delete = Delete::builder().quiet(true);
            for key in keys {
                let object =
                    ObjectIdentifier::builder().key(key.to_string()).build().map_err(incomplete)?;
                delete = delete.objects(object);
            }
            let request = self
                .client
                .delete_objects()
                .bucket(&self.staging)
                .delete(delete.build().map_err(incomplete)?);
            let answer = faults::write(Box::pin(request.send()))
                .await
                .map_err(|error| failed("DeleteObjects", &error))?;
            if let Some(error) = answer.errors().first() {
                return Err(Error::Unavailable {
                    service: S3,
                    operation: "DeleteObjects",
                    detail: error.message().or(error.code()).unwrap_or("no message").to_owned(),
                });
            }
        }
        Ok(())
    }
}
