//! The load: a fixed number of requests over kept connections, on one thread.
//!
//! It reads what it must know of an answer, its status and length, and no more, so that the
//! servers are what is measured.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::error::Error;
use crate::stats;

/// Bytes read at once: a blob takes a few reads, as with any real client.
const BUFFER_BYTES: usize = 256 * 1024;
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What to send, and what must come back.
#[derive(Debug, Args)]
pub struct Plan {
    /// Address and port.
    #[arg(long)]
    pub address: String,
    /// The path.
    #[arg(long)]
    pub path: String,
    /// An entity tag; the answer must then be 304.
    #[arg(long)]
    pub if_none_match: Option<String>,
    /// How many requests.
    #[arg(long)]
    pub requests: u32,
    /// Over how many connections.
    #[arg(long)]
    pub connections: u32,
    /// Length of each answer's body.
    #[arg(long)]
    pub body_bytes: u64,
}

/// What was seen.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Answers a second.
    pub per_second: f64,
    /// Median time of one.
    pub p50_us: f64,
    /// The time that one in a hundred exceeds.
    pub p99_us: f64,
}

impl Plan {
    /// The plan as a child's command line.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["load".to_owned()];
        let mut add = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        add("address", self.address.clone());
        add("path", self.path.clone());
        add("requests", self.requests.to_string());
        add("connections", self.connections.to_string());
        add("body-bytes", self.body_bytes.to_string());
        if let Some(tag) = &self.if_none_match {
            add("if-none-match", tag.clone());
        }
        arguments
    }

    fn request(&self) -> Vec<u8> {
        let condition = self.if_none_match.as_ref();
        let condition = condition.map_or(String::new(), |tag| format!("if-none-match: {tag}\r\n"));
        format!("GET {} HTTP/1.1\r\nhost: {}\r\n{condition}\r\n", self.path, self.address)
            .into_bytes()
    }
}

fn io(source: std::io::Error) -> Error {
    Error::Io { what: "the load".to_owned(), source }
}

/// Sends the load.
pub fn run(plan: &Plan) -> Result<Outcome, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
    runtime.block_on(async {
        let request = plan.request();
        let share = |number: u32| {
            let extra = u32::from(number < plan.requests % plan.connections);
            plan.requests / plan.connections + extra
        };
        let mut streams = Vec::new();
        for _ in 0..plan.connections {
            let stream = tokio::net::TcpStream::connect(&plan.address).await.map_err(io)?;
            stream.set_nodelay(true).map_err(io)?;
            streams.push(stream);
        }
        let begun = Instant::now();
        let local = tokio::task::LocalSet::new();
        let status: u16 = if plan.if_none_match.is_some() { 304 } else { 200 };
        let expected = (status, plan.body_bytes);
        let tasks: Vec<_> = streams
            .into_iter()
            .zip(0..)
            .map(|(stream, number)| {
                let work = connection(stream, request.clone(), share(number), expected);
                local.spawn_local(work)
            })
            .collect();
        let mut times = Vec::with_capacity(plan.requests as usize);
        local
            .run_until(async {
                for task in tasks {
                    times.extend(task.await.map_err(Error::wrong("the load"))??);
                }
                Ok::<_, Error>(())
            })
            .await?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Outcome {
            per_second: f64::from(plan.requests) / seconds,
            p50_us: stats::quantile(&mut times, 0.5),
            p99_us: stats::quantile(&mut times, 0.99),
        })
    })
}

async fn connection(
    mut stream: tokio::net::TcpStream,
    request: Vec<u8>,
    requests: u32,
    (status, body_bytes): (u16, u64),
) -> Result<Vec<f64>, Error> {
    let wrong = |why: String| Error::Wrong { what: "an answer under load", why };
    let mut times = Vec::with_capacity(requests as usize);
    let mut buffer = vec![0; BUFFER_BYTES];
    for _ in 0..requests {
        let begun = Instant::now();
        stream.write_all(&request).await.map_err(io)?;
        let mut have = 0;
        // Once the head is there: how many bytes of the body are still to come.
        let mut left: Option<u64> = None;
        while left != Some(0) {
            let start = if left.is_some() { 0 } else { have };
            let read = stream.read(&mut buffer[start..]).await.map_err(io)?;
            if read == 0 {
                return Err(wrong("the connection was closed".to_owned()));
            }
            left = match left {
                Some(left) => Some(left.checked_sub(read as u64).ok_or_else(|| {
                    wrong(format!("more than the {body_bytes} bytes that were announced"))
                })?),
                None => {
                    have += read;
                    let Some(head) = Head::of(&buffer[..have]) else { continue };
                    let length = if head.status == 304 { 0 } else { head.length };
                    if (head.status, length) != (status, body_bytes) {
                        return Err(wrong(format!("status {} and {length} bytes", head.status)));
                    }
                    Some((head.size as u64 + length).saturating_sub(have as u64))
                }
            };
        }
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// What must be known of an answer's head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// `content-length`, zero without.
    length: u64,
    /// Bytes up to the body.
    size: usize,
}

impl Head {
    fn of(bytes: &[u8]) -> Option<Head> {
        let size = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let text = std::str::from_utf8(&bytes[..size]).ok()?;
        let status = text.get(9..12)?.parse().ok()?;
        let length = lines(text).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
        Some(Head { status, length, size })
    }
}

fn lines(head: &str) -> impl Iterator<Item = (&str, &str)> {
    head.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(n, v)| (n, v.trim()))
}

/// The fields of one answer, with names in lower case.
pub fn head(address: &str, path: &str) -> Result<Vec<(String, String)>, Error> {
    let mut stream = TcpStream::connect(address).map_err(io)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(io)?;
    let request = format!("HEAD {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(io)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(io)?;
    if !text.starts_with("HTTP/1.1 200 ") {
        return Err(Error::Wrong { what: "an answer", why: text });
    }
    Ok(lines(&text).map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect())
}

/// What a server answers to a GET: a body of the length that its head announces, and the entity
/// tag that a condition can name.
pub struct Found {
    /// Length of the body.
    pub body_bytes: u64,
    /// Its entity tag, if it has one.
    pub tag: Option<String>,
}

/// Asks once for what will be asked for many times.
pub fn find(address: &str, path: &str) -> Result<Found, Error> {
    let wrong = |why: String| Error::Wrong { what: "an answer", why };
    let mut stream = TcpStream::connect(address).map_err(io)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(io)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(io)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(io)?;
    let head = Head::of(&bytes).ok_or_else(|| wrong(format!("no head for {path}")))?;
    let text = String::from_utf8_lossy(&bytes[..head.size]);
    let body_bytes = (bytes.len() - head.size) as u64;
    if (head.status, head.length) != (200, body_bytes) {
        return Err(wrong(format!("{path}: {body_bytes} bytes after {text}")));
    }
    let tag = lines(&text).find(|(name, _)| name.eq_ignore_ascii_case("etag"));
    Ok(Found { body_bytes, tag: tag.map(|(_, value)| value.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_once_they_are_whole() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nx: y\r\n\r\nbody";
        assert_eq!(Head::of(text), Some(Head { status: 200, length: 12, size: text.len() - 4 }));
        assert_eq!(Head::of(&text[..30]), None);
        let text = b"HTTP/1.1 304 Not Modified\r\n\r\n";
        assert_eq!(Head::of(text), Some(Head { status: 304, length: 0, size: text.len() }));
    }
}
