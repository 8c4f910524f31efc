//! Leases: which attempts are on which node, and how an attempt leaves.
//!
//! Everything that takes an attempt off a node goes through [`State::leave`], so that its row,
//! its lease's end, the node's slots and the user's processors never disagree.

use crate::Action;
use crate::attempt::{Lease, Open, Run};
use crate::needs::Room;
use crate::row::{AttemptRow, LeaseRow, Row};
use crate::state::State;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use gleaner_model::{
    AttemptId, AttemptState, IntervalSet, JobId, LeaseId, NodeId, Reason, TaskId, TaskState,
};

/// How an attempt leaves its node without a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The node never received it, or only had it in its queue: nobody is to blame.
    TakenBack,
    /// The node was silent for too long.
    Lost,
    /// The task is over by other means; the node must stop.
    Revoked,
}

impl State {
    /// Whether this attempt is leased to this node.
    pub(crate) fn runs(&self, attempt: AttemptId, node: NodeId) -> bool {
        self.run_of(attempt.task)
            .is_some_and(|(run, on)| run.number == attempt.number && on == node)
    }

    /// The attempt of a task that is on a node, and the node.
    pub(crate) fn run_of(&self, task: TaskId) -> Option<(Run, NodeId)> {
        let run = self.jobs.get(&task.job)?.running.get(&task.index)?;
        let lease = self.leases.get(&run.lease)?;
        Some((*run, lease.node))
    }

    /// Whether this attempt was granted to this node once, its end is not known, and its task is
    /// ready: then it can go on as if nothing had happened.
    pub(crate) fn could_return(&self, attempt: AttemptId, node: NodeId) -> bool {
        self.is_open(attempt, node)
            && self.jobs.get(&attempt.task.job).is_some_and(|job| {
                !job.running.contains_key(&attempt.task.index)
                    && !job.task_state(attempt.task.index).is_over()
            })
    }

    /// Whether this attempt was granted to this node once and its end is not known.
    pub(crate) fn is_open(&self, attempt: AttemptId, node: NodeId) -> bool {
        self.jobs
            .get(&attempt.task.job)
            .and_then(|job| job.trouble.get(&attempt.task.index))
            .is_some_and(|trouble| {
                let open = |open: &&Open| open.number == attempt.number && open.node == node;
                trouble.open.iter().any(|o| open(&o))
            })
    }

    /// The attempts leased to a node.
    pub(crate) fn leased_to(&self, node: NodeId) -> Vec<AttemptId> {
        let Some(node) = self.nodes.get(&node) else {
            return Vec::new();
        };
        let mut attempts = Vec::new();
        for lease in node.leases.iter().filter_map(|id| self.leases.get(id)) {
            let Some(job) = self.jobs.get(&lease.job) else {
                continue;
            };
            for index in lease.tasks.iter() {
                if let Some(run) = job.running.get(&index) {
                    attempts.push(TaskId::new(lease.job, index).attempt(run.number));
                }
            }
        }
        attempts
    }

    /// Takes an attempt off its node: lease, slots and processors. The task is in no set then.
    pub(crate) fn release(&mut self, task: TaskId) -> Option<Run> {
        let job = self.jobs.get_mut(&task.job)?;
        let run = job.running.remove(&task.index)?;
        let (user, need) = (job.spec.user, job.need);
        let lease = self.leases.get_mut(&run.lease)?;
        let id = lease.node;
        lease.tasks.remove(task.index);
        let over = lease.tasks.is_empty();
        if over {
            self.leases.remove(&run.lease);
            self.over.push(run.lease);
        }
        let room = self.needs.get(need).map(|e| e.room).unwrap_or_default();
        let node = self.nodes.get_mut(&id)?;
        if over {
            node.leases.remove(&run.lease);
        }
        let seat = node.seats.get_mut(&task.job)?;
        seat.tasks -= 1;
        if seat.width > seat.tasks {
            seat.width = seat.tasks;
            if seat.tasks == 0 {
                node.seats.remove(&task.job);
            }
            node.used = node.used.less(room);
            self.hold(user, 0, room.cpus);
            self.freed(id);
        }
        Some(run)
    }

