//! What was saved of tasks: what counts, how long it stays, and what a restart keeps of it.

use crate::pool::{BAD, OK, Pool, attempt, bundles, ended, held, hello, job, online, rows};
use gleaner_core::{
    Action, Event, LEASE, NodeWish, Row, Rule, SHUN_MAX, STALLS_MAX, Saved, Target,
};
use gleaner_model::{
    AttemptId, AttemptState, Digest, JobId, JobState, NodeId, Reason, TaskState, Time,
};

pub(crate) fn saved(taken: u64, content: u8) -> Saved {
    Saved {
        taken: Time { ms: taken },
        content: Digest([content; 32]),
        machine: None,
        blobs: vec![Digest([content; 32])],
        record: vec![content],
    }
}

fn copied(node: u32, attempt: AttemptId, saved: Saved) -> Event {
    Event::Saved(NodeId(node), attempt, saved)
}

/// The program ended for it.
fn itself(node: u32, attempt: AttemptId, saved: Saved) -> Event {
    let detail = String::from("exit code 85");
    with(ended(node, attempt, Reason::Checkpointed { detail }), saved)
}

pub(crate) fn with(event: Event, saved: Saved) -> Event {
    match event {
        Event::Ended(mut end) => {
            end.saved = Some(saved);
            Event::Ended(end)
        }
        other => other,
    }
}

fn kept(actions: &[Action]) -> Option<bool> {
    actions.iter().find_map(|action| match action {
        Action::Kept { kept, .. } => Some(*kept),
        _ => None,
    })
}

fn stored(actions: &[Action]) -> Vec<String> {
    let rows = rows(actions).into_iter().filter_map(|row| match row {
        Row::Checkpoint(row) => Some(format!("{} {}", row.attempt, row.count)),
        Row::CheckpointOver(task) => Some(format!("{task} over")),
        _ => None,
    });
    rows.collect()
}

#[test]
fn event_saved_is_stored_before_the_node_hears_of_it_and_goes_with_the_next_grant() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    let actions = pool.step(copied(1, attempt(1, 0, 1), saved(5, 1)));
    assert_eq!(stored(&actions), ["1.0.1 1"]);
    assert_eq!(kept(&actions), Some(true));
    // It came twice.
    let actions = pool.step(copied(1, attempt(1, 0, 1), saved(5, 1)));
    assert_eq!((stored(&actions), kept(&actions)), (vec![], Some(true)));
    pool.step(copied(1, attempt(1, 0, 1), saved(6, 2)));
    assert_eq!(pool.task(1, 0).checkpoint, Some((2, attempt(1, 0, 1))));
    assert_eq!(pool.job(1).checkpoints, 2);
    let actions = pool.end(1, attempt(1, 0, 1), BAD);
    assert_eq!(bundles(&actions)[0].saved, [(0, 2)].into());
    let actions = pool.end(1, attempt(1, 0, 2), OK);
    assert_eq!(stored(&actions), ["1.0 over"]);
}

#[test]
fn what_nobody_granted_or_needs_is_not_kept() {
    let mut pool = Pool::with_nodes(&[1, 1]);
    pool.submit(job(1, 1));
    for (node, of) in [
        (2, attempt(1, 0, 1)),
        (1, attempt(1, 0, 2)),
        (1, attempt(9, 0, 1)),
    ] {
        let actions = pool.step(copied(node, of, saved(5, 1)));
        assert_eq!(
            (stored(&actions), kept(&actions)),
            (vec![], Some(false)),
            "{of}"
        );
    }
    pool.end(1, attempt(1, 0, 1), OK);
    let actions = pool.step(copied(1, attempt(1, 0, 1), saved(5, 1)));
    assert_eq!((stored(&actions), kept(&actions)), (vec![], Some(false)));
}

#[test]
fn an_end_by_the_program_itself_is_no_failure_and_is_charged() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    let before = pool.state.users()[0].used;
    for number in 1..=20 {
        let content = u8::try_from(number).unwrap();
        let actions = pool.step(itself(
            1,
            attempt(1, 0, number),
            saved(u64::from(number), content),
        ));
        assert_eq!(stored(&actions), [format!("1.0.{number} {number}")]);
        let row = rows(&actions).into_iter().find_map(|row| match row {
            Row::Attempt(row) => Some((row.state, row.counts, row.task_over)),
            _ => None,
        });
        assert_eq!(row, Some((AttemptState::Checkpointed, false, None)));
        assert_eq!(bundles(&actions)[0].tasks, [(0, number + 1)]);
    }
    let task = pool.task(1, 0);
    assert_eq!((task.failures, task.evictions), (0, 0));
    assert!(pool.state.users()[0].used >= before + 20.0 - 1e-3);
}

