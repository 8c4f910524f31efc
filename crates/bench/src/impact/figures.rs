//! From segments to figures: ratios to the paired segments without tasks, shares, and intervals
//! over segments. Pure.
//!
//! Events of one segment share its luck, so the bootstrap draws segments, never events (Efron and
//! Tibshirani, "An Introduction to the Bootstrap": resample the independent units).

use super::owner::FRAME_US;
use super::plan::{Beside, Chance, Kind, Mix, Model, Rule};
use super::session::{Segment, cpus_f};
use crate::Interval;
use crate::stats::{median, percentile};
use serde::Serialize;
use std::collections::BTreeMap;

/// Resamples of an interval; more changes the third digit.
const RESAMPLES: usize = 1000;
/// With fewer undisturbed pairs than this there is no interval to speak of; all are used then,
/// and nothing passes.
const LEAST_PAIRS: usize = 2;

/// A figure and its 95 % interval over segments.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure of all segments together.
    pub figure: f64,
    /// The interval.
    pub interval: Interval,
}

/// How long the owner waited for one kind of answer, against the same without tasks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answers {
    /// What the owner did.
    pub model: Model,
    /// Events beside the tasks.
    pub events: usize,
    /// Milliseconds without tasks at p50, p95, p99 and the longest.
    pub base_ms: [f64; 4],
    /// The ratio at p50.
    pub p50: Estimate,
    /// At p95.
    pub p95: Estimate,
    /// At p99.
    pub p99: Estimate,
    /// Of the longest.
    pub max: Estimate,
    /// The median over events of the ratio of one event to the same event without tasks.
    pub paired: Estimate,
    /// Share of frames that came too late for their time on the screen, in points more than
    /// without tasks.
    pub missed_points: Option<Estimate>,
}

/// Where idle CPU time went that no task had, as shares of all idle CPU time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Left {
    /// A task could have run: it stood in the queue of another CPU, or a bound held it. None
    /// where no tracer could tell.
    pub queued: Option<f64>,
    /// Every task that had no CPU slept. None likewise.
    pub asleep: Option<f64>,
    /// Our tasks were held back by the bound on their own CPU time, whether a CPU was idle or
    /// not. None where the kernel does not tell.
    pub held_back: Option<f64>,
}

/// One owner beside one kind of tasks under one rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// The owner.
    pub mix: Mix,
    /// The tasks; none where no-task segments are compared with each other.
    pub kind: Option<Kind>,
    /// The rule.
    pub rule: Option<Rule>,
    /// Pairs of segments that the figures are of.
    pub pairs: usize,
    /// Whether too few pairs were undisturbed, so that all were used.
    pub disturbed: bool,
    /// Share of the idle CPU time that the tasks had.
    pub harvested: Option<Estimate>,
    /// Share of the work that the usual undisturbed minute would have done in that idle time.
    pub useful: Option<Estimate>,
    /// Where the rest of the idle CPU time went.
    pub left: Option<Left>,
    /// The owner's waiting.
    pub answers: Vec<Answers>,
    /// Seconds that owner threads were runnable without a CPU, as a share of the owner's CPU
    /// time, less the same without tasks.
    pub run_delay: Estimate,
    /// Seconds that they waited while a task held their CPU, as a share of the owner's CPU time.
    pub task_wait: Option<Estimate>,
    /// The longest of those waits in milliseconds.
    pub longest_task_wait_ms: Option<f64>,
    /// Major page faults of the owner in all segments with tasks.
    pub major_faults: u64,
}

/// A segment and those of the same round without tasks.
#[derive(Debug, Clone)]
struct Pair<'a> {
    with: &'a Segment,
    base: Vec<&'a Segment>,
}

/// All cells, noise first in each owner's part.
#[must_use]
pub fn cells(segments: &[Segment]) -> Vec<Cell> {
    let rates = usual_rates(segments);
    let mut keys: Vec<(Mix, Beside)> = segments
        .iter()
        .filter(|segment| segment.mix != Mix::Away && segment.beside != Beside::None)
        .map(|segment| (segment.mix, segment.beside))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .map(|(mix, beside)| cell(segments, mix, beside, &rates))
        .collect()
}

