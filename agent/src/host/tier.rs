//! Where a plugin runs: one decision, before anything is loaded.

use modunest_core::name::PluginName;
use modunest_core::relation::BuildTarget;
use modunest_core::statement::TrustLevel;
use serde::Serialize;

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
    /// As a component, which reaches nothing but what it imports, in the agent's own process.
    Component,
    /// As a component in a process of its own, or of its group, behind a sandbox.
    ComponentProcess,
}

impl Tier {
    /// The word in JSON and on screens.
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::InProcess => "in-process",
            Tier::Process => "process",
            Tier::Component => "component",
            Tier::ComponentProcess => "component-process",
        }
    }

    /// Whether it has a process of its own, or of its group.
    pub(super) fn is_confined(self) -> bool {
        matches!(self, Tier::Process | Tier::ComponentProcess)
    }
}

/// Decides where a build runs, or why it may not. Native code runs behind a sandbox, unless the
/// operator trusts it with everything that the agent may do; a component as well, unless its
/// trust level says that its own walls are enough.
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
    let missing = support.missing().filter(|_| !settings.process.allow_unenforced);
    match (target, missing) {
        (BuildTarget::Wasm { .. }, _) if is_trusted(plugin, trust, settings) => Ok(Tier::Component),
        (BuildTarget::Wasm { .. }, None) => Ok(Tier::ComponentProcess),
        (BuildTarget::Wasm { .. }, Some(missing)) => Err(format!(
            "it is a component of the trust level {trust}, which runs in a process of its own on this host, and this system cannot confine one: missing is {missing}; run a kernel that has it, or name a lower level in own_process under [host.component] if the walls of WebAssembly are enough for you"
        )),
        (BuildTarget::Native { .. }, _) if settings.allows_in_process(plugin) => {
            Ok(Tier::InProcess)
        }
        (BuildTarget::Native { .. }, None) => Ok(Tier::Process),
        (BuildTarget::Native { .. }, Some(missing)) => Err(format!(
            "it is native code, and this system cannot confine it: missing is {missing}; run a kernel that has it, or set unenforced = \"allow\" under [host.process] if you trust every plugin with everything that the agent's user may do"
        )),
    }
}

/// Whether a component runs in the agent's own process: by the operator's word about this plugin,
/// where the careful word comes first, else by its trust level.
fn is_trusted(plugin: &PluginName, trust: TrustLevel, settings: &HostSettings) -> bool {
    let component = &settings.component;
    !component.runs_in_runner(plugin)
        && (settings.allows_in_process(plugin)
            || component.own_process.is_some_and(|from| trust >= from))
}

#[cfg(test)]
mod tests {
    use modunest_core::Version;

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

    #[test]
    fn a_component_runs_where_its_trust_level_and_the_operator_say() {
        let whole = Support { landlock: 1, seccomp: true };
        let poor = Support { landlock: 1, seccomp: false };
        let component = BuildTarget::Wasm { world: Version::new(1, 0, 0) };
        let plugin: PluginName = "demo/one".parse().unwrap();
        let mut settings = HostSettings::default();
        let tier = |settings: &HostSettings, trust, support| {
            choose(&plugin, &component, trust, settings, support)
        };
        let (low, high) = (TrustLevel::Community, TrustLevel::Verified);
        assert_eq!(tier(&settings, low, whole), Ok(Tier::ComponentProcess));
        assert_eq!(tier(&settings, high, whole), Ok(Tier::Component));
        // Where nothing can be confined, only what needs no confining runs.
        let refusal = tier(&settings, low, poor).unwrap_err();
        assert!(refusal.contains("seccomp") && refusal.contains("own_process"), "{refusal}");
        assert_eq!(tier(&settings, high, poor), Ok(Tier::Component));

        settings.component.own_process = None;
        assert_eq!(tier(&settings, TrustLevel::Internal, whole), Ok(Tier::ComponentProcess));
        settings.in_process.push("demo/*".parse().unwrap());
        assert_eq!(tier(&settings, low, whole), Ok(Tier::Component));
        settings.component.runner.push("demo/one".parse().unwrap());
        assert_eq!(tier(&settings, TrustLevel::Internal, whole), Ok(Tier::ComponentProcess));
        settings.process.allow_unenforced = true;
        assert_eq!(tier(&settings, low, poor), Ok(Tier::ComponentProcess));
    }
}
