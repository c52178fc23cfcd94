//! A server in front of a registry that passes everything on but for what it lies about, as a
//! mirror or a cache could.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, Response};
use bytes::Bytes;
use modunest_core::closure::{Frame, FrameReader, Part, push_frame};
use modunest_core::index::{Bin, Node, Slot};
use modunest_core::keys::{CLOSURE_PATH, ObjectKey};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

use crate::client::answer;

/// What becomes of the answer to a path: its body, and the body that is given instead.
pub type Lie = Box<dyn FnMut(&str, Bytes) -> Bytes + Send>;

/// The server. It ends when dropped.
pub struct Liar {
    /// Where it answers.
    pub url: Url,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    http: reqwest::Client,
    behind: Url,
    lie: Mutex<Option<Lie>>,
}

impl Liar {
    /// An honest server in front of `behind`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(behind: Url) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let http = modunest_runtime::http::client().unwrap();
        let shared = Arc::new(Shared { http, behind, lie: Mutex::new(None) });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Liar { url, shared, task }
    }

    /// Lies from now on.
    ///
    /// # Panics
    /// When an earlier lie panicked.
    pub fn lie(&self, lie: impl FnMut(&str, Bytes) -> Bytes + Send + 'static) {
        *self.shared.lie.lock().unwrap() = Some(Box::new(lie));
    }

    /// Tells the truth from now on.
    ///
    /// # Panics
    /// When an earlier lie panicked.
    pub fn repent(&self) {
        *self.shared.lie.lock().unwrap() = None;
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Headers that are about a connection or about bytes that may have changed.
const OWN_HEADERS: [&str; 4] = ["connection", "content-length", "transfer-encoding", "host"];

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let url = shared.behind.join(&path).unwrap();
    let lies = shared.lie.lock().unwrap().is_some();
    let mut forwarded = shared.http.request(request.method().clone(), url);
    for (name, value) in request.headers() {
        // Who lies wants the whole body to lie about.
        let is_condition = lies && (name == "if-none-match" || name == "range");
        if !is_own(name) && !is_condition {
            forwarded = forwarded.header(name, value);
        }
    }
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    let answer = answer(forwarded.body(body)).await.expect("the registry to answer");
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        let is_tag = lies && name == "etag";
        if !is_own(name) && !is_tag {
            response = response.header(name, value);
        }
    }
    let body = match shared.lie.lock().unwrap().as_mut() {
        Some(lie) if path == CLOSURE_PATH => in_closure(lie, &answer.body),
        Some(lie) => lie(&path, answer.body),
        None => answer.body,
    };
    response.body(Body::from(body)).unwrap()
}

fn is_own(name: &HeaderName) -> bool {
    OWN_HEADERS.contains(&name.as_str())
}

/// The same lies about the objects of a closure as about each of them.
fn in_closure(lie: &mut Lie, closure: &[u8]) -> Bytes {
    let mut reader = FrameReader::new();
    reader.push(closure).unwrap();
    let mut lies = Vec::new();
    while let Ok(Some(Frame { part, bytes })) = reader.next_frame() {
        let bytes = match part {
            Part::Object(key) => lie(&key.path(), bytes.into()),
            Part::Proof => bytes.into(),
        };
        // What is a node or a bin no more cannot be sent as one.
        let compact = match part {
            Part::Object(ObjectKey::Node(_)) => {
                Node::parse(&bytes).map(|node| node.to_compact()).ok()
            }
            Part::Object(ObjectKey::Bin(_)) => compact_bin(&bytes),
            _ => None,
        };
        let bytes = compact.map_or(bytes, Bytes::from);
        push_frame(&mut lies, part, &bytes);
    }
    lies.into()
}

/// A bin as it is sent, if it is the bin of the slot of its first subject.
fn compact_bin(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let subject = text.lines().nth(1)?.split(' ').next()?.parse().ok()?;
    Some(Bin::parse(Slot::of(&subject), bytes).ok()?.to_compact())
}
