//! `[host.process]`: processes of plugins.

use std::path::PathBuf;
use std::time::Duration;

use modunest_core::name::PluginName;
use serde::Deserialize;
use toml::Spanned;

use super::Pattern;
use super::read::Check;
use crate::host::RestartPolicy;

/// Most calls that one plugin serves at the same time: each has a thread on both sides.
pub const CALLS_MAX: u64 = 256;
/// Least memory that a process can begin with, in mebibytes.
const MEMORY_MIN_MIB: u64 = 16;
/// An hour, in milliseconds: longer than any pause that makes sense.
const HOUR_MS: u64 = 3_600_000;
/// Bytes of a mebibyte.
const MIB: u64 = 1024 * 1024;

/// How plugins run in processes of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSettings {
    /// The program that becomes a runner; this process's own if none is named. Only in code:
    /// for embedders whose program is not theirs to change.
    pub runner: Option<PathBuf>,
    /// Whether plugins also run where the kernel cannot confine them.
    pub allow_unenforced: bool,
    /// Memory of one process, in bytes.
    pub memory_max_bytes: u64,
    /// Files that one process may have open.
    pub files_max: u64,
    /// Length of any file that a process writes, in bytes.
    pub file_max_bytes: u64,
    /// Threads of one process. Within a control group the kernel refuses more; without, a process
    /// that is seen with more, beside those that serve its calls, is ended.
    pub threads_max: u64,
    /// Processor time of one process, in percent of one processor; only within a control group.
    pub cpu_max_percent: Option<u32>,
    /// Calls that one process serves at the same time; others wait.
    pub calls_max: usize,
    /// How long a call may go on after its deadline before its process is ended.
    pub grace: Duration,
    /// What follows a crash.
    pub restarts: RestartPolicy,
    /// The control group below which each process gets one of its own.
    pub cgroup: Option<PathBuf>,
    /// Trust groups: plugins that share a process, and with it everything.
    pub share: Vec<Vec<Pattern>>,
}

impl ProcessSettings {
    /// The first trust group that a plugin is in, by its place in the list.
    pub fn group_of(&self, plugin: &PluginName) -> Option<usize> {
        self.share.iter().position(|group| group.iter().any(|pattern| pattern.matches(plugin)))
    }
}

impl Default for ProcessSettings {
    fn default() -> Self {
        ProcessSettings {
            runner: None,
            allow_unenforced: false,
            memory_max_bytes: 512 * MIB,
            files_max: 256,
            file_max_bytes: 256 * MIB,
            threads_max: 128,
            cpu_max_percent: None,
            calls_max: 32,
            grace: Duration::from_secs(2),
            restarts: RestartPolicy {
                first_pause: Duration::from_millis(100),
                pause_max: Duration::from_secs(30),
                restarts_max: 5,
                window: Duration::from_secs(60),
            },
            cgroup: None,
            share: Vec::new(),
        }
    }
}

/// The table as it stands in the file.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct ProcessTable {
    unenforced: Option<Spanned<String>>,
    memory_max_mib: Option<Spanned<u64>>,
    files_max: Option<Spanned<u64>>,
    file_max_mib: Option<Spanned<u64>>,
    threads_max: Option<Spanned<u64>>,
    cpu_max_percent: Option<Spanned<u64>>,
    calls_max: Option<Spanned<u64>>,
    grace_ms: Option<Spanned<u64>>,
    restart_pause_ms: Option<Spanned<u64>>,
    restart_pause_max_ms: Option<Spanned<u64>>,
    restarts_max: Option<Spanned<u64>>,
    restarts_window_s: Option<Spanned<u64>>,
    cgroup: Option<Spanned<PathBuf>>,
    #[serde(default)]
    share: Vec<Vec<Spanned<String>>>,
}

