//! Batches of storage events: S3 tells a queue, and the queue tells this function.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use lambda_runtime::{LambdaEvent, service_fn};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::invocation;
use super::start::Start;
use crate::Functions;
use crate::error::Error;

/// Records looked at at once. Most wait for services; checks of archives have a bound of
/// their own.
const RECORDS_AT_ONCE: usize = 4;

/// A batch from a queue (Lambda Developer Guide, "Using Lambda with Amazon SQS"). Fields
/// that nobody reads are left out.
#[derive(Debug, Deserialize)]
pub struct SqsBatch {
    /// The messages.
    #[serde(rename = "Records")]
    pub records: Vec<SqsRecord>,
}

/// A message.
#[derive(Debug, Deserialize)]
pub struct SqsRecord {
    /// Names the message in the answer.
    #[serde(rename = "messageId")]
    pub message_id: String,
    /// An S3 event notification as JSON text.
    pub body: String,
}

/// Which messages are to be delivered again ("Implementing partial batch responses").
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct BatchAnswer {
    /// They; all others are done.
    #[serde(rename = "batchItemFailures")]
    pub failures: Vec<Failure>,
}

/// A message to deliver again.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its name.
    #[serde(rename = "itemIdentifier")]
    pub message_id: String,
}

pub(super) async fn serve(start: Arc<Start>) -> Result<(), lambda_runtime::Error> {
    let service = service_fn(move |event: LambdaEvent<SqsBatch>| {
        let start = Arc::clone(&start);
        async move {
            let LambdaEvent { payload, context } = event;
            invocation::run(&context, "finalize", async {
                let started = start.get().await.inspect_err(|error| {
                    tracing::error!(%error, "the function cannot begin; the queue delivers again");
                })?;
                let budget = invocation::budget(&context);
                Ok::<_, Error>(started.functions.finalize_batch(payload, budget).await)
            })
            .await
        }
    });
    lambda_runtime::run(service).await
}

impl Functions {
    /// Takes a batch of S3 event notifications within `budget`, and answers which of them
    /// are to be delivered again: those that a failing service or the end of the time kept
    /// from being taken. What is wrong with a release is a state of its session and no
    /// reason to deliver again; nor is a message that can never be read.
    pub async fn finalize_batch(&self, batch: SqsBatch, budget: Duration) -> BatchAnswer {
        let outcomes = stream::iter(batch.records)
            .map(|record| async move {
                let done = invocation::within(budget, self.finalize_record(&record)).await;
                let again = match done {
                    Some(Ok(())) => false,
                    Some(Err(error)) => {
                        tracing::warn!(message = record.message_id, %error, "a storage event failed; the queue delivers it again");
                        true
                    }
                    None => {
                        tracing::warn!(message = record.message_id, "the time was over before a storage event was taken; the queue delivers it again");
                        true
                    }
                };
                again.then_some(Failure { message_id: record.message_id })
            })
            .buffered(RECORDS_AT_ONCE);
        BatchAnswer { failures: outcomes.filter_map(std::future::ready).collect().await }
    }

    async fn finalize_record(&self, record: &SqsRecord) -> Result<(), Error> {
        let event: Value = match serde_json::from_str(&record.body) {
            Ok(event) => event,
            Err(error) => {
                tracing::error!(message = record.message_id, %error, "a message that is no JSON was dropped");
                return Ok(());
            }
        };
        // S3 sends it once, when the notification is set up.
        if event.get("Event").and_then(Value::as_str) == Some("s3:TestEvent") {
            tracing::info!(message = record.message_id, "S3 tells this function of uploads");
            return Ok(());
        }
        Box::pin(self.finalize(&event)).await
    }
}
