//! `[host.component]`: plugins that are WebAssembly components.
//!
//! ```toml
//! [host.component]
//! prefer = "native"               # or "component", where a release has both
//! own_process = "verified"        # or another trust level, or "never"
//! runner = ["demo/*"]             # in a process of their own, whatever their trust level
//! memory_max_mib = 128            # of each plugin
//! stores = { "demo/markdown" = 4 }   # for plugins that keep no state of their own
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use modunest_core::name::PluginName;
use modunest_core::statement::TrustLevel;
use serde::Deserialize;
use toml::Spanned;

use super::Pattern;
use super::read::Check;

/// Bytes of a mebibyte.
const MIB: u64 = 1024 * 1024;
/// Least memory of a component, in mebibytes: the smallest that Rust makes begins with one.
const MEMORY_MIN_MIB: u64 = 2;
/// Most memory of a component, in mebibytes: all that its 32-bit addresses reach.
const MEMORY_MAX_MIB: u64 = 4096;
/// Most stores of one component: each may take the memory above.
const STORES_MAX: u64 = 64;

/// How components run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentSettings {
    /// Whether the component is taken where a release has a native build that fits as well.
    pub prefer: bool,
    /// The trust level from which components run in the agent's own process; `None` for never.
    /// Others run in a process of their own, behind the sandbox of native plugins.
    pub own_process: Option<TrustLevel>,
    /// Plugins whose components run in a process of their own at every trust level.
    pub runner: Vec<Pattern>,
    /// Memory that one store of a component may take, in bytes.
    pub memory_max_bytes: u64,
    /// Stores of plugins that get more than one. Such a plugin serves as many calls at the same
    /// time, and each store keeps what state it has for itself.
    pub stores: BTreeMap<PluginName, usize>,
    /// Where compiled components are kept; `None` compiles at each start. Set by whoever knows
    /// the agent's own folder.
    pub cache: Option<PathBuf>,
}

impl ComponentSettings {
    /// Stores that a plugin gets.
    pub fn stores_of(&self, plugin: &PluginName) -> usize {
        self.stores.get(plugin).copied().unwrap_or(1)
    }

    /// Whether the operator wants a plugin in a process of its own, whatever its trust level.
    pub fn runs_in_runner(&self, plugin: &PluginName) -> bool {
        self.runner.iter().any(|pattern| pattern.matches(plugin))
    }

    /// Where compiled components are kept below an agent's own folder.
    pub fn cache_in(state_dir: &std::path::Path) -> Option<PathBuf> {
        Some(state_dir.join("compiled"))
    }
}

impl Default for ComponentSettings {
    fn default() -> Self {
        ComponentSettings {
            prefer: false,
            own_process: Some(TrustLevel::Verified),
            runner: Vec::new(),
            memory_max_bytes: 128 * MIB,
            stores: BTreeMap::new(),
            cache: None,
        }
    }
}

/// The table as it stands in the file.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct ComponentTable {
    prefer: Option<Spanned<String>>,
    own_process: Option<Spanned<String>>,
    #[serde(default)]
    runner: Vec<Spanned<String>>,
    memory_max_mib: Option<Spanned<u64>>,
    #[serde(default)]
    stores: BTreeMap<PluginName, Spanned<u64>>,
}

impl Check<'_> {
    pub(super) fn component(&mut self, table: ComponentTable) -> ComponentSettings {
        let mut settings = ComponentSettings::default();
        if let Some(text) = table.prefer {
            match text.get_ref().as_str() {
                "native" => settings.prefer = false,
                "component" => settings.prefer = true,
                other => {
                    let rule = format!("\"{other}\" is neither \"native\" nor \"component\"");
                    let help = "\"native\" takes the component only where no native build fits";
                    self.refuse(text.span().start, "host.component.prefer", rule, help);
                }
            }
        }
        if let Some(text) = table.own_process {
            match text.get_ref().as_str() {
                "never" => settings.own_process = None,
                level => match level.parse() {
                    Ok(level) => settings.own_process = Some(level),
                    Err(error) => {
                        let rule = format!("\"{level}\": {error}");
                        let help = "name the trust level from which on, or \"never\"; \"verified\" is the default";
                        self.refuse(text.span().start, "host.component.own_process", rule, help);
                    }
                },
            }
        }
        settings.runner = self.patterns("host.component.runner", table.runner);
        let memory_mib = self.number(
            "host.component.memory_max_mib",
            table.memory_max_mib,
            (MEMORY_MIN_MIB, MEMORY_MAX_MIB),
            settings.memory_max_bytes / MIB,
        );
        settings.memory_max_bytes = memory_mib * MIB;
        for (plugin, stores) in table.stores {
            let key = format!("host.component.stores.{plugin}");
            let stores = self.number(&key, Some(stores), (1, STORES_MAX), 1);
            settings.stores.insert(plugin, stores as usize);
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::parse;
    use super::super::tests::with_section;
    use super::*;

    fn with(lines: &str) -> String {
        with_section("host.component", lines)
    }

    #[test]
    fn every_setting_is_read() {
        let text = with(
            "prefer = \"component\"\nown_process = \"never\"\nrunner = [\"demo/*\", \"other/one\"]\nmemory_max_mib = 64\nstores = { \"demo/one\" = 4 }\n",
        );
        let settings = parse(&text, std::path::Path::new("")).unwrap().host.component;
        assert!(settings.prefer);
        assert_eq!((settings.own_process, settings.memory_max_bytes), (None, 64 * MIB));
        let [one, other] = ["demo/one", "other/two"].map(|name| name.parse().unwrap());
        assert_eq!((settings.stores_of(&one), settings.stores_of(&other)), (4, 1));
        assert!(settings.runs_in_runner(&one) && !settings.runs_in_runner(&other));
    }

    #[test]
    fn every_broken_rule_has_a_way_out() {
        let text = with(
            "prefer = \"both\"\nown_process = \"somebody\"\nrunner = [\"*\"]\nmemory_max_mib = 1\nstores = { \"demo/one\" = 65 }\n",
        );
        let problems = parse(&text, std::path::Path::new("")).unwrap_err();
        let lines: Vec<String> = problems
            .iter()
            .map(|p| format!("{}:{} {}: {}\n  {}", p.line, p.column, p.key, p.rule, p.help))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
