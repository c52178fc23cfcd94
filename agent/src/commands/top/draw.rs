//! The screen, and the same as plain text.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row as TableRow, Table, TableState, Wrap};

use modunest_agent::status::{CanaryStatus, RolledBackStatus};
use modunest_agent::sync::age_text;

use super::keys::SORTS;
use super::model::{Column, Row, View};
use crate::commands::print;
use crate::commands::units::{rate, size, time};

/// Columns: their heading, what they sort by, their width, and what they show.
type Shown = (&'static str, Option<Column>, u16, fn(&Row) -> String);

/// The column that is as wide as what stands in it: an operator must not read half of it.
const TIER: &str = "TIER";

const COLUMNS: [Shown; 12] = [
    ("VERSION", None, 10, |row| row.version.clone()),
    ("STATE", Some(Column::State), 9, |row| row.state.clone()),
    (TIER, None, 10, Row::tier_text),
    ("CALLS/S", Some(Column::Calls), 9, |row| rate(row.calls_s)),
    ("ERR/S", Some(Column::Errors), 8, |row| rate(row.errors_s)),
    ("P50", Some(Column::P50), 8, |row| row.p50_ms.map_or_else(nothing, time)),
    ("P99", Some(Column::P99), 8, |row| row.p99_ms.map_or_else(nothing, time)),
    ("BUSY", None, 5, |row| busy(row)),
    ("CPU", Some(Column::Cpu), 6, |row| {
        row.cpus.map_or_else(nothing, |c| marked(row, format!("{:.0}%", c * 100.0)))
    }),
    ("MEMORY", Some(Column::Memory), 10, |row| {
        row.memory_bytes.map_or_else(nothing, |bytes| marked(row, size(bytes)))
    }),
    ("STARTS", Some(Column::Restarts), 6, |row| {
        row.restarts.map_or_else(nothing, |n| format!("+{n}"))
    }),
    ("BREAKER", None, 9, |row| row.breaker.clone()),
];
/// Columns that a narrow terminal has no room for, those to be left out first in front. The others
/// are what 80 characters hold.
const SPARED: [&str; 6] = ["STARTS", TIER, "P50", "BUSY", "BREAKER", "MEMORY"];
/// Width of the names: the longest that are common; the terminal's rest goes to them, too.
const NAME_WIDTH: u16 = 24;
/// Most lines that tell of the chosen plugin: the list keeps the better part of the screen.
const DETAIL_LINES_MAX: u16 = 6;

/// The columns that fit beside the names.
fn fitting(width: u16, rows: &[Row]) -> Vec<Shown> {
    let mut columns = COLUMNS.to_vec();
    let tiers = rows.iter().map(|row| row.tier_text().chars().count() as u16);
    let longest = tiers.max().unwrap_or_default();
    for (_, _, width, _) in columns.iter_mut().filter(|(heading, ..)| *heading == TIER) {
        *width = longest.max(*width);
    }
    for spared in SPARED {
        let taken: u16 = columns.iter().map(|(_, _, width, _)| width + 1).sum();
        if NAME_WIDTH + taken > width {
            columns.retain(|(heading, ..)| *heading != spared);
        }
    }
    columns
}

fn nothing() -> String {
    "-".to_owned()
}

/// A figure of a process, with a mark where other plugins are in it as well.
fn marked(row: &Row, figure: String) -> String {
    if row.group.is_some() { figure + "*" } else { figure }
}

/// Calls that are served, and behind a plus those that wait.
fn busy(row: &Row) -> String {
    if row.queued > 0 { format!("{}+{}", row.running, row.queued) } else { row.running.to_string() }
}

/// What becomes of other releases of the plugin: a line for each, to stand below its row.
fn trials(row: &Row) -> Vec<(String, Color)> {
    let tried = row.canary.as_ref().map(|canary| {
        let CanaryStatus { version, share_percent, calls, errors, state, .. } = &**canary;
        let mut line = format!(
            "  └ {version} trying with {share_percent}% of calls: {calls} served, {errors} failed"
        );
        if state != "ready" {
            line.push_str(&format!(", {state}"));
        }
        if let Some(reason) = &canary.reason {
            line.push_str(&format!(": {reason}"));
        }
        (line, if *errors > 0 { Color::Red } else { Color::Yellow })
    });
    let rolled_back =
        row.rolled_back.as_ref().map(|RolledBackStatus { version, reason, .. }| {
            (format!("  └ {version} rolled back: {reason}"), Color::Red)
        });
    tried.into_iter().chain(rolled_back).collect()
}

/// The lines above the table.
fn summary(view: &View, rows: &[Row]) -> Vec<String> {
    let Some(status) = view.status() else { return Vec::new() };
    let generation = status.generation.map_or("none".to_owned(), |number| number.to_string());
    let ready = match &status.ready {
        Ok(()) => "ready".to_owned(),
        Err(reason) => format!("not ready: {reason}"),
    };
    let mut first =
        format!("agent {} on {}  generation {generation}", status.version, status.gateway);
    if let Some(head) = &status.head {
        let age = age_text(head.age_s);
        first.push_str(&format!("  head {} of {}, {age} old", head.epoch, head.origin));
    }
    let mut states: Vec<(&str, usize)> = Vec::new();
    for plugin in &status.plugins {
        match states.iter_mut().find(|(state, _)| *state == plugin.state) {
            Some((_, count)) => *count += 1,
            None => states.push((&plugin.state, 1)),
        }
    }
    let states: Vec<String> =
        states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let sum = |value: fn(&Row) -> f64| rows.iter().map(value).sum::<f64>();
    let mut second = format!(
        "{} plugins: {}  {} calls/s, {} errors/s",
        status.plugins.len(),
        if states.is_empty() { "none".to_owned() } else { states.join(", ") },
        rate(sum(|row| row.calls_s)),
        rate(sum(|row| row.errors_s)),
    );
    if let Some(process) = &status.process {
        second.push_str(&format!(
            "  agent itself: {}, {} threads, {} descriptors",
            size(process.resident_bytes),
            process.threads,
            process.descriptors
        ));
    }
    vec![first, second, ready]
}

/// Everything, for a terminal that is not watched.
pub(super) fn plain(view: &View) -> String {
    let rows = view.rows();
    let mut text = summary(view, &rows).join("\n");
    text.push_str("\n\n");
    let header: Vec<&str> =
        std::iter::once("PLUGIN").chain(COLUMNS.iter().map(|(heading, ..)| *heading)).collect();
    let shown: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let cells = COLUMNS.iter().map(|(_, _, _, show)| show(row));
            std::iter::once(row.plugin.clone()).chain(cells).collect()
        })
        .collect();
    let table = print::wide_table(&header, &shown);
    let mut lines = table.lines();
    text.extend(lines.next().map(|header| format!("{header}\n")));
    for (row, line) in rows.iter().zip(lines) {
        text.push_str(&format!("{line}\n"));
        for (trial, _) in trials(row) {
            text.push_str(&format!("{}\n", print::printable(&trial)));
        }
    }
    text
}

