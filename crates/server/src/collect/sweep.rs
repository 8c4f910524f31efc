//! Removes what no job needs any more: rows that deleted jobs left, uploads whose job never came,
//! results of attempts that were not accepted; and, where the pool is set so, jobs that have been
//! over for long.

use crate::contents::ContentError;
use crate::driver::View;
use crate::shared::{Shared, blocking};
use gleaner_core::Event;
use gleaner_model::{JobId, Span, Time};
use std::sync::Arc;
use std::time::Duration;

/// How often to sweep; once at the start too.
const EVERY: Duration = Duration::from_secs(3600);

/// How long a blob may be here before something needs it: a large job is uploaded in less, and
/// an agent keeps its results no longer.
const GRACE: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn hourly(shared: Arc<Shared>) {
    let mut next = tokio::time::Instant::now();
    loop {
        if tokio::time::Instant::now() >= next {
            if let Some(keep) = shared.keep_jobs {
                expire(&shared, keep).await;
            }
            once(&shared, GRACE).await;
            next = tokio::time::Instant::now() + EVERY;
        } else {
            purge(&shared).await;
        }
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = shared.sweep.deleted.notified() => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

/// Deletes the jobs that were over before all that is kept.
pub(crate) async fn expire(shared: &Shared, keep: Span) {
    let due = move |view: &View<'_>| due(view, crate::wall::now(), keep);
    // A driver in trouble is asked again in an hour.
    for job in shared.driver.read(due).await.unwrap_or_default() {
        // Refused where it was retried meanwhile: it is not over then.
        if shared.driver.user(Event::Delete(job)).await.is_ok() {
            shared.forget(job);
        }
    }
}

fn due(view: &View<'_>, now: Time, keep: Span) -> Vec<JobId> {
    let jobs = view.state.jobs().into_iter();
    let old = |ended: Time| now.since(ended) > keep;
    jobs.filter(|job| job.state.is_over() && job.ended.is_some_and(old))
        .map(|job| job.id)
        .collect()
}

/// Removes the rows that deleted jobs left; what fails is tried again at the next turn.
pub(crate) async fn purge(shared: &Arc<Shared>) {
    loop {
        let store = Arc::clone(&shared.store);
        match blocking(move || store.purge()).await {
            Ok(Ok(true)) if !shared.stop.is_cancelled() => {}
            Ok(Ok(_)) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "what deleted jobs left stays for now");
                return;
            }
            Err(_) => {
                tracing::warn!("the removal of what deleted jobs left crashed");
                return;
            }
        }
    }
}

/// Sweeps once; what fails is tried again at the next turn.
pub(crate) async fn once(shared: &Arc<Shared>, grace: Duration) {
    let _one = shared.sweep.one.lock().await;
    purge(shared).await;
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
