//! `gleaner bench dispatch`: how fast tasks go through a real pool, and what the server spends.
//!
//! The release program with TLS, durable results and the real sandbox. Rates are measured in
//! rounds that interleave the bare floor (`posix_spawn` of the same program), gleaner, and
//! whatever peers are asked for and installed. Beside the system's own no-op the same is measured
//! with the smallest program there is, as context: see `smallest`.

mod beside;
pub(crate) mod pool;
mod smallest;

use crate::progress::{Pace, Progress, Stop};
use crate::stats::{bootstrap, median, paired_ratio, percentile};
use crate::{BenchError, Doing as _, Goal, Report, Row};
use beside::Peer;
use pool::Pool;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What to measure, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `gleaner` program.
    pub program: PathBuf,
    /// Rounds of interleaved rates.
    pub rounds: u32,
    /// No-op tasks of each system a round.
    pub tasks: u32,
    /// Tasks with output over which the server's CPU time is taken.
    pub bulk: u32,
    /// Single runs by the command line.
    pub singles: u32,
    /// Peers to run beside, of [`PEERS`].
    pub beside: Vec<String>,
    /// Tells it to end early.
    pub stop: Stop,
}

/// Peers that can be run beside.
pub const PEERS: [&str; 2] = beside::NAMES;

/// The no-op that every system runs.
const NO_OP: &str = "/bin/true";
/// Threads that launch the bare floor: as many as the slots of a small PC.
const FLOOR_THREADS: u32 = 2;
/// Of the tasks of a round, one in so many is run with a fresh cage.
const FRESH_SHARE: u32 = 4;
/// No-ops that are measured: the system's, and the smallest.
const KINDS: f64 = 2.0;
/// Submissions of each kind; the median counts.
const SUBMISSIONS: u32 = 5;

/// What the agent is told besides: a pool for trying out, which does not take the load that the
/// benchmark itself makes for its owner's. The rate of the pool is measured, not its politeness.
const TRYING_OUT: [&str; 2] = ["--dev-nodes", "1"];

/// Rates on a small quiet PC, in tasks a second. Only the time left is told from them, until the
/// pace so far says more.
mod usual {
    pub(super) const OURS: f64 = 500.0;
    pub(super) const FRESH: f64 = 130.0;
    pub(super) const FLOOR: f64 = 2000.0;
    pub(super) const PEER: f64 = 300.0;
    /// Seconds of the submissions of one kind, and of one task by the command line.
    pub(super) const SUBMISSIONS_S: f64 = 4.0;
    pub(super) const SINGLE_S: f64 = 0.02;
}

/// A run of the benchmark: what was found so far, and who hears of it.
struct Run<'r> {
    options: &'r Options,
    pace: Pace,
    say: &'r mut dyn FnMut(Progress),
    rows: Vec<Row>,
}

/// Runs it all; `say` hears how far it is.
///
/// # Errors
/// Where the pool does not come up or a job is not done, and when it was told to stop.
pub fn run(options: &Options, say: &mut dyn FnMut(Progress)) -> Result<Report, BenchError> {
    let mut run = Run {
        pace: Pace::new(expected_s(options)),
        options,
        say,
        rows: Vec::new(),
    };
    let measured = run.all();
    // Ctrl-C ends parts of the pool too: that they failed is no news then.
    options.stop.check()?;
    measured?;
    Ok(Report {
        bench: "dispatch",
        version: env!("CARGO_PKG_VERSION"),
        rows: run.rows,
    })
}

/// Seconds that all of it takes on a small quiet PC.
fn expected_s(options: &Options) -> f64 {
    let rounds = f64::from(options.rounds);
    3.0 * usual::SUBMISSIONS_S
        + f64::from(options.singles) * usual::SINGLE_S
        + rounds * KINDS * round_s(options)
        + f64::from(options.bulk) / usual::OURS
        + rounds * fresh_s(options)
}

#[expect(clippy::cast_precision_loss, reason = "a number of peers")]
fn round_s(options: &Options) -> f64 {
    let tasks = f64::from(options.tasks);
    tasks / usual::FLOOR + tasks / usual::OURS + tasks / usual::PEER * options.beside.len() as f64
}

