//! What comes back after the server died. Every step of every test compares a restart too.

use crate::pool::{BAD, OK, Pool, attempt, bundles, held, hello, job, online, rows};
use gleaner_core::{Event, LEASE, Row, State};
use gleaner_model::{AttemptState, JobId, JobState, NodeId, NodeState, TaskState};

#[test]
fn leases_get_a_fresh_term_and_their_attempts_go_on() {
    let mut pool = Pool::with_nodes(&[2]);
    pool.submit(job(1, 3));
    pool.later(3600);
    assert_eq!(pool.restart(), []);
    assert_eq!(
        pool.state.node(NodeId(1)).unwrap().state,
        NodeState::Offline
    );
    assert_eq!(pool.task_state(1, 1), TaskState::Running);
    let mut again = hello(1, 2);
    again.held = vec![
        held(attempt(1, 0, 1), AttemptState::Finished),
        held(attempt(1, 1, 1), AttemptState::Running),
    ];
    assert_eq!(bundles(&pool.step(Event::Hello(again))), []);
    let actions = pool.end(1, attempt(1, 0, 1), OK);
    assert_eq!(bundles(&actions)[0].tasks, [(2, 1)]);
}

#[test]
fn leases_of_nodes_that_do_not_come_back_are_over() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    pool.restart();
    pool.later(LEASE.ms / 1000);
    pool.step(Event::Tick);
    assert_eq!(pool.task_state(1, 0), TaskState::Ready);
}

#[test]
fn failures_and_shunned_nodes_are_remembered() {
    let mut pool = Pool::with_nodes(&[1, 1]);
    let mut new = job(1, 1);
    new.retry.attempts = 2;
    pool.submit(new);
    pool.end(1, attempt(1, 0, 1), BAD);
    pool.step(Event::Gone(NodeId(2)));
    pool.restart();
    let mut again = hello(2, 1);
    again.held = vec![held(attempt(1, 0, 2), AttemptState::Running)];
    pool.step(Event::Hello(again));
    pool.end(2, attempt(1, 0, 2), BAD);
    assert_eq!(pool.job(1).state, JobState::Failed);
}

#[test]
fn the_clock_never_runs_backwards() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    let (state, _) = State::restore(pool.book.snapshot(), gleaner_model::Time { ms: 5 });
    pool.state = state;
    let created = pool.job(1).created;
    pool.submit(job(1, 1));
    assert!(pool.job(2).created >= created);
}

#[test]
fn ids_and_numbers_are_never_used_twice() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 1));
    pool.end(1, attempt(1, 0, 1), OK);
    pool.restart();
    pool.step(Event::Hello(hello(1, 1)));
    let (id, granted) = pool.submit(job(1, 1));
    assert_eq!(id, JobId(2));
    assert!(granted[0].lease.0 > 1);
}

#[test]
fn a_million_tasks_are_a_few_rows() {
    let mut pool = Pool::new();
    let actions = pool.state.step(pool.now, Event::Submit(job(1, 1_000_000)));
    assert_eq!(rows(&actions).len(), 2);
    for row in rows(&actions) {
        pool.book.apply(&row);
    }
    let (state, _) = pool.restarted();
    assert_eq!(state.job(JobId(1)).unwrap().counts.ready, 1_000_000);
}

#[test]
fn a_users_use_is_stored_now_and_then_and_comes_back() {
    let mut pool = Pool::with_nodes(&[1]);
    pool.submit(job(1, 30));
    let mut stored = 0;
    for index in 0..20 {
        pool.later(1);
        pool.step(online(1));
        let actions = pool.end(1, attempt(1, index, 1), OK);
        let more = pool.step(Event::Tick);
        let user = |row: &Row| matches!(row, Row::User(_));
        stored += rows(&actions)
            .into_iter()
            .chain(rows(&more))
            .filter(user)
            .count();
    }
    assert!(
        (1..=3).contains(&stored),
        "{stored} rows for 20 ends in 20 s"
    );
    pool.restart();
    let used = pool.state.users()[0].used;
    assert!((9.0..=20.0).contains(&used), "{used}");
}
