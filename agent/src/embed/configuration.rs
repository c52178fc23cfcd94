//! Where a configuration comes from.

use std::path::PathBuf;

use crate::config::{Config, ConfigError};

/// Where a host's configuration comes from. It is read at the start, and again at each
/// [`Agent::reload`](crate::Agent::reload) and `POST /reload`, on a thread that may block.
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

/// A value that is there already, so nothing has ever changed where it is read anew.
impl Configuration for Config {
    fn load(&self) -> Result<Config, ConfigError> {
        Ok(self.clone())
    }
}
