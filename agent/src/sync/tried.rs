//! Generations of which some releases are tried first: what serves meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use modunest_core::name::PluginName;

use super::{Error, LOCK_NAME, Lock, Locked, Syncer};
use crate::files;
use crate::store::{self, Evidence, Generation, Proven, Tries};

impl Syncer {
    /// What is remembered of releases that were tried.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn tries(&self) -> Result<Tries, store::Error> {
        Tries::read(&self.state_dir)
    }

    /// The generation that is being tried, as long as it is kept.
    pub(crate) fn candidate(&self, tried: &Tries) -> Result<Option<Generation>, store::Error> {
        let Some(number) = tried.candidate else { return Ok(None) };
        let is_kept = self.generations.numbers()?.contains(&number);
        is_kept.then(|| self.generations.read(number)).transpose()
    }

    /// A generation with this lock, which is made of `next` and `running`: one of the two where
    /// it is the same, else a new one. It is the current one afterwards, and its lock the lock
    /// file.
    ///
    /// # Errors
    /// The disk said no, or this process does not get the state folder for itself.
    pub(crate) fn serve(
        &self,
        lock: Lock,
        next: &Generation,
        running: &Generation,
    ) -> Result<Generation, Error> {
        let _held = self.hold()?;
        let path = self.state_dir.join(LOCK_NAME);
        files::write_durable(&path, &lock.to_bytes()).map_err(|e| store::Error::io(&path, e))?;
        for known in [running, next] {
            if known.lock.plugins == lock.plugins {
                self.generations.switch(known.number)?;
                return Ok(known.clone());
            }
        }
        let mut evidence = running.evidence.clone();
        // The newer file of a subject has all that the older one has.
        evidence.0.extend(next.evidence.0.clone());
        Ok(self.generations.add(lock, Evidence(evidence.0))?)
    }

    /// Makes a generation current whose lock needs no mixing.
    ///
    /// # Errors
    /// As [`Syncer::serve`].
    pub(crate) fn serve_whole(&self, generation: &Generation) -> Result<Generation, Error> {
        self.serve(generation.lock.clone(), generation, generation)
    }
}

/// `next` with the releases of `running` in place of its own for the plugins that are `held`:
/// all that the plugins at the `roots` use then, and nothing else.
pub(crate) fn mixed<'r>(
    next: &Lock,
    running: &Lock,
    held: &BTreeSet<PluginName>,
    roots: impl Iterator<Item = &'r PluginName>,
) -> Lock {
    let by_name = |lock: &'_ Lock| -> BTreeMap<PluginName, Locked> {
        lock.plugins.iter().map(|locked| (locked.plugin.clone(), locked.clone())).collect()
    };
    let (of_next, of_running) = (by_name(next), by_name(running));
    let mut chosen: BTreeMap<PluginName, Locked> = BTreeMap::new();
    let mut queue: Vec<PluginName> = roots.cloned().collect();
    while let Some(plugin) = queue.pop() {
        if chosen.contains_key(&plugin) {
            continue;
        }
        let held = of_running.get(&plugin).filter(|_| held.contains(&plugin));
        let new = || of_next.get(&plugin).or_else(|| of_running.get(&plugin));
        let Some(locked) = held.or_else(new) else { continue };
        queue.extend(locked.uses.iter().cloned());
        chosen.insert(plugin, locked.clone());
    }
    Lock { plugins: chosen.into_values().collect(), ..next.clone() }
}

/// The first of the plugins that are `tried` beside those that serve, whose old or new release
/// somebody here cannot use; with the reason.
pub(crate) fn clash(serving: &[Proven], tried: &[Proven]) -> Option<(PluginName, String)> {
    let all = || serving.iter().chain(tried);
    all().find_map(|user| {
        let (name, version) = (&user.release.plugin, &user.release.version);
        let used = |plugin: &PluginName| -> Vec<&Proven> {
            all().filter(|other| other.release.plugin == *plugin).collect()
        };
        let unmet = user.release.dependencies.iter().find_map(|dependency| {
            let others = used(&dependency.plugin).into_iter();
            let mut unmet =
                others.filter(|other| !dependency.requirement.matches(&other.release.version));
            let other = unmet.next()?;
            let (plugin, requirement) = (&dependency.plugin, &dependency.requirement);
            let reason = format!(
                "{name} {version} needs {plugin} {requirement}, and {} would serve as well",
                other.release.version
            );
            Some((plugin.clone(), reason))
        });
        unmet.or_else(|| {
            user.release.incompatible.iter().find_map(|excluded| {
                let others = used(&excluded.plugin).into_iter();
                let mut met =
                    others.filter(|other| excluded.requirement.matches(&other.release.version));
                let other = met.next()?;
                let plugin = &excluded.plugin;
                let reason = format!(
                    "{name} {version} does not go with {plugin} {}, which would serve as well",
                    other.release.version
                );
                Some((plugin.clone(), reason))
            })
        })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use modunest_core::digest::Digest;
    use modunest_core::relation::BuildTarget;
    use modunest_core::time::Timestamp;

    use super::*;

    fn locked(name: &str, version: &str, uses: &[&str]) -> Locked {
        let digest = Digest::of(format!("{name} {version}").as_bytes());
        Locked {
            plugin: name.parse().unwrap(),
            version: version.parse().unwrap(),
            statement: digest,
            target: BuildTarget::Wasm { world: modunest_core::relation::COMPONENT_WORLD },
            archive: digest,
            size_bytes: 1,
            files: digest,
            uses: uses.iter().map(|used| used.parse().unwrap()).collect(),
        }
    }

    fn lock(plugins: Vec<Locked>) -> Lock {
        Lock {
            lock_format: 1,
            registry: "test".to_owned(),
            epoch: 1,
            index: Digest::of(b"index"),
            issued_at: Timestamp::from_millis(0),
            plugins,
        }
    }

    fn text(lock: &Lock) -> String {
        let plugins = lock.plugins.iter().map(|one| format!("{} {}", one.plugin, one.version));
        plugins.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_is_held_stays_with_all_that_it_uses() {
        let running = lock(vec![
            locked("demo/alone", "1.0.0", &[]),
            locked("demo/gone", "1.0.0", &[]),
            locked("demo/old", "1.0.0", &["demo/under"]),
            locked("demo/page", "1.0.0", &["demo/old", "demo/shared"]),
            locked("demo/shared", "1.0.0", &[]),
            locked("demo/under", "1.0.0", &[]),
        ]);
        let next = lock(vec![
            locked("demo/alone", "1.1.0", &[]),
            locked("demo/fresh", "1.0.0", &[]),
            locked("demo/page", "2.0.0", &["demo/fresh", "demo/shared"]),
            locked("demo/shared", "1.1.0", &[]),
        ]);
        let held = ["demo/page".parse().unwrap()].into();
        let roots: [PluginName; 2] = ["demo/alone", "demo/page"].map(|root| root.parse().unwrap());
        let mixed = mixed(&next, &running, &held, roots.iter());
        assert!(mixed.plugins.is_sorted_by(|a, b| a.plugin < b.plugin));
        assert_eq!(
            text(&mixed),
            "demo/alone 1.1.0, demo/old 1.0.0, demo/page 1.0.0, demo/shared 1.1.0, \
             demo/under 1.0.0"
        );
        let none = super::mixed(&next, &running, &BTreeSet::new(), roots.iter());
        assert_eq!(text(&none), text(&next));
    }
}
