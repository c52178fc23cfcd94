//! The reader: Go compiles and runs it, with the libraries of Debian's packages.

use std::path::Path;
use std::process::Command;

use modunest_tests::process::{Finished, run};
use modunest_tests::tools::system;
use modunest_tlog::{TreeHash, VerifyingKey};
use url::Url;

/// Where Debian puts the sources of Go libraries (Debian Go Packaging Policy).
const LIBRARIES: &str = "/usr/share/gocode";

/// An earlier state of the log: its size and root.
pub type Earlier = (u64, TreeHash);

/// Reads the whole log at `url`, and checks that it continues the earlier ones.
pub async fn read(url: &Url, key: &VerifyingKey, earlier: &[Earlier]) -> Finished {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/tlog/main.go");
    // Shared by all tests: what Go compiled once it does not compile again.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
    let mut command = Command::new(system("go", "golang-go golang-golang-x-mod-dev"));
    command
        .envs([("GO111MODULE", "off"), ("GOFLAGS", ""), ("GOPATH", LIBRARIES)])
        .env("GOCACHE", cache)
        .args(["run".as_ref(), program.as_os_str()])
        .args([url.as_str(), &key.to_string()])
        .args(earlier.iter().map(|(size, root)| format!("{size}:{root}")));
    // The log may be served by this process, so its threads must not wait here.
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
}

/// What the reader says of a log that it refuses.
pub async fn refusal(url: &Url, key: &VerifyingKey, earlier: &[Earlier]) -> String {
    let finished = read(url, key, earlier).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{}", finished.stderr);
    finished.stderr
}
