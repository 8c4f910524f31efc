//! What is known of a task beyond the set it is in: its attempt on a node, what it had to bear,
//! what was saved of it.
//!
//! Most tasks of a job have nothing of this. It holds what was seen and what follows for one task
//! alone; who decides by it is elsewhere.

use crate::row::CheckpointRow;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use gleaner_model::{AttemptState, Digest, IntervalSet, JobId, LeaseId, NodeId, Reason, Time};

/// A task whose node was lost while running it on this many different nodes has failed for good:
/// it is the likelier cause. Three is what BOINC and HTCondor pools use in practice.
pub const POISON_NODES: u32 = 3;

/// The same where it was lost this often, on however few nodes: a pool may have one node only.
/// Four times as often, because a node that is switched off every evening loses a long task each
/// time, and two weeks of that prove nothing.
pub const POISON_LOSSES: usize = 12;

/// A bundle's right to run.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) node: NodeId,
    pub(crate) job: JobId,
    /// Tasks not ended.
    pub(crate) tasks: IntervalSet,
}

/// A task on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) number: u32,
    pub(crate) lease: LeaseId,
    pub(crate) state: AttemptState,
}

/// An attempt whose true end is not known: its node was lost, or it was taken back unreceived.
/// Its report may still come, and a success is then taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) number: u32,
    pub(crate) node: NodeId,
    /// Whether the program ran when the node was lost: evidence of poison.
    pub(crate) ran: bool,
}

/// A node as a ready task looks at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) node: NodeId,
    pub(crate) machine: Option<&'a str>,
}

/// Why a ready task would rather not go to any node.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shy {
    /// Nodes where it failed, ascending.
    pub(crate) avoid: Vec<NodeId>,
    /// The machine of the guest that was saved of it: on another it would begin anew.
    pub(crate) machine: Option<String>,
}

impl Shy {
    pub(crate) fn likes(&self, place: Place<'_>) -> bool {
        let machine = self.machine.as_deref();
        self.avoid.binary_search(&place.node).is_err()
            && machine.is_none_or(|machine| place.machine == Some(machine))
    }

    pub(crate) const fn is_nothing(&self) -> bool {
        self.avoid.is_empty() && self.machine.is_none()
    }
}

/// What a task had to bear so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Trouble {
    /// The highest attempt number that has left its node.
    pub(crate) last: u32,
    pub(crate) failures: u32,
    pub(crate) evictions: u32,
    /// Nodes where it failed, ascending: tried again only where no other will do.
    pub(crate) avoid: Vec<NodeId>,
    pub(crate) open: Vec<Open>,
    pub(crate) reason: Option<Reason>,
}

impl Trouble {
    /// Adds a node to avoid.
    pub(crate) fn shun(&mut self, node: NodeId) {
        if let Err(at) = self.avoid.binary_search(&node) {
            self.avoid.insert(at, node);
        }
    }

    /// Losses while it ran, of attempts from number `since` on: those before were made good by
    /// what was saved later.
    fn lost_runs(&self, since: u32) -> impl Iterator<Item = NodeId> + '_ {
        let counts = move |open: &&Open| open.ran && open.number >= since;
        self.open.iter().filter(counts).map(|open| open.node)
    }

    /// Different nodes that were lost while they ran it.
    pub(crate) fn losses(&self, since: u32) -> u32 {
        let nodes: BTreeSet<NodeId> = self.lost_runs(since).collect();
        u32::try_from(nodes.len()).unwrap_or(u32::MAX)
    }

    /// Why it is the likelier cause of its nodes' losses; none where it is not.
    pub(crate) fn poison(&self, since: u32) -> Option<String> {
        let (nodes, all) = (self.losses(since), self.lost_runs(since).count());
        if nodes >= POISON_NODES {
            return Some(format!(
                "poison: {nodes} different nodes were lost while they ran it"
            ));
        }
        (all >= POISON_LOSSES).then(|| {
            format!("poison: its node was lost {all} times while it ran, and no result came")
        })
    }

    /// A fresh set of tries; numbers go on.
    pub(crate) fn forgive(&mut self) {
        self.failures = 0;
        self.evictions = 0;
        self.avoid.clear();
        for open in &mut self.open {
            open.ran = false;
        }
    }
}

/// What is kept in memory of a task's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Number of the attempt that was saved.
    pub(crate) number: u32,
    pub(crate) taken: Time,
    pub(crate) content: Digest,
    pub(crate) machine: Option<String>,
    pub(crate) count: u32,
    pub(crate) stalls: u32,
    /// See [`CheckpointRow::progress`].
    pub(crate) progress: u32,
}

impl Kept {
    pub(crate) fn of(row: &CheckpointRow) -> Self {
        Self {
            number: row.attempt.number,
            taken: row.saved.taken,
            content: row.saved.content,
            machine: row.saved.machine.clone(),
            count: row.count,
            stalls: row.stalls,
            progress: row.progress,
        }
    }
}
