//! What it does to harm its host and its neighbours.

use std::fs;

use modunest_sdk::operation as op;
use modunest_sdk::operation::environment::Variable;
use modunest_sdk::operation::files::{Named, Read, Write};
use modunest_sdk::operation::form::Form as _;
use modunest_sdk::operation::outbound::Send;
use modunest_sdk::operation::store::{Get, Put};
use modunest_sdk::{Error, Host, Level};

use crate::{Probe, text};

/// More than any message may have.
const TOO_MUCH_BYTES: usize = 17 * 1024 * 1024;

/// Every operation that this version of the SDK knows and that needs a grant or a partner.
const GRANTED: [u32; 20] = [
    op::STORE_GET,
    op::STORE_PUT,
    op::STORE_DELETE,
    op::STORE_LIST,
    op::STORE_SWAP,
    op::FILE_READ,
    op::FILE_WRITE,
    op::FILE_LIST,
    op::FILE_DELETE,
    op::FILE_INFO,
    op::FILE_PRIVATE_FOLDER,
    op::HTTP_SEND,
    op::CLOCK_WALL,
    op::CLOCK_MONOTONIC,
    op::RANDOM,
    op::ENVIRONMENT,
    100,
    101,
    110,
    op::UPLOAD_READ,
];

/// Attacks; `None` where it is none.
pub(crate) fn act(probe: &Probe, what: &str, payload: &[u8]) -> Option<Result<Vec<u8>, Error>> {
    let host = &probe.host;
    Some(match what {
        "panic" => panic!("as it was told to"),
        "abort" => std::process::abort(),
        "wild-read" => wild(),
        "spin" => spin(),
        "grow" => grow(),
        "recurse" => Ok(recurse(0, &mut [0; 64]).to_string().into_bytes()),
        "nest" => Ok(nest(std::hint::black_box(1)).to_string().into_bytes()),
        "large" => Ok(vec![b'x'; TOO_MUCH_BYTES]),
        "lie" => Ok(lie()),
        "no-text" => Err(Error::Failed(no_text())),
        "log-no-text" => {
            host.log(Level::Info, &no_text());
            Ok(Vec::new())
        }
        "log-much" => {
            host.log(Level::Trace, &"x".repeat(TOO_MUCH_BYTES));
            Ok(Vec::new())
        }
        "ask-much" => host.operate(op::STORE_PUT, &vec![0; TOO_MUCH_BYTES]),
        "call-much" => host.service("demo/other", "echo", &vec![0; TOO_MUCH_BYTES]),
        "storm" => storm(host),
        "escape" => Ok(escape(host, text(payload).unwrap_or_default()).into_bytes()),
        "read-file" => raw(fs::read("/etc/passwd")),
        "raw-read" => raw(fs::read(text(payload).unwrap_or_default())),
        "raw-write" => {
            let path = text(payload).unwrap_or_default();
            raw(fs::write(path, b"raw").map(|()| Vec::new()))
        }
        _ => return None,
    })
}

/// What the system answered, without the host between.
fn raw(outcome: std::io::Result<Vec<u8>>) -> Result<Vec<u8>, Error> {
    outcome.map_err(|error| Error::Denied(error.kind().to_string()))
}

pub(crate) fn spin() -> ! {
    let mut round = 0u64;
    loop {
        round = std::hint::black_box(round.wrapping_add(1));
    }
}

fn grow() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(std::hint::black_box(vec![1u8; 1024 * 1024]));
    }
}

#[allow(unconditional_recursion, reason = "that is the attack")]
fn recurse(depth: u64, room: &mut [u64; 64]) -> u64 {
    let mut inner = *room;
    inner[(depth % 64) as usize] = depth;
    let below = recurse(depth + 1, std::hint::black_box(&mut inner));
    below + inner[0]
}

/// Calls itself without end and without a word of memory: only return addresses pile up.
fn nest(depth: u64) -> u64 {
    if depth == 0 { 0 } else { nest(depth.wrapping_add(1)).wrapping_mul(3) ^ depth }
}

/// Reads where nothing is.
fn wild() -> Result<Vec<u8>, Error> {
    let nowhere = std::hint::black_box(0xffff_fff0_usize) as *const u8;
    // SAFETY: none, on purpose: there is no memory.
    let byte = unsafe { nowhere.read_volatile() };
    Ok(vec![byte])
}

