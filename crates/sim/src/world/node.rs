//! A PC: the real book of attempts, and around it an engine on virtual time, a power switch, and
//! a link that its server may not answer.

use super::engine::Program;
use super::owner::Owner;
use super::saves::record;
use super::{World, seconds};
use crate::agenda::{Due, Pc};
use crate::chance::fixed;
use crate::link::{Down, Link, Up};
use crate::peers::offered;
use crate::report::Options;
use gleaner_attempt::{Action, Adoption, Book, Capacity, Event, Grant, Verdict, Wish};
use gleaner_core::{AttemptEnd, Bundle, Held, KernelUse, LEASE, NodeHello, NodeWish, Saved};
use gleaner_model::{
    AttemptId, AttemptState, Bytes, Cpus, Engine, GuestPrice, LeaseId, NodeId, NodeState, Reason,
    Time,
};
use std::collections::BTreeMap;

/// A beat leaves this often: a lease survives two lost ones.
const BEAT_MS: u64 = 10_000;

/// What every PC has for scratch.
const DISK: Bytes = Bytes(100 << 30);

/// A kept report.
#[derive(Debug, Clone)]
struct Kept {
    reason: Reason,
    saved: Option<Saved>,
    ran_ms: u64,
    cpus: Cpus,
}

/// A PC.
#[derive(Debug)]
pub(crate) struct Computer {
    pub(crate) id: NodeId,
    pub(crate) cpus: Cpus,
    memory: Bytes,
    /// The owner lets the pool have half of the memory only.
    spare: bool,
    pub(crate) speed: f64,
    arch: &'static str,
    pub(crate) on: bool,
    pub(crate) agent: Option<Book>,
    killed_at: u64,
    pub(crate) programs: BTreeMap<AttemptId, Program>,
    kept: BTreeMap<AttemptId, Kept>,
    /// What was saved and the server has not answered for.
    pub(crate) untold: BTreeMap<AttemptId, Saved>,
    /// What granted attempts go on from: which part of the work is done.
    pub(crate) restores: BTreeMap<AttemptId, f64>,
    pub(crate) link: Link,
    pub(crate) owner: Owner,
    pub(crate) verdict: Verdict,
    /// Thousandths of a processor that tasks may use while they run.
    pub(crate) allowance: u32,
    /// How fast programs run, in thousandths of what they could.
    pub(crate) pace: u32,
    /// It has no power before this time, whatever its owner wants.
    pub(crate) outage_until: u64,
    /// A wake is noted for this time.
    woken_at: Option<u64>,
    /// Until when its idle processor time is accounted.
    accounted: u64,
}

impl Computer {
    pub(crate) fn new(pc: Pc, options: &Options, now: u64) -> Self {
        let seed = options.seed;
        let draw = |what: u64| fixed(seed, u64::from(pc), what);
        // The first PC can run anything, so that no user waits for ever.
        let cpus = match draw(1) {
            _ if pc == 0 => 4,
            x if x < 0.3 => 1,
            x if x < 0.8 => 2,
            _ => 4,
        };
        let recorded = options.trace.as_ref().and_then(|trace| trace.cores(pc));
        let cpus = recorded.unwrap_or(cpus);
        Self {
            id: NodeId(pc + 1),
            cpus: Cpus { milli: cpus * 1000 },
            memory: Bytes(u64::from(cpus) * (4 << 30)),
            spare: false,
            speed: 0.5 + 1.5 * draw(2),
            arch: if pc == 0 || draw(3) < 0.2 {
                "aarch64"
            } else {
                "x86_64"
            },
            on: true,
            agent: None,
            killed_at: 0,
            programs: BTreeMap::new(),
            kept: BTreeMap::new(),
            untold: BTreeMap::new(),
            restores: BTreeMap::new(),
            link: Link::default(),
            owner: Owner::new(pc, options, now),
            verdict: Verdict::Pause,
            allowance: cpus * 1000,
            pace: 1000,
            outage_until: 0,
            woken_at: None,
            accounted: now,
        }
    }

    /// What its owner lets the pool have.
    const fn given(&self) -> Capacity {
        let memory = match self.spare {
            true => Bytes(self.memory.0 / 2),
            false => self.memory,
        };
        Capacity {
            cpus: self.cpus,
            memory,
        }
    }

