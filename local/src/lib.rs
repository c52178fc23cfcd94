//! Embedded services for one machine: DynamoDB and S3 on loopback ports, with
//! storage events and timers, so that the deployed code runs unchanged in
//! `modunest up` and in tests. The AWS SDK is the only client.
//!
//! # What holds
//!
//! - **S3**: an upload is acknowledged when its bytes are verified (length,
//!   `Content-MD5`, `x-amz-checksum-*`, `x-amz-content-sha256`) and synced. What
//!   is not acknowledged may or may not be there after a crash, whole; never in part.
//! - **Conditions** are decided by one thread: of many concurrent
//!   `If-None-Match: *` exactly one wins.
//! - **Keys** are data. No key becomes a path.
//! - **Events** are committed with their object, and delivered at least once,
//!   across crashes, until the subscriber returns `Ok`.
//! - **DynamoDB** survives `kill -9`. A power failure may take its last second.
//! - One process uses a data folder at a time.
//!
//! Out of scope: versions, multipart uploads, access lists and everything else of
//! S3 that the registry does not use (refused, not ignored); other users of the
//! same machine, since the embedded DynamoDB checks no signatures.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use modunest_local::{BoundServices, Config, Subscription};
//!
//! let bound = BoundServices::bind(Config {
//!     data_dir: Some("/var/lib/modunest".into()),
//!     s3_listen: "127.0.0.1:0".parse()?,
//!     dynamodb_listen: "127.0.0.1:0".parse()?,
//!     access_key: "local".into(),
//!     secret_key: "from the data folder".into(),
//!     region: "local".into(),
//!     buckets: vec!["registry".into()],
//! })?;
//! // Clients can be made now, for the subscribers.
//! let endpoint = bound.s3_endpoint();
//! let uploads = Subscription::new("registry", move |event| {
//!     let endpoint = endpoint.clone();
//!     async move { Ok::<(), std::io::Error>(drop((event, endpoint))) }
//! })
//! .prefix("upload/");
//! let services = bound.serve(vec![uploads]).await?;
//! services.shutdown().await?;
//! # Ok(()) }
//! ```

mod services;

mod s3;

mod dynamodb;
mod events;
mod timer;

mod index;

mod files;
mod folder;

mod clock;
mod error;

pub use error::{Error, IndexError};
pub use events::Subscription;
pub use s3::MAX_OBJECT_BYTES;
pub use services::{BoundServices, Config, LocalServices, StartReport};
pub use timer::Timer;
