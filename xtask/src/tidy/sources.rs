//! Rules about single source files.

use crate::tidy::Finding;
use crate::tidy::code::{Keep, blank, line_of, occurrences, shipped};
use crate::tidy::tree::{File, Tree};

/// The longest Rust file. The house style wants 100 to 400 lines and a split near 600.
const LINES_MAX: usize = 600;

/// Files that may be longer, each with its reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// The largest tracked file. Larger ones slow every clone for ever: generate them instead.
const SIZE_MAX_BYTES: u64 = 400 * 1024;

/// Files that may be larger, each with its reason.
const LARGE_FILES: [(&str, &str); 0] = [];

/// Where `unsafe` may stand: a call of the C library, the native loader, the notes of which calls a
/// thread serves (a system call, and pointers to a thread's own), the cache of compiled components
/// (which maps what it proved), the system calls of the sandbox, the SDK's glue, the bare calls that
/// the loader is measured against, which are a loader without its checks, another plugin host's C
/// interface, and the component that attacks in tests.
const UNSAFE_ALLOWED: [&str; 12] = [
    "agent/src/clib.rs",
    "agent/src/thread/given.rs",
    "agent/src/thread/presence.rs",
    "agent/src/host/native",
    "agent/src/host/component/cache.rs",
    "agent/src/sandbox/",
    "sdk/",
    "bench/src/calls/bare.rs",
    "bench/src/host/bare.rs",
    "bench/src/components/bare.rs",
    "bench/src/components/extism.rs",
    "agent/tests/components/",
];

/// Plugins show that an author writes none. Their tests load them, which is unsafe by nature.
const UNSAFE_IN_TESTS_ONLY: &str = "sdk/examples/";

/// The one module that spells object keys, as a file or as a folder; and the paths of tiles,
/// which are not ours but the specification's.
const KEYS_MODULE: [&str; 3] = ["core/src/keys.rs", "core/src/keys/", "tlog/src/tile.rs"];

/// Beginnings of object keys that no ordinary text contains.
const KEY_PREFIXES: [&str; 2] = ["blob/sha256", "tile/entries"];

/// No file is longer than a reader can hold.
pub fn file_lengths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let lines = file.text.lines().count();
        let is_listed = LONG_FILES.iter().any(|(path, _)| *path == file.path);
        if lines > LINES_MAX && !is_listed {
            findings.push(Finding {
                rule: "file-length",
                path: file.path.clone(),
                line: LINES_MAX + 1,
                what: format!("{lines} lines, and {LINES_MAX} are allowed"),
                way_out: "split it by meaning, or list it with a reason in xtask/src/tidy/sources.rs",
            });
        }
    }
    findings
}

/// No file is a burden on every clone.
pub fn file_sizes(tree: &Tree) -> Vec<Finding> {
    let is_large = |file: &&File| {
        file.size_bytes > SIZE_MAX_BYTES && !LARGE_FILES.iter().any(|(path, _)| *path == file.path)
    };
    let finding = |file: &File| Finding {
        rule: "file-size",
        path: file.path.clone(),
        line: 0,
        what: format!("{} bytes, and {SIZE_MAX_BYTES} are allowed", file.size_bytes),
        way_out: "generate it where it is needed, or list it with a reason in \
                  xtask/src/tidy/sources.rs",
    };
    tree.files.iter().filter(is_large).map(finding).collect()
}

/// `unsafe` stands in two places only.
pub fn unsafe_has_its_places(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let code = if file.path.starts_with(UNSAFE_IN_TESTS_ONLY) {
            if file.is_test() {
                continue;
            }
            shipped(&file.text, Keep::Code)
        } else if UNSAFE_ALLOWED.iter().any(|prefix| file.path.starts_with(prefix)) {
            continue;
        } else {
            // Tests too: an unsound test proves nothing.
            blank(&file.text, Keep::Code)
        };
        for at in occurrences(&code, "unsafe") {
            findings.push(Finding {
                rule: "unsafe",
                path: file.path.clone(),
                line: line_of(&code, at),
                what: "unsafe code outside the native loader and the SDK's glue".to_owned(),
                way_out: "use a safe crate (rustix), or move it to agent/src/host/native or sdk/src",
            });
        }
    }
    findings
}

/// One module owns every object key.
pub fn keys_spelled_once(tree: &Tree) -> Vec<Finding> {
    let is_bound = |file: &&File| {
        !file.is_test()
            && !file.path.starts_with("xtask/")
            && !KEYS_MODULE.iter().any(|path| file.path.starts_with(path))
    };
    let mut findings = Vec::new();
    for file in tree.rust().filter(is_bound) {
        let code = shipped(&file.text, Keep::Strings);
        for prefix in KEY_PREFIXES {
            for at in occurrences(&code, prefix) {
                findings.push(Finding {
                    rule: "object-keys",
                    path: file.path.clone(),
                    line: line_of(&code, at),
                    what: format!("spells the object key `{prefix}…`"),
                    way_out: "call modunest_core::keys, which owns every key and cache header",
                });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;

    #[test]
    fn long_files_are_found_at_the_limit() {
        let (good, bad) = ("//\n".repeat(LINES_MAX), "//\n".repeat(LINES_MAX + 1));
        let tree = Tree::of(&[("core/src/a.rs", &good), ("core/src/b.rs", &bad)]);
        assert_eq!(places(&file_lengths(&tree)), [("core/src/b.rs", 601)]);
    }

    #[test]
    fn large_files_are_found_whatever_they_are() {
        let mut tree = Tree::of(&[("a.png", ""), ("b.png", "")]);
        tree.files[0].size_bytes = SIZE_MAX_BYTES;
        tree.files[1].size_bytes = SIZE_MAX_BYTES + 1;
        assert_eq!(places(&file_sizes(&tree)), [("b.png", 0)]);
    }

    #[test]
    fn unsafe_code_is_found_outside_its_places() {
        let text = "// unsafe is a word\n#![forbid(unsafe_code)]\nfn f() { unsafe { g() } }";
        let tree = Tree::of(&[
            ("core/src/lib.rs", text),
            ("agent/src/host/native/load.rs", text),
            ("sdk/src/lib.rs", text),
            ("sdk/examples/markdown/src/lib.rs", text),
            ("sdk/examples/markdown/tests/load.rs", text),
        ]);
        assert_eq!(
            places(&unsafe_has_its_places(&tree)),
            [("core/src/lib.rs", 3), ("sdk/examples/markdown/src/lib.rs", 3)]
        );
    }

    #[test]
    fn keys_are_found_outside_their_module() {
        let text = "//! Serves /blob/sha256/<hex>.\nfn f() { get(\"blob/sha256/\"); }\n\
                    #[cfg(test)]\nmod tests { const A: &str = \"blob/sha256/00\"; }";
        let tree = Tree::of(&[
            ("edge/src/plan.rs", text),
            ("core/src/keys.rs", text),
            ("edge/tests/http.rs", text),
        ]);
        assert_eq!(places(&keys_spelled_once(&tree)), [("edge/src/plan.rs", 2)]);
    }
}
