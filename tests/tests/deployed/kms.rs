//! Checkpoints and heads signed by keys that never leave KMS, which here is another's emulator
//! of it (ministack): the sequencer runs as a function, and the ceremony fetches the public halves.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use aws_sdk_s3::Client;
use modunest_core::index::Head;
use modunest_core::trust;
use modunest_tests::deployed::{create_table, environment, registry_keys};
use modunest_tests::lambda::{Lambda, SEQUENCE, scheduled};
use modunest_tests::process::{Process, run, until};
use modunest_tests::registry::{ORIGIN, command};
use modunest_tests::site::{KEYS, PUBLIC, Store};
use modunest_tests::tools;
use modunest_tlog::SignedCheckpoint;
use serde_json::{Value, json};
use tempfile::TempDir;

const REGION: &str = "eu-central-1";

struct Kms {
    url: String,
    http: reqwest::Client,
    #[allow(dead_code, reason = "ended when dropped")]
    process: Process,
}

impl Kms {
    async fn start(folder: &Path) -> Kms {
        // Free now; the emulator takes a number only.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(tools::python("ministack"));
        command
            .current_dir(folder)
            .env("GATEWAY_PORT", port.to_string())
            .env("SERVICES", "kms")
            // Listeners of services that nobody here asks.
            .env("SFTP_ENABLED", "0")
            .env("IOT_MTLS_ENABLED", "0");
        let mut process = Process::start("ministack", command, folder);
        let (url, http) =
            (format!("http://127.0.0.1:{port}"), modunest_runtime::http::client().unwrap());
        until("the emulator of KMS", async || {
            assert_eq!(process.ended(), None, "it ended: {}", process.log());
            http.get(format!("{url}/_ministack/health")).send().await.ok()
        })
        .await;
        Kms { url, http, process }
    }

    async fn ask(&self, operation: &str, body: Value) -> Value {
        let who = format!(
            "AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/kms/aws4_request, SignedHeaders=host, Signature=00"
        );
        let asked = self.http.post(&self.url).header("authorization", who);
        let asked = asked.header("x-amz-target", format!("TrentService.{operation}"));
        let answer = asked.body(body.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.json().await.unwrap()
    }

    /// A new key, as settings name it.
    async fn key(&self, spec: &str) -> String {
        let made =
            self.ask("CreateKey", json!({ "KeySpec": spec, "KeyUsage": "SIGN_VERIFY" })).await;
        format!("kms:{}", made["KeyMetadata"]["Arn"].as_str().unwrap())
    }
}

async fn object(s3: &Client, key: &str) -> Vec<u8> {
    let answer = s3.get_object().bucket(PUBLIC).key(key).send().await.unwrap();
    answer.body.collect().await.unwrap().to_vec()
}

/// The configuration that the ceremony writes for keys in KMS.
fn template(kms: &Kms, log: &str, head: &str) -> trust::Config {
    let [_, _, statement] = registry_keys(ORIGIN).verifying();
    let mut modunest = command();
    modunest
        .args(["trust", "template", "--origin", ORIGIN, "--log-key", log, "--head-key", head])
        .args(["--statement-key", &statement.to_string()])
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("MODUNEST_KMS_ENDPOINT", &kms.url);
    let done = run(&mut modunest);
    assert_eq!(done.code, Some(0), "{done:?}");
    trust::Config::parse(done.stdout.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_and_heads_are_signed_in_kms() {
    let folder = TempDir::new().unwrap();
    let kms = Kms::start(folder.path()).await;
    let (log, head) =
        (kms.key("ECC_NIST_EDWARDS25519").await, kms.key("ECC_NIST_EDWARDS25519").await);
    let store = Store::start().await;
    create_table(&store).await;
    let mut environment = environment(&store, ORIGIN).await;
    // Whoever read these all the same would fail.
    for object in ["log.key", "head.key"] {
        store.put_in(KEYS, object, b"no key").await;
    }
    environment.extend(
        [("MODUNEST_LOG_KEY", &log), ("MODUNEST_HEAD_KEY", &head)]
            .map(|(name, value)| (name.to_owned(), value.clone())),
    );
    environment.push(("MODUNEST_KMS_ENDPOINT".to_owned(), kms.url.clone()));
    let lambda = Lambda::start().await;
    lambda.run(SEQUENCE, &environment);
    lambda.invoke(SEQUENCE, &scheduled()).await.unwrap();

    let config = template(&kms, &log, &head);
    let bytes = object(&store.s3, "checkpoint").await;
    let checkpoint =
        SignedCheckpoint::verify(&bytes, ORIGIN, std::slice::from_ref(&config.log_key)).unwrap();
    assert_eq!(checkpoint.checkpoint.size, 0);
    let heads: Vec<_> = config.head_keys.0.iter().map(|known| known.key.clone()).collect();
    let bytes = object(&store.s3, "head").await;
    assert_eq!(Head::verify(&bytes, ORIGIN, &heads).unwrap().epoch, 1);
    assert!(Head::verify(&bytes, ORIGIN, std::slice::from_ref(&config.log_key)).is_err());
    store.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_kind_or_none_is_refused_with_the_rule() {
    let folder = TempDir::new().unwrap();
    let kms = Kms::start(folder.path()).await;
    let good = kms.key("ECC_NIST_EDWARDS25519").await;
    let other = kms.key("ECC_NIST_P256").await;
    let (start, last) = good.split_at(good.len() - 1);
    let absent = format!("{start}{}", if last == "0" { "1" } else { "0" });
    let store = Store::start().await;
    create_table(&store).await;
    let lambda = Lambda::start().await;
    for (key, said) in [(&other, "ECC_NIST_EDWARDS25519"), (&absent, "NotFoundException")] {
        let mut environment = environment(&store, ORIGIN).await;
        environment.push(("MODUNEST_LOG_KEY".to_owned(), key.clone()));
        environment.push(("MODUNEST_KMS_ENDPOINT".to_owned(), kms.url.clone()));
        lambda.run(SEQUENCE, &environment);
        let failed = lambda.invoke(SEQUENCE, &scheduled()).await.unwrap_err().to_string();
        assert!(failed.contains(said), "{failed}");
        lambda.kill(SEQUENCE);
    }
    assert!(store.s3.get_object().bucket(PUBLIC).key("head").send().await.is_err());
    store.stop().await;
}
