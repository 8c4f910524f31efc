//! Which jobs' templates one agent was sent: it keeps them, so each travels once a connection.

use gleaner_model::JobId;
use std::collections::BTreeSet;

/// Templates that one connection remembers to have carried. Beyond it, it forgets them all and
/// sends them again.
const TEMPLATES_KEPT: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Carried(BTreeSet<JobId>);

impl Carried {
    /// Whether this job's has to be sent; it counts as sent from now on.
    pub(super) fn is_new(&mut self, job: JobId) -> bool {
        if self.0.len() >= TEMPLATES_KEPT {
            self.0.clear();
        }
        self.0.insert(job)
    }

    /// Another template takes the place of this job's.
    pub(super) fn forget(&mut self, job: JobId) {
        self.0.remove(&job);
    }
}
