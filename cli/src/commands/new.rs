//! `modunest new`: the beginning of a plugin, which builds and passes its tests as it is.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use modunest_core::name::PluginName;
use modunest_core::relation::COMPONENT_WORLD;
use serde::Serialize;

use super::Context;
use crate::error::Error;

/// Flags of `modunest new`.
#[derive(Args)]
pub struct Arguments {
    /// org/name; asked for on a terminal when left out
    name: Option<PluginName>,
    /// Folder to make [default: the plugin's short name]
    folder: Option<PathBuf>,
    /// What to begin with; asked for on a terminal when left out
    #[arg(long)]
    template: Option<Template>,
    /// Build it as a component as well, which runs on every machine
    #[arg(long)]
    wasm: bool,
    /// Who wrote it, as the manifest and the licence say
    #[arg(long, default_value = "The authors")]
    author: String,
    /// The folder of modunest-sdk, for a checkout of Modu-Nest [default: found above this
    /// folder, else the released one]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// What a plugin begins with.
#[derive(Clone, Copy, ValueEnum)]
pub enum Template {
    /// A service that other plugins call
    Service,
    /// A page at a route of the host's gateway
    Page,
}

#[derive(Serialize)]
struct Made {
    plugin: PluginName,
    folder: PathBuf,
    files: Vec<&'static str>,
}

/// Makes the folder.
///
/// # Errors
/// When it exists, or cannot be written.
pub fn run(context: &Context, arguments: &Arguments) -> Result<(), Error> {
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => ask("Name (org/name): ", "name the plugin: modunest new ORG/NAME")?
            .parse()
            .map_err(|error| Error::Usage(format!("{error}")))?,
    };
    let template = match arguments.template {
        Some(template) => template,
        None if !std::io::stdin().is_terminal() => Template::Service,
        None => match ask("Template (service, page) [service]: ", "")?.as_str() {
            "" => Template::Service,
            other => Template::from_str(other, true).map_err(Error::Usage)?,
        },
    };
    let folder = arguments.folder.clone().unwrap_or_else(|| PathBuf::from(name.short()));
    if folder.exists() {
        return Err(Error::Usage(format!(
            "{} exists and is not overwritten; name another folder",
            folder.display()
        )));
    }
    let sdk = sdk(arguments.sdk.as_deref(), &folder)?;
    let files = files(&name, template, &arguments.author, &sdk, arguments.wasm);
    let made = Made {
        plugin: name,
        folder: folder.clone(),
        files: files.iter().map(|(file, _)| *file).collect(),
    };
    for (file, text) in files {
        crate::files::write(&folder.join(file), &text)?;
    }
    context.output.print(&made, |made| {
        format!(
            "made {} in {}: {}\nnext: cd {} && cargo test && modunest check",
            made.plugin,
            made.folder.display(),
            made.files.join(", "),
            made.folder.display()
        )
    })
}

fn ask(question: &str, without_terminal: &str) -> Result<String, Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage(without_terminal.to_owned()));
    }
    let mut out = std::io::stderr();
    write!(out, "{question}").and_then(|()| out.flush()).map_err(Error::file("terminal"))?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(Error::file("terminal"))?;
    Ok(line.trim().to_owned())
}

/// The dependency on the SDK as it stands in `Cargo.toml`.
fn sdk(named: Option<&Path>, folder: &Path) -> Result<String, Error> {
    let above = std::path::absolute(folder).ok();
    let found = above.iter().flat_map(|folder| folder.ancestors()).map(|a| a.join("sdk")).find(
        |candidate| {
            std::fs::read_to_string(candidate.join("Cargo.toml"))
                .is_ok_and(|text| text.contains("name = \"modunest-sdk\""))
        },
    );
    match named.map(Path::to_owned).or(found) {
        Some(path) => {
            let path = path.canonicalize().map_err(Error::file(&path))?;
            Ok(format!("{{ path = {:?} }}", path.display().to_string()))
        }
        None => Ok(format!("\"{}\"", env!("CARGO_PKG_VERSION"))),
    }
}

fn files(
    name: &PluginName,
    template: Template,
    author: &str,
    sdk: &str,
    wasm: bool,
) -> Vec<(&'static str, String)> {
    let crate_name = format!("{}-{}", name.org(), name.short());
    let (source, exports, description) = match template {
        Template::Service => (
            include_str!("../../templates/service/lib.rs"),
            "[[service]]\nname = \"shout\"\nversion = \"0.1.0\"\n".to_owned(),
            "Answers what it is told in capitals.",
        ),
        Template::Page => (
            include_str!("../../templates/page/lib.rs"),
            format!("[[route]]\npath = \"/{}\"\nmethods = [\"GET\"]\n", name.short()),
            "Answers a route of the host with a greeting.",
        ),
    };
    let type_name: String = name
        .short()
        .split('-')
        .map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(letters)
                .collect::<String>()
        })
        .collect();
    // A type's name starts with a letter; a plugin's may start with a digit.
    let type_name = if type_name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("Plugin{type_name}")
    } else {
        type_name
    };
    let library = crate_name.replace('-', "_");
    let wasm = if wasm {
        format!("\nwasm = {{ library = \"{library}\", world = \"{COMPONENT_WORLD}\" }}")
    } else {
        String::new()
    };
    let fill = |text: &str| {
        [
            ("{{name}}", name.as_str()),
            ("{{short}}", name.short()),
            ("{{type}}", &type_name),
            ("{{crate}}", &crate_name),
            ("{{library}}", &library),
            ("{{wasm}}", &wasm),
            ("{{description}}", description),
            ("{{exports}}", &exports),
            ("{{sdk}}", sdk),
            // What the author typed comes last and escaped, so that it is only text.
            ("{{author}}", &author.replace(['"', '\\', '\n'], " ")),
        ]
        .iter()
        .fold(text.to_owned(), |text, (place, value)| text.replace(place, value))
    };
    vec![
        ("plugin.toml", fill(include_str!("../../templates/plugin.toml.in"))),
        ("Cargo.toml", fill(include_str!("../../templates/Cargo.toml.in"))),
        ("src/lib.rs", fill(source)),
        ("README.md", fill(include_str!("../../templates/README.md.in"))),
        ("LICENSE", fill(include_str!("../../templates/LICENSE.in"))),
        (".gitignore", "/target\n*.zip\n*.key\n".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use modunest_core::manifest::Manifest;

    use super::*;

    #[test]
    fn every_template_has_a_valid_manifest() {
        for template in [Template::Service, Template::Page] {
            for name in ["demo/my-plugin", "demo/3d-view"] {
                let name: PluginName = name.parse().unwrap();
                let wasm = name.short() == "3d-view";
                let files = files(&name, template, "A \"quoted\" author", "\"0.1\"", wasm);
                let manifest = Manifest::parse(&files[0].1).unwrap();
                assert_eq!(manifest.name, name);
                assert_eq!(manifest.build.wasm.is_some(), wasm);
                for (file, text) in files {
                    assert!(!text.contains("{{"), "{file}: {text}");
                }
            }
        }
    }
}
