//! From settings to a working [`Functions`], once, with the first event.

use aws_sdk_s3::Client;
use axum::Router;
use modunest_runtime::aws;
use modunest_tlog::SigningKey;
use tokio::sync::OnceCell;

use super::Settings;
use crate::Functions;
use crate::config::Config;
use crate::error::Error;
use crate::storage::{Fetch, fetch};

/// Name of the object with the registry's key.
const KEY_OBJECT: &str = "registry.key";
/// Longest key object that is read: a key's line has below 200 characters.
const KEY_MAX_BYTES: u64 = 4 * 1024;

/// What is made with the first event.
pub(super) struct Started {
    pub(super) functions: Functions,
    pub(super) router: Router,
}

/// Settings, and what is made of them. An attempt that fails is made again with the next
/// event: S3 may have stumbled, or the key may not have been put there yet.
pub(super) struct Start {
    settings: Settings,
    started: OnceCell<Started>,
}

impl Start {
    pub(super) fn new(settings: Settings) -> Self {
        Start { settings, started: OnceCell::new() }
    }

    pub(super) async fn get(&self) -> Result<&Started, Error> {
        self.started.get_or_try_init(|| Box::pin(self.begin())).await
    }

    async fn begin(&self) -> Result<Started, Error> {
        let settings = &self.settings;
        let registry_key = read_key(&aws::s3(&settings.aws), &settings.keys_bucket).await?;
        let functions = Functions::new(Config {
            table: settings.table.clone(),
            staging_bucket: settings.staging_bucket.clone(),
            public_bucket: settings.public_bucket.clone(),
            origin: settings.origin.as_str().to_owned(),
            registry_key,
            aws: settings.aws.clone(),
            public_s3_endpoint: settings.public_s3_endpoint.clone(),
            // Any number of functions work at the same time.
            sole_writer: false,
            clock: Config::system_clock(),
        })
        .await?;
        Ok(Started { router: functions.router(), functions })
    }
}

/// Reads the registry's key. What is wrong with it is told without a byte of it.
async fn read_key(client: &Client, bucket: &str) -> Result<SigningKey, Error> {
    let wrong = |rule| Error::Config { setting: "registry.key in MODUNEST_KEYS_BUCKET", rule };
    let fetched = match fetch(client, bucket, KEY_OBJECT.to_owned(), KEY_MAX_BYTES).await? {
        Fetch::Found(fetched) => fetched,
        Fetch::Absent => return Err(wrong("is not there: put the registry's key into the bucket")),
        Fetch::TooLong => return Err(wrong("is longer than a key")),
    };
    let text = std::str::from_utf8(&fetched.bytes).map_err(|_| wrong("is not text"))?;
    text.trim().parse().map_err(|_| wrong("is not a signing key as `modunest key new` writes it"))
}
