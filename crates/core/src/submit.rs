//! What users ask of jobs and tasks: submit, cancel, pause, resume, retry, delete.

use crate::event::{NewJob, Target};
use crate::job::Job;
use crate::lease::Way;
use crate::row::Row;
use crate::state::State;
use crate::{Refusal, Reply};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use gleaner_model::{
    AttemptId, IntervalSet, JobId, JobState, MAX_TASKS, NodeId, TaskId, TaskState,
};

impl State {
    pub(crate) fn on_submit(&mut self, mut spec: NewJob) {
        if let Err(problem) = sensible(&spec) {
            self.reply(Reply::Refused(Refusal::State(problem)));
            return;
        }
        self.last_job += 1;
        let id = JobId(self.last_job);
        let body = core::mem::take(&mut spec.body);
        self.rows.push(Row::NewJob(
            id,
            self.now,
            NewJob {
                body,
                ..spec.clone()
            },
        ));
        let need = self.intern(&spec.need);
        self.meet(spec.user);
        self.jobs.insert(id, Job::new(id, need, self.now, spec));
        self.store_job(id);
        self.reindex(id);
        self.wake.insert(id);
        self.reply(Reply::Submitted(id));
    }

    pub(crate) fn on_cancel(&mut self, target: Target) {
        let done = match target {
            Target::Job(job) => self.cancel_job(job),
            Target::Task(task) => self.cancel_task(task),
        };
        self.reply(done.map_or_else(Reply::Refused, Reply::Accepted));
    }

    fn cancel_job(&mut self, id: JobId) -> Result<u64, Refusal> {
        self.open_job(id)?;
        let runs: Vec<(u32, u32)> = self
            .jobs
            .get(&id)
            .map(|job| {
                job.running
                    .iter()
                    .map(|(i, run)| (*i, run.number))
                    .collect()
            })
            .unwrap_or_default();
        let mut revoked: BTreeMap<NodeId, Vec<AttemptId>> = BTreeMap::new();
        for (index, number) in &runs {
            self.call_back(TaskId::new(id, *index).attempt(*number), &mut revoked);
        }
        self.revoke(revoked);
        let Some(job) = self.jobs.get_mut(&id) else {
            return Err(Refusal::NoJob(id));
        };
        let before = job.cancelled.len();
        job.cancelled.absorb(&core::mem::take(&mut job.ready));
        for group in core::mem::take(&mut job.again).into_values() {
            job.cancelled.absorb(&group);
        }
        for (index, _) in &runs {
            job.cancelled.insert(*index);
        }
        if job.held {
            job.cancelled.insert(job.spec.count);
        }
        let touched = job.cancelled.len() - before;
        self.finish_job(id, JobState::Cancelled, "cancelled by its user".into());
        Ok(touched)
    }

    fn cancel_task(&mut self, task: TaskId) -> Result<u64, Refusal> {
        self.open_job(task.job)?;
        let state = self.known_task(task)?;
        if state.is_over() {
            let text = format!("task {task} is {state} already");
            return Err(Refusal::State(text));
        }
        if let Some((run, _)) = self.run_of(task) {
            let mut revoked = BTreeMap::new();
            self.call_back(task.attempt(run.number), &mut revoked);
            self.revoke(revoked);
        }
        if let Some(job) = self.jobs.get_mut(&task.job) {
            if job.held && task.index == job.spec.count {
                job.held = false;
            } else {
                job.pull(task.index);
            }
            job.cancelled.insert(task.index);
            if job.again.is_empty() {
                self.troubled.remove(&task.job);
            }
        }
        self.let_go(task);
        self.reindex(task.job);
        self.store_job(task.job);
        self.settle(task.job);
        Ok(1)
    }

    /// Takes an attempt off its node and notes that the node must be told.
    fn call_back(&mut self, attempt: AttemptId, told: &mut BTreeMap<NodeId, Vec<AttemptId>>) {
        if let Some((_, node)) = self.run_of(attempt.task) {
            self.leave(attempt, node, Way::Revoked);
            told.entry(node).or_default().push(attempt);
        }
    }

    pub(crate) fn on_pause(&mut self, id: JobId) {
        self.set_paused(id, true);
    }

    pub(crate) fn on_resume(&mut self, id: JobId) {
        self.set_paused(id, false);
    }

