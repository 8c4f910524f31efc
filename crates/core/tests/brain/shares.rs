//! Fair share between users.

use crate::pool::{OK, attempts, bundles, hello, job};
use gleaner_core::{Action, AttemptEnd, Event, HALF_LIFE, KernelUse, NewJob, State};
use gleaner_model::{AttemptId, JobId, NodeId, Span, Time, UserId};
use std::collections::{BTreeMap, VecDeque};

/// Nodes of some processors that run tasks of given lengths on virtual time.
struct Fleet {
    state: State,
    now: Time,
    /// What each node has, and how many of it run.
    queues: BTreeMap<NodeId, VecDeque<AttemptId>>,
    running: BTreeMap<(Time, u64), (NodeId, AttemptId, Time)>,
    width: usize,
    busy: BTreeMap<NodeId, usize>,
    tasks_take: BTreeMap<JobId, u64>,
    turn: u64,
}

impl Fleet {
    fn new(nodes: u32, cpus: u32) -> Self {
        let mut fleet = Self {
            state: State::new(),
            now: Time { ms: 1_000_000 },
            queues: BTreeMap::new(),
            running: BTreeMap::new(),
            width: cpus as usize,
            busy: BTreeMap::new(),
            tasks_take: BTreeMap::new(),
            turn: 0,
        };
        for node in 1..=nodes {
            fleet.step(Event::Hello(hello(node, cpus)));
        }
        fleet
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let actions = self.state.step(self.now, event);
        for bundle in bundles(&actions) {
            self.queues
                .entry(bundle.node)
                .or_default()
                .extend(attempts(&bundle));
            self.start(bundle.node);
        }
        actions
    }

    fn start(&mut self, node: NodeId) {
        let busy = self.busy.entry(node).or_default();
        while *busy < self.width {
            let Some(attempt) = self.queues.get_mut(&node).and_then(VecDeque::pop_front) else {
                return;
            };
            *busy += 1;
            self.turn += 1;
            // Lengths vary by a tenth, by a fixed pattern.
            let ms = self.tasks_take[&attempt.task.job];
            let ms = ms + ms * (self.turn % 7) / 70;
            let end = self.now + Span { ms };
            self.running
                .insert((end, self.turn), (node, attempt, self.now));
        }
    }

    fn submit(&mut self, user: u32, count: u32, ms: u64) -> JobId {
        let id = JobId(self.tasks_take.len() as u64 + 1);
        self.tasks_take.insert(id, ms);
        self.step(Event::Submit(NewJob {
            count,
            ..job(user, count)
        }));
        id
    }

    /// Ends one attempt after the other until `until`.
    fn run(&mut self, until: Time) {
        let mut ticked = self.now;
        while let Some((&(end, turn), _)) = self.running.first_key_value() {
            if end > until {
                break;
            }
            let (node, attempt, began) = self.running.remove(&(end, turn)).unwrap();
            self.now = end;
            *self.busy.entry(node).or_default() -= 1;
            self.start(node);
            let seconds = end.since(began).as_seconds();
            self.step(Event::Ended(AttemptEnd {
                node,
                attempt,
                reason: OK,
                cpu_seconds: seconds,
                busy_seconds: seconds,
                kernel: Some(KernelUse::default()),
                record: Vec::new(),
                saved: None,
            }));
            if self.now.since(ticked).ms >= 1000 {
                ticked = self.now;
                let nodes: Vec<NodeId> = self.queues.keys().copied().collect();
                for node in nodes {
                    self.step(crate::pool::online(node.0));
                }
                self.step(Event::Tick);
            }
        }
        self.now = until;
        self.state.check().unwrap();
    }

    fn held(&self, user: u32) -> u32 {
        let users = self.state.users();
        let user = users.iter().find(|view| view.id == UserId(user));
        user.map_or(0, |view| view.running.milli)
    }

    fn seconds(&self, seconds: u64) -> Time {
        self.now + Span::seconds(seconds)
    }
}

#[test]
fn two_busy_users_hold_equal_processors_within_a_tenth() {
    for ms in [50, 5_000, 60_000] {
        let mut fleet = Fleet::new(20, 4);
        fleet.submit(1, 100_000, ms);
        fleet.submit(2, 100_000, ms);
        // Time enough for the first to end what it got while it was alone.
        let until = fleet.seconds(3 * ms / 1000 + 10);
        fleet.run(until);
        let (mut one, mut two) = (0, 0);
        for _ in 0..20 {
            let until = fleet.now + Span { ms: ms / 3 + 100 };
            fleet.run(until);
            one += fleet.held(1);
            two += fleet.held(2);
        }
        let (low, high) = (f64::from(one.min(two)), f64::from(one.max(two)));
        assert!(high <= low * 1.1, "tasks of {ms} ms: {one} and {two}");
        assert_eq!(fleet.held(1) + fleet.held(2), 80_000);
    }
}

#[test]
fn a_hundred_tasks_are_not_stuck_behind_a_hundred_thousand() {
    for ms in [5, 100, 10_000] {
        let mut fleet = Fleet::new(5, 2);
        fleet.submit(1, 100_000, ms);
        let until = fleet.seconds(20 + 2 * ms / 1000);
        fleet.run(until);
        let small = fleet.submit(2, 100, ms);
        let began = fleet.now;
        while !fleet.state.job(small).unwrap().state.is_over() {
            let until = fleet.now + Span { ms: 100 };
            fleet.run(until);
            // Alone it would take 10 rounds; with half the pool 20; some more to get its share.
            let most = 25 * ms + 4_000;
            let taken = fleet.now.since(began).ms;
            assert!(
                taken <= most,
                "tasks of {ms} ms: still there after {taken} ms"
            );
        }
    }
}

#[test]
fn whoever_used_less_goes_first_until_it_is_forgotten() {
    let mut fleet = Fleet::new(1, 1);
    fleet.submit(1, 100, 3_600_000);
    let until = fleet.seconds(40 * 3600);
    fleet.run(until);
    let used = |fleet: &Fleet| fleet.state.users()[0].used;
    fleet.state.step(fleet.now, Event::Tick);
    let before = used(&fleet);
    assert!(before > 0.5 * 40.0 * 3600.0, "{before}");
    // Half of it is forgotten after a half-life without use.
    fleet.now = fleet.now + HALF_LIFE;
    fleet.state.step(fleet.now, Event::Tick);
    let after = used(&fleet);
    assert!((after / before - 0.5).abs() < 1e-3, "{before} then {after}");
}

#[test]
fn a_heavy_past_gives_a_smaller_part() {
    let mut fleet = Fleet::new(8, 1);
    fleet.submit(1, 5_000, 60_000);
    let until = fleet.seconds(12 * 3600);
    fleet.run(until);
    fleet.submit(1, 100_000, 60_000);
    fleet.submit(2, 100_000, 60_000);
    let until = fleet.seconds(600);
    fleet.run(until);
    let (old, new) = (fleet.held(1), fleet.held(2));
    assert!(old < new && old + new == 8000, "{old} and {new}");
}

#[test]
fn many_users_take_turns() {
    let mut fleet = Fleet::new(10, 3);
    for user in 1..=15 {
        fleet.submit(user, 1000, 20_000);
    }
    let until = fleet.seconds(300);
    fleet.run(until);
    for user in 1..=15 {
        let held = fleet.held(user);
        assert!((1000..=3000).contains(&held), "user {user} holds {held}");
    }
}