    fn hello(&self) -> NodeHello {
        let held = self.agent.as_ref().map(Book::inventory);
        let held = held.unwrap_or_default().into_iter();
        NodeHello {
            node: self.id,
            name: format!("pc{}", self.id),
            cpus: self.cpus,
            memory: self.given().memory,
            disk: DISK,
            arch: self.arch.into(),
            engines: vec![Engine::Process],
            guests: GuestPrice::Everything,
            images: true,
            labels: BTreeMap::new(),
            machine: None,
            refused: None,
            held: held
                .map(|(attempt, state)| Held { attempt, state })
                .collect(),
        }
    }
}

impl World {
    pub(crate) fn pc(&mut self, pc: Pc) -> Option<&mut Computer> {
        self.pcs.get_mut(pc as usize)
    }

    /// Notes the processor time that the owner left over since the last time, and how much of it
    /// tasks were let use.
    pub(crate) fn account(&mut self, pc: Pc) {
        let now = self.now;
        let until = now.min(self.end);
        let Some(node) = self.pcs.get_mut(pc as usize) else {
            return;
        };
        let passed = seconds(until.saturating_sub(node.accounted));
        node.accounted = node.accounted.max(now);
        if node.on {
            let idle = offered(node.cpus.milli, node.owner.usage.load);
            self.tally.idle_cpu += f64::from(idle) / 1000.0 * passed;
            if node.verdict == Verdict::Run && node.agent.is_some() {
                let offered = idle.min(node.allowance);
                self.tally.offered_cpu += f64::from(offered) / 1000.0 * passed;
            }
        }
    }

    /// Steps a PC's book and does what it asks.
    pub(crate) fn feed(&mut self, pc: Pc, event: Event) {
        let now = Time { ms: self.now };
        let Some(book) = self.pc(pc).and_then(|node| node.agent.as_mut()) else {
            return;
        };
        let actions = book.step(now, event);
        self.node_steps += 1;
        for action in actions {
            self.act(pc, action);
        }
        let Some(node) = self.pc(pc) else { return };
        let wake = node.agent.as_ref().and_then(Book::wake_at);
        let Some(wake) = wake.map(|time| time.ms.max(now.ms)) else {
            return;
        };
        if node.woken_at.is_none_or(|noted| wake < noted) {
            node.woken_at = Some(wake);
            self.agenda.note(wake, Due::Wake(pc));
        }
    }

    pub(crate) fn wake(&mut self, pc: Pc) {
        let now = self.now;
        let Some(node) = self.pc(pc) else { return };
        if node.woken_at.is_some_and(|noted| noted <= now) {
            node.woken_at = None;
        }
        let due = node.agent.as_ref().and_then(Book::wake_at);
        if due.is_some_and(|due| due.ms <= now) {
            self.feed(pc, Event::Tick);
        }
    }

    pub(crate) fn answer(&mut self, pc: Pc, after_ms: u64, event: Event) {
        let at = self.now + after_ms;
        self.agenda.note(at, Due::Answer(pc, Box::new(event)));
    }

    fn act(&mut self, pc: Pc, action: Action) {
        match action {
            Action::Fetch(attempt) => {
                let failed = self.options.faults && self.chance.likely(0.0005);
                let after = self.chance.between(1, 20);
                let event = if failed {
                    let detail = "the blob could not be had".into();
                    Event::FetchFailed(attempt, Reason::Fetch { detail })
                } else {
                    Event::Fetched(attempt)
                };
                self.answer(pc, after, event);
            }
            Action::Start(attempt) => self.start(pc, attempt),
            Action::Pause(attempt) => {
                self.freeze(pc, attempt);
                self.answer(pc, 2, Event::Paused(attempt));
            }
            Action::Resume(attempt) => {
                self.thaw(pc, attempt);
                self.answer(pc, 2, Event::Resumed(attempt));
            }
            Action::Save { attempt, .. } => self.save(pc, attempt),
            Action::Stop { attempt, .. } => self.stop(pc, attempt),
            Action::Collect {
                attempt, reason, ..
            } => self.collect(pc, attempt, reason),
            Action::Report(attempt) => self.send_report(pc, attempt),
            Action::Tell(attempt, state) => self.send(pc, Up::Progress(attempt, state)),
            Action::Forget(attempt) => {
                let gone = self.pc(pc).and_then(|node| {
                    node.kept.remove(&attempt);
                    node.untold.remove(&attempt);
                    node.restores.remove(&attempt);
                    node.programs.remove(&attempt)
                });
                self.spent(gone.as_ref());
            }
            Action::Decline(attempt, reason) => {
                let kept = Kept {
                    reason,
                    saved: None,
                    ran_ms: 0,
                    cpus: Cpus::ONE,
                };
                self.send_end(pc, attempt, kept);
            }
        }
    }

