//! What a program that has this host inside may plug into it: where its configuration comes
//! from, what it hears of, what it forbids, and which environment plugins see.
//!
//! [`Agent::builder`](crate::Agent::builder) takes all of them. `docs/embedding.md` shows a
//! whole program, and `examples/embed.rs` is that program.

mod builder;
mod configuration;
mod environment;
mod observer;
mod permissions;

use std::ffi::OsString;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub use builder::AgentBuilder;
pub use configuration::{ConfigFile, Configuration};
pub use environment::{Environment, FixedEnvironment, ProcessEnvironment};
pub use observer::{Event, Observer};
pub use permissions::{CallAsk, LoadAsk, Permissions};

/// Everything that is plugged into a host. Clones share it.
#[derive(Clone, Default)]
pub struct Hooks(Arc<Plugged>);

#[derive(Clone, Default)]
struct Plugged {
    observers: Vec<Arc<dyn Observer>>,
    permissions: Vec<Arc<dyn Permissions>>,
    environment: Option<Arc<dyn Environment>>,
}

impl Hooks {
    /// The same with one more that hears of everything.
    #[must_use]
    pub fn with_observer(self, observer: impl Observer + 'static) -> Self {
        self.with(|plugged| plugged.observers.push(Arc::new(observer)))
    }

    /// The same with one more that is asked first.
    #[must_use]
    pub fn with_permissions(self, permissions: impl Permissions + 'static) -> Self {
        self.with(|plugged| plugged.permissions.push(Arc::new(permissions)))
    }

    /// The same with another environment.
    #[must_use]
    pub fn with_environment(self, environment: impl Environment + 'static) -> Self {
        self.with(|plugged| plugged.environment = Some(Arc::new(environment)))
    }

    fn with(self, change: impl FnOnce(&mut Plugged)) -> Self {
        let mut plugged = Plugged::clone(&self.0);
        change(&mut plugged);
        Hooks(Arc::new(plugged))
    }

    /// The environment that plugins see.
    pub fn environment(&self) -> &dyn Environment {
        self.0.environment.as_deref().unwrap_or(&ProcessEnvironment)
    }

    /// A variable of that environment. One that panics has said nothing of it.
    ///
    /// # Errors
    /// It panicked.
    pub(crate) fn variable(&self, name: &str) -> Result<Option<OsString>, String> {
        catch_unwind(AssertUnwindSafe(|| self.environment().variable(name)))
            .map_err(|_| format!("whoever knows the environment panicked over {name}"))
    }

    /// Whether anybody hears of events; who does not, pays nothing for them.
    pub(crate) fn is_observed(&self) -> bool {
        !self.0.observers.is_empty()
    }

    /// Tells everybody. An observer that panics is told of nothing else than its next event.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        for observer in &self.0.observers {
            if catch_unwind(AssertUnwindSafe(|| observer.observe(event))).is_err() {
                tracing::error!(?event, "an observer of this host panicked");
            }
        }
    }

    /// Whether anybody is asked what is allowed; who is not, costs nothing.
    pub(crate) fn are_asked(&self) -> bool {
        !self.0.permissions.is_empty()
    }

    /// Whether a plugin may be loaded, by all that are asked.
    pub(crate) fn may_load(&self, ask: &LoadAsk<'_>) -> Result<(), String> {
        self.ask(|permissions| permissions.load(ask))
    }

    /// Whether a call may be made, by all that are asked.
    pub(crate) fn may_call(&self, ask: &CallAsk<'_>) -> Result<(), String> {
        self.ask(|permissions| permissions.call(ask))
    }

    /// Who cannot answer has not allowed it.
    fn ask(&self, question: impl Fn(&dyn Permissions) -> Result<(), String>) -> Result<(), String> {
        self.0.permissions.iter().try_for_each(|permissions| {
            catch_unwind(AssertUnwindSafe(|| question(permissions.as_ref())))
                .unwrap_or_else(|_| Err("whoever is to allow it panicked".to_owned()))
        })
    }
}

/// Two are the same if they are the same values, not if they do the same.
impl PartialEq for Hooks {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Hooks {}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("observers", &self.0.observers.len())
            .field("permissions", &self.0.permissions.len())
            .field("own_environment", &self.0.environment.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use super::*;

    struct Panics;
    impl Observer for Panics {
        fn observe(&self, _: &Event<'_>) {
            panic!("an observer's own fault");
        }
    }
    impl Permissions for Panics {
        fn load(&self, _: &LoadAsk<'_>) -> Result<(), String> {
            panic!("cannot decide");
        }
    }

    struct Heard(Arc<Mutex<usize>>);
    impl Observer for Heard {
        fn observe(&self, _: &Event<'_>) {
            *self.0.lock().unwrap() += 1;
        }
    }

    struct Allows;
    impl Permissions for Allows {}

    #[test]
    fn an_observer_that_panics_harms_nobody() {
        let heard = Arc::new(Mutex::new(0));
        let hooks = Hooks::default().with_observer(Panics).with_observer(Heard(heard.clone()));
        hooks.tell(&Event::Generation { number: 1, plugins: 0, ready: 0 });
        assert_eq!(*heard.lock().unwrap(), 1);
    }

    #[test]
    fn who_cannot_decide_forbids() {
        let (plugin, version) = ("demo/back".parse().unwrap(), "1.0.0".parse().unwrap());
        let ask = LoadAsk { plugin: &plugin, version: &version, capabilities: &[] };
        assert!(Hooks::default().may_load(&ask).is_ok());
        assert!(Hooks::default().with_permissions(Allows).may_load(&ask).is_ok());
        // Nobody can allow what another one forbids.
        for hooks in [
            Hooks::default().with_permissions(Panics).with_permissions(Allows),
            Hooks::default().with_permissions(Allows).with_permissions(Panics),
        ] {
            assert_eq!(hooks.may_load(&ask).unwrap_err(), "whoever is to allow it panicked");
        }
    }
}
