//! `[admin]` and `[telemetry]`: where an operator sees what the agent does.
//!
//! ```toml
//! [admin]
//! listen = "unix:/run/modunest/admin.sock"   # else below state_dir; or "127.0.0.1:8081"
//!
//! [telemetry]
//! otlp = "http://127.0.0.1:4318"             # a collector of traces; else OTEL_* variables
//! ```

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::Listen;
use super::read::{Check, Server};

/// Longest path of a Unix socket, in bytes: 108 with a zero behind it (unix(7)).
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// What the agent's traces are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// Base URL of a collector that takes OTLP over HTTP; where there is none, the variable
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` says.
    pub otlp: Option<Url>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct TelemetryTable {
    otlp: Option<Spanned<String>>,
}

impl Check<'_> {
    pub(super) fn admin(&mut self, server: Option<Server>, state_dir: &Path) -> Option<Listen> {
        let Some(server) = server else {
            let listen = Listen::below(state_dir);
            let help = "choose a shorter one, or say where with admin.listen";
            self.socket_path(&listen, 0, "state_dir", help)?;
            return Some(listen);
        };
        let (listen, at) = self.listen("admin.listen", server)?;
        self.socket_path(&listen, at, "admin.listen", "choose a shorter path")?;
        Some(listen)
    }

    fn socket_path(&mut self, listen: &Listen, at: usize, key: &str, help: &str) -> Option<()> {
        let Listen::Unix(path) = listen else { return Some(()) };
        let length = path.as_os_str().as_bytes().len();
        if length <= SOCKET_PATH_MAX_BYTES {
            return Some(());
        }
        let rule = format!(
            "the admin socket {} would have {length} bytes, a socket's path has {SOCKET_PATH_MAX_BYTES} at most",
            path.display()
        );
        self.refuse(at, key, rule, help);
        None
    }

    pub(super) fn telemetry(&mut self, table: TelemetryTable) -> TelemetrySettings {
        let otlp = table.otlp.and_then(|text| {
            let url = Url::parse(text.get_ref());
            let url = url.ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            if url.is_none() {
                let rule = format!("\"{}\" is not an http or https URL", text.get_ref());
                let help = "for example \"http://127.0.0.1:4318\", a collector's base address";
                self.refuse(text.span().start, "telemetry.otlp", rule, help);
            }
            url
        });
        TelemetrySettings { otlp }
    }
}
