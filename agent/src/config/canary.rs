//! `[lifecycle.canary]`: how another release of a plugin is tried before it takes the place of
//! the one that runs.
//!
//! ```toml
//! [lifecycle.canary]
//! share_percent = 10      # of the calls, which the new instance serves; 0: changed at once
//! for_s = 300             # how long it is watched, at least
//! calls = 50              # how many calls it must have served, at least
//! failures = 3            # with fewer failures nothing is held against it
//! errors_percent = 5      # by how many points its share of failures may be above the old one's
//!
//! [lifecycle.canary.plugins]
//! "demo/page" = { share_percent = 50, for_s = 60 }   # what is left out is as above
//! "demo/*" = { share_percent = 0 }                   # the more exact name wins
//! ```
//!
//! Without the section, changes are made at once.

use std::collections::BTreeMap;
use std::time::Duration;

use modunest_core::name::PluginName;
use serde::Deserialize;
use toml::Spanned;

use super::Pattern;
use super::read::Check;

/// A day: a change that is watched for longer is never made.
const DAY_S: u64 = 24 * 3600;

/// How one plugin's change is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryRule {
    /// Of 100 calls, how many the new instance serves; zero for a change without a trial.
    pub share_percent: u32,
    /// How long it is watched, at least.
    pub watch: Duration,
    /// How many calls it must have served, at least.
    pub calls: u64,
    /// With fewer failures than these, its share of failures is not looked at.
    pub failures: u64,
    /// By how many points of a hundred its share of failures may be above the old instance's.
    pub errors_percent: u32,
}

/// Which changes are tried, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanarySettings {
    /// For all plugins that nothing else is said of.
    pub common: CanaryRule,
    /// For some.
    pub plugins: Vec<(Pattern, CanaryRule)>,
}

impl CanaryRule {
    const DEFAULT: CanaryRule = CanaryRule {
        share_percent: 10,
        watch: Duration::from_secs(300),
        calls: 50,
        failures: 3,
        errors_percent: 5,
    };
}

impl Default for CanarySettings {
    /// No change is tried.
    fn default() -> Self {
        let common = CanaryRule { share_percent: 0, ..CanaryRule::DEFAULT };
        CanarySettings { common, plugins: Vec::new() }
    }
}

impl CanarySettings {
    /// How changes of this plugin are tried, if they are.
    pub fn rule(&self, plugin: &PluginName) -> Option<CanaryRule> {
        let is_exact = |pattern: &Pattern| matches!(pattern, Pattern::Plugin(_));
        let fitting = self.plugins.iter().filter(|(pattern, _)| pattern.matches(plugin));
        let rule = fitting.max_by_key(|(pattern, _)| is_exact(pattern)).map(|(_, rule)| rule);
        Some(*rule.unwrap_or(&self.common)).filter(|rule| rule.share_percent > 0)
    }

    /// Whether any change at all is tried.
    pub fn tries_any(&self) -> bool {
        let rules = self.plugins.iter().map(|(_, rule)| rule);
        rules.chain([&self.common]).any(|rule| rule.share_percent > 0)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CanaryTable {
    share_percent: Option<Spanned<u64>>,
    for_s: Option<Spanned<u64>>,
    calls: Option<Spanned<u64>>,
    failures: Option<Spanned<u64>>,
    errors_percent: Option<Spanned<u64>>,
    #[serde(default)]
    plugins: BTreeMap<Spanned<String>, RuleTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    share_percent: Option<Spanned<u64>>,
    for_s: Option<Spanned<u64>>,
    calls: Option<Spanned<u64>>,
    failures: Option<Spanned<u64>>,
    errors_percent: Option<Spanned<u64>>,
}

impl Check<'_> {
    pub(super) fn canary(&mut self, table: Option<CanaryTable>) -> CanarySettings {
        let Some(table) = table else { return CanarySettings::default() };
        let CanaryTable { share_percent, for_s, calls, failures, errors_percent, plugins } = table;
        let all = RuleTable { share_percent, for_s, calls, failures, errors_percent };
        let common = self.canary_rule("lifecycle.canary", all, CanaryRule::DEFAULT);
        let mut rules = Vec::new();
        for (name, table) in plugins {
            let key = format!("lifecycle.canary.plugins.\"{}\"", name.get_ref());
            let rule = self.canary_rule(&key, table, common);
            match name.get_ref().parse::<Pattern>() {
                Ok(pattern) => rules.push((pattern, rule)),
                Err(error) => {
                    let help = "write \"org/name\", or \"org/*\" for all of an organisation";
                    self.refuse(name.span().start, &key, error.to_string(), help);
                }
            }
        }
        CanarySettings { common, plugins: rules }
    }

    fn canary_rule(&mut self, section: &str, table: RuleTable, defaults: CanaryRule) -> CanaryRule {
        let mut number = |name: &str, value, range, default| {
            self.number(&format!("{section}.{name}"), value, range, default)
        };
        // A share of 100 would leave nothing to compare with.
        let share = u64::from(defaults.share_percent);
        let share = number("share_percent", table.share_percent, (0, 99), share);
        let for_s = number("for_s", table.for_s, (0, DAY_S), defaults.watch.as_secs());
        let calls = number("calls", table.calls, (0, 1_000_000_000), defaults.calls);
        let failures = number("failures", table.failures, (1, 1_000_000), defaults.failures);
        let errors = u64::from(defaults.errors_percent);
        let errors = number("errors_percent", table.errors_percent, (0, 100), errors);
        CanaryRule {
            share_percent: share as u32,
            watch: Duration::from_secs(for_s),
            calls,
            failures,
            errors_percent: errors as u32,
        }
    }
}