    /// A node has more room than before, or fits more than before.
    pub(crate) fn freed(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.seen = 0;
            if node.takes && node.room().cpus > 0 {
                self.idle.insert(id);
            }
            self.fill.insert(id);
        }
    }

    /// Takes an attempt off its node without a report, writes its row, and puts its task where
    /// it belongs (a revoked one into no set: its caller knows).
    pub(crate) fn leave(&mut self, attempt: AttemptId, node: NodeId, way: Way) {
        let Some(run) = self.release(attempt.task) else {
            return;
        };
        let ran = matches!(run.state, AttemptState::Running | AttemptState::Paused);
        let lost = way == Way::Lost;
        let mut poison = None;
        if let Some(job) = self.jobs.get_mut(&attempt.task.job) {
            let since = job.since(attempt.task.index);
            let trouble = job.trouble.entry(attempt.task.index).or_default();
            trouble.last = trouble.last.max(attempt.number);
            trouble.open.push(Open {
                number: attempt.number,
                node,
                ran: lost && ran,
            });
            poison = trouble.poison(since).filter(|_| lost && ran);
            if lost {
                trouble.reason = Some(lost_reason(node, poison.clone()));
            }
        }
        let poisoned = poison.is_some();
        self.rows.push(Row::Attempt(AttemptRow {
            attempt,
            node,
            state: if lost {
                AttemptState::Lost
            } else {
                AttemptState::Cancelled
            },
            at: self.now,
            counts: lost && ran,
            no_program: false,
            task_over: poisoned.then_some(TaskState::Failed),
            record: Vec::new(),
        }));
        if poisoned {
            self.fail_task(attempt.task);
        } else if way != Way::Revoked {
            self.put_back(attempt.task);
        }
    }

    /// Makes a task ready again.
    pub(crate) fn put_back(&mut self, task: TaskId) {
        let Some(job) = self.jobs.get_mut(&task.job) else {
            return;
        };
        job.put_back(task.index);
        if !job.again.is_empty() {
            self.troubled.entry(task.job).or_default();
        }
        self.reindex(task.job);
        self.wake.insert(task.job);
    }

    /// No attempt is left for a task.
    pub(crate) fn fail_task(&mut self, task: TaskId) {
        if let Some(job) = self.jobs.get_mut(&task.job) {
            job.failed.insert(task.index);
        }
        self.let_go(task);
    }

    /// Gives attempts that came back with their node a lease again, under their own numbers.
    pub(crate) fn adopt(&mut self, id: NodeId, job: JobId, tasks: &[(u32, u32, AttemptState)]) {
        let lease = self.next_lease();
        let mut entry = Lease {
            node: id,
            job,
            tasks: IntervalSet::new(),
        };
        let mut numbers = BTreeMap::new();
        let mut active = 0;
        for (index, number, state) in tasks {
            let Some(owner) = self.jobs.get_mut(&job) else {
                return;
            };
            if !owner.pull(*index) {
                continue;
            }
            if let Some(trouble) = owner.trouble.get_mut(index) {
                trouble.open.retain(|open| open.number != *number);
            }
            let (number, state) = (*number, *state);
            owner.running.insert(
                *index,
                Run {
                    number,
                    lease,
                    state,
                },
            );
            entry.tasks.insert(*index);
            if number != 1 {
                numbers.insert(*index, number);
            }
            active += u32::from(state != AttemptState::Leased);
            self.rows.push(Row::Attempt(AttemptRow {
                attempt: TaskId::new(job, *index).attempt(number),
                node: id,
                state: AttemptState::Leased,
                at: self.now,
                counts: false,
                no_program: false,
                task_over: None,
                record: Vec::new(),
            }));
        }
        if self.jobs.get(&job).is_some_and(|job| job.again.is_empty()) {
            self.troubled.remove(&job);
        }
        self.reindex(job);
        if !entry.tasks.is_empty() {
            let count = u32::try_from(entry.tasks.len()).unwrap_or(u32::MAX);
            let width = self.sit(id, job, count, active);
            self.rows.push(Row::Lease(LeaseRow {
                lease,
                node: id,
                job,
                tasks: entry.tasks.clone(),
                numbers,
                width,
            }));
            self.leases.insert(lease, entry);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.leases.insert(lease);
            }
            self.mark(job);
        }
    }

    /// Adds tasks and slots to a job's seat on a node; gives the seat's width.
    pub(crate) fn sit(&mut self, id: NodeId, job: JobId, tasks: u32, slots: u32) -> u32 {
        let Some((user, need)) = self.jobs.get(&job).map(|job| (job.spec.user, job.need)) else {
            return 0;
        };
        let room = self.needs.get(need).map(|e| e.room).unwrap_or_default();
        let Some(node) = self.nodes.get_mut(&id) else {
            return 0;
        };
        let seat = node.seats.entry(job).or_default();
        seat.tasks += tasks;
        let width = (seat.width + slots).clamp(1, seat.tasks);
        let more: Room = room.times(u64::from(width - seat.width));
        seat.width = width;
        node.used = node.used.plus(more);
        if node.room().cpus == 0 {
            self.idle.remove(&id);
        }
        self.hold(user, more.cpus, 0);
        width
    }

    /// Tells nodes to stop attempts whose tasks are over.
    pub(crate) fn revoke(&mut self, by_node: BTreeMap<NodeId, Vec<AttemptId>>) {
        for (node, attempts) in by_node {
            self.out.push(Action::Revoke { node, attempts });
        }
    }

    pub(crate) fn next_lease(&mut self) -> LeaseId {
        self.last_lease += 1;
        LeaseId(self.last_lease)
    }
}

fn lost_reason(node: NodeId, poison: Option<String>) -> Reason {
    let silent = || format!("node {node} was not heard of for a lease's length");
    Reason::Lost {
        detail: poison.unwrap_or_else(silent),
    }
}
