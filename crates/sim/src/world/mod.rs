//! The world: everything there is, the loop that lets it happen, and trouble. Each part of it is a
//! module of its own.

mod engine;
mod node;
mod owner;
mod saves;
mod server;
mod users;

use crate::agenda::{Agenda, Due, Pc};
use crate::chance::Chance;
use crate::report::{Failure, Options, Report};
use gleaner_core::{Event, NodeWish};
use gleaner_model::{JobId, NodeId, TaskId};
use node::Computer;
use server::Server;
use std::collections::BTreeMap;
use users::{Job, Person, USERS};

/// Virtual time starts on a Monday at midnight, in milliseconds since 1970.
const START_MS: u64 = 1_767_571_200_000;

/// Shares are compared this often.
const SAMPLE_MS: u64 = 10_000;

/// After the days asked for, everything must be over within this time, or this many times the
/// time of the longest task if that is more.
const DRAIN_MS: u64 = 3_600_000;
const DRAIN_TASKS: u64 = 20;

/// Sums for the report.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) idle_cpu: f64,
    pub(crate) offered_cpu: f64,
    pub(crate) verdict_changes: u64,
    pub(crate) power_offs: u64,
    pub(crate) useful_cpu: f64,
    pub(crate) useful_in_time: f64,
    pub(crate) spent_cpu: f64,
    pub(crate) share_gaps: f64,
    pub(crate) share_gap_most: f64,
    pub(crate) share_samples: u64,
    pub(crate) jobs: u64,
    pub(crate) tasks: u64,
    pub(crate) link_breaks: u64,
    pub(crate) power_losses: u64,
    pub(crate) agent_kills: u64,
    pub(crate) offers: u64,
    pub(crate) server_kills: u64,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds of a run stay below 2^53"
)]
const fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) now: u64,
    /// When the days asked for are over.
    pub(crate) end: u64,
    /// When everything must be over.
    last: u64,
    /// No new work and no faults any more.
    pub(crate) draining: bool,
    pub(crate) agenda: Agenda,
    pub(crate) chance: Chance,
    pub(crate) server: Server,
    pub(crate) pcs: Vec<Computer>,
    pub(crate) people: Vec<Person>,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) tally: Tally,
    pub(crate) node_steps: u64,
    /// Steps of the brains that judge PCs.
    pub(crate) owner_steps: u64,
    /// Processors of all PCs.
    pub(crate) slots: u32,
    /// Mean seconds between a user's looks at the pool.
    pub(crate) pace_s: f64,
    /// Longest median of a job's tasks, in milliseconds.
    pub(crate) longest_ms: f64,
    /// Samples after which shares must have settled: all tasks granted before have ended.
    pub(crate) settle_samples: u32,
    fault_s: f64,
}

/// Simulates. The same options give the same report, `steps_per_second` apart.
///
/// # Errors
/// The first broken invariant, with the command that shows it again.
pub fn run(options: &Options) -> Result<Report, Failure> {
    let mut world = World::new(options);
    world.begin();
    while let Some((at, due)) = world.agenda.next() {
        world.now = at;
        if !world.draining && at >= world.end {
            world.drain();
        }
        if world.draining && world.is_over() {
            break;
        }
        if at >= world.last {
            return Err(world.failure(world.left_over()));
        }
        world.happen(due)?;
    }
    world.report()
}

