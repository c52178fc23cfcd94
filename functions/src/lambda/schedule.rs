//! Schedules: the sequencer's heartbeat and the sweep; and what operators ask of the
//! sequencer by invoking it: a registry's first token, or another for whoever lost it.

use std::sync::Arc;
use std::time::Duration;

use lambda_runtime::{LambdaEvent, service_fn};
use modunest_core::api::TokenCreated;
use serde_json::Value;

use super::invocation;
use super::start::Start;
use crate::Functions;
use crate::error::Error;

/// What an invocation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Sequence,
    Sweep,
    /// The first token of a registry without users.
    Bootstrap,
    /// Another token of the first user.
    Recover,
}

impl Task {
    fn name(self) -> &'static str {
        match self {
            Task::Sequence => "sequence",
            Task::Sweep => "sweep",
            Task::Bootstrap => "bootstrap",
            Task::Recover => "recover",
        }
    }

    /// What an event asks for, at the function that does `usual` on its schedule. Operators
    /// send exactly `{"bootstrap":true}` or `{"recover":true}`, and schedules neither.
    fn of(usual: Task, event: &Value) -> Task {
        let asks = |name: &str| {
            let fields = event.as_object().filter(|fields| fields.len() == 1);
            fields.and_then(|fields| fields.get(name)).and_then(Value::as_bool) == Some(true)
        };
        match usual {
            Task::Sequence if asks("bootstrap") => Task::Bootstrap,
            Task::Sequence if asks("recover") => Task::Recover,
            usual => usual,
        }
    }
}

pub(super) async fn serve(start: Arc<Start>, usual: Task) -> Result<(), lambda_runtime::Error> {
    let service = service_fn(move |event: LambdaEvent<Value>| {
        let start = Arc::clone(&start);
        async move {
            let task = Task::of(usual, &event.payload);
            let budget = invocation::budget(&event.context);
            invocation::run(&event.context, task.name(), async {
                let work = async { carry_out(&start.get().await?.functions, task, budget).await };
                work.await.inspect_err(|error| {
                    tracing::warn!(%error, "failed; the next invocation goes on");
                })
            })
            .await
        }
    });
    lambda_runtime::run(service).await
}

/// Works until it is done or the time is over. Whatever is cut off then is as after a crash,
/// and the next invocation takes it over.
async fn carry_out(
    functions: &Functions,
    task: Task,
    budget: Duration,
) -> Result<Option<TokenCreated>, Error> {
    let work = async {
        match task {
            Task::Sequence => {
                let sequenced = Box::pin(functions.sequence()).await?;
                let renewed = Box::pin(functions.renew_trust()).await?;
                tracing::debug!(?sequenced, renewed, "sequenced");
            }
            Task::Sweep => {
                let swept = Box::pin(functions.sweep()).await?;
                tracing::debug!(?swept, "swept");
            }
            Task::Bootstrap => return functions.bootstrap().await,
            Task::Recover => return functions.recover().await.map(Some),
        }
        Ok(None)
    };
    match invocation::within(budget, work).await {
        Some(done) => done,
        None => {
            tracing::warn!(
                budget_ms = budget.as_millis(),
                "the time was over before the work was; the next invocation goes on"
            );
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_exact_words_make_a_token() {
        for (event, task) in [
            (json!({"bootstrap": true}), Task::Bootstrap),
            (json!({"recover": true}), Task::Recover),
            (json!({"recover": false}), Task::Sequence),
            (json!({"recover": "true"}), Task::Sequence),
            (json!({"recover": true, "source": "aws.events"}), Task::Sequence),
            (json!({"source": "aws.events"}), Task::Sequence),
            (json!("recover"), Task::Sequence),
        ] {
            assert_eq!(Task::of(Task::Sequence, &event), task, "{event}");
            assert_eq!(Task::of(Task::Sweep, &event), Task::Sweep, "{event}");
        }
    }
}
