//! Revisions of jobs, and who waits for the next one.

use gleaner_model::JobId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Tells jobs' watchers that something changed.
#[derive(Debug)]
pub(crate) struct Changes {
    /// Revision of every job that did not change since the start: no client of an earlier
    /// process has seen a higher one, because they grow far slower than milliseconds.
    first: u64,
    jobs: Mutex<BTreeMap<JobId, watch::Sender<u64>>>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            first: crate::wall::now().ms,
            jobs: Mutex::default(),
        }
    }
}

impl Changes {
    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, watch::Sender<u64>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job changed.
    pub(super) fn bump(&self, job: JobId) {
        let mut jobs = self.jobs();
        let sender = jobs
            .entry(job)
            .or_insert_with(|| watch::Sender::new(self.first));
        sender.send_modify(|revision| *revision += 1);
    }

    /// A job is deleted; whoever waits for it wakes up.
    pub(super) fn forget(&self, job: JobId) {
        self.jobs().remove(&job);
    }

    pub(crate) fn revision(&self, job: JobId) -> u64 {
        self.jobs()
            .get(&job)
            .map_or(self.first, |sender| *sender.borrow())
    }

    /// A receiver that hears of every later change.
    pub(crate) fn watch(&self, job: JobId) -> watch::Receiver<u64> {
        let mut jobs = self.jobs();
        let sender = jobs
            .entry(job)
            .or_insert_with(|| watch::Sender::new(self.first));
        sender.subscribe()
    }
}
