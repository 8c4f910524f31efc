//! What every handler reaches: the doors to the driver, the store, the blobs and the plans.

use crate::agents::logs::LogRelay;
use crate::collect::gate::SweepGate;
use crate::collect::waits::MergeWaits;
use crate::driver::Handle;
use crate::images::Images;
use crate::split::plans::Plans;
use crate::tokens::Tokens;
use gleaner_blob::Blobs;
use gleaner_model::{EngineChoice, JobId, Span};
use gleaner_store::Store;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the disk gave at the start.
pub(crate) struct SharedParts {
    pub(crate) tokens: Tokens,
    pub(crate) images: Images,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Blobs,
    pub(crate) lock: File,
    pub(crate) node_settings: Vec<u8>,
    pub(crate) default_engine: EngineChoice,
    pub(crate) keep_jobs: Option<Span>,
    pub(crate) body_silence: Duration,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) tokens: Tokens,
    pub(crate) images: Images,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Blobs,
    pub(crate) driver: Handle,
    /// What every node is told at its welcome; see [`crate::ServerConfig::node_settings`].
    pub(crate) node_settings: Vec<u8>,
    /// What contains tasks of jobs that do not say.
    pub(crate) default_engine: EngineChoice,
    /// How long jobs that are over stay; for ever where none.
    pub(crate) keep_jobs: Option<Span>,
    /// See [`crate::ServerConfig::body_silence`].
    pub(crate) body_silence: Duration,
    pub(crate) plans: Plans,
    pub(crate) logs: LogRelay,
    pub(crate) polls: crate::agents::polls::Polls,
    /// Tokens are numbered one after the other: one is made at a time.
    pub(crate) token_numbers: tokio::sync::Mutex<()>,
    /// A name is looked at and given in one go.
    pub(crate) image_names: tokio::sync::Mutex<()>,
    pub(crate) sweep: SweepGate,
    pub(crate) merge_waits: MergeWaits,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// Held, never read: two servers must not share a data directory.
    _lock: File,
}

impl Shared {
    pub(crate) fn new(
        parts: SharedParts,
        driver: Handle,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            plans: Plans::new(Arc::clone(&parts.store), parts.blobs.clone()),
            tokens: parts.tokens,
            images: parts.images,
            store: parts.store,
            blobs: parts.blobs,
            driver,
            node_settings: parts.node_settings,
            default_engine: parts.default_engine,
            keep_jobs: parts.keep_jobs,
            body_silence: parts.body_silence,
            logs: LogRelay::default(),
            polls: crate::agents::polls::Polls::default(),
            token_numbers: tokio::sync::Mutex::new(()),
            image_names: tokio::sync::Mutex::new(()),
            sweep: SweepGate::default(),
            merge_waits: MergeWaits::default(),
            stop,
            tasks,
            _lock: parts.lock,
        }
    }

    /// A job is deleted: drops what is kept of it, and lets what it left be removed soon.
    pub(crate) fn forget(&self, job: JobId) {
        self.plans.forget(job);
        self.sweep.wake();
    }
}

/// Runs what blocks on the disk on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, crate::error::ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| crate::error::ApiError::crashed())
}
