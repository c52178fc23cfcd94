//! Buckets, listings and removals.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::dto::{
    Bucket, CommonPrefix, CreateBucketInput, CreateBucketOutput, DeleteBucketInput,
    DeleteBucketOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, ETag, EncodingType, Error, HeadBucketInput,
    HeadBucketOutput, ListBucketsInput, ListBucketsOutput, ListObjectsV2Input, ListObjectsV2Output,
    Object, ObjectStorageClass,
};
use s3s::{S3Error, S3Response, S3Result, s3_error};

use super::{Store, condition, refused, timestamp};
use crate::clock;
use crate::index::{After, Condition, Deleted, ListingQuery, Refusal};

/// Keys in one listing or removal at most (Amazon S3 API, ListObjectsV2 and DeleteObjects).
const MAX_KEYS: usize = 1000;

impl Store {
    pub(super) async fn create_bucket(
        &self,
        input: CreateBucketInput,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let location = format!("/{}", input.bucket);
        self.index.create_bucket(input.bucket, clock::now_ms()).await?.map_err(refused)?;
        Ok(S3Response::new(CreateBucketOutput { location: Some(location) }))
    }

    pub(super) async fn delete_bucket(
        &self,
        input: DeleteBucketInput,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.index.delete_bucket(input.bucket).await?.map_err(refused)?;
        Ok(S3Response::new(DeleteBucketOutput {}))
    }

    pub(super) fn head_bucket(
        &self,
        input: &HeadBucketInput,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        if !self.index.has_bucket(&input.bucket)? {
            return Err(refused(Refusal::NoSuchBucket));
        }
        Ok(S3Response::new(HeadBucketOutput {
            bucket_region: Some(self.region.clone()),
            ..HeadBucketOutput::default()
        }))
    }

