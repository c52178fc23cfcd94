//! `wrangler.toml` against the worker: each binding and variable that it reads is there, in
//! every environment, and nothing is there that it does not read.

use std::cell::RefCell;
use std::collections::BTreeSet;

use modunest_edge::plan::settings::Settings;

use super::calls::sources;
use super::template::{read, root};

/// Set with `wrangler secret put`, and so in no file.
const SECRET: &str = "COUNT_TOKEN";

/// Where the worker's source asks its environment for bindings.
const SOURCES: &str = "edge/src/worker";
/// How it asks.
const CALLS: [&str; 2] = ["binding(\"", "text(\""];

/// Sections of `wrangler.toml` that bind names.
const BINDINGS: [&str; 6] = [
    "analytics_engine_datasets",
    "d1_databases",
    "kv_namespaces",
    "queues",
    "r2_buckets",
    "ratelimits",
];

/// What the worker asks for besides its settings.
fn asked_for() -> BTreeSet<String> {
    let text = sources(&root().join(SOURCES));
    let names = CALLS.iter().flat_map(|call| text.split(call).skip(1));
    names.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

fn table<'a>(
    section: &'a toml::Table,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a toml::Value)> {
    section.get(key).and_then(toml::Value::as_table).into_iter().flatten()
}

/// The names that a value of a section binds, however deep.
fn bound(value: &toml::Value, names: &mut BTreeSet<String>) {
    match value {
        toml::Value::Array(values) => values.iter().for_each(|value| bound(value, names)),
        toml::Value::Table(fields) => {
            for key in ["binding", "name"] {
                names.extend(fields.get(key).and_then(toml::Value::as_str).map(str::to_owned));
            }
            fields.values().for_each(|value| bound(value, names));
        }
        _ => {}
    }
}

fn check(place: &str, section: &toml::Table) {
    let variables: Vec<(&str, &str)> = table(section, "vars")
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect();
    let read = RefCell::new(asked_for());
    let settings = Settings::read(|name| {
        read.borrow_mut().insert(name.to_owned());
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    });
    settings.unwrap_or_else(|error| panic!("{place}: {error}"));
    let mut read = read.into_inner();
    assert!(read.remove(SECRET), "no secret is put that nobody reads");
    let mut there: BTreeSet<String> =
        variables.iter().map(|(name, _)| (*name).to_owned()).collect();
    for kind in BINDINGS {
        if let Some(value) = section.get(kind) {
            bound(value, &mut there);
        }
    }
    assert_eq!(there, read, "{place}: bound, and read by the worker");
}

#[test]
fn what_the_worker_reads_is_bound_in_every_environment() {
    let configuration: toml::Table = read("wrangler.toml").parse().unwrap();
    check("wrangler.toml", &configuration);
    // Bindings and variables are not inherited (Wrangler, "Environments").
    let environments: Vec<_> = table(&configuration, "env").collect();
    assert!(!environments.is_empty(), "no environment to deploy");
    for (name, environment) in environments {
        check(&format!("env.{name}"), environment.as_table().unwrap());
    }
}
