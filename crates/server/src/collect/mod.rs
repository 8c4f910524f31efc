//! After the last task: the server's own merges, what a merge command gets, and the sweeping of
//! blobs that nobody needs.

mod concat;
pub(crate) mod gate;
mod merge;
pub(crate) mod sweep;

pub(crate) use merge::{declared, merge_task, outputs_of};

use crate::shared::Shared;
use gleaner_model::JobId;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Starts what collects in the background.
pub(crate) fn start(shared: &Arc<Shared>, due: mpsc::UnboundedReceiver<JobId>) {
    shared.tasks.spawn(merges(Arc::clone(shared), due));
    shared.tasks.spawn(sweep::hourly(Arc::clone(shared)));
}

/// One merge after the other: each is bound by the disk, not by the number of them.
async fn merges(shared: Arc<Shared>, mut due: mpsc::UnboundedReceiver<JobId>) {
    let mut done = BTreeSet::new();
    loop {
        let job = tokio::select! {
            job = due.recv() => job,
            () = shared.stop.cancelled() => return,
        };
        let Some(job) = job else { return };
        // A rebuild of the driver may ask again for what is under way.
        if !done.insert(job) && merged(&shared, job).await {
            continue;
        }
        concat::merge(&shared, job).await;
    }
}

/// Whether the brain knows a job's merge already.
async fn merged(shared: &Shared, job: JobId) -> bool {
    let view = shared.driver.job(job).await.ok().flatten();
    view.is_none_or(|view| view.merged || view.state.is_over())
}
