//! The picture as characters: for each owner and kind of tasks, how much of the idle CPU each rule
//! gets and what that does to the owner; below it the figures. 80 columns. Pure.

use super::ImpactReport;
use super::figures::{Answers, Cell, Estimate};
use super::plan::{Kind, Mix, Rule};
use std::fmt::Write as _;

/// Characters of a bar for the whole idle CPU.
const BAR: usize = 18;
/// Characters of the axis of ratios.
const AXIS: usize = 18;
/// The axis is logarithmic between these ratios; what lies outside stands at its end.
pub(super) const RATIO_LOW: f64 = 0.7;
pub(super) const RATIO_HIGH: f64 = 4.0;

/// Everything beside one kind of tasks.
#[derive(Debug)]
pub(super) struct Panel<'a> {
    pub(super) mix: Mix,
    pub(super) kind: Kind,
    pub(super) cells: Vec<&'a Cell>,
    /// What the comparison finds between equals.
    pub(super) noise: Option<&'a Answers>,
}

/// The panels of a report.
pub(super) fn panels(cells: &[Cell]) -> Vec<Panel<'_>> {
    let mut panels: Vec<Panel<'_>> = Vec::new();
    for cell in cells {
        let Some(kind) = cell.kind else { continue };
        let known = |panel: &&mut Panel<'_>| panel.mix == cell.mix && panel.kind == kind;
        match panels.iter_mut().find(known) {
            Some(panel) => panel.cells.push(cell),
            None => panels.push(Panel {
                mix: cell.mix,
                kind,
                cells: vec![cell],
                noise: cells
                    .iter()
                    .find(|noise| noise.mix == cell.mix && noise.kind.is_none())
                    .and_then(|noise| noise.answers.first()),
            }),
        }
    }
    panels
}

/// Where on the axis a ratio stands, from 0 to 1.
pub(super) fn place(ratio: f64) -> f64 {
    let bounded = ratio.clamp(RATIO_LOW, RATIO_HIGH);
    (bounded / RATIO_LOW).ln() / (RATIO_HIGH / RATIO_LOW).ln()
}

/// Colours of a terminal.
#[derive(Debug, Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn on(self, code: &str, text: &str) -> String {
        match self.0 {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// Red where the owner certainly feels it, yellow where perhaps.
    fn judged(self, felt: Felt, text: &str) -> String {
        match felt {
            Felt::No => self.on("32", text),
            Felt::Perhaps => self.on("33", text),
            Felt::Yes => self.on("31", text),
        }
    }
}

/// Whether an owner feels the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Felt {
    No,
    Perhaps,
    Yes,
}

/// From this ratio on, somebody notices.
const NOTICED: f64 = 1.1;

/// The interval must be beyond what two measurements without tasks differ by.
pub(super) fn felt(estimate: Estimate, noise: Option<Estimate>) -> Felt {
    let floor = noise.map_or(1.0, |noise| noise.interval.high.max(1.0));
    match () {
        () if estimate.figure <= NOTICED => Felt::No,
        () if estimate.interval.low > floor => Felt::Yes,
        () => Felt::Perhaps,
    }
}

/// The picture.
#[must_use]
pub fn picture(report: &ImpactReport, colour: bool) -> String {
    let paint = Paint(colour);
    let mut text = String::new();
    for panel in panels(&report.cells) {
        let model = panel.mix.models().first().map_or("", |model| model.text());
        let title = format!("{} beside {} tasks", panel.mix.text(), panel.kind.text());
        let axis = format!("{model} p99, times that without");
        let _fits = writeln!(text, "{}", paint.on("1", &title));
        let _fits = writeln!(text, "{:20}{:26}{axis}", "", "idle CPU harvested");
        for cell in &panel.cells {
            text.push_str(&line(cell, panel.noise, paint));
        }
        text.push('\n');
    }
    text
}

fn line(cell: &Cell, noise: Option<&Answers>, paint: Paint) -> String {
    let rule = cell.rule.map_or("", Rule::text);
    let harvested = cell.harvested.map_or(0.0, |estimate| estimate.figure);
    let (full, rest) = bar(harvested, BAR);
    let bar = format!("{}{}", paint.on("36", &full), " ".repeat(rest));
    let percent = format!("{:>4.0} %", harvested * 100.0);
    let answers = cell.answers.first();
    let ratio = answers.map_or(f64::NAN, |answers| answers.p99.figure);
    let axis = answers.map_or_else(String::new, |answers| {
        axis(answers.p99, noise.map(|noise| noise.p99))
    });
    let felt = answers.map_or(Felt::No, |one| felt(one.p99, noise.map(|noise| noise.p99)));
    let number = paint.judged(felt, &format!("{ratio:>6.2}"));
    format!("{rule:<20}{bar}{percent}  {axis} {number}\n")
}

/// Filled characters, and how many are left.
fn bar(share: f64, width: usize) -> (String, usize) {
    let eighths = cells_of(share, width * 8);
    let mut text = "█".repeat(eighths / 8);
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    text.push_str(rest);
    let used = eighths.div_ceil(8);
    (text, width - used)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a width, bounded"
)]
fn cells_of(share: f64, width: usize) -> usize {
    if share.is_nan() {
        return 0;
    }
    (share.clamp(0.0, 1.0) * width as f64).round() as usize
}

/// The interval on its axis: `│` is no change, `░` is what two equals differ by.
fn axis(estimate: Estimate, noise: Option<Estimate>) -> String {
    let column = |ratio: f64| cells_of(place(ratio), AXIS - 1);
    let span = |estimate: Estimate| {
        column(estimate.interval.low)..=column(estimate.interval.high.max(RATIO_LOW))
    };
    let (own, noise) = (span(estimate), noise.map(span));
    (0..AXIS)
        .map(|at| match () {
            () if at == column(estimate.figure) => '●',
            () if own.contains(&at) => '─',
            () if at == column(1.0) => '│',
            () if noise.as_ref().is_some_and(|noise| noise.contains(&at)) => '░',
            () => ' ',
        })
        .collect()
}

