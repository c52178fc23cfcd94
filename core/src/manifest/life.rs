//! `[lifecycle]`, `[state]` and `[[schedule]]`: when a plugin is loaded, what a successor may
//! take over from it, and when it is called by the clock.

use std::str::FromStr;

use serde::Serialize;

use super::read::{Item, Table};
use super::values::{ITEM_HELP, unique_names};
use crate::name::ServiceName;
use crate::time::{Timestamp, civil_from_days};

/// Longest that a plugin may ask for to load, in milliseconds: ten minutes.
pub const LOAD_TIMEOUT_MAX_MS: u64 = 600_000;

/// What loads a plugin that is not loaded at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// A request to one of its routes.
    Route,
    /// A call of one of its services.
    Service,
    /// An event that it receives.
    Event,
    /// One of its schedules.
    Schedule,
}

impl Activation {
    /// All of them.
    pub const ALL: [Activation; 4] =
        [Activation::Route, Activation::Service, Activation::Event, Activation::Schedule];

    /// The word in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Activation::Route => "route",
            Activation::Service => "service",
            Activation::Event => "event",
            Activation::Schedule => "schedule",
        }
    }
}

/// When a plugin is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Life {
    /// What loads it; empty means that it is loaded with its host.
    pub activation: Vec<Activation>,
    /// How long it asks for to load, in milliseconds; a host may allow less.
    pub load_timeout_ms: Option<u64>,
}

/// The form of a plugin's snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateSchema {
    /// Number of the form that this release writes.
    pub version: u32,
    /// Numbers of the forms that it can take over, ascending; its own is always one of them.
    pub accepts: Vec<u32>,
}

/// A call by the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Schedule {
    /// Name, unique within the plugin; the target of the call.
    pub name: ServiceName,
    /// When.
    pub cron: Cron,
}

/// Minutes, as five fields of cron in UTC: minute, hour, day of month, month, day of week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    /// For each field, the numbers that fit, as bits.
    fields: [u64; FIELDS.len()],
}

impl Cron {
    /// Whether the minute that `at` lies in is meant. Where both days are given, either will
    /// do, as in every cron.
    pub fn is_due(&self, at: Timestamp) -> bool {
        let minutes = at.as_secs() / 60;
        let days = minutes / (24 * 60);
        let (_, month, day) = civil_from_days(days);
        // The first of January 1970 was a Thursday.
        let weekday = (days + 4) % 7;
        let [minute, hour, days, months, weekdays] = self.fields;
        let has = |field: u64, number: u64| field >> number & 1 == 1;
        let on_day = has(days, day);
        let on_weekday = has(weekdays, weekday);
        let mut texts = self.text.split(' ').skip(2);
        let (any_day, any_weekday) = (texts.next() == Some("*"), texts.nth(1) == Some("*"));
        let day_fits = match (any_day, any_weekday) {
            (false, false) => on_day || on_weekday,
            _ => on_day && on_weekday,
        };
        has(minute, minutes % 60) && has(hour, minutes / 60 % 24) && has(months, month) && day_fits
    }

    /// As the manifest has it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Serialize for Cron {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// Reads `[lifecycle]`.
pub(super) fn life(table: &Table<'_, '_>) -> Life {
    const HELP: &str = "list \"route\", \"service\", \"event\" or \"schedule\", each once";
    let mut activation = Vec::new();
    for item in table.strings("activation") {
        let Some(text) = item.text() else { continue };
        match Activation::ALL.into_iter().find(|one| one.as_str() == text) {
            None => {
                let shown: String = text.chars().take(40).collect();
                item.wrong(format!("`{}`: \"{shown}\" activates nothing", item.path()), HELP);
            }
            Some(one) if activation.contains(&one) => {
                item.wrong(format!("`{text}` stands twice"), HELP);
            }
            Some(one) => activation.push(one),
        }
    }
    let load_timeout_ms = table.get("load_timeout_ms").and_then(|item| {
        number(&item, (1, LOAD_TIMEOUT_MAX_MS), "write milliseconds, for example 30000")
    });
    Life { activation, load_timeout_ms }
}

/// Reads `[state]`.
pub(super) fn state(table: &Table<'_, '_>) -> Option<StateSchema> {
    const HELP: &str = "count the forms of the snapshot from 1, for example version = 1";
    let bounds = (1, u64::from(u32::MAX));
    let version = table.need("version", HELP).and_then(|item| number(&item, bounds, HELP));
    let mut accepts = Vec::new();
    if let Some(list) = table.get("accepts") {
        for item in list.entries("a list of numbers") {
            accepts.extend(number(&item, bounds, HELP).map(|number| number as u32));
        }
    }
    let version = version? as u32;
    accepts.push(version);
    accepts.sort_unstable();
    accepts.dedup();
    Some(StateSchema { version, accepts })
}

/// Reads `[[schedule]]`.
pub(super) fn schedules(tables: &[Table<'_, '_>]) -> Vec<Schedule> {
    const HELP: &str = "write minute, hour, day of month, month and day of week in UTC, for \
                        example \"30 3 * * 1-5\"";
    unique_names(tables, "name", "give each schedule its own name");
    let read = |table: &Table<'_, '_>| {
        let name = table.need("name", ITEM_HELP).and_then(|item| item.parsed(ITEM_HELP));
        let cron = table.need("cron", HELP).and_then(|item| item.parsed(HELP));
        Some(Schedule { name: name?, cron: cron? })
    };
    tables.iter().filter_map(read).collect()
}

fn number(item: &Item<'_, '_>, (min, max): (u64, u64), help: &str) -> Option<u64> {
    let value = item.value.as_integer();
    let value = value.and_then(|text| u64::from_str_radix(text.as_str(), text.radix()).ok());
    let value = value.filter(|number| (min..=max).contains(number));
    if value.is_none() {
        item.wrong(format!("`{}` must be a number from {min} to {max}", item.path()), help);
    }
    value
}

/// The fields of cron, with their bounds.
const FIELDS: [(&str, u32, u32); 5] = [
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 7),
];

