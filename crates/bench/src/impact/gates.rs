//! What the figures say about the promises. Only an interval that lies within its goal as a whole
//! passes; where noise hides the answer the word is `cannot tell`. Pure.

use super::figures::{Answers, Cell, Estimate};
use super::plan::{Kind, Mix, Model, Rule};
use crate::{Goal, Interval, Row, Verdict};

/// Events below which a 99th percentile is one or two events' luck.
pub(crate) const EVENTS_FOR_P99: usize = 300;
/// Pairs of segments below which an interval is itself a guess.
const PAIRS_TO_JUDGE: usize = 4;

/// A promise about one owner beside one kind of tasks in our engine.
struct Promise {
    mix: Mix,
    kind: Kind,
    of: Of,
    goal: Goal,
}

/// Which figure.
#[derive(Clone, Copy)]
enum Of {
    Harvested,
    Useful,
    P50(Model),
    P99(Model),
    Missed,
    TaskWait,
    MajorFaults,
}

const fn promise(mix: Mix, kind: Kind, of: Of, goal: Goal) -> Promise {
    Promise {
        mix,
        kind,
        of,
        goal,
    }
}

/// All of them; the words of SPECIFICATION.md in figures.
const PROMISES: &[Promise] = &[
    promise(Mix::Desk, Kind::Cpu, Of::Harvested, Goal::AtLeast(97.0)),
    promise(Mix::Desk, Kind::Cpu, Of::Useful, Goal::AtLeast(95.0)),
    promise(
        Mix::Desk,
        Kind::Cpu,
        Of::P50(Model::Frames),
        Goal::AtMost(1.0),
    ),
    promise(
        Mix::Desk,
        Kind::Cpu,
        Of::P99(Model::Frames),
        Goal::AtMost(3.0),
    ),
    promise(Mix::Desk, Kind::Cpu, Of::Missed, Goal::AtMost(0.1)),
    promise(
        Mix::Desk,
        Kind::Cpu,
        Of::P50(Model::Keys),
        Goal::AtMost(1.0),
    ),
    promise(
        Mix::Desk,
        Kind::Cpu,
        Of::P99(Model::Keys),
        Goal::AtMost(3.0),
    ),
    promise(Mix::Desk, Kind::Cpu, Of::TaskWait, Goal::AtMost(0.1)),
    promise(Mix::Desk, Kind::Cache, Of::Harvested, Goal::AtLeast(85.0)),
    promise(
        Mix::Desk,
        Kind::Cache,
        Of::P99(Model::Frames),
        Goal::AtMost(10.0),
    ),
    promise(Mix::Desk, Kind::Memory, Of::Harvested, Goal::AtLeast(85.0)),
    promise(
        Mix::Desk,
        Kind::Memory,
        Of::P99(Model::Frames),
        Goal::AtMost(10.0),
    ),
    promise(Mix::Desk, Kind::Memory, Of::MajorFaults, Goal::AtMost(0.0)),
    promise(
        Mix::Work,
        Kind::Cpu,
        Of::P50(Model::Compile),
        Goal::AtMost(1.0),
    ),
    promise(
        Mix::Save,
        Kind::Disk,
        Of::P99(Model::Saves),
        Goal::AtMost(20.0),
    ),
];

/// A row for each promise whose condition was run.
pub(crate) fn rows(cells: &[Cell]) -> Vec<Row> {
    PROMISES
        .iter()
        .filter_map(|promise| {
            let cell = cells.iter().find(|cell| {
                cell.mix == promise.mix
                    && cell.kind == Some(promise.kind)
                    && cell.rule == Some(Rule::Gleaner)
            })?;
            let noise = cells
                .iter()
                .find(|cell| cell.mix == promise.mix && cell.kind.is_none());
            row(promise, cell, noise)
        })
        .collect()
}

fn row(promise: &Promise, cell: &Cell, noise: Option<&Cell>) -> Option<Row> {
    let Some((what, estimate, unit)) = figure(promise.of, cell) else {
        return without_figure(promise);
    };
    let name = format!("{what}, {} tasks", promise.kind.text());
    let equal = noise.and_then(|noise| figure(promise.of, noise));
    let equal = equal.map(|(_, estimate, _)| estimate.interval);
    let row = Row::new(&name, estimate.figure, unit)
        .interval(estimate.interval)
        .goal(promise.goal);
    let doubt = doubt(promise.of, cell, &row, equal);
    let floor =
        equal.map(|equal| format!("no task twice: {:+.1} to {:+.1}", equal.low, equal.high));
    Some(match doubt {
        Some(why) => Row {
            verdict: Verdict::CannotTell,
            ..row
        }
        .note(why),
        None => row.note(floor.unwrap_or_default()),
    })
}

/// Useful work is none where nothing undisturbed tells what could have been done.
fn without_figure(promise: &Promise) -> Option<Row> {
    matches!(promise.of, Of::Useful).then(|| {
        let name = format!("as useful work, {} tasks", promise.kind.text());
        let row = Row::new(&name, f64::NAN, "%").goal(promise.goal);
        Row {
            verdict: Verdict::CannotTell,
            ..row
        }
        .note("no undisturbed segment without an owner to compare with")
    })
}

