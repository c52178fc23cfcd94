//! Who may forbid what the configuration allows.

use modunest_core::Version;
use modunest_core::name::PluginName;

/// Forbids what a configuration would allow. It is asked after everything else has agreed, so
/// it can take away and never add: a plugin that is not proven, not granted or not imported
/// stays out whatever this says. A panic forbids.
pub trait Permissions: Send + Sync {
    /// Whether a plugin may be loaded.
    ///
    /// # Errors
    /// Why not, in words that the operator reads in the plugin's status.
    fn load(&self, _ask: &LoadAsk<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Whether a call may reach a plugin. Asked at every call, on the caller's thread: it costs
    /// what it takes.
    ///
    /// # Errors
    /// Why not, in words that the caller hears.
    fn call(&self, _ask: &CallAsk<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// A plugin that is about to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadAsk<'a> {
    /// The plugin.
    pub plugin: &'a PluginName,
    /// Its version.
    pub version: &'a Version,
    /// What its release asks for, as its statement spells it.
    pub capabilities: &'a [String],
}

/// A call that is about to be made.
#[derive(Clone, Copy, Debug)]
pub struct CallAsk<'a> {
    /// The plugin that is called.
    pub plugin: &'a PluginName,
    /// Its version.
    pub version: &'a Version,
    /// The route, service or event.
    pub target: &'a str,
    /// `org/name` of the plugin that calls, or empty when the call comes from outside.
    pub caller: &'a str,
}
