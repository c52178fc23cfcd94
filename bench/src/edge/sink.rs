//! An API that counts nothing: where the shells tell of downloads, so that what they do
//! besides answering is part of what is measured.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::error::Error;

const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// Starts it, for as long as this process runs; returns its origin.
pub fn start() -> Result<String, Error> {
    let socket = |source| Error::Io { what: "a socket".to_owned(), source };
    let listener = TcpListener::bind("127.0.0.1:0").map_err(socket)?;
    let address = listener.local_addr().map_err(socket)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(format!("http://{address}"))
}

/// Answers each request once it is there as a whole, until the other side has enough.
fn serve(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        while let Some(size) = request_size(&bytes) {
            bytes.drain(..size);
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
        }
    }
}

/// The length of the first request, if all of it is there.
fn request_size(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let body = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let size = head + body.and_then(|number| number.trim().parse().ok()).unwrap_or(0);
    (bytes.len() >= size).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::request_size;

    #[test]
    fn a_request_ends_with_its_body() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET";
        assert_eq!(request_size(request), Some(request.len() - 3));
        assert_eq!(request_size(&request[..request.len() - 4]), None);
        assert_eq!(request_size(b"GET / HTTP/1.1\r\n\r\n"), Some(18));
    }
}
