//! What each end of an attempt means for its task.

use crate::pool::{
    BAD, OK, Pool, acknowledged, attempt, bundles, held, hello, job, online, revoked, rows,
};
use crate::saves::saved;
use gleaner_core::{Event, POISON_LOSSES, Row, SHUN_MAX, Target};
use gleaner_model::{AttemptState, JobId, JobState, LimitKind, NodeId, Reason, Retry, TaskState};

fn text() -> String {
    "why".into()
}

#[test]
fn each_reason_counts_as_it_should() {
    // reason, counts as a failure, as an eviction, the row counts, the node is shunned
    let table = [
        (BAD, 1, 0, true, true),
        (Reason::Signal { signal: 11 }, 1, 0, true, true),
        (
            Reason::Limit {
                limit: LimitKind::Time,
            },
            1,
            0,
            true,
            true,
        ),
        (Reason::Integrity { detail: text() }, 1, 0, true, true),
        (Reason::Output { detail: text() }, 1, 0, true, true),
        (Reason::Fetch { detail: text() }, 1, 0, true, true),
        (Reason::Engine { detail: text() }, 1, 0, true, true),
        (Reason::NoProgram { program: text() }, 0, 0, false, true),
        (Reason::Evicted { detail: text() }, 0, 1, true, false),
        (Reason::Lost { detail: text() }, 0, 0, true, false),
        (Reason::Cancelled, 0, 0, false, false),
    ];
    for (reason, failures, evictions, counts, shunned) in table {
        let mut pool = Pool::with_nodes(&[1, 1]);
        pool.submit(job(1, 1));
        let actions = pool.end(1, attempt(1, 0, 1), reason.clone());
        let row = rows(&actions).into_iter().find_map(|row| match row {
            Row::Attempt(row) => Some(row),
            _ => None,
        });
        let row = row.expect("a row");
        assert_eq!(
            (row.counts, row.state),
            (counts, reason.state()),
            "{reason}"
        );
        let task = pool.task(1, 0);
        assert_eq!(
            (task.failures, task.evictions),
            (failures, evictions),
            "{reason}"
        );
        assert_eq!(task.reason, Some(reason.clone()));
        let (again, node, _) = task.running.expect("granted again");
        assert_eq!(again.number, 2);
        assert_eq!(node == NodeId(2), shunned, "{reason} on node {node}");
    }
}

#[test]
fn a_task_fails_for_good_at_its_last_try() {
    let mut pool = Pool::with_nodes(&[1]);
    let mut new = job(1, 1);
    new.retry.attempts = 2;
    pool.submit(new);
    pool.end(1, attempt(1, 0, 1), BAD);
    assert_eq!(pool.task_state(1, 0), TaskState::Running);
    pool.end(1, attempt(1, 0, 2), BAD);
    assert_eq!(pool.task_state(1, 0), TaskState::Failed);
    assert_eq!(pool.job(1).state, JobState::Failed);
}

#[test]
fn a_job_with_a_failed_task_goes_on_and_fails_at_the_end() {
    let mut pool = Pool::with_nodes(&[1]);
    let mut new = job(1, 2);
    new.retry.attempts = 1;
    pool.submit(new);
    pool.end(1, attempt(1, 0, 1), BAD);
    assert_eq!(pool.job(1).state, JobState::Running);
    pool.end(1, attempt(1, 1, 1), OK);
    let view = pool.job(1);
    assert_eq!((view.state, view.counts.done), (JobState::Failed, 1));
}

#[test]
fn too_many_evictions_end_a_task() {
    let mut pool = Pool::with_nodes(&[1]);
    let mut new = job(1, 1);
    new.retry = Retry {
        attempts: 1,
        max_evictions: 2,
    };
    pool.submit(new);
    for number in 1..=2 {
        pool.end(1, attempt(1, 0, number), Reason::Evicted { detail: text() });
        assert_eq!(pool.task_state(1, 0), TaskState::Running);
    }
    pool.end(1, attempt(1, 0, 3), Reason::Evicted { detail: text() });
    assert_eq!(pool.task_state(1, 0), TaskState::Failed);
}

