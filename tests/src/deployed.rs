//! A registry out of the parts that are deployed, each in a runtime like that of its platform:
//! the worker in workerd, the functions under a Lambda runtime, with queue and schedules, over
//! DynamoDB and S3. The native shell stands for the CDN in front of the public bucket.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Response;
use modunest_core::api::{CreateToken, Discovery, PROTOCOL_VERSION, TokenCreated};
use modunest_core::authorise::Scope;
use modunest_functions::{Config, Functions, Keys};
use modunest_local::Subscription;
use modunest_tlog::VerifyingKey;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use url::Url;

use crate::client::Client;
use crate::lambda::{API, FINALIZE, Lambda, SEQUENCE, SWEEP, scheduled};
use crate::registry::{ORIGIN, command, signing_key};
use crate::site::{KEYS, PUBLIC, STAGING, Server, Store, TABLE};
use crate::workerd::{Setup, Worker};

/// Keys of a registry.
pub fn registry_keys(origin: &str) -> Keys {
    let key = |seed| signing_key(origin, seed);
    Keys { log: key(7).into(), head: key(8).into(), statement: key(9) }
}

/// The environment of every function, as `template.yaml` sets it and Lambda adds to it. Puts the
/// registry's keys where functions look for it.
///
/// # Panics
/// When the store does not take the key.
pub async fn environment(store: &Store, origin: &str) -> Vec<(String, String)> {
    for (object, seed) in [("log.key", 7), ("head.key", 8), ("statement.key", 9)] {
        store.put_in(KEYS, object, signing_key(origin, seed).expose().as_bytes()).await;
    }
    let settings = &store.settings;
    let endpoint = |endpoint: &Option<String>| endpoint.clone().unwrap();
    [
        ("MODUNEST_ORIGIN", origin.to_owned()),
        ("MODUNEST_TABLE", TABLE.to_owned()),
        ("MODUNEST_STAGING_BUCKET", STAGING.to_owned()),
        ("MODUNEST_PUBLIC_BUCKET", PUBLIC.to_owned()),
        ("MODUNEST_KEYS_BUCKET", KEYS.to_owned()),
        ("MODUNEST_S3_ENDPOINT", endpoint(&settings.s3_endpoint)),
        ("MODUNEST_DYNAMODB_ENDPOINT", endpoint(&settings.dynamodb_endpoint)),
        ("AWS_REGION", settings.region.clone()),
        ("AWS_ACCESS_KEY_ID", settings.access_key_id.clone()),
        ("AWS_SECRET_ACCESS_KEY", settings.secret_access_key.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// How often the schedules fire: for tests more often than `template.yaml` says.
const SCHEDULE: Duration = Duration::from_secs(2);

/// The registry.
pub struct Deployed {
    /// Where readers and publishers reach it.
    pub url: Url,
    /// Its keys: of the log, of heads and of statements.
    pub keys: Vec<VerifyingKey>,
    /// The functions.
    pub lambda: Arc<Lambda>,
    /// What every function is told.
    pub environment: Vec<(String, String)>,
    /// Tables and buckets.
    pub store: Store,
    /// A token that may only count downloads.
    pub count_token: TokenCreated,
    admin: TokenCreated,
    folder: TempDir,
    schedules: JoinHandle<()>,
    // In the order in which they end.
    #[allow(dead_code, reason = "ended when dropped")]
    worker: Worker,
    #[allow(dead_code, reason = "ended when dropped")]
    gateway: Server,
    /// The native shell, which stands for the CDN.
    pub cdn: Server,
}

impl Deployed {
    /// Deploys it, as the README says: resources, key, functions, first token, worker.
    ///
    /// # Panics
    /// When a part does not come up.
    pub async fn start() -> Deployed {
        let lambda = Lambda::start().await;
        let queue = Arc::clone(&lambda);
        let uploads = Subscription::new(STAGING, move |event| {
            let lambda = Arc::clone(&queue);
            async move { lambda.deliver(FINALIZE, &event).await }
        });
        let store = Store::start_with(vec![uploads]).await;
        create_table(&store).await;
        let environment = environment(&store, ORIGIN).await;
        for function in [API, FINALIZE, SEQUENCE, SWEEP] {
            lambda.run(function, &environment);
        }
        let first = lambda.invoke(SEQUENCE, &json!({ "bootstrap": true })).await.unwrap();
        let admin: TokenCreated = serde_json::from_value(first).unwrap();
        lambda.invoke(SEQUENCE, &scheduled()).await.unwrap();
        let count_token = count_token(&lambda.url(API), &admin).await;

        // Free now; it must be known before the worker takes it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url: Url = format!("http://127.0.0.1:{port}/").parse().unwrap();
        let keys = registry_keys(ORIGIN).verifying().to_vec();
        let key_texts: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let discovery = Discovery {
            protocols: vec![PROTOCOL_VERSION],
            origin: ORIGIN.to_owned(),
            api: url.join("/v1/").unwrap().to_string(),
            files: url.to_string(),
            keys: key_texts.clone(),
        };
        let cdn = Server::native(&store, None, discovery).await;
        // As API Gateway has it: a host of its own, without a path.
        let gateway = gateway(lambda.url(API)).await;
        let worker = Setup::new()
            .port(port)
            .var("REGISTRY_ORIGIN", ORIGIN)
            .var("REGISTRY_KEYS", key_texts.join(" "))
            .var("PUBLIC_URL", url.as_str())
            .var("API_URL", gateway.url.as_str())
            .var("ORIGIN_URL", cdn.url.as_str())
            .var("SECOND_ORIGIN_URL", "")
            .secret("COUNT_TOKEN", count_token.token.clone())
            .start()
            .await;
        assert_eq!(worker.front, url);
        let schedules = tokio::spawn(schedules(Arc::clone(&lambda)));
        let folder = TempDir::new().unwrap();
        Deployed {
            url,
            keys,
            lambda,
            environment,
            store,
            count_token,
            admin,
            folder,
            schedules,
            worker,
            gateway,
            cdn,
        }
    }

    /// The API, as the administrator.
    pub fn admin(&self) -> Client {
        Client::new(self.url.clone(), Some(self.admin.token.clone()))
    }

    /// A file of the test's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `modunest` with the administrator's profile.
    ///
    /// # Panics
    /// When the profile cannot be written.
    pub fn modunest(&self) -> Command {
        let (profile, token) = (self.file("profile.toml"), self.file("token"));
        std::fs::write(&token, &self.admin.token).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        let keys: Vec<String> = self.keys.iter().map(|key| format!("\"{key}\"")).collect();
        let text = format!(
            "url = \"{}\"\norigin = \"{ORIGIN}\"\nkeys = [{}]\ntoken_file = \"token\"\n",
            self.url,
            keys.join(", ")
        );
        std::fs::write(&profile, text).unwrap();
        let mut command = command();
        command.arg("--profile").arg(profile).env("XDG_CACHE_HOME", self.file("cache"));
        command
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        self.schedules.abort();
    }
}

/// Makes the table, as `template.yaml` does.
///
/// # Panics
/// When it cannot be made.
pub async fn create_table(store: &Store) {
    let functions = Functions::new(Config {
        table: TABLE.to_owned(),
        staging_bucket: STAGING.to_owned(),
        public_bucket: PUBLIC.to_owned(),
        origin: ORIGIN.to_owned(),
        keys: registry_keys(ORIGIN),
        trust: None,
        online_key: None,
        aws: store.settings.clone(),
        public_s3_endpoint: None,
        sole_writer: false,
        clock: Config::system_clock(),
    });
    functions.await.unwrap().create_table().await.unwrap();
}

async fn count_token(api: &Url, admin: &TokenCreated) -> TokenCreated {
    let request = CreateToken {
        user: None,
        scopes: vec![Scope::Count],
        label: "the edge".to_owned(),
        lifetime_secs: 86_400,
    };
    // Its URL has a path, which the harness's client would lose.
    let http = modunest_runtime::http::client().unwrap();
    let asked = http.post(api.join("v1/tokens").unwrap()).bearer_auth(&admin.token).json(&request);
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 201, "{answer:?}");
    answer.json().await.unwrap()
}

async fn schedules(lambda: Arc<Lambda>) {
    loop {
        tokio::time::sleep(SCHEDULE).await;
        for function in [SEQUENCE, SWEEP] {
            // One that fails is followed by the next, as on a schedule.
            if let Err(failed) = lambda.invoke(function, &scheduled()).await {
                #[allow(clippy::print_stderr)]
                {
                    eprintln!("{function}: {failed}");
                }
            }
        }
    }
}

/// What an HTTP API does in front of its function: gives it a host without a path.
async fn gateway(function: Url) -> Server {
    let http = modunest_runtime::http::client().unwrap();
    let router = Router::new().fallback(move |request: Request| {
        let (http, function) = (http.clone(), function.clone());
        async move { pass(&http, &function, request).await }
    });
    Server::start(router).await
}

async fn pass(http: &reqwest::Client, function: &Url, request: Request) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let url = format!("{}{}", function.as_str().trim_end_matches('/'), parts.uri);
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    parts.headers.remove("host");
    let passed = http.request(parts.method, url).headers(parts.headers).body(body);
    let answer = passed.send().await.unwrap();
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove("transfer-encoding");
    let mut response = Response::new(Body::from(answer.bytes().await.unwrap()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
