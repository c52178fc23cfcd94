//! From settings to a working [`Functions`], once, with the first event.

use aws_sdk_s3::Client;
use axum::Router;
use modunest_core::trust;
use modunest_runtime::aws;
use modunest_tlog::SigningKey;
use tokio::sync::OnceCell;

use super::Settings;
use crate::Functions;
use crate::config::Config;
use crate::error::Error;
use crate::kms::{KmsKey, KmsKeyId};
use crate::signing::{Keys, Signer};
use crate::storage::{Fetch, fetch};

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
        let s3 = aws::s3(&settings.aws);
        let bucket = &settings.keys_bucket;
        let (log, head, statement, trust, online_key) = tokio::try_join!(
            self.signer(
                &s3,
                settings.log_key.as_ref(),
                "log.key",
                "log.key in MODUNEST_KEYS_BUCKET"
            ),
            self.signer(
                &s3,
                settings.head_key.as_ref(),
                "head.key",
                "head.key in MODUNEST_KEYS_BUCKET"
            ),
            read_key(&s3, bucket, "statement.key", "statement.key in MODUNEST_KEYS_BUCKET"),
            read_trust(&s3, bucket, settings.trust_config.as_deref()),
            read_online_key(&s3, bucket),
        )?;
        let functions = Functions::new(Config {
            table: settings.table.clone(),
            staging_bucket: settings.staging_bucket.clone(),
            public_bucket: settings.public_bucket.clone(),
            origin: settings.origin.as_str().to_owned(),
            keys: Keys { log, head, statement },
            trust,
            online_key,
            aws: settings.aws.clone(),
            public_s3_endpoint: settings.public_s3_endpoint.clone(),
            // Any number of functions work at the same time.
            sole_writer: false,
            clock: Config::system_clock(),
        })
        .await?;
        Ok(Started { router: functions.router(), functions })
    }

    /// A key in KMS, where one is named; else the one in the bucket.
    async fn signer(
        &self,
        s3: &Client,
        in_kms: Option<&KmsKeyId>,
        object: &str,
        setting: &'static str,
    ) -> Result<Signer, Error> {
        let Settings { aws, origin, keys_bucket, .. } = &self.settings;
        match in_kms {
            Some(id) => KmsKey::open(aws, id.clone(), origin.clone()).await.map(Signer::Kms),
            None => read_key(s3, keys_bucket, object, setting).await.map(Signer::Here),
        }
    }
}

/// Reads one of the registry's keys. What is wrong with it is told without a byte of it.
async fn read_key(
    client: &Client,
    bucket: &str,
    object: &str,
    setting: &'static str,
) -> Result<SigningKey, Error> {
    let wrong = |rule| Error::Config { setting, rule };
    let fetched = match fetch(client, bucket, object.to_owned(), KEY_MAX_BYTES).await? {
        Fetch::Found(fetched) => fetched,
        Fetch::Absent => return Err(wrong("is not there: put the registry's key into the bucket")),
        Fetch::TooLong => return Err(wrong("is longer than a key")),
    };
    let text = std::str::from_utf8(&fetched.bytes).map_err(|_| wrong("is not text"))?;
    text.trim().parse().map_err(|_| wrong("is not a signing key as `modunest key new` writes it"))
}

/// The trust root's online key, where the operator put it.
async fn read_online_key(
    client: &Client,
    bucket: &str,
) -> Result<Option<trust::SigningKey>, Error> {
    let wrong = |rule| Error::Config { setting: "online.key in MODUNEST_KEYS_BUCKET", rule };
    let fetched = match fetch(client, bucket, "online.key".to_owned(), KEY_MAX_BYTES).await? {
        Fetch::Found(fetched) => fetched,
        Fetch::Absent => return Ok(None),
        Fetch::TooLong => return Err(wrong("is longer than a key")),
    };
    let key = std::str::from_utf8(&fetched.bytes).ok().and_then(|text| text.parse().ok());
    key.map(Some).ok_or(wrong("is no key as `modunest trust key new` writes it"))
}

/// Reads the trust configuration, where one is named.
async fn read_trust(
    client: &Client,
    bucket: &str,
    object: Option<&str>,
) -> Result<Option<trust::Config>, Error> {
    let Some(object) = object else { return Ok(None) };
    let wrong = |rule| Error::Config { setting: "MODUNEST_TRUST_CONFIG", rule };
    let max_bytes = trust::CONFIG_MAX_BYTES as u64;
    let fetched = match fetch(client, bucket, object.to_owned(), max_bytes).await? {
        Fetch::Found(fetched) => fetched,
        Fetch::Absent => return Err(wrong("names an object that is not in MODUNEST_KEYS_BUCKET")),
        Fetch::TooLong => return Err(wrong("names an object that is longer than one may be")),
    };
    trust::Config::parse(&fetched.bytes).map(Some).map_err(|error| {
        tracing::error!(%error, object, "the trust configuration cannot be used");
        wrong("names an object that is no trust configuration as `modunest trust` writes it")
    })
}