    fn collect(&mut self, pc: Pc, attempt: AttemptId, reason: Reason) {
        let after = self.chance.between(1, 5);
        let now = Time { ms: self.now };
        let saves = self.jobs.get(&attempt.task.job);
        let saves = saves.is_some_and(|job| job.saving.itself);
        if let Some(node) = self.pc(pc) {
            let ran = node.programs.get(&attempt);
            let leaves = matches!(
                reason.state(),
                AttemptState::Checkpointed | AttemptState::Evicted
            );
            let left = ran.filter(|_| saves && leaves);
            let kept = Kept {
                reason: reason.clone(),
                saved: left.map(|ran| record(attempt.task, ran.part(now.ms, 0), now)),
                ran_ms: ran.map_or(0, |program| program.ran_ms),
                cpus: ran.map_or(Cpus::ONE, |program| program.cpus),
            };
            node.kept.insert(attempt, kept);
        }
        self.answer(pc, after, Event::Collected(attempt, reason));
    }

    fn send_report(&mut self, pc: Pc, attempt: AttemptId) {
        let kept = self
            .pc(pc)
            .and_then(|node| node.kept.get(&attempt).cloned());
        if let Some(kept) = kept {
            self.send_end(pc, attempt, kept);
        }
    }

    fn send_end(&mut self, pc: Pc, attempt: AttemptId, kept: Kept) {
        let busy_seconds = seconds(kept.ran_ms);
        let cpu_seconds = busy_seconds * f64::from(kept.cpus.milli) / 1000.0;
        let end = AttemptEnd {
            node: NodeId(pc + 1),
            attempt,
            reason: kept.reason,
            cpu_seconds,
            busy_seconds,
            kernel: Some(KernelUse::default()),
            record: cpu_seconds.to_le_bytes().to_vec(),
            saved: kept.saved,
        };
        self.send(pc, Up::Ended(Box::new(end)));
    }

    /// Sends over the link, if there is one.
    pub(crate) fn send(&mut self, pc: Pc, up: Up) {
        let latency = self.chance.between(1, 30);
        let (now, faults) = (self.now, self.options.faults);
        let Some(node) = self.pc(pc).filter(|node| node.link.open) else {
            return;
        };
        let link = &mut node.link;
        link.up_at = link.up_at.max(now + latency);
        let (at, epoch) = (link.up_at, link.epoch);
        if faults && matches!(up, Up::Ended(_) | Up::Saved(..)) && self.chance.likely(0.01) {
            let again = at + self.chance.between(0, 60_000);
            let copy = up.clone();
            self.agenda.note(again, Due::Arrive(pc, epoch, copy));
        }
        self.agenda.note(at, Due::Arrive(pc, epoch, up));
    }

    /// The owner gives more or less than before; the server hears of it where it has welcomed the
    /// node, else in the next hello.
    pub(crate) fn offer(&mut self, pc: Pc, spare: bool) {
        let Some(node) = self.pc(pc).filter(|node| node.spare != spare) else {
            return;
        };
        node.spare = spare;
        let (given, told) = (node.given(), node.link.open);
        let hello = node.hello();
        self.feed(pc, Event::Offered(given));
        if told {
            self.send(pc, Up::Offer(Box::new(hello.offer())));
        }
    }

    /// The time for a beat has come.
    pub(crate) fn beat(&mut self, pc: Pc, epoch: u32) {
        let live = self.pc(pc).is_some_and(|node| {
            let link = node.link;
            link.epoch == epoch && link.open && link.welcome
        });
        if live {
            self.beat_now(pc);
            self.agenda.note(self.now + BEAT_MS, Due::Beat(pc, epoch));
        }
    }

