//! The users: they keep some work waiting, and with faults change their minds.
//!
//! The first three ask for what every PC has: their shares can be compared. The fourth needs one
//! architecture, the fifth two processors a task.

use super::{SAMPLE_MS, World};
use crate::agenda::Due;
use crate::chance::fixed;
use crate::report::Failure;
use gleaner_attempt::Saving;
use gleaner_core::{Event, MergeKind, Need, NewJob, NodeWish, State, Target};
use gleaner_model::{
    AttemptId, Bytes, CHECKPOINT_EXIT_CODE, Cpus, EngineChoice, JobId, JobState, Reason, Retry,
    Span, TaskId, UserId,
};

/// How many users there are.
pub(crate) const USERS: u32 = 5;

/// Of these, the first so many ask for what every PC has.
pub(crate) const PLAIN_USERS: u32 = 3;

/// Most that the claims of users who always had work may ever differ, in parts of the largest.
/// Slots change hands, and uses are charged, only when tasks end; in the first hours that is a
/// large part of all use.
const MOST_GAP: f64 = 0.5;

/// Fewer processors than these have too few slots for shares to be compared.
const FAIR_SLOTS: u32 = 500;

/// What a job's programs are like.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) need: Need,
    /// Work of a middling task on a middling PC, in milliseconds.
    median_ms: f64,
    /// Share of attempts that fail.
    fails: f64,
    /// Which program it is: some PCs lack some.
    pub(crate) program: u64,
    /// How its attempts are saved.
    pub(crate) saving: Saving,
}

impl Job {
    /// The work of one task, in milliseconds on a PC of speed 1: half to twice the median.
    pub(crate) fn work_ms(&self, seed: u64, task: TaskId) -> f64 {
        let draw = fixed(seed, task.job.0, u64::from(task.index));
        self.median_ms * (2.0_f64).powf(2.0 * draw - 1.0)
    }

    /// How an attempt ends if it is left alone.
    pub(crate) fn fate(&self, seed: u64, attempt: AttemptId) -> Reason {
        let place = u64::from(attempt.task.index) << 32 | u64::from(attempt.number);
        let draw = fixed(seed, attempt.task.job.0 + 1_000_000, place);
        if self.saving.itself && draw > 0.8 {
            return Reason::Exit {
                code: CHECKPOINT_EXIT_CODE,
            };
        }
        Reason::Exit {
            code: i32::from(draw < self.fails),
        }
    }
}

/// A user.
#[derive(Debug, Default)]
pub(crate) struct Person {
    /// Jobs that may not be over.
    jobs: Vec<JobId>,
    /// Samples in a row in which this user had ready tasks.
    pub(crate) waited: u32,
}

