//! A job and its tasks.
//!
//! Tasks are sets of their job: a million tasks that nothing happened to are one range. Only
//! tasks on a node, and tasks that had trouble, have an entry of their own. This module keeps the
//! sets disjoint; it knows nothing of nodes' room, of shares, or of rows.

use crate::attempt::{Kept, Place, Run, Shy, Trouble};
use crate::cost::JobCost;
use crate::needs::NeedId;
use crate::row::JobRow;
use crate::view::{JobView, TaskCounts};
use crate::{MergeKind, NewJob};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use gleaner_model::{IntervalSet, JobId, JobState, NodeId, TaskState, Time};

/// How much the latest task weighs in a job's pace: the exponentially weighted mean of its last
/// ten tasks or so, quick enough to follow a sweep whose tasks grow.
const PACE_WEIGHT: f64 = 0.2;

/// Seconds of work that one slot gets ahead. Long enough to hide a round trip with a commit many
/// times over, short enough that another user waits no longer than a blink.
const AHEAD_SECONDS: f64 = 1.5;

/// Most tasks a slot gets ahead.
const MAX_DEPTH: u32 = 512;

/// Tasks that failed for good whose trouble stays in memory once a job is over; the store has
/// all.
const KEPT_TROUBLES: usize = 100;

/// A set of tasks that knows its size.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tally {
    set: IntervalSet,
    len: u64,
}

impl Tally {
    pub(crate) fn of(set: IntervalSet) -> Self {
        let len = set.len();
        Self { set, len }
    }

    pub(crate) fn insert(&mut self, index: u32) {
        if self.set.insert(index) {
            self.len += 1;
        }
    }

    pub(crate) fn remove(&mut self, index: u32) -> bool {
        let was = self.set.remove(index);
        self.len -= u64::from(was);
        was
    }

    pub(crate) fn pop(&mut self) -> Option<u32> {
        let first = self.set.pop_first()?;
        self.len -= 1;
        Some(first)
    }

    pub(crate) fn absorb(&mut self, other: &Self) {
        for (start, end) in other.set.ranges() {
            self.set.insert_range(start, end);
        }
        self.len = self.set.len();
    }

    pub(crate) fn contains(&self, index: u32) -> bool {
        self.len > 0 && self.set.contains(index)
    }

    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) const fn set(&self) -> &IntervalSet {
        &self.set
    }
}

/// A job.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    /// As submitted, without its body.
    pub(crate) spec: NewJob,
    /// Its need, while it is not over.
    pub(crate) need: NeedId,
    pub(crate) created: Time,
    pub(crate) started: Option<Time>,
    pub(crate) ended: Option<Time>,
    pub(crate) state: JobState,
    pub(crate) reason: String,
    pub(crate) paused: bool,
    pub(crate) merged: bool,
    /// Whether the server has been asked to merge and has not answered.
    pub(crate) merging: bool,
    /// Whether the merge command still waits for the other tasks.
    pub(crate) held: bool,
    /// See [`JobRow::base`].
    pub(crate) base: u32,
    /// The highest attempt number ever granted.
    pub(crate) highest: u32,
    pub(crate) ready: Tally,
    /// Ready tasks that would rather not go anywhere, by what they are shy of.
    pub(crate) again: BTreeMap<Shy, Tally>,
    pub(crate) done: Tally,
    pub(crate) failed: Tally,
    pub(crate) cancelled: Tally,
    pub(crate) running: BTreeMap<u32, Run>,
    pub(crate) trouble: BTreeMap<u32, Trouble>,
    /// What was saved of tasks that are not over.
    pub(crate) checkpoints: BTreeMap<u32, Kept>,
    /// Nodes that lack the program, until their next hello.
    pub(crate) excluded: BTreeSet<NodeId>,
    /// Mean wall seconds of a task, pauses left out; none before the first.
    pub(crate) pace: Option<f64>,
    /// What was seen of its attempts, where it leaves the engine open.
    pub(crate) cost: JobCost,
    /// Whether it stands in its user's queue.
    pub(crate) queued: bool,
}

impl Job {
    pub(crate) fn new(id: JobId, need: NeedId, created: Time, spec: NewJob) -> Self {
        let held = spec.merge == MergeKind::Command;
        Self {
            id,
            need,
            created,
            started: None,
            ended: None,
            state: JobState::Waiting,
            reason: String::new(),
            paused: false,
            merged: false,
            merging: false,
            held,
            base: 0,
            highest: 0,
            ready: Tally::of(IntervalSet::from_range(0, spec.count)),
            again: BTreeMap::new(),
            done: Tally::default(),
            failed: Tally::default(),
            cancelled: Tally::default(),
            running: BTreeMap::new(),
            trouble: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            excluded: BTreeSet::new(),
            pace: None,
            cost: JobCost::default(),
            queued: false,
            spec,
        }
    }

