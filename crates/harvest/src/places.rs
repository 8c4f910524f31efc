//! Which processor each attempt has while attempts fill the PC.
//!
//! The kernel evens out what runs at idle priority lazily: for milliseconds two tasks wait on a
//! processor that their owner uses while another has nothing to do, and when the owner's program
//! wakes up it meets a task that has just been moved. Where there is as much to do as there are
//! processors, each attempt can have one of its own, and neither happens.
//!
//! What attempts ask for says whether they fill the PC; that they do is seen from how idle it is
//! then. One that mostly waits leaves its processor to nobody, so all are let go again for a while.
//! In: what the agent sees at each look. Out: who shall move where. This must not know how an
//! attempt is held to a processor.

use crate::thresholds::{
    PLACE_AFTER, PLACE_IDLE_MAX, PLACE_JUDGE, PLACE_KEEP, PLACE_LOOSE, PLACE_TAKEN,
};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use gleaner_model::{AttemptId, Cpus, Load, Time};

/// One attempt as the agent sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Processors that it asked for.
    pub cpus: Cpus,
    /// Whether it runs; one that is paused does not, and keeps its place.
    pub runs: bool,
    /// Since when it is there.
    pub since: Time,
}

/// What the agent sees at one look.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// When.
    pub now: Time,
    /// The PC's processors that tasks can run on, by number.
    pub processors: &'a [u32],
    /// Whether all of them are this agent's to use now. Where a part is another agent's or kept
    /// free for the owner, nobody here knows which.
    pub whole: bool,
    /// Who used them, where that is known.
    pub load: Option<Load>,
    /// All attempts that an engine holds.
    pub attempts: &'a BTreeMap<AttemptId, Standing>,
}

/// Someone is to move: to one processor, or back to all.
pub type Move = (AttemptId, Option<u32>);

/// Who is where, and what came of it.
#[derive(Debug, Default)]
pub struct Places {
    has: BTreeMap<AttemptId, u32>,
    /// Since when attempts do not fill the PC.
    unfilled: Option<Time>,
    /// Nothing is placed until then.
    loose_until: Option<Time>,
    window: Option<Window>,
}

/// Sums of shares times milliseconds.
#[derive(Debug, Clone, Copy)]
struct Window {
    since: Time,
    at: Time,
    idle: u64,
    taken: u64,
}

impl Places {
    /// Takes a look into account; says who is to move.
    pub fn look(&mut self, look: &Look<'_>) -> Vec<Move> {
        self.has
            .retain(|attempt, _| look.attempts.contains_key(attempt));
        let running: BTreeMap<AttemptId, Cpus> = look
            .attempts
            .iter()
            .filter(|(_, standing)| standing.runs)
            .map(|(attempt, standing)| (*attempt, standing.cpus))
            .collect();
        if running.is_empty() {
            (self.unfilled, self.window) = (None, None);
            return Vec::new();
        }
        let loose = self.loose_until.is_some_and(|until| look.now < until);
        let wanted = match look.whole && !loose {
            true => spread(look.processors, &running, &self.has),
            false => BTreeMap::new(),
        };
        if wanted.is_empty() {
            return self.let_go(look.now, &running);
        }
        self.unfilled = None;
        let wanted = match self.judge(look) {
            true => turned(look.processors, &wanted),
            false => wanted,
        };
        let ripe = |attempt: &AttemptId| {
            let since = look.attempts.get(attempt).map(|standing| standing.since);
            since.is_some_and(|since| look.now.since(since) >= PLACE_AFTER)
        };
        let moved = wanted
            .into_iter()
            .filter(|(attempt, cpu)| self.has.get(attempt) != Some(cpu) && ripe(attempt));
        let moved: Vec<(AttemptId, u32)> = moved.collect();
        self.has.extend(moved.iter().copied());
        moved
            .into_iter()
            .map(|(attempt, cpu)| (attempt, Some(cpu)))
            .collect()
    }

    /// Gives those that run all processors back, unless they may soon fill the PC again.
    fn let_go(&mut self, now: Time, running: &BTreeMap<AttemptId, Cpus>) -> Vec<Move> {
        self.window = None;
        let since = *self.unfilled.get_or_insert(now);
        if now.since(since) < PLACE_KEEP {
            return Vec::new();
        }
        let freed: Vec<Move> = running
            .keys()
            .filter(|attempt| self.has.contains_key(attempt))
            .map(|attempt| (*attempt, None))
            .collect();
        for (attempt, _) in &freed {
            self.has.remove(attempt);
        }
        freed
    }