    pub(crate) fn beat_now(&mut self, pc: Pc) {
        let Some(node) = self.pc(pc).filter(|n| n.link.open && n.link.welcome) else {
            return;
        };
        let state = match node.verdict {
            Verdict::Run => NodeState::Online,
            Verdict::Pause | Verdict::Evict => NodeState::Paused,
        };
        self.send(pc, Up::Beat(state));
        self.feed(pc, Event::Beaten);
    }

    /// A message of the server arrives.
    pub(crate) fn deliver(&mut self, pc: Pc, epoch: u32, down: Down) {
        let Some(node) = self.pc(pc) else { return };
        let link = &mut node.link;
        if link.epoch != epoch || link.cut || !link.open || node.agent.is_none() {
            return;
        }
        match down {
            Down::Welcome => {
                link.welcome = true;
                let untold: Vec<AttemptId> = node.untold.keys().copied().collect();
                self.feed(pc, Event::LinkUp { lease: LEASE });
                for attempt in untold {
                    self.tell_saved(pc, attempt);
                }
                self.beat(pc, epoch);
            }
            Down::Bundle(bundle, restores) => {
                node.restores.extend(restores);
                self.granted(pc, &bundle);
            }
            Down::Kept(attempt, taken, kept) => self.kept(pc, (attempt, taken), kept),
            Down::Revoke(attempts) => self.feed(pc, Event::Revoked(attempts)),
            Down::Acknowledge(attempts) => self.feed(pc, Event::Acknowledged(attempts)),
            Down::Wish(wish) => {
                let wish = match wish {
                    NodeWish::Pause => Wish::Pause,
                    NodeWish::Resume => Wish::Resume,
                    NodeWish::Drain => Wish::Drain,
                    NodeWish::Evict => Wish::Evict,
                };
                self.feed(pc, Event::Wished(wish));
            }
        }
    }

    fn granted(&mut self, pc: Pc, bundle: &Bundle) {
        let Some(job) = self.jobs.get(&bundle.job) else {
            return;
        };
        let task = |(index, number): &(u32, u32)| {
            gleaner_model::TaskId::new(bundle.job, *index).attempt(*number)
        };
        let grant = Grant {
            lease: bundle.lease,
            cpus: job.need.cpus,
            memory: job.need.memory,
            width: bundle.width,
            saving: job.saving,
            tasks: bundle.tasks.iter().map(task).collect(),
        };
        self.feed(pc, Event::Granted(grant));
    }

    /// The agent sees that its connection ended, and tries again after a while.
    pub(crate) fn link_broken(&mut self, pc: Pc, epoch: u32) {
        let after = self.chance.between(100, 5_000);
        let now = self.now;
        let Some(node) = self.pc(pc).filter(|n| n.link.epoch == epoch && n.link.open) else {
            return;
        };
        node.link.open = false;
        node.link.welcome = false;
        let at = (now + after).max(node.link.dark_until);
        self.agenda.note(at, Due::Connect(pc, epoch));
        self.feed(pc, Event::LinkDown);
    }

    pub(crate) fn connect(&mut self, pc: Pc, epoch: u32) {
        let again = self.now + self.chance.between(1_000, 5_000);
        let (now, up) = (self.now, self.server.state.is_some());
        let Some(node) = self.pc(pc) else { return };
        let link = &mut node.link;
        if !node.on || node.agent.is_none() || link.open || link.epoch != epoch {
            return;
        }
        if !up || link.dark_until > now {
            let at = again.max(link.dark_until);
            self.agenda.note(at, Due::Connect(pc, epoch));
            return;
        }
        link.epoch += 1;
        link.open = true;
        link.cut = false;
        link.welcome = false;
        link.up_at = now;
        link.down_at = now;
        let hello = node.hello();
        self.send(pc, Up::Hello(Box::new(hello)));
    }

