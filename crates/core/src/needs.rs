//! What jobs ask of a node, each kind once: a pool of a thousand jobs has a handful.

use crate::Need;
use alloc::collections::{BTreeMap, BTreeSet};
use gleaner_model::NodeId;

/// Jobs that ask the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct NeedId(pub(crate) u32);

/// Processors (thousandths), memory and disk (bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Room {
    pub(crate) cpus: u64,
    pub(crate) memory: u64,
    pub(crate) disk: u64,
}

impl Room {
    pub(crate) fn of(need: &Need) -> Self {
        Self {
            cpus: u64::from(need.cpus.milli),
            memory: need.memory.0,
            disk: need.disk.0,
        }
    }

    pub(crate) const fn times(self, n: u64) -> Self {
        Self {
            cpus: self.cpus.saturating_mul(n),
            memory: self.memory.saturating_mul(n),
            disk: self.disk.saturating_mul(n),
        }
    }

    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            cpus: self.cpus.saturating_add(other.cpus),
            memory: self.memory.saturating_add(other.memory),
            disk: self.disk.saturating_add(other.disk),
        }
    }

    /// What is left of it without `other`; nothing where `other` is more.
    pub(crate) const fn less(self, other: Self) -> Self {
        Self {
            cpus: self.cpus.saturating_sub(other.cpus),
            memory: self.memory.saturating_sub(other.memory),
            disk: self.disk.saturating_sub(other.disk),
        }
    }

    pub(crate) const fn holds(self, other: Self) -> bool {
        self.cpus >= other.cpus && self.memory >= other.memory && self.disk >= other.disk
    }

    /// How often `other` fits into it.
    pub(crate) fn how_many(self, other: Self) -> u32 {
        let times = |have: u64, want: u64| have.checked_div(want).unwrap_or(u64::MAX);
        let fits = times(self.cpus, other.cpus)
            .min(times(self.memory, other.memory))
            .min(times(self.disk, other.disk));
        u32::try_from(fits).unwrap_or(u32::MAX)
    }
}

/// What some jobs ask of a node, and which nodes would do.
#[derive(Debug, Clone)]
pub(crate) struct NeedEntry {
    pub(crate) need: Need,
    pub(crate) room: Room,
    /// Jobs that ask it and are not over.
    pub(crate) jobs: u32,
    /// Nodes that would do when empty, whatever their state.
    pub(crate) matching: BTreeSet<NodeId>,
    /// Of these, how many take work.
    pub(crate) taking: u32,
}

/// All needs of jobs that are not over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Needs {
    pub(crate) entries: BTreeMap<NeedId, NeedEntry>,
    pub(crate) ids: BTreeMap<Need, NeedId>,
    pub(crate) next: u32,
}

impl Needs {
    pub(crate) const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            ids: BTreeMap::new(),
            next: 0,
        }
    }

    pub(crate) fn get(&self, id: NeedId) -> Option<&NeedEntry> {
        self.entries.get(&id)
    }

    /// Counts a job out; a need that nobody has is forgotten.
    pub(crate) fn release(&mut self, id: NeedId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.jobs -= 1;
        if entry.jobs == 0 {
            self.ids.remove(&entry.need);
            self.entries.remove(&id);
        }
    }
}
