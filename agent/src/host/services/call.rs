//! One call from plugin to plugin, from the caller's import to the checked answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use modunest_core::manifest::{Capability, GuardUse, Import, Service};
use modunest_core::name::ServiceName;
use modunest_sdk::abi::{OwnedBuffer, RequestKind};
use modunest_sdk::links::{HANDLE_BYTES, HandleCall, read_call};
use modunest_sdk::{Error, GuardRequest};

use super::{Contract, ImportStatus};
use crate::config::ServiceRule;
use crate::host::ask::{OwnedAsk, ServiceAsk};
use crate::host::canary::Item;
use crate::host::guards::GuardRefusal;
use crate::host::{Call, Cell, OwnedCall, Serving, drive, frame};

/// A call whose import is known.
struct Asked<'a> {
    import: usize,
    method: &'a str,
    payload: &'a [u8],
    trace: &'a str,
    deadline_ms: u64,
}

/// What a call is about, once it may be made.
struct Found<'a> {
    target: &'a Cell,
    import: &'a Import,
    service: &'a Service,
    contract: Option<&'a Contract>,
    /// The service, with the method.
    full: Cow<'a, str>,
}

impl Cell {
    /// A call to a service by the names of plugin and service; the latter may be followed by a
    /// slash and a method.
    pub(in crate::host) fn call_service(&self, ask: ServiceAsk<'_>) -> Result<OwnedBuffer, Error> {
        let ServiceAsk { plugin, service, payload, trace, deadline_ms } = ask;
        let (service, method) = service.split_once('/').unwrap_or((service, ""));
        let import = self.import(plugin, service)?;
        self.call_import(Asked { import, method, payload, trace, deadline_ms })
    }

    /// [`Cell::call_service`] as a future, which holds no thread while the other plugin waits.
    pub(in crate::host) async fn serve_service(&self, ask: OwnedAsk) -> Result<OwnedBuffer, Error> {
        let ServiceAsk { plugin, service, payload, trace, deadline_ms } = ask.ask();
        let (service, method) = service.split_once('/').unwrap_or((service, ""));
        let import = self.import(plugin, service)?;
        self.serve_import(Asked { import, method, payload, trace, deadline_ms }).await
    }

    /// Opens `org/plugin:service`: answers the handle and the version of the contract.
    pub(in crate::host) fn open_service(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        let named = std::str::from_utf8(request).ok().and_then(|text| text.rsplit_once(':'));
        let (plugin, service) = named.ok_or_else(|| {
            Error::InvalidInput("a service is opened as org/plugin:service".to_owned())
        })?;
        let index = self.import(plugin, service)?;
        let import = self.nth_import(index)?;
        let target = self.provider(import)?;
        let service = self.exported(&target, import)?;
        let state = self.services().imports.get(index).ok_or_else(unknown_handle)?;
        let handle = state.handle.get_or_init(modunest_runtime::random::bytes);
        Ok([&handle[..], service.export.version.to_string().as_bytes()].concat())
    }

    /// A call to a service by the handle that [`Cell::open_service`] gave this plugin.
    pub(in crate::host) fn call_handle(&self, request: &[u8]) -> Result<OwnedBuffer, Error> {
        self.call_import(self.handled(request)?)
    }

    /// The same as a future, which holds no thread while the other plugin waits.
    pub(in crate::host) async fn serve_handle(&self, request: &[u8]) -> Result<OwnedBuffer, Error> {
        self.serve_import(self.handled(request)?).await
    }

