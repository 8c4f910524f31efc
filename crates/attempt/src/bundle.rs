//! The attempts of one lease that have not ended, and what each of them needs.

use crate::{Adoption, Grant, Saving};
use alloc::collections::VecDeque;
use gleaner_model::{AttemptId, Bytes, Cpus, LeaseId};

/// A lease. It is dropped when its last attempt is forgotten.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    pub(crate) lease: LeaseId,
    pub(crate) cpus: Cpus,
    pub(crate) memory: Bytes,
    pub(crate) width: u32,
    pub(crate) saving: Saving,
    /// Granted, in order.
    pub(crate) leased: VecDeque<AttemptId>,
    /// How many are being fetched.
    pub(crate) fetching: u32,
    /// Fetched, in the order in which they became so.
    pub(crate) ready: VecDeque<AttemptId>,
    /// How many an engine has.
    pub(crate) live: u32,
    /// How many the book holds in whatever phase.
    pub(crate) held: u32,
}

impl Bundle {
    pub(crate) fn granted(grant: &Grant) -> Self {
        Self {
            lease: grant.lease,
            cpus: grant.cpus,
            memory: grant.memory,
            width: grant.width.max(1),
            saving: grant.saving,
            leased: VecDeque::new(),
            fetching: 0,
            ready: VecDeque::new(),
            live: 0,
            held: 0,
        }
    }

    /// A bundle of which only what an engine still holds is known: nothing new starts in it.
    pub(crate) const fn adopted(adoption: &Adoption) -> Self {
        Self {
            lease: adoption.lease,
            cpus: adoption.cpus,
            memory: adoption.memory,
            width: 1,
            saving: adoption.saving,
            leased: VecDeque::new(),
            fetching: 0,
            ready: VecDeque::new(),
            live: 0,
            held: 0,
        }
    }

    /// Whether anything in it has still to be fetched or started.
    pub(crate) fn has_pending(&self) -> bool {
        self.fetching > 0 || !self.leased.is_empty() || !self.ready.is_empty()
    }

    /// How many more may be fetched now.
    pub(crate) fn fetch_room(&self) -> usize {
        let ahead = self.width.saturating_add(crate::FETCH_AHEAD) as usize;
        ahead.saturating_sub(self.fetching as usize + self.ready.len())
    }
}
