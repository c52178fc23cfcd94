//! Values of more than one section, and `[plugin]`, whose keys stand alone.

use std::collections::BTreeSet;

use semver::{Version, VersionReq};

use super::RouteStream;
use super::read::{Item, Table};
use super::sections::keys;
use super::text::{
    AUTHOR_MAX_CHARS, DESCRIPTION_CHARS, METHODS, VERSION_MAX_BYTES, keyword, license, line,
};
use crate::archive::{MANIFEST_NAME, path};
use crate::name::PluginName;

/// Most authors and keywords.
const PEOPLE_MAX: usize = 20;

pub(super) const NAME_HELP: &str = "write organisation/plugin, for example \"demo/gallery\"";
pub(super) const ITEM_HELP: &str = "use 2 to 50 of a-z, 0-9 and single hyphens";
pub(super) const REQUIREMENT_HELP: &str =
    "write a version requirement such as \"^1.2\" or \">=1, <3\"";
pub(super) const VERSION_HELP: &str =
    "write a semantic version such as \"1.0.0\" (https://semver.org)";
pub(super) const PATH_HELP: &str =
    "write a path within the plugin's folder, with / between its parts";

/// What `[plugin]` says.
pub(super) struct Head {
    pub(super) name: Option<PluginName>,
    pub(super) version: Option<Version>,
    pub(super) description: Option<String>,
    pub(super) authors: Vec<String>,
    pub(super) license: Option<String>,
    pub(super) readme: Option<String>,
    pub(super) keywords: Vec<String>,
    pub(super) critical: bool,
}

impl Head {
    pub(super) fn read(table: &Table<'_, '_>) -> Self {
        table.only(keys("plugin"));
        const AUTHORS_HELP: &str = "list at least one author, for example [\"Ada Example\"]";
        const DESCRIPTION_HELP: &str = "say in 10 to 500 characters what the plugin does";
        const LICENSE_HELP: &str = "write an SPDX expression such as \"MIT OR Apache-2.0\"";
        let strings =
            |key: &str, rule: fn(&str) -> Result<(), String>, help: &str| -> Vec<String> {
                let items = table.strings(key);
                if let Some(extra) = items.get(PEOPLE_MAX) {
                    extra.wrong(
                        format!("`{}`: at most {PEOPLE_MAX} entries are allowed", extra.path()),
                        "leave some out",
                    );
                }
                items.iter().filter_map(|item| item.checked(rule, help)).collect()
            };
        if let Some(authors) = table.need("authors", AUTHORS_HELP)
            && authors.value.as_array().is_some_and(|authors| authors.is_empty())
        {
            authors.wrong("`plugin.authors` is empty", AUTHORS_HELP);
        }
        Head {
            name: table.need("name", NAME_HELP).and_then(|item| item.parsed(NAME_HELP)),
            version: table.need("version", VERSION_HELP).and_then(|item| version(&item)),
            description: table.need("description", DESCRIPTION_HELP).and_then(|item| {
                item.checked(|text| line(text, DESCRIPTION_CHARS), DESCRIPTION_HELP)
            }),
            authors: strings("authors", |text| line(text, (1, AUTHOR_MAX_CHARS)), AUTHORS_HELP),
            license: table
                .need("license", LICENSE_HELP)
                .and_then(|item| item.checked(license, LICENSE_HELP)),
            readme: table.get("readme").and_then(|item| item.checked(packed_path, PATH_HELP)),
            keywords: strings("keywords", keyword, "use 2 to 30 of a-z, 0-9 and hyphens"),
            critical: table.flag("critical"),
        }
    }
}

