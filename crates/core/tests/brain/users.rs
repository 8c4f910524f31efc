//! What users combine: merges, priorities, retries of whole and part.

use crate::pool::{
    BAD, OK, Pool, acknowledged, attempt, bundles, held, hello, job, need, refusal, reply, revoked,
    rows,
};
use gleaner_core::{Action, Event, MergeKind, Reply, Row, Target};
use gleaner_model::{AttemptState, JobId, JobState, TaskId, TaskState};

fn with_command(count: u32) -> gleaner_core::NewJob {
    let mut new = job(1, count);
    new.merge = MergeKind::Command;
    new.retry.attempts = 1;
    new
}

#[test]
fn a_merge_command_runs_after_all_others() {
    let mut pool = Pool::with_nodes(&[4]);
    let (_, first) = pool.submit(with_command(2));
    assert_eq!(first[0].tasks, [(0, 1), (1, 1)]);
    assert_eq!(pool.task_state(1, 2), TaskState::Waiting);
    pool.end(1, attempt(1, 0, 1), OK);
    let actions = pool.end(1, attempt(1, 1, 1), OK);
    assert_eq!(bundles(&actions)[0].tasks, [(2, 1)]);
    pool.end(1, attempt(1, 2, 1), OK);
    assert_eq!(pool.job(1).state, JobState::Done);
}

#[test]
fn a_merge_command_never_runs_when_a_task_failed_and_runs_after_its_retry() {
    let mut pool = Pool::with_nodes(&[4]);
    pool.submit(with_command(2));
    pool.end(1, attempt(1, 0, 1), BAD);
    pool.end(1, attempt(1, 1, 1), OK);
    assert_eq!(pool.job(1).state, JobState::Failed);
    assert_eq!(pool.task_state(1, 2), TaskState::Cancelled);
    // One task tried again is enough: the merge command follows.
    pool.step(Event::Retry(Target::Task(TaskId::new(JobId(1), 0))));
    assert_eq!(pool.task_state(1, 2), TaskState::Waiting);
    let actions = pool.end(1, attempt(1, 0, 2), OK);
    assert_eq!(bundles(&actions)[0].tasks, [(2, 2)]);
    pool.end(1, attempt(1, 2, 2), OK);
    assert_eq!(pool.job(1).state, JobState::Done);
}

#[test]
fn a_failed_merge_command_can_be_tried_again() {
    let mut pool = Pool::with_nodes(&[4]);
    pool.submit(with_command(1));
    pool.end(1, attempt(1, 0, 1), OK);
    pool.end(1, attempt(1, 1, 1), BAD);
    assert_eq!(pool.job(1).state, JobState::Failed);
    let actions = pool.step(Event::Retry(Target::Job(JobId(1))));
    assert_eq!(bundles(&actions)[0].tasks, [(1, 2)]);
    pool.end(1, attempt(1, 1, 2), OK);
    assert_eq!(pool.job(1).state, JobState::Done);
}

#[test]
fn a_cancelled_job_is_tried_again_as_a_whole() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 3));
    pool.end(1, attempt(1, 0, 1), OK);
    pool.step(Event::Cancel(Target::Job(JobId(1))));
    pool.restart();
    pool.step(Event::Hello(hello(1, 1)));
    let actions = pool.step(Event::Retry(Target::Job(JobId(1))));
    assert_eq!(bundles(&actions)[0].tasks, [(1, 2)]);
    // A report of the time before is of no attempt that could still count.
    pool.end(1, attempt(1, 1, 1), OK);
    assert_eq!(pool.task_state(1, 1), TaskState::Running);
    pool.end(1, attempt(1, 1, 2), OK);
    pool.end(1, attempt(1, 2, 2), OK);
    assert_eq!(pool.job(1).state, JobState::Done);
}

#[test]
fn cancel_while_merging_ends_the_job_and_ignores_the_merge() {
    let mut pool = Pool::with_nodes(&[1]);
    let mut new = job(1, 1);
    new.merge = MergeKind::Concat;
    pool.submit(new);
    pool.end(1, attempt(1, 0, 1), OK);
    pool.step(Event::Cancel(Target::Job(JobId(1))));
    assert_eq!(pool.job(1).state, JobState::Cancelled);
    let merged = Event::Merged {
        job: JobId(1),
        failed: None,
    };
    assert_eq!(pool.step(merged), []);
    assert_eq!(pool.job(1).state, JobState::Cancelled);
}

#[test]
fn priority_goes_first_and_then_the_older_job() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    let order = [(0, 2_u64), (5, 3), (0, 4), (5, 5), (-1, 6)];
    for (priority, _) in order {
        let mut new = job(1, 1);
        new.priority = priority;
        pool.submit(new);
    }
    let mut now = 1;
    let mut seen = Vec::new();
    for _ in 0..5 {
        let actions = pool.end(1, attempt(now, 0, 1), OK);
        now = bundles(&actions)[0].job.0;
        seen.push(now);
    }
    assert_eq!(seen, [3, 5, 2, 4, 6]);
}

#[test]
fn a_paused_job_that_has_nothing_left_is_over() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    pool.step(Event::PauseJob(JobId(1)));
    pool.end(1, attempt(1, 0, 1), OK);
    let view = pool.job(1);
    assert_eq!((view.state, view.paused), (JobState::Done, false));
}

#[test]
fn a_job_without_anything_yet_waits() {
    let mut pool = Pool::new();
    let mut new = job(1, 4);
    new.need = need(2);
    pool.submit(new);
    let view = pool.job(1);
    assert_eq!(
        (view.state, view.started, view.counts.ready),
        (JobState::Waiting, None, 4)
    );
    let actions = pool.step(Event::Cancel(Target::Task(TaskId::new(JobId(1), 3))));
    assert!(actions.contains(&Action::Changed { job: JobId(1) }));
    assert_eq!(pool.job(1).state, JobState::Waiting);
}

#[test]
fn event_delete_forgets_a_job_that_is_over_and_refuses_any_other() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 2));
    let refused = pool.step(Event::Delete(JobId(1)));
    assert!(refusal(&refused).contains("`gleaner cancel 1`"));
    pool.end(1, attempt(1, 0, 1), BAD);
    pool.step(Event::Cancel(Target::Job(JobId(1))));
    let deleted = pool.step(Event::Delete(JobId(1)));
    assert_eq!(reply(&deleted), Reply::Accepted(2));
    assert_eq!(rows(&deleted), [Row::JobGone(JobId(1))]);
    assert_eq!(pool.state.job(JobId(1)), None);
    let again = pool.step(Event::Delete(JobId(1)));
    assert!(refusal(&again).contains("no job 1"));
}

#[test]
fn the_id_of_a_deleted_job_is_not_used_again_and_late_reports_of_it_are_nobodys() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    pool.end(1, attempt(1, 0, 1), OK);
    pool.step(Event::Delete(JobId(1)));
    pool.restart();
    let mut back = hello(1, 1);
    back.held = vec![held(attempt(1, 0, 1), AttemptState::Running)];
    let actions = pool.step(Event::Hello(back));
    assert_eq!(revoked(&actions), [(1, attempt(1, 0, 1))]);
    let late = pool.end(1, attempt(1, 0, 1), OK);
    assert_eq!((rows(&late), acknowledged(&late).len()), (Vec::new(), 1));
    assert_eq!(pool.submit(job(1, 1)).0, JobId(2));
}