    fn handled<'r>(&self, request: &'r [u8]) -> Result<Asked<'r>, Error> {
        let HandleCall { handle, method, payload } = read_call(request)?;
        let states = &self.services().imports;
        let import = states
            .iter()
            .position(|state| state.handle.get().is_some_and(|own| is_equal(own, &handle)))
            .ok_or_else(unknown_handle)?;
        // What is being served on this thread hands its trace and deadline on by itself.
        Ok(Asked { import, method, payload, trace: "", deadline_ms: 0 })
    }

    /// The imports of this plugin with what their plugins say about them.
    pub fn import_statuses(&self) -> Vec<ImportStatus> {
        let status = |import: &Import| {
            let target = self.provider(import).ok();
            let service = target.as_ref().and_then(|target| self.exported(target, import).ok());
            ImportStatus {
                service: import.item.to_string(),
                version: service.map(|service| service.export.version.to_string()),
                deprecated: service.and_then(|service| service.export.deprecated.clone()),
            }
        };
        self.manifest().imports.iter().map(status).collect()
    }

    fn import(&self, plugin: &str, service: &str) -> Result<usize, Error> {
        let mut imports = self.manifest().imports.iter();
        imports
            .position(|i| i.item.plugin.as_str() == plugin && i.item.item.as_str() == service)
            .ok_or_else(|| {
                self.meter().deny();
                Error::Denied(format!("{} does not import {service} of {plugin}", self.name()))
            })
    }

    /// Whether the operator refused this plugin a capability that it asked for.
    pub(in crate::host) fn is_refused(&self, asked: impl Fn(&Capability) -> bool) -> bool {
        self.operations().effective().refused().any(asked)
    }

    fn nth_import(&self, index: usize) -> Result<&Import, Error> {
        self.manifest().imports.get(index).ok_or_else(unknown_handle)
    }

    /// The plugin behind an import, if it is here and may be used.
    fn provider(&self, import: &Import) -> Result<Arc<Cell>, Error> {
        let plugin = &import.item.plugin;
        let is_it = |asked: &Capability| matches!(asked, Capability::Services(item) if *item == import.item);
        if self.is_refused(is_it) {
            return Err(Error::Denied(format!(
                "{} is not granted services:{}",
                self.name(),
                import.item
            )));
        }
        self.dependency(plugin).ok_or_else(|| {
            Error::Unavailable(format!("{plugin} is not among what {} may use here", self.name()))
        })
    }

    /// The service behind an import, if its plugin has it in a version that fits.
    fn exported<'t>(&self, target: &'t Cell, import: &Import) -> Result<&'t Service, Error> {
        let (plugin, name) = (&import.item.plugin, &import.item.item);
        let mut services = target.manifest().services.iter();
        let service = services.find(|service| service.export.name == *name).ok_or_else(|| {
            Error::NotFound(format!("{plugin} {} exports no service {name}", target.version()))
        })?;
        match &import.version {
            Some(needed) if !needed.matches(&service.export.version) => {
                Err(Error::Unsupported(format!(
                    "{} needs {} {needed}; {plugin} {} has {}",
                    self.name(),
                    import.item,
                    target.version(),
                    service.export.version
                )))
            }
            _ => Ok(service),
        }
    }

    fn call_import(&self, asked: Asked<'_>) -> Result<OwnedBuffer, Error> {
        let import = self.nth_import(asked.import)?;
        let target = self.provider(import)?;
        let target: &Cell = &target;
        let found = self.find(target, import, &asked)?;
        let Asked { payload, trace, deadline_ms, .. } = asked;
        let guards = &found.service.guards;
        if !guards.is_empty() {
            target.ask_about(guards, &self.guard_request(&found), trace, deadline_ms)?;
        }
        found.check_request(payload)?;
        let tried = target.tried(Item::Service(found.service.export.name.as_str()));
        let answer = tried.as_deref().unwrap_or(target).call(Call {
            kind: RequestKind::Service,
            target: &found.full,
            payload,
            trace,
            caller: self.name().as_str(),
            deadline_ms,
        })?;
        found.check_answer(self, &answer)?;
        Ok(answer)
    }

    /// The same as a future, which holds no thread while the other plugin waits.
    async fn serve_import(&self, asked: Asked<'_>) -> Result<OwnedBuffer, Error> {
        let import = self.nth_import(asked.import)?;
        let target = self.provider(import)?;
        let found = self.find(&target, import, &asked)?;
        let Asked { payload, deadline_ms, .. } = asked;
        let trace = asked.trace.to_owned();
        if !found.service.guards.is_empty() {
            let (guards, request) = (found.service.guards.clone(), self.guard_request(&found));
            let (target, trace) = (target.clone(), trace.clone());
            // They are asked one after the other, and may be of any tier.
            let asking = move || target.ask_about(&guards, &request, &trace, deadline_ms);
            drive::away(asking).await??;
        }
        found.check_request(payload)?;
        let tried = target.tried(Item::Service(found.service.export.name.as_str()));
        let call = OwnedCall {
            kind: RequestKind::Service,
            target: found.full.clone().into_owned(),
            payload: payload.to_vec(),
            trace,
            caller: self.name().to_string(),
            deadline_ms,
        };
        // A call inside a call is a future inside a future, which could not have a size.
        let called = tried.unwrap_or_else(|| target.clone());
        let holds_no_thread = called.is_async();
        let serving: Serving<'_, _> = Box::pin(called.call_async(call));
        // What is on a thread goes on there by itself, and nothing is cut off.
        let answer =
            if holds_no_thread { serving.await } else { frame::while_awaited(serving).await };
        let answer = answer?;
        found.check_answer(self, &answer)?;
        Ok(answer)
    }

    /// What a call is about, if its caller may make it.
    #[inline]
    fn find<'a>(
        &self,
        target: &'a Cell,
        import: &'a Import,
        asked: &Asked<'_>,
    ) -> Result<Found<'a>, Error> {
        let service = self.exported(target, import)?;
        has_method(import, service, asked.method)?;
        self.warn_once(asked.import, target, service);
        target.admit(self, service, asked.method).inspect_err(|_| target.count_refused())?;
        let name = service.export.name.as_str();
        let full = match asked.method {
            "" => Cow::Borrowed(name),
            method => Cow::Owned(format!("{name}/{method}")),
        };
        let contract = target.services().contract(&service.export.name);
        Ok(Found { target, import, service, contract, full })
    }

    /// What guards are asked about a call of this plugin.
    fn guard_request(&self, found: &Found<'_>) -> GuardRequest {
        let (owner, caller) = (found.target.name().as_str(), self.name().as_str());
        let user = frame::current().identity;
        GuardRequest::service(owner, &found.full, caller, user.as_deref())
    }

    /// Asks guards of a service of this plugin.
    fn ask_about(
        &self,
        guards: &[GuardUse],
        request: &GuardRequest,
        trace: &str,
        deadline_ms: u64,
    ) -> Result<(), Error> {
        self.ask_guards(guards, request, trace, deadline_ms)
            .inspect_err(|_| self.count_refused())
            .map_err(GuardRefusal::into_error)
    }

    /// Whether the operator lets `caller` call this method of a service of this plugin.
    fn admit(&self, caller: &Cell, service: &Service, method: &str) -> Result<(), Error> {
        let name: &ServiceName = &service.export.name;
        let settings = self.links().settings();
        let is_own =
            |rule: &&ServiceRule| rule.service.plugin == *self.name() && rule.service.item == *name;
        let mut own = settings.services.iter().filter(is_own).peekable();
        if own.peek().is_none() || own.any(|rule| rule.allows(caller.name(), method)) {
            return Ok(());
        }
        let method = if method.is_empty() { String::new() } else { format!("/{method}") };
        Err(Error::Denied(format!(
            "the operator does not let {} call {}:{name}{method}; a [[service]] of the configuration names who may",
            caller.name(),
            self.name()
        )))
    }

    fn warn_once(&self, index: usize, target: &Cell, service: &Service) {
        let Some(instead) = &service.export.deprecated else { return };
        let state = self.services().imports.get(index);
        if state.is_some_and(|state| !state.warned.swap(true, Ordering::Relaxed)) {
            let name = &service.export.name;
            tracing::warn!(plugin = %self.name(), service = %format!("{}:{name}", target.name()), instead, "calls a deprecated service");
        }
    }

    fn count_refused(&self) {
        self.services().refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl Found<'_> {
    #[inline]
    fn check_request(&self, payload: &[u8]) -> Result<(), Error> {
        let Some(schema) = self.contract.and_then(|contract| contract.request.as_ref()) else {
            return Ok(());
        };
        schema.check(payload).map_err(|why| {
            self.target.count_refused();
            let item = &self.import.item;
            Error::InvalidInput(format!("the request breaks the schema of {item}: {why}"))
        })
    }

    #[inline]
    fn check_answer(&self, caller: &Cell, answer: &[u8]) -> Result<(), Error> {
        let Some(schema) = self.contract.and_then(|contract| contract.response.as_ref()) else {
            return Ok(());
        };
        schema.check(answer).map_err(|why| {
            self.target.count_refused();
            let text = format!("the answer breaks the schema of {}: {why}", self.import.item);
            tracing::warn!(plugin = %self.target.name(), caller = %caller.name(), "{text}");
            Error::Failed(text)
        })
    }
}