/// A semver version whose every part has an order; build metadata has none, so that two
/// versions could differ and yet be equal.
pub(super) fn version(item: &Item<'_, '_>) -> Option<Version> {
    let version: Version = item.parsed(VERSION_HELP)?;
    if !version.build.is_empty() {
        item.wrong(
            format!("`{}` has build metadata (+{})", item.path(), version.build),
            "leave out the + and what follows",
        );
        return None;
    }
    if item.text()?.len() > VERSION_MAX_BYTES {
        item.wrong(
            format!("`{}` is longer than {VERSION_MAX_BYTES} bytes", item.path()),
            VERSION_HELP,
        );
        return None;
    }
    Some(version)
}

pub(super) fn requirement(item: &Item<'_, '_>) -> Option<VersionReq> {
    item.parsed(REQUIREMENT_HELP)
}

/// A plugin that `[dependencies]` names.
pub(super) fn dependency(item: &Item<'_, '_>, known: &BTreeSet<&PluginName>) -> Option<PluginName> {
    let plugin = item.parsed(NAME_HELP)?;
    if known.contains(&plugin) {
        return Some(plugin);
    }
    not_a_dependency(item, &plugin);
    None
}

pub(super) fn not_a_dependency(item: &Item<'_, '_>, plugin: &PluginName) {
    item.wrong(
        format!("`{plugin}` is not a dependency"),
        format!("add \"{plugin}\" = \"…\" to [dependencies]"),
    );
}

pub(super) fn methods(table: &Table<'_, '_>) -> Vec<String> {
    const HELP: &str = "use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS, each once";
    let Some(list) = table.get("methods") else { return vec!["GET".to_owned()] };
    let mut methods = Vec::new();
    let items = list.entries("a list of strings");
    if items.is_empty() && list.value.is_array() {
        list.wrong(format!("`{}` is empty", list.path()), HELP);
    }
    for item in items {
        let Some(text) = item.text() else { continue };
        if !METHODS.contains(&text) {
            let shown: String = text.chars().take(40).collect();
            item.wrong(format!("\"{shown}\" is not an HTTP method that routes may name"), HELP);
        } else if methods.iter().any(|method| method == text) {
            item.wrong(format!("\"{text}\" stands twice"), HELP);
        } else {
            methods.push(text.to_owned());
        }
    }
    methods
}

/// What a route takes beyond messages of a bounded size.
pub(super) fn route_streams(table: &Table<'_, '_>) -> Vec<RouteStream> {
    const HELP: &str = "use upload, websocket or both";
    let mut streams = Vec::new();
    for item in table.strings("stream") {
        let Some(text) = item.text() else { continue };
        match RouteStream::WORDS.iter().find(|(word, _)| *word == text) {
            None => {
                let shown: String = text.chars().take(40).collect();
                item.wrong(format!("\"{shown}\" is nothing that a route may take"), HELP);
            }
            Some((_, stream)) if streams.contains(stream) => {
                item.wrong(format!("\"{text}\" stands twice"), HELP);
            }
            Some((_, stream)) => streams.push(*stream),
        }
    }
    streams
}

/// Notes tables whose `key` says what an earlier one's said.
pub(super) fn unique_names(tables: &[Table<'_, '_>], key: &str, help: &str) {
    let mut seen = BTreeSet::new();
    for item in tables.iter().filter_map(|table| table.get(key)) {
        if item.value.as_str().is_some_and(|name| !seen.insert(name)) {
            item.wrong(format!("`{}` repeats an earlier one", item.path()), help);
        }
    }
}

/// A file within the archive.
pub(super) fn packed_path(text: &str) -> Result<(), String> {
    path::check(text).map_err(|problem| format!("\"{text}\": {problem}"))
}

/// A file or folder that `modunest pack` adds to what it packs by itself.
pub(super) fn included_path(text: &str) -> Result<(), String> {
    packed_path(text)?;
    let first = text.split('/').next().unwrap_or(text);
    if [MANIFEST_NAME, "lib"].iter().any(|own| own.eq_ignore_ascii_case(first)) {
        return Err(format!("\"{text}\" is packed from the build, not from a folder"));
    }
    Ok(())
}
