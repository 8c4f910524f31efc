//! What `gleaner bench impact` found about the promises, in 80 columns, and how it was measured.

use super::bench::{figure, verdict};
use super::{Look, table, text};
use comfy_table::{Cell, CellAlignment};
use gleaner_bench::impact::ImpactReport;
use gleaner_bench::{Goal, Row, Verdict};

/// Longest name of a promise that leaves room for the rest of its line.
const NAME_WIDTH: usize = 36;

/// The promises, what is doubtful about their verdicts, and the setting.
pub(crate) fn summary(report: &ImpactReport, look: Look) -> String {
    let mut rows = table(look, &["PROMISE", "FIGURE", "95 %", "GOAL", "VERDICT"]);
    for row in &report.rows {
        let interval = row.interval.filter(|interval| interval.high.is_finite());
        let interval =
            interval.map(|interval| format!("{}…{}", figure(interval.low), figure(interval.high)));
        let goal = row.goal.map(|goal| match goal {
            Goal::AtMost(goal) => format!("≤ {goal}"),
            Goal::AtLeast(goal) => format!("≥ {goal}"),
        });
        rows.add_row(vec![
            Cell::new(folded(&row.name)),
            Cell::new(format!("{}{}", figure(row.figure), short(row.unit)))
                .set_alignment(CellAlignment::Right),
            Cell::new(interval.unwrap_or_default()),
            Cell::new(goal.unwrap_or_default()),
            verdict(row.verdict),
        ]);
    }
    format!("\n{}{}\n{}", text(rows), doubts(report), setting(report))
}

/// The unit in as few letters as say it; the name says the rest.
fn short(unit: &str) -> &str {
    match unit {
        "% more" | "% of its CPU" | "% of a core" | "%" => " %",
        "points" => " pt",
        "ms" => " ms",
        "MB" => " MB",
        _ => "",
    }
}

/// A long name on two lines.
fn folded(name: &str) -> String {
    match name.split_once(", ") {
        Some((what, beside)) if name.chars().count() > NAME_WIDTH => format!("{what},\n  {beside}"),
        _ => name.to_owned(),
    }
}

/// Why it cannot be told, each reason once.
fn doubts(report: &ImpactReport) -> String {
    let mut reasons: Vec<&str> = report
        .rows
        .iter()
        .filter(|row: &&Row| row.verdict == Verdict::CannotTell && !row.note.is_empty())
        .map(|row| row.note.as_str())
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    let lines = reasons
        .iter()
        .map(|reason| format!("cannot tell: {reason}\n"));
    lines.collect()
}

fn setting(report: &ImpactReport) -> String {
    let setting = &report.setting;
    format!(
        "{} CPUs, {}, {}\n{} segments in {:.0} s, {} of them disturbed; load {:.2} before\n\
         delay attributed by {}\n",
        setting.cpus,
        setting.groups,
        setting.priority,
        setting.segments,
        setting.seconds,
        setting.dropped,
        setting.load,
        setting.attribution,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use gleaner_bench::Interval;
    use gleaner_bench::impact::Setting;

    #[test]
    fn a_summary_fits_eighty_columns() {
        let row = Row::new(
            "owner's frame p99, cache- and bandwidth-bound tasks",
            12.25,
            "% more",
        )
        .interval(Interval {
            low: -4.56,
            high: 123.4,
        })
        .goal(Goal::AtMost(10.0))
        .note("no task twice differs by up to +9.9");
        let report = ImpactReport {
            bench: "impact",
            version: "0",
            setting: Setting {
                cpus: 2,
                groups: "cgroup v1",
                priority: "cpu.idle on the group of all tasks",
                attribution: "sched events".to_owned(),
                segments: 10,
                dropped: 3,
                load: 0.5,
                seconds: 60.0,
            },
            cells: Vec::new(),
            rows: vec![row],
            segments: Vec::new(),
        };
        let text = summary(
            &report,
            Look {
                colour: false,
                width: None,
                now: jiff::Timestamp::UNIX_EPOCH,
            },
        );
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for part in [
            "12.2 %",
            "≤ 10",
            "cannot tell: no task twice",
            "3 of them disturbed",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
