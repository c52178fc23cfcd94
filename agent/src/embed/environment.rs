//! Which environment plugins see.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// The environment variables that plugins may be granted by name.
pub trait Environment: Send + Sync {
    /// The value of a variable, if it has one. A plugin gets text only: it is told so where a
    /// value is none.
    fn variable(&self, name: &str) -> Option<OsString>;
}

/// The variables of the host's own process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }
}

/// Variables that are given, and no others: a host inside another program need not show its
/// plugins what that program was started with.
#[derive(Clone, Debug, Default)]
pub struct FixedEnvironment(BTreeMap<String, String>);

impl FixedEnvironment {
    /// One with these variables.
    pub fn new<N: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let pairs = variables.into_iter();
        FixedEnvironment(pairs.map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl Environment for FixedEnvironment {
    fn variable(&self, name: &str) -> Option<OsString> {
        self.0.get(name).map(OsString::from)
    }
}
