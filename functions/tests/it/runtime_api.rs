//! A minimal Lambda Runtime API (Lambda Developer Guide, "Using the Lambda runtime API"),
//! and a program of ours as its function: a real process.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use modunest_core::time::Timestamp;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc};

use crate::registry::Registry;

/// How long the runtime waits for anything: far longer than a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Event {
    payload: Value,
    deadline: Timestamp,
}

struct Api {
    events: Mutex<mpsc::Receiver<Event>>,
    answers: mpsc::Sender<Result<Value, Value>>,
    polled: mpsc::Sender<Instant>,
}

/// A function under the runtime.
pub struct Lambda {
    /// From the spawn of the process to its first poll.
    pub first_poll_after: Duration,
    /// What an invocation may take.
    pub time_limit: Duration,
    events: mpsc::Sender<Event>,
    answers: mpsc::Receiver<Result<Value, Value>>,
    _process: Child,
}

async fn next(State(api): State<Arc<Api>>) -> ([(&'static str, String); 4], String) {
    // Only the first poll is waited for.
    let _later = api.polled.try_send(Instant::now());
    // When the test is over nobody answers any more.
    let Some(event) = api.events.lock().await.recv().await else { std::future::pending().await };
    let headers = [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned()),
        ("lambda-runtime-deadline-ms", event.deadline.as_millis().to_string()),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:local:000000000000:function:test".to_owned(),
        ),
        (
            "lambda-runtime-trace-id",
            "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1".to_owned(),
        ),
    ];
    (headers, event.payload.to_string())
}

async fn answered(
    State(api): State<Arc<Api>>,
    Path((_, how)): Path<(String, String)>,
    body: String,
) -> StatusCode {
    let value = serde_json::from_str(&body).unwrap_or(Value::String(body));
    let answer = if how == "response" { Ok(value) } else { Err(value) };
    api.answers.send(answer).await.unwrap();
    StatusCode::ACCEPTED
}

fn command(program: &str, environment: &[(&str, String)]) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (*name, value.clone())))
        .env("AWS_LAMBDA_FUNCTION_NAME", "test")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1024")
        .kill_on_drop(true);
    command
}

impl Lambda {
    /// Starts a program and waits for its first poll.
    pub async fn start(program: &str, registry: &Registry) -> Lambda {
        let (events, incoming) = mpsc::channel(1);
        let (answers, outgoing) = mpsc::channel(1);
        let (polled, mut first_poll) = mpsc::channel(1);
        let api = Api { events: Mutex::new(incoming), answers, polled };
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{how}", post(answered))
            .with_state(Arc::new(api));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let began = Instant::now();
        let process = command(program, &registry.environment())
            .env("AWS_LAMBDA_RUNTIME_API", address)
            .spawn()
            .unwrap();
        let polled = tokio::time::timeout(PATIENCE, first_poll.recv()).await.unwrap().unwrap();
        Lambda {
            first_poll_after: polled - began,
            time_limit: PATIENCE,
            events,
            answers: outgoing,
            _process: process,
        }
    }

    /// What the function says to an event: an answer, or an error.
    pub async fn invoke(&mut self, payload: Value) -> Result<Value, Value> {
        let deadline = modunest_runtime::clock::now().plus(self.time_limit);
        self.events.send(Event { payload, deadline }).await.unwrap();
        tokio::time::timeout(PATIENCE, self.answers.recv()).await.unwrap().unwrap()
    }
}

/// A program with an environment in which it cannot start.
pub async fn fails_to_start(program: &str, environment: &[(&str, String)]) -> Output {
    let child = command(program, environment)
        .env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap()
}
