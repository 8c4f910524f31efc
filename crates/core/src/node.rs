//! A node: what it is, what it holds, whether it takes work.
//!
//! It never chooses what to run; it only says what it is and what it has.

use crate::attempt::Place;
use crate::event::{NodeHello, NodeWish};
use crate::needs::Room;
use crate::view::NodeView;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use gleaner_model::{AttemptId, Bytes, Cpus, JobId, LeaseId, NodeId, NodeState, Time};

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
    pub(crate) report: NodeState,
    pub(crate) report_reason: String,
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
