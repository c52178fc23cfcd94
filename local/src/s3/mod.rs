//! The S3 operations that the registry uses, over the index and the object files.
//!
//! Protocol, signatures and presigned URLs are `s3s`'s. This store decides what
//! is kept, and keeps nothing that it has not verified. What S3 offers and the
//! registry does not use (versions, access lists, encryption settings, tags,
//! multipart uploads) is refused, never ignored.

mod bucket;
mod checksum;
mod condition;
mod copy;
mod get;
mod put;
mod refuse;
mod server;

pub(crate) use server::Server;

use std::sync::Arc;

use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CreateBucketInput, CreateBucketOutput, DeleteBucketInput,
    DeleteBucketOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput,
    HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput, ListObjectsV2Input,
    ListObjectsV2Output, PutObjectInput, PutObjectOutput, Timestamp,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::clock;
use crate::error::IndexError;
use crate::files::Files;
use crate::index::{Index, Object, Refusal};

/// The largest object: the registry's largest artifact is 50 MB, so this is that with room.
pub const MAX_OBJECT_BYTES: u64 = 64 * 1024 * 1024;

/// Objects up to this size live in the index, where one group commit makes them
/// durable. A file needs two syncs of its own before that commit: one writer's
/// upload just below the limit took 7.9 ms and just above it 12.0 ms
/// (`examples/measure.rs`, unoptimised, on a busy machine of two cores).
pub(crate) const MAX_INLINE_BYTES: u64 = 64 * 1024;

/// A store that answers S3 requests.
pub(crate) struct Store {
    pub(crate) index: Index,
    pub(crate) files: Files,
    pub(crate) region: String,
}

/// The handle that `s3s` calls.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Store>);

#[async_trait::async_trait]
impl S3 for Service {
    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        self.0.put_object(request).await
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        self.0.copy_object(request).await
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        self.0.get_object(request.input).await
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        self.0.head_object(&request.input)
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.0.delete_object(request.input).await
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.0.delete_objects(request.input).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.0.list_objects(request.input)
    }

    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        self.0.create_bucket(request.input).await
    }

    async fn delete_bucket(
        &self,
        request: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.0.delete_bucket(request.input).await
    }

    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.0.head_bucket(&request.input)
    }

    async fn list_buckets(
        &self,
        request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        self.0.list_buckets(&request.input)
    }
}

impl Store {
    /// The error for a key that is not there: the bucket may be missing instead.
    fn absent(&self, bucket: &str) -> S3Error {
        match self.index.has_bucket(bucket) {
            Ok(true) => refused(Refusal::NoSuchKey),
            Ok(false) => refused(Refusal::NoSuchBucket),
            Err(error) => internal(&error),
        }
    }

    fn object(&self, bucket: &str, key: &str) -> S3Result<Object> {
        self.index
            .object(bucket, key)
            .map_err(|error| internal(&error))?
            .ok_or_else(|| self.absent(bucket))
    }
}

/// S3's answer to a write that changed nothing.
fn refused(refusal: Refusal) -> S3Error {
    match refusal {
        Refusal::NoSuchBucket => s3_error!(NoSuchBucket, "The specified bucket does not exist"),
        Refusal::NoSuchKey => s3_error!(NoSuchKey, "The specified key does not exist."),
        Refusal::PreconditionFailed => s3_error!(
            PreconditionFailed,
            "At least one of the pre-conditions you specified did not hold"
        ),
        Refusal::BucketExists => s3_error!(BucketAlreadyOwnedByYou, "The bucket exists already"),
        Refusal::BucketNotEmpty => {
            s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty")
        }
    }
}

/// Logs why, and tells the client only that it was not its fault.
fn internal(error: &dyn std::error::Error) -> S3Error {
    tracing::error!(%error, "the object store could not answer");
    S3Error::with_message(
        S3ErrorCode::InternalError,
        "The object store could not answer; its log says why",
    )
}

impl From<IndexError> for S3Error {
    fn from(error: IndexError) -> Self {
        internal(&error)
    }
}

fn timestamp(at_ms: i64) -> Timestamp {
    Timestamp::from(clock::system_time(at_ms))
}
