//! A PC's engine on virtual time: programs that run, freeze, end or are stopped, and that outlive
//! the agent that started them.

use super::{World, seconds};
use crate::agenda::{Due, Pc};
use crate::chance::{fixed, whole};
use crate::peers::offered;
use gleaner_attempt::Event;
use gleaner_model::{AttemptId, Bytes, CHECKPOINT_EXIT_CODE, Cpus, Reason};

/// A program in the PC's engine. It outlives its agent.
#[derive(Debug)]
pub(crate) struct Program {
    /// Work left, in thousandths of a millisecond at full pace.
    pub(crate) left_us: u64,
    /// Work that it leaves to its next attempt when it saves itself and ends.
    pub(crate) rest_us: u64,
    /// All work of the task here.
    pub(crate) whole_us: u64,
    /// Since when it runs; none while it is frozen.
    pub(crate) since: Option<u64>,
    /// Counts its runs: an end noted for an earlier one is void.
    run: u32,
    /// Processor time it had, in milliseconds for each of its processors.
    pub(crate) ran_ms: u64,
    ran_us: u64,
    /// How it will end if it is left alone.
    fate: Reason,
    pub(crate) ended: Option<Reason>,
    pub(crate) cpus: Cpus,
    pub(crate) memory: Bytes,
}

impl World {
    /// A program is gone: its processor time was spent, for better or worse.
    pub(crate) fn spent(&mut self, program: Option<&Program>) {
        if let Some(program) = program {
            let cpus = f64::from(program.cpus.milli) / 1000.0;
            self.tally.spent_cpu += cpus * seconds(program.ran_ms);
        }
    }

    pub(crate) fn start(&mut self, pc: Pc, attempt: AttemptId) {
        let seed = self.options.seed;
        let Some(job) = self.jobs.get(&attempt.task.job) else {
            return;
        };
        let Some(node) = self.pcs.get_mut(pc as usize) else {
            return;
        };
        if pc > 0 && fixed(seed, job.program, u64::from(pc) + 77) < 0.01 {
            let program = "rare".into();
            let ended = Event::Ended(attempt, Reason::NoProgram { program });
            return self.answer(pc, 1, ended);
        }
        let whole_us = whole(job.work_ms(seed, attempt.task) / node.speed).max(1) * 1000;
        let done = node
            .restores
            .remove(&attempt)
            .unwrap_or(0.0)
            .clamp(0.0, 1.0);
        let left_us = whole_us - share(whole_us, done);
        let fate = job.fate(seed, attempt);
        let saves_itself = Reason::Exit {
            code: CHECKPOINT_EXIT_CODE,
        };
        let rest_us = match fate == saves_itself {
            true => left_us / 2,
            false => 0,
        };
        let program = Program {
            left_us: left_us - rest_us,
            rest_us,
            whole_us,
            since: Some(self.now),
            run: 1,
            ran_ms: 0,
            ran_us: 0,
            fate,
            ended: None,
            cpus: job.need.cpus,
            memory: job.need.memory,
        };
        let end = self.now + program.needs_ms(node.pace);
        node.programs.insert(attempt, program);
        self.answer(pc, 1, Event::Started(attempt));
        self.agenda.note(end, Due::Program(pc, attempt, 1));
        self.rate(pc);
    }

    /// Sets the pace of a PC's programs by what owner and judgement leave them.
    pub(crate) fn rate(&mut self, pc: Pc) {
        let now = self.now;
        let Some(node) = self.pcs.get_mut(pc as usize) else {
            return;
        };
        let runs = |program: &&mut Program| program.since.is_some();
        let asked: u32 = node
            .programs
            .values()
            .filter(|program| program.since.is_some())
            .map(|program| program.cpus.milli)
            .sum();
        let left = offered(node.cpus.milli, node.owner.usage.load).min(node.allowance);
        // Programs share what is left in proportion; a full PC of the owner's leaves them a
        // thousandth, as a group at idle priority does.
        let pace = match asked {
            0 => 1000,
            asked => (u64::from(left) * 1000 / u64::from(asked)).clamp(1, 1000),
        };
        let pace = u32::try_from(pace).unwrap_or(1000);
        let before = node.pace;
        if pace == before {
            return;
        }
        node.pace = pace;
        for (attempt, program) in &mut node.programs {
            let Some(program) = Some(program).filter(runs) else {
                continue;
            };
            program.halt(now, before);
            program.since = Some(now);
            let end = now + program.needs_ms(pace);
            self.agenda
                .note(end, Due::Program(pc, *attempt, program.run));
        }
    }

    pub(crate) fn freeze(&mut self, pc: Pc, attempt: AttemptId) {
        let now = self.now;
        let Some(node) = self.pc(pc) else { return };
        let pace = node.pace;
        if let Some(program) = node.programs.get_mut(&attempt) {
            program.halt(now, pace);
        }
        self.rate(pc);
    }

    pub(crate) fn thaw(&mut self, pc: Pc, attempt: AttemptId) {
        let now = self.now;
        let Some(node) = self.pc(pc) else { return };
        let pace = node.pace;
        let Some(program) = node.programs.get_mut(&attempt) else {
            return;
        };
        if program.ended.is_none() && program.since.is_none() {
            program.since = Some(now);
            let (end, run) = (now + program.needs_ms(pace), program.run);
            self.agenda.note(end, Due::Program(pc, attempt, run));
            self.rate(pc);
        }
    }

    pub(crate) fn stop(&mut self, pc: Pc, attempt: AttemptId) {
        let now = self.now;
        let after = self.chance.between(1, 50);
        let Some(node) = self.pc(pc) else { return };
        let pace = node.pace;
        if let Some(program) = node.programs.get_mut(&attempt) {
            program.halt(now, pace);
            program.ended = Some(Reason::Cancelled);
        }
        self.answer(pc, after, Event::Ended(attempt, Reason::Cancelled));
        self.rate(pc);
    }

    /// A program may have come to its end.
    pub(crate) fn program_ends(&mut self, pc: Pc, attempt: AttemptId, run: u32) {
        let now = self.now;
        let Some(node) = self.pc(pc) else { return };
        let pace = node.pace;
        let Some(program) = node.programs.get_mut(&attempt) else {
            return;
        };
        if program.run != run || program.since.is_none() {
            return;
        }
        program.halt(now, pace);
        let reason = program.fate.clone();
        program.ended = Some(reason.clone());
        // Where the agent is away, its shim keeps the end.
        self.feed(pc, Event::Ended(attempt, reason));
        self.rate(pc);
    }
}

/// A part of some work.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the part is within 0 and 1, and the work below 2^53"
)]
fn share(whole: u64, part: f64) -> u64 {
    ((whole as f64 * part) as u64).min(whole)
}

impl Program {
    /// How long it runs from now on at this pace, in milliseconds.
    const fn needs_ms(&self, pace: u32) -> u64 {
        self.left_us.div_ceil(pace as u64)
    }

    /// It runs no more at this pace, for now or for good.
    pub(crate) fn halt(&mut self, now: u64, pace: u32) {
        if let Some(since) = self.since.take() {
            let ran = now.saturating_sub(since) * u64::from(pace);
            let ran = ran.min(self.left_us);
            self.ran_us += ran;
            self.ran_ms = self.ran_us / 1000;
            self.left_us -= ran;
            self.run += 1;
        }
    }
}