fn has_method(import: &Import, service: &Service, method: &str) -> Result<(), Error> {
    let known = |methods: &[ServiceName]| methods.iter().any(|one| one.as_str() == method);
    let item = &import.item;
    match (service.methods.is_empty(), method.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => {
            Err(Error::NotFound(format!("{item} has no methods, so none named {method}")))
        }
        (false, true) => {
            let names: Vec<&str> = service.methods.iter().map(ServiceName::as_str).collect();
            Err(Error::NotFound(format!("{item} is called by a method: {}", names.join(", "))))
        }
        (false, false) if !known(&service.methods) => {
            Err(Error::NotFound(format!("{item} has no method {method}")))
        }
        (false, false) if !import.methods.is_empty() && !known(&import.methods) => {
            Err(Error::Denied(format!("the method {method} of {item} is not imported")))
        }
        (false, false) => Ok(()),
    }
}

fn unknown_handle() -> Error {
    Error::Denied("this handle opens no service for this plugin".to_owned())
}

/// Takes the same time for every handle, so that none is guessed byte by byte.
fn is_equal(one: &[u8; HANDLE_BYTES], other: &[u8; HANDLE_BYTES]) -> bool {
    u128::from_ne_bytes(*one) ^ u128::from_ne_bytes(*other) == 0
}