    fn set_paused(&mut self, id: JobId, paused: bool) {
        if let Err(refusal) = self.open_job(id) {
            self.reply(Reply::Refused(refusal));
            return;
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if job.paused == paused {
            let word = if paused {
                "paused already"
            } else {
                "not paused"
            };
            let text = format!("job {id} is {word}");
            self.reply(Reply::Refused(Refusal::State(text)));
            return;
        }
        job.paused = paused;
        job.reason = if paused {
            "paused by its user".into()
        } else {
            String::new()
        };
        let touched = job.available();
        self.store_job(id);
        self.update(id);
        self.reindex(id);
        self.wake.insert(id);
        self.reply(Reply::Accepted(touched));
    }

    pub(crate) fn on_retry(&mut self, target: Target) {
        let done = match target {
            Target::Job(job) => self.retry_job(job),
            Target::Task(task) => self.retry_task(task),
        };
        self.reply(done.map_or_else(Reply::Refused, Reply::Accepted));
    }

    fn retry_job(&mut self, id: JobId) -> Result<u64, Refusal> {
        let job = self.jobs.get(&id).ok_or(Refusal::NoJob(id))?;
        let mut tasks = job.failed.set().clone();
        for (start, end) in job.cancelled.set().ranges() {
            tasks.insert_range(start, end);
        }
        let unmerged = job.state == JobState::Failed && tasks.is_empty();
        if tasks.is_empty() && !unmerged {
            let text = format!("job {id} has no failed or cancelled task to try again");
            return Err(Refusal::State(text));
        }
        self.resurrect(id, &tasks);
        Ok(tasks.len())
    }

    fn retry_task(&mut self, task: TaskId) -> Result<u64, Refusal> {
        let state = self.known_task(task)?;
        if !matches!(state, TaskState::Failed | TaskState::Cancelled) {
            let text =
                format!("task {task} is {state}; only failed or cancelled ones can be retried");
            return Err(Refusal::State(text));
        }
        self.resurrect(
            task.job,
            &IntervalSet::from_range(task.index, task.index + 1),
        );
        Ok(1)
    }

    pub(crate) fn on_delete(&mut self, id: JobId) {
        let done = self.delete_job(id);
        self.reply(done.map_or_else(Reply::Refused, Reply::Accepted));
    }

    /// A job that is over has no lease, no need and no place in a queue: nothing else names it.
    /// Reports of it that still come are of an unknown attempt.
    fn delete_job(&mut self, id: JobId) -> Result<u64, Refusal> {
        let job = self.jobs.get(&id).ok_or(Refusal::NoJob(id))?;
        if !job.state.is_over() {
            let text = format!(
                "job {id} is {}; `gleaner cancel {id}` ends it, then it can be deleted",
                job.state
            );
            return Err(Refusal::State(text));
        }
        let tasks = u64::from(job.total());
        self.jobs.remove(&id);
        self.rows.push(Row::JobGone(id));
        self.mark(id);
        Ok(tasks)
    }

    /// Makes failed or cancelled tasks ready again, with a fresh set of tries; the job too, if
    /// it was over.
    fn resurrect(&mut self, id: JobId, tasks: &IntervalSet) {
        let Some(over) = self.jobs.get(&id).map(|job| job.state.is_over()) else {
            return;
        };
        if over {
            self.reopen(id);
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let mut forgiven = Vec::new();
        for index in tasks.iter() {
            job.failed.remove(index);
            job.cancelled.remove(index);
            if let Some(trouble) = job.trouble.get_mut(&index) {
                forgiven.push((index, trouble.last.max(job.base)));
                trouble.forgive();
            }
            if job.spec.merge == crate::MergeKind::Command && index == job.spec.count {
                job.held = true;
            } else {
                job.put_back(index);
            }
        }
        if over {
            // Numbers go on above the base; nothing before it counts.
            job.trouble.clear();
        }
        if job.spec.merge == crate::MergeKind::Command && job.cancelled.contains(job.spec.count) {
            // Its merge command waited for these tasks, and can run now.
            job.cancelled.remove(job.spec.count);
            job.held = true;
        }
        if !forgiven.is_empty() {
            self.rows.push(Row::Forgiven(id, forgiven));
        }
        self.reindex(id);
        self.store_job(id);
        self.wake.insert(id);
        self.settle(id);
    }

    fn reopen(&mut self, id: JobId) {
        let Some(need) = self.jobs.get(&id).map(|job| job.spec.need.clone()) else {
            return;
        };
        let need = self.intern(&need);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.need = need;
            job.state = if job.started.is_some() {
                JobState::Running
            } else {
                JobState::Waiting
            };
            job.ended = None;
            job.reason = String::new();
        }
    }

    fn open_job(&self, id: JobId) -> Result<(), Refusal> {
        let job = self.jobs.get(&id).ok_or(Refusal::NoJob(id))?;
        if job.state.is_over() {
            let text = format!("job {id} is {} already", job.state);
            return Err(Refusal::State(text));
        }
        Ok(())
    }

    fn known_task(&self, task: TaskId) -> Result<TaskState, Refusal> {
        let job = self.jobs.get(&task.job).ok_or(Refusal::NoJob(task.job))?;
        let last = job.total() - 1;
        if task.index > last {
            return Err(Refusal::NoTask(task.job, task.index, last));
        }
        Ok(job.task_state(task.index))
    }
}

fn sensible(spec: &NewJob) -> Result<(), String> {
    if spec.count == 0 {
        return Err("the job splits into no task; give it at least one".into());
    }
    if u64::from(spec.count) > MAX_TASKS {
        return Err(format!(
            "the job splits into {} tasks; at most {MAX_TASKS} are possible, so submit it in parts",
            spec.count
        ));
    }
    if spec.need.cpus.milli == 0 {
        return Err("limits.cpus must be above 0".into());
    }
    Ok(())
}
