//! The version of a build that is only tried: the manifest's own with `dev.N` behind it.
//!
//! No registry takes the same version twice with other bytes, and no requirement but an exact
//! one chooses a version like that, so such a build is marked wherever it is seen.

use modunest_core::manifest::Manifest;
use serde::Deserialize;
use toml::Spanned;

use crate::error::Error;
use crate::package::Source;

#[derive(Deserialize)]
struct Whole {
    plugin: Plugin,
}

#[derive(Deserialize)]
struct Plugin {
    version: Spanned<String>,
}

/// The same source with the version of its build number `number`.
///
/// # Errors
/// The manifest is not valid with that version.
pub fn stamped(source: &Source, number: u64) -> Result<Source, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Input(format!("plugin.toml: {error}"));
    let text = std::str::from_utf8(&source.manifest_bytes).map_err(|error| failed(&error))?;
    let whole: Whole = toml::from_str(text).map_err(|error| failed(&error))?;
    let version = &source.manifest.version;
    let separator = if version.pre.is_empty() { '-' } else { '.' };
    let span = whole.plugin.version.span();
    let text =
        format!("{}\"{version}{separator}dev.{number}\"{}", &text[..span.start], &text[span.end..]);
    let manifest_bytes = text.into_bytes();
    let manifest = Manifest::parse_bytes(&manifest_bytes).map_err(|error| failed(&error))?;
    Ok(Source { folder: source.folder.clone(), manifest_bytes, manifest })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn source(version: &str) -> Source {
        let text = format!(
            "# version = \"9.9.9\"\n[plugin]\nname = \"demo/page\"\nversion = {version} # ours\n\
             description = \"A page for tests\"\nauthors = [\"Ada\"]\nlicense = \"MIT\"\n\n\
             [[service]]\nname = \"echo\"\nversion = \"1.0.0\"\n\n\
             [build]\nnative = {{ library = \"page\" }}\n\n[host]\nabi = 1\n"
        );
        let manifest = Manifest::parse(&text).unwrap();
        Source { folder: ".".into(), manifest_bytes: text.into_bytes(), manifest }
    }

    #[test]
    fn only_the_plugins_own_version_is_marked() {
        for (written, expected) in [
            ("\"1.2.0\"", "1.2.0-dev.7"),
            ("'1.2.0'", "1.2.0-dev.7"),
            ("\"1.2.0-rc.1\"", "1.2.0-rc.1.dev.7"),
        ] {
            let before = source(written);
            let after = stamped(&before, 7).unwrap();
            assert_eq!(after.manifest.version.to_string(), expected);
            let text = String::from_utf8(after.manifest_bytes).unwrap();
            let marked = format!("version = \"{expected}\" # ours");
            assert_eq!(
                text.replace(&marked, &format!("version = {written} # ours")).into_bytes(),
                before.manifest_bytes
            );
            assert!(after.manifest.version > before.manifest.version || !written.contains("rc"));
        }
    }
}
