//! A plugin's configuration, held against the schema that its manifest names: before it is
//! loaded, so that it need not find out by itself.

use super::services::Schema;
use crate::store::Installed;

/// Why a plugin may not be loaded with this configuration; no configuration is an empty one. A
/// sealed value is no more than text here: it is opened for the plugin alone.
pub(super) fn refusal(installed: &Installed, config: &[u8]) -> Option<String> {
    let name = installed.manifest.config_schema.as_deref()?;
    let schema = match Schema::read(&installed.folder, name, installed.file(name)) {
        Ok(schema) => schema,
        Err(why) => return Some(why),
    };
    let config = if config.is_empty() { b"{}" } else { config };
    let broken = schema.check_settings(config).err()?;
    Some(format!("its configuration breaks {name}: {broken}"))
}
