//! Bodies larger than a message, in both directions, and WebSockets.

use modunest_sdk::stream::{Piece, Stream, StreamEvent};
use modunest_sdk::{Error, HttpRequest, HttpResponse};

use crate::{Probe, attacks, page};

/// Bytes of a piece of `/big`.
const PIECE_BYTES: usize = 64 * 1024;

pub(crate) fn serve(
    probe: &Probe,
    what: &str,
    request: &HttpRequest,
) -> Result<HttpResponse, Error> {
    let query = request.query.as_deref().unwrap_or_default();
    match what {
        "big" => {
            let pieces: u64 = query.parse().map_err(Error::invalid_input)?;
            let stream = (0..pieces).map(|number| Ok(vec![number as u8; PIECE_BYTES]));
            let stream = probe.streams.open(stream);
            Ok(HttpResponse::streamed(200, "application/octet-stream", stream))
        }
        "upload" => upload(probe, request, query).map(|text| page(text.into_bytes())),
        _ if request.websocket => Ok(HttpResponse::websocket(probe.streams.open(Echo))),
        _ => Err(Error::invalid_input("this is a place for WebSockets")),
    }
}

/// Reads a body to its end; with `slow`, reads a piece and then never goes on.
fn upload(probe: &Probe, request: &HttpRequest, query: &str) -> Result<String, Error> {
    let (mut bytes, mut sum) = (request.body.len(), total(&request.body));
    if let Some(upload) = &request.upload {
        loop {
            let piece = probe.host.read_upload(upload)?;
            if piece.is_empty() {
                break;
            }
            bytes += piece.len();
            sum += total(&piece);
            if query == "slow" {
                attacks::spin();
            }
        }
    }
    Ok(format!("{bytes} bytes, sum {sum}"))
}

fn total(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

/// Answers each message with itself, until `bye`.
struct Echo;

impl Stream for Echo {
    fn next(&mut self) -> Result<Piece, Error> {
        Ok(Piece::Wait)
    }

    fn message(&mut self, message: StreamEvent<'_>) -> Result<Piece, Error> {
        match message {
            StreamEvent::Text("bye") => Ok(Piece::End),
            StreamEvent::Text(text) => Ok(Piece::Text(text.to_owned())),
            StreamEvent::Binary(bytes) => Ok(Piece::Bytes(bytes.to_vec())),
            StreamEvent::Next | StreamEvent::Closed => Ok(Piece::Wait),
        }
    }
}