impl World {
    /// A job became durable: its body says what its programs are like.
    pub(crate) fn job_stored(&mut self, id: JobId, job: &NewJob) {
        let mut parts = job.body.chunks_exact(8).map(|chunk| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(chunk);
            f64::from_le_bytes(bytes)
        });
        let mut next = || parts.next().unwrap_or_default();
        let (median_ms, fails, program) = (next(), next(), next().to_bits());
        // Only where there is trouble: other runs are for figures.
        let saves = self.options.faults && fixed(program, 3, 5) < 0.3;
        let every = Span {
            ms: u64::from(whole(median_ms / 3.0)).max(1000),
        };
        let stored = Job {
            need: job.need.clone(),
            median_ms,
            fails,
            program,
            saving: Saving {
                itself: saves,
                every: saves.then_some(every),
                whole: false,
            },
        };
        self.jobs.insert(id, stored);
        self.tally.jobs += 1;
        let command = job.merge == MergeKind::Command;
        self.tally.tasks += u64::from(job.count) + u64::from(command);
        if let Some(person) = self.people.get_mut(job.user.0 as usize - 1) {
            person.jobs.push(id);
        }
    }

    /// A user looks at the pool.
    pub(crate) fn user_acts(&mut self, user: u32) -> Result<(), Failure> {
        let wait = self.chance.wait_ms(self.pace_s);
        self.agenda.note(self.now + wait, Due::User(user));
        if self.draining {
            return self.wind_up(user);
        }
        let mut ready = 0;
        let mut open = Vec::new();
        let jobs = self
            .people
            .get(user as usize)
            .map(|person| person.jobs.clone());
        for id in jobs.unwrap_or_default() {
            let Some(view) = self.server.state.as_ref().and_then(|state| state.job(id)) else {
                open.push(id);
                continue;
            };
            ready += view.counts.ready;
            if !view.state.is_over() {
                open.push(id);
            } else if view.state == JobState::Failed && self.chance.likely(0.5) {
                self.serve(Event::Retry(Target::Job(id)))?;
                open.push(id);
            }
        }
        if let Some(person) = self.people.get_mut(user as usize) {
            person.jobs.clone_from(&open);
        }
        if ready < u64::from(self.slots / USERS) * 2 {
            self.submit(user)?;
        }
        if self.options.faults && self.chance.likely(0.25) {
            self.change_mind(&open)?;
        }
        Ok(())
    }

    fn submit(&mut self, user: u32) -> Result<(), Failure> {
        // Now and then a job of many short tasks: they are sent ahead.
        let short = self.chance.likely(0.05);
        let spread = fixed(self.chance.next(), 1, 2);
        let median_ms = if short {
            300.0
        } else {
            20_000.0 * (self.longest_ms / 20_000.0).powf(spread)
        };
        let slots = f64::from(self.slots) / f64::from(USERS);
        let most = if short { 2_000.0 } else { 500_000.0 };
        let rounds = (self.pace_s * 1000.0 / median_ms).max(1.0);
        let count = (slots * 3.0 * rounds).clamp(1.0, most);
        let cpus = Cpus {
            milli: if user == 4 { 2000 } else { 1000 },
        };
        let need = Need {
            cpus,
            memory: Bytes(1 << 30),
            disk: Bytes(1 << 30),
            engine: EngineChoice::Process,
            image: false,
            arch: (user == 3).then(|| "aarch64".to_owned()),
            labels: std::collections::BTreeMap::new(),
            saves: false,
        };
        let faults = self.options.faults;
        let fails = match (faults, self.chance.likely(0.1)) {
            (false, _) => 0.0,
            (true, false) => 0.01,
            (true, true) => 0.3,
        };
        let program = f64::from_bits(self.chance.next() >> 12);
        let merges = [MergeKind::None, MergeKind::Concat, MergeKind::Command];
        let merge = self
            .chance
            .pick(&merges)
            .copied()
            .unwrap_or(MergeKind::None);
        let body = [median_ms, fails, program];
        let priority = i32::from(self.chance.likely(0.2));
        self.serve(Event::Submit(NewJob {
            user: UserId(user + 1),
            name: format!("{median_ms:.0} ms"),
            priority,
            count: whole(count),
            need,
            retry: Retry::default(),
            merge,
            body: body.iter().flat_map(|part| part.to_le_bytes()).collect(),
        }))
    }

    fn change_mind(&mut self, open: &[JobId]) -> Result<(), Failure> {
        let Some(job) = self.chance.pick(open).copied() else {
            return Ok(());
        };
        let index = u32::try_from(self.chance.between(0, 40)).unwrap_or(0);
        let task = Target::Task(TaskId::new(job, index));
        let event = match self.chance.between(0, 5) {
            0 => Event::Cancel(Target::Job(job)),
            1 => Event::Cancel(task),
            2 => Event::Retry(task),
            3 => Event::PauseJob(job),
            _ => Event::ResumeJob(job),
        };
        self.serve(event)
    }

    /// Nothing new; what is paused goes on, so that everything can come to its end.
    fn wind_up(&mut self, user: u32) -> Result<(), Failure> {
        let jobs = self
            .people
            .get(user as usize)
            .map(|person| person.jobs.clone());
        for id in jobs.unwrap_or_default() {
            let view = self.server.state.as_ref().and_then(|state| state.job(id));
            if view.is_some_and(|view| view.paused) {
                self.serve(Event::ResumeJob(id))?;
            }
        }
        self.admin_lets_go()
    }

    fn admin_lets_go(&mut self) -> Result<(), Failure> {
        let nodes = self.server.state.as_ref().map(State::nodes);
        let wished = nodes.unwrap_or_default().into_iter();
        for node in wished.filter(|node| node.wish.is_some()) {
            self.serve(Event::Wish(node.id, NodeWish::Resume))?;
        }
        Ok(())
    }

    /// Compares the shares of users who all had work for a while. Each one's claim is its
    /// processors times its decayed average: fair is when claims are equal.
    pub(crate) fn sample(&mut self) -> Result<(), Failure> {
        self.agenda.note(self.now + SAMPLE_MS, Due::Sample);
        let Some(state) = self.server.state.as_ref() else {
            for person in &mut self.people {
                person.waited = 0;
            }
            return Ok(());
        };
        let mut claims = Vec::new();
        for view in state.users() {
            let Some(person) = self.people.get_mut(view.id.0 as usize - 1) else {
                continue;
            };
            person.waited = if view.waiting { person.waited + 1 } else { 0 };
            let long = person.waited >= self.settle_samples;
            if long && view.id.0 <= PLAIN_USERS {
                let running = f64::from(view.running.milli) / 1000.0;
                claims.push(running * view.average.max(0.5));
            }
        }
        if claims.len() < 2 || self.draining {
            return Ok(());
        }
        let most = claims.iter().copied().fold(f64::MIN, f64::max);
        let least = claims.iter().copied().fold(f64::MAX, f64::min);
        let gap = if most > 0.0 {
            (most - least) / most
        } else {
            0.0
        };
        self.tally.share_samples += 1;
        self.tally.share_gaps += gap;
        self.tally.share_gap_most = self.tally.share_gap_most.max(gap);
        // Where whole days go by without work, slots do not change hands and say nothing.
        let steady = self.options.regime.is_steady() && self.slots >= FAIR_SLOTS;
        if gap > MOST_GAP && steady {
            let what = format!("shares are unfair: claims {claims:.0?} differ by {gap:.2}");
            return Err(self.failure(what));
        }
        Ok(())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 1..=500000 before"
)]
const fn whole(value: f64) -> u32 {
    value as u32
}
