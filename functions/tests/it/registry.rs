//! A registry of its own for each test, over real embedded services.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use modunest_core::api::{
    OrgView, PublishResponse, RegisterKey, SessionView, StatementResponse, TokenCreated, Upload,
};
use modunest_core::index::{Bin, Head, IndexFile, Node, Slot, prove};
use modunest_core::keys::{ObjectKey, SessionId};
use modunest_core::problem::Problem;
use modunest_core::publish::State;
use modunest_core::statement::{
    Authorities, OrgState, PluginState, RegistryKeys, SignedStatement, Subject,
};
use modunest_functions::{Config, Functions, Keys};
use modunest_local::{BoundServices, LocalServices, Subscription};
use modunest_runtime::aws::Settings;
use modunest_tlog::SigningKey;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::faulty::Faulty;

pub const ORIGIN: &str = "test.modunest";
const STAGING: &str = "staging";
const PUBLIC: &str = "public";
const KEYS: &str = "keys";

pub struct Registry {
    pub functions: Functions,
    pub admin: String,
    pub keys: Keys,
    pub s3: aws_sdk_s3::Client,
    services: LocalServices,
    router: axum::Router,
    http: reqwest::Client,
    ahead_ms: Arc<AtomicU64>,
    config: Config,
}

pub struct Publisher {
    pub key: SigningKey,
    pub token: String,
}

