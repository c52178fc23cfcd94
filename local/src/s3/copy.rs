//! Copies within the store. A file gets a second name; its bytes are not touched.

use std::io;

use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, ETag, MetadataDirective,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::checksum::{as_fields, fill_checksum};
use super::condition::{Read, ReadCondition};
use super::get::Source;
use super::put::{http_date, sorted};
use super::{Store, condition, internal, refuse, refused, timestamp};
use crate::clock;
use crate::events::EventName;
use crate::files::{FileName, PendingFile};
use crate::index::{Content, Headers, NewObject, Put, Refusal};

impl Store {
    pub(super) async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let S3Request { mut input, headers, .. } = request;
        refuse::copy(&input)?;
        let condition = condition::of_write_headers(&headers)?;
        let (from_bucket, from_key) = match &input.copy_source {
            CopySource::Bucket { bucket, key, version_id: None } => {
                (bucket.to_string(), key.to_string())
            }
            _ => {
                return Err(s3_error!(
                    NotImplemented,
                    "A copy source is a bucket and a key, without a version"
                ));
            }
        };
        let replace = match input.metadata_directive.as_ref().map(MetadataDirective::as_str) {
            None | Some(MetadataDirective::COPY) => false,
            Some(MetadataDirective::REPLACE) => true,
            Some(_) => return Err(s3_error!(InvalidArgument, "Unknown metadata directive.")),
        };
        if !replace && from_bucket == input.bucket && from_key == input.key {
            return Err(s3_error!(
                InvalidRequest,
                "This copy request is illegal because it is trying to copy an object to itself without changing its metadata."
            ));
        }
        let (source, bytes) = self.open(&from_bucket, &from_key).await?;
        let wanted = ReadCondition {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
            if_modified_since: input.copy_source_if_modified_since.as_ref(),
            if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
        };
        // A copy has no 304: every condition that fails is 412.
        if wanted.check(&source) != Read::Proceed {
            return Err(refused(Refusal::PreconditionFailed));
        }
        let content = match bytes {
            Source::Memory(bytes) => Content::Inline(bytes),
            Source::File(name, file) => Content::File(self.second_name(name, file).await?),
        };
        let modified_ms = clock::now_ms();
        let new = NewObject {
            headers: if replace { replaced_headers(&mut input) } else { source.headers },
            bucket: input.bucket,
            key: input.key,
            size_bytes: source.size_bytes,
            etag: source.etag.clone(),
            modified_ms,
            checksum_algorithm: source.checksum_algorithm.clone(),
            checksum: source.checksum.clone(),
            content,
            event: EventName::Copy,
            condition,
        };
        match self.index.put(new).await? {
            Put::Stored => {}
            Put::Refused(refusal) => return Err(refused(refusal)),
        }
        let mut result = CopyObjectResult {
            e_tag: Some(ETag::Strong(source.etag)),
            last_modified: Some(timestamp(modified_ms)),
            ..CopyObjectResult::default()
        };
        fill_checksum!(result, as_fields(&source.checksum_algorithm, source.checksum));
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(result),
            ..CopyObjectOutput::default()
        }))
    }

    /// Links the file under a new name; if it was removed meanwhile, copies what the open handle still holds.
    async fn second_name(&self, name: FileName, file: tokio::fs::File) -> S3Result<PendingFile> {
        let pending = self.files.pending().map_err(|error| internal(&error))?;
        let files = self.files.clone();
        let mut file = file.into_std().await;
        let linked = tokio::task::spawn_blocking(move || {
            match files.link(&name, pending.name()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let mut copy = std::fs::File::create_new(files.path(pending.name()))?;
                    io::copy(&mut file, &mut copy)?;
                    files.sync(pending.name())?;
                }
                other => other?,
            }
            Ok::<_, io::Error>(pending)
        });
        match linked.await {
            Ok(Ok(pending)) => Ok(pending),
            Ok(Err(error)) => Err(internal(&error)),
            Err(error) => Err(internal(&error)),
        }
    }
}

fn replaced_headers(input: &mut CopyObjectInput) -> Headers {
    Headers {
        cache_control: input.cache_control.take(),
        content_disposition: input.content_disposition.take(),
        content_encoding: input.content_encoding.take(),
        content_language: input.content_language.take(),
        content_type: input.content_type.take(),
        expires: input.expires.take().as_ref().and_then(http_date),
        metadata: sorted(input.metadata.take()),
    }
}
