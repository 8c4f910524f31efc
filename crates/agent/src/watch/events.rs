//! The event loop: the harvest brain and the hands that carry out what it decides.
//!
//! It runs on a thread of its own that waits for nothing but its queue and writes nothing but a
//! few control files of the kernel, so an owner's first key press is obeyed within milliseconds
//! whatever the dispatch loop, a shim or a disk does. Attempts follow: the dispatch loop is told
//! the decision and pauses, resumes or gives back each of them in its own time.

use super::heard::Heard;
use super::heard::Sensed;
use super::keep::Keep;
use super::pulse::Pulse;
use super::sensing::Sensing;
use super::slow::Wake;
use super::status::{Order, Status};
use crate::clock::Clock;
use crate::hands::Hands;
use crate::input::{Input, Inputs};
use gleaner_engine::{Allowance, Engine};
use gleaner_harvest::{
    Brain, Decision, Event, OwnerSettings, OwnerWish, Relief, Settings, Verdict,
};
use gleaner_model::{Bytes, Signal, Span, Time};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::sync::watch;

/// How often the loop shows that it lives while attempts are held, in milliseconds: twice for
/// each beat to the shims.
const PULSE_MS: u64 = 500;

/// Time between two steps that give memory back, in milliseconds: an attempt must have been torn
/// down before one can tell whether it was enough.
const RELIEF_MS: u64 = 3000;

/// How long the PC's sleep waits for saves, in milliseconds: the sensors hold it up for a second more
/// at most, in which tasks are frozen.
const SAVE_MS: u64 = 3000;

/// What the loop works with.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) engines: Vec<Arc<dyn Engine>>,
    pub(super) inputs: Inputs,
    pub(super) clock: Clock,
    pub(super) keep: Keep,
    pub(super) rules: Rules,
    pub(super) sensing: Arc<dyn Sensing>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) status: Arc<watch::Sender<Status>>,
    pub(super) slow: mpsc::Sender<Wake>,
    /// Back into the loop's own queue.
    pub(super) heard: mpsc::Sender<Heard>,
}

/// Who may say when this node works; the strictest counts.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// What the admin of the pool set.
    pub(super) pool: Settings,
    /// What whoever started the agent set.
    pub(super) local: OwnerSettings,
    /// What the owner set.
    pub(super) owner: OwnerSettings,
    /// Whether this is a pool for trying out.
    pub(super) lenient: bool,
}

impl Rules {
    pub(super) fn together(&self) -> Settings {
        let pool = Settings {
            lenient: self.lenient,
            ..self.pool.clone()
        };
        pool.stricter(&self.local).stricter(&self.owner)
    }
}

/// The loop's state.
#[derive(Debug)]
pub(super) struct Watch {
    parts: Parts,
    brain: Brain,
    /// What was carried out last.
    held: Option<bool>,
    allowed: Option<Allowance>,
    told: Option<Decision>,
    /// Whether engines hold attempts.
    holding: bool,
    relieved: Option<Time>,
    /// Until when the PC's sleep waits for saves; none where it does not.
    sleep_by: Option<Time>,
    /// Writes what the owner said to disk, in order.
    writer: Hands,
}

impl Watch {
    pub(super) fn new(parts: Parts, brain: Brain) -> Result<Self, crate::AgentError> {
        Ok(Self {
            parts,
            brain,
            held: None,
            allowed: None,
            told: None,
            holding: false,
            relieved: None,
            sleep_by: None,
            writer: Hands::new("gleaner-keep", 1)?,
        })
    }

    /// Works until it is told to stop or nobody is left to tell.
    pub(super) fn run(mut self, queue: &mpsc::Receiver<Heard>) {
        let now = self.parts.clock.now();
        if let Some(wish) = self.parts.keep.wish(now) {
            self.wish(wish);
            self.parts
                .status
                .send_modify(|status| status.wish = Some(wish));
        }
        self.carry_out();
        loop {
            self.parts.pulse.beat();
            let heard = match self.wait(queue) {
                Ok(heard) => heard,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.tick();
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            };
            if matches!(heard, Heard::Stop) {
                break;
            }
            self.take(heard);
            self.tick();
        }
        self.parts.slow.send(Wake::Stop).unwrap_or_default();
    }