/// Draws everything.
pub(super) fn screen(frame: &mut Frame<'_>, view: &mut View) {
    let rows = view.rows();
    view.chosen = view.chosen.min(rows.len().saturating_sub(1));
    let chosen = rows.get(view.chosen);
    let detail = chosen.map(|row| details(view, row)).unwrap_or_default();
    let width = frame.area().width;
    let wrapped = |line: &String| 1 + line.chars().count() as u16 / width.max(1);
    let detail_lines = detail.iter().map(wrapped).sum::<u16>();
    let [top, table, below, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(3),
        Constraint::Length(detail_lines.min(DETAIL_LINES_MAX)),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let ready = view.status().is_some_and(|status| status.ready.is_ok());
    let mut lines: Vec<Line<'_>> = summary(view, &rows).into_iter().map(Line::from).collect();
    if let Some(last) = lines.last_mut() {
        *last = last.clone().style(Style::new().fg(if ready { Color::Green } else { Color::Red }));
    }
    frame.render_widget(Paragraph::new(lines), top);
    // Trials have lines of their own, which are not chosen.
    let above = rows.iter().take(view.chosen).map(|row| 1 + trials(row).len()).sum();
    frame.render_stateful_widget(
        plugins(view, &rows, &fitting(width, &rows)),
        table,
        &mut TableState::new().with_selected((!rows.is_empty()).then_some(above)),
    );
    let detail: Vec<Line<'_>> = detail.into_iter().map(Line::from).collect();
    let detail = Paragraph::new(detail).wrap(Wrap { trim: false });
    frame.render_widget(detail.style(Style::new().fg(Color::Gray)), below);
    frame.render_widget(Paragraph::new(footer(view, rows.len())), foot);
    if view.help {
        help(frame);
    }
}

fn plugins<'r>(view: &View, rows: &'r [Row], columns: &[Shown]) -> Table<'r> {
    let sorted = |column: Option<Column>| column == Some(view.sort);
    let heading = |text: &'static str, column: Option<Column>| {
        let mut style = Style::new().add_modifier(Modifier::BOLD);
        if sorted(column) {
            style = style.add_modifier(Modifier::REVERSED);
        }
        Cell::from(Span::styled(text, style))
    };
    let header = std::iter::once(heading("PLUGIN", Some(Column::Plugin)))
        .chain(columns.iter().map(|(text, column, ..)| heading(text, *column)));
    let lines = rows.iter().flat_map(|row| {
        let cells = columns.iter().map(|(text, _, _, show)| {
            let shown = show(row);
            let style = match *text {
                "STATE" => Style::new().fg(state_color(&row.state)),
                "ERR/S" if row.errors_s > 0.0 => Style::new().fg(Color::Red),
                TIER if row.unconfined => Style::new().fg(Color::Red),
                "BREAKER" if row.breaker != "closed" => Style::new().fg(Color::Red),
                _ => Style::new(),
            };
            Cell::from(Span::styled(shown, style))
        });
        let own = TableRow::new(std::iter::once(Cell::from(row.plugin.as_str())).chain(cells));
        let across = |(line, color): (String, Color)| {
            let cell = Cell::from(Span::styled(line, Style::new().fg(color)));
            TableRow::new([cell.column_span(1 + columns.len() as u16)])
        };
        std::iter::once(own).chain(trials(row).into_iter().map(across))
    });
    let widths = std::iter::once(Constraint::Min(NAME_WIDTH))
        .chain(columns.iter().map(|(_, _, width, _)| Constraint::Length(*width)));
    Table::new(lines, widths)
        .header(TableRow::new(header))
        .column_spacing(1)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
}

