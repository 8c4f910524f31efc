//! Compiled jobs, kept while they are used and rebuilt from their bodies when they are not here.

use super::check::{self, Shown};
use super::{JobPlan, SplitError, StoredJob, axes, wrong};
use gleaner_blob::Blobs;
use gleaner_model::JobId;
use gleaner_store::Store;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most memory of all kept plans, in bytes: a few jobs with hundreds of thousands of files.
const KEPT_BYTES: usize = 128 << 20;

/// Most plans kept.
const KEPT_PLANS: usize = 512;

/// Most jobs of which is kept what listings show.
const KEPT_SHOWN: usize = 10_000;

#[derive(Debug, Default)]
struct Kept {
    plans: BTreeMap<JobId, (u64, usize, Arc<JobPlan>)>,
    bytes: usize,
    clock: u64,
}

/// The cache of plans.
#[derive(Debug)]
pub(crate) struct Plans {
    store: Arc<dyn Store>,
    blobs: Blobs,
    kept: Mutex<Kept>,
    shown: Mutex<BTreeMap<JobId, Arc<Shown>>>,
}

impl Plans {
    pub(crate) fn new(store: Arc<dyn Store>, blobs: Blobs) -> Self {
        Self {
            store,
            blobs,
            kept: Mutex::default(),
            shown: Mutex::default(),
        }
    }

    /// A job is deleted.
    pub(crate) fn forget(&self, job: JobId) {
        let mut kept = self.kept();
        if let Some((_, bytes, _)) = kept.plans.remove(&job) {
            kept.bytes -= bytes;
        }
        drop(kept);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.remove(&job);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A plan that is here already.
    pub(crate) fn cached(&self, job: JobId) -> Option<Arc<JobPlan>> {
        let mut kept = self.kept();
        kept.clock += 1;
        let clock = kept.clock;
        let (used, _, plan) = kept.plans.get_mut(&job)?;
        *used = clock;
        Some(Arc::clone(plan))
    }

    pub(crate) fn insert(&self, job: JobId, plan: &Arc<JobPlan>) {
        let bytes = plan.memory();
        let mut kept = self.kept();
        kept.clock += 1;
        let entry = (kept.clock, bytes, Arc::clone(plan));
        if let Some((_, before, _)) = kept.plans.insert(job, entry) {
            kept.bytes -= before;
        }
        kept.bytes += bytes;
        while kept.bytes > KEPT_BYTES && kept.plans.len() > 1 || kept.plans.len() > KEPT_PLANS {
            let Some(oldest) = kept
                .plans
                .iter()
                .min_by_key(|plan| plan.1.0)
                .map(|plan| *plan.0)
            else {
                return;
            };
            if let Some((_, bytes, _)) = kept.plans.remove(&oldest) {
                kept.bytes -= bytes;
            }
        }
    }

    /// The plan of a job; blocks on the disk where it is not here.
    pub(crate) fn get(&self, job: JobId) -> Result<Arc<JobPlan>, SplitError> {
        if let Some(plan) = self.cached(job) {
            return Ok(plan);
        }
        let gone = || wrong("job", format!("the server has no body of job {job}"));
        let body = self.store.job_body(job)?.ok_or_else(gone)?;
        let stored: StoredJob = serde_json::from_slice(&body)
            .map_err(|error| wrong("job", format!("the body of job {job} is damaged: {error}")))?;
        let opened = axes::open(&self.blobs, &stored.submission, Some(&stored.pieces))?;
        let store = self.store.as_ref();
        let plan = Arc::new(JobPlan::compile(store, &self.blobs, stored, opened.axes)?);
        self.insert(job, &plan);
        Ok(plan)
    }

    /// What listings show of a job's body; blocks on the disk where it is not here.
    pub(crate) fn shown(&self, job: JobId) -> Result<Arc<Shown>, SplitError> {
        let all = || self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all().get(&job) {
            return Ok(Arc::clone(known));
        }
        let body = self.store.job_body(job)?.unwrap_or_default();
        let read = Arc::new(check::shown(&body));
        let mut all = all();
        if all.len() >= KEPT_SHOWN {
            all.pop_first();
        }
        all.insert(job, Arc::clone(&read));
        Ok(read)
    }
}
