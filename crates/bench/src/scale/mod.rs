//! `gleaner bench scale`: how many queued tasks and nodes one server carries.
//!
//! The server is the real program with TLS, tokens and durable state. The nodes are pretended, in
//! this process: each has an identity of its own and speaks the agents' protocol as an agent that
//! calls now and then, when the server tells it to. They share a few connections: what many
//! connections cost is not measured here. A task that a node is granted is done once its time has
//! passed. Server and swarm share the PC, so that every time is an upper bound.

mod node;
mod swarm;
mod tally;
mod times;
mod users;

use crate::dispatch::pool::Pool;
use crate::progress::{Pace, Progress, Stop};
use crate::{BenchError, Doing as _, Goal, Report, Row, proc};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use swarm::{Door, Seen, Size, Swarm};
use times::REPLY_MS;
use tokio::runtime::Runtime;
use users::Users;

/// What to measure, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `gleaner` program.
    pub program: PathBuf,
    /// Tasks in the queue at the start.
    pub tasks: u32,
    /// Pretended nodes.
    pub nodes: u32,
    /// Seconds that a task takes.
    pub task_seconds: u32,
    /// Seconds that are measured, once all nodes are enrolled.
    pub seconds: u32,
    /// Connections that the nodes share.
    pub connections: u32,
    /// Ends it early.
    pub stop: Stop,
}

/// What is promised of the server's memory.
const MEMORY_MIB: f64 = 4096.0;

/// Nodes a second that a server enrols on a small PC: only the time left is told from it.
const USUAL_ENROLS: f64 = 3000.0;
/// Longest that all nodes may take to enrol.
const ENROL_WITHIN: Duration = Duration::from_secs(900);
/// Time between two looks at the server.
const LOOK: Duration = Duration::from_millis(500);
const MIB: f64 = 1_048_576.0;

/// Runs it all; `say` hears how far it is.
///
/// # Errors
/// Where the pool does not come up, or not all nodes get in.
pub fn run(options: &Options, say: &mut dyn FnMut(Progress)) -> Result<Report, BenchError> {
    let enrol_s = f64::from(options.nodes) / USUAL_ENROLS;
    let mut pace = Pace::new(enrol_s + f64::from(options.seconds));
    say(pace.now("starting the server"));
    let pool = Pool::start(&options.program)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .doing("start the swarm's threads")?;
    let job = json!({
        "job": { "name": "scale" },
        "task": { "command": ["/bin/true", "{i}"] },
        "sweep": { "i": { "range": [1, options.tasks] } },
    });
    let (job, submit_s) = pool.submit(&job)?;
    let door = door(&pool)?;
    let seen = Arc::new(Seen::new(options.tasks));
    let size = Size {
        nodes: options.nodes,
        connections: options.connections,
        task_ms: u64::from(options.task_seconds) * 1000,
    };
    pace.begin(enrol_s);
    let swarm = runtime.block_on(Swarm::start(&door, size, &seen))?;
    let mut run = Run {
        options,
        pool: &pool,
        runtime: &runtime,
        seen: Arc::clone(&seen),
        pace,
        say,
        memory: 0.0,
        rows: Vec::new(),
    };
    run.row("submit the tasks, durably", submit_s * 1000.0, "ms");
    let measured = run.measure(&job);
    runtime.block_on(swarm.stop())?;
    measured?;
    run.count(&job)?;
    Ok(Report {
        bench: "scale",
        version: env!("CARGO_PKG_VERSION"),
        rows: run.rows,
    })
}

fn door(pool: &Pool) -> Result<Door, BenchError> {
    let (ca, token) = (pool.setting("ca")?, pool.node_token());
    Ok(Door {
        server: pool.setting("server")?,
        ca_pem: fs::read(&ca).doing(format!("read {ca}"))?,
        token: fs::read_to_string(&token).doing(format!("read {}", token.display()))?,
    })
}

/// A run of the benchmark: what was found so far, and who hears of it.
struct Run<'r> {
    options: &'r Options,
    pool: &'r Pool,
    runtime: &'r Runtime,
    seen: Arc<Seen>,
    pace: Pace,
    say: &'r mut dyn FnMut(Progress),
    /// The most that the server had, in bytes.
    memory: f64,
    rows: Vec<Row>,
}

/// What processes had used at one moment, in CPU seconds.
#[derive(Clone, Copy)]
struct Spent {
    at: Instant,
    server_s: f64,
    swarm_s: f64,
}