fn state_color(state: &str) -> Color {
    match state {
        "ready" => Color::Green,
        "failed" | "blocked" => Color::Red,
        _ => Color::Yellow,
    }
}

/// What there is to know of the chosen plugin beside its row.
fn details(view: &View, row: &Row) -> Vec<String> {
    let Some(plugin) = view.plugin(&row.plugin) else { return Vec::new() };
    let mut first = format!(
        "{} {}: {} calls, {} failed, {} refused, {} denied since it was loaded",
        row.plugin, row.version, plugin.calls, plugin.errors, plugin.refused, plugin.denials
    );
    if let Some(ms) = plugin.activation_ms {
        first.push_str(&format!(", loaded in {}", time(ms)));
    }
    let mut lines = vec![first];
    if row.unconfined {
        lines.push("UNCONFINED: the sandbox of its process is not whole".to_owned());
    }
    lines.extend(row.reason.as_ref().map(|reason| format!("reason: {reason}")));
    let runs = plugin.runs.as_ref();
    lines.extend(row.group.as_ref().map(|group| {
        format!(
            "* processor time and memory are those of all plugins of {group}, which share a process"
        )
    }));
    if runs.is_some_and(|runs| runs.control_group) {
        lines.push("a control group bounds its processor time, memory and threads".to_owned());
    }
    let unknown = runs.and_then(|runs| runs.memory_unknown.as_ref());
    lines.extend(unknown.map(|why| format!("no memory is told: {why}")));
    lines.extend(row.canary.as_ref().map(|canary| {
        format!(
            "tries {} since {}, beside it {} calls, {} failed; promoted after {} s and {} calls",
            canary.version,
            canary.since,
            canary.old_calls,
            canary.old_errors,
            canary.watched_s,
            canary.calls_wanted
        )
    }));
    lines.extend(row.rolled_back.as_ref().map(|RolledBackStatus { version, at, reason }| {
        format!("{version} was rolled back at {at}: {reason}")
    }));
    let offers: Vec<String> = plugin
        .routes
        .iter()
        .cloned()
        .chain(plugin.services.iter().map(|service| format!("service {service}")))
        .collect();
    if !offers.is_empty() {
        lines.push(offers.join("  "));
    }
    lines
}

