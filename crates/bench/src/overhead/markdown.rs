//! The report as Markdown tables, to be pasted into a document. Pure.

use super::{Line, OverheadReport, Table};
use crate::{Goal, Row, Verdict};
use std::fmt::Write as _;

/// The tables, one for each part, and the promises.
#[must_use]
pub fn markdown(report: &OverheadReport) -> String {
    let setting = &report.setting;
    let mut text = format!(
        "gleaner {}, {} CPUs, load {:.1} before the run, {:.0} s{}.\n",
        report.version,
        setting.cpus,
        setting.load,
        setting.seconds,
        if setting.busy {
            ". **Others used this PC: these figures say little**"
        } else {
            ""
        }
    );
    if let Some(blas) = &setting.blas {
        let _fits = writeln!(text, "BLAS: {blas}.");
    }
    for why in &setting.missing {
        let _fits = writeln!(text, "Not measured: {why}.");
    }
    for table in &report.tables {
        text.push_str(&one(table, &setting.engines));
    }
    text.push_str(&promises(&report.rows));
    text
}

fn one(table: &Table, engines: &[String]) -> String {
    let mut text = format!("\n{}\n\n| item | native |", table.group.title());
    for engine in engines {
        let _fits = write!(text, " {engine} | times native |");
    }
    text.push_str("\n|---|---|");
    text.push_str(&"---|---|".repeat(engines.len()));
    text.push('\n');
    for line in &table.lines {
        let _fits = write!(
            text,
            "| {} | {} {} |",
            named(line),
            figure(line.native),
            line.unit
        );
        for engine in &line.engines {
            match engine {
                Some(own) => {
                    let _fits = write!(
                        text,
                        " {} | {} ({}–{}) |",
                        figure(own.figure),
                        figure(own.ratio),
                        figure(own.interval.low),
                        figure(own.interval.high)
                    );
                }
                None => text.push_str(" – | – |"),
            }
        }
        text.push('\n');
    }
    text
}

/// An item and its size.
#[must_use]
pub fn named(line: &Line) -> String {
    match line.size {
        Some(bytes) => format!("{}, {}", line.item, size(bytes)),
        None => line.item.clone(),
    }
}

/// A power of two as people write it.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        bytes => format!("{} KiB", bytes >> 10),
    }
}

fn promises(rows: &[Row]) -> String {
    let mut text =
        "\n| what | figure | 95 % interval | goal | verdict |\n|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let interval = row.interval.map_or_else(String::new, |interval| {
            format!("{}–{}", figure(interval.low), figure(interval.high))
        });
        let goal = match row.goal {
            Some(Goal::AtMost(goal)) => format!("≤ {}", figure(goal)),
            Some(Goal::AtLeast(goal)) => format!("≥ {}", figure(goal)),
            None => String::new(),
        };
        let verdict = match row.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "missed",
            Verdict::CannotTell => "cannot tell",
            Verdict::Context => "",
        };
        let _fits = writeln!(
            text,
            "| {} | {} {} | {interval} | {goal} | {verdict} |",
            row.name,
            figure(row.figure),
            row.unit
        );
    }
    text
}

/// Three digits that mean something.
pub(crate) fn figure(value: f64) -> String {
    let text = match value.abs() {
        size if size.is_nan() => "–".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    text.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::super::svg::tests::report;
    use super::*;

    #[test]
    fn every_table_has_as_many_cells_in_each_line() {
        let text = markdown(&report());
        assert!(text.contains("| read, 4 KiB | 20.0 GB/s | 19.8 | 1.01 (1.00–1.02) | – | – |"));
        assert!(text.contains("Others used this PC"));
        assert!(text.contains("Not measured: no numpy"));
        assert!(text.contains("| ≤ 1.00 | cannot tell |"), "{text}");
        let mut cells = 0;
        for line in text.lines() {
            let own = line.matches('|').count();
            assert!(own == 0 || cells == 0 || own == cells, "{line}");
            cells = own;
        }
    }

    #[test]
    fn figures_and_sizes_are_short() {
        for (value, text) in [
            (f64::NAN, "–"),
            (123.4, "123"),
            (-1.25, "−1.25"),
            (0.0123, "0.012"),
        ] {
            assert_eq!(figure(value), text);
        }
        assert_eq!(size(4 << 10), "4 KiB");
        assert_eq!(size(256 << 20), "256 MiB");
    }
}