fn fresh_s(options: &Options) -> f64 {
    let tasks = f64::from(fresh_tasks(options));
    tasks / usual::FLOOR + tasks / usual::FRESH
}

fn fresh_tasks(options: &Options) -> u32 {
    (options.tasks / FRESH_SHARE).max(FLOOR_THREADS)
}

fn range_job(command: &[&str], count: u32) -> Value {
    json!({ "task": { "command": command }, "sweep": { "i": { "range": [1, count] } } })
}

impl Run<'_> {
    fn all(&mut self) -> Result<(), BenchError> {
        self.submissions()?;
        let mut pool = Pool::start(&self.options.program)?;
        pool.set_agent("agent", &TRYING_OUT)?;
        self.singles(&pool)?;
        self.rates(&pool)?;
        self.bulk(&pool)?;
        let fresh: Vec<&str> = TRYING_OUT.into_iter().chain(["--fresh-cages"]).collect();
        pool.set_agent("fresh", &fresh)?;
        self.fresh(&pool)
    }

    /// Big submissions to a server without nodes: time by the command line, memory of the server.
    fn submissions(&mut self) -> Result<(), BenchError> {
        let range = |count| (range_job(&[NO_OP, "{i}"], count), count);
        let lines = json!({
            "task": { "command": [NO_OP, "{line}"] },
            "sweep": { "line": { "lines": "lines.txt" } },
        });
        let kinds = [
            (
                "submit 100,000 tasks as a range",
                range(100_000),
                20.0,
                Some(1.0),
            ),
            (
                "submit 1,000,000 tasks as a range",
                range(1_000_000),
                20.0,
                None,
            ),
            (
                "submit 100,000 distinct lines",
                (lines, 100_000),
                100.0,
                Some(10.0),
            ),
        ];
        for (name, (job, count), goal_ms, goal_mib) in kinds {
            self.pace.begin(usual::SUBMISSIONS_S);
            (self.say)(self.pace.now(name));
            self.options.stop.check()?;
            let pool = Pool::start(&self.options.program)?;
            write_lines(&pool, 0)?;
            // The first submission warms caches on both sides and is not counted.
            pool.submit(&range_job(&[NO_OP, "{i}"], 10))?;
            let before = pool.server_memory()?;
            let mut times_ms = Vec::new();
            for round in 0..SUBMISSIONS {
                write_lines(&pool, round)?;
                times_ms.push(pool.submit(&job)?.1 * 1000.0);
            }
            let grown = (pool.server_memory()? - before).max(0.0) / f64::from(SUBMISSIONS);
            self.rows.push(
                Row::new(name, median(&times_ms), "ms")
                    .interval(bootstrap(&times_ms, median))
                    .goal(Goal::AtMost(goal_ms))
                    .note("by the command line, durable; median"),
            );
            if let Some(goal) = goal_mib {
                let mib = grown / f64::from(1 << 20) / f64::from(count) * 1e5;
                let name = format!("server memory per 100,000 queued: {}", &name[7..]);
                self.rows
                    .push(Row::new(&name, mib, "MiB").goal(Goal::AtMost(goal)));
            }
        }
        Ok(())
    }
    /// One small task from the command line, submit to result.
    fn singles(&mut self, pool: &Pool) -> Result<(), BenchError> {
        let singles_s = f64::from(self.options.singles) * usual::SINGLE_S;
        self.pace.begin(singles_s);
        (self.say)(self.pace.now("single tasks by the command line"));
        let mut times_ms = Vec::new();
        for _ in 0..self.options.singles {
            let started = Instant::now();
            let status = pool
                .command(&["run", "--", NO_OP])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .doing("run one task")?;
            if !status.success() {
                return Err(BenchError::Broken(format!(
                    "`gleaner run -- {NO_OP}` ended: {status}"
                )));
            }
            times_ms.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        self.rows.push(
            Row::new("one task by the command line, p50", median(&times_ms), "ms")
                .interval(bootstrap(&times_ms, median))
                .goal(Goal::AtMost(15.0)),
        );
        self.rows.push(Row::new(
            "one task by the command line, p99",
            percentile(&times_ms, 0.99),
            "ms",
        ));
        Ok(())
    }

    /// Rates of no-op tasks, interleaved: the system's no-op and, where it can be had, the smallest.
    fn rates(&mut self, pool: &Pool) -> Result<(), BenchError> {
        let options = self.options;
        let mut kinds = vec![Kind::usual(options)];
        if let Some(program) = smallest::give(pool)? {
            kinds.push(Kind::smallest(options, program));
        }
        let mut peers = Vec::new();
        for name in &options.beside {
            (self.say)(self.pace.now(format!("starting {name}")));
            peers.push(Peer::start(name, pool.scratch(), &options.stop)?);
        }
        for round in 1..=options.rounds {
            for kind in &mut kinds {
                self.pace.begin(round_s(options));
                let what = format!("{}, round {round} of {}", kind.name, options.rounds);
                (self.say)(self.pace.now(&what));
                options.stop.check()?;
                kind.floor.push(floor_rate(options.tasks, &kind.program)?);
                let started = Instant::now();
                let (id, _) = pool.submit(&kind.job)?;
                pool.wait(&id, || (self.say)(self.pace.now(&what)))?;
                let seconds = started.elapsed().as_secs_f64();
                kind.ours.push(f64::from(options.tasks) / seconds);
                kind.theirs.resize(peers.len(), Vec::new());
                for (peer, rates) in peers.iter_mut().zip(&mut kind.theirs) {
                    rates.extend(peer.rate(options.tasks, &kind.program, &what)?);
                }
            }
        }
        for kind in &kinds {
            self.rows.extend(kind.rows(&peers));
        }
        Ok(())
    }

    /// The rate where no two tasks share a namespace, against the bare floor of the same rounds.
    fn fresh(&mut self, pool: &Pool) -> Result<(), BenchError> {
        let (options, tasks) = (self.options, fresh_tasks(self.options));
        let (mut floor, mut ours) = (Vec::new(), Vec::new());
        for round in 1..=options.rounds {
            self.pace.begin(fresh_s(options));
            let what = format!("fresh cages, round {round} of {}", options.rounds);
            (self.say)(self.pace.now(&what));
            options.stop.check()?;
            floor.push(floor_rate(tasks, Path::new(NO_OP))?);
            let started = Instant::now();
            let (id, _) = pool.submit(&range_job(&[NO_OP], tasks))?;
            pool.wait(&id, || (self.say)(self.pace.now(&what)))?;
            ours.push(f64::from(tasks) / started.elapsed().as_secs_f64());
        }
        self.rows.push(
            Row::new("no-op tasks, a fresh cage each", median(&ours), "tasks/s")
                .interval(bootstrap(&ours, median)),
        );
        let (share, interval) = paired_ratio(&ours, &floor);
        self.rows.push(
            Row::new("fresh cages against the bare floor", share, "x")
                .interval(interval)
                .goal(Goal::AtLeast(0.6)),
        );
        Ok(())
    }

    /// Server CPU a task over a bulk of tasks with output.
    fn bulk(&mut self, pool: &Pool) -> Result<(), BenchError> {
        let options = self.options;
        let what = format!("{} tasks with output", options.bulk);
        self.pace.begin(f64::from(options.bulk) / usual::OURS);
        (self.say)(self.pace.now(&what));
        let (before, started) = (pool.server_cpu_seconds()?, Instant::now());
        let (id, _) = pool.submit(&range_job(&["/bin/echo", "{i}"], options.bulk))?;
        pool.wait(&id, || (self.say)(self.pace.now(&what)))?;
        let seconds = started.elapsed().as_secs_f64();
        let spent = pool.server_cpu_seconds()? - before;
        self.rows.push(
            Row::new(
                "server CPU a task, submit to done",
                spent * 1e6 / f64::from(options.bulk),
                "µs",
            )
            .goal(Goal::AtMost(10.0))
            .note(format!(
                "user + system over {} tasks with output",
                options.bulk
            )),
        );
        self.rows.push(Row::new(
            "tasks with output",
            f64::from(options.bulk) / seconds,
            "tasks/s",
        ));
        Ok(())
    }
}

