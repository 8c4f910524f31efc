//! Reports of ended attempts: what each one means for its task.
//!
//! The first success ends a task, even if its lease was over meanwhile, provided that the attempt
//! was really granted to that node. Every report is acknowledged, also one that changes nothing:
//! the node may then forget it.

use crate::attempt::{Open, Trouble};
use crate::checkpoint::Cause;
use crate::event::AttemptEnd;
use crate::lease::Way;
use crate::row::{AttemptRow, Row};
use crate::state::State;
use crate::{Action, NewJob};
use gleaner_model::{AttemptState, NodeId, Reason, TaskState};

impl State {
    pub(crate) fn on_ended(&mut self, end: AttemptEnd) {
        let (node, attempt) = (end.node, end.attempt);
        if self.runs(attempt, node) {
            self.ended_in_lease(end);
        } else if self.is_open(attempt, node) {
            self.ended_late(end);
        }
        self.out.push(Action::Acknowledge {
            node,
            attempts: [attempt].into(),
        });
    }

    /// A report for an attempt that the node has a lease for.
    fn ended_in_lease(&mut self, end: AttemptEnd) {
        let (task, node) = (end.attempt.task, end.node);
        self.release(task);
        self.refill = Some((node, task.job));
        self.account(&end);
        if end.reason.is_success() {
            self.succeed(end);
        } else {
            self.try_again(end);
        }
        self.settle(task.job);
    }

    /// A report for an attempt whose lease was over.
    fn ended_late(&mut self, mut end: AttemptEnd) {
        let task = end.attempt.task;
        let Some(job) = self.jobs.get_mut(&task.job) else {
            return;
        };
        if job.state.is_over() || job.task_state(task.index).is_over() {
            return;
        }
        if !end.reason.is_success() {
            // The task has been given to others meanwhile. What the report says is kept, and
            // the loss is no loss any more; nothing is counted.
            let ended = matches!(
                end.reason.state(),
                AttemptState::Failed | AttemptState::Evicted
            );
            if let Some(trouble) = job.trouble.get_mut(&task.index) {
                let number = end.attempt.number;
                trouble.open.retain(|open| open.number != number || !ended);
                for open in trouble.open.iter_mut().filter(|o| o.number == number) {
                    open.ran = false;
                }
            }
            self.keep_end(&mut end);
            self.write_end(end, false, None);
            return;
        }
        if let Some((run, on)) = self.run_of(task) {
            let other = task.attempt(run.number);
            self.leave(other, on, Way::Revoked);
            self.revoke([(on, [other].into())].into());
        } else if let Some(job) = self.jobs.get_mut(&task.job) {
            job.pull(task.index);
            if job.again.is_empty() {
                self.troubled.remove(&task.job);
            }
            self.reindex(task.job);
        }
        self.account(&end);
        self.succeed(end);
        self.settle(task.job);
    }

    /// Charges the user and learns the job's pace.
    fn account(&mut self, end: &AttemptEnd) {
        let Some(job) = self.jobs.get_mut(&end.attempt.task.job) else {
            return;
        };
        if end.reason.is_success() {
            job.note_pace(end.busy_seconds);
        }
        let user = job.spec.user;
        self.charge(user, end.cpu_seconds);
        self.learn(end);
    }

    fn succeed(&mut self, end: AttemptEnd) {
        let task = end.attempt.task;
        if let Some(job) = self.jobs.get_mut(&task.job) {
            job.done.insert(task.index);
            if !job.trouble.is_empty() {
                job.trouble.remove(&task.index);
            }
        }
        self.let_go(task);
        self.write_end(end, false, Some(TaskState::Done));
    }

    /// Stores what came with an attempt's end, in the same batch as the end itself.
    fn keep_end(&mut self, end: &mut AttemptEnd) {
        let cause = match matches!(end.reason, Reason::Checkpointed { .. }) {
            true => Cause::Itself,
            false => Cause::Copied,
        };
        if let Some(saved) = end.saved.take() {
            self.keep(end.attempt, saved, cause);
        }
    }

    fn try_again(&mut self, mut end: AttemptEnd) {
        let (task, node) = (end.attempt.task, end.node);
        let moved = end.saved.is_some();
        self.keep_end(&mut end);
        let stuck = self.stuck(task).filter(|_| moved);
        let over = stuck.is_some();
        if let Some(detail) = stuck {
            end.reason = Reason::Checkpointed { detail };
        }
        // What does not restore is of no use, and a task without it is no worse than a new one.
        let anew = matches!(end.reason, Reason::Unrestored { .. }) && self.let_go(task);
        let Some(job) = self.jobs.get_mut(&task.job) else {
            return;
        };
        let since = job.since(task.index);
        let trouble = job.trouble.entry(task.index).or_default();
        trouble.last = trouble.last.max(end.attempt.number);
        let verdict = match (over, anew || moved) {
            (true, _) => Verdict::Over,
            (false, true) => Verdict::Nothing,
            (false, false) => judge(trouble, &end, &job.spec, since),
        };
        trouble.reason = Some(end.reason.clone());
        if let Some(detail) = trouble.poison(since).filter(|_| verdict == Verdict::Over) {
            trouble.reason = Some(Reason::Lost { detail });
        }
        if verdict == Verdict::Lacks {
            job.excluded.insert(node);
            if let Some(node) = self.nodes.get_mut(&node) {
                node.lacks.insert(task.job);
            }
        }
        let over = verdict == Verdict::Over;
        let counts = over || verdict == Verdict::Counts;
        self.write_end(end, counts, over.then_some(TaskState::Failed));
        if over {
            self.fail_task(task);
        } else {
            self.put_back(task);
        }
    }

    fn write_end(&mut self, end: AttemptEnd, counts: bool, task_over: Option<TaskState>) {
        self.rows.push(Row::Attempt(AttemptRow {
            attempt: end.attempt,
            node: end.node,
            state: end.reason.state(),
            at: self.now,
            counts,
            no_program: matches!(end.reason, Reason::NoProgram { .. }),
            task_over,
            record: end.record,
        }));
    }
}

/// What an end without success means for its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing: try again.
    Nothing,
    /// Counted against a limit: try again.
    Counts,
    /// The node lacks the program: try elsewhere.
    Lacks,
    /// The limit is reached: the task has failed for good.
    Over,
}

fn judge(trouble: &mut Trouble, end: &AttemptEnd, spec: &NewJob, since: u32) -> Verdict {
    let counted = |over: bool| if over { Verdict::Over } else { Verdict::Counts };
    let open = |node: NodeId, ran: bool| Open {
        number: end.attempt.number,
        node,
        ran,
    };
    if matches!(end.reason, Reason::NoProgram { .. }) {
        return Verdict::Lacks;
    }
    match end.reason.state() {
        AttemptState::Evicted => {
            trouble.evictions += 1;
            counted(trouble.evictions > spec.retry.max_evictions)
        }
        AttemptState::Lost => {
            trouble.open.push(open(end.node, true));
            counted(trouble.poison(since).is_some())
        }
        AttemptState::Cancelled => {
            trouble.open.push(open(end.node, false));
            Verdict::Nothing
        }
        AttemptState::Leased
        | AttemptState::Fetching
        | AttemptState::Running
        | AttemptState::Paused
        | AttemptState::Finished
        | AttemptState::Failed
        // Without what it saved it is a failure: it would begin anew for ever.
        | AttemptState::Checkpointed => {
            trouble.failures += 1;
            trouble.shun(end.node);
            counted(trouble.failures >= spec.retry.attempts)
        }
    }
}
