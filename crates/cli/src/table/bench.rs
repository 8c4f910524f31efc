//! Figures of a benchmark: each with its interval, its goal and what that says.

use super::{Look, Tone, table, text, toned};
use comfy_table::{Cell, CellAlignment};
use gleaner_bench::{Goal, Report, Row, Verdict};

/// The whole report.
pub(crate) fn report(report: &Report, look: Look) -> String {
    promises(&report.rows, look)
}

/// Each figure with its interval, its goal and what that says.
pub(super) fn promises(all: &[Row], look: Look) -> String {
    let mut rows = table(
        look,
        &[
            "WHAT",
            "FIGURE",
            "UNIT",
            "95 % INTERVAL",
            "GOAL",
            "VERDICT",
            "NOTE",
        ],
    );
    for row in all {
        let interval = row
            .interval
            .map(|interval| format!("{} – {}", figure(interval.low), figure(interval.high)));
        let goal = row.goal.map(|goal| match goal {
            Goal::AtMost(goal) => format!("≤ {}", figure(goal)),
            Goal::AtLeast(goal) => format!("≥ {}", figure(goal)),
        });
        rows.add_row(vec![
            Cell::new(&row.name),
            Cell::new(figure(row.figure)).set_alignment(CellAlignment::Right),
            Cell::new(row.unit),
            Cell::new(interval.unwrap_or_default()),
            Cell::new(goal.unwrap_or_default()),
            verdict(row.verdict),
            Cell::new(&row.note),
        ]);
    }
    text(rows)
}

pub(super) fn verdict(verdict: Verdict) -> Cell {
    match verdict {
        Verdict::Met => toned("met", Tone::Good),
        Verdict::Missed => toned("missed", Tone::Bad),
        Verdict::CannotTell => toned("cannot tell", Tone::Held),
        Verdict::Context => toned("", Tone::Plain),
    }
}

/// Three digits that mean something.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        size if size.is_nan() => "–".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gleaner_bench::Interval;

    #[test]
    fn a_figure_stands_beside_its_goal() {
        let row = Row::new("start", 2.5, "ms")
            .interval(Interval {
                low: 2.25,
                high: 123.4,
            })
            .goal(Goal::AtMost(5.0));
        let text = report(
            &Report {
                bench: "overhead",
                version: "0",
                rows: vec![row],
            },
            Look {
                colour: false,
                width: None,
                now: jiff::Timestamp::UNIX_EPOCH,
            },
        );
        for part in ["start", "2.50", "2.25 – 123", "≤ 5.00", "cannot tell"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
