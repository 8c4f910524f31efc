//! What the rounds of a group say: each engine against native, pair by pair. Pure.

use super::Kind;
use super::plan::{By, Group, Item, item, promised};
use super::{Line, Versus};
use crate::burn::Reading;
use crate::stats::{Interval, bootstrap, median};

/// The readings of one run.
pub(crate) type Run = Vec<Reading>;

/// All runs of a group. Index `i` of an engine is of the same round as that of native; an engine
/// need not have taken part in every round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rounds {
    pub(crate) native: Vec<Run>,
    pub(crate) engines: Vec<Vec<Option<Run>>>,
}

/// A median and its interval.
pub(crate) type Estimate = (f64, Interval);

/// Seconds of a slice. Where others are in what is counted, in a guest or where time just passes or
/// memory is what is asked for, the shortest slice is the one that nobody disturbed; else all of
/// them count.
fn seconds(reading: &Reading, kind: Kind, by: By) -> f64 {
    match (kind.counts_cpu(), by) {
        (true, By::Cpu) => reading.total_s / f64::from(reading.slices.max(1)),
        (false, _) | (_, By::Fastest | By::Wall) => reading.best_s,
    }
}

fn find<'r>(run: &'r Run, name: &str) -> Option<&'r Reading> {
    run.iter().find(|reading| reading.item == name)
}

impl Rounds {
    /// Native and one engine, in the rounds that have both.
    fn pairs(&self, engine: usize) -> impl Iterator<Item = (&Run, &Run)> {
        let runs = self.engines.get(engine).into_iter().flatten();
        self.native
            .iter()
            .zip(runs)
            .filter_map(|(native, own)| Some((native, own.as_ref()?)))
    }

    fn estimate(ratios: &[f64]) -> Option<Estimate> {
        (!ratios.is_empty()).then(|| (median(ratios), bootstrap(ratios, median)))
    }

    /// How many times as long an item takes on an engine as native.
    fn ratio(&self, engine: usize, kind: Kind, name: &str, by: By) -> Option<Estimate> {
        let ratios: Vec<f64> = self
            .pairs(engine)
            .filter_map(|(native, own)| {
                let of = |run| find(run, name).map(|reading| seconds(reading, kind, by));
                Some(of(own)? / of(native)?)
            })
            .collect();
        Self::estimate(&ratios)
    }

    /// The one ratio that the group's promise is about; none for groups without one.
    pub(crate) fn headline(&self, group: Group, engine: usize, kind: Kind) -> Option<Estimate> {
        let of = match group {
            Group::Cpu => arithmetic,
            Group::Memory => sweep,
            Group::Blas | Group::Files | Group::Calls | Group::Start | Group::Io => return None,
        };
        let pairs = self.pairs(engine);
        let ratios: Vec<f64> = pairs
            .filter_map(|(native, own)| of(native, own, kind))
            .collect();
        Self::estimate(&ratios)
    }

    /// An item that came to something else on an engine than native in the same round, if there is
    /// one.
    pub(crate) fn differs(&self) -> Option<&str> {
        let engines = 0..self.engines.len();
        let mut pairs = engines.flat_map(|engine| self.pairs(engine));
        pairs.find_map(|(native, own)| {
            let other = |reading: &&Reading| {
                find(native, &reading.item).is_some_and(|first| first.sum != reading.sum)
            };
            own.iter().find(other).map(|reading| reading.item.as_str())
        })
    }

    /// Pairs of native and an engine.
    pub(crate) fn count(&self, engine: usize) -> usize {
        self.pairs(engine).count()
    }

    /// A line for each item that the work knows.
    pub(crate) fn lines(&self, group: Group, kinds: &[Kind]) -> Vec<Line> {
        let names = self.native.first().into_iter().flatten();
        names
            .filter_map(|reading| self.line(group, kinds, &reading.item))
            .collect()
    }

    fn line(&self, group: Group, kinds: &[Kind], name: &str) -> Option<Line> {
        let (word, size) = match name.split_once('@') {
            Some((word, size)) => (word, size.parse().ok()),
            None => (name, None),
        };
        let item = item(group, word)?;
        let engines = kinds.iter().enumerate().map(|(engine, kind)| {
            let (ratio, interval) = self.ratio(engine, *kind, name, item.by)?;
            Some(Versus {
                figure: typical(self.pairs(engine).map(|(_, own)| own), name, &item)?,
                ratio,
                interval,
                pairs: self.count(engine),
            })
        });
        Some(Line {
            item: item.words.to_owned(),
            size,
            unit: item.unit,
            native: typical(self.native.iter(), name, &item)?,
            engines: engines.collect(),
        })
    }
}

/// The median over runs of an item's fastest slice.
fn typical<'r>(runs: impl Iterator<Item = &'r Run>, name: &str, item: &Item) -> Option<f64> {
    let figures: Vec<f64> = runs
        .filter_map(|run| find(run, name))
        .map(|reading| item.figure(reading.amount, reading.best_s))
        .collect();
    (!figures.is_empty()).then(|| median(&figures))
}

