//! The screen, and the same as plain text.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row as TableRow, Table, TableState, Wrap};

use modunest_agent::sync::age_text;

use super::keys::SORTS;
use super::model::{Column, Row, View};
use crate::commands::print;

/// Columns: their heading, what they sort by, their width, and what they show.
type Shown = (&'static str, Option<Column>, u16, fn(&Row) -> String);

const COLUMNS: [Shown; 12] = [
    ("VERSION", None, 10, |row| row.version.clone()),
    ("STATE", Some(Column::State), 9, |row| row.state.clone()),
    ("TIER", None, 10, |row| row.tier.clone()),
    ("CALLS/S", Some(Column::Calls), 9, |row| rate(row.calls_s)),
    ("ERR/S", Some(Column::Errors), 8, |row| rate(row.errors_s)),
    ("P50", Some(Column::P50), 8, |row| row.p50_ms.map_or_else(nothing, time)),
    ("P99", Some(Column::P99), 8, |row| row.p99_ms.map_or_else(nothing, time)),
    ("BUSY", None, 5, |row| busy(row)),
    ("CPU", Some(Column::Cpu), 6, |row| {
        row.cpus.map_or_else(nothing, |c| format!("{:.0}%", c * 100.0))
    }),
    ("MEMORY", Some(Column::Memory), 9, |row| row.memory_bytes.map_or_else(nothing, size)),
    ("STARTS", Some(Column::Restarts), 6, |row| {
        row.restarts.map_or_else(nothing, |n| format!("+{n}"))
    }),
    ("BREAKER", None, 9, |row| row.breaker.clone()),
];
/// Width of the names: the longest that are common; the terminal's rest goes to them, too.
const NAME_WIDTH: u16 = 24;

fn nothing() -> String {
    "-".to_owned()
}

/// Calls that are served, and behind a plus those that wait.
fn busy(row: &Row) -> String {
    if row.queued > 0 { format!("{}+{}", row.running, row.queued) } else { row.running.to_string() }
}

fn rate(per_s: f64) -> String {
    match per_s {
        none if none <= 0.0 => "0".to_owned(),
        few if few < 10.0 => format!("{few:.1}"),
        some if some < 10_000.0 => format!("{some:.0}"),
        many => format!("{:.0}k", many / 1e3),
    }
}

/// A time of so many milliseconds with three digits and its unit.
fn time(ms: f64) -> String {
    let (value, unit) = match ms {
        short if short < 1e-3 => (ms * 1e6, "ns"),
        short if short < 1.0 => (ms * 1e3, "µs"),
        some if some < 1e3 => (ms, "ms"),
        _ => (ms / 1e3, "s"),
    };
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

fn size(bytes: u64) -> String {
    let mib = bytes as f64 / 1_048_576.0;
    match mib {
        small if small < 1.0 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        some if some < 1024.0 => format!("{mib:.1} MiB"),
        _ => format!("{:.1} GiB", mib / 1024.0),
    }
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
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let cells = COLUMNS.iter().map(|(_, _, _, show)| show(row));
            std::iter::once(row.plugin.clone()).chain(cells).collect()
        })
        .collect();
    text.push_str(&print::wide_table(&header, &rows));
    text
}

/// Draws everything.
pub(super) fn screen(frame: &mut Frame<'_>, view: &mut View) {
    let rows = view.rows();
    view.chosen = view.chosen.min(rows.len().saturating_sub(1));
    let chosen = rows.get(view.chosen);
    let detail = chosen.map(|row| details(view, row)).unwrap_or_default();
    let [top, table, below, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(3),
        Constraint::Length(detail.len().min(4) as u16),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let ready = view.status().is_some_and(|status| status.ready.is_ok());
    let mut lines: Vec<Line<'_>> = summary(view, &rows).into_iter().map(Line::from).collect();
    if let Some(last) = lines.last_mut() {
        *last = last.clone().style(Style::new().fg(if ready { Color::Green } else { Color::Red }));
    }
    frame.render_widget(Paragraph::new(lines), top);
    frame.render_stateful_widget(
        plugins(view, &rows),
        table,
        &mut TableState::new().with_selected((!rows.is_empty()).then_some(view.chosen)),
    );
    let detail: Vec<Line<'_>> = detail.into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(detail).style(Style::new().fg(Color::Gray)), below);
    frame.render_widget(Paragraph::new(footer(view, rows.len())), foot);
    if view.help {
        help(frame);
    }
}

fn plugins<'r>(view: &View, rows: &'r [Row]) -> Table<'r> {
    let sorted = |column: Option<Column>| column == Some(view.sort);
    let heading = |text: &'static str, column: Option<Column>| {
        let mut style = Style::new().add_modifier(Modifier::BOLD);
        if sorted(column) {
            style = style.add_modifier(Modifier::REVERSED);
        }
        Cell::from(Span::styled(text, style))
    };
    let header = std::iter::once(heading("PLUGIN", Some(Column::Plugin)))
        .chain(COLUMNS.iter().map(|(text, column, ..)| heading(text, *column)));
    let lines = rows.iter().map(|row| {
        let cells = COLUMNS.iter().map(|(text, _, _, show)| {
            let shown = show(row);
            let style = match *text {
                "STATE" => Style::new().fg(state_color(&row.state)),
                "ERR/S" if row.errors_s > 0.0 => Style::new().fg(Color::Red),
                "BREAKER" if row.breaker != "closed" => Style::new().fg(Color::Red),
                _ => Style::new(),
            };
            Cell::from(Span::styled(shown, style))
        });
        TableRow::new(std::iter::once(Cell::from(row.plugin.as_str())).chain(cells))
    });
    let widths = std::iter::once(Constraint::Min(NAME_WIDTH))
        .chain(COLUMNS.iter().map(|(_, _, width, _)| Constraint::Length(*width)));
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
    lines.extend(row.reason.as_ref().map(|reason| format!("reason: {reason}")));
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