#[test]
fn a_program_that_changes_nothing_is_stopped_with_a_reason() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    // Another content starts the count anew.
    for (number, content) in [(1, 7), (2, 7), (3, 7), (4, 8)] {
        pool.step(itself(
            1,
            attempt(1, 0, number),
            saved(u64::from(number), content),
        ));
        assert_eq!(pool.task_state(1, 0), TaskState::Running);
    }
    pool.restart();
    let mut again = hello(1, 1);
    again.held = vec![held(attempt(1, 0, 5), AttemptState::Running)];
    pool.step(Event::Hello(again));
    let mut last = Vec::new();
    for number in 5..5 + STALLS_MAX {
        last = pool.step(itself(
            1,
            attempt(1, 0, number),
            saved(u64::from(number), 8),
        ));
    }
    assert_eq!(pool.job(1).state, JobState::Failed);
    let reason = pool.task(1, 0).reason.unwrap().to_string();
    assert!(reason.contains("same files each time"), "{reason}");
    assert_eq!(stored(&last).last().map(String::as_str), Some("1.0 over"));
}

#[test]
fn an_eviction_that_left_something_counts_no_more_than_a_checkpoint() {
    let mut pool = Pool::with_nodes(&[1]);
    let mut new = job(1, 1);
    new.retry.max_evictions = 0;
    pool.submit(new);
    let evicted = |number| {
        let detail = String::from("the node needs itself");
        ended(1, attempt(1, 0, number), Reason::Evicted { detail })
    };
    pool.step(with(evicted(1), saved(1, 1)));
    assert_eq!(pool.task_state(1, 0), TaskState::Running);
    pool.step(evicted(2));
    assert_eq!(pool.task_state(1, 0), TaskState::Failed);
}

#[test]
fn what_does_not_restore_is_dropped_and_the_task_begins_anew() {
    let mut pool = Pool::with_nodes(&[1]);
    let mut new = job(1, 1);
    new.retry.attempts = 1;
    pool.submit(new);
    pool.step(itself(1, attempt(1, 0, 1), saved(1, 1)));
    let unrestored = |number| {
        let detail = String::from("saved on another machine");
        ended(1, attempt(1, 0, number), Reason::Unrestored { detail })
    };
    let actions = pool.step(unrestored(2));
    assert_eq!(stored(&actions), ["1.0 over"]);
    assert!(bundles(&actions)[0].saved.is_empty());
    // Once more, with nothing to restore, it is a failure like others.
    pool.step(unrestored(3));
    assert_eq!(pool.task_state(1, 0), TaskState::Failed);
}

#[test]
fn what_a_lost_node_saved_last_still_counts_and_an_older_one_never_does() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    pool.step(copied(1, attempt(1, 0, 1), saved(1, 1)));
    pool.later(LEASE.ms / 1000 + 1);
    pool.step(Event::Tick);
    assert_eq!(pool.task_state(1, 0), TaskState::Ready);
    let actions = pool.step(copied(1, attempt(1, 0, 1), saved(2, 2)));
    assert_eq!(
        (stored(&actions), kept(&actions)),
        (vec!["1.0.1 2".into()], Some(true))
    );
    pool.step(Event::Hello(hello(2, 1)));
    pool.step(copied(2, attempt(1, 0, 2), saved(3, 3)));
    let actions = pool.step(copied(1, attempt(1, 0, 1), saved(4, 4)));
    assert_eq!((stored(&actions), kept(&actions)), (vec![], Some(false)));
    assert_eq!(pool.task(1, 0).checkpoint, Some((3, attempt(1, 0, 2))));
}

#[test]
fn it_goes_when_its_task_is_cancelled_alone_or_with_its_job() {
    let task = Target::Task(attempt(1, 0, 1).task);
    for target in [task, Target::Job(JobId(1))] {
        let mut pool = Pool::with_nodes(&[1]);
        pool.submit(job(1, 2));
        pool.step(copied(1, attempt(1, 0, 1), saved(1, 1)));
        let actions = pool.step(Event::Cancel(target));
        assert_eq!(stored(&actions), ["1.0 over"], "{target:?}");
    }
}

