//! After the last task: the server's own merges, what a merge command gets, and the sweeping of
//! blobs that nobody needs.

mod concat;
pub(crate) mod gate;
mod merge;
pub(crate) mod sweep;
pub(crate) mod waits;

pub(crate) use merge::{declared, merge_task, outputs_of};

use crate::shared::Shared;
use gleaner_model::JobId;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long the merges that wait, for space on a full disk say, wait for the next try of one.
const AGAIN: Duration = Duration::from_secs(2);

/// Starts what collects in the background.
pub(crate) fn start(shared: &Arc<Shared>, due: mpsc::UnboundedReceiver<JobId>) {
    shared.tasks.spawn(merges(Arc::clone(shared), due));
    shared.tasks.spawn(sweep::hourly(Arc::clone(shared)));
}

/// One merge after the other: each is bound by the disk, not by the number of them. One that cannot
/// be done now goes behind the others, and is let go with its job.
async fn merges(shared: Arc<Shared>, mut due: mpsc::UnboundedReceiver<JobId>) {
    let mut waiting = VecDeque::new();
    let mut again = Instant::now();
    loop {
        let (job, tried) = tokio::select! {
            job = due.recv() => (job, false),
            () = tokio::time::sleep_until(again), if !waiting.is_empty() => {
                (waiting.pop_front(), true)
            }
            () = shared.stop.cancelled() => return,
        };
        let Some(job) = job else { return };
        // A rebuild of the driver may ask again for what is under way.
        if waiting.contains(&job) {
            continue;
        }
        let outcome = match wanted(&shared, job).await {
            true => concat::merge(&shared, job, tried).await,
            false => Ok(()),
        };
        match outcome {
            Ok(()) => shared.merge_waits.over(job),
            Err(why) => {
                tracing::warn!(%job, why, "a merge waits");
                shared.merge_waits.waits(job, why);
                waiting.push_back(job);
                again = Instant::now() + AGAIN;
            }
        }
    }
}

/// Whether a job still waits for its merge. A driver in trouble does not know.
async fn wanted(shared: &Shared, job: JobId) -> bool {
    match shared.driver.job(job).await {
        Ok(view) => view.is_some_and(|view| !view.state.is_over()),
        Err(_) => true,
    }
}
