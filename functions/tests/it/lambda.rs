//! The Lambda programs as processes under a runtime, over the embedded services.

use std::time::Duration;

use modunest_core::problem::Problem;
use modunest_core::publish::State;
use modunest_core::statement::Link;
use modunest_functions::lambda::{SqsBatch, SqsRecord};
use serde_json::{Value, json};

use crate::package::package;
use crate::registry::Registry;
use crate::runtime_api::{Lambda, fails_to_start};

const API: &str = env!("CARGO_BIN_EXE_modunest-api");
const FINALIZE: &str = env!("CARGO_BIN_EXE_modunest-finalize");
const SEQUENCE: &str = env!("CARGO_BIN_EXE_modunest-sequence");
const SWEEP: &str = env!("CARGO_BIN_EXE_modunest-sweep");

/// Long enough for a process that was just compiled on a busy machine, and short enough to
/// tell a start that waits for a service's timeout.
const START_MAX: Duration = Duration::from_secs(5);

/// An event of an HTTP API, payload format 2.0, as API Gateway documents it.
fn http_event(method: &str, path: &str, headers: Value, body: Option<&Value>) -> Value {
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": headers,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "api-id",
            "domainName": "id.execute-api.local.amazonaws.com",
            "domainPrefix": "id",
            "http": {
                "method": method, "path": path, "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1", "userAgent": "agent"
            },
            "requestId": "id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "12/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1583348638390_u64
        },
        "body": body.map(ToString::to_string),
        "isBase64Encoded": false
    })
}

fn schedule_event() -> Value {
    json!({
        "version": "0", "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
        "detail-type": "Scheduled Event", "source": "aws.events", "account": "000000000000",
        "time": "2015-10-08T16:53:06Z", "region": "local", "resources": [], "detail": {}
    })
}

