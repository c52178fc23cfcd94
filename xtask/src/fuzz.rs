//! Fuzzing on the stable compiler.
//!
//! `cargo-fuzz` is a thin cover over a few compiler flags; giving them here saves a tool and a
//! nightly. Coverage flags are stable; the address sanitiser is not, but its runtime is shipped
//! with the stable compiler and `RUSTC_BOOTSTRAP` unlocks its flag.

use std::fs;
use std::process::Command;

use crate::error::Error;
use crate::folders::Folders;
use crate::process;

/// Edge coverage for libFuzzer, the address sanitiser, and the checks of a debug build. `cfg(fuzzing)`
/// also gives some dependencies fixed hash seeds, so that a finding repeats.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1 -Zsanitizer=address";

/// The most memory one input may take. The archive gate's own bound is 256 MB unpacked; this
/// leaves room for the sanitiser's shadow.
const MEMORY_MAX_MB: u32 = 2_048;

/// The longest time for one input, in seconds.
const INPUT_SECONDS_MAX: u32 = 10;

/// Builds and runs the named targets one after another, or all of them.
pub fn run(folders: &Folders, names: &[String], seconds: u32) -> Result<(), Error> {
    let known = targets(folders)?;
    for name in names {
        if !known.contains(name) {
            return Err(Error::NoTarget { name: name.clone(), known: known.join(", ") });
        }
    }
    let chosen = if names.is_empty() { &known[..] } else { names };
    for name in chosen {
        fuzz(folders, name, seconds)?;
    }
    Ok(())
}

fn fuzz(folders: &Folders, name: &str, seconds: u32) -> Result<(), Error> {
    let fuzz = folders.repository.join("fuzz");
    // New inputs go to the cache; the committed corpus only changes by hand.
    let found = folders.cache.join("fuzz-found").join(name);
    let crashes = folders.cache.join("fuzz-crashes").join(name);
    for folder in [&found, &crashes] {
        fs::create_dir_all(folder)
            .map_err(|source| Error::File { path: folder.clone(), source })?;
    }
    process::run(
        Command::new("cargo")
            .current_dir(&fuzz)
            // A target makes the flags apply to the fuzzed code only, not to build scripts.
            .args(["run", "--quiet", "--release", "--target", "x86_64-unknown-linux-gnu"])
            .args(["--bin", name, "--"])
            .args([&found, &fuzz.join("corpus").join(name)])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-rss_limit_mb={MEMORY_MAX_MB}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-artifact_prefix={}/", crashes.display()))
            .arg("-print_final_stats=1")
            .env("CARGO_TARGET_DIR", folders.cache.join("target-fuzz"))
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", RUSTFLAGS),
    )
}

/// Names of the targets that exist, sorted.
fn targets(folders: &Folders) -> Result<Vec<String>, Error> {
    let path = folders.repository.join("fuzz/fuzz_targets");
    let entries =
        fs::read_dir(&path).map_err(|source| Error::File { path: path.clone(), source })?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| Error::File { path: path.clone(), source })?;
        if let Some(name) = entry.file_name().to_string_lossy().strip_suffix(".rs") {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}
