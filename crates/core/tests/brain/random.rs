//! Random histories: whatever happens in whatever order, every invariant holds after each step,
//! a restart at any moment loses nothing, no task is counted twice, no attempt granted twice.

use crate::pool::{BAD, OK, Pool, attempts, ended, hello, job, need};
use crate::saves::{saved, with};
use gleaner_core::{
    Action, Event, Held, MergeKind, NodeHello, NodeReport, NodeWish, Saved, Target,
};
use gleaner_model::{
    AttemptId, AttemptState, Engine, EngineChoice, GuestPrice, JobId, LimitKind, NodeId, NodeState,
    Reason, Retry, TaskId,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What happens next; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Happening {
    Submit(u8, u8, u8),
    Cancel(u8, Option<u8>),
    Pause(u8),
    Resume(u8),
    Retry(u8, Option<u8>),
    Delete(u8),
    Hello(u8, u8),
    Beat(u8, u8),
    Gone(u8),
    Wish(u8, u8),
    Progress(u8, u8, u8),
    Ended(u8, u8, u8),
    Saved(u8, u8, u8),
    Again(u8),
    Merged(u8, bool),
    Pass(u8),
    Restart,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening as H;
    let n = any::<u8>;
    prop_oneof![
        3 => (n(), n(), n()).prop_map(|(a, b, c)| H::Submit(a, b, c)),
        1 => (n(), any::<Option<u8>>()).prop_map(|(a, b)| H::Cancel(a, b)),
        1 => n().prop_map(H::Pause),
        2 => n().prop_map(H::Resume),
        2 => (n(), any::<Option<u8>>()).prop_map(|(a, b)| H::Retry(a, b)),
        1 => n().prop_map(H::Delete),
        4 => (n(), n()).prop_map(|(a, b)| H::Hello(a, b)),
        4 => (n(), n()).prop_map(|(a, b)| H::Beat(a, b)),
        1 => n().prop_map(H::Gone),
        1 => (n(), n()).prop_map(|(a, b)| H::Wish(a, b)),
        4 => (n(), n(), n()).prop_map(|(a, b, c)| H::Progress(a, b, c)),
        24 => (n(), n(), n()).prop_map(|(a, b, c)| H::Ended(a, b, c)),
        6 => (n(), n(), n()).prop_map(|(a, b, c)| H::Saved(a, b, c)),
        3 => n().prop_map(H::Again),
        2 => (n(), any::<bool>()).prop_map(|(a, b)| H::Merged(a, b)),
        4 => n().prop_map(H::Pass),
        1 => Just(H::Restart),
    ]
}

/// Four nodes that hold what they are sent.
struct World {
    pool: Pool,
    holds: BTreeMap<u32, Vec<AttemptId>>,
    sent: Vec<(u32, AttemptId, Reason)>,
}

const NODES: u8 = 4;
const REASONS: u8 = 10;

fn reason(pick: u8) -> Reason {
    let text = String::from("why");
    match pick % (REASONS + 6) {
        0 => BAD,
        1 => Reason::Signal { signal: 9 },
        2 => Reason::Limit {
            limit: LimitKind::Memory,
        },
        3 => Reason::NoProgram { program: text },
        4 => Reason::Fetch { detail: text },
        5 => Reason::Engine { detail: text },
        6 => Reason::Evicted { detail: text },
        7 => Reason::Lost { detail: text },
        8 => Reason::Cancelled,
        9 => Reason::Checkpointed { detail: text },
        _ => OK,
    }
}

/// Most nodes have guests of some price and one of two machines.
fn with_guests(node: &mut NodeHello, pick: u8) {
    if !pick.is_multiple_of(5) {
        node.engines.push(Engine::Vm);
        node.guests = GuestPrice::ALL[usize::from(pick % 3)];
        node.machine = Some(format!("machine {}", pick % 2));
    }
}

/// Files, or every other time a guest of this machine.
fn guest(taken: u64, pick: u8, machine: &str) -> Saved {
    Saved {
        machine: pick.is_multiple_of(2).then(|| machine.into()),
        ..saved(taken, pick % 3)
    }
}

impl World {
    fn new() -> Self {
        Self {
            pool: Pool::new(),
            holds: BTreeMap::new(),
            sent: Vec::new(),
        }
    }

    fn pick_job(&self, pick: u8) -> JobId {
        let jobs = self.pool.state.last_job().0;
        // Now and then one that does not exist.
        JobId(1 + u64::from(pick) % (jobs + 1))
    }

    fn target(&self, pick: u8, index: Option<u8>) -> Target {
        let job = self.pick_job(pick);
        match index {
            Some(index) => Target::Task(TaskId::new(job, u32::from(index) % 24)),
            None => Target::Job(job),
        }
    }

    fn held_by(&self, node: u32, pick: u8) -> Option<AttemptId> {
        let held = self.holds.get(&node)?;
        held.get(usize::from(pick) % held.len().max(1)).copied()
    }

    fn event(&mut self, what: &Happening) -> Option<Event> {
        Some(match what {
            Happening::Submit(user, count, kind) => {
                let mut new = job(1 + u32::from(user % 3), 1 + u32::from(count % 20));
                new.priority = i32::from(kind % 3);
                new.need = need(1 + u32::from(kind % 2));
                if kind % 4 == 0 {
                    new.need.engine = EngineChoice::Auto;
                }
                new.retry = Retry {
                    attempts: 2,
                    max_evictions: 2,
                };
                new.merge = [MergeKind::None, MergeKind::Concat, MergeKind::Command]
                    [usize::from(kind / 8 % 3)];
                Event::Submit(new)
            }
            Happening::Cancel(pick, index) => Event::Cancel(self.target(*pick, *index)),
            Happening::Pause(pick) => Event::PauseJob(self.pick_job(*pick)),
            Happening::Resume(pick) => Event::ResumeJob(self.pick_job(*pick)),
            Happening::Retry(pick, index) => Event::Retry(self.target(*pick, *index)),
            Happening::Delete(pick) => Event::Delete(self.pick_job(*pick)),
            Happening::Merged(pick, fails) => Event::Merged {
                job: self.pick_job(*pick),
                failed: fails.then(|| "disk full".into()),
            },
            Happening::Pass(time) => {
                // Mostly a second or so, now and then longer than a lease.
                let seconds = if time % 8 == 0 {
                    31
                } else {
                    u64::from(time % 4)
                };
                self.pool.later(seconds);
                Event::Tick
            }
            Happening::Restart => {
                self.pool.restart();
                return None;
            }
            _ => return self.node_event(what),
        })
    }

    fn node_event(&mut self, what: &Happening) -> Option<Event> {
        let node = |pick: &u8| 1 + u32::from(pick % NODES);
        Some(match what {
            Happening::Hello(pick, lost) => {
                let id = node(pick);
                let mut new = hello(id, 1 + u32::from(lost % 3));
                with_guests(&mut new, *lost);
                let held = self.holds.entry(id).or_default();
                // Some of what was sent never arrived.
                if lost % 4 == 0 {
                    held.truncate(usize::from(lost / 16));
                }
                let state = |at: usize| AttemptState::ALL[at % 4];
                let all = held.iter().enumerate();
                new.held = all
                    .map(|(at, attempt)| Held {
                        attempt: *attempt,
                        state: state(at),
                    })
                    .collect();
                Event::Hello(new)
            }
            Happening::Beat(pick, state) => Event::Beat(NodeReport {
                node: NodeId(node(pick)),
                state: [NodeState::Online, NodeState::Online, NodeState::Paused]
                    [usize::from(state % 3)],
                reason: String::new(),
            }),
            Happening::Gone(pick) => Event::Gone(NodeId(node(pick))),
            Happening::Wish(pick, wish) => {
                let wishes = [
                    NodeWish::Resume,
                    NodeWish::Pause,
                    NodeWish::Drain,
                    NodeWish::Evict,
                ];
                Event::Wish(NodeId(node(pick)), wishes[usize::from(wish % 4)])
            }
            Happening::Progress(pick, which, state) => {
                let id = node(pick);
                let state = AttemptState::ALL[usize::from(state % 4)];
                Event::Progress(NodeId(id), self.held_by(id, *which)?, state)
            }
            Happening::Ended(pick, which, why) => {
                let id = node(pick);
                let attempt = self.held_by(id, *which)?;
                self.holds
                    .entry(id)
                    .or_default()
                    .retain(|held| *held != attempt);
                self.sent.push((id, attempt, reason(*why)));
                let event = ended(id, attempt, reason(*why));
                match reason(*why) {
                    Reason::Evicted { .. } | Reason::Checkpointed { .. } if which % 4 > 0 => {
                        with(event, guest(u64::from(*which), *why, "machine 1"))
                    }
                    _ => event,
                }
            }
            Happening::Saved(pick, which, taken) => {
                let id = node(pick);
                let attempt = self.held_by(id, *which)?;
                let saved = guest(u64::from(taken % 8), *taken, "machine 0");
                Event::Saved(NodeId(id), attempt, saved)
            }
            Happening::Again(which) => {
                let at = usize::from(*which) % self.sent.len().max(1);
                let (id, attempt, why) = self.sent.get(at)?.clone();
                ended(id, attempt, why)
            }
            _ => return None,
        })
    }

    fn happen(&mut self, what: &Happening) {
        let Some(event) = self.event(what) else {
            return;
        };
        let actions = self.pool.step(event);
        for action in &actions {
            match action {
                Action::Dispatch(bundle) => {
                    let held = self.holds.entry(bundle.node.0).or_default();
                    held.extend(attempts(bundle));
                }
                Action::Revoke { node, attempts } => {
                    let held = self.holds.entry(node.0).or_default();
                    held.retain(|attempt| !attempts.contains(attempt));
                }
                _ => {}
            }
        }
    }

    /// Lets everything end well; then nothing may be left.
    fn finish(&mut self) {
        for node in 1..=u32::from(NODES) {
            self.pool.later(1);
            let mut new = hello(node, 4);
            let held = self.holds.entry(node).or_default().iter();
            let state = AttemptState::Running;
            new.held = held.map(|a| Held { attempt: *a, state }).collect();
            for action in self.pool.step(Event::Hello(new)) {
                self.take(&action);
            }
            for action in self.pool.step(Event::Wish(NodeId(node), NodeWish::Resume)) {
                self.take(&action);
            }
        }
        for job in self.pool.state.jobs() {
            if job.paused {
                for action in self.pool.step(Event::ResumeJob(job.id)) {
                    self.take(&action);
                }
            }
        }
        for round in 0..2000 {
            let jobs = self.pool.state.jobs();
            let Some(job) = jobs.iter().find(|job| !job.state.is_over()) else {
                return;
            };
            assert!(
                round < 1999,
                "never over: {job:?} {:?}",
                self.pool.state.nodes()
            );
            let next = self
                .holds
                .iter()
                .find_map(|(node, held)| Some((*node, *held.first()?)));
            let event = match next {
                Some((node, attempt)) => {
                    self.holds.entry(node).or_default().remove(0);
                    ended(node, attempt, OK)
                }
                None => Event::Merged {
                    job: job.id,
                    failed: None,
                },
            };
            for action in self.pool.step(event) {
                self.take(&action);
            }
        }
    }

    fn take(&mut self, action: &Action) {
        if let Action::Dispatch(bundle) = action {
            let held = self.holds.entry(bundle.node.0).or_default();
            held.extend(attempts(bundle));
        } else if let Action::Revoke { node, attempts } = action {
            let held = self.holds.entry(node.0).or_default();
            held.retain(|attempt| !attempts.contains(attempt));
        }
    }
}

/// 128 histories, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: cases.and_then(|cases| cases.parse().ok()).unwrap_or(128),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_history_keeps_every_invariant(history in prop::collection::vec(happening(), 1..160)) {
        let mut world = World::new();
        for what in &history {
            world.happen(what);
        }
        world.finish();
    }
}
