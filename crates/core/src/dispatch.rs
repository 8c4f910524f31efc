//! Granting: who gets how many tasks, and when.
//!
//! Handlers only note which nodes have room and which jobs have new work; the grants are made at
//! the end of a step. A node holds slots (`width`) and, for short tasks, a queue behind them, so
//! that it never waits for a round trip between two tasks. A queue is filled up again when half
//! of it is used, but only for the job that would be chosen anyway: otherwise its slots drain to
//! others, one by one.

use crate::Action;
use crate::action::Bundle;
use crate::attempt::{Lease, Run, Shy};
use crate::job::Job;
use crate::needs::Room;
use crate::row::{LeaseRow, Row};
use crate::state::{MAX_BUNDLE, State};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;
use gleaner_model::{AttemptState, IntervalSet, JobId, LeaseId, NodeId};

/// Most tasks of one job that a node gets ahead, running ones included: a wide node with short
/// tasks has several bundles.
const MAX_QUEUE: u32 = 1024;

/// What one job gets on one node in one step.
struct Grant {
    job: JobId,
    lease: LeaseId,
    tasks: Vec<(u32, u32)>,
    width: u32,
}

/// What one node gets in one step.
struct Grants {
    node: NodeId,
    list: Vec<Grant>,
}

impl Grants {
    const fn to(node: NodeId) -> Self {
        Self {
            node,
            list: Vec::new(),
        }
    }
}

impl State {
    /// Makes all grants that the step made possible.
    pub(crate) fn dispatch(&mut self) {
        if let Some((node, job)) = self.refill.take() {
            self.refill_seat(node, job);
        }
        while let Some(node) = self.fill.pop_first() {
            self.fill_node(node, u32::MAX);
        }
        while let Some(job) = self.wake.pop_first() {
            self.wake_nodes(job);
        }
    }

