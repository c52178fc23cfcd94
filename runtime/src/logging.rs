//! Structured logs: for people on a terminal, JSON lines elsewhere. Always on standard
//! error; standard output belongs to what a command prints.

use std::io::{IsTerminal as _, Write};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// Environment variable with the filter, in `tracing_subscriber::EnvFilter`'s syntax.
pub const FILTER_VARIABLE: &str = "MODUNEST_LOG";
/// Environment variable that chooses `json` or `text` whatever standard error is.
pub const FORMAT_VARIABLE: &str = "MODUNEST_LOG_FORMAT";

/// What is logged when [`FILTER_VARIABLE`] is not set: the libraries' own chatter only from
/// warnings on. `s3s` calls every 404 and 304 an error; the embedded store logs real faults.
const DEFAULT_FILTER: &str = "warn,s3s=off,dynoxide=error,modunest=info,modunest_agent=info,\
modunest_core=info,modunest_edge=info,modunest_functions=info,modunest_local=info,\
modunest_runtime=info";

/// Libraries that log whole requests, with the tokens and presigned URLs in them, to whoever
/// asks for more. They stay at this level whatever the filter says.
const CAPPED: [&str; 9] = [
    "aws_runtime=info",
    "aws_sigv4=info",
    "aws_smithy_runtime=info",
    "h2=info",
    "hyper=info",
    "lambda_http=info",
    "lambda_runtime=info",
    "reqwest=info",
    "s3s=info",
];

/// Starts logging for this process; later calls change nothing. A filter that cannot be
/// read is reported and the default used.
pub fn init() {
    init_with_default(DEFAULT_FILTER);
}

/// As [`init`], with another filter for when none is set: commands that draw progress bars
/// keep quiet.
pub fn init_with_default(default: &str) {
    start(default, std::io::stderr);
}

/// As [`init`], with each line written by one call of a writer that is made for it. Whether it
/// goes to a terminal is still asked of standard error.
pub fn init_to<W: Write + 'static>(writer: impl Fn() -> W + Send + Sync + 'static) {
    start(DEFAULT_FILTER, writer);
}

fn start<W: Write + 'static>(default: &str, writer: impl Fn() -> W + Send + Sync + 'static) {
    let wanted = std::env::var(FILTER_VARIABLE).ok();
    let (filter, error) = match wanted.as_deref().map(EnvFilter::try_new) {
        None => (EnvFilter::new(default), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(default), Some(error)),
    };
    let capped = CAPPED.iter().filter_map(|directive| directive.parse().ok());
    let filter = capped.fold(filter, EnvFilter::add_directive);
    let json = match std::env::var(FORMAT_VARIABLE).as_deref() {
        Ok("json") => true,
        Ok("text") => false,
        _ => !std::io::stderr().is_terminal(),
    };
    let layer = if json {
        fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(writer).boxed()
    } else {
        fmt::layer().compact().with_target(false).with_writer(writer).boxed()
    };
    let started = tracing_subscriber::registry().with(filter).with(layer).try_init().is_ok();
    if let (true, Some(error)) = (started, error) {
        tracing::warn!(variable = FILTER_VARIABLE, %error, "the log filter cannot be read; using the default");
    }
}