    pub(super) fn list_buckets(
        &self,
        input: &ListBucketsInput,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let buckets = self
            .index
            .buckets()?
            .into_iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(name, created_ms)| Bucket {
                bucket_region: Some(self.region.clone()),
                creation_date: Some(timestamp(created_ms)),
                name: Some(name),
            })
            .collect();
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets),
            prefix: input.prefix.clone(),
            ..ListBucketsOutput::default()
        }))
    }

    pub(super) fn list_objects(
        &self,
        input: ListObjectsV2Input,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        if !self.index.has_bucket(&input.bucket)? {
            return Err(refused(Refusal::NoSuchBucket));
        }
        let limit = match input.max_keys {
            None => MAX_KEYS,
            Some(asked) => usize::try_from(asked)
                .map_err(|_| s3_error!(InvalidArgument, "max-keys must not be negative"))?
                .min(MAX_KEYS),
        };
        let after = match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => Some(read_token(token)?),
            (None, Some(key)) => Some(After::Key(key.clone())),
            (None, None) => None,
        };
        let listing = self.index.list(&ListingQuery {
            bucket: input.bucket.clone(),
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().filter(|delimiter| !delimiter.is_empty()),
            after,
            limit,
        })?;
        let url = match input.encoding_type.as_ref().map(EncodingType::as_str) {
            None => false,
            Some(EncodingType::URL) => true,
            Some(_) => {
                return Err(s3_error!(
                    InvalidArgument,
                    "Invalid Encoding Method specified in Request"
                ));
            }
        };
        let text = |text: String| if url { url_encode(&text) } else { text };
        let key_count = listing.objects.len() + listing.groups.len();
        let contents = listing
            .objects
            .into_iter()
            .map(|listed| Object {
                key: Some(text(listed.key)),
                size: Some(listed.size_bytes.cast_signed()),
                e_tag: Some(ETag::Strong(listed.etag)),
                last_modified: Some(timestamp(listed.modified_ms)),
                storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                ..Object::default()
            })
            .collect();
        let groups = listing
            .groups
            .into_iter()
            .map(|group| CommonPrefix { prefix: Some(text(group)) })
            .collect();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(text(input.prefix.unwrap_or_default())),
            max_keys: i32::try_from(limit).ok(),
            key_count: i32::try_from(key_count).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(listing.next.is_some()),
            next_continuation_token: listing.next.as_ref().map(write_token),
            contents: Some(contents),
            common_prefixes: Some(groups),
            delimiter: input.delimiter.map(text),
            encoding_type: input.encoding_type,
            start_after: input.start_after.map(text),
            ..ListObjectsV2Output::default()
        }))
    }

    pub(super) async fn delete_object(
        &self,
        input: DeleteObjectInput,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        if input.version_id.is_some()
            || input.if_match_size.is_some()
            || input.if_match_last_modified_time.is_some()
        {
            return Err(s3_error!(NotImplemented, "This store removes by key and If-Match only"));
        }
        let condition = condition::of_write(input.if_match.as_ref(), None)?;
        match self.index.delete(input.bucket, input.key, condition).await? {
            Deleted::Gone => Ok(S3Response::new(DeleteObjectOutput::default())),
            Deleted::Refused(refusal) => Err(refused(refusal)),
        }
    }

    pub(super) async fn delete_objects(
        &self,
        input: DeleteObjectsInput,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        if !self.index.has_bucket(&input.bucket)? {
            return Err(refused(Refusal::NoSuchBucket));
        }
        if input.delete.objects.len() > MAX_KEYS {
            return Err(s3_error!(MalformedXML, "At most {MAX_KEYS} keys are removed at once"));
        }
        let quiet = input.delete.quiet.unwrap_or(false);
        // Queued together, they are committed together.
        let removals = input.delete.objects.into_iter().map(|named| {
            let bucket = input.bucket.clone();
            async move {
                let key = named.key.clone();
                let unserved = named.version_id.is_some()
                    || named.size.is_some()
                    || named.last_modified_time.is_some();
                let removed = if unserved {
                    Err(s3_error!(NotImplemented, "This store removes by key and ETag only"))
                } else {
                    let condition = named
                        .e_tag
                        .map_or(Condition::None, |etag| Condition::Etag(etag.into_value()));
                    match self.index.delete(bucket, named.key, condition).await {
                        Ok(Deleted::Gone) => Ok(()),
                        Ok(Deleted::Refused(refusal)) => Err(refused(refusal)),
                        Err(error) => Err(S3Error::from(error)),
                    }
                };
                (key, removed)
            }
        });
        let mut output = DeleteObjectsOutput::default();
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for (key, removed) in futures_util::future::join_all(removals).await {
            match removed {
                Ok(()) if quiet => {}
                Ok(()) => {
                    deleted.push(DeletedObject { key: Some(key), ..DeletedObject::default() })
                }
                Err(error) => errors.push(Error {
                    code: Some(error.code().as_str().to_owned()),
                    key: Some(key),
                    message: error.message().map(str::to_owned),
                    version_id: None,
                }),
            }
        }
        output.deleted = Some(deleted);
        output.errors = Some(errors);
        Ok(S3Response::new(output))
    }
}

/// A continuation token: `k` or `g` for key or group, and its text.
fn write_token(after: &After) -> String {
    URL_SAFE_NO_PAD.encode(match after {
        After::Key(key) => format!("k{key}"),
        After::Group(group) => format!("g{group}"),
    })
}

fn read_token(token: &str) -> S3Result<After> {
    let text = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match text.as_deref().and_then(|text| text.split_at_checked(1)) {
        Some(("k", key)) => Ok(After::Key(key.to_owned())),
        Some(("g", group)) => Ok(After::Group(group.to_owned())),
        _ => Err(s3_error!(InvalidArgument, "The continuation token provided is incorrect")),
    }
}

/// `encoding-type=url`: everything but unreserved characters and `/`.
fn url_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_others_are_refused() {
        for after in
            [After::Key("a/é".into()), After::Group("a/".into()), After::Key(String::new())]
        {
            assert_eq!(read_token(&write_token(&after)).unwrap(), after);
        }
        for bad in ["", "!!", "eA"] {
            assert!(read_token(bad).is_err(), "{bad:?}");
        }
    }
}