/// A vector that says it is larger than all of memory.
fn lie() -> Vec<u8> {
    // SAFETY: none, on purpose. It is handed to the host unread, which ends the instance.
    unsafe { Vec::from_raw_parts(0xffff_0000 as *mut u8, 0x7fff_ffff, 0x7fff_ffff) }
}

/// A text that is none.
fn no_text() -> String {
    // SAFETY: none, on purpose. It is handed to the host unread.
    unsafe { String::from_utf8_unchecked(vec![0xff, 0xfe, b'x']) }
}

fn storm(host: &Host) -> Result<Vec<u8>, Error> {
    for round in 0..100_000u32 {
        host.log(Level::Trace, "storm");
        // 200 to 299 are everybody's.
        if host.operate(round % 200, b"").is_ok() {
            return Err(Error::failed("an operation that nobody granted"));
        }
    }
    Ok(Vec::new())
}

/// Everything that it could ask for and was granted nothing of, a line each. `port` is one of
/// the host's own machine.
fn escape(host: &Host, port: &str) -> String {
    let mut lines = String::new();
    let mut note = |what: &str, outcome: Result<Vec<u8>, Error>| {
        let text = outcome.map_or_else(|error| error.to_string(), |_| "DONE".to_owned());
        lines.push_str(&format!("{what}: {text}\n"));
    };
    for path in ["/etc/passwd", "../../../../etc/passwd", "own.txt", "/proc/self/environ", ""] {
        let read = Read { path, offset: 0, length: 100 };
        note(&format!("read {path}"), host.operate(op::FILE_READ, &read.encode()));
        let write = Write { path, append: true, content: b"x" };
        note(&format!("write {path}"), host.operate(op::FILE_WRITE, &write.encode()));
        let named = Named { path }.encode();
        for (word, number) in
            [("list", op::FILE_LIST), ("delete", op::FILE_DELETE), ("info", op::FILE_INFO)]
        {
            note(&format!("{word} {path}"), host.operate(number, &named));
        }
    }
    note("private folder", host.operate(op::FILE_PRIVATE_FOLDER, b""));
    for store in ["cache", "", "../cache", "other/cache"] {
        let get = Get { store, key: b"a" }.encode();
        note(&format!("get from {store:?}"), host.operate(op::STORE_GET, &get));
        let put = Put { store, key: b"a", value: b"x" }.encode();
        note(&format!("put into {store:?}"), host.operate(op::STORE_PUT, &put));
    }
    for place in ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "2130706433"] {
        let url = format!("http://{place}:{port}/");
        note(&format!("send to {place}"), host.operate(op::HTTP_SEND, &Send::get(&url).encode()));
    }
    for name in ["HOME", "PATH", "a=b", ""] {
        note(
            &format!("variable {name:?}"),
            host.operate(op::ENVIRONMENT, &Variable { name }.encode()),
        );
    }
    note("wall clock", host.operate(op::CLOCK_WALL, b""));
    note("monotonic clock", host.operate(op::CLOCK_MONOTONIC, b""));
    note("random", host.operate(op::RANDOM, &16u32.encode()));
    note("call a stranger", host.service("demo/neighbour", "echo", b"x"));
    note("call itself", host.service("demo/hostile", "count", b""));
    note("open a stranger", host.operate(100, b"demo/neighbour:echo"));
    note("a guessed handle", host.operate(101, &[0; 32]));
    note("publish", host.publish("added", b"x").map(|()| Vec::new()));
    note("another's upload", host.operate(op::UPLOAD_READ, &[1; 12]));
    for name in ["../plugin.wasm", "/etc/passwd", "..", "lib/../../x"] {
        note(&format!("asset {name}"), host.asset(name));
    }
    let mut unknown = 0;
    for number in (0..600).chain([u32::MAX, 1 << 16]).filter(|n| !GRANTED.contains(n)) {
        match host.operate(number, b"") {
            Err(Error::Unsupported(_)) => unknown += 1,
            // Who the user is, and a stream that is nobody's.
            _ if (200..300).contains(&number) => {}
            other => note(&format!("operation {number}"), other),
        }
    }
    let junk = [&b""[..], &[0xff; 64], &[0; 4096], b"\x04\x00\x00\x80abc"];
    for number in GRANTED {
        for (nth, junk) in junk.iter().enumerate() {
            note(&format!("{number} with junk {nth}"), host.operate(number, junk));
        }
    }
    lines.push_str(&format!("{unknown} unknown operations\n"));
    lines
}