fn queue_event(bodies: &[String]) -> Value {
    let records: Vec<Value> = bodies
        .iter()
        .enumerate()
        .map(|(index, body)| {
            json!({
                "messageId": format!("message-{index}"), "receiptHandle": "handle", "body": body,
                "attributes": {"ApproximateReceiveCount": "1"}, "messageAttributes": {},
                "md5OfBody": "", "eventSource": "aws:sqs", "awsRegion": "local",
                "eventSourceARN": "arn:aws:sqs:local:000000000000:uploads"
            })
        })
        .collect();
    json!({ "Records": records })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_makes_the_head() {
    let registry = Registry::start_silent().await;
    registry.put_keys().await;
    let mut sequence = Lambda::start(SEQUENCE, &registry).await;
    assert!(sequence.first_poll_after < START_MAX, "{:?}", sequence.first_poll_after);
    assert_eq!(sequence.invoke(schedule_event()).await, Ok(Value::Null));
    assert_eq!(registry.head().await.epoch, 1);
    // Operators make tokens here: whoever may invoke the function has the table anyway.
    assert_eq!(sequence.invoke(json!({"bootstrap": true})).await, Ok(Value::Null));
    let made = sequence.invoke(json!({"recover": true})).await.unwrap();
    let token = made["token"].as_str().unwrap();
    let me: Value = registry.ok("GET", "/v1/whoami", token, None).await;
    assert_eq!(me["user"], "admin");
    // EventBridge's scheduler sends whatever the template says.
    assert_eq!(sequence.invoke(json!("anything")).await, Ok(Value::Null));
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_get_their_token_from_the_sequencer() {
    let registry = Registry::start_silent().await;
    registry.put_keys().await;
    let mut sequence = Lambda::start(SEQUENCE, &registry).await;
    // The registry of these tests has its first administrator already.
    assert_eq!(sequence.invoke(json!({"bootstrap": true})).await, Ok(Value::Null));
    let made = sequence.invoke(json!({"recover": true})).await.unwrap();
    let headers = json!({"authorization": format!("Bearer {}", made["token"].as_str().unwrap())});
    let mut api = Lambda::start(API, &registry).await;
    let answer = api.invoke(http_event("GET", "/v1/whoami", headers, None)).await.unwrap();
    assert_eq!(answer["statusCode"], 200, "{answer}");
    // Nobody else gives any.
    for payload in [json!({"bootstrap": true}), json!({"recover": true})] {
        let answer = api.invoke(payload.clone()).await;
        assert!(!format!("{answer:?}").contains("mnt_"), "{answer:?}");
        let mut sweep = Lambda::start(SWEEP, &registry).await;
        assert_eq!(sweep.invoke(payload).await, Ok(Value::Null));
    }
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_answers_as_everywhere() {
    let registry = Registry::start_silent().await;
    let mut api = Lambda::start(API, &registry).await;
    let who = |headers: Value| http_event("GET", "/v1/whoami", headers, None);

    // Without the key it says so, and begins once the key is there.
    let answer = api.invoke(who(json!({}))).await.unwrap();
    assert_eq!(answer["statusCode"], 503, "{answer}");
    registry.put_keys().await;

    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = api.invoke(who(json!({"traceparent": trace}))).await.unwrap();
    assert_eq!(answer["statusCode"], 401, "{answer}");
    assert_eq!(answer["headers"]["content-type"], "application/problem+json");
    assert_eq!(answer["headers"]["www-authenticate"], "Bearer");
    assert_eq!(answer["headers"]["cache-control"], "no-store");
    assert_eq!(answer["isBase64Encoded"], false);
    let problem: Problem = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(problem.trace_id, "0af7651916cd43dd8448eb211c80319c");

    let bearer = json!({"authorization": format!("Bearer {}", registry.admin)});
    let answer = api.invoke(who(bearer.clone())).await.unwrap();
    assert_eq!(answer["statusCode"], 200, "{answer}");
    assert!(answer["body"].as_str().unwrap().contains("\"user\":\"admin\""), "{answer}");
    // Without a trace of its own, a request continues X-Ray's.
    let traceparent = answer["headers"]["traceparent"].as_str().unwrap();
    assert!(traceparent.starts_with("00-5759e988bd862e3fe1be46a994272793-"), "{traceparent}");

    let org = json!({"org": "demo"});
    let answer = api.invoke(http_event("POST", "/v1/orgs", bearer.clone(), Some(&org))).await;
    assert_eq!(answer.unwrap()["statusCode"], 201);
    let large = json!({"org": "x".repeat(100_000)});
    let answer = api.invoke(http_event("POST", "/v1/orgs", bearer.clone(), Some(&large))).await;
    assert_eq!(answer.unwrap()["statusCode"], 413);

    // An invocation that has no time left answers instead of being killed.
    api.time_limit = Duration::from_millis(1);
    let answer = api.invoke(who(bearer)).await.unwrap();
    assert_eq!(answer["statusCode"], 503, "{answer}");
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_uploads_is_taken() {
    let registry = Registry::start_silent().await;
    registry.put_keys().await;
    let publisher = registry.publisher("demo").await;
    let package = package("demo/plugin", "1.0.0", Link::FIRST);
    let opened = registry.open(&publisher, &package.sign(&publisher.key)).await;
    assert_eq!(registry.upload(&opened.uploads[0], &package.archive).await, 200);
    let session = opened.session.unwrap();
    let upload = Registry::event(&format!("upload/{session}/{}", opened.uploads[0].archive));
    let damaged = registry.damaged_session().await;

    let mut finalize = Lambda::start(FINALIZE, &registry).await;
    let bodies = [
        json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "staging"}).to_string(),
        damaged.to_string(),
        upload.to_string(),
        "no JSON".to_owned(),
    ];
    let failures = json!({"batchItemFailures": [{"itemIdentifier": "message-1"}]});
    assert_eq!(finalize.invoke(queue_event(&bodies)).await, Ok(failures));
    assert_eq!(registry.session(&publisher, session).await.state, State::Published);

    // Delivered again, as queues do.
    let nothing = json!({"batchItemFailures": []});
    assert_eq!(finalize.invoke(queue_event(&[upload.to_string()])).await, Ok(nothing));

    // Without time nothing is taken, and so all is to be delivered again.
    finalize.time_limit = Duration::from_millis(1);
    let answer = finalize.invoke(queue_event(&[upload.to_string()])).await.unwrap();
    assert_eq!(answer["batchItemFailures"][0]["itemIdentifier"], "message-0");
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_message_of_three_is_delivered_again() {
    let registry = Registry::start_silent().await;
    let damaged = registry.damaged_session().await.to_string();
    let forgotten = Registry::event(&format!("ready/{:032x}", 7)).to_string();
    let bodies = [forgotten.clone(), damaged, forgotten];
    let records = bodies
        .into_iter()
        .zip(1..)
        .map(|(body, number)| SqsRecord { message_id: format!("message-{number}"), body });
    let batch = SqsBatch { records: records.collect() };
    let answer = registry.functions.finalize_batch(batch, Duration::from_secs(60)).await;
    let again: Vec<_> = answer.failures.into_iter().map(|failure| failure.message_id).collect();
    assert_eq!(again, ["message-2"]);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweep_finishes_within_its_time() {
    let registry = Registry::start_silent().await;
    registry.put_keys().await;
    let mut sweep = Lambda::start(SWEEP, &registry).await;
    sweep.time_limit = Duration::from_millis(1);
    assert_eq!(sweep.invoke(schedule_event()).await, Ok(Value::Null));
    assert!(registry.keys_in("public", "head").await.is_empty());
    sweep.time_limit = Duration::from_secs(60);
    assert_eq!(sweep.invoke(schedule_event()).await, Ok(Value::Null));
    assert_eq!(registry.head().await.epoch, 1);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_setting_is_named_and_no_secret_is() {
    let registry = Registry::start_silent().await;
    for program in [API, FINALIZE, SEQUENCE, SWEEP] {
        let mut environment = registry.environment();
        environment.retain(|(name, _)| *name != "MODUNEST_TABLE");
        let output = fails_to_start(program, &environment).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{said}");
        assert!(said.contains("MODUNEST_TABLE is not set"), "{said}");
        assert!(!said.contains("a secret for tests only"), "{said}");
    }
    registry.stop().await;
}
