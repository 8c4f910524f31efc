//! Which job a node gets next.
//!
//! Jobs that ask the same of a node share one [`NeedId`]; which nodes would do is worked out once
//! for each need and once for each hello, never for each task. A choice then walks users in the
//! order of their turns, and for each the needs that wait; it stops at the first that fits.

use crate::attempt::Shy;
use crate::job::Job;
use crate::needs::{NeedEntry, NeedId, Room};
use crate::node::Node;
use crate::state::{SHUN_MAX, State};
use crate::suit::{cpus_for, has_engine};
use crate::{Need, NodeHello};
use alloc::collections::BTreeSet;
use core::cmp::Reverse;
use gleaner_model::{JobId, NodeId, UserId};

/// Whether an empty node would do.
pub(crate) fn would_do(need: &Need, hello: &NodeHello) -> bool {
    has_engine(need, hello)
        && saves_for(need, hello)
        && (hello.images || !need.image)
        && need.arch.as_ref().is_none_or(|arch| *arch == hello.arch)
        && labels_fit(need, hello)
        && cpus_for(need, hello) >= need.cpus
        && hello.memory >= need.memory
        && hello.disk >= need.disk
}

/// Whether a task that is to be saved while it runs can be. Files that a program saves itself by
/// are copied by engines without a word here.
pub(crate) const fn saves_for(need: &Need, hello: &NodeHello) -> bool {
    !need.saves || hello.machine.is_some()
}

/// Whether a node carries all the labels asked for.
pub(crate) fn labels_fit(need: &Need, hello: &NodeHello) -> bool {
    need.labels
        .iter()
        .all(|(name, value)| hello.labels.get(name) == Some(value))
}

impl State {
    /// Counts a job in under its need.
    pub(crate) fn intern(&mut self, need: &Need) -> NeedId {
        if let Some(id) = self.needs.ids.get(need) {
            if let Some(entry) = self.needs.entries.get_mut(id) {
                entry.jobs += 1;
            }
            return *id;
        }
        let fits = |node: &&Node| {
            node.hello
                .as_ref()
                .is_some_and(|hello| would_do(need, hello))
        };
        let mut entry = NeedEntry {
            need: need.clone(),
            room: Room::of(need),
            jobs: 1,
            matching: BTreeSet::new(),
            taking: 0,
        };
        for node in self.nodes.values().filter(fits) {
            entry.matching.insert(node.id);
            entry.taking += u32::from(node.takes);
        }
        // 2^32 different needs at 1,000 a second take 49 days; the free number is looked for.
        while self.needs.entries.contains_key(&NeedId(self.needs.next)) {
            self.needs.next = self.needs.next.wrapping_add(1);
        }
        let id = NeedId(self.needs.next);
        self.needs.next = self.needs.next.wrapping_add(1);
        self.needs.ids.insert(need.clone(), id);
        self.needs.entries.insert(id, entry);
        id
    }

    /// Lets tasks that have waited long enough for another node go wherever there is room.
    pub(crate) fn end_shunning(&mut self) {
        for (job, since) in &mut self.troubled {
            let since = *since.get_or_insert(self.now);
            if self.now.since(since) >= SHUN_MAX {
                self.wake.insert(*job);
            }
        }
    }

    /// Whether no node that a ready task would go to takes one of this job, in time.
    pub(crate) fn alone(&self, job: &Job, shy: &Shy) -> bool {
        let since = self.troubled.get(&job.id).copied().flatten();
        if since.is_some_and(|since| self.now.since(since) >= SHUN_MAX) {
            return true;
        }
        let Some(entry) = self.needs.get(job.need) else {
            return false;
        };
        if shy.machine.is_some() {
            // Guests that were saved whole are few; so are, among all needs, nodes for them.
            let mut nodes = entry.matching.iter().filter_map(|id| self.nodes.get(id));
            return !nodes.any(|node| {
                node.takes && !job.excluded.contains(&node.id) && shy.likes(node.place())
            });
        }
        let counts = |node: &&NodeId| {
            entry.matching.contains(node) && self.nodes.get(node).is_some_and(|node| node.takes)
        };
        let shunned = shy.avoid.iter().filter(counts).count();
        let excluded = job
            .excluded
            .iter()
            .filter(|node| shy.avoid.binary_search(node).is_err())
            .filter(counts)
            .count();
        shunned + excluded >= usize::try_from(entry.taking).unwrap_or(usize::MAX)
    }

    /// The job that should get the next free slot of a node.
    pub(crate) fn choose(&self, node: &Node) -> Option<JobId> {
        let room = node.room();
        self.queue
            .iter()
            .find_map(|turn| self.best_job(turn.user, node, room))
    }

    /// Whether this job would be chosen again for a slot that it holds on this node: no other
    /// user's turn comes first, and no better job of the same user fits.
    pub(crate) fn prefer(&self, node: &Node, job: &Job) -> bool {
        let (Some(user), Some(entry)) = (self.users.get(&job.spec.user), self.needs.get(job.need))
        else {
            return false;
        };
        let room = node.room().plus(entry.room);
        let mine = user.turn_without(entry.room.cpus);
        let beaten = self
            .queue
            .iter()
            .take_while(|turn| **turn < mine)
            .filter(|turn| turn.user != mine.user)
            .any(|turn| self.best_job(turn.user, node, room).is_some());
        !beaten && self.best_job(mine.user, node, room) == Some(job.id)
    }

    /// A user's best job that would do on a node with this much room.
    fn best_job(&self, user: UserId, node: &Node, room: Room) -> Option<JobId> {
        let mut best: Option<(Reverse<i32>, JobId)> = None;
        for (need, jobs) in &self.users.get(&user)?.waiting {
            let Some(entry) = self.needs.get(*need) else {
                continue;
            };
            if !room.holds(entry.room) || !entry.matching.contains(&node.id) {
                continue;
            }
            for place in jobs {
                if best.is_some_and(|best| best <= *place) {
                    break;
                }
                if self
                    .jobs
                    .get(&place.1)
                    .is_some_and(|job| self.suits(job, node))
                {
                    best = Some(*place);
                    break;
                }
            }
        }
        best.map(|(_, job)| job)
    }

    /// Whether a ready task of this job may go to this node, room and need apart.
    pub(crate) fn suits(&self, job: &Job, node: &Node) -> bool {
        !job.excluded.contains(&node.id) && job.has_for(node.place(), &|shy| self.alone(job, shy))
    }
}
