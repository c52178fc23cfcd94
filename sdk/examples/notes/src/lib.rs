//! The sample plugin `demo/notes`: keeps notes by its host's operations.
//!
//! A note's number comes from a counter in the store that is raised by compare-and-swap, so
//! that two requests at once never get the same one.

use modunest_sdk::operation::store::{Store, SwapOutcome};
use modunest_sdk::{Error, Host, HttpRequest, HttpResponse, Plugin, export_plugin};

/// Longest note, in bytes.
const NOTE_MAX_BYTES: usize = 4096;
/// Largest journal that is shown, in bytes.
const JOURNAL_MAX_BYTES: usize = 1024 * 1024;
/// The key of the last number that was given out.
const LAST: &[u8] = b"last";
/// What every note's key begins with.
const NOTE: &str = "note/";
const JOURNAL: &str = "journal.txt";

/// The plugin. Everything else is kept by the host.
pub struct Notes {
    host: Host,
}

impl Plugin for Notes {
    fn create(host: Host, _config: &[u8]) -> Result<Self, Error> {
        Ok(Self { host })
    }

    fn http(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        match (request.method.as_str(), request.path.trim_end_matches('/')) {
            ("GET", "/notes") => self.list(),
            ("POST", "/notes") => self.keep(&request.body),
            ("GET", "/notes/journal") => self.journal(),
            _ => Err(Error::not_found(format!("nothing at {}", request.path))),
        }
    }
}

impl Notes {
    const fn store(&self) -> Store<'static> {
        self.host.store("notes")
    }

    fn list(&self) -> Result<HttpResponse, Error> {
        let mut text = String::new();
        for key in self.store().keys(NOTE.as_bytes())? {
            // It may have been removed since it was listed.
            let Some(note) = self.store().get(&key)? else { continue };
            let number = String::from_utf8_lossy(&key[NOTE.len()..]).into_owned();
            let number = number.trim_start_matches('0');
            text.push_str(&format!("{number} {}\n", String::from_utf8_lossy(&note)));
        }
        Ok(answer(200, text))
    }

    fn keep(&self, body: &[u8]) -> Result<HttpResponse, Error> {
        let note = std::str::from_utf8(body).map_err(Error::invalid_input)?.trim();
        if note.is_empty() || note.len() > NOTE_MAX_BYTES || note.chars().any(char::is_control) {
            let text = format!("a note is one line of 1 to {NOTE_MAX_BYTES} bytes");
            return Err(Error::InvalidInput(text));
        }
        let number = self.next_number()?;
        // Written with zeroes, so that the order of keys is the order of numbers.
        self.store().put(format!("{NOTE}{number:020}").as_bytes(), note.as_bytes())?;
        let line = format!("{} kept {number}\n", self.host.wall_clock_ms()?);
        self.host.files().append(JOURNAL, line.as_bytes())?;
        Ok(answer(201, format!("{number}\n")))
    }

    fn next_number(&self) -> Result<u64, Error> {
        let mut last = self.store().get(LAST)?;
        loop {
            let number = match last.as_deref().map(<[u8; 8]>::try_from) {
                None => 1,
                Some(Ok(bytes)) => u64::from_le_bytes(bytes) + 1,
                Some(Err(_)) => return Err(Error::failed("the counter of notes is damaged")),
            };
            let next = number.to_le_bytes();
            match self.store().swap(LAST, last.as_deref(), Some(&next))? {
                SwapOutcome::Done => return Ok(number),
                // Another request was quicker.
                SwapOutcome::Found(found) => last = found,
            }
        }
    }

    fn journal(&self) -> Result<HttpResponse, Error> {
        match self.host.files().read(JOURNAL, JOURNAL_MAX_BYTES) {
            Ok(bytes) => Ok(answer(200, bytes)),
            Err(Error::NotFound(_)) => Ok(answer(200, "")),
            Err(error) => Err(error),
        }
    }
}

fn answer(status: u16, body: impl Into<Vec<u8>>) -> HttpResponse {
    HttpResponse::new(status, "text/plain; charset=utf-8", body)
        .with_header("cache-control", "no-store")
}