/// Time of the promised items together, against native.
fn arithmetic(native: &Run, own: &Run, kind: Kind) -> Option<f64> {
    let sum = |run: &Run| -> Option<f64> {
        let items = promised(kind).iter();
        items
            .map(|name| find(run, name).map(|reading| seconds(reading, kind, By::Cpu)))
            .sum()
    };
    Some(sum(own)? / sum(native)?)
}

/// The geometric mean over sizes and ways of going over memory that has been touched.
fn sweep(native: &Run, own: &Run, kind: Kind) -> Option<f64> {
    let logs: Vec<f64> = native
        .iter()
        .filter(|reading| !reading.item.starts_with("touch"))
        .filter_map(|reading| {
            let other = find(own, &reading.item)?;
            let of = |reading| seconds(reading, kind, By::Fastest);
            Some((of(other) / of(reading)).ln())
        })
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "a number of items")]
    let count = logs.len() as f64;
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / count).exp())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn reading(item: &str, best_s: f64, total_s: f64) -> Reading {
        Reading {
            item: item.to_owned(),
            total_s,
            best_s,
            slices: 2,
            amount: 1e6,
            sum: 7,
        }
    }

    /// Native takes 10 ms a slice, of which a disturbed one 12; the engine `times` as long.
    fn run(names: &[&str], times: f64) -> Run {
        let of = |name: &&str| reading(name, 0.010 * times, 0.022 * times);
        names.iter().map(of).collect()
    }

    const CPU: [&str; 4] = ["sieve", "dgemm", "integer", "float"];

    #[test]
    fn engines_are_compared_with_native_of_the_same_round() {
        let rounds = Rounds {
            // The second round is twice as slow for all: a mood of the PC.
            native: vec![run(&CPU, 1.0), run(&CPU, 2.0), run(&CPU, 1.0)],
            engines: vec![
                vec![
                    Some(run(&CPU, 1.01)),
                    Some(run(&CPU, 2.02)),
                    Some(run(&CPU, 1.01)),
                ],
                vec![None, Some(run(&CPU, 2.1)), None],
            ],
        };
        let (ratio, interval) = rounds.headline(Group::Cpu, 0, Kind::Process).unwrap();
        assert!((ratio - 1.01).abs() < 1e-9 && interval.high - interval.low < 1e-9);
        let kinds = [Kind::Process, Kind::UserModeLinux];
        let (ratio, _) = rounds.headline(Group::Cpu, 1, kinds[1]).unwrap();
        assert!((ratio - 1.05).abs() < 1e-9);
        let lines = rounds.lines(Group::Cpu, &kinds);
        assert_eq!(lines.len(), 4);
        let guest = lines[0].engines[1].unwrap();
        assert_eq!(guest.pairs, 1);
        assert!(
            (lines[0].native - 0.010).abs() < 1e-9,
            "µs for one of a million"
        );
        assert!((guest.ratio - 1.05).abs() < 1e-9);
    }

    #[test]
    fn a_disturbed_slice_counts_only_where_the_clock_is_the_programs_own() {
        let rounds = Rounds {
            native: vec![vec![reading("integer", 0.010, 0.020)]],
            engines: vec![vec![Some(vec![reading("integer", 0.010, 0.090)])]],
        };
        let of = |kind| rounds.ratio(0, kind, "integer", By::Cpu).unwrap().0;
        assert!((of(Kind::Process) - 4.5).abs() < 1e-9);
        assert!((of(Kind::UserModeLinux) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_sweep_leaves_the_first_touch_out() {
        let rounds = Rounds {
            native: vec![run(&["touch@1048576", "read@4096", "write@4096"], 1.0)],
            engines: vec![vec![Some(vec![
                reading("touch@1048576", 1.0, 2.0),
                reading("read@4096", 0.02, 0.044),
                // A slice that somebody disturbed.
                reading("write@4096", 0.005, 0.099),
            ])]],
        };
        let (ratio, _) = rounds.headline(Group::Memory, 0, Kind::Process).unwrap();
        assert!((ratio - 1.0).abs() < 1e-9, "twice and half: {ratio}");
        let lines = rounds.lines(Group::Memory, &[Kind::Process]);
        assert_eq!(lines[1].size, Some(4096));
    }

    #[test]
    fn whoever_computes_something_else_is_found() {
        let mut rounds = Rounds {
            native: vec![run(&CPU, 1.0), run(&CPU, 1.0)],
            engines: vec![vec![None, Some(run(&CPU, 1.1))]],
        };
        assert_eq!(rounds.differs(), None);
        rounds.engines[0][1].as_mut().unwrap()[2].sum = 8;
        assert_eq!(rounds.differs(), Some("integer"));
    }

    #[test]
    fn nothing_is_said_of_what_was_not_run() {
        let rounds = Rounds::default();
        assert_eq!(rounds.headline(Group::Cpu, 0, Kind::Process), None);
        assert!(rounds.lines(Group::Cpu, &[Kind::Process]).is_empty());
        let rounds = Rounds {
            native: vec![run(&CPU, 1.0)],
            engines: vec![vec![None]],
        };
        let lines = rounds.lines(Group::Cpu, &[Kind::Process]);
        assert_eq!(lines[0].engines, [None]);
        assert_eq!(rounds.headline(Group::Files, 0, Kind::Process), None);
    }
}
