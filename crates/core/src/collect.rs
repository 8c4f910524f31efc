//! When is a job over, and what then: its state, its merge, its last row.

use crate::event::MergeKind;
use crate::job::Job;
use crate::state::State;
use crate::{Action, Reply};
use alloc::format;
use alloc::string::{String, ToString};
use gleaner_model::{JobId, JobState};

impl State {
    /// Looks whether a job is over after tasks of it changed, and moves it on: lets its merge
    /// command go, asks for its merge, or closes it. A job with a failed task goes on with the
    /// others and is `running` until nothing is left to run.
    pub(crate) fn settle(&mut self, id: JobId) {
        self.mark(id);
        let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.state.is_over()) else {
            return;
        };
        if job.held && job.done.len() == u64::from(job.spec.count) {
            job.held = false;
            job.ready.insert(job.spec.count);
            self.reindex(id);
            self.wake.insert(id);
            return;
        }
        if !job.is_quiet() {
            return;
        }
        if job.held {
            // It can never run: some task it waits for is not done.
            job.held = false;
            job.cancelled.insert(job.spec.count);
        }
        let (failed, cancelled) = (job.failed.len(), job.cancelled.len());
        if failed > 0 {
            let reason = failed_reason(job);
            self.finish_job(id, JobState::Failed, reason);
        } else if cancelled > 0 {
            let (total, done) = (job.total(), job.done.len());
            let reason = format!("{cancelled} of {total} tasks cancelled, {done} done");
            self.finish_job(id, JobState::Cancelled, reason);
        } else if job.spec.merge == MergeKind::Concat && !job.merged {
            if !job.merging {
                job.merging = true;
                self.out.push(Action::Merge { job: id });
            }
        } else {
            self.finish_job(id, JobState::Done, String::new());
        }
    }

    pub(crate) fn on_merged(&mut self, id: JobId, failed: Option<String>) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.merging) else {
            // The job was cancelled meanwhile, or the answer came twice.
            return;
        };
        job.merging = false;
        if let Some(problem) = failed {
            let reason = format!("its results could not be merged: {problem}");
            self.finish_job(id, JobState::Failed, reason);
        } else {
            job.merged = true;
            self.finish_job(id, JobState::Done, String::new());
        }
    }

    /// Closes a job. All its tasks are done, failed or cancelled.
    pub(crate) fn finish_job(&mut self, id: JobId, state: JobState, reason: String) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.close();
        job.state = state;
        job.reason = reason;
        job.ended = Some(self.now);
        let excluded = core::mem::take(&mut job.excluded);
        let need = job.need;
        for node in excluded {
            if let Some(node) = self.nodes.get_mut(&node) {
                node.lacks.remove(&id);
            }
        }
        self.troubled.remove(&id);
        self.let_all_go(id);
        self.reindex(id);
        self.needs.release(need);
        self.store_job(id);
    }

    /// Works out the state of a job that is not over, and stores it if it changed.
    pub(crate) fn update(&mut self, id: JobId) {
        self.mark(id);
        let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.state.is_over()) else {
            return;
        };
        let state = if job.paused {
            JobState::Paused
        } else if job.started.is_some() {
            JobState::Running
        } else {
            JobState::Waiting
        };
        if state != job.state {
            job.state = state;
            self.store_job(id);
        }
    }

    /// Its row is written at the end of the step.
    pub(crate) fn store_job(&mut self, id: JobId) {
        self.unsaved.insert(id);
        self.mark(id);
    }

    /// Somebody may wait for a change of this job.
    pub(crate) fn mark(&mut self, id: JobId) {
        if !self.changed.contains(&id) {
            self.changed.push(id);
        }
    }

    pub(crate) fn reply(&mut self, reply: Reply) {
        self.out.push(Action::Reply(reply));
    }
}

fn failed_reason(job: &Job) -> String {
    let first = job.failed.set().first().unwrap_or_default();
    let why = job
        .trouble
        .get(&first)
        .and_then(|trouble| trouble.reason.as_ref())
        .map_or_else(|| "see its record".to_string(), ToString::to_string);
    format!(
        "{} of {} tasks failed; task {}.{first}: {why}",
        job.failed.len(),
        job.total(),
        job.id,
    )
}