export_plugin!(Notes);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use modunest_sdk::operation::files::{Read, Write};
    use modunest_sdk::operation::form::{Blob, Form};
    use modunest_sdk::operation::store::{Entry, Get, List, Page, Put, Swap, Swapped};
    use modunest_sdk::operation::{
        CLOCK_WALL, FILE_READ, FILE_WRITE, STORE_GET, STORE_LIST, STORE_PUT, STORE_SWAP,
    };
    use modunest_sdk::testing::{TestHost, TestPlugin};

    use super::*;

    /// A host that keeps one store and one file in memory.
    fn host() -> TestHost {
        let keys: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>> = Arc::default();
        let file: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (get, put, list, swap) = (keys.clone(), keys.clone(), keys.clone(), keys);
        let (read, write) = (file.clone(), file);
        TestHost::new()
            .with_operation(STORE_GET, move |bytes| {
                let key = Get::decode(bytes).unwrap().key;
                Ok(Entry { value: get.lock().unwrap().get(key).cloned().map(Blob) }.encode())
            })
            .with_operation(STORE_PUT, move |bytes| {
                let Put { key, value, .. } = Put::decode(bytes).unwrap();
                put.lock().unwrap().insert(key.to_vec(), value.to_vec());
                Ok(Vec::new())
            })
            .with_operation(STORE_LIST, move |bytes| {
                let prefix = List::decode(bytes).unwrap().prefix;
                let keys = list.lock().unwrap();
                let keys = keys.keys().filter(|key| key.starts_with(prefix)).cloned().map(Blob);
                Ok(Page { keys: keys.collect(), more: false }.encode())
            })
            .with_operation(STORE_SWAP, move |bytes| {
                let Swap { key, expected, value, .. } = Swap::decode(bytes).unwrap();
                let mut keys = swap.lock().unwrap();
                if keys.get(key).map(Vec::as_slice) != expected {
                    let found = keys.get(key).cloned().map(Blob);
                    return Ok(Swapped { done: false, found }.encode());
                }
                keys.insert(key.to_vec(), value.unwrap().to_vec());
                Ok(Swapped { done: true, found: None }.encode())
            })
            .with_operation(CLOCK_WALL, |_| Ok(7u64.encode()))
            .with_operation(FILE_WRITE, move |bytes| {
                write.lock().unwrap().extend_from_slice(Write::decode(bytes).unwrap().content);
                Ok(Vec::new())
            })
            .with_operation(FILE_READ, move |bytes| {
                assert_eq!(Read::decode(bytes).unwrap().path, JOURNAL);
                Ok(read.lock().unwrap().clone())
            })
    }

    fn plugin(host: &TestHost) -> TestPlugin {
        // SAFETY: the entry of this very crate, made by the macro.
        unsafe { TestPlugin::from_table(modunest_plugin_v1(), host, b"") }.unwrap()
    }

    fn post(plugin: &TestPlugin, body: &[u8]) -> Result<HttpResponse, Error> {
        let get = HttpRequest::get("/notes");
        plugin.http(HttpRequest { method: "POST".into(), body: body.to_vec(), ..get })
    }

    fn shown(plugin: &TestPlugin, path: &str) -> String {
        String::from_utf8(plugin.http(HttpRequest::get(path)).unwrap().body).unwrap()
    }

    #[test]
    fn notes_are_kept_beyond_the_instance() {
        let host = host();
        let first = plugin(&host);
        assert_eq!(post(&first, b"buy milk\n").unwrap().body, b"1\n");
        assert_eq!(post(&first, b"call Ada").unwrap().body, b"2\n");
        drop(first);
        let second = plugin(&host);
        assert_eq!(shown(&second, "/notes"), "1 buy milk\n2 call Ada\n");
        assert_eq!(shown(&second, "/notes/journal"), "7 kept 1\n7 kept 2\n");
    }

    #[test]
    fn what_is_no_note_and_what_is_denied() {
        let kept = plugin(&host());
        for body in [&b""[..], b"two\nlines", &[0xff], &[b'x'; NOTE_MAX_BYTES + 1]] {
            assert_eq!(post(&kept, body).unwrap_err().http_status(), 400);
        }
        let denied = plugin(&TestHost::new());
        assert_eq!(post(&denied, b"x").unwrap_err().http_status(), 403);
    }
}