/// One no-op, and how fast each went through it, round by round.
struct Kind {
    name: &'static str,
    /// What the floor and the peers run, without arguments, as the job does: with one, the usual
    /// no-op looks for its language first, which is a third more work.
    program: PathBuf,
    job: Value,
    /// Whether the product's goals are for this one.
    promised: bool,
    floor: Vec<f64>,
    ours: Vec<f64>,
    /// By peer.
    theirs: Vec<Vec<f64>>,
}

impl Kind {
    fn new(name: &'static str, program: PathBuf, job: Value) -> Self {
        Self {
            name,
            program,
            job,
            promised: false,
            floor: Vec::new(),
            ours: Vec::new(),
            theirs: Vec::new(),
        }
    }

    fn usual(options: &Options) -> Self {
        let job = range_job(&[NO_OP], options.tasks);
        let usual = Self::new("no-op tasks", NO_OP.into(), job);
        Self {
            promised: true,
            ..usual
        }
    }

    fn smallest(options: &Options, program: PathBuf) -> Self {
        let mut job = range_job(&[smallest::NAME], options.tasks);
        job["task"]["image"] = smallest::IMAGE.into();
        Self::new("smallest tasks", program, job)
    }

    fn rows(&self, peers: &[Peer]) -> Vec<Row> {
        let (of, note) = match self.promised {
            true => ("", ""),
            false => (
                ", smallest program",
                "a static program that only ends, on an image of its own: no loader in the figure",
            ),
        };
        let row = |name: &str, rates: &[f64], unit, figure, interval| {
            let row = Row::new(&format!("{name}{of}"), figure, unit);
            match rates {
                [] => row,
                _ => row.interval(interval),
            }
        };
        let rate = |name: &str, rates: &[f64]| {
            let interval = bootstrap(rates, median);
            row(name, rates, "tasks/s", median(rates), interval).note(note)
        };
        let ratio = |name: &str, other: &[f64]| {
            let (ratio, interval) = paired_ratio(&self.ours, other);
            row(name, other, "x", ratio, interval)
        };
        let mut rows = vec![
            rate("no-op tasks, sandboxed, durable", &self.ours),
            rate("bare posix_spawn of the same program", &self.floor),
            ratio("rate against the bare floor", &self.floor),
        ];
        for (peer, rates) in peers.iter().zip(&self.theirs) {
            let theirs = rate(peer.what(), rates);
            let against = ratio(&format!("rate against {}", peer.name()), rates);
            let against = match peer.goal().filter(|_| self.promised) {
                Some(goal) => against.goal(goal),
                None => against,
            };
            rows.extend([theirs, against].map(|row| match peer.fell_out() {
                Some(why) => row.note(format!("{} rounds; {why}", rates.len())),
                None => row,
            }));
        }
        rows
    }
}

/// 100,000 lines of about 50 bytes, different in each round so that nothing is deduplicated.
fn write_lines(pool: &Pool, round: u32) -> Result<(), BenchError> {
    let text: String = (0..100_000)
        .map(|i| format!("molecule-{round:04}-{i:08}-with-some-more-text-behind-it\n"))
        .collect();
    fs::write(pool.scratch().join("lines.txt"), text).doing("write lines.txt")
}

/// Launches the no-op from as many threads as a small PC has slots; tasks a second.
fn floor_rate(tasks: u32, program: &Path) -> Result<f64, BenchError> {
    let started = Instant::now();
    let threads: Vec<_> = (0..FLOOR_THREADS)
        .map(|_| {
            let program = program.to_owned();
            std::thread::spawn(move || {
                (0..tasks / FLOOR_THREADS).try_for_each(|_| {
                    Command::new(&program)
                        .stdin(Stdio::null())
                        .status()
                        .map(|_| ())
                })
            })
        })
        .collect();
    for thread in threads {
        let joined = thread.join();
        joined
            .map_err(|_| BenchError::Broken("a launching thread panicked".into()))?
            .doing("launch the bare program")?;
    }
    Ok(f64::from(tasks) / started.elapsed().as_secs_f64())
}
