//! From a submission to tasks, without ever listing them: the job's counts and axes are checked
//! once, and each task is computed from its index when it is dispatched.

mod axes;
mod check;
mod lines;
pub(crate) mod names;
mod pieces;
pub(crate) mod plan;
pub(crate) mod plans;
#[cfg(test)]
mod tests;

pub(crate) use check::split;
pub(crate) use plan::JobPlan;

use crate::error::{ApiError, Setback};
use gleaner_blob::BlobError;
use gleaner_core::NewJob;
use gleaner_model::{BlobRef, Digest, SpecError, Submission};
use gleaner_store::StoreError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The version of [`StoredJob`] that this build writes.
const BODY_VERSION: u32 = 1;

/// A job's body in the store: the submission, and what was found when it was split.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredJob {
    /// [`BODY_VERSION`]
    pub(crate) version: u32,
    /// Tasks, the merge command not counted.
    pub(crate) count: u32,
    /// As it came.
    pub(crate) submission: Submission,
    /// For each `split` axis, the listing of its pieces: one JSON `FileEntry` a line.
    pub(crate) pieces: BTreeMap<String, BlobRef>,
    /// What the image's name stood for then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<BlobRef>,
}

/// A job that may be handed to the brain.
#[derive(Debug)]
pub(crate) struct SplitJob {
    pub(crate) job: NewJob,
    pub(crate) plan: Arc<JobPlan>,
    /// Blobs that must stay while the job is known.
    pub(crate) needs: Vec<Digest>,
}

/// A submission cannot become a job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SplitError {
    /// The user wrote something that cannot be meant.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The server's disk failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The server's store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A sentence about one key of the job file.
fn wrong(key: impl Into<String>, problem: impl Into<String>) -> SplitError {
    SplitError::Spec(SpecError {
        key: key.into(),
        problem: problem.into(),
    })
}

impl From<SplitError> for ApiError {
    fn from(error: SplitError) -> Self {
        match error {
            SplitError::Spec(error) => error.into(),
            SplitError::Blob(error) => error.into(),
            SplitError::Store(error) => error.into(),
        }
    }
}

impl From<SplitError> for Setback {
    fn from(error: SplitError) -> Self {
        match error {
            SplitError::Spec(error) => Self::Final(error.to_string()),
            SplitError::Blob(error) => error.into(),
            SplitError::Store(error) => error.into(),
        }
    }
}
