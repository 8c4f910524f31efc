//! The invariants. A broken one is a bug in this crate, never anybody else's fault.

use crate::job::Job;
use crate::node::Node;
use crate::state::State;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use gleaner_model::{IntervalSet, JobId, NodeId, UserId};

macro_rules! ensure {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(format!($($text)+));
        }
    };
}

impl State {
    /// Every invariant; the text says which one does not hold. Looks at everything: for tests
    /// and the simulator.
    ///
    /// # Errors
    /// The first broken invariant: a bug in this crate.
    pub fn check(&self) -> Result<(), String> {
        for job in self.jobs.keys() {
            self.check_job(*job)?;
        }
        for node in self.nodes.keys() {
            self.check_node(*node)?;
        }
        let alarms = self.nodes.values().filter(|n| n.alarm.is_some()).count();
        ensure!(
            alarms == self.alarms.len(),
            "{alarms} and {} alarms",
            self.alarms.len()
        );
        self.check_leases()?;
        self.check_users()?;
        self.check_needs()
    }

    /// What holds for one job: each task is in exactly one place, and counts are right.
    ///
    /// # Errors
    /// The first broken invariant: a bug in this crate.
    pub fn check_job(&self, id: JobId) -> Result<(), String> {
        let Some(job) = self.jobs.get(&id) else {
            return Ok(());
        };
        self.check_partition(job)?;
        let offers = job.offers();
        ensure!(offers == job.queued, "job {id}: queued is {}", job.queued);
        let waiting = self
            .users
            .get(&job.spec.user)
            .and_then(|user| user.waiting.get(&job.need))
            .is_some_and(|group| group.iter().any(|(_, other)| *other == id));
        ensure!(
            offers == waiting,
            "job {id}: offers {offers}, in its queue {waiting}"
        );
        if job.state.is_over() {
            ensure!(
                job.is_quiet() && !job.held,
                "job {id} is over and has tasks left"
            );
            ensure!(job.ended.is_some(), "job {id} is over and has no end");
        } else {
            let stuck = job.is_quiet() && !job.merging;
            ensure!(!stuck, "job {id} is {} with nothing left to do", job.state);
            ensure!(self.needs.get(job.need).is_some(), "job {id} has no need");
            let shy = job.again.is_empty() || self.troubled.contains_key(&id);
            ensure!(shy, "job {id} has shy tasks and is not known for it");
        }
        for index in job.checkpoints.keys() {
            let open = !job.state.is_over() && *index < job.total();
            ensure!(
                open && !job.task_state(*index).is_over(),
                "task {id}.{index} is over and keeps what was saved of it"
            );
        }
        for shy in job.again.keys() {
            ensure!(
                shy.avoid.is_sorted() && !shy.is_nothing(),
                "job {id}: bad {shy:?}"
            );
        }
        for (index, trouble) in &job.trouble {
            let number = job.running.get(index).map_or(u32::MAX, |run| run.number);
            ensure!(
                number > trouble.last || trouble.open.iter().all(|o| o.number != number),
                "task {id}.{index}: attempt {number} runs and is open"
            );
        }
        Ok(())
    }

    fn check_partition(&self, job: &Job) -> Result<(), String> {
        let id = job.id;
        let running: IntervalSet = job.running.keys().copied().collect();
        let held: IntervalSet = job.held.then_some(job.spec.count).into_iter().collect();
        let mut sets: Vec<&IntervalSet> = [&job.ready, &job.done, &job.failed, &job.cancelled]
            .into_iter()
            .chain(job.again.values())
            .map(|tally| tally.set())
            .collect();
        sets.extend([&running, &held]);
        let mut ranges: Vec<(u32, u32)> = sets.iter().flat_map(|set| set.ranges()).collect();
        ranges.sort_unstable();
        let mut next = 0;
        for (start, end) in ranges {
            ensure!(
                start == next,
                "job {id}: task {start} after {next}: lost or twice"
            );
            next = end;
        }
        ensure!(
            next == job.total(),
            "job {id} has {next} of {} tasks",
            job.total()
        );
        let counts = job.counts();
        ensure!(
            counts.total() == u64::from(job.total()),
            "job {id}: counts {counts:?} for {} tasks",
            job.total()
        );
        Ok(())
    }

