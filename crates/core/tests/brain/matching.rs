//! Which node gets what, how much of it, and how far ahead.

use crate::pool::{GIB, OK, Pool, attempts, bundles, hello, job, need};
use gleaner_core::{Action, AttemptEnd, Event, KernelUse, MAX_BUNDLE, Need, NodeHello};
use gleaner_model::{AttemptId, Bytes, Cpus, Engine, EngineChoice, NodeId};
use std::collections::{BTreeMap, VecDeque};

type Change<T> = fn(&mut T);

#[test]
fn a_node_must_have_everything_the_job_asks() {
    let same: Change<NodeHello> = |_| {};
    let table: [(&str, Change<Need>, Change<NodeHello>, bool); 12] = [
        ("plain", |_| {}, same, true),
        ("cpus", |n| n.cpus.milli = 4000, same, true),
        ("too many cpus", |n| n.cpus.milli = 4001, same, false),
        (
            "part of a cpu",
            |n| n.cpus.milli = 250,
            |h| h.cpus.milli = 250,
            true,
        ),
        ("memory", |n| n.memory = Bytes(65 * GIB), same, false),
        ("disk", |n| n.disk = Bytes(65 * GIB), same, false),
        ("engine", |n| n.engine = EngineChoice::Vm, same, false),
        (
            "this engine",
            |n| n.engine = EngineChoice::Vm,
            |h| h.engines.push(Engine::Vm),
            true,
        ),
        ("arch", |n| n.arch = Some("aarch64".into()), same, false),
        ("this arch", |n| n.arch = Some("x86_64".into()), same, true),
        (
            "label",
            |n| drop(n.labels.insert("room".into(), "b12".into())),
            same,
            false,
        ),
        (
            "other label",
            |n| drop(n.labels.insert("room".into(), "b12".into())),
            |h| drop(h.labels.insert("room".into(), "b13".into())),
            false,
        ),
    ];
    for (what, asks, is, fits) in table {
        let mut pool = Pool::new();
        let mut node = hello(1, 4);
        is(&mut node);
        pool.step(Event::Hello(node));
        let mut new = job(1, 1);
        asks(&mut new.need);
        let (_, granted) = pool.submit(new);
        assert_eq!(granted.len(), usize::from(fits), "{what}");
    }
}

#[test]
fn slots_are_bounded_by_cpus_memory_and_disk() {
    let table: [(Change<Need>, u32); 4] = [
        (|_| {}, 8),
        (|n| n.cpus.milli = 3000, 2),
        (|n| n.memory = Bytes(20 * GIB), 3),
        (|n| n.disk = Bytes(33 * GIB), 1),
    ];
    for (asks, slots) in table {
        let mut pool = Pool::with_nodes(&[8]);
        let mut new = job(1, 100);
        asks(&mut new.need);
        let (_, granted) = pool.submit(new);
        assert_eq!(granted[0].width, slots);
        assert_eq!(granted[0].tasks.len(), slots as usize);
    }
}

#[test]
fn what_is_left_goes_to_a_smaller_job() {
    let mut pool = Pool::with_nodes(&[4]);
    let mut big = job(1, 2);
    big.need = need(3);
    pool.submit(big);
    let (_, small) = pool.submit(job(1, 5));
    assert_eq!(small[0].tasks.len(), 1);
}

#[test]
fn few_tasks_are_spread_over_all_idle_nodes() {
    let mut pool = Pool::with_nodes(&[4, 4, 4]);
    let (_, granted) = pool.submit(job(1, 6));
    let each: Vec<usize> = granted.iter().map(|bundle| bundle.tasks.len()).collect();
    assert_eq!(each, [2, 2, 2]);
}

#[test]
fn jobs_that_match_nothing_do_not_hold_up_the_others() {
    let mut pool = Pool::with_nodes(&[1]);
    for _ in 0..50 {
        let mut never = job(1, 10);
        never.priority = 9;
        never.need.engine = EngineChoice::Wasm;
        pool.submit(never);
    }
    let (_, granted) = pool.submit(job(1, 1));
    assert_eq!(granted.len(), 1);
}

