//! Building the library of a plugin with cargo: native, and as a component.

use std::path::PathBuf;
use std::process::Stdio;

use clap::ValueEnum;
use modunest_core::Version;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::{Source, wasm};
use crate::error::Error;
use crate::output::Output;

/// Most lines of cargo's output that an error repeats.
const SHOWN_LINES_MAX: usize = 60;

/// One kind of build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The shared library for this machine
    Native,
    /// The WebAssembly component
    Wasm,
}

/// Which of the builds that a manifest declares are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub enum Which {
    /// All of them.
    #[default]
    All,
    /// One of them.
    Only(Kind),
    /// All that can be made here: no component where nothing compiles for it.
    Possible,
}

/// What was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The shared library, or the component.
    pub library: PathBuf,
    /// What it is for.
    pub target: Target,
}

/// What a build is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A target, as rustc names it.
    Native(&'static str),
    /// A world of components.
    Wasm(Version),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Native(target) => f.write_str(target),
            Target::Wasm(world) => write!(f, "wasm, world {world}"),
        }
    }
}

impl Target {
    /// How it reads in a file's name.
    pub fn file_name(&self) -> &'static str {
        match self {
            Target::Native(target) => target,
            Target::Wasm(_) => "wasm",
        }
    }
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

/// Builds what the manifest declares, optimised and stripped: the native library for this
/// machine, the component, or both.
///
/// # Errors
/// When nothing that is wanted is declared, a compiler is not there, or the build fails; then
/// with what the compiler said.
pub async fn build(source: &Source, which: Which, output: &Output) -> Result<Vec<Built>, Error> {
    let settings = &source.manifest.build;
    let wanted = |kind| match which {
        Which::All | Which::Possible => true,
        Which::Only(only) => only == kind,
    };
    let mut built = Vec::new();
    if let Some(library) = settings.native.as_ref().filter(|_| wanted(Kind::Native)) {
        built.push(Built {
            library: cargo(source, library, Cargo::Native, output).await?,
            target: Target::Native(native_target()),
        });
    }
    if let Some(wasm) = settings.wasm.as_ref().filter(|_| wanted(Kind::Wasm)) {
        match wasm::compiler().await {
            Ok(compiler) => {
                let module = cargo(source, &wasm.library, Cargo::Wasm(&compiler), output).await?;
                built.push(Built {
                    library: wasm::component(module).await?,
                    target: Target::Wasm(wasm.world.clone()),
                });
            }
            Err(error) if matches!(which, Which::Possible) && !built.is_empty() => {
                output.note(&format!(
                    "{} is made without its component: {error}",
                    source.manifest.name
                ));
            }
            Err(error) => return Err(error),
        }
    }
    if built.is_empty() {
        let (what, example) = match which {
            Which::Only(Kind::Wasm) => {
                ("component", "wasm = { library = \"name_of_the_crate\", world = \"1.0.0\" }")
            }
            _ => ("native library", "native = { library = \"name_of_the_crate\" }"),
        };
        return Err(Error::Input(format!(
            "{}: [build] declares no {what}; add {example}",
            source.folder.join("plugin.toml").display()
        )));
    }
    Ok(built)
}

/// How cargo is called.
enum Cargo<'c> {
    /// For this machine.
    Native,
    /// For components, with this compiler.
    Wasm(&'c wasm::Compiler),
}

/// Runs cargo; answers the file that it made.
async fn cargo(
    source: &Source,
    library: &str,
    how: Cargo<'_>,
    output: &Output,
) -> Result<PathBuf, Error> {
    let manifest = &source.manifest;
    let (what, extension) = match how {
        Cargo::Native => ("", "so"),
        Cargo::Wasm(_) => (" as a component", "wasm"),
    };
    let spinner = output.spinner(&format!("building {} {}{what}", manifest.name, manifest.version));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--release", "--lib", "--message-format=json"])
        .args(["--config", "profile.release.strip=true"])
        .current_dir(&source.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Cargo::Wasm(compiler) = how {
        compiler.apply(&mut command);
    }
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
                    found = filenames
                        .into_iter()
                        .find(|f| f.extension().is_some_and(|e| e == extension));
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
        return Err(Error::Failed(format!(
            "building {}{what} failed\n{messages}{said}",
            manifest.name
        )));
    }
    let kind = if extension == "so" { "native" } else { "wasm" };
    found.ok_or_else(|| {
        Error::Input(format!(
            "{}: cargo built no library named {library}; is the crate's type \"cdylib\", and is [build] {kind}.library its name?",
            source.folder.display()
        ))
    })
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