    /// What holds for one node: its slots, its leases, whether it takes work.
    ///
    /// # Errors
    /// The first broken invariant: a bug in this crate.
    pub fn check_node(&self, id: NodeId) -> Result<(), String> {
        let Some(node) = self.nodes.get(&id) else {
            return Ok(());
        };
        let mut tasks: BTreeMap<JobId, u32> = BTreeMap::new();
        for lease in &node.leases {
            let Some(lease) = self.leases.get(lease) else {
                return Err(format!("node {id} has lease {lease}, which is over"));
            };
            ensure!(
                lease.node == id,
                "node {id} has a lease of node {}",
                lease.node
            );
            let count = u32::try_from(lease.tasks.len()).unwrap_or(u32::MAX);
            *tasks.entry(lease.job).or_default() += count;
        }
        for (job, seat) in &node.seats {
            let held = tasks.remove(job).unwrap_or_default();
            ensure!(
                seat.tasks == held && (1..=seat.tasks).contains(&seat.width),
                "node {id}, job {job}: {seat:?}, leases say {held}"
            );
        }
        ensure!(
            tasks.is_empty(),
            "node {id} has leases without seats: {tasks:?}"
        );
        let used = self.room_used(id);
        ensure!(
            node.used == used,
            "node {id}: used {:?}, seats say {used:?}",
            node.used
        );
        let takes = node.would_take();
        ensure!(node.takes == takes, "node {id}: takes is {}", node.takes);
        let idle = takes && node.room().cpus > 0;
        ensure!(
            self.idle.contains(&id) == idle,
            "node {id}: idle is not {idle}"
        );
        let alarm = node.alarm.is_none_or(|at| self.alarms.contains(&(at, id)));
        ensure!(alarm, "node {id} has lost its alarm");
        let late = node.alarm.is_some_and(|at| at > node.deadline);
        ensure!(!late, "node {id} has an alarm after its deadline");
        let watched = node.alarm.is_some() || node.leases.is_empty();
        ensure!(watched, "node {id} has leases that never end");
        Ok(())
    }

    fn check_leases(&self) -> Result<(), String> {
        let mut held: BTreeSet<(JobId, u32)> = BTreeSet::new();
        for (id, lease) in &self.leases {
            ensure!(!lease.tasks.is_empty(), "lease {id} is empty");
            ensure!(id.0 <= self.last_lease, "lease {id} is from the future");
            let known = self.nodes.get(&lease.node);
            let known = known.is_some_and(|node: &Node| node.leases.contains(id));
            ensure!(known, "lease {id} is not known to its node");
            let Some(job) = self.jobs.get(&lease.job) else {
                return Err(format!("lease {id} is of no job"));
            };
            for index in lease.tasks.iter() {
                let run = job.running.get(&index);
                let here = run.is_some_and(|run| run.lease == *id);
                ensure!(here, "lease {id} has task {index}, which is not under it");
                ensure!(
                    held.insert((job.id, index)),
                    "task {}.{index} leased twice",
                    job.id
                );
            }
        }
        let running: usize = self.jobs.values().map(|job| job.running.len()).sum();
        ensure!(
            running == held.len(),
            "{running} run, {} are leased",
            held.len()
        );
        Ok(())
    }

    fn check_users(&self) -> Result<(), String> {
        let mut running: BTreeMap<UserId, u64> = BTreeMap::new();
        for node in self.nodes.values() {
            for (job, seat) in &node.seats {
                let Some(job) = self.jobs.get(job) else {
                    return Err(format!("node {} has a seat of job {job}", node.id));
                };
                *running.entry(job.spec.user).or_default() +=
                    u64::from(seat.width) * u64::from(job.spec.need.cpus.milli);
            }
        }
        for (id, user) in &self.users {
            let held = running.remove(id).unwrap_or_default();
            ensure!(
                user.running == held,
                "user {id}: {} and {held}",
                user.running
            );
            let turn = (!user.waiting.is_empty()).then(|| user.turn_without(0));
            // A turn may lag behind the decay by a minute, never behind anything else.
            ensure!(turn.is_some() == user.turn.is_some(), "user {id}: turn");
            ensure!(
                user.turn.is_none_or(|t| self.queue.contains(&t)),
                "user {id}: queue"
            );
        }
        let turns = self
            .users
            .values()
            .filter(|user| user.turn.is_some())
            .count();
        ensure!(
            turns == self.queue.len(),
            "{turns} turns, {} queued",
            self.queue.len()
        );
        Ok(())
    }

    fn check_needs(&self) -> Result<(), String> {
        let mut jobs: BTreeMap<_, u32> = BTreeMap::new();
        for job in self.jobs.values().filter(|job| !job.state.is_over()) {
            *jobs.entry(job.need).or_default() += 1;
        }
        for (id, entry) in &self.needs.entries {
            let count = jobs.remove(id).unwrap_or_default();
            ensure!(
                entry.jobs == count,
                "need {id:?}: {} and {count} jobs",
                entry.jobs
            );
            let taking = self
                .nodes
                .values()
                .filter(|node| node.takes && entry.matching.contains(&node.id))
                .count();
            let says = usize::try_from(entry.taking).unwrap_or(usize::MAX);
            ensure!(
                says == taking,
                "need {id:?}: {says} and {taking} nodes take work"
            );
        }
        ensure!(jobs.is_empty(), "jobs without needs: {jobs:?}");
        Ok(())
    }
}