/// The figure in the unit of its goal.
fn figure(of: Of, cell: &Cell) -> Option<(String, Estimate, &'static str)> {
    let answers = |model: Model| cell.answers.iter().find(|one| one.model == model);
    let percent = |estimate: Estimate| map(estimate, |share| share * 100.0);
    let longer = |estimate: Estimate| map(estimate, |ratio| (ratio - 1.0) * 100.0);
    let text = |model: Model, point| format!("owner's {} {point}", model.text());
    Some(match of {
        Of::Harvested => ("idle CPU harvested".into(), percent(cell.harvested?), "%"),
        Of::Useful => ("as useful work".into(), percent(cell.useful?), "%"),
        Of::P50(model) => (text(model, "p50"), longer(answers(model)?.p50), "% more"),
        Of::P99(model) => (text(model, "p99"), longer(answers(model)?.p99), "% more"),
        Of::Missed => {
            let missed = answers(Model::Frames)?.missed_points?;
            ("owner's missed frames".into(), missed, "points")
        }
        // Without a tracer the sum of run delays has to do, against that without tasks.
        Of::TaskWait => match cell.task_wait {
            Some(wait) => (
                "owner waits behind a task".into(),
                percent(wait),
                "% of its CPU",
            ),
            None => (
                "owner waits longer for a CPU".into(),
                percent(cell.run_delay),
                "% of its CPU",
            ),
        },
        Of::MajorFaults => {
            #[expect(clippy::cast_precision_loss, reason = "a count of faults")]
            let faults = cell.major_faults as f64;
            let interval = Interval {
                low: faults,
                high: faults,
            };
            let estimate = Estimate {
                figure: faults,
                interval,
            };
            ("owner's major page faults".into(), estimate, "")
        }
    })
}

fn map(estimate: Estimate, change: fn(f64) -> f64) -> Estimate {
    Estimate {
        figure: change(estimate.figure),
        interval: Interval {
            low: change(estimate.interval.low),
            high: change(estimate.interval.high),
        },
    }
}

/// Why a verdict would be worth nothing.
fn doubt(of: Of, cell: &Cell, row: &Row, equal: Option<Interval>) -> Option<String> {
    // Counts of what tasks did to the owner, not times: no noise to hide behind.
    if matches!(of, Of::MajorFaults) {
        return None;
    }
    if cell.disturbed {
        return Some("too few undisturbed segments; all were used".to_owned());
    }
    if cell.pairs < PAIRS_TO_JUDGE {
        return Some(format!("{} pairs of segments are too few", cell.pairs));
    }
    if let Of::P99(model) = of {
        let events = cell.answers.iter().find(|one| one.model == model);
        let events = events.map_or(0, |one: &Answers| one.events);
        if events < EVENTS_FOR_P99 {
            return Some(format!("{events} events are too few for a p99"));
        }
    }
    // What two equals differ by, tasks cannot be blamed for.
    let (low, equal) = (row.interval?.low, equal?);
    let hidden = row.verdict == Verdict::Missed && low <= equal.high;
    hidden.then(|| format!("no task twice differs by up to {:+.1}", equal.high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(figure: f64, spread: f64) -> Estimate {
        Estimate {
            figure,
            interval: Interval {
                low: figure - spread,
                high: figure + spread,
            },
        }
    }

    fn cell(kind: Option<Kind>, ratio: Estimate) -> Cell {
        let answers = |model| Answers {
            model,
            events: 1000,
            base_ms: [4.0, 5.0, 6.0, 9.0],
            p50: ratio,
            p95: ratio,
            p99: ratio,
            max: ratio,
            paired: ratio,
            missed_points: (model == Model::Frames).then(|| near(0.0, 0.01)),
        };
        Cell {
            mix: Mix::Desk,
            kind,
            rule: kind.map(|_| Rule::Gleaner),
            pairs: 8,
            disturbed: false,
            harvested: kind.map(|_| near(0.985, 0.002)),
            useful: kind.map(|_| near(0.95, 0.02)),
            left: None,
            answers: vec![answers(Model::Frames), answers(Model::Keys)],
            run_delay: near(0.0, 0.0),
            task_wait: None,
            longest_task_wait_ms: None,
            major_faults: 0,
        }
    }

    fn verdict_of(rows: &[Row], name: &str) -> Verdict {
        let row = rows.iter().find(|row| row.name.starts_with(name));
        row.unwrap_or_else(|| panic!("{name} in {rows:?}")).verdict
    }

    #[test]
    fn a_pass_needs_the_whole_interval() {
        let noise = cell(None, near(1.0, 0.005));
        let rows = rows(&[noise, cell(Some(Kind::Cpu), near(1.002, 0.004))]);
        assert_eq!(verdict_of(&rows, "idle CPU harvested"), Verdict::Met);
        assert_eq!(verdict_of(&rows, "as useful work"), Verdict::CannotTell);
        assert_eq!(verdict_of(&rows, "owner's frame p50"), Verdict::Met);
        assert_eq!(verdict_of(&rows, "owner's frame p99"), Verdict::Met);
        assert_eq!(verdict_of(&rows, "owner's missed frames"), Verdict::Met);
    }

    #[test]
    fn what_two_equals_differ_by_is_no_miss() {
        let slow = near(1.10, 0.02);
        for (noise, verdict) in [(0.005, Verdict::Missed), (0.2, Verdict::CannotTell)] {
            let rows = rows(&[cell(None, near(1.0, noise)), cell(Some(Kind::Cpu), slow)]);
            assert_eq!(verdict_of(&rows, "owner's frame p99"), verdict, "{noise}");
        }
    }

    #[test]
    fn few_or_disturbed_segments_tell_nothing() {
        let good = near(1.0, 0.001);
        let few = Cell {
            pairs: 2,
            ..cell(Some(Kind::Cpu), good)
        };
        let disturbed = Cell {
            disturbed: true,
            ..cell(Some(Kind::Cpu), good)
        };
        let mut rare = cell(Some(Kind::Cpu), good);
        rare.answers[0].events = 100;
        for (cell, name) in [
            (few, "idle"),
            (disturbed, "idle"),
            (rare, "owner's frame p99"),
        ] {
            let rows = rows(&[cell]);
            assert_eq!(verdict_of(&rows, name), Verdict::CannotTell);
        }
    }
}