impl World {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "days are clamped to a century"
    )]
    fn new(options: &Options) -> Self {
        let seconds = options.days.clamp(0.0, 36_500.0) * 86_400.0;
        let nodes = options.nodes.max(1);
        let pcs: Vec<Computer> = (0..nodes)
            .map(|pc| Computer::new(pc, options, START_MS))
            .collect();
        let longest_ms = (seconds * 1000.0 / 20.0).clamp(40_000.0, 3_600_000.0);
        // The slowest PC takes four times the median for the longest task of a job.
        let settle_ms = 4.0 * longest_ms + 30_000.0;
        let end = START_MS + (seconds * 1000.0) as u64;
        Self {
            options: Options {
                nodes,
                ..options.clone()
            },
            now: START_MS,
            end,
            last: end + DRAIN_MS.max(DRAIN_TASKS * settle_ms as u64),
            draining: false,
            agenda: Agenda::new(START_MS),
            chance: Chance::new(options.seed),
            server: Server::new(nodes),
            slots: pcs.iter().map(|pc| pc.cpus.milli / 1000).sum(),
            pcs,
            people: (0..USERS).map(|_| Person::default()).collect(),
            jobs: BTreeMap::new(),
            tally: Tally::default(),
            node_steps: 0,
            owner_steps: 0,
            pace_s: (seconds / 50.0).clamp(10.0, 600.0),
            longest_ms,
            settle_samples: (settle_ms / SAMPLE_MS as f64) as u32,
            // A PC has trouble about once in an hour of virtual time.
            fault_s: 3600.0 / f64::from(nodes),
        }
    }

    fn begin(&mut self) {
        for pc in 0..self.options.nodes {
            let at = self.now + self.chance.between(0, 5_000);
            self.agenda.note(at, Due::AgentUp(pc));
            self.agenda.note(self.now, Due::Owner(pc));
        }
        for user in 0..USERS {
            let at = self.now + self.chance.between(0, 3_000);
            self.agenda.note(at, Due::User(user));
        }
        self.agenda.note(self.now + 1000, Due::ServerTick(0));
        self.agenda.note(self.now + SAMPLE_MS, Due::Sample);
        if self.options.faults {
            let first = self.now + self.chance.wait_ms(self.fault_s);
            self.agenda.note(first, Due::Fault);
            self.plan_kill();
        }
    }

    /// The server dies about every twenty minutes, in short runs more often.
    fn plan_kill(&mut self) {
        let mean = (self.options.days * 86_400.0 / 4.0).clamp(60.0, 1200.0);
        let at = self.now + self.chance.wait_ms(mean);
        self.agenda.note(at, Due::ServerKill);
    }

    fn happen(&mut self, due: Due) -> Result<(), Failure> {
        match due {
            Due::Arrive(pc, epoch, up) => return self.arrive(pc, epoch, up),
            Due::Deliver(pc, epoch, down) => self.deliver(pc, epoch, down),
            Due::Commit(boot) => return self.commit(boot),
            Due::ServerTick(boot) => return self.server_tick(boot),
            Due::ServerUp => return self.server_up(),
            Due::Gone(pc, epoch) => return self.gone(pc, epoch),
            Due::Merged(boot, job) => return self.merged(boot, job),
            Due::Beat(pc, epoch) => self.beat(pc, epoch),
            Due::Broken(pc, epoch) => self.link_broken(pc, epoch),
            Due::Connect(pc, epoch) => self.connect(pc, epoch),
            Due::Answer(pc, event) => self.feed(pc, *event),
            Due::Program(pc, attempt, run) => self.program_ends(pc, attempt, run),
            Due::Wake(pc) => self.wake(pc),
            Due::AgentUp(pc) => self.agent_up(pc),
            Due::PowerOn(pc) => self.power_on(pc),
            Due::Owner(pc) => {
                if !self.draining {
                    self.owner_acts(pc);
                }
            }
            Due::Touch(pc) => self.touch(pc),
            Due::Look(pc) => self.look(pc),
            Due::User(user) => return self.user_acts(user),
            Due::Fault => return self.trouble(),
            Due::ServerKill => {
                if !self.draining {
                    self.doom_server();
                    self.plan_kill();
                }
            }
            Due::Sample => return self.sample(),
        }
        Ok(())
    }

    /// One PC has trouble.
    fn trouble(&mut self) -> Result<(), Failure> {
        if self.draining {
            return Ok(());
        }
        let wait = self.chance.wait_ms(self.fault_s);
        self.agenda.note(self.now + wait, Due::Fault);
        let last = u64::from(self.options.nodes) - 1;
        let pc = Pc::try_from(self.chance.between(0, last)).unwrap_or(0);
        self.check_pc(pc);
        match self.chance.between(0, 10) {
            0..=4 => {
                self.tally.link_breaks += 1;
                let dark = self.chance.between(0, 90_000);
                self.cut(pc, dark);
            }
            5 | 6 => {
                self.tally.power_losses += 1;
                let back = self.chance.between(5_000, 300_000);
                self.power_off(pc, back);
            }
            7 | 8 => {
                self.tally.agent_kills += 1;
                let back = self.chance.between(100, 45_000);
                self.kill_agent(pc, back);
            }
            9 => {
                self.tally.offers += 1;
                let spare = self.chance.likely(0.5);
                self.offer(pc, spare);
            }
            _ => {
                let wishes = [
                    NodeWish::Pause,
                    NodeWish::Drain,
                    NodeWish::Evict,
                    NodeWish::Resume,
                    NodeWish::Resume,
                    NodeWish::Resume,
                ];
                let wish = self.chance.pick(&wishes).copied();
                let wish = wish.unwrap_or(NodeWish::Resume);
                return self.serve(Event::Wish(NodeId(pc + 1), wish));
            }
        }
        Ok(())
    }

    /// The days are over: no faults, no new work, every PC is left alone by its owner, and at the
    /// users' next looks by the admin.
    fn drain(&mut self) {
        self.draining = true;
        for pc in 0..self.options.nodes {
            self.account(pc);
            self.owner_acts(pc);
            self.offer(pc, false);
        }
    }

    fn is_over(&mut self) -> bool {
        let Some(state) = self.server.state.as_ref() else {
            return false;
        };
        state.open_jobs() == 0
    }

    /// What never ended, as the brain sees it.
    fn left_over(&self) -> String {
        let Some(state) = self.server.state.as_ref() else {
            return "the server never came back".into();
        };
        let open = state.jobs().into_iter().find(|job| !job.state.is_over());
        let Some(job) = open else {
            return "nothing is left, and nobody noticed".into();
        };
        let why = state.explain(job.id).map(|found| found.text);
        let tasks = (0..job.count + 1).map(|index| TaskId::new(job.id, index));
        let stuck = tasks
            .filter_map(|task| state.task(task))
            .find(|task| !task.state.is_over());
        let node = stuck.as_ref().and_then(|task| task.running);
        let node = node.and_then(|(_, node, _)| state.node(node));
        let book = stuck.as_ref().and_then(|task| {
            let (attempt, node, _) = task.running?;
            let pc = self.pcs.get(node.0 as usize - 1)?;
            Some((pc.agent.as_ref()?.state(attempt), pc.link))
        });
        format!("never over: {job:?}, {why:?}, {stuck:?}, {node:?}, there {book:?}")
    }

    pub(crate) fn failure(&self, what: String) -> Failure {
        Failure {
            what,
            step: self.server.steps,
            seconds: (self.now - START_MS) / 1000,
            replay: self.options.replay(),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of days in milliseconds are below 2^53"
    )]
    fn report(&mut self) -> Result<Report, Failure> {
        let Some(state) = self.server.state.as_ref() else {
            return Err(self.failure("the server never came back".into()));
        };
        state.check().map_err(|what| self.failure(what))?;
        let (mut done, mut failed, mut cancelled) = (0, 0, 0);
        for job in state.jobs() {
            let counts = job.counts;
            done += counts.done;
            failed += counts.failed;
            cancelled += counts.cancelled;
            let over = counts.done + counts.failed + counts.cancelled;
            if over != counts.total() {
                let what = format!("job {} is over with {counts:?}", job.id);
                return Err(self.failure(what));
            }
        }
        let (options, tally, server) = (&self.options, &self.tally, &self.server);
        Ok(Report {
            nodes: options.nodes,
            days: options.days,
            seed: options.seed,
            faults: options.faults,
            policy: options.regime.as_str(),
            trace: options.trace.as_ref().map(|trace| trace.name.clone()),
            hash: server.hash.finish(),
            steps: server.steps + self.node_steps + self.owner_steps,
            server_steps: server.steps,
            steps_per_second: None,
            node_steps: self.node_steps,
            owner_steps: self.owner_steps,
            virtual_seconds: (self.now - START_MS) as f64 / 1000.0,
            harvested_share: tally.useful_in_time / tally.idle_cpu.max(1.0),
            offered_share: tally.offered_cpu / tally.idle_cpu.max(1.0),
            idle_cpu_seconds: tally.idle_cpu,
            useful_cpu_seconds: tally.useful_cpu,
            wasted_cpu_seconds: (tally.spent_cpu - tally.useful_cpu).max(0.0),
            share_gap: tally.share_gaps / (tally.share_samples.max(1) as f64),
            share_gap_most: tally.share_gap_most,
            share_samples: tally.share_samples,
            jobs: tally.jobs,
            tasks: tally.tasks,
            tasks_done: done,
            tasks_failed: failed,
            tasks_cancelled: cancelled,
            attempts: server.ledger.granted,
            attempts_lost: server.ledger.lost,
            attempts_returned: server.ledger.returned,
            attempts_evicted: server.ledger.evicted,
            reports_stale: server.stale,
            link_breaks: tally.link_breaks,
            verdict_changes: tally.verdict_changes,
            power_offs: tally.power_offs,
            power_losses: tally.power_losses,
            agent_kills: tally.agent_kills,
            offers: tally.offers,
            server_kills: tally.server_kills,
            actions_lost: server.lost_actions,
            checks: server.checks,
        })
    }
}
