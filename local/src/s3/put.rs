//! Uploads: written aside, verified, synced, committed, acknowledged; in this order.

use std::collections::BTreeMap;
use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use s3s::dto::{
    ETag, Metadata, PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp, TimestampFormat,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use tokio::io::{AsyncWriteExt, BufWriter};

use super::checksum::{Verified, Verifier, as_fields, fill_checksum};
use super::{MAX_INLINE_BYTES, MAX_OBJECT_BYTES, Store, condition, internal, refuse, refused};
use crate::clock;
use crate::events::EventName;
use crate::files::PendingFile;
use crate::index::{Condition, Content, Headers, NewObject, Put, Refusal};

/// Bytes gathered before a file is written to: each write is a trip to a blocking thread.
const WRITE_BUFFER_BYTES: usize = 256 * 1024;

impl Store {
    pub(super) async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let S3Request { mut input, headers, trailing_headers, .. } = request;
        refuse::put(&input)?;
        let condition = condition::of_write(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let declared_bytes = input
            .content_length
            .and_then(|length| u64::try_from(length).ok())
            .ok_or_else(|| {
                s3_error!(MissingContentLength, "You must provide the Content-Length HTTP header.")
            })?;
        if declared_bytes > MAX_OBJECT_BYTES {
            return Err(s3_error!(
                EntityTooLarge,
                "The largest object here has {MAX_OBJECT_BYTES} bytes"
            ));
        }
        let mut verifier = Verifier::new(&input, &headers, declared_bytes)?;
        let body = input.body.take();
        if let Err(refusal) = self.foreseen(&input.bucket, &input.key, &condition)? {
            // The body is read and dropped, so that the client gets to read the answer.
            drain(body).await?;
            return Err(refused(refusal));
        }

        let content = if declared_bytes <= MAX_INLINE_BYTES {
            Written::Memory(read_to_memory(body, &mut verifier, declared_bytes).await?)
        } else {
            Written::File(self.read_to_file(body, &mut verifier).await?)
        };
        let trailers = trailing_headers.and_then(|trailers| trailers.take());
        let verified = verifier.finish(trailers.as_ref())?;
        let content = match content {
            Written::Memory(bytes) => Content::Inline(bytes),
            Written::File(file) => Content::File(self.synced(file).await?),
        };
        let new = NewObject {
            headers: kept_headers(&mut input),
            bucket: input.bucket,
            key: input.key,
            size_bytes: verified.size_bytes,
            etag: verified.etag.clone(),
            modified_ms: clock::now_ms(),
            checksum_algorithm: verified.algorithm.as_str().to_owned(),
            checksum: verified.checksum.clone(),
            content,
            event: EventName::Put,
            condition,
        };
        match self.index.put(new).await? {
            Put::Stored => Ok(S3Response::new(stored(verified))),
            Put::Refused(refusal) => Err(refused(refusal)),
        }
    }

    /// Whether the write would be refused as things stand, which saves writing the
    /// body. The commit decides again, and alone has the last word.
    fn foreseen(
        &self,
        bucket: &str,
        key: &str,
        condition: &Condition,
    ) -> S3Result<Result<(), Refusal>> {
        if !self.index.has_bucket(bucket)? {
            return Ok(Err(Refusal::NoSuchBucket));
        }
        if *condition == Condition::None {
            return Ok(Ok(()));
        }
        let current = self.index.object(bucket, key)?;
        Ok(condition.check(current.as_ref().map(|object| object.etag.as_str())))
    }

    async fn read_to_file(
        &self,
        body: Option<StreamingBlob>,
        verifier: &mut Verifier,
    ) -> S3Result<PendingFile> {
        let failed = |error: io::Error| internal(&error);
        let pending = self.files.pending().map_err(failed)?;
        let path = self.files.path(pending.name());
        let file = tokio::fs::File::create_new(path).await.map_err(failed)?;
        let mut file = BufWriter::with_capacity(WRITE_BUFFER_BYTES, file);
        if let Some(mut body) = body {
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(body_error)?;
                verifier.update(&chunk)?;
                file.write_all(&chunk).await.map_err(failed)?;
            }
        }
        file.flush().await.map_err(failed)?;
        Ok(pending)
    }

    /// Syncs a verified file and its name, off the async threads.
    pub(super) async fn synced(&self, pending: PendingFile) -> S3Result<PendingFile> {
        let files = self.files.clone();
        let synced = tokio::task::spawn_blocking(move || {
            files.sync(pending.name())?;
            Ok::<_, io::Error>(pending)
        });
        match synced.await {
            Ok(Ok(pending)) => Ok(pending),
            Ok(Err(error)) => Err(internal(&error)),
            Err(error) => Err(internal(&error)),
        }
    }
}

