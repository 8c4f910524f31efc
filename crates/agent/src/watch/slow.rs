//! The slow loop: looks at every sensor and at what tasks use, ten times a second while they run
//! beside an active owner, and hardly ever while the node holds nothing.
//!
//! Samples go to the event loop, which judges; the status goes to whoever watches; attempts that
//! fill the PC get a processor each. It may wait
//! for shims and for memory to come free, which is why it is a thread of its own.

use super::capacity::Offer;
use super::heard::Heard;
use super::roster::Roster;
use super::sensing::Sensing;
use super::status::{Allowance, Allowed, Running, Shares, Status};
use crate::clock::Clock;
use gleaner_engine::Engine;
use gleaner_harvest::Verdict;
use gleaner_harvest::places::{Look, Places};
use gleaner_model::{AttemptId, Bytes, Cpus, Sample, Signal, Span, Time, Usage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::sync::watch;

/// Time between looks while tasks run beside an active owner, in milliseconds: what a person
/// begins to feel.
const ACTIVE_MS: u64 = 100;

/// While tasks run and nobody else does, or all are frozen, in milliseconds.
const HOLDING_MS: u64 = 500;

/// While the node holds nothing, in milliseconds: the server shall know within one beat whether
/// it may send work.
const IDLE_MS: u64 = 10_000;

/// Time between two questions to the shims what their tasks use, in milliseconds. It costs a
/// message and a few files each.
const USAGE_MS: u64 = 1000;

/// Time between two tries to get memory back, in milliseconds.
const RECLAIM_MS: u64 = 2000;

/// Owner's load from which the PC counts as active for this loop, in thousandths: half of what
/// one of twenty processors can do.
const ACTIVE_LOAD: u16 = 25;

/// How long the owner counts as active here after the last input.
const ACTIVE_FOR: Span = Span::seconds(10);

/// What wakes the loop before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// Look now.
    Look,
    /// The owner needs memory.
    Reclaim,
    /// Stop.
    Stop,
}

/// What the loop works with.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) sensing: Arc<dyn Sensing>,
    pub(super) engines: Vec<Arc<dyn Engine>>,
    pub(super) roster: Roster,
    pub(super) heard: mpsc::Sender<Heard>,
    pub(super) status: Arc<watch::Sender<Status>>,
    pub(super) clock: Clock,
    pub(super) offer: Offer,
    /// Whether this is a pool for trying out, which works on a busy PC too.
    pub(super) lenient: bool,
    /// Processors of the whole PC.
    pub(super) processors: Cpus,
}

/// The loop's state.
#[derive(Debug)]
pub(super) struct Slow {
    parts: Parts,
    used: BTreeMap<AttemptId, (Time, Usage)>,
    usage_due: Time,
    reclaim_due: Time,
    places: Places,
}

