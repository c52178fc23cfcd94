//! Numbers as people read them.

/// A rate with three digits.
pub(super) fn rate(per_s: f64) -> String {
    match per_s {
        none if none <= 0.0 => "0".to_owned(),
        few if few < 10.0 => format!("{few:.1}"),
        some if some < 10_000.0 => format!("{some:.0}"),
        many => format!("{:.0}k", many / 1e3),
    }
}

/// A time of so many milliseconds with two or three digits and its unit.
pub(super) fn time(ms: f64) -> String {
    let (value, unit) = match ms {
        short if short < 1e-3 => (ms * 1e6, "ns"),
        short if short < 1.0 => (ms * 1e3, "µs"),
        some if some < 1e3 => (ms, "ms"),
        _ => (ms / 1e3, "s"),
    };
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// A size with its unit.
pub(super) fn size(bytes: u64) -> String {
    let mib = bytes as f64 / 1_048_576.0;
    match mib {
        small if small < 1.0 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        some if some < 1024.0 => format!("{mib:.1} MiB"),
        _ => format!("{:.1} GiB", mib / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_unit_and_few_digits() {
        assert_eq!([0.0, 0.5, 12.4, 12_345.0].map(rate), ["0", "0.5", "12", "12k"]);
        assert_eq!(
            [0.000_25, 0.0075, 0.25, 7.5, 99.6, 1500.0].map(time),
            ["250 ns", "7.5 µs", "250 µs", "7.5 ms", "100 ms", "1.5 s"]
        );
        assert_eq!([2048, 5 << 20, 3 << 30].map(size), ["2 KiB", "5.0 MiB", "3.0 GiB"]);
    }
}