    fn wait(&self, queue: &mpsc::Receiver<Heard>) -> Result<Heard, mpsc::RecvTimeoutError> {
        let due = [self.brain.wake_at(), self.sleep_by];
        let due = due.into_iter().flatten().min().map(|due| {
            let left = due.since(self.parts.clock.now());
            // One more than is left: a tick that comes early would come again and again.
            left.ms + 1
        });
        let pulse = self.holding.then_some(PULSE_MS);
        match [due, pulse].into_iter().flatten().min() {
            Some(ms) => queue.recv_timeout(Duration::from_millis(ms)),
            None => queue
                .recv()
                .map_err(|_| mpsc::RecvTimeoutError::Disconnected),
        }
    }

    fn tick(&mut self) {
        let now = self.parts.clock.now();
        if self.sleep_by.is_some_and(|by| by <= now) {
            self.sleep();
        }
        if self.brain.wake_at().is_some_and(|due| due <= now) {
            self.step(Event::Tick);
            self.carry_out();
        }
    }

    fn take(&mut self, heard: Heard) {
        match heard {
            Heard::Sensed(sensed) => self.sensed(sensed),
            Heard::Looked(mut sample) => {
                if self.sleep_by.is_some() {
                    // Known, and not yet.
                    sample.sleeping = Signal::Absent;
                }
                self.step(Event::Sampled(sample));
            }
            Heard::Order(order) => self.obey(order),
            Heard::Kept(wish) => {
                let paused = Some(wish).filter(|wish| *wish != OwnerWish::Resume);
                self.parts.status.send_modify(|status| status.wish = paused);
            }
            Heard::Pool(settings) => {
                self.parts.rules.pool = settings;
                self.set();
            }
            Heard::Saved if self.sleep_by.is_some() => self.sleep(),
            Heard::Saved => {}
            Heard::Holding(holding) => {
                self.holding = holding;
                self.wake(Wake::Look);
            }
            Heard::Stop => {}
        }
        self.carry_out();
    }

    fn sensed(&mut self, sensed: Sensed) {
        let event = match sensed {
            Sensed::Input => Event::Input,
            // A pool for trying out works on a busy PC too.
            Sensed::Pressed(_) if self.parts.rules.lenient => return,
            Sensed::Pressed(resource) => Event::Pressed(resource),
            Sensed::Sleeping(true) => return self.save_before_sleep(),
            Sensed::Sleeping(false) => {
                self.sleep_by = None;
                Event::Sleeping(false)
            }
            Sensed::Changed => return self.wake(Wake::Look),
        };
        self.step(event);
        // What is felt now decides how it goes on.
        self.carry_out();
        self.wake(Wake::Look);
    }

    /// The PC is about to sleep, nobody knows for how long: what can be moved is saved while it still
    /// runs, since what stands still is not.
    fn save_before_sleep(&mut self) {
        if !self.holding || self.brain.decision().verdict != Verdict::Run {
            return self.sleep();
        }
        if self.sleep_by.is_none() {
            self.sleep_by = Some(self.parts.clock.now() + Span { ms: SAVE_MS });
            self.parts.inputs.send(Input::Sleeping);
        }
    }

    /// All stands still before the PC does.
    fn sleep(&mut self) {
        self.sleep_by = None;
        self.step(Event::Sleeping(true));
        self.carry_out();
        self.parts.sensing.ready_to_sleep();
        self.wake(Wake::Look);
    }

