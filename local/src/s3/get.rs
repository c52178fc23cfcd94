//! Reads: conditions, ranges, and bytes that stream from their file.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use s3s::dto::{
    ChecksumMode, ETag, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, Range,
    StreamingBlob, Timestamp, TimestampFormat,
};
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{Body, S3Response, S3Result, StdError, s3_error};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom, Take};
use tokio_util::io::ReaderStream;

use super::checksum::{as_fields, fill_checksum};
use super::condition::ReadCondition;
use super::{Store, internal, refuse, timestamp};
use crate::files::FileName;
use crate::index::{Object, Place};

/// Bytes read from a file at once: each read is a trip to a blocking thread.
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// A lookup meets a file that is already replaced and removed only in the moment
/// between both, so a second lookup nearly always suffices.
const LOOKUPS: u32 = 8;

/// Fills what `GetObject` and `HeadObject` answer alike.
macro_rules! describe {
    ($output:expr, $object:expr, $with_checksum:expr) => {{
        let object: Object = $object;
        if $with_checksum {
            fill_checksum!($output, as_fields(&object.checksum_algorithm, object.checksum));
        }
        $output.accept_ranges = Some("bytes".to_owned());
        $output.cache_control = object.headers.cache_control;
        $output.content_disposition = object.headers.content_disposition;
        $output.content_encoding = object.headers.content_encoding;
        $output.content_language = object.headers.content_language;
        $output.content_type = object.headers.content_type;
        $output.e_tag = Some(ETag::Strong(object.etag));
        $output.expires = object
            .headers
            .expires
            .and_then(|date| Timestamp::parse(TimestampFormat::HttpDate, &date).ok());
        $output.last_modified = Some(timestamp(object.modified_ms));
        $output.metadata = Some(object.headers.metadata.into_iter().collect());
    }};
}

impl Store {
    pub(super) async fn get_object(
        &self,
        input: GetObjectInput,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        refuse::get(&input)?;
        let (object, source) = self.open(&input.bucket, &input.key).await?;
        ReadCondition {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
        }
        .enforce(&object)?;
        let size_bytes = object.size_bytes;
        let part = part_of(input.range.as_ref(), size_bytes)?;
        let (start, length) = part.unwrap_or((0, size_bytes));
        let body = source.stream(start, length).await.map_err(|error| internal(&error))?;
        let mut output = GetObjectOutput {
            body: Some(body),
            content_length: Some(length.cast_signed()),
            content_range: part.map(|_| content_range(start, length, size_bytes)),
            ..GetObjectOutput::default()
        };
        // A checksum is that of the whole object, and a client would hold a part against it.
        let with_checksum = part.is_none() && asks_for_checksum(input.checksum_mode.as_ref());
        describe!(output, object, with_checksum);
        Ok(S3Response::new(output))
    }

    pub(super) fn head_object(
        &self,
        input: &HeadObjectInput,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        refuse::head(input)?;
        let object = self.object(&input.bucket, &input.key)?;
        ReadCondition {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
        }
        .enforce(&object)?;
        let size_bytes = object.size_bytes;
        let part = part_of(input.range.as_ref(), size_bytes)?;
        let (start, length) = part.unwrap_or((0, size_bytes));
        let mut output = HeadObjectOutput {
            content_length: Some(length.cast_signed()),
            content_range: part.map(|_| content_range(start, length, size_bytes)),
            ..HeadObjectOutput::default()
        };
        let with_checksum = part.is_none() && asks_for_checksum(input.checksum_mode.as_ref());
        describe!(output, object, with_checksum);
        Ok(S3Response::new(output))
    }

