//! The edge's worker: `modunest-edge` for wasm32, with the JavaScript that starts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::folders::Folders;
use crate::wasm::{self, Toolchain};
use crate::{clones, process, tools};

/// The cargo profile of the worker: small before fast, because it is loaded at every cold start.
const PROFILE: &str = "worker";

/// Where requests come in, before what worker-build makes. From `edge/build`.
const ENTRY: &str = "../src/worker/entry.js";

/// What the worker consists of.
const FILES: [&str; 2] = ["index.js", "index_bg.wasm"];

/// The most that the worker may take, compressed as it is when uploaded. The platform's own
/// limit is 3 MB (Workers, Limits, "Worker size"); size is time at a cold start.
const COMPRESSED_BYTES_MAX: u64 = 1_000_000;

/// Builds the worker, checks its size, and puts it where tests find it.
pub fn run(folders: &Folders) -> Result<(), Error> {
    build(folders)?;
    let built = folders.repository.join("edge/build");
    let (mut raw, mut compressed) = (0, 0);
    for name in FILES {
        let path = built.join(name);
        let bytes = fs::read(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        raw += bytes.len() as u64;
        compressed +=
            process::bytes(Command::new("gzip").args(["-9", "--stdout"]).arg(&path))?.len() as u64;
    }
    println!("worker: {raw} bytes, {compressed} compressed (at most {COMPRESSED_BYTES_MAX})");
    if compressed > COMPRESSED_BYTES_MAX {
        return Err(Error::WorkerSize { bytes: compressed, bytes_max: COMPRESSED_BYTES_MAX });
    }
    publish(&built, &folders.worker())
}

/// Has wrangler do all that it does at a deployment but the upload. It builds the worker by the
/// build command in `wrangler.toml`.
pub fn dry_run(folders: &Folders) -> Result<(), Error> {
    let node = tools::node(folders)?;
    let built = folders.repository.join("edge/build");
    // Without this, a wrangler.toml that builds nothing would pass with what was there.
    match fs::remove_dir_all(&built) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::File { path: built, source });
        }
        _ => {}
    }
    let dry_run = |arguments: &[&str]| {
        process::run(
            node.wrangler(folders)
                .args(["deploy", "--dry-run", "--outdir"])
                .arg(folders.cache.join("wrangler/out"))
                .args(arguments)
                .env("CARGO_TARGET_DIR", &folders.target),
        )
    };
    // The settings at the top: an empty name says that they are meant.
    dry_run(&["--env="])?;
    let (environments, built_config) = without_build(folders)?;
    let built_config = built_config.to_string_lossy();
    for name in environments {
        dry_run(&["--config", &built_config, "--env", &name])?;
    }
    Ok(())
}

/// The names of the environments in `wrangler.toml`, and a copy of it that takes the worker as it
/// is: one build will do for all.
fn without_build(folders: &Folders) -> Result<(Vec<String>, PathBuf), Error> {
    let path = folders.repository.join("wrangler.toml");
    let file = |path: &Path| {
        let path = path.to_owned();
        |source| Error::File { path, source }
    };
    let text = fs::read_to_string(&path).map_err(file(&path))?;
    let mut config: toml::Table =
        text.parse().map_err(|error| file(&path)(std::io::Error::other(error)))?;
    config.remove("build");
    if let Some(toml::Value::String(main)) = config.get_mut("main") {
        *main = folders.repository.join(&main).to_string_lossy().into_owned();
    }
    let environments = config.get("env").and_then(toml::Value::as_table);
    let names = environments.map(|table| table.keys().cloned().collect()).unwrap_or_default();
    let folder = folders.cache.join("wrangler");
    fs::create_dir_all(&folder).map_err(file(&folder))?;
    let copy = folder.join("wrangler.toml");
    fs::write(&copy, config.to_string()).map_err(file(&copy))?;
    Ok((names, copy))
}

fn build(folders: &Folders) -> Result<(), Error> {
    let toolchain = Toolchain::find(folders)?;
    let node = tools::node(folders)?;
    let worker_build = tools::WORKER_BUILD.install_if_missing(folders)?;
    let wasm_bindgen = tools::wasm_bindgen(folders)?.install_if_missing(folders)?;
    clones::claim(folders, &wasm::target(folders))?;
    let mut command = Command::new(worker_build);
    toolchain.apply(&mut command, folders, [node.bin()])?;
    command
        .current_dir(folders.repository.join("edge"))
        .args(["--profile", PROFILE, "--locked"])
        // Whatever is not named here it would fetch from elsewhere.
        .env("WASM_BINDGEN_BIN", wasm_bindgen)
        .env("WASM_OPT_BIN", node.wasm_opt())
        .env("ESBUILD_BIN", node.esbuild())
        .env("XDG_CACHE_HOME", folders.cache.join("worker-build"));
    process::run(&mut command)?;
    let built = folders.repository.join("edge/build");
    let (made, wasm) = (built.join("index.js"), built.join("wasm.js"));
    fs::rename(&made, &wasm).map_err(|source| Error::File { path: made, source })?;
    process::run(
        // At its warnings nobody can do anything: they are about what wasm-bindgen writes.
        Command::new(node.esbuild())
            .current_dir(&built)
            .args([ENTRY, "--bundle", "--minify", "--format=esm", "--log-level=error"])
            .args(["--external:./index_bg.wasm", "--external:cloudflare:*"])
            .arg("--outfile=index.js"),
    )?;
    fs::remove_file(&wasm).map_err(|source| Error::File { path: wasm, source })
}

/// Copies the worker's files, each in one step, so that nobody loads half a file.
fn publish(built: &Path, to: &Path) -> Result<(), Error> {
    let file = |path: &Path| {
        let path = path.to_owned();
        |source| Error::File { path, source }
    };
    fs::create_dir_all(to).map_err(file(to))?;
    for name in FILES {
        let aside = to.join(format!("{name}.{}", std::process::id()));
        fs::copy(built.join(name), &aside).map_err(file(&aside))?;
        let path = to.join(name);
        fs::rename(&aside, &path).map_err(file(&path))?;
    }
    Ok(())
}