#[test]
fn a_node_without_the_program_is_not_asked_again_until_its_next_hello() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 2));
    let lacks = Reason::NoProgram {
        program: "vina".into(),
    };
    let actions = pool.end(1, attempt(1, 0, 1), lacks);
    assert_eq!(bundles(&actions), []);
    assert_eq!(bundles(&pool.step(online(1))), []);
    let actions = pool.step(Event::Hello(hello(1, 1)));
    // Task 0 had no failure: it is simply the first again.
    assert_eq!(bundles(&actions)[0].tasks, [(0, 2)]);
}

#[test]
fn a_failed_node_is_used_again_only_when_no_other_would_do() {
    let mut pool = Pool::with_nodes(&[1, 1]);
    let (_, first) = pool.submit(job(1, 2));
    assert_eq!(first.len(), 2);
    // Node 2 is busy with task 1; task 0 failed on node 1 and waits for node 2.
    let actions = pool.end(1, attempt(1, 0, 1), BAD);
    assert_eq!(bundles(&actions), []);
    assert_eq!(pool.task_state(1, 0), TaskState::Ready);
    // Node 2 goes: now node 1 is the only one.
    let actions = pool.step(Event::Gone(NodeId(2)));
    let again = bundles(&actions);
    assert_eq!((again[0].node, again[0].tasks[0]), (NodeId(1), (0, 2)));
}

#[test]
fn a_late_success_counts_and_ends_the_other_attempt() {
    let mut pool = Pool::with_nodes(&[1, 1]);
    pool.submit(job(1, 1));
    pool.step(Event::Gone(NodeId(1)));
    pool.later(29);
    pool.step(online(2));
    pool.later(1);
    // Node 1 is lost, node 2 has the task now.
    pool.step(Event::Tick);
    assert_eq!(pool.task(1, 0).running.unwrap().0, attempt(1, 0, 2));
    let actions = pool.end(1, attempt(1, 0, 1), OK);
    assert_eq!(revoked(&actions), [(2, attempt(1, 0, 2))]);
    assert_eq!(acknowledged(&actions), [attempt(1, 0, 1)]);
    assert_eq!(pool.job(1).state, JobState::Done);
    // The other one had ended too: acknowledged, and nothing more.
    let actions = pool.end(2, attempt(1, 0, 2), OK);
    assert_eq!((actions.len(), acknowledged(&actions).len()), (1, 1));
}

#[test]
fn a_late_failure_is_kept_and_counts_nothing() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    pool.step(Event::Progress(
        NodeId(1),
        attempt(1, 0, 1),
        AttemptState::Running,
    ));
    pool.later(30);
    pool.step(Event::Tick);
    assert_eq!(pool.task(1, 0).losses, 1);
    let actions = pool.end(1, attempt(1, 0, 1), BAD);
    let kept = |row: &Row| matches!(row, Row::Attempt(row) if !row.counts && row.record == [7]);
    assert!(rows(&actions).iter().any(kept));
    let task = pool.task(1, 0);
    assert_eq!(
        (task.failures, task.losses, task.state),
        (0, 0, TaskState::Ready)
    );
}

#[test]
fn a_success_that_nobody_granted_changes_nothing() {
    let mut pool = Pool::with_nodes(&[1, 1]);
    pool.submit(job(1, 1));
    for (node, number) in [(2, 1), (1, 2), (2, 2), (1, 0)] {
        let actions = pool.end(node, attempt(1, 0, number), OK);
        assert_eq!(rows(&actions), []);
        assert_eq!(acknowledged(&actions).len(), 1);
    }
    assert_eq!(pool.task_state(1, 0), TaskState::Running);
}

#[test]
fn a_lost_attempt_is_ended_by_the_node_that_had_it_and_no_other() {
    let mut pool = Pool::with_nodes(&[1, 1]);
    pool.submit(job(1, 1));
    pool.step(Event::Gone(NodeId(1)));
    pool.later(29);
    pool.step(online(2));
    pool.later(1);
    pool.step(Event::Tick);
    // Node 2 has the second attempt, and never had the first.
    let actions = pool.end(2, attempt(1, 0, 1), OK);
    assert_eq!(rows(&actions), []);
    assert_eq!(acknowledged(&actions), [attempt(1, 0, 1)]);
    assert_eq!(pool.task(1, 0).running.unwrap().0, attempt(1, 0, 2));
}

