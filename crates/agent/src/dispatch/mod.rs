//! The agent's one loop: everything that happens comes through its queue, is handed to the
//! [`Book`], and what the book asks for is done or given to the hands that do it.
//!
//! It runs on a thread of its own, because an engine's calls may block for moments. It owns what
//! the node holds; it knows neither sockets nor files. In: [`Input`]s from the link, the engines,
//! fetches and collections. Out: calls of engines, and messages for the link.

mod act;
mod ahead;
mod due;
mod offer;
pub(crate) mod save;
mod serve;
mod slot;

use crate::clock::Clock;
use crate::condition::Condition;
use crate::config::AtStop;
use crate::fetch::{Fetcher, Inputs as InputFiles};
use crate::hands::Hands;
use crate::input::{Input, Inputs};
use crate::link::message;
use crate::owner::guests::Guests;
use crate::run::JobTemplate;
use crate::watch::capacity::Offer;
use crate::watch::roster::Held;
use crate::watch::{Watching, disk};
use due::Due;
use gleaner_attempt::{Action, Adoption, Book, Capacity, Event, Verdict};
use gleaner_engine::{AttemptSpec, Engine};
use gleaner_harvest::{Cause, Decision};
use gleaner_model::{AttemptId, AttemptState, Bytes, JobId, NodeState, Span, TaskId, Time};
use gleaner_wire::v1;
use slot::Slot;
use std::collections::{BTreeMap, VecDeque};
use std::mem::{Discriminant, discriminant};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, Semaphore, watch};

/// Time between beats to the shims, in milliseconds; they freeze their attempts after three that
/// did not come.
pub(crate) const ENGINE_BEAT_MS: u64 = 1000;

/// Beats go on so long after the last attempt ended, in milliseconds: an engine lets go of what
/// it keeps for the next task, and an idle node falls silent after that.
const BEAT_ON_MS: u64 = 15_000;

/// Time between looks at the disk while the node holds attempts, in milliseconds: a fast disk
/// takes about that long to lose what is kept free.
const LOOK_MS: u64 = 2000;

/// The same while it is full: who makes room wants to see work go on.
const LOOK_LOW_MS: u64 = 500;

/// How long attempts wait for room on the disk, in milliseconds; then other nodes get them, and
/// their scratch directories give room.
const DISK_PATIENCE_MS: u64 = 60_000;

/// Shims are told that the lease lasts at least this long, in milliseconds: while the agent
/// lives, an attempt goes on past its lease, and after its death the next agent needs a moment.
const LEASE_LEFT_MIN_MS: u64 = 10_000;

/// How long a stopping agent waits for its attempts to end, in milliseconds.
const STOP_PATIENCE_MS: u64 = 8000;

/// The watch shows that it lives twice as often as beats go out; after so long without a sign
/// they stop.
const PULSE_AGE_MAX: Duration = Duration::from_millis(2 * ENGINE_BEAT_MS);

/// Inputs taken before timers are looked at again.
const INPUTS_AT_ONCE: usize = 256;

/// Uploads at once: enough to fill a link, few enough for a small server.
const UPLOADS_MAX: usize = 4;

/// Threads that collect and remove: one waits for the disk while the other computes.
const COLLECTORS: usize = 2;

/// What the loop works with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) engines: Vec<Arc<dyn Engine>>,
    pub(crate) fetcher: Fetcher,
    pub(crate) blobs: crate::blobs::Blobs,
    pub(crate) inputs: Inputs,
    pub(crate) runtime: Handle,
    /// Everything of a hello but what the node holds.
    pub(crate) hello: v1::Hello,
    pub(crate) offer: Offer,
    /// Where everything of the agent lies.
    pub(crate) home: PathBuf,
    pub(crate) condition: watch::Sender<Condition>,
    /// Told when ends that have gone to the link are due; see [`due`].
    pub(crate) ends_due: Arc<Notify>,
    pub(crate) clock: Clock,
    pub(crate) watching: Watching,
    /// For whom attempts run, and what they use: for the owner.
    pub(crate) guests: Guests,
    pub(crate) at_stop: AtStop,
}