impl Check<'_> {
    pub(super) fn process(&mut self, mut table: ProcessTable) -> ProcessSettings {
        let defaults = ProcessSettings::default();
        let key = |name: &str| format!("host.process.{name}");
        let mut allow_unenforced = defaults.allow_unenforced;
        if let Some(text) = table.unenforced {
            match text.get_ref().as_str() {
                "allow" => allow_unenforced = true,
                "refuse" => allow_unenforced = false,
                other => self.refuse(
                    text.span().start,
                    &key("unenforced"),
                    format!("\"{other}\" is neither \"refuse\" nor \"allow\""),
                    "\"refuse\" loads no native plugin that the kernel cannot confine",
                ),
            }
        }
        if let Some(folder) = &table.cgroup
            && !folder.get_ref().is_absolute()
        {
            let help = "name a folder that was delegated to the agent's user, such as \"/sys/fs/cgroup/modunest\"";
            self.refuse(folder.span().start, &key("cgroup"), "is no absolute path", help);
        }
        let mut share = Vec::new();
        for group in std::mem::take(&mut table.share) {
            share.push(self.patterns(&key("share"), group));
        }
        let mut number = |name: &str, value: Option<Spanned<u64>>, min: u64, max: u64| {
            let value = value?;
            if (min..=max).contains(value.get_ref()) {
                return Some(value.into_inner());
            }
            let rule = format!("{} is not from {min} to {max}", value.get_ref());
            self.refuse(value.span().start, &key(name), rule, "choose one in range");
            None
        };
        /// A tebibyte.
        const MIB_MAX: u64 = 1024 * 1024;
        let mib = |value: Option<u64>, default: u64| value.map_or(default, |mib| mib * MIB);
        let millis =
            |value: Option<u64>, default: Duration| value.map_or(default, Duration::from_millis);
        let pauses = defaults.restarts;
        let first = number("restart_pause_ms", table.restart_pause_ms, 1, HOUR_MS);
        let longest = number("restart_pause_max_ms", table.restart_pause_max_ms, 1, HOUR_MS);
        let restarts_max = number("restarts_max", table.restarts_max, 0, 1000);
        let window = number("restarts_window_s", table.restarts_window_s, 1, 86_400);
        let restarts = RestartPolicy {
            first_pause: millis(first, pauses.first_pause),
            pause_max: millis(longest, pauses.pause_max),
            restarts_max: restarts_max.map_or(pauses.restarts_max, |n| n as usize),
            window: window.map_or(pauses.window, Duration::from_secs),
        };
        ProcessSettings {
            runner: None,
            allow_unenforced,
            memory_max_bytes: mib(
                number("memory_max_mib", table.memory_max_mib, MEMORY_MIN_MIB, MIB_MAX),
                defaults.memory_max_bytes,
            ),
            files_max: number("files_max", table.files_max, 64, 1 << 20)
                .unwrap_or(defaults.files_max),
            // As long as the memory of a lane at least.
            file_max_bytes: mib(
                number("file_max_mib", table.file_max_mib, 16, MIB_MAX),
                defaults.file_max_bytes,
            ),
            threads_max: number("threads_max", table.threads_max, 4, 1 << 20)
                .unwrap_or(defaults.threads_max),
            // As many as 1024 processors.
            cpu_max_percent: number("cpu_max_percent", table.cpu_max_percent, 1, 102_400)
                .map(|percent| percent as u32),
            calls_max: number("calls_max", table.calls_max, 1, CALLS_MAX)
                .map_or(defaults.calls_max, |calls| calls as usize),
            grace: millis(number("grace_ms", table.grace_ms, 1, HOUR_MS), defaults.grace),
            restarts,
            cgroup: table.cgroup.map(Spanned::into_inner),
            share,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::parse;
    use super::super::tests::with_section;
    use super::*;

    fn with(lines: &str) -> String {
        with_section("host.process", lines)
    }

    #[test]
    fn every_setting_is_read() {
        let text = with(
            "unenforced = \"allow\"\nmemory_max_mib = 64\nfiles_max = 100\nfile_max_mib = 32\nthreads_max = 20\ncpu_max_percent = 50\ncalls_max = 4\ngrace_ms = 500\nrestart_pause_ms = 10\nrestart_pause_max_ms = 20\nrestarts_max = 2\nrestarts_window_s = 30\ncgroup = \"/sys/fs/cgroup/modunest\"\nshare = [[\"demo/*\", \"other/one\"]]\n",
        );
        let settings = parse(&text, std::path::Path::new("")).unwrap().host.process;
        insta::assert_debug_snapshot!(settings);
        assert_eq!(settings.group_of(&"demo/any".parse().unwrap()), Some(0));
        assert_eq!(settings.group_of(&"other/two".parse().unwrap()), None);
        let none = parse(&with(""), std::path::Path::new("")).unwrap().host.process;
        assert_eq!(none, ProcessSettings::default());
    }

    #[test]
    fn every_broken_rule_has_a_way_out() {
        let text = with(
            "unenforced = \"maybe\"\nmemory_max_mib = 1\ncgroup = \"here\"\ncalls_max = 0\nshare = [[\"*\"]]\n",
        );
        let problems = parse(&text, std::path::Path::new("")).unwrap_err();
        let lines: Vec<String> = problems
            .iter()
            .map(|p| format!("{}:{} {}: {}\n  {}", p.line, p.column, p.key, p.rule, p.help))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
