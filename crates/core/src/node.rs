//! Nodes: what they are, what they hold, whether they take work; hello, beat, silence and wishes.
//!
//! A node is known from its first hello, or from a row that names it. It never chooses what to
//! run; it only says what it is and what it has.

use crate::event::{Held, NodeHello, NodeOffer, NodeReport, NodeWish};
use crate::job::Place;
use crate::lease::Way;
use crate::matching::{Room, would_do};
use crate::row::{NodeRow, Row};
use crate::state::{LEASE, State};
use crate::view::NodeView;
use crate::{Action, Refusal, Reply};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use gleaner_model::{
    AttemptId, AttemptState, Bytes, Cpus, JobId, LeaseId, NodeId, NodeState, Time,
};

/// What one job has on one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Slots: most of the job's tasks at once. At least 1, never more than `tasks`.
    pub(crate) width: u32,
    /// Tasks leased to the node, queued ones included.
    pub(crate) tasks: u32,
}

/// A node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// What it said of itself, without what it held; none until its first hello.
    pub(crate) hello: Option<NodeHello>,
    pub(crate) connected: bool,
    /// Silent for longer than a lease.
    pub(crate) offline: bool,
    pub(crate) heard: Option<Time>,
    /// When its leases are over.
    pub(crate) deadline: Time,
    /// Its entry in [`State::alarms`], if it has one.
    pub(crate) alarm: Option<Time>,
    report: NodeState,
    report_reason: String,
    /// `Pause` or `Drain`; an eviction drains.
    pub(crate) wish: Option<NodeWish>,
    pub(crate) used: Room,
    pub(crate) seats: BTreeMap<JobId, Seat>,
    pub(crate) leases: BTreeSet<LeaseId>,
    /// Jobs whose program it lacks.
    pub(crate) lacks: BTreeSet<JobId>,
    /// Attempts that were lost with it: they may still be there.
    pub(crate) lost: BTreeSet<AttemptId>,
    /// Whether it takes work; kept by [`State::refresh_node`].
    pub(crate) takes: bool,
    /// At this count of [`State::work`] nothing fitted it, and it got no room since.
    pub(crate) seen: u64,
}

impl Node {
    pub(crate) const fn new(id: NodeId, deadline: Time) -> Self {
        Self {
            id,
            hello: None,
            connected: false,
            offline: false,
            heard: None,
            deadline,
            alarm: None,
            report: NodeState::Online,
            report_reason: String::new(),
            wish: None,
            used: Room {
                cpus: 0,
                memory: 0,
                disk: 0,
            },
            seats: BTreeMap::new(),
            leases: BTreeSet::new(),
            lacks: BTreeSet::new(),
            lost: BTreeSet::new(),
            takes: false,
            seen: 0,
        }
    }

    pub(crate) fn total(&self) -> Room {
        self.hello
            .as_ref()
            .map_or_else(Room::default, |hello| Room {
                cpus: u64::from(hello.cpus.milli),
                memory: hello.memory.0,
                disk: hello.disk.0,
            })
    }

    /// What is free; nothing where it promised more than it has (it came back smaller).
    pub(crate) fn room(&self) -> Room {
        self.total().less(self.used)
    }

    pub(crate) fn state(&self) -> NodeState {
        let refused = self.hello.as_ref().is_some_and(|h| h.refused.is_some());
        if self.offline || self.heard.is_none() {
            NodeState::Offline
        } else if refused {
            NodeState::Refused
        } else if self.wish == Some(NodeWish::Drain) {
            NodeState::Draining
        } else if self.wish.is_some() {
            NodeState::Paused
        } else {
            self.report
        }
    }

    fn reason(&self) -> String {
        let hello = self.hello.as_ref();
        match self.state() {
            NodeState::Offline if self.heard.is_none() => {
                "not heard of since the server started".into()
            }
            NodeState::Offline => "not heard of for a lease's length; is it switched on?".into(),
            NodeState::Refused => hello
                .and_then(|hello| hello.refused.clone())
                .unwrap_or_else(|| self.report_reason.clone()),
            NodeState::Draining => "an admin drains it; `gleaner node N resume` ends that".into(),
            NodeState::Paused if self.wish.is_some() => {
                "an admin paused it; `gleaner node N resume` ends that".into()
            }
            NodeState::Online if !self.connected => {
                "its connection ended; its leases run on for a while".into()
            }
            NodeState::Paused | NodeState::Online | NodeState::Quarantined => {
                self.report_reason.clone()
            }
        }
    }

