//! Log lines: JSON, with the same names as those of the other processes.

use modunest_core::trace::TraceContext;
use worker::{console_error, console_log, console_warn};

/// Something was refused, as it should be.
pub fn info(message: &str, trace: &TraceContext, fields: &[(&str, &str)]) {
    console_log!("{}", line("INFO", message, Some(trace), fields));
}

/// Something that this depends on failed.
pub fn warn(message: &str, trace: &TraceContext, fields: &[(&str, &str)]) {
    console_warn!("{}", line("WARN", message, Some(trace), fields));
}

/// Something of ours failed.
pub fn error(message: &str, trace: Option<&TraceContext>, fields: &[(&str, &str)]) {
    console_error!("{}", line("ERROR", message, trace, fields));
}

fn line(
    level: &str,
    message: &str,
    trace: Option<&TraceContext>,
    fields: &[(&str, &str)],
) -> String {
    let mut object = serde_json::Map::new();
    let mut put = |name: &str, text: &str| object.insert(name.to_owned(), text.into());
    put("level", level);
    put("message", message);
    for (name, text) in fields {
        put(name, text);
    }
    if let Some(trace) = trace {
        put("trace_id", &trace.trace_id());
        put("span_id", &trace.span_id());
    }
    serde_json::Value::Object(object).to_string()
}