    /// Obeys at once; the status shows it when it is durable too.
    fn obey(&mut self, order: Order) {
        let (keep, heard) = (self.parts.keep.clone(), self.parts.heard.clone());
        match order {
            Order::Wish(wish) => {
                self.wish(wish);
                self.writer.give(move || match keep.keep_wish(wish) {
                    Ok(()) => heard.send(Heard::Kept(wish)).unwrap_or_default(),
                    Err(error) => tracing::error!(
                        target: "gleaner::watch", %error,
                        "the owner's wish holds, but will be forgotten with the agent"
                    ),
                });
            }
            Order::Settings(settings) => {
                self.parts.rules.owner = settings.clone();
                self.set();
                self.writer.give(move || {
                    if let Err(error) = keep.keep_settings(&settings) {
                        tracing::error!(
                            target: "gleaner::watch", %error,
                            "the owner's settings hold, but will be forgotten with the agent"
                        );
                    }
                });
            }
        }
    }

    /// The owner means the clock on the wall, which may have been set since ours began: an hour is
    /// an hour all the same. On the disk and in the status it stays as they said it.
    fn wish(&mut self, wish: OwnerWish) {
        let here = match wish {
            OwnerWish::Pause { until } => OwnerWish::Pause {
                until: until.map(|until| self.parts.clock.of_wall(until)),
            },
            OwnerWish::Resume => OwnerWish::Resume,
        };
        self.step(Event::Owner(here));
    }

    /// The rules changed.
    fn set(&mut self) {
        let (together, owner) = (self.parts.rules.together(), self.parts.rules.owner.clone());
        self.step(Event::Settings(together.clone()));
        self.parts.status.send_modify(|status| {
            status.settings = together;
            status.owner_settings = owner;
        });
    }

    fn step(&mut self, event: Event) {
        let now = self.parts.clock.now();
        if self.brain.step(now, event) {
            let decision = self.brain.decision();
            tracing::debug!(target: "gleaner::watch", ?decision, "{}", decision.cause);
        }
    }

    fn wake(&self, wake: Wake) {
        if self.parts.slow.send(wake).is_err() {
            tracing::error!(target: "gleaner::watch", "nobody looks at the sensors any more");
        }
    }

    /// Brings the PC in line with the decision: first what the owner feels, then the rest. What
    /// is as it should be is not written again.
    fn carry_out(&mut self) {
        let decision = self.brain.decision().clone();
        let hold = decision.verdict != Verdict::Run;
        let allowance = Allowance {
            cpus: decision.allowance,
            io_permille: decision.io,
            memory: Some(decision.room).filter(|room| *room < Bytes(u64::MAX)),
        };
        // Narrowed before a thaw and after a freeze, so that nothing runs wider than allowed.
        if hold && self.held != Some(true) {
            self.hold(true);
        }
        if self.allowed != Some(allowance) {
            for engine in &self.parts.engines {
                engine.allow(&allowance);
            }
            self.allowed = Some(allowance);
        }
        if !hold && self.held != Some(false) {
            self.hold(false);
        }
        let now = self.parts.clock.now();
        self.relieve(&decision, now);
        if self.told.as_ref() == Some(&decision) {
            return;
        }
        self.parts.status.send_modify(|status| {
            status.at = now;
            status.decision = decision.clone();
        });
        self.parts
            .inputs
            .send(Input::Judged(Box::new(decision.clone())));
        self.told = Some(decision);
    }

    fn hold(&mut self, on: bool) {
        for engine in &self.parts.engines {
            engine.hold(on);
        }
        self.held = Some(on);
    }

    /// Memory for the owner: pages first, then whole attempts.
    fn relieve(&mut self, decision: &Decision, now: Time) {
        if decision.relief == Relief::None {
            self.relieved = None;
            return;
        }
        let recently = |last: Time| now.since(last).ms < RELIEF_MS;
        if !self.holding || self.relieved.is_some_and(recently) {
            return;
        }
        self.relieved = Some(now);
        self.wake(Wake::Reclaim);
        if decision.relief == Relief::Shed {
            self.parts.inputs.send(Input::Shed);
        }
    }
}
