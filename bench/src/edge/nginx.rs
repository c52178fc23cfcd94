//! The peer: nginx with one process, serving from disk the files that we serve.

use std::fs;
use std::net::TcpStream;
use std::ops::Deref;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{START_TIMEOUT, load, server};
use crate::error::Error;
use crate::folders;
use crate::process::{self, Server};

/// Fields that nginx writes by itself, or that differ in each answer.
const OWN_FIELDS: [&str; 9] = [
    "accept-ranges",
    "connection",
    "content-length",
    "content-type",
    "date",
    "etag",
    "last-modified",
    "server",
    "traceparent",
];

/// A running nginx.
pub struct Nginx {
    server: Server,
    /// Where it answers.
    pub address: String,
    _folder: TempDir,
}

impl Nginx {
    /// Ends it.
    pub fn stop(self) -> Result<(), Error> {
        self.server.stop()
    }
}

impl Deref for Nginx {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// Starts nginx over copies of the site's files, with the fields of the site's answers.
pub fn start(site: &server::Site, processor: Option<usize>) -> Result<Nginx, Error> {
    let program = folders::program("nginx", "install Debian's nginx-light or nginx")?;
    let folder = folders::scratch()?;
    let root = folder.path();
    site.write(&root.join("files"))?;
    let port = process::free_port()?;
    let address = format!("127.0.0.1:{port}");
    let file = root.join("nginx.conf");
    let fields = load::head(&site.address, &site.index)?;
    fs::write(&file, config(root, &address, &fields)).map_err(Error::io(&file))?;
    let mut command = Command::new(program);
    command.arg("-p").arg(root).arg("-c").arg(&file);
    let command = match processor {
        Some(number) => process::pinned(&command, number)?,
        None => command,
    };
    let server = Server::start(command, false)?;
    let until = Instant::now() + START_TIMEOUT;
    while TcpStream::connect(&address).is_err() {
        if Instant::now() > until {
            let seconds = START_TIMEOUT.as_secs();
            return Err(Error::NotReady {
                program: "nginx".to_owned(),
                seconds,
                said: String::new(),
            });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Nginx { server, address, _folder: folder })
}

/// As a careful operator would set it: files by `sendfile` from open descriptors, no log.
fn config(root: &Path, address: &str, fields: &[(String, String)]) -> String {
    let added: String = fields
        .iter()
        .filter(|(name, _)| !OWN_FIELDS.contains(&name.as_str()))
        .map(|(name, value)| format!("    add_header {name} {value:?} always;\n"))
        .collect();
    let content_type = fields.iter().find(|(name, _)| name == "content-type");
    let content_type = content_type.map_or("application/octet-stream", |(_, value)| value);
    let root = root.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {root}/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {root}/nginx.pid;\n\
         error_log {root}/error.log warn;\nevents {{ worker_connections 1024; }}\n\
         http {{\n{temporary}  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  tcp_nodelay on;\n  \
         server_tokens off;\n  keepalive_requests 1000000000;\n  \
         open_file_cache max=64 inactive=10m;\n  types {{ }}\n  default_type {content_type:?};\n  \
         server {{\n    listen {address};\n    root {root}/files;\n{added}    \
         add_header traceparent \"00-${{request_id}}-00f067aa0ba902b7-01\" always;\n  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_fields_are_copied_and_its_own_are_not() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let fields = [field("etag", "\"x\""), field("cache-control", "public, immutable")];
        let text = config(Path::new("/x"), "127.0.0.1:1", &fields);
        assert!(text.contains("add_header cache-control \"public, immutable\" always;"), "{text}");
        assert!(!text.contains("etag"), "{text}");
    }
}
