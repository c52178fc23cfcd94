//! Where a configuration comes from.

use std::path::PathBuf;

use crate::config::{Config, ConfigError};

/// Where a host's configuration comes from. It is read at the start, and again when somebody
/// asks for what has changed.
pub trait Configuration: Send + Sync {
    /// Reads and validates it.
    ///
    /// # Errors
    /// Every broken rule with its place and a way out.
    fn load(&self) -> Result<Config, ConfigError>;
}

/// A file.
#[derive(Clone, Debug)]
pub struct ConfigFile(pub PathBuf);

impl Configuration for ConfigFile {
    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.0)
    }
}

/// A value that is there already.
impl Configuration for Config {
    fn load(&self) -> Result<Config, ConfigError> {
        Ok(self.clone())
    }
}