#[test]
fn a_late_success_of_a_task_that_has_failed_changes_nothing() {
    let mut pool = Pool::with_nodes(&[1, 1]);
    let mut new = job(1, 4);
    new.retry.attempts = 1;
    pool.submit(new);
    pool.step(Event::Gone(NodeId(1)));
    pool.later(29);
    pool.step(online(2));
    pool.later(1);
    pool.step(Event::Tick);
    // Node 2 runs one after the other; the task that node 1 had fails there.
    while pool.task_state(1, 0) != TaskState::Failed {
        let running = (0..4).find_map(|index| pool.task(1, index).running);
        let (running, ..) = running.unwrap();
        let failed = running.task.index == 0;
        pool.end(2, running, if failed { BAD } else { OK });
    }
    assert!(!pool.job(1).state.is_over());
    let actions = pool.end(1, attempt(1, 0, 1), OK);
    assert_eq!(rows(&actions), []);
    assert_eq!(acknowledged(&actions), [attempt(1, 0, 1)]);
    assert_eq!(pool.task_state(1, 0), TaskState::Failed);
}

#[test]
fn a_duplicate_is_acknowledged_and_counted_once() {
    let mut pool = Pool::with_nodes(&[1]);
    let mut new = job(1, 1);
    new.retry.attempts = 2;
    pool.submit(new);
    for _ in 0..3 {
        let actions = pool.end(1, attempt(1, 0, 1), BAD);
        assert_eq!(acknowledged(&actions), [attempt(1, 0, 1)]);
    }
    assert_eq!(pool.task(1, 0).failures, 1);
}

#[test]
fn a_lost_attempt_that_comes_back_goes_on_under_its_number() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    let one = attempt(1, 0, 1);
    pool.step(Event::Progress(NodeId(1), one, AttemptState::Running));
    pool.later(31);
    pool.step(Event::Tick);
    let mut again = hello(1, 1);
    again.held = vec![held(one, AttemptState::Running)];
    let actions = pool.step(Event::Hello(again));
    assert_eq!((bundles(&actions).len(), revoked(&actions).len()), (0, 0));
    let task = pool.task(1, 0);
    assert_eq!(task.running, Some((one, NodeId(1), AttemptState::Running)));
    assert_eq!(task.losses, 0);
    pool.end(1, one, OK);
    assert_eq!(pool.job(1).state, JobState::Done);
}

#[test]
fn a_lost_attempt_that_runs_elsewhere_is_revoked_when_it_comes_back() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    pool.later(31);
    pool.step(Event::Tick);
    pool.step(Event::Hello(hello(2, 1)));
    let mut again = hello(1, 1);
    again.held = vec![held(attempt(1, 0, 1), AttemptState::Running)];
    let actions = pool.step(Event::Hello(again));
    assert_eq!(revoked(&actions), [(1, attempt(1, 0, 1))]);
}

#[test]
fn a_task_that_takes_three_nodes_down_is_poison() {
    let mut pool = Pool::new();
    pool.submit(job(1, 1));
    for node in 1..=3 {
        pool.step(Event::Hello(hello(node, 1)));
        let running = pool.task(1, 0).running.unwrap().0;
        pool.step(Event::Progress(
            NodeId(node),
            running,
            AttemptState::Running,
        ));
        pool.later(31);
        pool.step(Event::Tick);
    }
    let task = pool.task(1, 0);
    assert_eq!(task.state, TaskState::Failed);
    assert!(task.reason.unwrap().to_string().contains("poison"));
    let view = pool.job(1);
    assert_eq!(view.state, JobState::Failed);
    assert!(view.reason.contains("poison"), "{}", view.reason);
}

#[test]
fn losing_one_node_again_and_again_or_before_a_start_is_no_poison() {
    for running in [true, false] {
        let mut pool = Pool::new();
        pool.submit(job(1, 1));
        for round in 0..POISON_LOSSES - 1 {
            let node = if running {
                1
            } else {
                1 + u32::try_from(round).unwrap()
            };
            pool.step(Event::Hello(hello(node, 1)));
            let now = pool.task(1, 0).running.unwrap().0;
            if running {
                pool.step(Event::Progress(NodeId(node), now, AttemptState::Running));
            }
            pool.later(31);
            pool.step(Event::Tick);
        }
        assert_eq!(pool.task_state(1, 0), TaskState::Ready);
    }
}

