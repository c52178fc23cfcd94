//! What a benchmark prints: our figure, the peer's, the ratio, and whether the target is met.

use std::fmt;

use serde::Serialize;

use crate::error::Error;

/// The result of one benchmark.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Its name on the command line.
    pub bench: &'static str,
    /// Processors of the machine.
    pub cores: usize,
    /// Load averages over one minute before and after: figures taken beside other work are
    /// worth little.
    pub load: [f64; 2],
    /// The figures.
    pub rows: Vec<Row>,
    /// What a reader must know to read them.
    pub notes: Vec<String>,
}

/// One figure.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The figures' unit.
    pub unit: &'static str,
    /// Ours.
    pub ours: f64,
    /// Theirs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
    /// Ours divided by theirs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// What we want.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Whether we have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
}

/// Somebody else's figure, from the same run.
#[derive(Clone, Debug, Serialize)]
pub struct Peer {
    /// Who.
    pub name: String,
    /// The figure.
    pub value: f64,
}

/// What we want.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The ratio is at most this.
    RatioMax(f64),
    /// The ratio is at least this.
    RatioMin(f64),
    /// Our figure is below this.
    Below(f64),
    /// Our figure is at least this.
    AtLeast(f64),
    /// Our figure is at most this.
    AtMost(f64),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::RatioMax(ratio) => write!(f, "<= {ratio}x"),
            Target::RatioMin(ratio) => write!(f, ">= {ratio}x"),
            Target::Below(value) => write!(f, "< {}", figure(*value)),
            Target::AtLeast(value) => write!(f, ">= {}", figure(*value)),
            Target::AtMost(value) => write!(f, "<= {}", figure(*value)),
        }
    }
}

impl Row {
    /// A figure of ours alone.
    pub fn new(what: impl Into<String>, unit: &'static str, ours: f64) -> Row {
        Row { what: what.into(), unit, ours, peer: None, ratio: None, target: None, met: None }
    }

    /// Beside somebody else's.
    #[must_use]
    pub fn against(mut self, name: &str, value: f64) -> Row {
        self.ratio = (value > 0.0).then(|| self.ours / value);
        self.peer = Some(Peer { name: name.to_owned(), value });
        self
    }

    /// With what we want.
    #[must_use]
    pub fn target(mut self, target: Target) -> Row {
        self.met = match target {
            Target::RatioMax(limit) => self.ratio.map(|ratio| ratio <= limit),
            Target::RatioMin(limit) => self.ratio.map(|ratio| ratio >= limit),
            Target::Below(limit) => Some(self.ours < limit),
            Target::AtLeast(limit) => Some(self.ours >= limit),
            Target::AtMost(limit) => Some(self.ours <= limit),
        };
        self.target = Some(target);
        self
    }
}

impl Report {
    /// An empty report; notes the machine's load.
    pub fn begin(bench: &'static str) -> Report {
        Report {
            bench,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load: [load_average(), 0.0],
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a figure.
    pub fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Adds a remark.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Prints it, for people or as one line of JSON.
    pub fn print(mut self, json: bool) -> Result<(), Error> {
        self.load[1] = load_average();
        if json {
            let line = serde_json::to_string(&self).map_err(Error::wrong("the report"))?;
            println!("{line}");
        } else {
            print!("{self}");
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { bench, cores, load, rows, notes } = self;
        writeln!(
            f,
            "\n{bench}  ({cores} cores, load average {:.2} before, {:.2} after)",
            load[0], load[1]
        )?;
        let width = rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0).max(4);
        writeln!(
            f,
            "  {:<width$}  {:>7}  {:>10}  {:>26}  {:>6}  {:>8}",
            "what", "unit", "ours", "theirs", "ratio", "target"
        )?;
        for row in rows {
            let peer = row.peer.as_ref();
            let peer = peer.map_or(String::new(), |p| format!("{} {}", p.name, figure(p.value)));
            let ratio = row.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
            let target = row.target.map_or(String::new(), |target| target.to_string());
            let verdict = match row.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            let line = format!(
                "  {:<width$}  {:>7}  {:>10}  {peer:>26}  {ratio:>6}  {target:>8}  {verdict}",
                row.what,
                row.unit,
                figure(row.ours)
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        for note in notes {
            writeln!(f, "  {note}")?;
        }
        Ok(())
    }
}

/// Three digits or so: more would claim more than was measured.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_at_its_limit_and_missed_above() {
        let row =
            |ours| Row::new("x", "ms", ours).against("them", 2.0).target(Target::RatioMax(1.5));
        assert_eq!((row(3.0).met, row(3.0).ratio), (Some(true), Some(1.5)));
        assert_eq!(row(3.1).met, Some(false));
        let least =
            |ours| Row::new("x", "1/s", ours).against("them", 2.0).target(Target::RatioMin(0.5));
        assert_eq!((least(1.0).met, least(0.9).met), (Some(true), Some(false)));
        let below = |ours| Row::new("x", "MB", ours).target(Target::Below(20.0)).met;
        assert_eq!((below(19.9), below(20.0)), (Some(true), Some(false)));
        let met = |target| Row::new("x", "1/s", 20.0).target(target).met;
        assert_eq!(met(Target::AtLeast(20.0)), Some(true));
        assert_eq!(met(Target::AtLeast(20.1)), Some(false));
        assert_eq!(
            (met(Target::AtMost(20.0)), met(Target::AtMost(19.9))),
            (Some(true), Some(false))
        );
    }

    #[test]
    fn a_missed_target_is_said() {
        let mut report = Report::begin("test");
        report.row(Row::new("one", "ms", 1.0).target(Target::Below(2.0)));
        report
            .row(Row::new("two", "ms", 12.345).against("them", 1.0).target(Target::RatioMax(2.0)));
        report.note("a remark");
        let text = report.to_string();
        assert!(text.contains("met\n"), "{text}");
        assert!(text.contains("12.3") && text.contains("them 1.00"), "{text}");
        assert!(text.contains("MISSED\n") && text.ends_with("  a remark\n"), "{text}");
    }
}
