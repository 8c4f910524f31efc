//! The server: the real brain behind a driver that commits in batches and can be killed.
//!
//! As the real driver does, it lets nothing out before the whole batch is durable. A kill loses
//! the batch; the next brain is made from the rows alone.

use super::World;
use crate::agenda::{Due, Pc};
use crate::digest::Digest;
use crate::ledger::Ledger;
use crate::link::{Down, Up};
use crate::report::Failure;
use gleaner_core::{Action, Book, Event, NodeReport, Row, State};
use gleaner_model::{NodeId, TaskId, TaskState, Time};
use std::collections::BTreeMap;

/// The driver's clock.
const TICK_MS: u64 = 1000;

/// With faults every step checks what it touched, and each so many steps everything.
const FULL_CHECK_STEPS: u64 = 1024;

/// Without faults the brain is only watched from time to time: such runs are for figures.
const SPOT_CHECK_STEPS: u64 = 1 << 17;

/// What leaves when the batch is durable.
#[derive(Debug)]
enum Out {
    Action(Action),
    Welcome(Pc, u32),
}

/// The server.
#[derive(Debug, Default)]
pub(crate) struct Server {
    pub(crate) state: Option<State>,
    book: Book,
    batch: Vec<Out>,
    scratch: Vec<Action>,
    committing: bool,
    /// It dies as soon as it has something that is not durable yet.
    doomed: bool,
    boot: u32,
    /// The newest connection of each PC.
    session: Vec<Option<u32>>,
    pub(crate) steps: u64,
    pub(crate) checks: u64,
    pub(crate) stale: u64,
    pub(crate) lost_actions: u64,
    pub(crate) hash: Digest,
    pub(crate) ledger: Ledger,
}

impl Server {
    pub(crate) fn new(nodes: u32) -> Self {
        Self {
            state: Some(State::new()),
            session: vec![None; nodes as usize],
            ..Self::default()
        }
    }
}

impl World {
    /// One step of the brain, and its checks.
    pub(crate) fn serve(&mut self, event: Event) -> Result<(), Failure> {
        let now = Time { ms: self.now };
        let node = subject(&event);
        let server = &mut self.server;
        let Some(state) = server.state.as_mut() else {
            return Ok(());
        };
        let ended = matches!(event, Event::Ended(_));
        state.step_into(now, event, &mut server.scratch);
        server.steps += 1;
        if ended && server.scratch.len() == 1 {
            server.stale += 1;
        }
        for action in server.scratch.drain(..) {
            server.hash.action(&action);
            server.batch.push(Out::Action(action));
        }
        self.check(node)?;
        if self.server.doomed && !self.server.batch.is_empty() {
            self.kill_server();
        } else {
            self.commit_soon();
        }
        Ok(())
    }

    fn commit_soon(&mut self) {
        if !self.server.batch.is_empty() && !self.server.committing {
            self.server.committing = true;
            let at = self.now + self.chance.between(1, 10);
            self.agenda.note(at, Due::Commit(self.server.boot));
        }
    }

    fn check(&mut self, node: Option<NodeId>) -> Result<(), Failure> {
        let (steps, options) = (self.server.steps, &self.options);
        let each = if options.faults {
            FULL_CHECK_STEPS
        } else {
            SPOT_CHECK_STEPS
        };
        let Some(state) = self.server.state.as_ref() else {
            return Ok(());
        };
        let checked = if options.check_all || steps.is_multiple_of(each) {
            self.server.checks += 1;
            state.check()
        } else if let Some(node) = node.filter(|_| options.faults) {
            state.check_node(node)
        } else {
            Ok(())
        };
        checked.map_err(|what| self.failure(what))
    }

    /// The batch is durable: everything of it may leave.
    pub(crate) fn commit(&mut self, boot: u32) -> Result<(), Failure> {
        if self.server.boot != boot {
            return Ok(());
        }
        self.server.committing = false;
        let batch = std::mem::take(&mut self.server.batch);
        for out in &batch {
            if let Out::Action(Action::Write(row)) = out {
                self.store(row)?;
            }
        }
        for out in batch {
            self.let_out(out)?;
        }
        Ok(())
    }