/// A call of a process's routes.
pub async fn send(
    router: &axum::Router,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> (StatusCode, Value) {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if let Some(context) = modunest_runtime::trace::current() {
        request = request.header("traceparent", context.to_string());
    }
    let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
    let response = router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status();
    if !(method == "GET" && status == StatusCode::OK && path.ends_with("/downloads")) {
        assert_eq!(response.headers()["cache-control"], "no-store", "{path}");
    }
    assert!(response.headers().contains_key("traceparent"));
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let value =
        if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
    (status, value)
}

impl Registry {
    /// With storage events delivered as they come.
    pub async fn start() -> Self {
        Self::start_with(true).await
    }

    /// Without storage events: the test delivers them.
    pub async fn start_silent() -> Self {
        Self::start_with(false).await
    }

    async fn start_with(events: bool) -> Self {
        let bound = BoundServices::bind(modunest_local::Config {
            data_dir: None,
            s3_listen: "127.0.0.1:0".parse().unwrap(),
            dynamodb_listen: "127.0.0.1:0".parse().unwrap(),
            access_key: "test".into(),
            secret_key: "a secret for tests only".into(),
            region: "local".into(),
            buckets: vec![STAGING.into(), PUBLIC.into(), KEYS.into()],
        })
        .unwrap();
        let aws = Settings {
            region: "local".into(),
            access_key_id: "test".into(),
            secret_access_key: "a secret for tests only".into(),
            session_token: None,
            s3_endpoint: Some(bound.s3_endpoint()),
            dynamodb_endpoint: Some(bound.dynamodb_endpoint()),
            kms_endpoint: None,
        };
        let key = |seed| SigningKey::from_seed(ORIGIN.parse().unwrap(), &[seed; 32]);
        let keys = Keys { log: key(7).into(), head: key(8).into(), statement: key(9) };
        let ahead_ms = Arc::new(AtomicU64::new(0));
        let ahead = ahead_ms.clone();
        let config = Config {
            table: "registry".into(),
            staging_bucket: STAGING.into(),
            public_bucket: PUBLIC.into(),
            origin: ORIGIN.into(),
            keys: keys.clone(),
            trust: None,
            online_key: None,
            aws: aws.clone(),
            public_s3_endpoint: None,
            sole_writer: false,
            clock: Arc::new(move || {
                modunest_runtime::clock::now()
                    .plus(Duration::from_millis(ahead.load(Ordering::SeqCst)))
            }),
        };
        let functions = Functions::new(config.clone()).await.unwrap();
        let mut subscriptions = Vec::new();
        if events {
            let functions = functions.clone();
            subscriptions.push(Subscription::new(STAGING, move |event| {
                let functions = functions.clone();
                async move { functions.finalize(&event).await }
            }));
        }
        let services = bound.serve(subscriptions).await.unwrap();
        functions.create_table().await.unwrap();
        functions.create_table().await.unwrap();
        let admin = functions.bootstrap().await.unwrap().unwrap().token;
        assert!(functions.bootstrap().await.unwrap().is_none());
        Registry {
            router: functions.router(),
            functions,
            admin,
            keys,
            s3: modunest_runtime::aws::s3(&aws),
            services,
            http: modunest_runtime::http::client().unwrap(),
            ahead_ms,
            config,
        }
    }

    pub async fn stop(self) {
        self.services.shutdown().await.unwrap();
    }

    /// Another process over the same services.
    pub async fn another(&self, sole_writer: bool) -> Functions {
        Functions::new(Config { sole_writer, ..self.config.clone() }).await.unwrap()
    }

    /// A way to the services on which things can go wrong.
    pub async fn faulty(&self, seed: u64) -> Faulty {
        let aws = &self.config.aws;
        let (s3, dynamodb) = (aws.s3_endpoint.as_deref(), aws.dynamodb_endpoint.as_deref());
        Faulty::start(s3.unwrap(), dynamodb.unwrap(), seed).await
    }

    /// Another process, on that way.
    pub async fn through(&self, faulty: &Faulty, sole_writer: bool) -> Functions {
        let aws = Settings {
            s3_endpoint: Some(faulty.s3.clone()),
            dynamodb_endpoint: Some(faulty.dynamodb.clone()),
            ..self.config.aws.clone()
        };
        Functions::new(Config { sole_writer, aws, ..self.config.clone() }).await.unwrap()
    }

    pub fn move_clock(&self, by: Duration) {
        self.ahead_ms.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub async fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        send(&self.router, method, path, token, body).await
    }

    /// A call that anybody may make, and caches answer for a while.
    pub async fn public<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["cache-control"], "public, max-age=300");
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// The environment of a Lambda function of this registry.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let aws = &self.config.aws;
        vec![
            ("MODUNEST_ORIGIN", ORIGIN.to_owned()),
            ("MODUNEST_TABLE", self.config.table.clone()),
            ("MODUNEST_STAGING_BUCKET", STAGING.to_owned()),
            ("MODUNEST_PUBLIC_BUCKET", PUBLIC.to_owned()),
            ("MODUNEST_KEYS_BUCKET", KEYS.to_owned()),
            ("AWS_REGION", aws.region.clone()),
            ("AWS_ACCESS_KEY_ID", aws.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", aws.secret_access_key.clone()),
            ("MODUNEST_S3_ENDPOINT", aws.s3_endpoint.clone().unwrap()),
            ("MODUNEST_DYNAMODB_ENDPOINT", aws.dynamodb_endpoint.clone().unwrap()),
        ]
    }

    /// Puts the registry's keys where functions read them.
    pub async fn put_keys(&self) {
        for (object, seed) in [("log.key", 7), ("head.key", 8), ("statement.key", 9)] {
            let key = SigningKey::from_seed(ORIGIN.parse().unwrap(), &[seed; 32]);
            let line = format!("{}\n", key.expose());
            let put = self.s3.put_object().bucket(KEYS).key(object);
            put.body(line.into_bytes().into()).send().await.unwrap();
        }
    }

    /// A session that cannot be read, and the storage event that speaks of it: what fails
    /// however often it is tried.
    pub async fn damaged_session(&self) -> Value {
        use aws_sdk_dynamodb::types::AttributeValue;
        let id = SessionId::from_bytes([0xda; 16]);
        let table = modunest_runtime::aws::dynamodb(&self.config.aws);
        let put = table.put_item().table_name(&self.config.table);
        put.item("pk", AttributeValue::S(format!("session#{id}")))
            .item("sk", AttributeValue::S("session".to_owned()))
            .send()
            .await
            .unwrap();
        Self::event(&format!("ready/{id}"))
    }

    /// Sets the epoch in the table's head, as a restore or an operator would.
    pub async fn set_head_epoch(&self, epoch: u64) {
        use aws_sdk_dynamodb::types::AttributeValue;
        let table = modunest_runtime::aws::dynamodb(&self.config.aws);
        let name = || AttributeValue::S("head".to_owned());
        table
            .update_item()
            .table_name(&self.config.table)
            .key("pk", name())
            .key("sk", name())
            .update_expression("SET #epoch = :epoch")
            .expression_attribute_names("#epoch", "epoch")
            .expression_attribute_values(":epoch", AttributeValue::N(epoch.to_string()))
            .send()
            .await
            .unwrap();
    }

    /// A call that succeeds.
    pub async fn ok<T: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> T {
        let (status, value) = self.call(method, path, Some(token), body).await;
        assert!(status.is_success(), "{method} {path}: {status} {value}");
        serde_json::from_value(value).unwrap()
    }

    /// A call that is refused.
    pub async fn refused(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Problem {
        let (status, value) = self.call(method, path, token, body).await;
        let problem: Problem = serde_json::from_value(value).unwrap();
        assert_eq!(status.as_u16(), problem.status);
        assert_eq!(problem.trace_id.len(), 32);
        problem
    }

    pub async fn token(&self, user: &str, scopes: &[&str]) -> String {
        let body = json!({"user": user, "scopes": scopes, "label": "test", "lifetime_secs": 3600});
        self.ok::<TokenCreated>("POST", "/v1/tokens", &self.admin, Some(&body)).await.token
    }

    /// An organisation with a publisher key; its owner is the administrator.
    pub async fn publisher(&self, org: &str) -> Publisher {
        self.ok::<OrgView>("POST", "/v1/orgs", &self.admin, Some(&json!({"org": org}))).await;
        let key = SigningKey::from_seed(org.parse().unwrap(), &[5; 32]);
        self.register(org, &key).await;
        Publisher { key, token: self.admin.clone() }
    }

    pub async fn register(&self, org: &str, key: &SigningKey) -> StatementResponse {
        let body = Self::registration(org, key);
        self.ok("POST", &format!("/v1/orgs/{org}/keys"), &self.admin, Some(&body)).await
    }

    pub fn registration(org: &str, key: &SigningKey) -> Value {
        let text = key.verifying_key().to_string();
        let proof =
            modunest_tlog::sign(&RegisterKey::proof_text(&org.parse().unwrap(), &text), &[key])
                .unwrap();
        json!({"key": text, "proof": String::from_utf8(proof).unwrap()})
    }

    pub fn publish_body(statement: &SignedStatement) -> Value {
        json!({"statement": String::from_utf8(statement.bytes().to_vec()).unwrap()})
    }

    pub async fn open(
        &self,
        publisher: &Publisher,
        statement: &SignedStatement,
    ) -> PublishResponse {
        self.ok("POST", "/v1/releases", &publisher.token, Some(&Self::publish_body(statement)))
            .await
    }

    pub async fn upload(&self, upload: &Upload, bytes: &[u8]) -> u16 {
        let mut request = self.http.put(&upload.url).body(bytes.to_vec());
        for (name, value) in &upload.headers {
            // Another length cannot be sent under the declared one; the signature must notice.
            if name != "content-length" || bytes.len() as u64 == upload.size_bytes {
                request = request.header(name, value);
            }
        }
        request.send().await.unwrap().status().as_u16()
    }

    pub async fn session(&self, publisher: &Publisher, id: SessionId) -> SessionView {
        self.ok("GET", &format!("/v1/sessions/{id}"), &publisher.token, None).await
    }

    /// Follows a session to its end.
    pub async fn follow(&self, publisher: &Publisher, id: SessionId) -> SessionView {
        for _ in 0..1000 {
            let view = self.session(publisher, id).await;
            if view.state.is_end() {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the session does not end: {:?}", self.session(publisher, id).await);
    }

    /// Publishes from the first request to the end of the session.
    pub async fn publish(
        &self,
        publisher: &Publisher,
        package: &crate::package::Package,
    ) -> SessionView {
        let opened = self.open(publisher, &package.sign(&publisher.key)).await;
        for upload in &opened.uploads {
            assert_eq!(self.upload(upload, &package.archive).await, 200);
        }
        self.follow(publisher, opened.session.unwrap()).await
    }

    pub async fn publish_ok(
        &self,
        publisher: &Publisher,
        package: &crate::package::Package,
    ) -> SessionView {
        let view = self.publish(publisher, package).await;
        assert_eq!(view.state, State::Published, "{view:?}");
        view
    }

    pub async fn object(&self, key: ObjectKey) -> Option<Vec<u8>> {
        let sent = self.s3.get_object().bucket(PUBLIC).key(key.to_string()).send().await;
        match sent {
            Ok(answer) => Some(answer.body.collect().await.unwrap().to_vec()),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_key()) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    pub async fn keys_in(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let listed = self.s3.list_objects_v2().bucket(bucket).prefix(prefix).send().await.unwrap();
        listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
    }

    /// What publishers and their sessions left in the staging bucket.
    pub async fn staged(&self) -> Vec<String> {
        let mut keys = self.keys_in(STAGING, "upload/").await;
        keys.extend(self.keys_in(STAGING, "ready/").await);
        keys
    }

    /// The storage event of a staging key.
    pub fn event(key: &str) -> Value {
        json!({"Records": [{"s3": {"bucket": {"name": STAGING}, "object": {"key": key}}}]})
    }

    pub async fn head(&self) -> Head {
        let bytes = self.object(ObjectKey::Head).await.unwrap();
        Head::verify(&bytes, ORIGIN, &[self.keys.head.verifying_key()]).unwrap()
    }

    /// Everything below the head, walked and proven as an agent does.
    pub async fn index(&self) -> BTreeMap<Subject, IndexFile> {
        let mut files = BTreeMap::new();
        let node = async |digest| {
            let bytes = self.object(ObjectKey::Node(digest)).await.unwrap();
            prove("node", digest, &bytes).unwrap();
            Node::parse(&bytes).unwrap()
        };
        for (place, digest) in node(self.head().await.index).await.children() {
            for (bin_place, digest) in node(digest).await.children() {
                let bytes = self.object(ObjectKey::Bin(digest)).await.unwrap();
                prove("bin", digest, &bytes).unwrap();
                let slot = Slot { node: place, bin: bin_place };
                for (subject, digest) in Bin::parse(slot, &bytes).unwrap().entries() {
                    let bytes = self.object(ObjectKey::Index(digest)).await.unwrap();
                    prove("index file", digest, &bytes).unwrap();
                    files.insert(subject.clone(), IndexFile::parse(subject, &bytes).unwrap());
                }
            }
        }
        files
    }

    fn registry_keys(&self) -> RegistryKeys {
        RegistryKeys::in_use([self.keys.statement.verifying_key()])
    }

    pub async fn org_state(&self, org: &str) -> OrgState {
        let mut state = OrgState::new(org.parse().unwrap());
        for (position, signed) in &self.index().await[&Subject::Org(org.parse().unwrap())].entries {
            state.apply(*position, signed, &self.registry_keys()).unwrap();
        }
        state
    }

    /// A plugin as an agent folds it, with every signature verified.
    pub async fn plugin_state(&self, plugin: &str) -> PluginState {
        let name: modunest_core::name::PluginName = plugin.parse().unwrap();
        let mut state = PluginState::new(name.clone());
        if let Some(file) = self.index().await.get(&Subject::Plugin(name)) {
            let mut orgs = BTreeMap::new();
            for org in file.orgs() {
                let folded = self.org_state(org.as_str()).await;
                orgs.insert(org, folded);
            }
            let authorities = Authorities { registry: &self.registry_keys(), orgs: &orgs };
            for (position, signed) in &file.entries {
                state.apply(*position, signed, authorities).unwrap();
            }
        }
        state
    }
}