    /// Gives a node's free slots to whoever's turn it is, at most `most` of them.
    fn fill_node(&mut self, id: NodeId, most: u32) {
        let mut grants = Grants::to(id);
        let mut left = most;
        while left > 0 {
            let Some(node) = self.nodes.get(&id) else {
                break;
            };
            if !node.takes || node.seen == self.work || node.room().cpus == 0 {
                break;
            }
            let Some(job) = self.choose(node) else {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.seen = self.work;
                }
                break;
            };
            // With one user waiting nobody is wronged by taking all at once; otherwise slot by
            // slot, each to whoever's turn it is then.
            let most = if self.queue.len() == 1 { left } else { 1 };
            let slots = self.take(job, most, &mut grants);
            if slots == 0 {
                break;
            }
            left -= slots;
        }
        self.send(grants);
    }

    /// Takes tasks of a job for up to `most` free slots of a node; says for how many.
    fn take(&mut self, job: JobId, most: u32, grants: &mut Grants) -> u32 {
        let id = grants.node;
        let (Some(node), Some(owner)) = (self.nodes.get(&id), self.jobs.get(&job)) else {
            return 0;
        };
        let Some(entry) = self.needs.get(owner.need) else {
            return 0;
        };
        let seat = node.seats.get(&job).copied().unwrap_or_default();
        let slots = node.room().how_many(entry.room).min(most).min(MAX_BUNDLE);
        let target = (seat.width + slots)
            .saturating_mul(owner.depth())
            .min(MAX_QUEUE);
        let ahead = target
            .saturating_sub(seat.tasks)
            .min(self.portion(job, entry.taking));
        let want = ahead.clamp(slots, MAX_BUNDLE);
        let taken = self.take_tasks(id, job, want);
        let count = u32::try_from(taken.len()).unwrap_or(u32::MAX);
        let slots = slots.min(count);
        self.lease_out(job, &taken, slots, grants);
        slots
    }

    /// The most that one of `nodes` should get ahead: half of an equal part of what is left, as
    /// in guided self-scheduling (Polychronopoulos and Kuck, 1987), so that the end of a job is
    /// spread over all nodes.
    fn portion(&self, job: JobId, nodes: u32) -> u32 {
        let left = self.jobs.get(&job).map_or(0, |job| job.ready.len());
        let part = left / (2 * u64::from(nodes.max(1)));
        u32::try_from(part).unwrap_or(u32::MAX).max(1)
    }

    fn take_tasks(&mut self, id: NodeId, job: JobId, want: u32) -> Vec<u32> {
        // Taken out while it is asked about its shunned nodes, then put back.
        let Some(owner) = self.jobs.get(&job) else {
            return Vec::new();
        };
        let only: Vec<Shy> = owner
            .again
            .keys()
            .filter(|shy| self.alone(owner, shy))
            .cloned()
            .collect();
        let (Some(owner), Some(node)) = (self.jobs.get_mut(&job), self.nodes.get(&id)) else {
            return Vec::new();
        };
        let taken = owner.take_for(node.place(), want, &|shy| only.contains(shy));
        if owner.again.is_empty() {
            self.troubled.remove(&job);
        }
        taken
    }

    /// Leases taken tasks to a node; a full bundle is followed by another.
    fn lease_out(&mut self, job: JobId, taken: &[u32], slots: u32, grants: &mut Grants) {
        let (id, grants) = (grants.node, &mut grants.list);
        if taken.is_empty() {
            self.reindex(job);
            return;
        }
        let limit = usize::try_from(MAX_BUNDLE).unwrap_or(usize::MAX);
        let now = self.now;
        for index in taken {
            let at = grants
                .iter()
                .position(|g| g.job == job && g.tasks.len() < limit);
            let at = at.unwrap_or_else(|| {
                grants.push(Grant {
                    job,
                    lease: self.next_lease(),
                    tasks: Vec::new(),
                    width: 0,
                });
                grants.len() - 1
            });
            let (Some(grant), Some(owner)) = (grants.get_mut(at), self.jobs.get_mut(&job)) else {
                return;
            };
            let number = owner.next_number(*index);
            owner.highest = owner.highest.max(number);
            let run = Run {
                number,
                lease: grant.lease,
                state: AttemptState::Leased,
            };
            owner.running.insert(*index, run);
            grant.tasks.push((*index, number));
        }
        if let Some(owner) = self.jobs.get_mut(&job).filter(|job| job.started.is_none()) {
            owner.started = Some(now);
        }
        self.reindex(job);
        let count = u32::try_from(taken.len()).unwrap_or(u32::MAX);
        let width = self.sit(id, job, count, slots);
        for grant in grants.iter_mut().filter(|grant| grant.job == job) {
            grant.width = width;
        }
        self.update(job);
    }

    /// Writes and sends what a node got.
    fn send(&mut self, grants: Grants) {
        let id = grants.node;
        for grant in grants.list {
            let mut tasks = IntervalSet::new();
            let mut numbers = BTreeMap::new();
            for (index, number) in &grant.tasks {
                tasks.insert(*index);
                if *number != 1 {
                    numbers.insert(*index, *number);
                }
            }
            let lease = Lease {
                node: id,
                job: grant.job,
                tasks: tasks.clone(),
            };
            self.leases.insert(grant.lease, lease);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.leases.insert(grant.lease);
            }
            self.rows.push(Row::Lease(LeaseRow {
                lease: grant.lease,
                node: id,
                job: grant.job,
                tasks,
                numbers,
                width: grant.width,
            }));
            let saved = self.saved_of(grant.job, &grant.tasks);
            let engine = self.engine_of(grant.job, id);
            self.out.push(Action::Dispatch(Bundle {
                node: id,
                lease: grant.lease,
                job: grant.job,
                tasks: grant.tasks,
                engine,
                saved,
                width: grant.width,
            }));
        }
    }

    /// Fills up a node's queue of a job's short tasks before it runs dry.
    fn refill_seat(&mut self, id: NodeId, job: JobId) {
        let (Some(node), Some(owner)) = (self.nodes.get(&id), self.jobs.get(&job)) else {
            return;
        };
        let Some(seat) = node.seats.get(&job) else {
            return;
        };
        let depth = owner.depth();
        let target = seat.width.saturating_mul(depth).min(MAX_QUEUE);
        let low = (target / 2).max(seat.width);
        if depth == 1 || seat.tasks > low || !node.takes || !owner.offers() {
            return;
        }
        let Some(entry) = self.needs.get(owner.need) else {
            return;
        };
        let want = target
            .saturating_sub(seat.tasks)
            .min(self.portion(job, entry.taking))
            .min(MAX_BUNDLE);
        if want == 0 || !self.prefer(node, owner) {
            return;
        }
        let taken = self.take_tasks(id, job, want);
        let mut grants = Grants::to(id);
        self.lease_out(job, &taken, 0, &mut grants);
        self.send(grants);
    }

    /// Offers a job's new work to the nodes that have room, spread over as many as there are.
    fn wake_nodes(&mut self, job: JobId) {
        if self.jobs.get(&job).is_some_and(Job::offers) {
            self.work += 1;
        }
        loop {
            let Some(owner) = self.jobs.get(&job).filter(|job| job.offers()) else {
                return;
            };
            let left = owner.available();
            let nodes = self.idle.len() as u64;
            if left == 0 || nodes == 0 {
                return;
            }
            let share = u32::try_from(left.div_ceil(nodes)).unwrap_or(u32::MAX);
            if !self.wake_round(job, share) {
                return;
            }
        }
    }

    /// Offers once to each node with room; says whether any took some.
    fn wake_round(&mut self, job: JobId, share: u32) -> bool {
        let mut after = Bound::Unbounded;
        let mut any = false;
        while let Some(id) = self.next_idle(job, after) {
            after = Bound::Excluded(id);
            let Some(owner) = self.jobs.get(&job).filter(|job| job.offers()) else {
                return any;
            };
            let (Some(entry), Some(node)) = (self.needs.get(owner.need), self.nodes.get(&id))
            else {
                return any;
            };
            let fits = node.room().holds(entry.room) && self.suits(owner, node);
            if fits {
                let before = owner.running.len();
                self.fill_node(id, share);
                let now = self.jobs.get(&job).map_or(0, |job| job.running.len());
                any |= now > before;
            }
        }
        any
    }

    /// The next node with room that would do for a job. The smaller set is walked: a job that few
    /// nodes would do for is not offered to a hundred thousand that idle.
    fn next_idle(&self, job: JobId, after: Bound<NodeId>) -> Option<NodeId> {
        let owner = self.jobs.get(&job)?;
        let (idle, matching) = (&self.idle, &self.needs.get(owner.need)?.matching);
        let above = (after, Bound::Unbounded);
        let next = match matching.len() < idle.len() {
            true => matching.range(above).find(|id| idle.contains(id)),
            false => idle.range(above).find(|id| matching.contains(id)),
        };
        next.copied()
    }

    /// Offers everything to every node with room, if there was new work since the last time: a
    /// net under the offers that steps make.
    pub(crate) fn sweep(&mut self) {
        if self.swept == self.work {
            return;
        }
        self.swept = self.work;
        self.fill.extend(self.idle.iter().copied());
    }

    /// What jobs hold on a node, worked out anew.
    pub(crate) fn room_used(&self, id: NodeId) -> Room {
        let Some(node) = self.nodes.get(&id) else {
            return Room::default();
        };
        node.seats.iter().fold(Room::default(), |sum, (job, seat)| {
            let room = self
                .jobs
                .get(job)
                .and_then(|job| self.needs.get(job.need))
                .map(|entry| entry.room)
                .unwrap_or_default();
            sum.plus(room.times(u64::from(seat.width)))
        })
    }
}
