//! The public bucket, by the AWS SDK.

use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_core::problem::Refusal;
use modunest_runtime::aws::Settings;

use crate::plan;

/// How long a reader waits for the bucket's first byte, with the SDK's retries inside. S3
/// answers in some 100 ms; whoever waits longer than this is better told.
pub(super) const ORIGIN_DEADLINE: Duration = Duration::from_secs(10);

/// Why the bucket did not give what was asked for. A missing object is not an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OriginError {
    #[error("no answer within {} seconds", ORIGIN_DEADLINE.as_secs())]
    Deadline,
    #[error("{0}")]
    Failed(String),
    #[error("the bytes hash to {found}")]
    Digest { found: Digest },
    #[error("{found_bytes} bytes came where {expected_bytes} were announced")]
    Length { expected_bytes: u64, found_bytes: u64 },
    #[error("the answer says nothing about {0}")]
    Incomplete(&'static str),
}

impl OriginError {
    /// What the reader is told. Details stay in the log.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            OriginError::Digest { .. } | OriginError::Length { .. } => plan::store_damaged(),
            _ => plan::store_unavailable(),
        }
    }
}

/// An object whose bytes have begun to come.
pub(super) struct Opened {
    pub(super) size_bytes: u64,
    pub(super) stream: ByteStream,
}

/// What became of an object since it was last seen.
pub(super) enum Revalidated {
    Unchanged,
    Missing,
    New { opened: Opened, origin_tag: String },
}

/// The bucket.
pub(super) struct Origin {
    client: Client,
    bucket: String,
}

impl Origin {
    pub(super) fn new(settings: &Settings, bucket: String) -> Self {
        Origin { client: modunest_runtime::aws::s3(settings), bucket }
    }

    /// Begins to read an object; `None` when there is none.
    pub(super) async fn open(&self, key: ObjectKey) -> Result<Option<Opened>, OriginError> {
        let request = self.client.get_object().bucket(&self.bucket).key(key.to_string());
        match Box::pin(request.send()).await {
            Ok(output) => opened(output).map(Some),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Begins to read a part of an object; `None` when there is none.
    pub(super) async fn open_range(
        &self,
        key: ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<SdkBody>, OriginError> {
        let expected_bytes = range.end.saturating_sub(range.start);
        let request = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key.to_string())
            .range(format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        let opened = match Box::pin(request.send()).await {
            Ok(output) => opened(output)?,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // A store that ignores the range answers with the whole, which must not be passed
        // on as a part.
        if opened.size_bytes != expected_bytes {
            let found_bytes = opened.size_bytes;
            return Err(OriginError::Length { expected_bytes, found_bytes });
        }
        Ok(Some(opened.stream.into_inner()))
    }

    /// Reads an object unless it is the one with `known_tag`.
    pub(super) async fn if_changed(
        &self,
        key: ObjectKey,
        known_tag: Option<&str>,
    ) -> Result<Revalidated, OriginError> {
        let request = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key.to_string())
            .set_if_none_match(known_tag.map(str::to_owned));
        match Box::pin(request.send()).await {
            Ok(mut output) => {
                let origin_tag = output.e_tag.take().ok_or(OriginError::Incomplete("its tag"))?;
                Ok(Revalidated::New { opened: opened(output)?, origin_tag })
            }
            Err(error) if status(&error) == Some(304) => Ok(Revalidated::Unchanged),
            Err(error) if is_missing(&error) => Ok(Revalidated::Missing),
            Err(error) => Err(failed(error)),
        }
    }

    /// Asks whether the bucket is there and readable.
    pub(super) async fn reach(&self) -> Result<(), OriginError> {
        let request = self.client.head_bucket().bucket(&self.bucket);
        Box::pin(request.send()).await.map(drop).map_err(failed)
    }
}

fn opened(output: GetObjectOutput) -> Result<Opened, OriginError> {
    let size_bytes = output
        .content_length
        .and_then(|length| u64::try_from(length).ok())
        .ok_or(OriginError::Incomplete("its length"))?;
    Ok(Opened { size_bytes, stream: output.body })
}

/// Only the answer that says so: a missing bucket or a refused key is a failure of ours,
/// and "could not find out" must not become "there is none".
fn is_missing(error: &SdkError<GetObjectError>) -> bool {
    error.as_service_error().is_some_and(GetObjectError::is_no_such_key)
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// What the log says: the service's own words, or why it could not be asked. Neither has
/// anything of the request in it.
fn failed<E>(error: SdkError<E>) -> OriginError
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let text = match (status(&error), error.code()) {
        (Some(status), code) => {
            format!("status {status}, {}: {}", code.unwrap_or("no code"), chain(&error))
        }
        (None, _) => chain(&error),
    };
    OriginError::Failed(text)
}

/// An error with its causes: the first line alone says only that something failed.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// An error, and what caused it, and what caused that.
pub(super) fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