#[test]
fn a_guest_that_is_to_be_saved_waits_for_a_node_that_can() {
    let mut pool = Pool::with_nodes(&[4]);
    let mut new = job(1, 1);
    new.need.saves = true;
    pool.submit(new);
    assert_eq!(pool.task_state(1, 0), TaskState::Ready);
    let why = pool.state.explain(JobId(1)).unwrap();
    assert_eq!(why.rule.map(Rule::as_str), Some("checkpoint"));
    assert!(why.text.contains("checkpoint_files"), "{}", why.text);
    let mut able = hello(2, 1);
    able.machine = Some("q35 x86-64-v2".into());
    let actions = pool.step(Event::Hello(able));
    assert_eq!(bundles(&actions)[0].node, NodeId(2));
}

/// Node 1 runs the only task of job 1, and a guest of `machine` was saved of it.
fn with_saved_guest(others: &[(u32, Option<&str>)], machine: &str) -> Pool {
    let mut pool = Pool::new();
    let mut first = hello(1, 1);
    first.machine = Some(machine.into());
    pool.step(Event::Hello(first));
    pool.submit(job(1, 1));
    let mut guest = saved(5, 1);
    guest.machine = Some(machine.into());
    pool.step(copied(1, attempt(1, 0, 1), guest));
    for (node, machine) in others {
        let mut other = hello(*node, 1);
        other.machine = machine.map(Into::into);
        pool.step(Event::Hello(other));
    }
    pool
}

/// Who gets the task after node 1 gave it back and takes nothing.
fn next_of(pool: &mut Pool) -> Option<u32> {
    pool.step(Event::Wish(NodeId(1), NodeWish::Drain));
    let detail = String::from("drained");
    pool.end(1, attempt(1, 0, 1), Reason::Evicted { detail });
    pool.task(1, 0).running.map(|running| running.1.0)
}

#[test]
fn a_saved_guest_goes_to_a_free_node_with_the_equal_machine() {
    type Nodes = &'static [(u32, Option<&'static str>)];
    let table: [(&str, Nodes, Option<u32>); 4] = [
        (
            "another comes first",
            &[(2, Some("b")), (3, Some("a"))],
            Some(3),
        ),
        ("none can restore", &[(2, None), (3, Some("a"))], Some(3)),
        ("no equal one", &[(2, Some("b")), (3, None)], Some(2)),
        ("nobody", &[], None),
    ];
    for (what, others, wanted) in table {
        let mut pool = with_saved_guest(others, "a");
        assert_eq!(next_of(&mut pool), wanted, "{what}");
    }
}

#[test]
fn a_saved_guest_waits_a_while_for_a_busy_node_and_then_begins_anew() {
    let mut pool = with_saved_guest(&[(2, Some("a"))], "a");
    let (_, busy) = pool.submit(job(2, 1));
    assert_eq!(busy[0].node, NodeId(2));
    pool.step(Event::Hello(hello(3, 1)));
    assert_eq!(
        next_of(&mut pool),
        None,
        "node 2 has the machine, and is busy"
    );
    let explained = pool.state.explain(JobId(1)).unwrap();
    assert_eq!(explained.rule, Some(Rule::Busy));
    assert!(
        explained.counts.contains(&(Rule::TriedElsewhere, 1)),
        "{explained:?}"
    );
    for _ in 0..=SHUN_MAX.ms / 1000 {
        pool.later(1);
        (1..=3).for_each(|node| drop(pool.step(online(node))));
        pool.step(Event::Tick);
    }
    assert_eq!(pool.task(1, 0).running.unwrap().1, NodeId(3));
}

#[test]
fn a_save_that_comes_late_says_where_the_ready_task_may_go() {
    let mut pool = Pool::new();
    let mut first = hello(1, 1);
    first.machine = Some("a".into());
    pool.step(Event::Hello(first.clone()));
    pool.submit(job(1, 1));
    pool.later(31);
    pool.step(Event::Tick);
    assert_eq!(pool.task_state(1, 0), TaskState::Ready);
    let mut guest = saved(5, 1);
    guest.machine = Some("a".into());
    pool.step(copied(1, attempt(1, 0, 1), guest));
    pool.restart();
    let mut other = hello(2, 1);
    other.machine = Some("a".into());
    assert_eq!(bundles(&pool.step(Event::Hello(other)))[0].saved.len(), 1);
}
