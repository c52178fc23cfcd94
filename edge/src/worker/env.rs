//! Everything that outlives a request: settings, bindings, and what this isolate remembers.

use std::cell::RefCell;
use std::rc::Rc;

use modunest_core::keys::ObjectKey;
use wasm_bindgen::JsValue;
use worker::Env;

use super::cache::{Memory, Small};
use super::current::Current;
use super::glue;
use super::origin::Origins;
use crate::plan::settings::{Settings, SettingsError};
use crate::plan::{self, Facts, Tally};

/// The read side in this isolate.
pub struct Edge {
    /// Settings, validated.
    pub settings: Settings,
    /// Where objects come from.
    pub origins: Origins,
    /// Small objects.
    pub memory: Memory,
    /// The objects that change.
    pub current: [(ObjectKey, Current); ObjectKey::CHANGING.len()],
    /// The discovery document.
    pub discovery: Rc<Small>,
    /// The page for people.
    pub home: Rc<Small>,
    /// The queue that downloads are told to.
    pub downloads: Option<JsValue>,
    /// Those that it was not told of yet.
    pub tally: RefCell<Tally>,
    /// The token that counts them.
    pub count_token: Option<String>,
    /// Limits what one address reads.
    pub read_limit: Option<JsValue>,
    /// Limits what one address writes.
    pub write_limit: Option<JsValue>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// A variable.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// No bucket.
    #[error("BUCKET is not bound, and ORIGIN_URL is not set")]
    Bucket,
    /// A document of our own.
    #[error("the discovery document cannot be written: {0}")]
    Discovery(#[from] serde_json::Error),
}

thread_local! {
    static EDGE: RefCell<Option<Rc<Edge>>> = const { RefCell::new(None) };
}

impl Edge {
    /// The one of this isolate, made by the first request. Settings that cannot work are
    /// read anew each time, so that they are said in the log each time.
    pub fn of(env: &Env) -> Result<Rc<Edge>, EnvError> {
        if let Some(edge) = EDGE.with_borrow(Option::clone) {
            return Ok(edge);
        }
        let edge = Rc::new(Edge::new(env)?);
        EDGE.set(Some(Rc::clone(&edge)));
        Ok(edge)
    }

    fn new(env: &Env) -> Result<Edge, EnvError> {
        let env: &JsValue = env.as_ref();
        let binding = |name: &str| Some(glue::binding(env, name)).filter(|value| !value.is_falsy());
        let text = |name: &str| binding(name).and_then(|value| value.as_string());
        let settings = Settings::read(text)?;
        let discovery = serde_json::to_vec_pretty(&settings.discovery)?;
        let home = plan::home_page(&settings.discovery);
        Ok(Edge {
            origins: Origins::new(&settings.origins, binding("BUCKET")).ok_or(EnvError::Bucket)?,
            memory: Memory::new(),
            current: ObjectKey::CHANGING.map(|key| (key, Current::new(key))),
            discovery: Small::document(&discovery, Facts::discovery(&discovery)),
            home: Small::document(home.as_bytes(), Facts::page(home.as_bytes())),
            downloads: binding("DOWNLOADS"),
            tally: RefCell::default(),
            count_token: text("COUNT_TOKEN"),
            read_limit: binding("READ_LIMIT"),
            write_limit: binding("WRITE_LIMIT"),
            settings,
        })
    }
}