/// The usual progress a CPU second of each kind while the owner was away: the median of the
/// quiet segments. A PC's speed varies by itself, and beside the best moment of all any other
/// looks idle. None where every such segment was disturbed: a starved rate would make any work
/// look like more than possible.
fn usual_rates(segments: &[Segment]) -> BTreeMap<Kind, f64> {
    let mut rates: BTreeMap<Kind, Vec<f64>> = BTreeMap::new();
    for segment in segments.iter().filter(|segment| segment.mix == Mix::Away) {
        if let (Beside::Tasks(kind, _), true) = (segment.beside, segment.quiet) {
            let rate = count(segment.progress) / (cpus_f() * segment.window_s);
            rates.entry(kind).or_default().push(rate);
        }
    }
    let usual = |(kind, rates): (Kind, Vec<f64>)| (kind, median(&rates));
    rates.into_iter().map(usual).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn count(value: u64) -> f64 {
    value as f64
}

fn cell(segments: &[Segment], mix: Mix, beside: Beside, rates: &BTreeMap<Kind, f64>) -> Cell {
    let (pairs, disturbed) = pairs(segments, mix, beside);
    let tasks = match beside {
        Beside::Tasks(kind, rule) => Some((kind, rule)),
        Beside::None | Beside::NoneAgain => None,
    };
    let rate = tasks.and_then(|(kind, _)| rates.get(&kind)).copied();
    let share = |of: fn(&Segment) -> f64, whole: fn(&Segment) -> f64| {
        estimate(&pairs, &|pairs| ratio_of_sums(pairs, of, whole))
    };
    let listened = pairs.iter().all(|pair| pair.with.waits.is_some());
    let waits = |of: fn(&super::trace::Waits) -> f64| {
        let all = pairs.iter().filter_map(|pair| pair.with.waits.as_ref());
        all.map(of).fold(0.0, f64::max)
    };
    Cell {
        mix,
        kind: tasks.map(|(kind, _)| kind),
        rule: tasks.map(|(_, rule)| rule),
        pairs: pairs.len(),
        disturbed,
        harvested: tasks.map(|_| share(|s| s.tasks_s, |s| s.tasks_s + s.idle_s)),
        useful: rate.filter(|rate| *rate > 0.0).map(|rate| {
            let done = share(|s| count(s.progress), |s| s.tasks_s + s.idle_s);
            scaled(done, rate.recip())
        }),
        left: tasks.map(|_| left(&pairs)),
        answers: mix
            .models()
            .iter()
            .map(|model| answers(&pairs, *model))
            .collect(),
        run_delay: estimate(&pairs, &|pairs| {
            let with = ratio_of_sums(pairs, |s| s.run_delay_s, |s| s.owner_s);
            let bases = pairs.iter().flat_map(|pair| &pair.base);
            let (delay, cpu) = bases.fold((0.0, 0.0), |(delay, cpu), s| {
                (delay + s.run_delay_s, cpu + s.owner_s)
            });
            with - delay / cpu
        }),
        task_wait: listened.then(|| {
            share(
                |s| s.waits.map_or(0.0, |waits| waits.tasks_s),
                |s| s.owner_s,
            )
        }),
        longest_task_wait_ms: listened.then(|| waits(|waits| waits.longest_task_s) * 1000.0),
        major_faults: pairs.iter().map(|pair| pair.with.major_faults).sum(),
    }
}

fn left(pairs: &[Pair<'_>]) -> Left {
    let share = |of: fn(&Segment) -> Option<f64>| {
        let all: Option<Vec<f64>> = pairs.iter().map(|pair| of(pair.with)).collect();
        let whole: f64 = pairs
            .iter()
            .map(|pair| pair.with.tasks_s + pair.with.idle_s)
            .sum();
        all.map(|all| all.iter().sum::<f64>() / whole)
    };
    Left {
        queued: share(|segment| segment.spare.map(|spare| spare.queued_s)),
        asleep: share(|segment| segment.spare.map(|spare| spare.asleep_s)),
        held_back: share(|segment| segment.held_back_s),
    }
}

fn scaled(estimate: Estimate, by: f64) -> Estimate {
    Estimate {
        figure: estimate.figure * by,
        interval: Interval {
            low: estimate.interval.low * by,
            high: estimate.interval.high * by,
        },
    }
}

/// Segments under a condition with their counterparts; whether disturbed ones are among them.
fn pairs(segments: &[Segment], mix: Mix, beside: Beside) -> (Vec<Pair<'_>>, bool) {
    let of = |quiet_only: bool| -> Vec<Pair<'_>> {
        let fits = |segment: &&Segment| segment.mix == mix && (segment.quiet || !quiet_only);
        let with = segments
            .iter()
            .filter(fits)
            .filter(|segment| segment.beside == beside);
        with.filter_map(|with| {
            let base: Vec<&Segment> = segments
                .iter()
                .filter(fits)
                .filter(|segment| segment.round == with.round && is_base(segment, beside))
                .collect();
            (!base.is_empty()).then_some(Pair { with, base })
        })
        .collect()
    };
    let quiet = of(true);
    match quiet.len() >= LEAST_PAIRS {
        true => (quiet, false),
        false => (of(false), true),
    }
}

/// The second no-task segment is compared with the first, everything else with both.
fn is_base(segment: &Segment, beside: Beside) -> bool {
    match segment.beside {
        Beside::None => true,
        Beside::NoneAgain => beside != Beside::NoneAgain,
        Beside::Tasks(..) => false,
    }
}

fn ratio_of_sums(pairs: &[&Pair<'_>], of: fn(&Segment) -> f64, whole: fn(&Segment) -> f64) -> f64 {
    let sum = |of: fn(&Segment) -> f64| pairs.iter().map(|pair| of(pair.with)).sum::<f64>();
    // Nothing is no share of anything, also where there was nothing to have.
    match sum(of) {
        0.0 => 0.0,
        some => some / sum(whole),
    }
}

/// A statistic of all pairs, and its interval over resampled pairs.
fn estimate(pairs: &[Pair<'_>], statistic: &dyn Fn(&[&Pair<'_>]) -> f64) -> Estimate {
    let [estimate] = estimates(pairs, &|pairs| [statistic(pairs)]);
    estimate
}

/// Several at once, so that what they share is done once.
fn estimates<const N: usize>(
    pairs: &[Pair<'_>],
    statistic: &dyn Fn(&[&Pair<'_>]) -> [f64; N],
) -> [Estimate; N] {
    let all: Vec<&Pair<'_>> = pairs.iter().collect();
    let figures = statistic(&all);
    let mut chance = Chance::new(11);
    let mut drawn: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(RESAMPLES));
    let resamples = if pairs.len() < 2 { 0 } else { RESAMPLES };
    for _ in 0..resamples {
        let sample: Vec<&Pair<'_>> = pairs
            .iter()
            .map(|_| &pairs[chance.index(pairs.len())])
            .collect();
        for (kept, figure) in drawn.iter_mut().zip(statistic(&sample)) {
            kept.extend(Some(figure).filter(|figure| !figure.is_nan()));
        }
    }
    std::array::from_fn(|at| Estimate {
        figure: figures[at],
        interval: match drawn[at].is_empty() {
            // One segment says nothing about the next.
            true => Interval {
                low: f64::NEG_INFINITY,
                high: f64::INFINITY,
            },
            false => Interval {
                low: percentile(&drawn[at], 0.025),
                high: percentile(&drawn[at], 0.975),
            },
        },
    })
}

const POINTS: [f64; 4] = [0.5, 0.95, 0.99, 1.0];

fn answers(pairs: &[Pair<'_>], model: Model) -> Answers {
    let [p50, p95, p99, max, paired, missed] = estimates(pairs, &|pairs| {
        let with = pooled(pairs.iter().map(|pair| pair.with), model);
        let base = pooled(
            pairs.iter().flat_map(|pair| pair.base.iter().copied()),
            model,
        );
        let ratio = |point| at(&with, point) / at(&base, point);
        let [p50, p95, p99, max] = POINTS.map(ratio);
        let missed = (missed_share(&with) - missed_share(&base)) * 100.0;
        [p50, p95, p99, max, event_ratio(pairs, model), missed]
    });
    let all: Vec<&Pair<'_>> = pairs.iter().collect();
    let base = pooled(all.iter().flat_map(|pair| pair.base.iter().copied()), model);
    let events = pairs
        .iter()
        .filter_map(|pair| pair.with.late_ms.get(&model));
    Answers {
        model,
        events: events.map(Vec::len).sum(),
        base_ms: POINTS.map(|point| at(&base, point)),
        p50,
        p95,
        p99,
        max,
        paired,
        missed_points: (model == Model::Frames).then_some(missed),
    }
}

/// All times of one model, sorted.
fn pooled<'a>(segments: impl Iterator<Item = &'a Segment>, model: Model) -> Vec<f64> {
    let mut all: Vec<f64> = segments
        .filter_map(|segment| segment.late_ms.get(&model))
        .flatten()
        .copied()
        .collect();
    all.sort_unstable_by(f64::total_cmp);
    all
}

/// The percentile of sorted values, by the next lower rank.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index below the length"
)]
fn at(sorted: &[f64], point: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let rank = ((last as f64) * point).round() as usize;
    sorted.get(rank.min(last)).copied().unwrap_or(f64::NAN)
}

fn missed_share(sorted_ms: &[f64]) -> f64 {
    let limit_ms = count(FRAME_US) / 1000.0;
    let in_time = sorted_ms.partition_point(|late| *late <= limit_ms);
    1.0 - count(in_time as u64) / count(sorted_ms.len().max(1) as u64)
}

/// The median ratio of an event to the same event without tasks, both bases averaged.
fn event_ratio(pairs: &[&Pair<'_>], model: Model) -> f64 {
    let mut ratios = Vec::new();
    for pair in pairs {
        let Some(with) = pair.with.late_ms.get(&model) else {
            continue;
        };
        let bases: Vec<&Vec<f64>> = pair
            .base
            .iter()
            .filter_map(|base| base.late_ms.get(&model))
            .collect();
        for (event, late) in with.iter().enumerate() {
            let same: Vec<f64> = bases.iter().filter_map(|b| b.get(event)).copied().collect();
            if !same.is_empty() {
                let mean = same.iter().sum::<f64>() / count(same.len() as u64);
                ratios.push(late / mean);
            }
        }
    }
    ratios.sort_unstable_by(f64::total_cmp);
    at(&ratios, 0.5)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::spare::Spare;
    use super::*;

    /// A segment of three seconds with these times of frames.
    pub(in super::super) fn segment(round: u32, beside: Beside, late_ms: Vec<f64>) -> Segment {
        let tasks_s = if matches!(beside, Beside::Tasks(..)) {
            5.0
        } else {
            0.0
        };
        Segment {
            round,
            mix: Mix::Desk,
            beside,
            ran: true,
            quiet: true,
            window_s: 3.0,
            owner_s: 0.5,
            tasks_s,
            idle_s: 5.2 - tasks_s,
            others_cpus: 0.0,
            steal: 0.0,
            progress: 1000,
            run_delay_s: 0.01,
            major_faults: 0,
            waits: None,
            spare: None,
            held_back_s: None,
            late_ms: BTreeMap::from([(Model::Frames, late_ms.clone()), (Model::Keys, late_ms)]),
        }
    }

    /// Times whose percentiles are known: `scale` times 1 to 2 ms.
    fn times(chance: &mut Chance, scale: f64) -> Vec<f64> {
        let one = |chance: &mut Chance| scale * (1.0 + count(chance.between(0, 1000)) / 1000.0);
        (0..180).map(|_| one(chance)).collect()
    }

    const OURS: Beside = Beside::Tasks(Kind::Cpu, Rule::Gleaner);

    fn rounds(scale: f64) -> Vec<Segment> {
        let mut chance = Chance::new(3);
        (0..8)
            .flat_map(|round| {
                [
                    segment(round, Beside::None, times(&mut chance, 1.0)),
                    segment(round, Beside::NoneAgain, times(&mut chance, 1.0)),
                    segment(round, OURS, times(&mut chance, scale)),
                ]
            })
            .collect()
    }

    #[test]
    fn a_known_slowdown_is_found_inside_its_interval() {
        let cells = cells(&rounds(1.5));
        assert_eq!(cells.len(), 2);
        let [noise, ours] = &cells[..] else { panic!() };
        assert_eq!((noise.kind, ours.kind), (None, Some(Kind::Cpu)));
        let frames = &ours.answers[0];
        for (estimate, name) in [
            (frames.p50, "p50"),
            (frames.p95, "p95"),
            (frames.p99, "p99"),
        ] {
            let Interval { low, high } = estimate.interval;
            assert!(
                low <= 1.5 + 0.02 && high >= 1.5 - 0.02,
                "{name} {estimate:?}"
            );
            assert!(low > 1.3 && high < 1.7, "{name} {estimate:?}");
        }
        let equal = noise.answers[0].p50.interval;
        assert!(equal.low <= 1.02 && equal.high >= 0.98, "{equal:?}");
        assert!((ours.harvested.unwrap().figure - 5.0 / 5.2).abs() < 1e-9);
        assert!(noise.harvested.is_none());
    }

    #[test]
    fn what_was_not_harvested_is_told_apart() {
        let mut segments = rounds(1.0);
        for one in segments.iter_mut().filter(|one| one.beside == OURS) {
            one.spare = Some(Spare {
                queued_s: 0.13,
                asleep_s: 0.026,
            });
        }
        let left = cells(&segments)[1].left.unwrap();
        assert!((left.queued.unwrap() - 0.025).abs() < 1e-9, "{left:?}");
        assert!((left.asleep.unwrap() - 0.005).abs() < 1e-9, "{left:?}");
        assert_eq!(left.held_back, None, "nobody told");
    }

    #[test]
    fn intervals_are_over_segments_not_events() {
        // Half of the segments are slow as a whole: 180 events each are no evidence of more.
        let mut segments = rounds(1.0);
        for one in segments
            .iter_mut()
            .filter(|s| s.beside == OURS && s.round % 2 == 0)
        {
            one.late_ms
                .values_mut()
                .flatten()
                .for_each(|late| *late *= 3.0);
        }
        let cells = cells(&segments);
        let Interval { low, high } = cells[1].answers[0].p50.interval;
        assert!(low < 1.2 && high > 2.5, "{low} {high}");
    }

    #[test]
    fn events_are_paired_with_themselves() {
        let same = vec![1.0, 10.0, 100.0];
        let doubled: Vec<f64> = same.iter().map(|late| late * 2.0).collect();
        let segments = [
            segment(0, Beside::None, same.clone()),
            segment(0, OURS, doubled.clone()),
            segment(1, Beside::None, same),
            segment(1, OURS, doubled),
        ];
        let cells = cells(&segments);
        let paired = cells[0].answers[0].paired;
        assert!((paired.figure - 2.0).abs() < 1e-12);
        assert!((paired.interval.high - paired.interval.low).abs() < 1e-12);
    }

    #[test]
    fn disturbed_segments_are_left_out_while_enough_are_left() {
        let mut segments = rounds(1.0);
        for one in &mut segments {
            one.quiet = one.round < 3;
            if !one.quiet {
                one.late_ms
                    .values_mut()
                    .flatten()
                    .for_each(|late| *late *= 9.0);
            }
        }
        let kept = &cells(&segments)[1];
        assert_eq!((kept.pairs, kept.disturbed), (3, false));
        for one in &mut segments {
            one.quiet = one.round < 1;
        }
        let all = &cells(&segments)[1];
        assert_eq!((all.pairs, all.disturbed), (8, true));
    }

    #[test]
    fn missed_frames_are_counted_in_points() {
        let mut late = vec![5.0; 99];
        late.push(20.0);
        let segments: Vec<Segment> = (0..2)
            .flat_map(|round| {
                [
                    segment(round, Beside::None, vec![5.0; 100]),
                    segment(round, OURS, late.clone()),
                ]
            })
            .collect();
        let cells = cells(&segments);
        let missed = cells[0].answers[0].missed_points.unwrap();
        assert!((missed.figure - 1.0).abs() < 1e-9);
        assert!(cells[0].answers[1].missed_points.is_none());
    }

    #[test]
    fn useful_work_is_measured_by_the_usual_time_alone() {
        let mut segments = rounds(1.0);
        for round in 0..3 {
            let mut away = segment(round, OURS, Vec::new());
            away.mix = Mix::Away;
            // The usual: what fills 5.2 CPU seconds with 1250 units.
            let rate = [100.0, 1250.0 / 5.2, 900.0][round as usize];
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small positive number"
            )]
            let progress = (rate * cpus_f() * away.window_s).round() as u64;
            away.progress = progress;
            segments.push(away);
        }
        let useful = cells(&segments)[1].useful.unwrap();
        assert!((useful.figure - 0.8).abs() < 0.01, "{useful:?}");
    }
}
