//! Merges that cannot be done now, and why: their users are told.

use gleaner_api::JobView;
use gleaner_model::JobId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why merges wait, by job.
#[derive(Debug, Default)]
pub(crate) struct MergeWaits(Mutex<BTreeMap<JobId, String>>);

impl MergeWaits {
    fn all(&self) -> MutexGuard<'_, BTreeMap<JobId, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waits(&self, job: JobId, why: String) {
        self.all().insert(job, why);
    }

    pub(super) fn over(&self, job: JobId) {
        self.all().remove(&job);
    }

    /// What a job's merge waits for and what to do, as a sentence without its end.
    pub(crate) fn why(&self, job: JobId) -> Option<String> {
        let why = self.all().get(&job).cloned()?;
        Some(format!(
            "its results cannot be merged yet: {why}. The server tries again by itself; `gleaner \
             cancel {job}` gives the merge up"
        ))
    }

    /// Tells it with the job.
    pub(crate) fn tell(&self, job: &mut JobView) {
        if let Some(why) = self.why(job.id).filter(|_| !job.state.is_over()) {
            job.reason = why;
        }
    }
}