impl Run<'_> {
    fn row(&mut self, name: &str, figure: f64, unit: &'static str) {
        self.rows.push(Row::new(name, figure, unit));
    }

    fn measure(&mut self, job: &str) -> Result<(), BenchError> {
        let begun = Instant::now();
        let before = self.spent()?;
        self.enrol(begun)?;
        let enrolled = self.spent()?;
        let nodes = f64::from(self.options.nodes);
        self.row("all nodes enrolled", begun.elapsed().as_secs_f64(), "s");
        self.row(
            "server CPU a node that enrols",
            (enrolled.server_s - before.server_s) * 1e6 / nodes,
            "µs",
        );
        self.pace.begin(f64::from(self.options.seconds));
        let users = Users::start(self.runtime, self.pool, job)?;
        self.seen.measuring.store(true, Ordering::Relaxed);
        let from = self.spent()?;
        let until = from.at + Duration::from_secs(self.options.seconds.into());
        while Instant::now() < until {
            let (polls, ended) = (
                self.seen.replies.len(),
                self.seen.ended.load(Ordering::Relaxed),
            );
            let what = format!(
                "{} nodes call: {polls} calls, p99 {:.0} ms, {ended} tasks done",
                self.options.nodes,
                self.seen.replies.percentile_ms(0.99),
            );
            self.look(&what)?;
        }
        let to = self.spent()?;
        self.seen.measuring.store(false, Ordering::Relaxed);
        let users = users.stop(self.runtime)?;
        self.report(from, to);
        self.rows.extend(users);
        Ok(())
    }

    /// Waits until every node was answered once.
    fn enrol(&mut self, begun: Instant) -> Result<(), BenchError> {
        loop {
            let enrolled = self.seen.enrolled.load(Ordering::Relaxed);
            if enrolled >= u64::from(self.options.nodes) {
                return Ok(());
            }
            if begun.elapsed() > ENROL_WITHIN {
                return Err(BenchError::Broken(format!(
                    "{enrolled} of {} nodes got in within {} s; try fewer with --nodes",
                    self.options.nodes,
                    ENROL_WITHIN.as_secs()
                )));
            }
            self.look(&format!("{enrolled} of {} nodes in", self.options.nodes))?;
        }
    }

    /// Looks at the server, says how far it is, and waits a little.
    fn look(&mut self, what: &str) -> Result<(), BenchError> {
        self.options.stop.check()?;
        self.memory = self.memory.max(self.pool.server_memory()?);
        (self.say)(self.pace.now(what));
        std::thread::sleep(LOOK);
        Ok(())
    }

    fn spent(&self) -> Result<Spent, BenchError> {
        Ok(Spent {
            at: Instant::now(),
            server_s: self.pool.server_cpu_seconds()?,
            swarm_s: proc::cost(std::process::id()).map_or(f64::NAN, |cost| cost.0),
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    fn report(&mut self, from: Spent, to: Spent) {
        let seen = Arc::clone(&self.seen);
        let seconds = (to.at - from.at).as_secs_f64();
        let polls = seen.replies.len() as f64;
        let ended = seen.ended.load(Ordering::Relaxed) as f64;
        let server_s = to.server_s - from.server_s;
        let (tasks, nodes) = (self.options.tasks, self.options.nodes);
        let asked = format!("{tasks} tasks, {nodes} nodes; from when a call was due");
        self.rows.extend([
            Row::new(
                "reply to a node, p50",
                seen.replies.percentile_ms(0.5),
                "ms",
            ),
            Row::new(
                "reply to a node, p99",
                seen.replies.percentile_ms(0.99),
                "ms",
            )
            .goal(Goal::AtMost(REPLY_MS))
            .note(asked),
            Row::new("reply to a node, longest", seen.replies.longest_ms(), "ms"),
            Row::new(
                "how late the swarm was, p99",
                seen.late.percentile_ms(0.99),
                "ms",
            )
            .note("part of the reply times"),
            Row::new(
                "wait between calls, p50",
                seen.waits.percentile_ms(0.5) / 1000.0,
                "s",
            )
            .note("as the server asks for"),
            Row::new("calls", polls / seconds, "calls/s"),
            Row::new(
                "calls that failed",
                seen.failed.load(Ordering::Relaxed) as f64,
                "calls",
            )
            .note("counted as long as agents wait"),
            Row::new("tasks done", ended / seconds, "tasks/s"),
            Row::new("server memory, most", self.memory / MIB, "MiB")
                .goal(Goal::AtMost(MEMORY_MIB)),
            Row::new("server CPU a call", server_s * 1e6 / polls, "µs")
                .note("user + system, its tasks and users' calls included"),
            Row::new("server CPU", server_s / seconds, "processors"),
            Row::new(
                "swarm CPU",
                (to.swarm_s - from.swarm_s) / seconds,
                "processors",
            )
            .note("on the same PC"),
        ]);
        if let Some((_, bytes)) = proc::cost(std::process::id()) {
            self.row("swarm memory", bytes as f64 / MIB, "MiB");
        }
    }

    /// What the server counted, beside what the nodes saw. Nobody calls any more.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    fn count(&mut self, job: &str) -> Result<(), BenchError> {
        let counted = users::counted(self.runtime, self.pool, job)?;
        let (done, all) = (counted.job, self.options.tasks);
        let row = Row::new(
            "tasks counted other than once",
            self.seen.tally.wrong(counted) as f64,
            "tasks",
        );
        let acknowledged = self.seen.tally.acknowledged();
        let note = format!("{done} of {all} done, {acknowledged} acknowledged");
        self.rows.push(row.goal(Goal::AtMost(0.0)).note(note));
        Ok(())
    }
}
