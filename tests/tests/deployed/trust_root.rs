//! A trust root that `modunest trust` made, read by python-tuf: another implementation of the
//! same specification.

use std::path::Path;
use std::process::Command;

use modunest_tests::process::{Finished, program, run};
use modunest_tests::tools;
use modunest_tlog::SigningKey;
use tempfile::TempDir;

/// Follows the client workflow from the first root, through files of a folder, and prints the
/// versions and the configuration that it came to. Its own cache lasts from run to run.
const PYTHON: &str = r#"
import json, os, sys
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater
served, cache = sys.argv[1:]

class Folder(FetcherInterface):
    def _fetch(self, url):
        path = os.path.join(served, url.removeprefix("http://folder/"))
        if not os.path.exists(path):
            raise DownloadHTTPError("not there", 404)
        return iter([open(path, "rb").read()])

os.makedirs(cache + "/targets", exist_ok=True)
updater = Updater(cache, "http://folder/", cache + "/targets", "http://folder/targets/",
    fetcher=Folder(), bootstrap=open(served + "/1.root.json", "rb").read())
updater.refresh()
target = updater.get_targetinfo("config.json")
config = json.load(open(updater.download_target(target)))
trusted = updater._trusted_set
print(json.dumps({"log_key": config["log_key"], "versions":
    [role.version for role in (trusted.root, trusted.targets, trusted.snapshot, trusted.timestamp)]}))
"#;

struct World {
    folder: TempDir,
}

impl World {
    fn modunest(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(program("modunest"));
        command.current_dir(self.folder.path()).args(["--json", "trust"]).args(arguments);
        let done = run(&mut command);
        assert_eq!(done.code, Some(0), "{arguments:?}: {done:?}");
        done
    }

    fn key(&self, name: &str) {
        self.modunest(&["key", "new", name]);
    }

    /// A configuration file; answers its log key.
    fn configure(&self, file: &str, seed: u8) -> String {
        let origin = "registry.example.org";
        let keys = [seed, 101, 102].map(|seed| {
            let key = SigningKey::from_seed(origin.parse().unwrap(), &[seed; 32]);
            key.verifying_key().to_string()
        });
        let [log, head, statement] = &keys;
        let template = ["template", "--origin", origin, "--log-key", log, "--head-key", head];
        let done = self.modunest(&[&template[..], &["--statement-key", statement]].concat());
        std::fs::write(self.folder.path().join(file), done.stdout).unwrap();
        log.clone()
    }

    fn python(&self, served: &Path) -> Finished {
        let cache = self.folder.path().join("python");
        run(Command::new(tools::python("python")).args(["-c", PYTHON]).arg(served).arg(cache))
    }

    /// What python-tuf comes to.
    fn read(&self, log_key: &str, versions: [u64; 4]) {
        let done = self.python(&self.folder.path().join("trust"));
        assert_eq!(done.code, Some(0), "{done:?}");
        let read: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(read, serde_json::json!({ "log_key": log_key, "versions": versions }));
    }
}

#[test]
fn python_tuf_follows_every_ceremony() {
    let world = World { folder: tempfile::tempdir().unwrap() };
    for name in ["a", "b", "c", "d", "online", "online2"] {
        world.key(name);
    }
    let first = world.configure("config.json", 1);
    let create = ["create", "--config", "config.json", "--online-key", "online"];
    let holders = ["--root-key", "a", "--root-key", "b", "--root-key", "c.pub"];
    world.modunest(&[&create[..], &holders].concat());
    world.read(&first, [1, 1, 1, 1]);

    let second = world.configure("next.json", 2);
    world.modunest(&["config", "--config", "next.json", "--key", "a"]);
    world.read(&first, [1, 1, 1, 1]);
    world.modunest(&["sign", "--key", "b", "--key", "online"]);
    world.read(&second, [1, 2, 2, 2]);

    // A holder leaves: the new one and one of those who stay sign the root and the
    // configuration, a second one of the old holders the root.
    world.modunest(&["rotate", "--old", "a.pub", "--new", "d", "--key", "b"]);
    world.modunest(&["sign", "--key", "c", "--key", "online"]);
    world.modunest(&["recover", "--online-key", "online2", "--key", "c", "--key", "d"]);
    let shown = world.modunest(&["show"]);
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    let version = |role: usize| shown["roles"][role]["newest"]["version"].as_u64().unwrap();
    world.read(&second, [3, version(1), version(2), version(3)]);

    // What it refuses, ours refuses: a byte of the newest targets is changed.
    let targets = world.folder.path().join(format!("trust/{}.targets.json", version(1)));
    let text = std::fs::read_to_string(&targets).unwrap();
    std::fs::write(&targets, text.replacen("\"length\": ", "\"length\": 1", 1)).unwrap();
    let fresh = World { folder: tempfile::tempdir().unwrap() };
    let done = fresh.python(&world.folder.path().join("trust"));
    assert_ne!(done.code, Some(0), "{done:?}");
    let mut show = Command::new(program("modunest"));
    let done = run(show.current_dir(world.folder.path()).args(["trust", "show"]));
    assert_ne!(done.code, Some(0), "{done:?}");
}