enum Written {
    Memory(Bytes),
    File(PendingFile),
}

async fn read_to_memory(
    body: Option<StreamingBlob>,
    verifier: &mut Verifier,
    declared_bytes: u64,
) -> S3Result<Bytes> {
    // At most `MAX_INLINE_BYTES`, which the caller has checked.
    let mut bytes = BytesMut::with_capacity(usize::try_from(declared_bytes).unwrap_or(0));
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(body_error)?;
            verifier.update(&chunk)?;
            bytes.extend_from_slice(&chunk);
        }
    }
    Ok(bytes.freeze())
}

async fn drain(body: Option<StreamingBlob>) -> S3Result<()> {
    let Some(mut body) = body else { return Ok(()) };
    let mut seen_bytes = 0;
    while let Some(chunk) = body.next().await {
        seen_bytes += chunk.map_err(body_error)?.len() as u64;
        if seen_bytes > MAX_OBJECT_BYTES {
            return Err(s3_error!(
                EntityTooLarge,
                "The largest object here has {MAX_OBJECT_BYTES} bytes"
            ));
        }
    }
    Ok(())
}

/// A body that cannot be read to its end is the client's doing: it broke off, or
/// the bytes are not those whose hash it signed.
fn body_error(error: s3s::StdError) -> S3Error {
    // `s3s` keeps the type private; its text names the case.
    if error.to_string().contains("Sha256Mismatch") {
        return s3_error!(
            BadDigest,
            "The provided 'x-amz-content-sha256' header does not match what was computed."
        );
    }
    S3Error::with_source(S3ErrorCode::IncompleteBody, error)
}

fn stored(verified: Verified) -> PutObjectOutput {
    let mut output =
        PutObjectOutput { e_tag: Some(ETag::Strong(verified.etag)), ..PutObjectOutput::default() };
    fill_checksum!(output, as_fields(verified.algorithm.as_str(), verified.checksum));
    output
}

fn kept_headers(input: &mut PutObjectInput) -> Headers {
    Headers {
        cache_control: input.cache_control.take(),
        content_disposition: input.content_disposition.take(),
        content_encoding: input.content_encoding.take().and_then(without_chunking),
        content_language: input.content_language.take(),
        content_type: input.content_type.take(),
        expires: input.expires.take().as_ref().and_then(http_date),
        metadata: sorted(input.metadata.take()),
    }
}

/// `aws-chunked` tells how the request was framed, and is no property of the object.
fn without_chunking(encoding: String) -> Option<String> {
    let kept: Vec<&str> = encoding
        .split(',')
        .map(str::trim)
        .filter(|token| !token.is_empty() && !token.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    (!kept.is_empty()).then(|| kept.join(", "))
}

/// The `Expires` header as it was written.
pub(super) fn http_date(at: &Timestamp) -> Option<String> {
    let mut text = Vec::new();
    at.format(TimestampFormat::HttpDate, &mut text).ok()?;
    String::from_utf8(text).ok()
}

pub(super) fn sorted(metadata: Option<Metadata>) -> BTreeMap<String, String> {
    metadata.unwrap_or_default().into_iter().collect()
}