    fn store(&mut self, row: &Row) -> Result<(), Failure> {
        self.server.book.apply(row);
        let entered = self.server.ledger.enter(row);
        entered.map_err(|what| self.failure(what))?;
        match row {
            Row::NewJob(id, _, job) => self.job_stored(*id, job),
            Row::Attempt(row) if row.task_over == Some(TaskState::Done) => {
                let cpu = row.record.as_slice().try_into().map(f64::from_le_bytes);
                let cpu = cpu.unwrap_or_default();
                self.tally.useful_cpu += cpu;
                if self.now <= self.end {
                    self.tally.useful_in_time += cpu;
                }
            }
            Row::Job(_)
            | Row::JobGone(_)
            | Row::Lease(_)
            | Row::LeaseOver(_)
            | Row::Checkpoint(_)
            | Row::CheckpointOver(_)
            | Row::Attempt(_)
            | Row::Forgiven(..)
            | Row::Node(_)
            | Row::User(_) => {}
        }
        Ok(())
    }

    fn let_out(&mut self, out: Out) -> Result<(), Failure> {
        match out {
            Out::Welcome(pc, epoch) => self.post_to(pc, epoch, Down::Welcome),
            Out::Action(action) => match action {
                Action::Dispatch(bundle) => {
                    let sent = self.server.ledger.sent(&bundle);
                    sent.map_err(|what| self.failure(what))?;
                    let mut restores = BTreeMap::new();
                    for (index, number) in &bundle.tasks {
                        let task = TaskId::new(bundle.job, *index);
                        if let Some(part) = self.restored(task)? {
                            restores.insert(task.attempt(*number), part);
                        }
                    }
                    self.post(bundle.node, Down::Bundle(Box::new(bundle), restores));
                }
                Action::Revoke { node, attempts } => self.post(node, Down::Revoke(attempts)),
                Action::Acknowledge { node, attempts } => {
                    self.post(node, Down::Acknowledge(attempts));
                }
                Action::Kept {
                    node,
                    attempt,
                    taken,
                    kept,
                } => self.post(node, Down::Kept(attempt, taken, kept)),
                Action::Wish { node, wish } => self.post(node, Down::Wish(wish)),
                Action::Merge { job } => {
                    let at = self.now + self.chance.between(50, 5_000);
                    self.agenda.note(at, Due::Merged(self.server.boot, job));
                }
                Action::Write(_) | Action::Reply(_) | Action::Changed { .. } => {}
            },
        }
        Ok(())
    }

    fn post(&mut self, node: NodeId, down: Down) {
        let pc = node.0 - 1;
        if let Some(Some(epoch)) = self.server.session.get(pc as usize).copied() {
            self.post_to(pc, epoch, down);
        }
    }

    fn post_to(&mut self, pc: Pc, epoch: u32, down: Down) {
        let latency = self.chance.between(1, 30);
        let (now, faults) = (self.now, self.options.faults);
        let Some(node) = self.pcs.get_mut(pc as usize) else {
            return;
        };
        node.link.down_at = node.link.down_at.max(now + latency);
        let at = node.link.down_at;
        if faults && matches!(down, Down::Bundle(..)) && self.chance.likely(0.002) {
            let copy = down.clone();
            self.agenda.note(at, Due::Deliver(pc, epoch, copy));
        }
        self.agenda.note(at, Due::Deliver(pc, epoch, down));
    }

    /// A message of a PC arrives, if its connection still stands; what was under way on a broken
    /// one may still be read.
    pub(crate) fn arrive(&mut self, pc: Pc, epoch: u32, up: Up) -> Result<(), Failure> {
        let Some(node) = self.pcs.get(pc as usize) else {
            return Ok(());
        };
        let stands = node.link.epoch == epoch && !node.link.cut;
        if matches!(up, Up::Hello(_)) {
            if !stands || self.server.state.is_none() {
                return Ok(());
            }
            if let Some(session) = self.server.session.get_mut(pc as usize) {
                *session = Some(epoch);
            }
            self.server.batch.push(Out::Welcome(pc, epoch));
        } else {
            let known = self.server.session.get(pc as usize) == Some(&Some(epoch));
            // The driver drops what an older connection than the last offered.
            let late = !matches!(up, Up::Offer(_)) && self.chance.likely(0.4);
            let read = (stands && known) || late;
            if !read {
                return Ok(());
            }
        }
        let id = NodeId(pc + 1);
        self.serve(match up {
            Up::Hello(hello) => Event::Hello(*hello),
            Up::Offer(offer) => Event::Offer(*offer),
            Up::Beat(state) => Event::Beat(NodeReport {
                node: id,
                state,
                reason: String::new(),
            }),
            Up::Progress(attempt, state) => Event::Progress(id, attempt, state),
            Up::Ended(end) => Event::Ended(*end),
            Up::Saved(attempt, saved) => Event::Saved(NodeId(pc + 1), attempt, *saved),
        })
    }

