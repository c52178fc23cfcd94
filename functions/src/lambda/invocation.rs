//! One invocation: its deadline, its trace and its span.

use std::time::Duration;

use lambda_runtime::{Context, Diagnostic};
use modunest_core::time::Timestamp;
use modunest_core::trace::TraceContext;
use modunest_runtime::{clock, trace};

use crate::error::Error;

/// What is left of an invocation's time for answering. At the deadline Lambda kills the
/// process, and with it the answer.
const ANSWER_TIME: Duration = Duration::from_millis(1_500);

/// No deadline of Lambda's lies before 2014, its first year. The emulator of cargo-lambda (1.9)
/// sends the milliseconds that are left instead of the time at which they are over.
const FIRST_DEADLINE_MS: u64 = 1_400_000_000_000;

/// What the runtime is told of a failed invocation: queue and schedule then try again.
impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        Diagnostic { error_type: "modunest".to_owned(), error_message: error.to_string() }
    }
}

/// How long the work of an invocation may take.
pub(super) fn budget(context: &Context) -> Duration {
    let left = match context.deadline {
        left_ms @ 0..FIRST_DEADLINE_MS => Duration::from_millis(left_ms),
        deadline_ms => Timestamp::from_millis(deadline_ms).since(clock::now()),
    };
    left.saturating_sub(ANSWER_TIME)
}

/// The outcome of work that ends within `budget`; what does not is dropped. Without any time
/// nothing is begun.
pub(super) async fn within<F: Future>(budget: Duration, work: F) -> Option<F::Output> {
    if budget.is_zero() {
        return None;
    }
    tokio::time::timeout(budget, work).await.ok()
}

/// Does the work of an invocation that no request began, inside its trace and span.
pub(super) async fn run<F: Future>(context: &Context, name: &'static str, work: F) -> F::Output {
    let parent = context.xray_trace_id.as_deref().and_then(from_xray);
    let step = parent.map_or_else(trace::root, trace::child_of);
    trace::scope(step, name, async {
        tracing::debug!(request_id = context.request_id, "invoked");
        work.await
    })
    .await
}

/// X-Ray's trace header as a W3C context: an X-Ray trace is 8 digits of time and 24 random
/// ones, together a W3C trace (AWS X-Ray Developer Guide, "Tracing header").
pub(super) fn from_xray(header: &str) -> Option<TraceContext> {
    let field = |name: &str| {
        header.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
    };
    let (time, random) = field("Root")?.strip_prefix("1-")?.split_once('-')?;
    let sampled = if field("Sampled") == Some("1") { "01" } else { "00" };
    format!("00-{time}{random}-{}-{sampled}", field("Parent")?).parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_goes_on_from_x_ray() {
        let context =
            from_xray("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1");
        let text = context.unwrap().to_string();
        assert_eq!(text, "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01");
        for bad in ["", "Root=1-2-3;Parent=4", "Root=1-5759e988-bd862e3fe1be46a994272793"] {
            assert_eq!(from_xray(bad), None, "{bad}");
        }
    }

    #[test]
    fn time_to_answer_is_kept() {
        let mut context = Context::default();
        assert_eq!(budget(&context), Duration::ZERO);
        context.deadline = clock::now().plus(Duration::from_secs(10)).as_millis();
        assert!(budget(&context) > Duration::from_secs(8));
        assert!(budget(&context) <= Duration::from_secs(10) - ANSWER_TIME);
        context.deadline = clock::now().as_millis() - 1;
        assert_eq!(budget(&context), Duration::ZERO);
        context.deadline = 600_000;
        assert_eq!(budget(&context), Duration::from_mins(10) - ANSWER_TIME);
    }
}
