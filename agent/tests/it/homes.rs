//! One plugin, from one source, in the four homes that a plugin may have.

use std::path::PathBuf;

use modunest_agent::Config;
use modunest_core::archive::PackFile;
use modunest_core::scan::COMPONENT_NAME;
use modunest_core::statement::TrustLevel;

use crate::plugins::release_of;
use crate::registry::Release;

/// The component whose source is in `tests/components/probe`.
pub const PROBE: &[u8] = include_bytes!("../../../fuzz/corpus/scan/findings-probe.wasm");

/// Where a plugin runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// A native library in the agent's process.
    Near,
    /// A native library in a process of its own.
    Native,
    /// A component in the agent's process.
    Inside,
    /// A component in a process of its own.
    Runner,
}

impl Home {
    pub const ALL: [Home; 4] = [Home::Native, Home::Near, Home::Inside, Home::Runner];
    /// Those with a wall: what a plugin does there by itself is confined, and what never ends is
    /// ended.
    pub const WALLED: [Home; 3] = [Home::Native, Home::Inside, Home::Runner];
    pub const COMPONENTS: [Home; 2] = [Home::Inside, Home::Runner];

    /// The word of the status.
    pub fn tier(self) -> &'static str {
        match self {
            Home::Near => "in-process",
            Home::Native => "process",
            Home::Inside => "component",
            Home::Runner => "component-process",
        }
    }

    /// The trust level that brings a component there.
    pub fn trust(self) -> TrustLevel {
        match self {
            Home::Inside => TrustLevel::Verified,
            Home::Near | Home::Native | Home::Runner => TrustLevel::Community,
        }
    }

    /// Another version of the probe, which differs in nothing else.
    pub fn release_at(self, name: &str, version: &str, more: &str) -> Release {
        let Release { manifest, files } = self.release(name, more);
        let (first, at) = ("\nversion = \"1.0.0\"", format!("\nversion = \"{version}\""));
        Release { manifest: manifest.replacen(first, &at, 1), files }
    }

    /// Version 1.0.0 of the probe, for this home. `more` is appended to the manifest.
    pub fn release(self, name: &str, more: &str) -> Release {
        match self {
            Home::Near | Home::Native => release_of(name, "1.0.0", native_library(), more),
            Home::Inside | Home::Runner => component(name, more),
        }
    }

    /// Brings all plugins of a configuration there, whatever their trust levels.
    pub fn settle(self, config: &mut Config) {
        config.host.component.own_process = match self {
            Home::Inside => Some(TrustLevel::Community),
            Home::Near | Home::Native | Home::Runner => None,
        };
        if self == Home::Near {
            config.host.in_process = vec!["demo/*".parse().unwrap()];
        }
    }
}

/// A release of the probe as a component. `more` is appended to the manifest.
pub fn component(name: &str, more: &str) -> Release {
    let manifest = format!(
        "[plugin]\nname = \"{name}\"\nversion = \"1.0.0\"\ndescription = \"A component that exists for tests\"\nauthors = [\"Ada Example\"]\nlicense = \"MIT\"\n\n[host]\nabi = 1\n{more}\n[build]\nwasm = {{ library = \"probe\", world = \"1.0.0\" }}\n"
    );
    let file = |name: &str, content: &[u8]| PackFile {
        name: name.to_owned(),
        content: content.to_vec(),
        executable: false,
    };
    Release { manifest, files: vec![file(COMPONENT_NAME, PROBE), file("assets/a", b"A")] }
}

/// The same source as a library, which cargo builds beside the tests as an example.
fn native_library() -> Vec<u8> {
    std::fs::read(built_example("libprobe.so")).unwrap()
}

/// An example as cargo builds it beside the tests.
pub fn built_example(file: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(file);
    assert!(
        path.exists(),
        "{} is missing; `cargo build -p modunest-agent --examples` makes it",
        path.display()
    );
    path
}
