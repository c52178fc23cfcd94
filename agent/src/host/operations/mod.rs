//! What plugins may ask of their host, carried out: the host's side of
//! [`modunest_sdk::operation`].
//!
//! Every tier hands an operation to [`Operations::serve`], which knows the plugin's effective
//! capabilities and quotas. Nothing here trusts what a plugin sends: each request is parsed
//! with bounds, and each name is checked against what was granted.

mod deadline;
mod environment;
mod files;
mod meter;
mod outbound;
mod resources;
mod store;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use modunest_core::capability::{Capability, Decision, Effective, Outcome, is_free};
use modunest_core::manifest::Manifest;
use modunest_core::name::PluginName;
use modunest_sdk::{Error, operation};

use crate::config::Grants;
use crate::config::grants::Quota;
use crate::embed::Hooks;
use crate::host::cell::Cell;
use crate::host::drive::block_on;
use crate::host::process;
use crate::secrets::{OpenConfig, SecretError, open_config};
use crate::status::CapabilityStatus;

pub(super) use deadline::Deadline;
use meter::{Line, Meter};
pub use resources::Resources;

/// How long nothing is said of lines of the log that were dropped.
const UNTOLD_MAX: Duration = Duration::from_secs(5);

/// What one instance of a plugin may use, and what it uses it through.
pub(crate) struct Operations {
    plugin: PluginName,
    effective: Effective,
    quota: Quota,
    meter: Arc<Meter>,
    resources: Arc<Resources>,
    /// Operations whose denial was logged already: a plugin that insists fills no log.
    logged: Mutex<BTreeSet<u32>>,
}

/// Folders and files of the host that a plugin may use by itself, for a kernel to enforce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileAccess {
    /// To be read.
    pub read: Vec<PathBuf>,
    /// To be read and written. The private folder is among them, if it was granted.
    pub write: Vec<PathBuf>,
}

impl Operations {
    /// Works out what a plugin may use.
    pub(super) fn new(manifest: &Manifest, grants: &Grants, resources: &Arc<Resources>) -> Self {
        Operations {
            plugin: manifest.name.clone(),
            effective: grants.effective(manifest),
            quota: grants.quota(&manifest.name),
            meter: resources.meter(&manifest.name),
            resources: resources.clone(),
            logged: Mutex::default(),
        }
    }

    /// What the program around this host plugged into it.
    fn hooks(&self) -> &Hooks {
        self.resources.hooks()
    }

    /// What the plugin may use.
    pub(crate) fn effective(&self) -> &Effective {
        &self.effective
    }

    /// Whether an instance with the other may go on as one with this.
    pub(super) fn is_same(&self, other: &Operations) -> bool {
        self.effective == other.effective && self.quota == other.quota
    }

    /// Logs the first denial of each operation; all are counted by the plugin's meter.
    pub(super) fn log_denial(&self, operation: u32, reason: &str) {
        if meter::lock(&self.logged).insert(operation) {
            tracing::warn!(plugin = %self.plugin, operation, reason, "denied; more of this kind are counted only");
        }
    }

    /// Whether a line of the plugin's may be written to the log. How many may not is said in one
    /// line every [`UNTOLD_MAX`].
    pub(super) fn may_log(&self) -> bool {
        let Quota { log_lines_burst: burst, log_lines_per_second: per_s, .. } = self.quota;
        let line = self.meter.line(burst, per_s, Instant::now());
        if line == Line::FirstDropped {
            let (plugin, meter) = (self.plugin.clone(), self.meter.clone());
            process::later(UNTOLD_MAX, move || {
                let dropped = meter.untold_lines();
                tracing::warn!(
                    %plugin,
                    dropped,
                    "lines of the plugin were dropped: it may write {per_s} a second, and {burst} at once"
                );
            });
        }
        line == Line::Written
    }

    /// Carries out an operation. Blocks, until `deadline` at the latest where it waits for
    /// others.
    ///
    /// # Errors
    /// As [`modunest_sdk::operation`] says.
    pub(super) fn serve(
        &self,
        number: u32,
        request: &[u8],
        deadline: Deadline,
    ) -> Result<Vec<u8>, Error> {
        use operation as op;
        match number {
            op::STORE_GET..=op::STORE_SWAP => store::serve(self, number, request, deadline),
            op::FILE_READ..=op::FILE_PRIVATE_FOLDER => files::serve(self, number, request),
            op::HTTP_SEND => block_on(self.send(request, deadline)),
            op::CLOCK_WALL..=op::ENVIRONMENT => environment::serve(self, number, request),
            _ => Err(Error::Unsupported(format!("this host knows no operation {number}"))),
        }
    }