impl Slow {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            used: BTreeMap::new(),
            usage_due: Time { ms: 0 },
            reclaim_due: Time { ms: 0 },
            places: Places::default(),
        }
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self, queue: &mpsc::Receiver<Wake>) {
        loop {
            let pause = self.look();
            let mut wake = queue.recv_timeout(Duration::from_millis(pause));
            let mut reclaim = false;
            // Several wishes for a look are one look.
            while let Ok(wish) = wake {
                match wish {
                    Wake::Stop => return,
                    Wake::Reclaim => reclaim = true,
                    Wake::Look => {}
                }
                wake = queue.try_recv().map_err(|error| match error {
                    mpsc::TryRecvError::Empty => mpsc::RecvTimeoutError::Timeout,
                    mpsc::TryRecvError::Disconnected => mpsc::RecvTimeoutError::Disconnected,
                });
            }
            if wake == Err(mpsc::RecvTimeoutError::Disconnected) {
                return;
            }
            if reclaim {
                self.reclaim();
            }
        }
    }

    /// One look; says how long to wait until the next, in milliseconds.
    fn look(&mut self) -> u64 {
        let now = self.parts.clock.now();
        let mut sample = self.parts.sensing.sample(now);
        if let Signal::Seen { value, .. } = &mut sample.memory {
            let held = one_a_group(&self.parts.engines);
            value.tasks = Bytes(held.filter_map(|engine| engine.memory_now()).sum());
        }
        let judged = match self.parts.lenient {
            true => without_load(sample),
            false => sample,
        };
        let looked = Heard::Looked(Box::new(judged));
        self.parts.heard.send(looked).unwrap_or_default();
        let holding = !self.parts.roster.is_empty();
        let running = (now >= self.usage_due || !holding).then(|| {
            self.usage_due = now + Span { ms: USAGE_MS };
            self.running(now)
        });
        self.publish(now, sample, running);
        let runs = self.parts.status.borrow().decision.verdict == Verdict::Run;
        // What is frozen all at once stays where it is.
        if holding && runs {
            self.place(now, &sample);
        }
        match (holding, runs && is_active(&sample, now)) {
            (true, true) => ACTIVE_MS,
            (true, false) => HOLDING_MS,
            (false, _) => IDLE_MS,
        }
    }

    /// Gives each attempt a processor of its own while they fill the PC.
    fn place(&mut self, now: Time, sample: &Sample) {
        let processors = self.parts.sensing.processors();
        let all = u64::try_from(processors.len()).unwrap_or(u64::MAX);
        let allowed = self.parts.status.borrow().decision.allowance;
        // Other agents may have the rest of the PC (`gleaner dev`), and choose for themselves.
        let whole = u64::from(self.parts.offer.cpus.milli) >= all.saturating_mul(1000)
            && allowed >= self.parts.processors;
        let moves = self.places.look(&Look {
            now,
            processors: &processors,
            whole,
            load: sample.load.value().copied(),
            attempts: &self.parts.roster.standing(),
        });
        for (attempt, cpu) in moves {
            // One that has just ended needs no place.
            if let Some(engine) = self.parts.roster.engine(attempt) {
                engine.place(attempt, cpu);
            }
        }
    }

    fn publish(&self, now: Time, sample: Sample, running: Option<Vec<Running>>) {
        let sources = self.parts.sensing.sources();
        let offered = self.parts.offer.memory;
        self.parts.status.send_modify(|status| {
            status.at = now;
            status.sample = sample;
            status.sources = sources;
            if let Some(running) = running {
                status.running = running;
            }
            if let Some(load) = sample.load.value() {
                status.shares = Shares {
                    owner: load.owner,
                    harvested: load.tasks,
                    idle: 1000_u16.saturating_sub(load.owner + load.tasks + load.stolen),
                };
            }
            let decision = &status.decision;
            status.allowance = Allowance {
                cpus: match decision.verdict {
                    Verdict::Run => decision.allowance,
                    Verdict::Pause | Verdict::Evict => Cpus { milli: 0 },
                },
                memory: decision.room.min(offered),
                io_permille: decision.io,
                transfers: decision.transfers,
            };
        });
    }

    fn running(&mut self, now: Time) -> Vec<Running> {
        let all = self.parts.roster.all();
        self.used.retain(|attempt, _| all.contains_key(attempt));
        let mut running: Vec<Running> = all
            .into_iter()
            .map(|(attempt, held)| {
                // One whose shim does not answer shows what it showed before.
                let last = self.used.get(&attempt).copied();
                let usage = held.engine.usage(attempt).ok();
                let used = usage
                    .or_else(|| last.map(|(_, used)| used))
                    .unwrap_or_default();
                self.used.insert(attempt, (now, used));
                let cpus = last.map_or(0.0, |(at, before)| {
                    let wall = now.since(at).as_seconds().max(0.001);
                    ((used.cpu_seconds - before.cpu_seconds) / wall).max(0.0)
                });
                Running {
                    attempt,
                    job: attempt.task.job,
                    name: held.name,
                    user: held.user,
                    state: held.state,
                    since: held.since,
                    cpus,
                    cpu_seconds: used.cpu_seconds,
                    memory: Bytes(used.memory_peak),
                    disk: Bytes(used.read_bytes.saturating_add(used.written_bytes)),
                    // Tasks have no network but their own loopback.
                    network: Bytes(0),
                    allowed: Allowed {
                        cpus: held.limits.cpus,
                        memory: held.limits.memory,
                        disk: held.limits.disk,
                        disk_io: held.limits.disk_io,
                        net_io: held.limits.net_io,
                    },
                }
            })
            .collect();
        running.sort_by_key(|one| (one.since, one.attempt));
        running
    }

    fn reclaim(&mut self) {
        let now = self.parts.clock.now();
        if now < self.reclaim_due {
            return;
        }
        let engines = one_a_group(&self.parts.engines);
        let freed: u64 = engines.map(|engine| engine.reclaim()).sum();
        self.reclaim_due = self.parts.clock.now() + Span { ms: RECLAIM_MS };
        tracing::debug!(target: "gleaner::watch", freed, "memory given back");
    }
}

/// One engine of each group: it speaks for all of them.
fn one_a_group(engines: &[Arc<dyn Engine>]) -> impl Iterator<Item = &Arc<dyn Engine>> {
    let mut seen = BTreeSet::new();
    let mut is_new = move |group: String| seen.insert(group);
    engines
        .iter()
        .filter(move |engine| engine.group().is_none_or(&mut is_new))
}

/// What a pool for trying out goes by: people, but not how busy the PC is. Its owner is the one
/// who tries, and the load is often the pool's own.
fn without_load(sample: Sample) -> Sample {
    Sample {
        load: Signal::Absent,
        delay: Signal::Absent,
        pressure: Signal::Absent,
        memory: Signal::Absent,
        // It may lie on a small disk; whether that is full is looked at apart.
        disk_free: Signal::Absent,
        ..sample
    }
}

/// Whether somebody is there who could feel what tasks do.
fn is_active(sample: &Sample, now: Time) -> bool {
    let touched = [&sample.input, &sample.terminal, &sample.desktop]
        .into_iter()
        .filter_map(|signal| signal.value())
        .any(|at| now.since(*at).ms < ACTIVE_FOR.ms);
    let load = sample.load.value();
    touched || load.is_some_and(|load| load.owner >= ACTIVE_LOAD)
}
