//! Relative relocations in their short form, for the agent's program: it then has one and a half
//! megabytes less to read at each start and to keep.
//!
//! The dynamic linker of glibc reads that form from 2.36 on (its NEWS, 2.36, DT_RELR), so it is
//! written only where the program is built for the machine that it is built on, and that has one.

#![allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]

use std::process::Command;

/// The first glibc that reads the short form.
const GLIBC_MIN: (u32, u32) = (2, 36);

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let (host, target) = (std::env::var("HOST"), std::env::var("TARGET"));
    let is_for_here = host == target && target.is_ok_and(|target| target.ends_with("-linux-gnu"));
    if is_for_here && glibc().is_some_and(|version| version >= GLIBC_MIN) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// This machine's glibc, if it has one that says its version.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
