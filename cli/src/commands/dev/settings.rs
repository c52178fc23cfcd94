//! The configuration of the agent that serves a plugin while it is written.

use std::path::{Path, PathBuf};

use modunest_core::manifest::Manifest;
use toml::{Table, Value};

use crate::error::Error;
use crate::registry::LocalRegistry;

/// File in the plugin's folder with more of the agent's configuration.
pub const FILE: &str = "dev.toml";
/// Tables of that file which this command says itself.
const TAKEN: [&str; 5] = ["state_dir", "gateway", "admin", "registry", "plugins"];

/// What an agent is told beside the plugins.
pub struct Settings {
    table: Table,
    /// The plugin's own configuration.
    config: Option<Value>,
    /// Where it is written.
    pub path: PathBuf,
}

impl Settings {
    /// An agent of `registry` alone, on loopback, with everything below `folder`; `more` is the
    /// plugin's own file of settings, if there is one.
    ///
    /// # Errors
    /// That file cannot be used.
    pub fn new(
        registry: &LocalRegistry,
        folder: &Path,
        gateway_port: u16,
        more: &Path,
    ) -> Result<Settings, Error> {
        let mut table = Table::new();
        let mut config = None;
        if more.is_file() {
            let text = std::fs::read_to_string(more).map_err(Error::file(more))?;
            let wrong = |rule: String| Error::Input(format!("{}: {rule}", more.display()));
            table = text.parse::<Table>().map_err(|error| wrong(error.to_string()))?;
            config = table.remove("config");
            if let Some(taken) = TAKEN.iter().find(|key| table.contains_key(**key)) {
                return Err(wrong(format!(
                    "{taken} is what `modunest dev` says itself; remove it"
                )));
            }
        }
        let text = |path: &Path| Value::from(path.display().to_string());
        table.insert("state_dir".to_owned(), text(&folder.join("agent")));
        let listen = |address: String| Table::from_iter([("listen".to_owned(), address.into())]);
        let gateway = listen(format!("127.0.0.1:{gateway_port}"));
        table.insert("gateway".to_owned(), gateway.into());
        let socket = folder.join("agent/admin.sock");
        table.insert("admin".to_owned(), listen(format!("unix:{}", socket.display())).into());
        let one = Table::from_iter([
            ("name".to_owned(), Value::from("dev")),
            ("url".to_owned(), registry.url.as_str().into()),
            ("origin".to_owned(), registry.profile.origin.as_str().into()),
            ("root".to_owned(), text(&registry.root_file)),
        ]);
        table.insert("registry".to_owned(), Value::Array(vec![one.into()]));
        Ok(Settings { table, config, path: folder.join("agent.toml") })
    }

    /// Writes what an agent needs to run exactly this build. Where the plugin's file of
    /// settings grants nothing, it is granted what it asks for.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, manifest: &Manifest) -> Result<(), Error> {
        let mut table = self.table.clone();
        let mut wanted = Table::new();
        wanted.insert("version".to_owned(), format!("={}", manifest.version).into());
        wanted.extend(self.config.clone().map(|config| ("config".to_owned(), config)));
        let name = manifest.name.to_string();
        let plugins = Table::from_iter([(name.clone(), Value::from(wanted))]);
        table.insert("plugins".to_owned(), plugins.into());
        let asked = manifest.capabilities.iter().chain(&manifest.optional_capabilities);
        let asked: Vec<Value> = asked.map(|one| one.to_string().into()).collect();
        if !asked.is_empty() && !table.contains_key("grant") {
            let grant = Table::from_iter([
                ("plugins".to_owned(), Value::Array(vec![name.into()])),
                ("allow".to_owned(), Value::Array(asked)),
            ]);
            table.insert("grant".to_owned(), Value::Array(vec![grant.into()]));
        }
        let text = toml::to_string(&table).map_err(|error| Error::Failed(error.to_string()))?;
        crate::files::write(&self.path, &text)
    }
}
