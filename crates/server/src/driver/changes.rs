//! Revisions of jobs, whether they are over, and who waits for either.

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
    jobs: Mutex<BTreeMap<JobId, Told>>,
}

/// What is told of one job. A busy job changes with each batch; whoever waits for its end alone is
/// not woken by all that comes before.
#[derive(Debug)]
struct Told {
    revision: watch::Sender<u64>,
    over: watch::Sender<bool>,
}

impl Told {
    fn new(first: u64) -> Self {
        Self {
            revision: watch::Sender::new(first),
            over: watch::Sender::new(false),
        }
    }
}

/// Hears of one job.
#[derive(Debug)]
pub(crate) struct Watch {
    revision: watch::Receiver<u64>,
    over: watch::Receiver<bool>,
}

impl Watch {
    /// Returns at the next change since this was called last; an error where the job is deleted.
    pub(crate) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.revision.changed().await
    }

    /// Returns when the revision is another one, or the job is deleted.
    pub(crate) async fn differs(&mut self, from: u64) {
        let _deleted = self.revision.wait_for(|now| *now != from).await;
    }

    /// Returns when the job is over or deleted.
    pub(crate) async fn over(&mut self) {
        let _deleted = self.over.wait_for(|over| *over).await;
    }
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
    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, Told>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job changed, and is over now or is not.
    pub(super) fn bump(&self, job: JobId, over: bool) {
        let mut jobs = self.jobs();
        let told = jobs.entry(job).or_insert_with(|| Told::new(self.first));
        told.revision.send_modify(|revision| *revision += 1);
        told.over
            .send_if_modified(|before| std::mem::replace(before, over) != over);
    }

    /// A job is deleted; whoever waits for it wakes up.
    pub(super) fn forget(&self, job: JobId) {
        self.jobs().remove(&job);
    }

    pub(crate) fn revision(&self, job: JobId) -> u64 {
        self.jobs()
            .get(&job)
            .map_or(self.first, |told| *told.revision.borrow())
    }

    /// Hears of every later change.
    pub(crate) fn watch(&self, job: JobId) -> Watch {
        let mut jobs = self.jobs();
        let told = jobs.entry(job).or_insert_with(|| Told::new(self.first));
        Watch {
            revision: told.revision.subscribe(),
            over: told.over.subscribe(),
        }
    }
}
