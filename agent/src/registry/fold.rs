//! From index files to states, every signature checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use modunest_core::index::IndexFile;
use modunest_core::name::{OrgName, PluginName};
use modunest_core::statement::{Authorities, OrgState, PluginState, RegistryKeys, Subject};

use super::Error;

/// Index files, verbatim, by their subjects.
pub type Files = BTreeMap<Subject, Arc<[u8]>>;

/// Plugins below which one thread is quicker than several: a signature takes 34 µs, a
/// thread's start about as long.
const PLUGINS_PER_THREAD_MIN: usize = 16;

/// States that signatures prove.
#[derive(Debug, Default)]
pub struct Folded {
    /// Organisations by name.
    pub orgs: BTreeMap<OrgName, OrgState>,
    /// Plugins by name.
    pub plugins: BTreeMap<PluginName, PluginState>,
}

/// Folds index files: organisations by the registry's keys, plugins by the keys that their
/// owner had at each statement's position. Uses all processors.
///
/// # Errors
/// [`Error::Index`] and [`Error::Fold`]: the first, in order of names.
pub fn fold(files: &Files, registry: &RegistryKeys) -> Result<Folded, Error> {
    let mut folded = Folded::default();
    let mut plugins: Vec<(&PluginName, &[u8])> = Vec::new();
    for (subject, bytes) in files {
        match subject {
            Subject::Org(org) => {
                let mut state = OrgState::new(org.clone());
                for (position, signed) in IndexFile::parse(subject, bytes)?.entries {
                    state.apply(position, &signed, registry)?;
                }
                folded.orgs.insert(org.clone(), state);
            }
            Subject::Plugin(plugin) => plugins.push((plugin, bytes)),
        }
    }
    let authorities = Authorities { registry, orgs: &folded.orgs };
    let one = |&(name, bytes): &(&PluginName, &[u8])| {
        let mut state = PluginState::new(name.clone());
        for (position, signed) in IndexFile::parse(&Subject::Plugin(name.clone()), bytes)?.entries {
            state.apply(position, &signed, authorities)?;
        }
        Ok::<_, Error>((name.clone(), state))
    };
    let states = super::parallel::map(&plugins, PLUGINS_PER_THREAD_MIN, one);
    folded.plugins = states.into_iter().collect::<Result<_, _>>()?;
    Ok(folded)
}