/// The loop's state.
#[derive(Debug)]
pub(crate) struct Dispatch {
    parts: Parts,
    book: Book,
    /// Events that follow from actions, handled before the next input.
    follow_up: VecDeque<Event>,
    slots: BTreeMap<AttemptId, Slot>,
    due: Due,
    templates: BTreeMap<JobId, Arc<JobTemplate>>,
    relays: serve::Relays,
    outgoing: Option<UnboundedSender<v1::AgentMessage>>,
    /// What this connection was told that the node offers.
    told: v1::Offer,
    /// Collects, discards.
    collectors: Hands,
    /// Steers attempts, in order.
    steerer: Hands,
    uploads: Arc<Semaphore>,
    next_beat: Option<Time>,
    next_look: Option<Time>,
    /// Since when the disk is full, where it is.
    low_since: Option<Time>,
    /// Which rule was shown last as what decides.
    shown: Option<Shown>,
    /// Most memory that owner and admin let the pool have.
    cap: Bytes,
    /// What is wrong with the disk, in words.
    trouble: Option<String>,
    /// The node's condition, its disk and its owner apart.
    base: Condition,
    /// What the harvest brain says; none before its first word.
    decision: Option<Box<Decision>>,
    /// What engines have prepared, and which ones.
    ahead: BTreeMap<AttemptId, Arc<dyn Engine>>,
    beat_until: Time,
    stop_by: Option<Time>,
    /// The PC's sleep waits until nothing is being saved.
    sleeps: bool,
}

/// What decides, without its figures: the state, whether the disk is full, the rule, and when the
/// owner's pause ends.
type Shown = (NodeState, bool, Option<(Discriminant<Cause>, Option<Time>)>);

/// An owner who chooses another end is told of it at once.
const fn pause_end(cause: &Cause) -> Option<Time> {
    if let Cause::OwnerPause { until, .. } = cause {
        return *until;
    }
    None
}

impl Dispatch {
    pub(crate) fn new(parts: Parts) -> Result<Self, crate::AgentError> {
        let capacity = Capacity {
            cpus: parts.offer.cpus,
            memory: parts.offer.memory,
        };
        let base = parts.condition.borrow().clone();
        Ok(Self {
            book: Book::new(capacity),
            cap: capacity.memory,
            follow_up: VecDeque::new(),
            slots: BTreeMap::new(),
            due: Due::default(),
            templates: BTreeMap::new(),
            relays: serve::Relays::default(),
            outgoing: None,
            told: v1::Offer::default(),
            collectors: Hands::new("gleaner-collect", COLLECTORS)?,
            steerer: Hands::new("gleaner-steer", 1)?,
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            next_beat: None,
            next_look: None,
            low_since: None,
            trouble: None,
            base,
            decision: None,
            shown: None,
            ahead: BTreeMap::new(),
            beat_until: Time { ms: 0 },
            stop_by: None,
            sleeps: false,
            parts,
        })
    }

    /// Works until it is told to stop.
    pub(crate) fn run(mut self, queue: &mpsc::Receiver<Input>) {
        self.look_at_disk();
        self.adopt();
        while !self.has_stopped() {
            let Some(input) = self.wait(queue) else {
                self.timers();
                continue;
            };
            self.take(input);
            for input in queue.try_iter().take(INPUTS_AT_ONCE) {
                self.take(input);
            }
            self.timers();
            self.look_ahead();
            self.let_sleep();
        }
        self.leave();
    }

