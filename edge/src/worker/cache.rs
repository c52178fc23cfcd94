//! Small objects in the memory of this isolate, proved and ready to be sent.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use js_sys::Uint8Array;
use modunest_core::keys::ObjectKey;
use wasm_bindgen::{JsCast, JsValue};
use worker::js_sys::futures::JsFuture;
use worker::web_sys::Blob;

use super::glue::{self, Fields};
use crate::plan::{AnswerBody, AnswerHead, EntityTag, Facts, HeaderText, Lru};

/// Memory for small objects, in bytes. An isolate has 128 MiB, of which wasm, its stack and
/// the answers under way take their share.
const MEMORY_BYTES: u64 = 16 * 1024 * 1024;
/// What an object takes besides its bytes: handles and links here, and on JavaScript's side
/// up to four sets of a dozen header fields and a path.
const ENTRY_OVERHEAD_BYTES: u64 = 3 * 1024;

/// The forms of an object's answers; as in recall.js.
#[derive(Clone, Copy)]
enum Form {
    /// As it is, where there is a gzip form beside it.
    Plain = 0,
    Gzip = 1,
    /// As it is, whatever is accepted.
    Only = 2,
}

/// Bytes that lie on JavaScript's side and need not cross again, with the header fields of
/// the answers that are given most.
///
/// They are a blob because its streams are the body that costs least and the same each time.
/// The runtime copies a body, and keeps an array's copy until the answer is collected as
/// garbage, which for a mebibyte at times takes several times as long as to send it
/// (docs/benchmarks.md).
pub struct Small {
    /// The bytes.
    pub blob: Blob,
    /// What plans are made from.
    pub facts: Facts,
    gzip: OnceCell<Blob>,
    ready: [OnceCell<Fields>; 4],
    handed_over: OnceCell<HandedOver>,
}

/// The path under which JavaScript has answers with these bytes, as long as they are here.
struct HandedOver(String);

impl Drop for HandedOver {
    fn drop(&mut self) {
        glue::forget(&self.0);
    }
}

impl Small {
    /// Bytes that were proved, or are our own.
    pub fn new(bytes: &Uint8Array, facts: Facts) -> Rc<Small> {
        let (gzip, ready, handed_over) = Default::default();
        Rc::new(Small { blob: glue::blob(bytes), facts, gzip, ready, handed_over })
    }

    /// A document of our own.
    pub fn document(bytes: &[u8], facts: Facts) -> Rc<Small> {
        Small::new(&Uint8Array::from(bytes), facts)
    }

    /// A copy of the bytes on this side.
    pub async fn to_vec(&self) -> Result<Vec<u8>, JsValue> {
        let buffer = JsFuture::from(self.blob.array_buffer()).await?;
        Ok(Uint8Array::new(&buffer).to_vec())
    }

    /// The gzip form, made by the first that asks.
    pub async fn gzip(&self) -> Result<&Blob, JsValue> {
        if let Some(made) = self.gzip.get() {
            return Ok(made);
        }
        let made = JsFuture::from(glue::gzip(&self.blob)).await?;
        Ok(self.gzip.get_or_init(|| made.unchecked_into()))
    }

    /// The header fields of an answer, which are written once for each of the usual ones:
    /// those are the same whenever they are given for the same bytes.
    pub fn fields(&self, head: &AnswerHead, write: impl FnOnce() -> Fields) -> Fields {
        let weak = || head.headers.iter().any(|(_, text)| matches!(text, HeaderText::WeakTag(_)));
        let usual = match (head.status, &head.body) {
            (200, AnswerBody::Whole) => 0,
            (200, AnswerBody::Gzip) => 1,
            (304, _) if weak() => 2,
            (304, _) => 3,
            _ => return write(),
        };
        self.ready[usual].get_or_init(write).clone()
    }

    /// Leaves an answer that was just given, a 304 or the whole, to JavaScript, for whoever
    /// asks the same.
    pub fn hand_over(&self, key: &ObjectKey, gzip: bool, status: u16) {
        let form = match (self.facts.is_compressible(), gzip) {
            (false, _) => Form::Only,
            (true, false) => Form::Plain,
            (true, true) => Form::Gzip,
        };
        let (blob, ready) = match (status, form) {
            (304, Form::Gzip) => (None, 2),
            (304, _) => (None, 3),
            (_, Form::Gzip) => match self.gzip.get() {
                Some(made) => (Some(made.clone()), 1),
                None => return,
            },
            _ => (Some(self.blob.clone()), 0),
        };
        let Some(fields) = self.ready[ready].get() else { return };
        let HandedOver(path) = self.handed_over.get_or_init(|| HandedOver(key.path()));
        glue::keep(path, form as u8, blob, fields);
    }

    fn weight(&self) -> u64 {
        // The gzip form may come later: texts shrink to about a third.
        let gzip = if self.facts.is_compressible() { self.facts.size_bytes / 3 } else { 0 };
        ENTRY_OVERHEAD_BYTES + self.facts.size_bytes + gzip
    }
}

/// What this isolate remembers: bytes that were proved. Never that there is nothing, and not
/// how long something is, since an origin may be wrong in that.
pub struct Memory(RefCell<Lru<ObjectKey, Rc<Small>>>);

impl Memory {
    /// Nothing yet.
    pub fn new() -> Memory {
        // After a panic the runtime begins with an empty wasm, and JavaScript goes on.
        glue::forget_all();
        Memory(RefCell::new(Lru::new(MEMORY_BYTES)))
    }

    /// The bytes under a key, if they are known.
    pub fn get(&self, key: &ObjectKey) -> Option<Rc<Small>> {
        self.0.borrow_mut().get(key).cloned()
    }

    /// Remembers.
    pub fn put(&self, key: ObjectKey, small: Rc<Small>) {
        let weight = small.weight();
        self.0.borrow_mut().insert(key, small, weight);
    }
}

/// The facts of an object that is named by its content.
pub fn facts_of(key: &ObjectKey, size_bytes: u64) -> Option<Facts> {
    let tag = EntityTag::new(key.content_digest()?);
    Some(Facts::object(key, size_bytes, tag))
}