#[test]
fn a_node_that_comes_back_smaller_gets_nothing_until_it_has_room() {
    let mut pool = Pool::with_nodes(&[4]);
    let (_, granted) = pool.submit(job(1, 8));
    let mut again = hello(1, 2);
    let state = gleaner_model::AttemptState::Running;
    let all = attempts(&granted[0]);
    again.held = all
        .iter()
        .map(|a| gleaner_core::Held { attempt: *a, state })
        .collect();
    assert_eq!(bundles(&pool.step(Event::Hello(again))), []);
    for (ended, granted) in [(0, 0), (1, 0), (2, 1)] {
        let actions = pool.end(1, all[ended], OK);
        assert_eq!(bundles(&actions).len(), granted, "after {ended}");
    }
}

/// A node that runs tasks of `busy` seconds, at most `width` of a job at once.
struct Desk {
    queue: VecDeque<AttemptId>,
    busy: f64,
}

impl Desk {
    fn take(&mut self, actions: &[Action]) {
        for bundle in bundles(actions) {
            assert!(bundle.tasks.len() <= MAX_BUNDLE as usize);
            self.queue.extend(attempts(&bundle));
        }
    }

    fn end_one(&mut self, pool: &mut Pool) {
        let attempt = self.queue.pop_front().expect("never without work");
        let actions = pool.step(Event::Ended(AttemptEnd {
            node: NodeId(1),
            attempt,
            reason: OK,
            cpu_seconds: self.busy,
            busy_seconds: self.busy,
            kernel: Some(KernelUse::default()),
            record: Vec::new(),
            saved: None,
        }));
        self.take(&actions);
    }
}

#[test]
fn short_tasks_come_ahead_and_long_ones_do_not() {
    // seconds a task takes, most that may queue at the node, least
    for (busy, least, most) in [
        (0.001, 200, 1024),
        (0.1, 10, 40),
        (2.0, 1, 2),
        (3600.0, 1, 2),
    ] {
        let mut pool = Pool::with_nodes(&[2]);
        let mut desk = Desk {
            queue: VecDeque::new(),
            busy,
        };
        let actions = pool.step(Event::Submit(job(1, 3000)));
        desk.take(&actions);
        for round in 0..600 {
            desk.end_one(&mut pool);
            let queued = desk.queue.len();
            assert!(queued <= most, "{busy} s: {queued} queue");
            assert!(
                round < 20 || queued >= least,
                "{busy} s: only {queued} queue"
            );
        }
        assert_eq!(
            pool.state.node(NodeId(1)).unwrap().cpus_used,
            Cpus { milli: 2000 }
        );
    }
}

#[test]
fn the_end_of_a_job_is_not_hoarded_by_one_node() {
    let mut pool = Pool::with_nodes(&[1, 1, 1, 1]);
    let mut queues: BTreeMap<NodeId, VecDeque<AttemptId>> = BTreeMap::new();
    let mut todo = pool.step(Event::Submit(job(1, 400)));
    let mut ends: BTreeMap<NodeId, u32> = BTreeMap::new();
    loop {
        for bundle in bundles(&todo) {
            queues
                .entry(bundle.node)
                .or_default()
                .extend(attempts(&bundle));
        }
        todo.clear();
        // All nodes run at the same speed.
        for (node, queue) in &mut queues {
            if let Some(attempt) = queue.pop_front() {
                *ends.entry(*node).or_default() += 1;
                todo.extend(pool.step(Event::Ended(AttemptEnd {
                    node: *node,
                    attempt,
                    reason: OK,
                    cpu_seconds: 0.01,
                    busy_seconds: 0.01,
                    kernel: Some(KernelUse::default()),
                    record: Vec::new(),
                    saved: None,
                })));
            }
        }
        if queues.values().all(VecDeque::is_empty) && bundles(&todo).is_empty() {
            break;
        }
    }
    assert_eq!(ends.values().sum::<u32>(), 400);
    assert!(
        ends.values().all(|ended| (90..=110).contains(ended)),
        "{ends:?}"
    );
}
