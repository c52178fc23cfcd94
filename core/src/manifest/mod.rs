//! `plugin.toml`: the only file that a plugin's author writes.
//!
//! [`Manifest::parse`] reports every broken rule at once, each with its place, the rule and
//! a way out, so that an author fixes a manifest in one round. [`SCHEMA`] says the same to
//! editors; a test keeps the two in step. A manifest's digest is the SHA-256 of the file's
//! bytes: nothing is ever written back in another form.
//!
//! ```toml
//! [plugin]
//! name = "demo/gallery"
//! version = "1.0.0"
//! description = "Shows a folder of Markdown and images as a page"
//! authors = ["Ada Example"]
//! license = "MIT OR Apache-2.0"
//!
//! [host]
//! abi = 1
//!
//! [dependencies]
//! "demo/markdown" = "^1"
//!
//! [[import]]
//! plugin = "demo/markdown"
//! service = "render"
//!
//! [[route]]
//! path = "/gallery"
//! methods = ["GET"]
//! ```
//!
//! Out of scope: whether dependencies exist, and whether files named here are in the archive
//! (see [`Manifest::file_names`]).

mod life;
mod links;
mod problem;
mod read;
mod sections;
mod suggest;
pub mod text;
mod values;

#[cfg(test)]
mod tests;

use semver::Version;
use serde::Serialize;

use crate::name::PluginName;
use crate::relation::{Dependency, HostRequirement, Incompatibility, ServiceExport};

pub use crate::capability::{Capability, PluginItem};
pub use life::{Activation, Cron, LOAD_TIMEOUT_MAX_MS, Life, Schedule, StateSchema};
pub use links::{Event, Guard, GuardUse, Import, QUEUE_DEFAULT, QUEUE_MAX, Service, WhenFull};
pub use problem::{ManifestError, ManifestProblem};

/// Largest manifest: generous for a file that people write, small enough to fetch unasked.
pub const MANIFEST_MAX_BYTES: usize = 64 * 1024;
/// Most problems reported for one file; a file with more is not a manifest.
pub const PROBLEMS_MAX: usize = 100;
/// Most entries in a list that a release statement repeats; as many as it holds.
pub const LIST_MAX: usize = 64;

/// JSON Schema (draft 2020-12) of `plugin.toml`, for editors.
pub const SCHEMA: &str = include_str!("../../schema/plugin.schema.json");

/// What a plugin says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// `org/name`.
    pub name: PluginName,
    /// Semver version, without build metadata.
    pub version: Version,
    /// What it does, 10 to 500 characters.
    pub description: String,
    /// Who wrote it, at least one.
    pub authors: Vec<String>,
    /// SPDX licence expression.
    pub license: String,
    /// README within the archive.
    pub readme: Option<String>,
    /// Words to be found by.
    pub keywords: Vec<String>,
    /// Whether a host without this plugin is not ready.
    pub critical: bool,
    /// ABI and host versions.
    pub host: HostRequirement,
    /// Plugins it needs.
    pub dependencies: Vec<Dependency>,
    /// Plugins it must not stand beside.
    pub incompatible: Vec<Incompatibility>,
    /// Services it exports.
    pub services: Vec<Service>,
    /// Services of other plugins that it calls.
    pub imports: Vec<Import>,
    /// Paths of the host's gateway that it answers.
    pub routes: Vec<Route>,
    /// Guards it defines.
    pub guards: Vec<Guard>,
    /// Events it publishes and receives.
    pub events: Vec<Event>,
    /// JSON Schema of its configuration, a file within the archive.
    pub config_schema: Option<String>,
    /// When it is loaded.
    pub life: Life,
    /// The form of its snapshots; absent where a successor takes nothing over.
    pub state: Option<StateSchema>,
    /// Calls by the clock.
    pub schedules: Vec<Schedule>,
    /// What it asks the host's operator for, in the order of the file's groups, optional ones
    /// last.
    pub capabilities: Vec<Capability>,
    /// Those of them without which it loads as well: it finds them denied when it tries.
    pub optional_capabilities: Vec<Capability>,
    /// How it is built and packed.
    pub build: BuildSettings,
}

