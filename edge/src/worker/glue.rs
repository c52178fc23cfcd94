//! What `glue.js` does, as seen from here.

use js_sys::{Array, JsString, Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use worker::web_sys::{Blob, ReadableStream, Request, Response};

#[wasm_bindgen(module = "/src/worker/glue.js")]
extern "C" {
    /// Header fields, ready to be sent many times.
    #[derive(Clone, Debug)]
    pub type Fields;

    /// An answer of an origin whose body has begun to come.
    #[derive(Clone, Debug)]
    pub type Opened;
    #[wasm_bindgen(method, getter)]
    pub fn status(this: &Opened) -> u16;
    /// Below zero when the answer does not say.
    #[wasm_bindgen(method, getter)]
    pub fn length(this: &Opened) -> f64;
    #[wasm_bindgen(method, getter)]
    pub fn tag(this: &Opened) -> String;
    #[wasm_bindgen(method, getter)]
    pub fn body(this: &Opened) -> Option<ReadableStream>;

    pub fn gather(request: &Request) -> String;
    pub fn field(message: &JsValue, name: &str) -> Option<String>;
    pub fn fields(lines: &str) -> Fields;
    #[wasm_bindgen(catch)]
    pub fn answer(
        status: u16,
        fields: &Fields,
        body: &JsValue,
        trace: &str,
        encoded: bool,
    ) -> Result<Response, JsValue>;
    pub fn random(into: &mut [u8]);
    pub fn binding(env: &JsValue, name: &str) -> JsValue;

    #[wasm_bindgen(js_name = openBucket)]
    pub fn open_bucket(
        bucket: &JsValue,
        key: &str,
        start: f64,
        end: f64,
        tag: &str,
        timeout_ms: u32,
    ) -> Promise;
    #[wasm_bindgen(js_name = openServer)]
    pub fn open_server(
        url: &str,
        start: f64,
        end: f64,
        tag: &str,
        fresh: bool,
        trace: &str,
        timeout_ms: u32,
    ) -> Promise;
    pub fn collect(body: &ReadableStream, timeout_ms: u32) -> Promise;
    pub fn drop(body: &ReadableStream);
    #[wasm_bindgen(catch)]
    pub fn exact(body: &ReadableStream, length: f64) -> Result<ReadableStream, JsValue>;
    pub fn blob(bytes: &Uint8Array) -> Blob;
    pub fn gzip(blob: &Blob) -> Promise;

    #[wasm_bindgen(js_name = readCache)]
    pub fn read_cache(url: &str) -> Promise;
    #[wasm_bindgen(js_name = writeCache)]
    pub fn write_cache(url: &str, bytes: &Uint8Array, fields: &Fields) -> Promise;
    #[wasm_bindgen(js_name = dropFromCache)]
    pub fn drop_from_cache(url: &str) -> Promise;

    pub fn forward(
        request: &Request,
        url: &str,
        dropped: &str,
        added: &str,
        limit: u32,
        timeout_ms: u32,
    ) -> Promise;
    #[wasm_bindgen(catch, js_name = passBack)]
    pub fn pass_back(response: &Response, dropped: &str, trace: &str) -> Result<Response, JsValue>;
    #[wasm_bindgen(js_name = status)]
    pub fn ask_status(
        method: &str,
        url: &str,
        fields: &Fields,
        body: Option<JsString>,
        timeout_ms: u32,
    ) -> Promise;
    #[wasm_bindgen(js_name = reachBucket)]
    pub fn reach_bucket(bucket: &JsValue, key: &str, timeout_ms: u32) -> Promise;

    pub fn admits(limiter: &JsValue, key: &str) -> Promise;
    pub fn send(queue: &JsValue, json: &str) -> Promise;

    #[wasm_bindgen(js_name = readBody)]
    pub fn read_body(request: &Request, limit: u32, timeout_ms: u32) -> Promise;
    pub fn pipe() -> Array;
    pub fn write(writer: &JsValue, piece: &Uint8Array) -> Promise;
    pub fn close(writer: &JsValue) -> Promise;
    #[wasm_bindgen(js_name = breakOff)]
    pub fn break_off(writer: &JsValue);
}

#[wasm_bindgen(module = "/src/worker/recall.js")]
extern "C" {
    /// Without a blob it is a 304.
    pub fn keep(path: &str, form: u8, blob: Option<Blob>, fields: &Fields);
    pub fn forget(path: &str);
    #[wasm_bindgen(js_name = forgetAll)]
    pub fn forget_all();
    pub fn judge(accept_encoding: Option<&str>, gzip: bool);
    pub fn entry() -> JsValue;
}

/// What a thrown value says. Only for the log.
pub fn text_of(thrown: &JsValue) -> String {
    match thrown.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.message()),
        None => format!("{thrown:?}"),
    }
}
