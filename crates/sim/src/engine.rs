//! A PC's engine on virtual time: programs that run, freeze, end or are stopped, and that outlive
//! the agent that started them.

use crate::agenda::{Due, Pc};
use crate::chance::{fixed, whole};
use crate::node::seconds;
use crate::world::World;
use gleaner_attempt::Event;
use gleaner_model::{AttemptId, Bytes, Cpus, Reason};

/// A program in the PC's engine. It outlives its agent.
#[derive(Debug)]
pub(crate) struct Program {
    left_ms: u64,
    /// Since when it runs; none while it is frozen.
    since: Option<u64>,
    /// Counts its runs: an end noted for an earlier one is void.
    run: u32,
    pub(crate) ran_ms: u64,
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
        let left_ms = whole(job.work_ms(seed, attempt.task) / node.speed).max(1);
        let fate = job.fate(seed, attempt);
        let program = Program {
            left_ms,
            since: Some(self.now),
            run: 1,
            ran_ms: 0,
            fate,
            ended: None,
            cpus: job.need.cpus,
            memory: job.need.memory,
        };
        node.programs.insert(attempt, program);
        self.answer(pc, 1, Event::Started(attempt));
        let end = self.now + left_ms;
        self.agenda.note(end, Due::Program(pc, attempt, 1));
    }

    pub(crate) fn freeze(&mut self, pc: Pc, attempt: AttemptId) {
        let now = self.now;
        let Some(program) = self.pc(pc).and_then(|n| n.programs.get_mut(&attempt)) else {
            return;
        };
        program.halt(now);
    }

    pub(crate) fn thaw(&mut self, pc: Pc, attempt: AttemptId) {
        let now = self.now;
        let Some(program) = self.pc(pc).and_then(|n| n.programs.get_mut(&attempt)) else {
            return;
        };
        if program.ended.is_none() && program.since.is_none() {
            program.since = Some(now);
            let (end, run) = (now + program.left_ms, program.run);
            self.agenda.note(end, Due::Program(pc, attempt, run));
        }
    }

    pub(crate) fn stop(&mut self, pc: Pc, attempt: AttemptId) {
        let now = self.now;
        let after = self.chance.between(1, 50);
        if let Some(program) = self.pc(pc).and_then(|n| n.programs.get_mut(&attempt)) {
            program.halt(now);
            program.ended = Some(Reason::Cancelled);
        }
        self.answer(pc, after, Event::Ended(attempt, Reason::Cancelled));
    }

    /// A program may have come to its end.
    pub(crate) fn program_ends(&mut self, pc: Pc, attempt: AttemptId, run: u32) {
        let now = self.now;
        let Some(program) = self.pc(pc).and_then(|n| n.programs.get_mut(&attempt)) else {
            return;
        };
        if program.run != run || program.since.is_none() {
            return;
        }
        program.halt(now);
        let reason = program.fate.clone();
        program.ended = Some(reason.clone());
        // Where the agent is away, its shim keeps the end.
        self.feed(pc, Event::Ended(attempt, reason));
    }
}

impl Program {
    /// It runs no more, for now or for good.
    pub(crate) fn halt(&mut self, now: u64) {
        if let Some(since) = self.since.take() {
            let ran = now.saturating_sub(since).min(self.left_ms);
            self.ran_ms += ran;
            self.left_ms -= ran;
            self.run += 1;
        }
    }
}