    /// What a task that goes on from something asks of it.
    pub(crate) fn place(&self) -> Place<'_> {
        let machine = self
            .hello
            .as_ref()
            .and_then(|hello| hello.machine.as_deref());
        Place {
            node: self.id,
            machine,
        }
    }

    pub(crate) fn would_take(&self) -> bool {
        self.connected && self.hello.is_some() && self.state() == NodeState::Online
    }

    pub(crate) fn view(&self) -> NodeView {
        let hello = self.hello.as_ref();
        let milli = |milli: u64| Cpus {
            milli: u32::try_from(milli).unwrap_or(u32::MAX),
        };
        let total = self.total();
        NodeView {
            id: self.id,
            name: hello.map(|h| h.name.clone()).unwrap_or_default(),
            state: self.state(),
            reason: self.reason(),
            wish: self.wish,
            connected: self.connected,
            cpus: milli(total.cpus),
            cpus_used: milli(self.used.cpus),
            memory: Bytes(total.memory),
            memory_used: Bytes(self.used.memory),
            disk: Bytes(total.disk),
            arch: hello.map(|h| h.arch.clone()).unwrap_or_default(),
            engines: hello.map(|h| h.engines.clone()).unwrap_or_default(),
            labels: hello.map(|h| h.labels.clone()).unwrap_or_default(),
            machine: hello.and_then(|h| h.machine.clone()),
            running: self.seats.values().map(|seat| seat.width).sum(),
            leased: self.seats.values().map(|seat| seat.tasks).sum(),
            heard: self.heard,
        }
    }
}

impl State {
    /// Makes a node known, with a lease's length to be heard of.
    pub(crate) fn meet_node(&mut self, id: NodeId) {
        let deadline = self.now + LEASE;
        self.nodes
            .entry(id)
            .or_insert_with(|| Node::new(id, deadline));
    }

