//! Functions under a Lambda runtime: the emulator of cargo-lambda, and the functions' own
//! programs, as built, each asking it for work as on Lambda.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use url::Url;

use crate::process::{Process, program, until};
use crate::tools;

/// The function behind the API.
pub const API: &str = "modunest-api";
/// The function that checks uploads.
pub const FINALIZE: &str = "modunest-finalize";
/// The function that looks at the head on a schedule.
pub const SEQUENCE: &str = "modunest-sequence";
/// The function that takes over what is left, on a schedule.
pub const SWEEP: &str = "modunest-sweep";

/// How long an invocation may take, as a function's own limit would say.
const INVOCATION_LIMIT: Duration = Duration::from_secs(30);
/// The emulator's own limit, in seconds. It holds for a function's wait for work too, which on
/// Lambda has no limit: longer than any test.
const EMULATOR_LIMIT_S: u64 = 3600;
/// How often an invocation looks whether its function still lives.
const LOOK: Duration = Duration::from_millis(20);

/// An emulator with functions.
pub struct Lambda {
    port: u16,
    http: reqwest::Client,
    /// Dropped, and so ended, before the emulator.
    functions: Mutex<BTreeMap<String, Process>>,
    #[allow(dead_code, reason = "ended when dropped")]
    emulator: Process,
    folder: TempDir,
}

/// Why an invocation came to nothing.
#[derive(Debug)]
pub struct Failed(pub String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Lambda {
    /// Starts an emulator without functions.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start() -> Arc<Lambda> {
        let folder = TempDir::new().unwrap();
        // Free now; the emulator takes a number only.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(tools::python("cargo-lambda"));
        command
            .args(["lambda", "watch", "--only-lambda-apis", "--disable-cors"])
            .args(["--invoke-address", "127.0.0.1", "--invoke-port", &port.to_string()])
            .args(["--timeout", &EMULATOR_LIMIT_S.to_string()])
            // It knows functions by the programs of the workspace.
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        let mut emulator = Process::start("cargo-lambda", command, folder.path());
        until("the Lambda emulator", async || {
            assert_eq!(emulator.ended(), None, "the emulator ended: {}", emulator.log());
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        let http = modunest_runtime::http::client().unwrap();
        Arc::new(Lambda { port, http, functions: Mutex::default(), emulator, folder })
    }

    /// Starts a function's program, with this environment and nothing else of Lambda's.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, function: &str, environment: &[(String, String)]) {
        let mut command = Command::new(program(function));
        command
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("AWS_LAMBDA_RUNTIME_API", format!("http://127.0.0.1:{}/.rt/{function}", self.port))
            .env("AWS_LAMBDA_FUNCTION_NAME", function)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
            .env("AWS_LAMBDA_LOG_FORMAT", "JSON");
        let process = Process::start(function, command, self.folder.path());
        self.functions.lock().unwrap().insert(function.to_owned(), process);
    }

    /// Ends a function's program as a crash would.
    ///
    /// # Panics
    /// When it was never started.
    pub fn kill(&self, function: &str) {
        self.functions.lock().unwrap().get_mut(function).unwrap().kill();
    }

    /// Whether a function's program has ended.
    ///
    /// # Panics
    /// When it was never started.
    pub fn has_ended(&self, function: &str) -> bool {
        self.functions.lock().unwrap().get_mut(function).unwrap().ended().is_some()
    }

    /// What a function has logged since it was started last.
    ///
    /// # Panics
    /// When it was never started.
    pub fn log(&self, function: &str) -> String {
        self.functions.lock().unwrap()[function].log()
    }

    /// The URL of a function that answers HTTP.
    ///
    /// # Panics
    /// Never: the address is one.
    pub fn url(&self, function: &str) -> Url {
        format!("http://127.0.0.1:{}/lambda-url/{function}/", self.port).parse().unwrap()
    }

    /// Invokes a function with an event.
    ///
    /// # Errors
    /// When the function fails, or dies on it.
    ///
    /// # Panics
    /// When the emulator does not answer.
    pub async fn invoke(&self, function: &str, event: &Value) -> Result<Value, Failed> {
        let port = self.port;
        let url = format!("http://127.0.0.1:{port}/2015-03-31/functions/{function}/invocations");
        let invocation = async {
            let answer = self.http.post(url).json(event).send().await.unwrap();
            let failed = !answer.status().is_success()
                || answer.headers().contains_key("x-amz-function-error");
            let text = answer.text().await.unwrap();
            if failed { Err(Failed(text)) } else { Ok(serde_json::from_str(&text).unwrap()) }
        };
        let death = async {
            while !self.has_ended(function) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            outcome = invocation => outcome,
            () = death => Err(Failed(format!("{function} has ended"))),
            () = tokio::time::sleep(INVOCATION_LIMIT) => {
                Err(Failed(format!("{function} took longer than {INVOCATION_LIMIT:?}")))
            }
        }
    }

    /// Gives a storage event to a function as a queue's batch of one message. The queue's
    /// promise is its caller's: to give it again until this succeeds.
    ///
    /// # Errors
    /// When the function fails, or says that it could not do the message.
    pub async fn deliver(&self, function: &str, event: &Value) -> Result<(), Failed> {
        let batch = queue_batch(&[("message-1", event)]);
        let answer = self.invoke(function, &batch).await?;
        match answer["batchItemFailures"].as_array() {
            Some(failures) if failures.is_empty() => Ok(()),
            Some(failures) => Err(Failed(format!("{failures:?}"))),
            None => Err(Failed(format!("no batchItemFailures in {answer}"))),
        }
    }
}

/// A batch of messages (AWS Lambda Developer Guide, "Using Lambda with Amazon SQS").
pub fn queue_batch(messages: &[(&str, &Value)]) -> Value {
    let now = millis().to_string();
    let record = |(id, body): &(&str, &Value)| {
        json!({
            "messageId": id,
            "receiptHandle": format!("receipt-{id}"),
            "body": body.to_string(),
            "attributes": {
                "ApproximateReceiveCount": "1",
                "SentTimestamp": now,
                "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                "ApproximateFirstReceiveTimestamp": now,
            },
            "messageAttributes": {},
            "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:modunest-uploads",
            "awsRegion": "eu-central-1",
        })
    };
    json!({ "Records": messages.iter().map(record).collect::<Vec<_>>() })
}

/// What a schedule sends (Amazon EventBridge User Guide, "Scheduled events").
pub fn scheduled() -> Value {
    json!({
        "version": "0",
        "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": "2026-11-22T18:00:00Z",
        "region": "eu-central-1",
        "resources": ["arn:aws:events:eu-central-1:123456789012:rule/modunest"],
        "detail": {},
    })
}

fn millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}