/// The only node runs a task and is silent for longer than a lease, this often. With `saves` the
/// task saves something new first.
fn lose_the_only_node(pool: &mut Pool, times: usize, saves: impl Fn(usize) -> Option<u8>) {
    for round in 0..times {
        pool.step(Event::Hello(hello(1, 1)));
        let Some((now, _, _)) = pool.task(1, 0).running else {
            return;
        };
        pool.step(Event::Progress(NodeId(1), now, AttemptState::Running));
        if let Some(content) = saves(round) {
            let taken = 10 + round as u64;
            pool.step(Event::Saved(NodeId(1), now, saved(taken, content)));
        }
        pool.later(31);
        pool.step(Event::Tick);
    }
}

#[test]
fn a_task_that_takes_the_only_node_down_again_and_again_is_poison() {
    let mut pool = Pool::new();
    pool.submit(job(1, 1));
    lose_the_only_node(&mut pool, POISON_LOSSES - 1, |_| None);
    assert_eq!(pool.task_state(1, 0), TaskState::Ready);
    // What was counted is durable.
    pool.restart();
    lose_the_only_node(&mut pool, 1, |_| None);
    let view = pool.job(1);
    assert_eq!(view.state, JobState::Failed);
    assert!(view.reason.contains("poison"), "{}", view.reason);
    // A retry is a fresh set of tries.
    pool.step(Event::Retry(Target::Job(JobId(1))));
    lose_the_only_node(&mut pool, POISON_LOSSES - 1, |_| None);
    assert_eq!(pool.task_state(1, 0), TaskState::Ready);
}

#[test]
fn what_a_task_saves_counts_as_progress_only_where_it_is_new() {
    // (what it saves in each round, whether it is poison in the end)
    type Saves = fn(usize) -> Option<u8>;
    let table: [(&str, Saves, bool); 4] = [
        (
            "something new each time",
            |round| u8::try_from(round).ok(),
            false,
        ),
        ("the same each time", |_| Some(7), true),
        (
            "something new at first",
            |round| (round == 0).then_some(1),
            true,
        ),
        ("nothing", |_| None, true),
    ];
    for (what, saves, poison) in table {
        let mut pool = Pool::new();
        pool.submit(job(1, 1));
        lose_the_only_node(&mut pool, 3 * POISON_LOSSES, saves);
        let failed = pool.task_state(1, 0) == TaskState::Failed;
        assert_eq!(failed, poison, "{what}");
    }
}

#[test]
fn three_nodes_are_no_poison_where_each_brought_the_task_further() {
    let mut pool = Pool::new();
    pool.submit(job(1, 1));
    for node in 1..=9 {
        pool.step(Event::Hello(hello(node, 1)));
        let now = pool.task(1, 0).running.unwrap().0;
        pool.step(Event::Progress(NodeId(node), now, AttemptState::Running));
        let new = saved(u64::from(node), u8::try_from(node).unwrap());
        pool.step(Event::Saved(NodeId(node), now, new));
        pool.later(31);
        pool.step(Event::Tick);
        assert_eq!(pool.task(1, 0).losses, 1);
    }
    assert_eq!(pool.task_state(1, 0), TaskState::Ready);
}

#[test]
fn a_shunned_node_will_do_when_the_others_stay_busy() {
    let mut pool = Pool::with_nodes(&[1, 1]);
    let (_, first) = pool.submit(job(1, 1));
    let (_, second) = pool.submit(job(2, 1));
    let node = |bundles: &[gleaner_core::Bundle]| bundles[0].node;
    let (busy, failing) = (node(&first), node(&second));
    assert_ne!(busy, failing);
    pool.end(failing.0, attempt(2, 0, 1), BAD);
    // The other node has something to do for a day.
    let wait = SHUN_MAX.ms / 1000;
    for second in 0..=wait {
        assert_eq!(pool.task_state(2, 0), TaskState::Ready, "after {second} s");
        pool.later(1);
        pool.step(online(1));
        pool.step(online(2));
        pool.step(Event::Tick);
    }
    let (again, on, _) = pool.task(2, 0).running.expect("granted again");
    assert_eq!((again.number, on), (2, failing));
    assert_eq!(pool.task_state(1, 0), TaskState::Running);
}