    /// The link breaks; neither side knows it yet.
    pub(crate) fn cut(&mut self, pc: Pc, dark_ms: u64) {
        let (agent_sees, server_sees) = (
            self.chance.between(50, 15_000),
            self.chance.between(50, 40_000),
        );
        let now = self.now;
        let Some(node) = self.pc(pc) else { return };
        let link = &mut node.link;
        link.dark_until = link.dark_until.max(now + dark_ms);
        if link.open && !link.cut {
            link.cut = true;
            let epoch = link.epoch;
            self.agenda.note(now + agent_sees, Due::Broken(pc, epoch));
            self.agenda.note(now + server_sees, Due::Gone(pc, epoch));
        }
    }

    /// kill -9 of the agent: its shims keep the programs.
    pub(crate) fn kill_agent(&mut self, pc: Pc, back_ms: u64) {
        let now = self.now;
        self.cut(pc, 0);
        let Some(node) = self.pc(pc).filter(|node| node.agent.is_some()) else {
            return;
        };
        node.agent = None;
        node.owner.end();
        node.killed_at = now;
        node.link.open = false;
        node.untold.clear();
        node.restores.clear();
        self.agenda.note(now + back_ms, Due::AgentUp(pc));
    }

    /// Power fails for a while.
    pub(crate) fn power_off(&mut self, pc: Pc, back_ms: u64) {
        let back = self.now + back_ms;
        if let Some(node) = self.pc(pc) {
            node.outage_until = node.outage_until.max(back);
        }
        self.power_goes(pc);
        self.agenda.note(back, Due::PowerOn(pc));
    }

    /// Power goes: nothing is left of what ran.
    pub(crate) fn power_goes(&mut self, pc: Pc) {
        self.account(pc);
        self.cut(pc, 0);
        let now = self.now;
        let Some(node) = self.pc(pc).filter(|node| node.on) else {
            return;
        };
        node.on = false;
        node.agent = None;
        node.owner.end();
        node.link.open = false;
        node.kept.clear();
        node.untold.clear();
        node.restores.clear();
        let pace = node.pace;
        let mut programs = std::mem::take(&mut node.programs);
        for program in programs.values_mut() {
            program.halt(now, pace);
            self.spent(Some(program));
        }
    }

    pub(crate) fn power_on(&mut self, pc: Pc) {
        self.account(pc);
        let now = self.now;
        if let Some(node) = self.pc(pc)
            && node.owner.usage.on
            && node.outage_until <= now
        {
            node.on = true;
            self.agent_up(pc);
        }
    }

    /// An agent starts, and adopts what its predecessor left running.
    pub(crate) fn agent_up(&mut self, pc: Pc) {
        let (now, regime) = (self.now, self.options.regime);
        self.account(pc);
        let Some(node) = self
            .pcs
            .get_mut(pc as usize)
            .filter(|n| n.on && n.agent.is_none())
        else {
            return;
        };
        node.owner.begin(regime, node.cpus, now);
        node.verdict = Verdict::Pause;
        let alone_too_long = now.saturating_sub(node.killed_at) >= LEASE.ms;
        node.agent = Some(Book::new(node.given()));
        let pace = node.pace;
        let mut adoptions = Vec::new();
        for (attempt, program) in &mut node.programs {
            if program.ended.is_none() && alone_too_long {
                program.halt(now, pace);
                let detail = "no agent came back while its lease lasted".into();
                program.ended = Some(Reason::Lost { detail });
            }
            let job = self.jobs.get(&attempt.task.job);
            adoptions.push(Adoption {
                saving: job.map(|job| job.saving).unwrap_or_default(),
                attempt: *attempt,
                lease: LeaseId(0),
                cpus: program.cpus,
                memory: program.memory,
                ended: program.ended.clone(),
            });
        }
        // What never reached an engine is not there any more; its kept report is.
        let programs = &node.programs;
        node.kept
            .retain(|attempt, _| programs.contains_key(attempt));
        let epoch = node.link.epoch;
        for adoption in adoptions {
            let attempt = adoption.attempt;
            self.feed(pc, Event::Adopted(adoption));
            self.thaw(pc, attempt);
        }
        self.feed(pc, Event::Judged(Verdict::Pause));
        self.judge(pc);
        self.agenda.note(now + 10, Due::Connect(pc, epoch));
    }

    /// Everything that the book holds agrees with itself.
    pub(crate) fn check_pc(&self, pc: Pc) {
        if let Some(book) = self.pcs.get(pc as usize).and_then(|n| n.agent.as_ref()) {
            book.check();
        }
    }
}