    /// Sets a node's alarm, where none is set. Beats only move the deadline; an alarm that goes
    /// off too early is set again.
    pub(crate) fn arm(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id);
        if let Some(node) = node.filter(|node| node.alarm.is_none()) {
            node.alarm = Some(node.deadline);
            self.alarms.insert((node.deadline, id));
        }
    }

    /// Works out again whether a node takes work, after anything about it changed.
    pub(crate) fn refresh_node(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let takes = node.would_take();
        let was = core::mem::replace(&mut node.takes, takes);
        let room = node.room().cpus > 0;
        if takes && room {
            self.idle.insert(id);
        } else {
            self.idle.remove(&id);
        }
        if takes == was {
            return;
        }
        for entry in self.needs.entries.values_mut() {
            if entry.matching.contains(&id) {
                if takes {
                    entry.taking += 1;
                } else {
                    entry.taking -= 1;
                }
            }
        }
        if !takes {
            // Tasks that shunned another node for this one may have to go back there.
            let stuck: Vec<JobId> = self.troubled.keys().copied().collect();
            self.wake.extend(stuck);
        }
    }

    pub(crate) fn on_hello(&mut self, mut hello: NodeHello) {
        let (id, now) = (hello.node, self.now);
        let held = core::mem::take(&mut hello.held);
        self.meet_node(id);
        self.rematch(&hello);
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.report = NodeState::Online;
        node.report_reason.clear();
        node.hello = Some(hello);
        node.connected = true;
        node.offline = false;
        node.heard = Some(now);
        node.deadline = now + LEASE;
        node.seen = 0;
        node.lost.clear();
        let lacks = core::mem::take(&mut node.lacks);
        let wish = node.wish;
        self.arm(id);
        for job in lacks {
            if let Some(job) = self.jobs.get_mut(&job) {
                job.excluded.remove(&id);
            }
        }
        self.refresh_node(id);
        // Also where there is nothing to wish: the node may have missed the end of an earlier one.
        let wish = wish.unwrap_or(NodeWish::Resume);
        self.out.push(Action::Wish { node: id, wish });
        self.reconcile(id, &held, true);
        self.fill.insert(id);
    }

    /// What it runs goes on, even where it offers less now: only new grants go by it.
    pub(crate) fn on_offer(&mut self, offer: NodeOffer) {
        let id = offer.node;
        // Before its hello nothing is known of it: the hello says the same.
        let known = self.nodes.get(&id).and_then(|node| node.hello.clone());
        let Some(mut hello) = known else { return };
        hello.take(offer);
        self.rematch(&hello);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.hello = Some(hello);
            node.seen = 0;
        }
        self.refresh_node(id);
        self.fill.insert(id);
    }

    /// Works out which needs a node fits now that it says what it is.
    fn rematch(&mut self, hello: &NodeHello) {
        let id = hello.node;
        let takes = self.nodes.get(&id).is_some_and(|node| node.takes);
        for entry in self.needs.entries.values_mut() {
            let was = entry.matching.contains(&id);
            let fits = would_do(&entry.need, hello);
            if fits && !was {
                entry.matching.insert(id);
                entry.taking += u32::from(takes);
            } else if was && !fits {
                entry.matching.remove(&id);
                entry.taking -= u32::from(takes);
            }
        }
    }

    /// Brings what the server believes and what the node holds together. `complete` says that
    /// what is not held was never received.
    fn reconcile(&mut self, id: NodeId, held: &[Held], complete: bool) {
        let here: BTreeMap<AttemptId, AttemptState> =
            held.iter().map(|held| (held.attempt, held.state)).collect();
        if complete {
            for attempt in self.leased_to(id) {
                if !here.contains_key(&attempt) {
                    self.leave(attempt, id, Way::TakenBack);
                    self.settle(attempt.task.job);
                }
            }
        }
        let mut strange = Vec::new();
        let mut back = BTreeMap::new();
        for (attempt, state) in here {
            if self.runs(attempt, id) {
                self.set_progress(attempt, state);
            } else if state.is_over() {
                // Its report is on the way and is acknowledged whatever became of the task.
            } else if self.could_return(attempt, id) {
                let tasks: &mut Vec<_> = back.entry(attempt.task.job).or_default();
                tasks.push((attempt.task.index, attempt.number, state));
            } else {
                strange.push(attempt);
            }
        }
        for (job, tasks) in back {
            self.adopt(id, job, &tasks);
        }
        if !strange.is_empty() {
            let attempts = strange;
            self.out.push(Action::Revoke { node: id, attempts });
        }
    }

    pub(crate) fn on_beat(&mut self, report: NodeReport) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&report.node) else {
            return;
        };
        if node.hello.is_none() {
            // Before its hello nothing is known of it: the hello renews.
            return;
        }
        node.connected = true;
        node.heard = Some(now);
        node.deadline = now + LEASE;
        let changed = node.report != report.state || !node.takes;
        node.report = report.state;
        node.report_reason = report.reason;
        let returned = core::mem::take(&mut node.offline);
        let lost = core::mem::take(&mut node.lost);
        if let Some(hello) = node
            .hello
            .as_mut()
            .filter(|_| node.report == NodeState::Online)
        {
            // Its self-test passes now.
            hello.refused = None;
        }
        self.arm(report.node);
        if returned {
            // It was silent, but its connection held: it still has what it had.
            let held: Vec<Held> = lost
                .into_iter()
                .map(|attempt| Held {
                    attempt,
                    state: AttemptState::Running,
                })
                .collect();
            self.refresh_node(report.node);
            self.reconcile(report.node, &held, false);
        }
        if changed || returned {
            self.refresh_node(report.node);
            self.freed(report.node);
            if report.state == NodeState::Paused {
                self.unqueue(report.node);
            }
        }
    }

    /// Takes back what only queues on a node that froze: others can run it meanwhile. If one of
    /// them ran after all, its success still counts.
    fn unqueue(&mut self, id: NodeId) {
        let queued: Vec<AttemptId> = self
            .leased_to(id)
            .into_iter()
            .filter(|attempt| {
                self.run_of(attempt.task)
                    .is_some_and(|(run, _)| run.state == AttemptState::Leased)
            })
            .collect();
        for attempt in &queued {
            self.leave(*attempt, id, Way::TakenBack);
            self.settle(attempt.task.job);
        }
        if !queued.is_empty() {
            let attempts = queued;
            self.out.push(Action::Revoke { node: id, attempts });
        }
    }

    pub(crate) fn on_gone(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.connected = false;
            self.refresh_node(id);
        }
    }

    pub(crate) fn on_wish(&mut self, id: NodeId, wish: NodeWish) {
        let Some(node) = self.nodes.get_mut(&id) else {
            self.reply(Reply::Refused(Refusal::NoNode(id)));
            return;
        };
        node.wish = match wish {
            NodeWish::Resume => None,
            NodeWish::Pause => Some(NodeWish::Pause),
            NodeWish::Drain | NodeWish::Evict => Some(NodeWish::Drain),
        };
        let row = NodeRow {
            node: id,
            paused: node.wish == Some(NodeWish::Pause),
            draining: node.wish == Some(NodeWish::Drain),
        };
        if node.connected {
            self.out.push(Action::Wish { node: id, wish });
        }
        self.rows.push(Row::Node(row));
        self.refresh_node(id);
        self.freed(id);
        self.reply(Reply::Accepted(1));
    }

    pub(crate) fn on_progress(&mut self, id: NodeId, attempt: AttemptId, state: AttemptState) {
        if self.runs(attempt, id) {
            self.set_progress(attempt, state);
        } else if !state.is_over() && !self.could_return(attempt, id) {
            let attempts = [attempt].into();
            self.out.push(Action::Revoke { node: id, attempts });
        }
    }

    fn set_progress(&mut self, attempt: AttemptId, state: AttemptState) {
        let run = self
            .jobs
            .get_mut(&attempt.task.job)
            .and_then(|job| job.running.get_mut(&attempt.task.index));
        if let Some(run) = run.filter(|_| !state.is_over()) {
            run.state = state;
        }
    }

    /// Ends the leases of nodes that were silent for too long.
    pub(crate) fn expire(&mut self) {
        while let Some((due, id)) = self.alarms.first().copied().filter(|a| a.0 <= self.now) {
            self.alarms.remove(&(due, id));
            let Some(node) = self.nodes.get_mut(&id) else {
                continue;
            };
            if node.deadline > self.now {
                node.alarm = Some(node.deadline);
                self.alarms.insert((node.deadline, id));
                continue;
            }
            // Its next hello or beat sets the alarm again.
            node.alarm = None;
            node.offline = true;
            self.refresh_node(id);
            for attempt in self.leased_to(id) {
                self.leave(attempt, id, Way::Lost);
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.lost.insert(attempt);
                }
                self.settle(attempt.task.job);
            }
        }
    }
}
