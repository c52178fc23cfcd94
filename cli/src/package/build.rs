//! Building the library of a plugin with cargo.

use std::path::PathBuf;
use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::Source;
use crate::error::Error;
use crate::output::Output;

/// Most lines of cargo's output that an error repeats.
const SHOWN_LINES_MAX: usize = 60;

/// What was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The shared library.
    pub library: PathBuf,
    /// The target, as rustc names it.
    pub target: String,
}

/// The part of cargo's JSON messages that is of interest
/// (The Cargo Book, "External tools", "JSON messages").
#[derive(Deserialize)]
#[serde(tag = "reason")]
enum Message {
    #[serde(rename = "compiler-artifact")]
    Artifact { target: ArtifactTarget, filenames: Vec<PathBuf> },
    #[serde(rename = "compiler-message")]
    Said { message: Rendered },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct ArtifactTarget {
    name: String,
    crate_types: Vec<String>,
}

#[derive(Deserialize)]
struct Rendered {
    rendered: Option<String>,
}

/// Builds the native library for this machine, optimised and stripped.
///
/// # Errors
/// When the manifest declares no native build, cargo is not there, or the build fails; then
/// with what the compiler said.
pub async fn build(source: &Source, output: &Output) -> Result<Built, Error> {
    let manifest = &source.manifest;
    let Some(library) = &manifest.build.native else {
        return Err(Error::Input(format!(
            "{}: [build] declares no native library; add native = {{ library = \"name_of_the_crate\" }}",
            source.folder.join("plugin.toml").display()
        )));
    };
    let spinner = output.spinner(&format!("building {} {}", manifest.name, manifest.version));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--release", "--lib", "--message-format=json"])
        .args(["--config", "profile.release.strip=true"])
        .current_dir(&source.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        Error::Failed(format!("cargo could not be started ({error}); building plugins needs Rust, see https://rustup.rs"))
    })?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Error::Failed("cargo's output could not be read".to_owned()));
    };
    let said = tokio::spawn(last_lines(stderr));
    let mut found = None;
    let mut messages = String::new();
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await.map_err(Error::file("cargo's output"))? {
        match serde_json::from_str(&line) {
            Ok(Message::Artifact { target, filenames }) => {
                spinner.set_message(format!("building {}: {}", manifest.name, target.name));
                if target.name.replace('-', "_") == library.replace('-', "_")
                    && target.crate_types.iter().any(|kind| kind == "cdylib")
                {
                    found =
                        filenames.into_iter().find(|f| f.extension().is_some_and(|e| e == "so"));
                }
            }
            Ok(Message::Said { message }) => {
                messages.push_str(&message.rendered.unwrap_or_default());
            }
            // Build scripts may print anything; what matters comes as a message.
            Ok(Message::Other) | Err(_) => {}
        }
    }
    let status = child.wait().await.map_err(Error::file("cargo"))?;
    spinner.finish_and_clear();
    if !status.success() {
        let said = said.await.unwrap_or_default();
        return Err(Error::Failed(format!("building {} failed\n{messages}{said}", manifest.name)));
    }
    let library = found.ok_or_else(|| {
        Error::Input(format!(
            "{}: cargo built no library named {library}; is the crate's type \"cdylib\", and is [build] native.library its name?",
            source.folder.display()
        ))
    })?;
    Ok(Built { library, target: native_target().to_owned() })
}

/// The target that cargo builds for when not told otherwise: this program's own, as rustc
/// was installed for it.
pub const fn native_target() -> &'static str {
    if cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        "x86_64-unknown-linux-gnu"
    } else if cfg!(all(target_arch = "aarch64", target_env = "gnu")) {
        "aarch64-unknown-linux-gnu"
    } else if cfg!(all(target_arch = "x86_64", target_env = "musl")) {
        "x86_64-unknown-linux-musl"
    } else {
        "aarch64-unknown-linux-musl"
    }
}

async fn last_lines(stderr: tokio::process::ChildStderr) -> String {
    let mut lines = BufReader::new(stderr).lines();
    let mut kept = std::collections::VecDeque::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if kept.len() == SHOWN_LINES_MAX {
            kept.pop_front();
        }
        kept.push_back(line);
    }
    Vec::from(kept).join("\n")
}