/// A path that a plugin answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Path with `{name}` for a segment that varies. A path also answers what is below it.
    pub path: String,
    /// HTTP methods, upper case.
    pub methods: Vec<String>,
    /// Guards that must all allow a request, in order.
    pub guards: Vec<GuardUse>,
    /// What it takes beyond messages of a bounded size.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stream: Vec<RouteStream>,
}

/// What a route takes beyond messages of a bounded size. Answers that stream need no word here,
/// server-sent events among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteStream {
    /// Bodies above the limit of one message: the plugin reads them piece by piece.
    Upload,
    /// WebSockets.
    Websocket,
}

impl RouteStream {
    /// The word in a manifest.
    pub const WORDS: [(&'static str, Self); 2] =
        [("upload", Self::Upload), ("websocket", Self::Websocket)];
}

impl Route {
    /// Whether it takes this.
    pub fn takes(&self, what: RouteStream) -> bool {
        self.stream.contains(&what)
    }
}

/// How `modunest build` and `modunest pack` make the archives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildSettings {
    /// Cargo library name of the native build; absent when there is none.
    pub native: Option<String>,
    /// The component build; absent when there is none.
    pub wasm: Option<WasmBuild>,
    /// Further files and folders that are packed.
    pub include: Vec<String>,
}

/// A build as a WebAssembly component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WasmBuild {
    /// Cargo library name.
    pub library: String,
    /// Version of the WIT world.
    pub world: Version,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// Every broken rule with its place; only the syntax errors when the text is not TOML.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        sections::parse(text)
    }

    /// Reads a manifest as an archive holds it.
    ///
    /// # Errors
    /// As [`Manifest::parse`]; also when the bytes are not UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text),
            Err(error) => Err(ManifestError::not_utf8(bytes, error.valid_up_to())),
        }
    }

    /// Everything the operator must grant, as a release statement lists it: `group:detail`,
    /// in the order of [`Manifest::asks`].
    pub fn capability_texts(&self) -> Vec<String> {
        self.asks().iter().map(ToString::to_string).collect()
    }

    /// Everything the operator must grant: first what the manifest declares, then what its
    /// imports and events imply.
    pub fn asks(&self) -> Vec<Capability> {
        let imports = self.imports.iter().map(|import| Capability::Services(import.item.clone()));
        let events = self.events.iter().filter_map(|event| {
            let plugin = event.from.clone()?;
            Some(Capability::Events(PluginItem { plugin, item: event.name.clone() }))
        });
        let mut asks = Vec::new();
        for capability in self.capabilities.iter().cloned().chain(imports).chain(events) {
            if !asks.contains(&capability) {
                asks.push(capability);
            }
        }
        asks
    }

    /// Whether the plugin loads without a capability that it asks for: one that it calls
    /// optional, or one of an optional dependency.
    pub fn is_optional(&self, asked: &Capability) -> bool {
        let of_optional = |plugin: &PluginName| {
            self.dependencies.iter().any(|one| one.optional && one.plugin == *plugin)
        };
        match asked {
            Capability::Services(of) | Capability::Events(of) if of_optional(&of.plugin) => true,
            asked => self.optional_capabilities.contains(asked),
        }
    }

    /// The services as a release statement lists them.
    pub fn exports(&self) -> Vec<ServiceExport> {
        self.services.iter().map(|service| service.export.clone()).collect()
    }

    /// Files that the manifest names and every archive must therefore hold.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        let services = self.services.iter().flat_map(|s| s.request.iter().chain(&s.response));
        let events = self.events.iter().filter_map(|event| event.schema.as_ref());
        let files = self.readme.iter().chain(&self.config_schema);
        files.chain(services).chain(events).map(String::as_str)
    }
}

/// What holds for any bytes; the fuzz target and the corpus test call this.
///
/// # Panics
/// When a promise is broken: that is a bug in the parser.
#[doc(hidden)]
pub fn check_invariants(bytes: &[u8]) {
    match Manifest::parse_bytes(bytes) {
        Ok(manifest) => {
            assert!(bytes.len() <= MANIFEST_MAX_BYTES);
            assert!(manifest.capability_texts().len() <= LIST_MAX);
            for text in manifest.capability_texts() {
                assert_eq!(text.parse::<Capability>().map(|c| c.to_string()), Ok(text));
            }
        }
        Err(error) => {
            assert!((1..=PROBLEMS_MAX).contains(&error.problems().len()));
            assert!(!error.to_string().is_empty());
        }
    }
}