    /// Tasks, the merge command counted.
    pub(crate) fn total(&self) -> u32 {
        self.spec.count + u32::from(self.spec.merge == MergeKind::Command)
    }

    /// Ready tasks, paused or not.
    pub(crate) fn available(&self) -> u64 {
        self.ready.len() + self.again.values().map(Tally::len).sum::<u64>()
    }

    /// Whether tasks of it may be granted.
    pub(crate) fn offers(&self) -> bool {
        let some = !self.ready.is_empty() || !self.again.is_empty();
        some && !self.paused && !self.state.is_over()
    }

    /// Whether nothing is ready or on a node.
    pub(crate) fn is_quiet(&self) -> bool {
        self.ready.is_empty() && self.again.is_empty() && self.running.is_empty()
    }

    pub(crate) fn task_state(&self, index: u32) -> TaskState {
        if self.done.contains(index) {
            TaskState::Done
        } else if self.failed.contains(index) {
            TaskState::Failed
        } else if self.cancelled.contains(index) {
            TaskState::Cancelled
        } else if self.running.contains_key(&index) {
            TaskState::Running
        } else if self.paused || (self.held && index == self.spec.count) {
            TaskState::Waiting
        } else {
            TaskState::Ready
        }
    }

    pub(crate) fn counts(&self) -> TaskCounts {
        let available = self.available();
        let held = u64::from(self.held);
        TaskCounts {
            waiting: held + if self.paused { available } else { 0 },
            ready: if self.paused { 0 } else { available },
            running: self.running.len() as u64,
            done: self.done.len(),
            failed: self.failed.len(),
            cancelled: self.cancelled.len(),
        }
    }

    /// The number of the next attempt of a task.
    pub(crate) fn next_number(&self, index: u32) -> u32 {
        let last = self.trouble.get(&index).map_or(0, |trouble| trouble.last);
        last.max(self.base) + 1
    }

    /// What a task would rather not have.
    fn shy(&self, index: u32) -> Shy {
        let trouble = self.trouble.get(&index);
        let kept = self.checkpoints.get(&index);
        Shy {
            avoid: trouble
                .map(|trouble| trouble.avoid.clone())
                .unwrap_or_default(),
            machine: kept.and_then(|kept| kept.machine.clone()),
        }
    }

    /// The first of a task's attempts whose loss counts; see [`Trouble::losses`].
    pub(crate) fn since(&self, index: u32) -> u32 {
        self.checkpoints.get(&index).map_or(0, |kept| kept.progress)
    }

    /// Puts a task that is in no set among the ready ones.
    pub(crate) fn put_back(&mut self, index: u32) {
        let shy = self.shy(index);
        if shy.is_nothing() {
            self.ready.insert(index);
        } else {
            self.again.entry(shy).or_default().insert(index);
        }
    }

    /// Takes a task from among the ready ones; says whether it was there.
    pub(crate) fn pull(&mut self, index: u32) -> bool {
        if self.ready.remove(index) {
            return true;
        }
        let shy = self.shy(index);
        let Some(group) = self.again.get_mut(&shy) else {
            return false;
        };
        let was = group.remove(index);
        if group.is_empty() {
            self.again.remove(&shy);
        }
        was
    }

    /// Whether a ready task may go to a place, where `alone` says of what some are shy of that
    /// they will find nothing better.
    pub(crate) fn has_for(&self, place: Place<'_>, alone: &dyn Fn(&Shy) -> bool) -> bool {
        !self.ready.is_empty() || self.again.keys().any(|shy| shy.likes(place) || alone(shy))
    }

    /// Takes up to `most` ready tasks that may go to a place, shy ones first: they have waited
    /// longest and decide whether the job can succeed.
    pub(crate) fn take_for(
        &mut self,
        place: Place<'_>,
        most: u32,
        alone: &dyn Fn(&Shy) -> bool,
    ) -> Vec<u32> {
        let mut taken = Vec::new();
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        while taken.len() < most && !self.again.is_empty() {
            let fit = self
                .again
                .iter_mut()
                .find(|(shy, _)| shy.likes(place) || alone(shy));
            let Some((shy, group)) = fit else { break };
            while taken.len() < most {
                let Some(index) = group.pop() else { break };
                taken.push(index);
            }
            if group.is_empty() {
                let shy = shy.clone();
                self.again.remove(&shy);
            }
        }
        while taken.len() < most {
            let Some(index) = self.ready.pop() else { break };
            taken.push(index);
        }
        taken
    }

