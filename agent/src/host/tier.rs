//! Where a plugin runs: one decision, before anything is loaded.

use modunest_core::name::PluginName;
use modunest_core::relation::BuildTarget;
use modunest_core::statement::TrustLevel;
use serde::Serialize;

use super::component;
use crate::config::HostSettings;
use crate::sandbox::Support;

/// Where a plugin runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// In the agent's own process.
    InProcess,
    /// In a process of its own, or of its group, behind a sandbox.
    Process,
    /// As a component, which reaches nothing but what it imports.
    Component,
}

impl Tier {
    /// The word in JSON and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::InProcess => "in-process",
            Tier::Process => "process",
            Tier::Component => "component",
        }
    }
}

/// Decides where a build runs, or why it may not. Native code runs behind a sandbox, unless the
/// operator trusts it with everything that the agent may do.
///
/// # Errors
/// The reason, with the way out.
pub(super) fn choose(
    plugin: &PluginName,
    target: &BuildTarget,
    trust: TrustLevel,
    settings: &HostSettings,
    support: Support,
) -> Result<Tier, String> {
    match target {
        BuildTarget::Wasm { .. } => match component::refuse(plugin, trust, settings) {
            Some(reason) => Err(reason),
            None => Ok(Tier::Component),
        },
        BuildTarget::Native { .. } if settings.allows_in_process(plugin) => Ok(Tier::InProcess),
        BuildTarget::Native { .. } => match support.missing() {
            Some(missing) if !settings.process.allow_unenforced => Err(format!(
                "it is native code, and this system cannot confine it: missing is {missing}; run a kernel that has it, or set unenforced = \"allow\" under [host.process] if you trust every plugin with everything that the agent's user may do"
            )),
            _ => Ok(Tier::Process),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_code_is_confined_unless_the_operator_says_otherwise() {
        let whole = Support { landlock: 1, seccomp: true };
        let poor = Support { landlock: 0, seccomp: true };
        let native =
            BuildTarget::Native { target: super::super::facts().target, libc: None, abi: 1 };
        let plugin: PluginName = "demo/one".parse().unwrap();
        let mut settings = HostSettings::default();
        let tier = |settings: &HostSettings, support| {
            choose(&plugin, &native, TrustLevel::Community, settings, support)
        };
        assert_eq!(tier(&settings, whole), Ok(Tier::Process));
        let refusal = tier(&settings, poor).unwrap_err();
        assert!(refusal.contains("Landlock") && refusal.contains("unenforced"), "{refusal}");
        settings.process.allow_unenforced = true;
        assert_eq!(tier(&settings, poor), Ok(Tier::Process));
        settings.in_process.push("demo/*".parse().unwrap());
        assert_eq!(tier(&settings, whole), Ok(Tier::InProcess));
    }
}
