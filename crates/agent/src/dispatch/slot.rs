//! What the loop keeps of one attempt beside its entry in the book.

use crate::dispatch::save::SlotSaves;
use crate::fetch::Inputs;
use crate::run::{JobTemplate, TaskPart, saving};
use crate::watch::roster::Held;
use gleaner_engine::{AttemptSpec, Ending, Engine};
use gleaner_model::{AttemptState, LeaseId, Limits, Time};
use gleaner_wire::v1;
use std::sync::Arc;
use tokio::task::AbortHandle;

/// One attempt.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) lease: LeaseId,
    pub(super) limits: Arc<Limits>,
    /// What to run; none where an earlier agent started it.
    pub(super) task: Option<(Arc<JobTemplate>, TaskPart)>,
    /// Its files, kept in the cache until it ends.
    pub(super) inputs: Inputs,
    /// How it ended, as its engine says.
    pub(super) ending: Option<Box<Ending>>,
    /// What the server is told, until it acknowledges.
    pub(super) report: Option<v1::Ended>,
    /// Whether the engine knows it: it must be discarded there in the end.
    pub(super) in_engine: bool,
    /// How it is saved, and what was.
    pub(super) saves: SlotSaves,
    /// A fetch or an upload on its way.
    pub(super) work: Option<AbortHandle>,
}

impl Slot {
    pub(super) fn granted(
        engine: &Arc<dyn Engine>,
        lease: LeaseId,
        template: &Arc<JobTemplate>,
        task: TaskPart,
    ) -> Self {
        Self {
            engine: Arc::clone(engine),
            lease,
            limits: Arc::clone(&template.limits),
            saves: SlotSaves::new(
                template.saving(&**engine),
                task.checkpoint.as_ref().map(|saved| saved.attempt),
                task.checkpoints,
            ),
            task: Some((Arc::clone(template), task)),
            inputs: Inputs::default(),
            ending: None,
            report: None,
            in_engine: false,
            work: None,
        }
    }

    pub(super) fn adopted(
        engine: &Arc<dyn Engine>,
        spec: &AttemptSpec,
        ending: Option<Box<Ending>>,
    ) -> Self {
        Self {
            engine: Arc::clone(engine),
            lease: spec.bundle,
            limits: Arc::new(spec.limits.clone()),
            task: None,
            saves: SlotSaves::new(
                saving(!spec.saving.files.is_empty(), spec.saving.every, &**engine),
                spec.saving.from,
                spec.saving.before,
            ),
            inputs: Inputs::default(),
            ending,
            report: None,
            in_engine: true,
            work: None,
        }
    }

    /// How the watch sees it once its engine has it.
    pub(super) fn held(&self, now: Time) -> Held {
        let template = self.task.as_ref().map(|(template, _)| template);
        Held {
            engine: Arc::clone(&self.engine),
            limits: Arc::clone(&self.limits),
            state: AttemptState::Fetching,
            since: now,
            name: template.map_or_else(String::new, |job| job.name.clone()),
            user: template.map_or_else(String::new, |job| job.user.clone()),
        }
    }

    /// Ends a transfer that nobody waits for any more.
    pub(super) fn abort(&self) {
        for work in [&self.work, &self.saves.work].into_iter().flatten() {
            work.abort();
        }
    }
}