    /// Notes how long a task took, in wall seconds without pauses.
    pub(crate) fn note_pace(&mut self, seconds: f64) {
        if !seconds.is_finite() || seconds < 0.0 {
            return;
        }
        self.pace = Some(match self.pace {
            Some(pace) => pace + PACE_WEIGHT * (seconds - pace),
            None => seconds,
        });
    }

    /// How many tasks a slot gets at once: one until a task has been measured, then about
    /// [`AHEAD_SECONDS`] of work.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 1..=512 before"
    )]
    pub(crate) fn depth(&self) -> u32 {
        self.pace.map_or(1, |pace| {
            let tasks = libm::ceil(AHEAD_SECONDS / pace.max(1e-6));
            tasks.clamp(1.0, f64::from(MAX_DEPTH)) as u32
        })
    }

    /// Forgets what no longer matters once the job is over. Numbers go on above `base`.
    pub(crate) fn close(&mut self) {
        self.base = self.base.max(self.highest);
        self.paused = false;
        self.merging = false;
        self.held = false;
        let failed = &self.failed;
        self.trouble.retain(|index, _| failed.contains(*index));
        while self.trouble.len() > KEPT_TROUBLES {
            self.trouble.pop_last();
        }
        for trouble in self.trouble.values_mut() {
            trouble.open = Vec::new();
            trouble.avoid = Vec::new();
        }
    }

    pub(crate) fn row(&self) -> JobRow {
        JobRow {
            job: self.id,
            state: self.state,
            reason: self.reason.clone(),
            paused: self.paused,
            started: self.started,
            ended: self.ended,
            failed: self.failed.set().clone(),
            cancelled: self.cancelled.set().clone(),
            merged: self.merged,
            base: self.base,
            cost: self.cost,
        }
    }

    pub(crate) fn view(&self) -> JobView {
        JobView {
            id: self.id,
            name: self.spec.name.clone(),
            user: self.spec.user,
            priority: self.spec.priority,
            state: self.state,
            reason: if self.merging {
                "the server merges the results".into()
            } else {
                self.reason.clone()
            },
            paused: self.paused,
            created: self.created,
            started: self.started,
            ended: self.ended,
            count: self.spec.count,
            counts: self.counts(),
            need: self.spec.need.clone(),
            merge: self.spec.merge,
            merged: self.merged,
            checkpoints: self
                .checkpoints
                .values()
                .map(|kept| u64::from(kept.count))
                .sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Need;
    use gleaner_model::{Bytes, Cpus, EngineChoice, Retry, UserId};

    fn sweep() -> Job {
        let need = Need {
            cpus: Cpus::ONE,
            memory: Bytes(1),
            disk: Bytes(1),
            engine: EngineChoice::Process,
            image: false,
            arch: None,
            labels: BTreeMap::new(),
            saves: false,
        };
        let spec = NewJob {
            user: UserId(1),
            name: "sweep".into(),
            priority: 0,
            count: 1_000_000,
            need,
            retry: Retry::default(),
            merge: MergeKind::None,
            body: Vec::new(),
        };
        Job::new(JobId(1), NeedId(0), Time::default(), spec)
    }

    #[test]
    fn a_million_queued_tasks_cost_less_than_a_kibibyte() {
        let job = sweep();
        // One leaf of the set of ready tasks (11 pairs of u32) is all it has beside itself.
        let bytes = size_of::<Job>() + 128;
        assert!(bytes < 1024, "{bytes}");
        assert_eq!(
            (job.ready.set().ranges().count(), job.running.len()),
            (1, 0)
        );
        assert_eq!(job.counts().ready, 1_000_000);
    }

    #[test]
    fn depth_follows_the_pace() {
        let table = [
            (None, 1),
            (Some(0.0), 512),
            (Some(0.001), 512),
            (Some(0.1), 15),
            (Some(1.0), 2),
            (Some(1.5), 1),
            (Some(86_400.0), 1),
        ];
        for (pace, depth) in table {
            let mut job = sweep();
            job.note_pace(f64::NAN);
            job.note_pace(-1.0);
            if let Some(pace) = pace {
                job.note_pace(pace);
            }
            assert_eq!(job.depth(), depth, "{pace:?}");
        }
    }
}