    /// The object with a hold on its bytes, which a later replacement does not take away.
    pub(super) async fn open(&self, bucket: &str, key: &str) -> S3Result<(Object, Source)> {
        let mut lost = None;
        for _ in 0..LOOKUPS {
            let Some((object, bytes)) = self.index.object_and_bytes(bucket, key)? else {
                return Err(self.absent(bucket));
            };
            let name = match (&object.place, bytes) {
                (Place::Inline, Some(bytes)) => return Ok((object, Source::Memory(bytes))),
                (Place::Inline, None) => {
                    tracing::error!(bucket, key, "an object's bytes are missing from the index");
                    return Err(s3_error!(
                        InternalError,
                        "The object's bytes are missing; the log says which"
                    ));
                }
                (Place::File(name), _) => name.clone(),
            };
            match File::open(self.files.path(&name)).await {
                Ok(file) => {
                    let stored_bytes =
                        file.metadata().await.map_err(|error| internal(&error))?.len();
                    if stored_bytes != object.size_bytes {
                        tracing::error!(bucket, key, %name, stored_bytes, object.size_bytes, "an object's file has the wrong size");
                        return Err(s3_error!(
                            InternalError,
                            "The object's file is damaged; the log says which"
                        ));
                    }
                    return Ok((object, Source::File(name, file)));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => lost = Some(name),
                Err(error) => return Err(internal(&error)),
            }
        }
        let name = lost.as_ref().map(FileName::as_str);
        tracing::error!(bucket, key, name, "an object's file is missing");
        Err(s3_error!(InternalError, "The object's file is missing; the log says which"))
    }
}

/// Where an object's bytes are read from.
#[derive(Debug)]
pub(super) enum Source {
    Memory(Bytes),
    File(FileName, File),
}

impl Source {
    async fn stream(self, start: u64, length: u64) -> io::Result<StreamingBlob> {
        match self {
            Self::Memory(bytes) => {
                let outside =
                    || io::Error::other("the inline bytes are fewer than the object's size");
                let start = usize::try_from(start).map_err(io::Error::other)?;
                let length = usize::try_from(length).map_err(io::Error::other)?;
                let end = start
                    .checked_add(length)
                    .filter(|end| *end <= bytes.len())
                    .ok_or_else(outside)?;
                Ok(StreamingBlob::from(Body::from(bytes.slice(start..end))))
            }
            Self::File(_, mut file) => {
                if start > 0 {
                    file.seek(SeekFrom::Start(start)).await?;
                }
                file.set_max_buf_size(READ_BUFFER_BYTES);
                let capacity = usize::try_from(length)
                    .unwrap_or(READ_BUFFER_BYTES)
                    .clamp(1, READ_BUFFER_BYTES);
                let inner = ReaderStream::with_capacity(file.take(length), capacity);
                Ok(StreamingBlob::new(FilePart { inner, remaining_bytes: length }))
            }
        }
    }
}

/// A part of a file whose length is known, so that a short file ends the
/// response with an error and not as if it were complete.
struct FilePart {
    inner: ReaderStream<Take<File>>,
    remaining_bytes: u64,
}

impl Stream for FilePart {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(Pin::new(&mut self.inner).poll_next(context));
        Poll::Ready(match next {
            Some(Ok(bytes)) => {
                self.remaining_bytes = self.remaining_bytes.saturating_sub(bytes.len() as u64);
                Some(Ok(bytes))
            }
            Some(Err(error)) => Some(Err(error.into())),
            None if self.remaining_bytes == 0 => None,
            None => {
                self.remaining_bytes = 0;
                Some(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()))
            }
        })
    }
}

impl ByteStream for FilePart {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.remaining_bytes)
            .map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}

fn asks_for_checksum(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str().eq_ignore_ascii_case(ChecksumMode::ENABLED))
}

/// Start and length of the part asked for, `None` for the whole.
fn part_of(range: Option<&Range>, size_bytes: u64) -> S3Result<Option<(u64, u64)>> {
    let Some(range) = range else { return Ok(None) };
    let unsatisfiable = || s3_error!(InvalidRange, "The requested range is not satisfiable");
    let part = range.check(size_bytes).map_err(|_| unsatisfiable())?;
    // `Range::check` lets a suffix of an empty object pass; nothing can be named there.
    if part.is_empty() {
        return Err(unsatisfiable());
    }
    Ok(Some((part.start, part.end - part.start)))
}

fn content_range(start: u64, length: u64, size_bytes: u64) -> String {
    format!("bytes {start}-{}/{size_bytes}", (start + length).saturating_sub(1))
}