    /// Whether attempts shall change places, by what was seen for a while.
    fn judge(&mut self, look: &Look<'_>) -> bool {
        let Some(load) = look.load else {
            self.window = None;
            return false;
        };
        let now = look.now;
        let window = self.window.get_or_insert(Window {
            since: now,
            at: now,
            idle: 0,
            taken: 0,
        });
        let passed = now.since(window.at).ms;
        let used = load
            .owner
            .saturating_add(load.tasks)
            .saturating_add(load.stolen);
        window.idle += passed * u64::from(1000_u16.saturating_sub(used));
        window.taken += passed * u64::from(load.busiest);
        window.at = now;
        let (whole, seen) = (now.since(window.since).ms, *window);
        if whole < PLACE_JUDGE.ms {
            return false;
        }
        self.window = None;
        if seen.idle > whole * u64::from(PLACE_IDLE_MAX) {
            self.loose_until = Some(now + PLACE_LOOSE);
            return false;
        }
        seen.taken >= whole * u64::from(PLACE_TAKEN)
    }
}

/// Everyone one processor further.
fn turned(processors: &[u32], places: &BTreeMap<AttemptId, u32>) -> BTreeMap<AttemptId, u32> {
    let next = |cpu: u32| {
        let mut after = processors.iter().skip_while(|other| **other != cpu).skip(1);
        let after = after.next().or_else(|| processors.first());
        after.copied().unwrap_or(cpu)
    };
    let turned = places.iter().map(|(attempt, cpu)| (*attempt, next(*cpu)));
    turned.collect()
}

/// Gives each of these attempts a processor, so that every processor has enough to do and as
/// equal a share of what is asked for as whole attempts allow. Who has one (`before`) keeps it
/// unless that is in the way. Empty where they do not fill all processors, where one of them asks
/// for more than one processor, and where there is nothing to choose from.
#[must_use]
pub fn spread(
    processors: &[u32],
    asked: &BTreeMap<AttemptId, Cpus>,
    before: &BTreeMap<AttemptId, u32>,
) -> BTreeMap<AttemptId, u32> {
    let too_wide = asked.values().any(|cpus| cpus.milli > Cpus::ONE.milli);
    if processors.len() < 2 || asked.len() < processors.len() || too_wide {
        return BTreeMap::new();
    }
    // Who stays may be in the way of a share for everyone that can be had from the beginning.
    fill(processors, asked, before)
        .or_else(|| fill(processors, asked, &BTreeMap::new()))
        .unwrap_or_default()
}

/// As [`spread`]; none where a processor is left with too little.
fn fill(
    processors: &[u32],
    asked: &BTreeMap<AttemptId, Cpus>,
    before: &BTreeMap<AttemptId, u32>,
) -> Option<BTreeMap<AttemptId, u32>> {
    let mut load: BTreeMap<u32, u32> = processors.iter().map(|cpu| (*cpu, 0)).collect();
    let mut places = BTreeMap::new();
    let mut rest = Vec::new();
    for (attempt, cpus) in asked {
        let kept = before.get(attempt).filter(|cpu| load.contains_key(cpu));
        match kept {
            Some(cpu) => put(&mut places, &mut load, (*attempt, *cpu), cpus.milli),
            None => rest.push((Reverse(cpus.milli), *attempt)),
        }
    }
    // The largest first: small ones even out what they leave.
    rest.sort_unstable();
    for (Reverse(milli), attempt) in rest {
        if let Some((cpu, _)) = least(&load) {
            put(&mut places, &mut load, (attempt, cpu), milli);
        }
    }
    while let Some((attempt, from, to)) = better(&places, asked, &load) {
        let milli = asked.get(&attempt).map_or(0, |cpus| cpus.milli);
        if let Some(load) = load.get_mut(&from) {
            *load = load.saturating_sub(milli);
        }
        put(&mut places, &mut load, (attempt, to), milli);
    }
    let all = load.values().all(|load| *load >= Cpus::ONE.milli);
    all.then_some(places)
}

fn put(
    places: &mut BTreeMap<AttemptId, u32>,
    load: &mut BTreeMap<u32, u32>,
    (attempt, cpu): (AttemptId, u32),
    milli: u32,
) {
    places.insert(attempt, cpu);
    let load = load.entry(cpu).or_default();
    *load = load.saturating_add(milli);
}

fn least(load: &BTreeMap<u32, u32>) -> Option<(u32, u32)> {
    let least = load.iter().min_by_key(|(_, load)| **load);
    least.map(|(cpu, load)| (*cpu, *load))
}

/// A move that brings the fullest and the emptiest processor nearer to each other. Each such move
/// lowers the sum of the squares of the loads, so that there is a last one.
fn better(
    places: &BTreeMap<AttemptId, u32>,
    asked: &BTreeMap<AttemptId, Cpus>,
    load: &BTreeMap<u32, u32>,
) -> Option<(AttemptId, u32, u32)> {
    let (from, most) = load.iter().max_by_key(|(_, load)| **load)?;
    let (to, least) = least(load)?;
    let gap = most - least;
    let milli = |attempt: &AttemptId| asked.get(attempt).map_or(0, |cpus| cpus.milli);
    let (attempt, _) = places
        .iter()
        .filter(|(attempt, cpu)| *cpu == from && (1..gap).contains(&milli(attempt)))
        .max_by_key(|(attempt, _)| milli(attempt))?;
    Some((*attempt, *from, to))
}
