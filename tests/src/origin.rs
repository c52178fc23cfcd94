//! An origin of our own, which can fail in every way that an origin fails. It speaks enough
//! HTTP for the worker, and enough of S3 for the native shell.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_runtime::aws::Settings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use url::Url;

use crate::site::PUBLIC;

/// Longer than anybody waits.
const FOR_EVER: Duration = Duration::from_secs(120);
/// Longest head of a request.
const HEAD_MAX_BYTES: usize = 64 * 1024;

/// How the origin answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Healthy,
    /// Not at all: the connection ends.
    Down,
    /// Not before everybody has given up.
    Slow,
    /// The head and half of the body, and then nothing more.
    Stall,
    /// The head and half of the body, and then the connection ends.
    Truncate,
    /// One byte less, and a length that says so.
    Short,
    /// Ten bytes more, and a length that says so.
    Long,
    /// As many bytes, of which one is another.
    Wrong,
    /// With an error.
    Status(u16),
}

/// The origin. It ends when dropped.
pub struct Origin {
    /// Where it answers.
    pub url: Url,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    objects: Mutex<BTreeMap<String, Bytes>>,
    mood: Mutex<Mood>,
    asked: AtomicUsize,
}

impl Origin {
    /// A healthy one without objects.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let shared = Arc::new(Shared {
            objects: Mutex::default(),
            mood: Mutex::new(Mood::Healthy),
            asked: AtomicUsize::new(0),
        });
        let served = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&served);
                tokio::spawn(async move {
                    // Whoever asked has gone, which is their right.
                    let _gone = shared.serve(stream).await;
                });
            }
        });
        Origin { url, shared, task }
    }

    /// Puts an object there.
    ///
    /// # Panics
    /// Never.
    pub fn put(&self, key: &ObjectKey, content: &[u8]) {
        let content = Bytes::copy_from_slice(content);
        self.shared.objects.lock().unwrap().insert(key.to_string(), content);
    }

    /// Changes how it answers from now on.
    ///
    /// # Panics
    /// Never.
    pub fn is_now(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }

    /// How often it was asked for an object.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// What the native shell needs to take it for S3.
    pub fn as_s3(&self) -> Settings {
        Settings {
            region: "eu-central-1".to_owned(),
            access_key_id: "AKIATESTS".to_owned(),
            secret_access_key: "nobody checks it".to_owned(),
            session_token: None,
            s3_endpoint: Some(self.url.as_str().trim_end_matches('/').to_owned()),
            dynamodb_endpoint: None,
            kms_endpoint: None,
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What of a request matters here.
struct Asked {
    is_head: bool,
    key: String,
    range: Option<(usize, usize)>,
    if_none_match: Option<String>,
}

impl Shared {
    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mood = *self.mood.lock().unwrap();
        let Some(asked) = read(&mut stream).await? else { return Ok(()) };
        if asked.key.is_empty() {
            // S3's question whether there is a bucket.
            return answer(&mut stream, 200, &[], b"", 0).await;
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        match mood {
            Mood::Down => return Ok(()),
            Mood::Slow => {
                tokio::time::sleep(FOR_EVER).await;
                return Ok(());
            }
            Mood::Status(status) => {
                return error(&mut stream, status, "InternalError").await;
            }
            _ => {}
        }
        let found = self.objects.lock().unwrap().get(&asked.key).cloned();
        let Some(content) = found else { return error(&mut stream, 404, "NoSuchKey").await };
        let tag = match mood {
            // A store that has other bytes has another tag for them.
            Mood::Short | Mood::Long | Mood::Wrong => format!("\"{mood:?}\""),
            _ => format!("\"{}\"", &Digest::of(&content).to_string()[..32]),
        };
        if asked.if_none_match.as_deref() == Some(&tag) {
            return answer(&mut stream, 304, &[("etag", &tag)], b"", 0).await;
        }
        let (start, end) = asked.range.unwrap_or((0, content.len()));
        let mut body = content[start..end.min(content.len())].to_vec();
        let part = format!("bytes {start}-{}/{}", end.saturating_sub(1), content.len());
        let mut fields = vec![("etag", tag.as_str()), ("content-type", "binary/octet-stream")];
        let status = if asked.range.is_some() { 206 } else { 200 };
        if status == 206 {
            fields.push(("content-range", &part));
        }
        match mood {
            Mood::Short => body.truncate(body.len() - 1),
            Mood::Long => body.extend_from_slice(&[0; 10]),
            Mood::Wrong => body[0] ^= 1,
            _ => {}
        }
        let length = body.len();
        if asked.is_head {
            body.clear();
        }
        if matches!(mood, Mood::Stall | Mood::Truncate) {
            body.truncate(body.len() / 2);
        }
        answer(&mut stream, status, &fields, &body, length).await?;
        if mood == Mood::Stall {
            tokio::time::sleep(FOR_EVER).await;
        }
        Ok(())
    }
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Asked>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 || head.len() > HEAD_MAX_BYTES {
            return Ok(None);
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut line = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default().trim_start_matches('/');
    let key = path.strip_prefix(PUBLIC).unwrap_or(path).trim_start_matches('/').to_owned();
    let mut asked = Asked { is_head: method == "HEAD", key, range: None, if_none_match: None };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "if-none-match" => asked.if_none_match = Some(value.trim().to_owned()),
            "range" => {
                let range = value.trim().strip_prefix("bytes=").and_then(|v| v.split_once('-'));
                asked.range = range.and_then(|(first, last)| {
                    Some((first.parse().ok()?, last.parse::<usize>().ok()? + 1))
                });
            }
            _ => {}
        }
    }
    Ok(Some(asked))
}

async fn error(stream: &mut TcpStream, status: u16, code: &str) -> std::io::Result<()> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code>\
         <Message>as it was told</Message></Error>"
    );
    answer(stream, status, &[("content-type", "application/xml")], body.as_bytes(), body.len())
        .await
}

async fn answer(
    stream: &mut TcpStream,
    status: u16,
    fields: &[(&str, &str)],
    body: &[u8],
    length: usize,
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} Told\r\nconnection: close\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if status != 304 {
        head.push_str(&format!("content-length: {length}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await
}
