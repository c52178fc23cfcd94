//! The API's paths: the same table for the functions as they are, behind each edge, and under
//! a Lambda runtime.

use modunest_core::api::TokenCreated;
use modunest_functions::{Config, Functions};
use modunest_tests::lambda::{API, Lambda};
use modunest_tests::site::{PUBLIC, STAGING, Server, Store, TABLE};
use url::Url;

use crate::objects::{ORIGIN, Objects, discovery};
use crate::shells::worker_over_http;
use crate::table::{Names, differences, read};

const CASES: &str = include_str!("api.http");

struct Site {
    store: Store,
    token: TokenCreated,
    api: Server,
}

impl Site {
    async fn start() -> Site {
        let store = Store::start().await;
        let functions = Functions::new(Config {
            table: TABLE.to_owned(),
            staging_bucket: STAGING.to_owned(),
            public_bucket: PUBLIC.to_owned(),
            origin: ORIGIN.to_owned(),
            keys: modunest_tests::deployed::registry_keys(ORIGIN),
            trust: None,
            online_key: None,
            aws: store.settings.clone(),
            public_s3_endpoint: None,
            sole_writer: false,
            clock: Config::system_clock(),
        })
        .await
        .unwrap();
        functions.create_table().await.unwrap();
        let token = functions.bootstrap().await.unwrap().unwrap();
        functions.sequence().await.unwrap();
        let api = Server::start(functions.router()).await;
        Site { store, token, api }
    }

    async fn keeps_the_table(&self, shell: &'static str, base: &Url) {
        let objects = Objects::new();
        let further = vec![("token", self.token.token.clone()), ("shell", shell.to_owned())];
        let cases = read(CASES, &Names { objects: &objects, further });
        let wrong = differences(&cases, base, &objects).await;
        assert!(
            wrong.is_empty(),
            "{shell}: {} of {} answers differ\n\n{}",
            wrong.len(),
            cases.len(),
            wrong.join("\n\n")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_functions_themselves_and_behind_the_native_edge() {
    let site = Site::start().await;
    site.keeps_the_table("direct", &site.api.url).await;
    let native = Server::native(&site.store, Some(site.api.url.clone()), discovery()).await;
    site.keeps_the_table("native", &native.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_the_worker() {
    let site = Site::start().await;
    let native = Server::native(&site.store, None, discovery()).await;
    let worker = worker_over_http(&native.url, Some(&site.api.url)).await;
    site.keeps_the_table("worker", &worker.front).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_lambda_runtime() {
    let site = Site::start().await;
    let lambda = Lambda::start().await;
    let environment = modunest_tests::deployed::environment(&site.store, ORIGIN).await;
    lambda.run(API, &environment);
    site.keeps_the_table("lambda", &lambda.url(API)).await;
}
