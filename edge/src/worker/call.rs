//! One request: what it says, its trace, and what it may leave to be done after the answer.

use std::cell::RefCell;

use modunest_core::trace::TraceContext;
use worker::Context;

use super::glue;
use crate::plan::RequestFacts;

/// What a request says, read in one crossing.
pub struct Message {
    text: String,
}

impl Message {
    /// Reads a request.
    pub fn of(request: &worker::web_sys::Request) -> Message {
        Message { text: glue::gather(request) }
    }

    /// Its parts.
    pub fn parts(&self) -> Parts<'_> {
        let mut lines = self.text.split('\n');
        let method = lines.next().unwrap_or_default();
        let (path, query) = path_and_query(lines.next().unwrap_or_default());
        let mut field = || lines.next().and_then(|line| line.strip_prefix('='));
        let (if_match, if_none_match) = (field(), field());
        let (range, if_range) = (field(), field());
        let (traceparent, client) = (field(), field());
        let accept_encoding = field();
        Parts {
            facts: RequestFacts {
                method,
                path,
                if_match,
                if_none_match,
                range,
                if_range,
                accept_encoding,
            },
            query,
            traceparent,
            client,
        }
    }
}

/// A request's parts.
pub struct Parts<'a> {
    /// What plans are made from.
    pub facts: RequestFacts<'a>,
    /// The query, with its question mark; empty when there is none.
    pub query: &'a str,
    /// `traceparent`.
    pub traceparent: Option<&'a str>,
    /// Address of the client, as the platform saw it.
    pub client: Option<&'a str>,
}

/// The path and the query of a URL as the runtime writes it: with a path, never with a
/// fragment, and with `?` only before the query.
fn path_and_query(url: &str) -> (&str, &str) {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let rest = &url[after_scheme..];
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    path.find('?').map_or((path, ""), |at| path.split_at(at))
}

/// What goes along with a request.
pub struct Call {
    /// The step of the trace that this answer is.
    pub trace: TraceContext,
    context: Context,
}

impl Call {
    /// Continues the trace of `traceparent`, or begins one.
    pub fn new(traceparent: Option<&str>, context: Context) -> Call {
        let trace = match traceparent.map(str::parse::<TraceContext>) {
            Some(Ok(before)) => before.child(random()),
            _ => TraceContext::root(random()),
        };
        Call { trace, context }
    }

    /// The `traceparent` of a step after this one.
    pub fn next_step(&self) -> String {
        self.trace.child(random()).to_string()
    }

    /// Does something after the answer was given.
    pub fn afterwards(&self, work: impl Future<Output = ()> + 'static) {
        self.context.wait_until(work);
    }
}

/// Random bytes that are fetched ahead at once: enough for 40 requests.
const POOL_BYTES: usize = 1024;

thread_local! {
    static POOL: RefCell<([u8; POOL_BYTES], usize)> =
        const { RefCell::new(([0; POOL_BYTES], POOL_BYTES)) };
}

/// Random bytes, each handed out once.
pub fn random<const N: usize>() -> [u8; N] {
    POOL.with_borrow_mut(|(pool, used)| {
        if *used + N > POOL_BYTES {
            glue::random(pool);
            *used = 0;
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&pool[*used..*used + N]);
        *used += N;
        bytes
    })
}