    /// [`operation::HTTP_SEND`] as a future, which holds no thread while it waits.
    ///
    /// # Errors
    /// As [`modunest_sdk::operation`] says.
    pub(super) async fn send(&self, request: &[u8], deadline: Deadline) -> Result<Vec<u8>, Error> {
        outbound::send(self, request, deadline).await
    }

    /// Counts the private folder and holds it against the quota. Blocks.
    pub(super) fn look_into_folder(&self, now: Instant) -> files::Look {
        files::look(self, now)
    }

    /// Denies what is not allowed, with the way out.
    fn need(&self, used: &Capability) -> Result<(), Error> {
        if self.effective.allows(used) { Ok(()) } else { Err(self.denied(used)) }
    }

    fn denied(&self, used: &Capability) -> Error {
        let plugin = &self.plugin;
        let asked = self.effective.decisions().iter().any(|one| one.asked.covers(used));
        Error::Denied(if asked {
            format!("{plugin} is not granted {used}; {}", way_out(plugin, [used]))
        } else {
            format!("{plugin} does not ask for {used} in its manifest")
        })
    }

    /// The plugin's configuration with its secrets, for its `create` alone.
    ///
    /// # Errors
    /// A secret cannot be opened.
    pub(super) fn open_config(&self, config: &[u8]) -> Result<OpenConfig, SecretError> {
        open_config(&self.plugin, config, || self.resources.host_key())
    }
}

impl Cell {
    /// What the kernel may let a native plugin use. Makes the private folder.
    ///
    /// # Errors
    /// The private folder cannot be made.
    pub fn file_access(&self) -> Result<FileAccess, Error> {
        let mut access = FileAccess::default();
        for allowed in self.operations().effective().allowed() {
            match allowed {
                Capability::PrivateFiles => {
                    access.write.push(files::private_folder(self.operations())?)
                }
                Capability::ReadFiles(path) => access.read.push(path.into()),
                Capability::WriteFiles(path) => access.write.push(path.into()),
                _ => {}
            }
        }
        Ok(access)
    }

    /// What the plugin asks for, and what came of each.
    pub(crate) fn capabilities(&self) -> Vec<CapabilityStatus> {
        let status = |decision: &Decision| {
            let (word, parts) = match &decision.outcome {
                Outcome::Granted if is_free(&decision.asked) => ("free", &[][..]),
                Outcome::Granted => ("granted", &[][..]),
                Outcome::Narrowed(parts) => ("narrowed", parts.as_slice()),
                Outcome::Refused if self.manifest().is_optional(&decision.asked) => {
                    ("refused-optional", &[][..])
                }
                Outcome::Refused => ("refused", &[][..]),
            };
            CapabilityStatus {
                asked: decision.asked.to_string(),
                outcome: word.to_owned(),
                parts: parts.iter().map(ToString::to_string).collect(),
            }
        };
        self.operations().effective().decisions().iter().map(status).collect()
    }
}

/// What the operator would have to add.
fn way_out<'c>(plugin: &PluginName, missing: impl IntoIterator<Item = &'c Capability>) -> String {
    let texts: Vec<String> = missing.into_iter().map(|one| format!("\"{one}\"")).collect();
    format!(
        "to grant it, add to the configuration: [[grant]] with plugins = [\"{plugin}\"] and allow = [{}]",
        texts.join(", ")
    )
}

/// Why a plugin is not loaded: something without which it does not work is refused.
pub(super) fn refusal(manifest: &Manifest, grants: &Grants) -> Option<String> {
    let effective = grants.effective(manifest);
    let missing: Vec<&Capability> =
        effective.refused().filter(|asked| !manifest.is_optional(asked)).collect();
    if missing.is_empty() {
        return None;
    }
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    Some(format!(
        "it needs {}, which it is not granted; {}",
        names.join(", "),
        way_out(&manifest.name, missing)
    ))
}
