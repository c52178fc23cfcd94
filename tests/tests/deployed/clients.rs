//! Clients that others wrote.

use std::io::Write as _;
use std::process::{Command, Stdio};

use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_core::publish::State;
use modunest_core::statement::Link;
use modunest_tests::fixtures::Plugin;
use modunest_tests::process::run;
use modunest_tests::registry::Registry;
use modunest_tests::tools;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cache::{Readers, large};

/// Uploads with the HTTP client of another SDK, as the API's answer says; and then, as the
/// operator, lists with that SDK what lies in the staging bucket.
const PYTHON: &str = r#"
import json, sys
import boto3, botocore.config
from botocore.awsrequest import AWSRequest
from botocore.httpsession import URLLib3Session
told = json.load(sys.stdin)
session = URLLib3Session(timeout=30)

def put(body):
    headers = {**told["upload"]["headers"], "content-length": str(len(body))}
    request = AWSRequest(told["upload"]["method"], told["upload"]["url"], headers, body)
    return session.send(request.prepare()).status_code

right = open(told["file"], "rb").read()
wrong = bytearray(right)
wrong[len(wrong) // 2] ^= 1
statuses = {"wrong": put(bytes(wrong)), "longer": put(right + b"x"), "right": put(right)}
statuses["again"] = put(right)

s3 = boto3.client("s3", endpoint_url=told["s3"], region_name="local",
    aws_access_key_id="modunest-local", aws_secret_access_key=told["secret"],
    config=botocore.config.Config(s3={"addressing_style": "path"}))
staged = s3.list_objects_v2(Bucket="modunest-staging")
statuses["staged"] = [one["Size"] for one in staged.get("Contents", [])]
print(json.dumps(statuses))
"#;

fn python(told: &Value) -> Value {
    let mut child = Command::new(tools::python("python"))
        .args(["-c", PYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(told.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn python_uploads_as_the_api_says() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let package = Plugin::new("acme/one", "1.0.0").pack();
    let opened = publisher.open(&publisher.sign(&package, Link::FIRST)).await.unwrap();
    let file = registry.folder.file("archive.zip");
    std::fs::write(&file, &package.archive).unwrap();
    let secret = std::fs::read_to_string(registry.folder.data().join("s3.secret")).unwrap();
    let told = json!({
        "upload": opened.uploads[0],
        "file": file,
        "s3": registry.started.s3,
        "secret": secret.trim(),
    });
    let statuses = python(&told);
    // Another byte breaks the checksum, another length the signature; twice is once.
    assert_eq!(statuses["wrong"], 400, "{statuses}");
    assert_eq!(statuses["longer"], 403, "{statuses}");
    assert_eq!(statuses["right"], 200, "{statuses}");
    assert_eq!(statuses["again"], 412, "{statuses}");
    let view = publisher.follow(opened.session.unwrap()).await;
    assert_eq!(view.state, State::Published, "{view:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_resumes_a_download() {
    let content = large();
    let key = ObjectKey::Blob(Digest::of(&content));
    let readers = Readers::start(&[(key, &content)]).await;
    for (shell, base) in [("native", &readers.native.url), ("worker", &readers.worker.url)] {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("archive.zip");
        for there in [0, 1, content.len() / 3, content.len() - 1] {
            std::fs::write(&file, &content[..there]).unwrap();
            let mut curl = Command::new(tools::system("curl", "curl"));
            curl.args(["--silent", "--show-error", "--fail", "--continue-at", "-", "--output"])
                .arg(&file)
                .args(["--write-out", "%{http_code} %{size_download}"])
                .arg(base.join(&key.path()).unwrap().as_str());
            let finished = run(&mut curl).good();
            let status = if there == 0 { 200 } else { 206 };
            let fetched = content.len() - there;
            assert_eq!(finished.stdout, format!("{status} {fetched}"), "{shell} from {there}");
            assert!(std::fs::read(&file).unwrap() == content, "{shell} from {there}");
        }
    }
}