fn footer(view: &View, rows: usize) -> Line<'static> {
    if view.typing {
        return Line::from(format!("filter: {}_   Enter keeps it, Esc drops it", view.filter));
    }
    if let Some(lost) = &view.lost {
        return Line::from(lost.clone()).style(Style::new().fg(Color::Red));
    }
    let mut text = format!("{rows} shown");
    if !view.filter.is_empty() {
        text.push_str(&format!(" with \"{}\"", view.filter));
    }
    if view.paused {
        text.push_str("  PAUSED");
    }
    text.push_str("   ? help  / filter  p pause  q quit");
    Line::from(text)
}

fn help(frame: &mut Frame<'_>) {
    let mut lines: Vec<Line<'_>> =
        SORTS.iter().map(|(key, _, what)| Line::from(format!("  {key}  sort by {what}"))).collect();
    lines.extend(
        [
            "     (the same key again reverses)",
            "  /  filter by name, version, state or tier",
            "  p  pause",
            "  ↑ ↓ PgUp PgDn Home End  choose",
            "  q  quit",
        ]
        .map(Line::from),
    );
    let area = frame.area();
    let (width, height) = (52.min(area.width), (lines.len() as u16 + 2).min(area.height));
    let area = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    let block = Block::bordered().title("Keys").title_alignment(Alignment::Center);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, Instant};

    use modunest_agent::status::PluginStatus;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use serde_json::{Value, json};

    use super::*;
    use crate::commands::top::keys::{self, Next};
    use crate::commands::top::model::Sample;

    fn plugin(name: &str, calls: u64, more: Value) -> PluginStatus {
        let mut value = json!({
            "plugin": name, "version": "1.0.0", "state": "ready", "since": "2026-01-01T00:00:00Z",
            "reason": null, "critical": false, "tier": "process", "calls": calls, "errors": 0,
            "panics": 0, "outcomes": {},
            "latency": { "p50_ms": 0.0, "p99_ms": 0.0, "buckets": [[1_000_000, calls]] },
            "running": 1, "queued": 0, "refused": 0, "denials": 0, "activation_ms": 3.0,
            "restarts": 0, "cpu_ms": calls, "memory_bytes": 3_145_728, "breaker": "closed",
            "breaker_open_until": null, "service_breakers": {}, "capabilities": [], "services": ["echo 1.0.0"],
            "routes": ["GET /page"],
        });
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    fn sample(at: Instant, plugins: Vec<PluginStatus>) -> Sample {
        let status = serde_json::from_value(json!({
            "version": "0.1.0", "gateway": "127.0.0.1:8080", "generation": 3,
            "head": { "origin": "local.modunest", "epoch": 9, "issued_at": "", "age_s": 65 },
            "last_sync": null, "ready": { "Ok": null },
            "process": { "cpu_s": 2.0, "resident_bytes": 52_428_800, "descriptors": 30, "threads": 14 },
            "plugins": serde_json::to_value(&plugins).unwrap(),
        }));
        Sample { at, status: status.unwrap(), plugins }
    }

    /// Two looks, two seconds apart.
    fn view() -> View {
        let start = Instant::now();
        let mut view = View::new(Column::Calls, String::new());
        view.take(sample(
            start,
            vec![
                plugin("demo/busy", 1000, json!({})),
                plugin("demo/idle", 10, json!({})),
                plugin("demo/down", 5, json!({ "state": "failed", "reason": "it exited\u{7}" })),
            ],
        ));
        view.take(sample(
            start + Duration::from_secs(2),
            vec![
                plugin("demo/busy", 4000, json!({ "errors": 30, "queued": 4, "breaker": "open" })),
                plugin("demo/idle", 10, json!({ "tier": "in-process", "cpu_ms": null, "memory_bytes": null, "restarts": null })),
                plugin("demo/down", 5, json!({ "state": "failed", "reason": "it exited\u{7}" })),
            ],
        ));
        view
    }

    /// A release that gets a share of the calls, one that was rolled back, and both at once.
    fn trying() -> View {
        let canary = json!({
            "version": "1.1.0", "state": "ready", "reason": null, "share_percent": 10,
            "since": "2026-01-01T00:00:00Z", "watched_s": 60, "calls_wanted": 200, "calls": 40,
            "errors": 2, "old_calls": 360, "old_errors": 0,
        });
        let rolled_back = json!({
            "version": "2.0.0-rc.1", "at": "2026-01-01T00:00:00Z",
            "reason": "3 of its 3 calls failed, and 0 of 27 calls of the instance that it is to replace",
        });
        let mut ill = canary.clone();
        ill["state"] = json!("unhealthy");
        ill["reason"] = json!("its health check failed:\u{7} failed: it has a cold");
        let mut view = View::new(Column::Plugin, String::new());
        view.take(sample(
            Instant::now(),
            vec![
                plugin("demo/both", 4000, json!({ "canary": ill, "rolled_back": rolled_back })),
                plugin("demo/plain", 10, json!({})),
                plugin("demo/tries", 4000, json!({ "canary": canary })),
                plugin("demo/was-tried", 4000, json!({ "rolled_back": rolled_back })),
            ],
        ));
        view
    }

    fn screen_of(view: &mut View) -> String {
        screen_of_size(view, 140, 14)
    }

    fn screen_of_size(view: &mut View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen(frame, view)).unwrap();
        terminal.backend().to_string()
    }

    fn press(view: &mut View, code: KeyCode) -> Next {
        keys::press(view, KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        insta::assert_snapshot!(screen_of(&mut view()));
        let report = view().report();
        assert_eq!((report.interval_s, report.calls_s), (2.0, 1500.0));
        assert_eq!((report.plugins[0].errors_s, report.plugins[0].cpus), (15.0, Some(1.5)));
    }

    /// Also where there is no room for tiers.
    #[test]
    fn a_process_without_walls_is_told_of() {
        let runs = |confined: bool| json!({ "runs": { "confined": confined, "pid": 7 } });
        let mut view = View::new(Column::Plugin, String::new());
        let (free, walled) =
            (plugin("demo/free", 1, runs(false)), plugin("demo/walled", 1, runs(true)));
        view.take(sample(Instant::now(), vec![free, walled]));
        insta::assert_snapshot!(screen_of(&mut view));
        let narrow = screen_of_size(&mut view, 80, 14);
        assert!(narrow.contains("UNCONFINED: the sandbox") && !narrow.contains("TIER"), "{narrow}");
        assert!(plain(&view).contains("process (unconfined)"));
        assert_eq!(view.report().plugins[0].tier, "process");
        view.filter = "unconfined".to_owned();
        assert_eq!(view.rows().len(), 1);
    }

    #[test]
    fn a_release_that_is_tried_has_a_line_below_its_plugin() {
        insta::assert_snapshot!(screen_of_size(&mut trying(), 80, 24));
        insta::assert_snapshot!(plain(&trying()));
    }

    #[test]
    fn figures_of_a_process_that_several_plugins_share_are_marked() {
        let group = json!({ "runs": { "confined": true, "group": "group-0" } });
        let library = json!({
            "tier": "in-process", "memory_bytes": null, "restarts": null,
            "runs": { "confined": false, "memory_unknown": "it is the agent's" },
        });
        let mut view = View::new(Column::Plugin, String::new());
        let start = Instant::now();
        for (seconds, calls) in [(0, 0), (2, 1000)] {
            let plugins = vec![
                plugin("demo/inside", calls, library.clone()),
                plugin("demo/one", calls, group.clone()),
                plugin("demo/other", calls, json!({})),
                plugin("demo/two", calls, group.clone()),
            ];
            view.take(sample(start + Duration::from_secs(seconds), plugins));
        }
        insta::assert_snapshot!(plain(&view));
        let screen = screen_of(&mut view);
        assert!(screen.contains("no memory is told: it is the agent's"), "{screen}");
        press(&mut view, KeyCode::Down);
        let screen = screen_of(&mut view);
        assert!(screen.contains("are those of all plugins of group-0"), "{screen}");
        assert_eq!(view.report().plugins[1].group.as_deref(), Some("group-0"));
    }

    #[test]
    fn the_lines_of_trials_are_not_chosen() {
        let mut view = trying();
        for name in ["demo/both", "demo/plain", "demo/tries", "demo/was-tried"] {
            let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
            terminal.draw(|frame| screen(frame, &mut view)).unwrap();
            let cells = terminal.backend().buffer().content().chunks(80).skip(4);
            let mut lines = cells.filter(|line| line[0].modifier.contains(Modifier::REVERSED));
            let line: String = lines.next().unwrap().iter().map(|cell| cell.symbol()).collect();
            assert!(line.starts_with(&format!("{name} ")), "{line}");
            assert!(lines.next().is_none());
            press(&mut view, KeyCode::Down);
        }
    }

    #[test]
    fn keys_sort_filter_and_quit() {
        let mut view = view();
        let names = |view: &View| -> Vec<String> {
            view.rows().into_iter().map(|row| row.plugin).collect()
        };
        assert_eq!(names(&view), ["demo/busy", "demo/down", "demo/idle"]);
        press(&mut view, KeyCode::Char('n'));
        assert_eq!(names(&view), ["demo/busy", "demo/down", "demo/idle"]);
        press(&mut view, KeyCode::Char('n'));
        assert_eq!(names(&view), ["demo/idle", "demo/down", "demo/busy"]);
        press(&mut view, KeyCode::Char('s'));
        assert_eq!(names(&view)[0], "demo/down");
        press(&mut view, KeyCode::Char('/'));
        for letter in "QUIT".chars() {
            // While a filter is typed, letters are letters.
            assert_eq!(press(&mut view, KeyCode::Char(letter)), Next::Draw);
        }
        assert!(names(&view).is_empty());
        for _ in 0..4 {
            press(&mut view, KeyCode::Backspace);
        }
        press(&mut view, KeyCode::Char('I'));
        press(&mut view, KeyCode::Char('N'));
        press(&mut view, KeyCode::Char('-'));
        press(&mut view, KeyCode::Enter);
        assert_eq!(names(&view), ["demo/idle"], "by its tier");
        press(&mut view, KeyCode::Esc);
        assert_eq!(names(&view).len(), 3);
        press(&mut view, KeyCode::End);
        screen_of(&mut view);
        assert_eq!(view.chosen, 2);
        press(&mut view, KeyCode::Char('?'));
        assert!(screen_of(&mut view).contains("sort by memory"));
        assert_eq!(press(&mut view, KeyCode::Char('q')), Next::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(keys::press(&mut view, interrupt), Next::Quit);
    }
}