    /// The server sees that a connection ended; of an older one it takes no notice.
    pub(crate) fn gone(&mut self, pc: Pc, epoch: u32) -> Result<(), Failure> {
        match self.server.session.get_mut(pc as usize) {
            Some(session) if *session == Some(epoch) => *session = None,
            _ => return Ok(()),
        }
        self.serve(Event::Gone(NodeId(pc + 1)))
    }

    pub(crate) fn server_tick(&mut self, boot: u32) -> Result<(), Failure> {
        if self.server.boot != boot {
            return Ok(());
        }
        self.agenda.note(self.now + TICK_MS, Due::ServerTick(boot));
        self.serve(Event::Tick)
    }

    pub(crate) fn merged(&mut self, boot: u32, job: gleaner_model::JobId) -> Result<(), Failure> {
        if self.server.boot != boot {
            return Ok(());
        }
        let failed = (self.options.faults && !self.draining && self.chance.likely(0.02))
            .then(|| "disk full".to_owned());
        self.serve(Event::Merged { job, failed })
    }

    /// kill -9 at the worst moment: between a step and its commit.
    pub(crate) const fn doom_server(&mut self) {
        self.server.doomed = true;
    }

    /// State and batch are gone, every connection breaks.
    fn kill_server(&mut self) {
        self.server.doomed = false;
        if self.server.state.take().is_none() {
            return;
        }
        self.tally.server_kills += 1;
        self.server.boot += 1;
        self.server.committing = false;
        let lost = self.server.batch.len() as u64;
        self.server.lost_actions += lost;
        self.server.batch.clear();
        self.server.session.fill(None);
        for pc in 0..self.options.nodes {
            self.cut(pc, 0);
        }
        let back = self.now + self.chance.between(200, 45_000);
        self.agenda.note(back, Due::ServerUp);
    }

    /// It comes back from its rows, and must know all that was ever made durable.
    pub(crate) fn server_up(&mut self) -> Result<(), Failure> {
        let now = Time { ms: self.now };
        let (state, actions) = State::restore(self.server.book.snapshot(), now);
        state.check().map_err(|what| self.failure(what))?;
        for job in state.jobs() {
            let knows = (
                job.counts.done,
                usize::try_from(job.counts.running).unwrap_or(0),
            );
            let stored = self.server.ledger.done(job.id);
            if stored != Some(knows) {
                let id = job.id;
                let what = format!("job {id} came back with {knows:?}, stored is {stored:?}");
                return Err(self.failure(what));
            }
        }
        self.server.state = Some(state);
        for action in actions {
            self.server.hash.action(&action);
            self.server.batch.push(Out::Action(action));
        }
        self.commit_soon();
        let tick = Due::ServerTick(self.server.boot);
        self.agenda.note(self.now + TICK_MS, tick);
        Ok(())
    }
}

/// The node that an event is about.
const fn subject(event: &Event) -> Option<NodeId> {
    match event {
        Event::Hello(hello) => Some(hello.node),
        Event::Offer(offer) => Some(offer.node),
        Event::Beat(report) => Some(report.node),
        Event::Gone(node)
        | Event::Wish(node, _)
        | Event::Progress(node, ..)
        | Event::Saved(node, ..) => Some(*node),
        Event::Ended(end) => Some(end.node),
        Event::Submit(_)
        | Event::Cancel(_)
        | Event::PauseJob(_)
        | Event::ResumeJob(_)
        | Event::Retry(_)
        | Event::Delete(_)
        | Event::Merged { .. }
        | Event::Tick => None,
    }
}