/// Five fields, each of numbers, ranges, steps and lists: what every cron reads alike.
impl FromStr for Cron {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(' ').collect();
        if parts.len() != FIELDS.len() {
            return Err(format!("\"{text}\" has {} fields, not five", parts.len()));
        }
        let mut fields = [0; FIELDS.len()];
        for ((field, part), (name, min, max)) in fields.iter_mut().zip(parts).zip(FIELDS) {
            for one in part.split(',') {
                *field |= numbers(one, min, max).ok_or_else(|| {
                    format!("\"{one}\" is no {name}: {min} to {max}, * or a range with a step")
                })?;
            }
        }
        // Sunday is 0 and 7.
        fields[4] |= fields[4] >> 7 & 1;
        Ok(Cron { text: text.to_owned(), fields })
    }
}

/// The numbers of one part of a field, as bits.
fn numbers(part: &str, min: u32, max: u32) -> Option<u64> {
    let (range, step) = part.split_once('/').map_or((part, None), |(r, s)| (r, Some(s)));
    let plain = |text: &str| {
        let digits = !text.is_empty() && text.len() <= 2;
        let digits = digits && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|_| digits)
    };
    let number = |text: &str| plain(text).filter(|number| (min..=max).contains(number));
    let step = match step {
        Some(step) => plain(step).filter(|step| (1..=max).contains(step))?,
        None => 1,
    };
    let (from, to) = match range.split_once('-') {
        None if range == "*" => (min, max),
        // A step begins somewhere and ends somewhere.
        None => {
            let one = number(range).filter(|_| !part.contains('/'))?;
            (one, one)
        }
        Some((from, to)) => (number(from)?, number(to)?),
    };
    (from <= to).then(|| (from..=to).step_by(step as usize).fold(0, |bits, n| bits | 1 << n))
}

#[cfg(test)]
mod tests {
    use super::Cron;
    use crate::time::Timestamp;

    #[test]
    fn cron_is_what_every_cron_reads_alike() {
        for good in ["* * * * *", "*/5 0-6,22 1 1-12/3 0", "30 3 * * 1-5", "0 0 31 12 7"] {
            assert_eq!(good.parse::<Cron>().map(|cron| cron.as_str().to_owned()), Ok(good.into()));
        }
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5/10 * * * *",
            "*/0 * * * *",
            "9-5 * * * *",
            "@daily",
            "* * * jan *",
            "+1 * * * *",
            "1,,2 * * * *",
            "*  * * * *",
        ] {
            assert!(bad.parse::<Cron>().is_err(), "{bad}");
        }
    }

    #[test]
    fn minutes_are_due_as_they_are_written() {
        // Saturday, 28 November 2026, 13:45 in UTC.
        let at = Timestamp::from_millis(1_795_873_500_000);
        assert_eq!(at.to_string(), "2026-11-28T13:45:00.000Z");
        for (cron, due) in [
            ("* * * * *", true),
            ("45 13 * * *", true),
            ("*/15 13 28 11 6", true),
            ("*/10 * * * *", false),
            ("45 13 * * 6", true),
            ("45 13 * * 0-5", false),
            ("45 13 28 * *", true),
            ("45 13 27 * *", false),
            // Either day will do where both are given.
            ("45 13 27 * 6", true),
            ("45 13 28 * 1", true),
            ("45 13 27 * 1", false),
            ("45 14 * * *", false),
            ("45 13 * 12 *", false),
            ("40-50/5 13 * * 6", true),
        ] {
            assert_eq!(cron.parse::<Cron>().map(|cron| cron.is_due(at)), Ok(due), "{cron}");
        }
        // The next day is a Sunday, by both of its numbers.
        let sunday = at.plus(std::time::Duration::from_secs(24 * 3600));
        for cron in ["45 13 * * 0", "45 13 * * 7"] {
            assert_eq!(cron.parse::<Cron>().map(|cron| cron.is_due(sunday)), Ok(true), "{cron}");
        }
    }
}