/// The figures: a line for each answer.
#[must_use]
pub fn table(report: &ImpactReport) -> String {
    let mut text = format!(
        "{:<11}{:<8}{:>6}{:>8}{:>6}{:>6}{:>6}{:>15}{:>6}{:>8}\n",
        "RULE",
        "ANSWER",
        "IDLE %",
        "USEFUL %",
        "P50",
        "P95",
        "P99",
        "95 % INTERVAL",
        "MAX",
        "MISSED"
    );
    for mix in Mix::ALL {
        for cell in report.cells.iter().filter(|cell| cell.mix == *mix) {
            let head = match (cell.kind, first_of_kind(&report.cells, cell)) {
                (Some(kind), true) => format!("{mix}, {} tasks\n", kind.text()),
                (None, _) => format!("{mix}, no task against no task\n"),
                (Some(_), false) => String::new(),
            };
            text.push_str(&head);
            for (at, answers) in cell.answers.iter().enumerate() {
                text.push_str(&figures(cell, answers, at == 0));
            }
            text.push_str(&behind(cell));
            text.push_str(&left(cell));
        }
    }
    text
}

/// Where it is known: what the owner waited while a task held its CPU.
fn behind(cell: &Cell) -> String {
    match (cell.kind, cell.task_wait, cell.longest_task_wait_ms) {
        (Some(_), Some(wait), Some(longest)) => format!(
            "{:11}waits behind a task: {:.2} % of its CPU time, at most {longest:.1} ms\n",
            "",
            wait.figure * 100.0
        ),
        _ => String::new(),
    }
}

/// Where it is known: what became of the idle CPU time that the tasks did not get.
fn left(cell: &Cell) -> String {
    let Some(left) = cell.left else {
        return String::new();
    };
    let parts = [
        ("runnable", left.queued),
        ("asleep", left.asleep),
        ("held back", left.held_back),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter_map(|(what, share)| Some(format!("{what} {:.1} %", share? * 100.0)))
        .collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!("{:11}not harvested, tasks: {}\n", "", parts.join(", ")),
    }
}

fn first_of_kind(cells: &[Cell], cell: &Cell) -> bool {
    let same = |one: &&Cell| one.mix == cell.mix && one.kind == cell.kind;
    cells
        .iter()
        .find(same)
        .is_some_and(|one| std::ptr::eq(one, cell))
}

fn figures(cell: &Cell, answers: &Answers, first: bool) -> String {
    let share = |estimate: Option<Estimate>| match estimate {
        Some(estimate) if first => format!("{:.1}", estimate.figure * 100.0),
        _ => String::new(),
    };
    let interval = answers.p99.interval;
    let interval = match interval.high.is_finite() {
        true => format!("{:.2} – {:.2}", interval.low, interval.high),
        false => "one segment".to_owned(),
    };
    let missed = answers
        .missed_points
        .map_or_else(String::new, |missed| format!("{:+.2}", missed.figure));
    let rule = match first {
        true => cell.rule.map_or("no task", Rule::word),
        false => "",
    };
    let line = format!(
        "{rule:<11}{:<8}{:>6}{:>8}{:>6.2}{:>6.2}{:>6.2}{interval:>15}{:>6.2}{missed:>8}",
        answers.model.word(),
        share(cell.harvested),
        share(cell.useful),
        answers.p50.figure,
        answers.p95.figure,
        answers.p99.figure,
        answers.max.figure,
    );
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::super::svg::tests::report;
    use super::*;

    #[test]
    fn everything_fits_eighty_columns_and_is_aligned() {
        let report = report();
        let both = format!("{}{}", picture(&report, false), table(&report));
        for line in both.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for part in ["gleaner", "SCHED_IDLE, daemon", "98 %", "█", "●", "frames"] {
            assert!(both.contains(part), "{part} in\n{both}");
        }
    }

    #[test]
    fn colours_are_only_added() {
        let report = report();
        let coloured = picture(&report, true);
        assert!(coloured.contains("\x1b[31m"), "a bad ratio is red");
        let mut plain = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once('\x1b') {
            plain.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        plain.push_str(rest);
        assert_eq!(plain, picture(&report, false));
    }

    #[test]
    fn only_what_is_beyond_the_noise_is_felt() {
        let near = |figure: f64, spread: f64| Estimate {
            figure,
            interval: crate::Interval {
                low: figure - spread,
                high: figure + spread,
            },
        };
        for (ratio, noise, wanted) in [
            (near(1.05, 0.01), near(1.0, 0.01), Felt::No),
            (near(2.0, 0.3), near(1.0, 0.1), Felt::Yes),
            (near(2.0, 0.3), near(1.0, 0.9), Felt::Perhaps),
            (near(2.0, 1.3), near(1.0, 0.1), Felt::Perhaps),
        ] {
            assert_eq!(felt(ratio, Some(noise)), wanted, "{ratio:?} {noise:?}");
        }
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        for (share, filled, rest) in [(0.0, 0, 10), (0.5, 5, 5), (1.0, 10, 0), (7.0, 10, 0)] {
            let (text, left) = bar(share, 10);
            assert_eq!((text.chars().count(), left), (filled, rest), "{share}");
        }
        assert_eq!(bar(f64::NAN, 10).1, 10);
        assert!(place(1.0) > place(0.9) && place(f64::INFINITY) <= 1.0);
    }
}