    /// The next input, or none when a timer is due first.
    fn wait(&self, queue: &mpsc::Receiver<Input>) -> Option<Input> {
        let due = [
            self.book.wake_at(),
            self.next_beat,
            self.next_look,
            self.stop_by,
        ];
        let Some(due) = due.into_iter().flatten().min() else {
            // Nothing is due: an idle node sleeps until something happens. The loop itself holds
            // a sender, so the queue cannot close.
            return queue.recv().ok();
        };
        let left = due.since(self.parts.clock.now()).ms;
        queue.recv_timeout(Duration::from_millis(left)).ok()
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Connecting(answer) => {
                let hello = self.hello();
                self.told = offer::of(&hello);
                if answer.send(hello).is_err() {
                    tracing::debug!(target: "gleaner::agent", "the link gave up before its hello");
                }
            }
            Input::LinkUp {
                lease_ms,
                settings,
                outgoing,
            } => {
                self.parts.guests.linked(true);
                self.parts.guests.welcomed(settings);
                // The server sends each template anew on each connection.
                self.templates.clear();
                self.relays.stop_all();
                self.outgoing = Some(outgoing);
                let lease = Span {
                    ms: lease_ms.into(),
                };
                tracing::info!(target: "gleaner::agent", "connected");
                self.step(Event::LinkUp { lease });
                self.tell_saved_again();
                // What changed since the hello was made.
                self.tell_offer();
            }
            Input::LinkDown => {
                self.parts.guests.linked(false);
                self.outgoing = None;
                self.relays.stop_all();
                self.step(Event::LinkDown);
            }
            Input::Beaten(unheard) => {
                unheard.store(0, Ordering::Relaxed);
                self.step(Event::Beaten);
                // Also an idle node tells the server in time that it cannot take work.
                self.look_at_disk();
            }
            Input::FromServer(batch, _permit) => {
                for message in batch.messages {
                    self.serve(message);
                }
            }
            Input::Engine(event) => self.engine_event(event),
            Input::Fetched(attempt, outcome) => self.fetched(attempt, outcome),
            Input::Collected(attempt, reason, report) => {
                if let Some(slot) = self.slots.get_mut(&attempt) {
                    slot.report = Some(*report);
                    slot.work = None;
                }
                self.step(Event::Collected(attempt, reason));
            }
            Input::Saved(attempt, saved) => self.saved(attempt, saved),
            Input::Introduced(engines) => self.introduced(engines),
            Input::Condition(condition) => self.tested(condition),
            Input::Judged(decision) => {
                self.decision = Some(decision);
                self.judge();
                self.offer();
            }
            Input::Shed => self.step(Event::Shed),
            Input::Sleeping => self.save_all(),
            Input::Capped { memory, disk } => self.cap(memory, disk),
            Input::Stop => self.stop(),
        }
    }

    /// Pauses the node while its disk is full.
    pub(super) fn look_at_disk(&mut self) {
        let now = self.parts.clock.now();
        self.trouble = disk::trouble(&self.parts.home, self.low_since.is_some());
        self.low_since = match self.trouble {
            Some(_) => Some(self.low_since.unwrap_or(now)),
            None => None,
        };
        let ms = match self.low_since {
            Some(_) => LOOK_LOW_MS,
            None => LOOK_MS,
        };
        self.next_look = Some(now + Span { ms });
        self.judge();
    }

    /// Self-test, disk and owner together: the strictest counts, in what is done as in what is
    /// said.
    fn judge(&mut self) {
        let now = self.parts.clock.now();
        let mut condition = self.base.with_trouble(self.trouble.clone());
        let waited = self.low_since.map_or(0, |since| now.since(since).ms);
        let mut verdict = match waited > DISK_PATIENCE_MS {
            true => Verdict::Evict,
            false => condition.verdict(),
        };
        if let Some(decision) = &self.decision {
            condition = condition.with_decision(decision);
            verdict = verdict.max(decision.verdict);
        }
        self.step(Event::Judged(verdict));
        self.show(condition);
    }

    /// Tells the owner's window, and the server: at once where something else decides now, with
    /// the next beat where only its figures changed.
    fn show(&mut self, condition: Condition) {
        if *self.parts.condition.borrow() == condition {
            return;
        }
        let cause = self.decision.as_ref().map(|decision| &decision.cause);
        let rule = (
            condition.state,
            self.trouble.is_some(),
            cause.map(|cause| (discriminant(cause), pause_end(cause))),
        );
        let other = self.shown.replace(rule) != Some(rule);
        self.parts.condition.send_if_modified(|old| {
            old.clone_from(&condition);
            other
        });
        if other {
            let why = Some(&*condition.reason).filter(|why| !why.is_empty());
            let why = why.unwrap_or("tasks may run");
            tracing::info!(target: "gleaner::watch", state = %condition.state, "{why}");
        }
        self.parts.watching.shown.send_modify(|status| {
            status.state = condition.state;
            status.reason = condition.reason;
        });
    }

    /// One event, the actions it leads to, and the events these lead to.
    fn step(&mut self, event: Event) {
        self.follow_up.push_back(event);
        while let Some(event) = self.follow_up.pop_front() {
            let now = self.parts.clock.now();
            for action in self.book.step(now, event) {
                self.act(action);
            }
        }
    }

    fn timers(&mut self) {
        let now = self.parts.clock.now();
        if self.book.wake_at().is_some_and(|due| due <= now) {
            self.step(Event::Tick);
        }
        if self.book.held() == 0 && self.low_since.is_none() {
            // Whoever has nothing to do need not know; a bundle makes us look again.
            self.next_look = None;
        } else if self.next_look.is_none_or(|due| due <= now) {
            self.look_at_disk();
        }
        if self.book.live() > 0 {
            self.beat_until = now + Span { ms: BEAT_ON_MS };
        }
        if self.beat_until <= now {
            self.next_beat = None;
        } else if self.next_beat.is_none_or(|due| due <= now) {
            let left = self.book.lease_left(now).ms.max(LEASE_LEFT_MIN_MS);
            let watched = self.book.live() == 0 || self.is_watched();
            for engine in self.parts.engines.iter().filter(|_| watched) {
                engine.beat(left);
            }
            self.next_beat = Some(now + Span { ms: ENGINE_BEAT_MS });
        }
    }

    /// Whether the watch lives. If it hangs, nobody would obey the owner, so the shims are let
    /// believe that the agent is dead: they freeze their attempts.
    fn is_watched(&self) -> bool {
        self.parts.watching.pulse.age() <= PULSE_AGE_MAX
    }

    fn send(&self, kind: v1::agent_message::Kind) {
        if let Some(outgoing) = &self.outgoing
            && outgoing.send(message(kind)).is_err()
        {
            // The link noticed first; it will say so, and reports are sent again then.
            tracing::debug!(target: "gleaner::agent", "the link is gone");
        }
    }

    fn send_end(&mut self, ended: v1::Ended) {
        let due = self.is_due(&ended);
        self.send(v1::agent_message::Kind::Ended(ended));
        if due {
            self.parts.ends_due.notify_one();
        }
    }

    /// Whether the job's ends should be heard now.
    fn is_due(&mut self, ended: &v1::Ended) -> bool {
        let Some(attempt) = ended.attempt.map(AttemptId::from) else {
            return false;
        };
        let job = attempt.task.job;
        let [first, last] = [0, u32::MAX].map(|at| TaskId::new(job, at).attempt(at));
        let slots = &self.slots;
        self.due.end(job, || {
            let all = slots.range(first..=last);
            let left = all.filter(|(_, slot)| slot.report.is_none()).count();
            u32::try_from(left).unwrap_or(u32::MAX)
        })
    }

    fn hello(&self) -> v1::Hello {
        let held = self.book.inventory().into_iter();
        v1::Hello {
            held: held
                .map(|(attempt, state)| v1::Held {
                    attempt: Some(attempt.into()),
                    state: state.as_str().to_owned(),
                })
                .collect(),
            ..self.parts.hello.clone()
        }
    }

    /// Takes over what an earlier agent left in the engines.
    fn adopt(&mut self) {
        for engine in self.parts.engines.clone() {
            let adopted = match engine.adopt() {
                Ok(adopted) => adopted,
                Err(error) => {
                    tracing::error!(target: "gleaner::agent", %error, "cannot adopt attempts");
                    continue;
                }
            };
            for adopted in adopted {
                let spec = adopted.spec;
                tracing::info!(target: "gleaner::agent", attempt = %spec.attempt, "adopted");
                let ended = adopted.ending.as_ref().map(|ending| ending.reason.clone());
                if adopted.ending.is_none() {
                    self.list(&engine, &spec, adopted.started);
                }
                self.parts.guests.adopted(spec.attempt);
                let slot = Slot::adopted(&engine, &spec, adopted.ending);
                let saving = slot.saves.how;
                self.slots.insert(spec.attempt, slot);
                self.step(Event::Adopted(Adoption {
                    attempt: spec.attempt,
                    lease: spec.bundle,
                    cpus: spec.limits.cpus,
                    memory: spec.limits.memory,
                    saving,
                    ended,
                }));
            }
        }
    }

    /// Shows an adopted attempt to the watch.
    fn list(&self, engine: &Arc<dyn Engine>, spec: &AttemptSpec, started: Option<Time>) {
        let held = Held {
            engine: Arc::clone(engine),
            limits: Arc::new(spec.limits.clone()),
            state: AttemptState::Running,
            since: started.unwrap_or_else(|| self.parts.clock.now()),
            name: String::new(),
            user: String::new(),
        };
        self.parts.watching.roster.add(spec.attempt, held);
    }

    fn stop(&mut self) {
        let now = self.parts.clock.now();
        match self.parts.at_stop {
            AtStop::Leave => self.stop_by = Some(now),
            AtStop::End => {
                self.stop_by = Some(
                    now + Span {
                        ms: STOP_PATIENCE_MS,
                    },
                );
                self.step(Event::Judged(Verdict::Evict));
            }
        }
    }

    fn has_stopped(&self) -> bool {
        let now = self.parts.clock.now();
        self.stop_by.is_some_and(|by| {
            by <= now || (self.parts.at_stop == AtStop::End && self.book.live() == 0)
        })
    }

    /// The last thing: nothing of an attempt stays where that was asked for.
    fn leave(self) {
        self.parts.watching.stop();
        for (attempt, engine) in self.ahead {
            engine.discard(attempt);
        }
        for (attempt, slot) in self.slots {
            slot.abort();
            if self.parts.at_stop == AtStop::End && slot.in_engine {
                slot.engine.discard(attempt);
            }
        }
    }

    fn unexpected(&self, action: &Action) {
        tracing::error!(target: "gleaner::agent", ?action, "asked about an attempt not held");
    }
}
