//! Where the traces of this process go.

use modunest_runtime::telemetry::{self, Exporter, Settings};

use crate::config::Config;
use crate::{Error, VERSION};

/// Records traces and exports them, where the configuration or the environment names a
/// collector. One process exports once, however many agents run in it, so this is for its
/// `main` to call.
///
/// # Errors
/// Settings that are not valid, or a second call.
pub fn export_traces(config: &Config) -> Result<Option<Exporter>, Error> {
    let endpoint = config.telemetry.otlp.as_ref().map(url::Url::as_str);
    match Settings::read(endpoint, "modunest-agent", VERSION)? {
        Some(settings) => Ok(Some(telemetry::start(settings)?)),
        None => Ok(None),
    }
}
