//! One HTTP/1.1 exchange to the letter: methods, paths and fields go out as a test spells
//! them, where a URL type would tidy them up first, and what comes back is told piece by piece.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::Url;

use crate::client::Answer;

/// How long an exchange may take: longer than any server here waits for another.
const LIMIT: Duration = Duration::from_secs(60);

/// A body that is on its way out.
pub type Outgoing = UnsyncBoxBody<Bytes, std::io::Error>;

/// A request to be sent as it stands.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Fields; `Host` is added.
    pub fields: Vec<(String, String)>,
    /// The body; none where `None`.
    pub body: Option<Bytes>,
}

impl Ask {
    /// A request without fields and body.
    pub fn new(method: &str, target: &str) -> Ask {
        let (method, target) = (method.to_owned(), target.to_owned());
        Ask { method, target, fields: Vec::new(), body: None }
    }

    /// A GET.
    pub fn get(target: &str) -> Ask {
        Ask::new("GET", target)
    }

    /// With another field.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Ask {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Ask {
        self.body = Some(body.into());
        self
    }

    /// Sends it, and reads the whole answer.
    ///
    /// # Errors
    /// How far it came, when the connection broke.
    ///
    /// # Panics
    /// When the request cannot be written down, or nothing happens for too long.
    pub async fn send(&self, base: &Url) -> Result<Answer, Broken> {
        self.open(base).await?.read().await
    }

    /// As [`Ask::send`], from a server that must answer.
    ///
    /// # Panics
    /// When the connection breaks.
    pub async fn answer(&self, base: &Url) -> Answer {
        match self.send(base).await {
            Ok(answer) => answer,
            Err(broken) => panic!("{} {}: {broken:?}", self.method, self.target),
        }
    }

    /// Sends it, and reads the head of the answer.
    ///
    /// # Errors
    /// When the connection broke before.
    ///
    /// # Panics
    /// When the request cannot be written down.
    pub async fn open(&self, base: &Url) -> Result<Open, Broken> {
        let body = self.body.clone().unwrap_or_default();
        self.open_with(base, Full::new(body).map_err(|never| match never {}).boxed_unsync()).await
    }

    /// As [`Ask::open`], with a body that is still being made.
    ///
    /// # Errors
    /// When the connection broke before.
    ///
    /// # Panics
    /// When the request cannot be written down.
    pub async fn open_with(&self, base: &Url, body: Outgoing) -> Result<Open, Broken> {
        let address = format!("{}:{}", base.host_str().unwrap(), base.port().unwrap());
        let target = format!("{}{}", base.path().trim_end_matches('/'), self.target);
        let mut request = http::Request::builder().method(&*self.method).uri(target);
        request = request.header("host", &address);
        for (name, value) in &self.fields {
            request = request.header(name, value);
        }
        let request = request.body(body).unwrap();
        let opened = async {
            let stream = TcpStream::connect(&address).await.map_err(Broken::early)?;
            stream.set_nodelay(true).map_err(Broken::early)?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(Broken::early)?;
            // It ends with the exchange; what went wrong, the exchange says.
            let connection = tokio::spawn(async move {
                let _told_by_the_exchange = connection.await;
            });
            let response = sender.send_request(request).await.map_err(Broken::early)?;
            Ok(Open { response, connection: Ended(connection), at: Instant::now() })
        };
        tokio::time::timeout(LIMIT, opened).await.expect("an answer in time")
    }
}

/// Ends a connection's task when dropped, so that a server sees its client go.
struct Ended(tokio::task::JoinHandle<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer whose head has come.
pub struct Open {
    response: http::Response<Incoming>,
    connection: Ended,
    /// When the head came.
    pub at: Instant,
}

impl Open {
    /// The status.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// When it breaks off.
    ///
    /// # Panics
    /// When nothing comes for too long.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let next = tokio::time::timeout(LIMIT, self.response.body_mut().frame()).await;
            match next.expect("a piece in time") {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(error.to_string()),
                None => return Ok(None),
            }
        }
    }

    /// Reads what is left.
    ///
    /// # Errors
    /// How far it came, when it breaks off.
    pub async fn read(mut self) -> Result<Answer, Broken> {
        let mut body = Vec::new();
        loop {
            match self.piece().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => break,
                Err(error) => {
                    let status = Some(self.status());
                    return Err(Broken { status, received: body, error });
                }
            }
        }
        let (parts, _) = self.response.into_parts();
        drop(self.connection);
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.into() })
    }
}

/// An exchange that did not come to its end.
#[derive(Debug)]
pub struct Broken {
    /// The status, when it had come.
    pub status: Option<u16>,
    /// What had come of the body.
    pub received: Vec<u8>,
    /// What broke.
    pub error: String,
}

impl Broken {
    fn early(error: impl std::fmt::Display) -> Broken {
        Broken { status: None, received: Vec::new(), error: error.to_string() }
    }
}
