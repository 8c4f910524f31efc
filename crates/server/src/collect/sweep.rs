//! Removes blobs that no job needs: uploads whose job never came, results of attempts that were
//! not accepted.

use crate::contents::ContentError;
use crate::shared::{Shared, blocking};
use std::sync::Arc;
use std::time::Duration;

/// How often to sweep; once at the start too.
const EVERY: Duration = Duration::from_secs(3600);

/// How long a blob may be here before something needs it: a large job is uploaded in less, and
/// an agent keeps its results no longer.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// One sweep at a time.
#[derive(Debug, Default)]
pub(crate) struct SweepGate(tokio::sync::Mutex<()>);

pub(super) async fn hourly(shared: Arc<Shared>) {
    loop {
        once(&shared, GRACE).await;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

/// Sweeps once; what fails is tried again at the next turn.
pub(crate) async fn once(shared: &Arc<Shared>, grace: Duration) {
    let _one = shared.sweep.0.lock().await;
    let worker = Arc::clone(shared);
    let swept = blocking(move || {
        let store = Arc::clone(&worker.store);
        let needed = |digest: &_| store.is_referenced(digest).map_err(ContentError::from);
        worker.blobs.sweep(grace, needed)
    });
    match swept.await {
        Ok(Ok(swept)) if swept.removed > 0 => {
            tracing::info!(removed = swept.removed, bytes = swept.bytes, "swept blobs");
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "blobs could not be swept"),
        Err(_) => tracing::warn!("the sweep crashed"),
    }
}
