//! Peers that a benchmark can run beside gleaner, where they are installed already. One that hangs
//! or fails falls out, which its figures say; the benchmark goes on without it.

mod part;
#[cfg(test)]
mod tests;

use crate::{BenchError, Doing as _, Goal, Stop};
use part::{Lines, Part, Until};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Ray's usual way to run a program: a pooled worker calls it. Reads a count and a program, prints
/// seconds.
const RAY: &str = "
import ray, subprocess, sys, time
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
@ray.remote
def task(program):
    return subprocess.call([program])
ray.get([task.remote('/bin/true') for _ in range(20)])
print('ready', flush=True)
for line in sys.stdin:
    n, program = line.rstrip('\\n').split(' ', 1)
    start = time.monotonic()
    assert sum(ray.get([task.remote(program) for _ in range(int(n))])) == 0
    print(time.monotonic() - start, flush=True)
";

/// Lines that a driver may print before it is ready.
const GREETING_LINES_MAX: u32 = 100;

/// HyperQueue's Python package, for who has no `hq` program: server and worker in this process,
/// without a journal. Speaks as the one above.
const HQ: &str = "
import sys, time
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
with LocalCluster() as cluster:
    cluster.start_worker(WorkerConfig(cores=2))
    client = cluster.client()
    def run(n, program):
        job = Job()
        for _ in range(n):
            job.program([program], stdout=None, stderr=None)
        client.wait_for_jobs([client.submit(job)])
    run(20, '/bin/true')
    print('ready', flush=True)
    for line in sys.stdin:
        n, program = line.rstrip('\\n').split(' ', 1)
        start = time.monotonic()
        run(int(n), program)
        print(time.monotonic() - start, flush=True)
";

/// Names of the peers that can be asked for.
pub(super) const NAMES: [&str; 2] = ["ray", "hq"];

/// How long a peer is waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Until it is up.
    start: Duration,
    /// Its first run at least, and a task of it.
    first: Duration,
    first_task: Duration,
    /// A later run at least, and how many times its slowest one so far.
    later: Duration,
    later_times: u32,
}

/// Ray needs a quarter of a minute to start on a PC that is idle; no peer was ever seen below
/// 100 tasks a second, or to take three times as long in one round as in another.
const PATIENCE: Patience = Patience {
    start: Duration::from_secs(180),
    first: Duration::from_secs(180),
    first_task: Duration::from_millis(50),
    later: Duration::from_secs(60),
    later_times: 10,
};

impl Patience {
    fn run(&self, tasks: u32, slowest: Option<Duration>) -> Duration {
        match slowest {
            None => self.first.max(self.first_task * tasks),
            Some(slowest) => self.later.max(slowest * self.later_times),
        }
    }
}

/// A system to compare with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum System {
    /// Ray, with two worker processes.
    Ray,
    /// HyperQueue in a Python process.
    HqInPython,
    /// HyperQueue with a journal, one worker with two CPUs.
    Hq,
}

/// A peer, and what became of it.
#[derive(Debug)]
pub(super) struct Peer {
    system: System,
    patience: Patience,
    stop: Stop,
    /// Nothing once it fell out.
    running: Option<Running>,
    fell_out: Option<String>,
    slowest: Option<Duration>,
}

/// The programs of a peer that is up and takes work.
#[derive(Debug)]
enum Running {
    Driver(Driver),
    Hq { dir: PathBuf, _parts: [Part; 2] },
}

/// A process that runs as many tasks as it is told and prints the seconds it took.
#[derive(Debug)]
struct Driver {
    _process: Part,
    orders: ChildStdin,
    answers: Lines,
}

impl Peer {
    /// Starts the peer called `name`. One that hangs is there all the same, and says so.
    ///
    /// # Errors
    /// Where it cannot be started: it is not known, or not installed.
    pub(super) fn start(name: &str, scratch: &Path, stop: &Stop) -> Result<Self, BenchError> {
        let until = || Until::within(PATIENCE.start, stop);
        let python = |package: &str, script: &str| {
            let mut command = Command::new("python3");
            command.args(["-c", script]);
            Driver::start(command, package, until()).map(Running::Driver)
        };
        let (system, running) = match name {
            "ray" => (System::Ray, python("ray", RAY)),
            "hq" if is_installed(&mut hq(scratch), until())? => {
                (System::Hq, start_hq(scratch, until()))
            }
            "hq" => (System::HqInPython, python("hyperqueue", HQ)),
            _ => {
                return Err(BenchError::Broken(format!(
                    "cannot run beside {name:?}: known are {}",
                    NAMES.join(" and ")
                )));
            }
        };
        Self::seated(system, running, PATIENCE, stop)
    }

    fn seated(
        system: System,
        running: Result<Running, BenchError>,
        patience: Patience,
        stop: &Stop,
    ) -> Result<Self, BenchError> {
        let (running, fell_out) = match running {
            Ok(running) => (Some(running), None),
            Err(BenchError::Hung(within)) => (None, Some(hung(within, "start"))),
            Err(problem) => return Err(problem),
        };
        Ok(Self {
            system,
            patience,
            stop: stop.clone(),
            running,
            fell_out,
            slowest: None,
        })
    }

    /// What is measured, for the report.
    pub(super) const fn what(&self) -> &'static str {
        match self.system {
            System::Ray => "Ray, a program from a pooled worker (not durable)",
            System::HqInPython => "HyperQueue in Python, without a journal, not sandboxed",
            System::Hq => "HyperQueue with its journal, not sandboxed",
        }
    }

    /// Its name.
    pub(super) const fn name(&self) -> &'static str {
        match self.system {
            System::Ray => "Ray",
            System::HqInPython | System::Hq => "HyperQueue",
        }
    }

    /// What gleaner promises against it.
    pub(super) const fn goal(&self) -> Option<Goal> {
        match self.system {
            System::Ray => Some(Goal::AtLeast(2.0)),
            System::HqInPython | System::Hq => None,
        }
    }

    /// Why it was not run to the end, where it was not.
    pub(super) fn fell_out(&self) -> Option<&str> {
        self.fell_out.as_deref()
    }

    /// Runs `program` in so many tasks; tasks a second, or nothing where it fell out, then or
    /// before. `when` is the run's name.
    ///
    /// # Errors
    /// Only where the benchmark was told to stop.
    pub(super) fn rate(
        &mut self,
        tasks: u32,
        program: &Path,
        when: &str,
    ) -> Result<Option<f64>, BenchError> {
        let Some(running) = &mut self.running else {
            return Ok(None);
        };
        let within = self.patience.run(tasks, self.slowest);
        let seconds = running.seconds(tasks, program, Until::within(within, &self.stop));
        let why = match seconds {
            Ok(seconds) => {
                let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
                self.slowest = self.slowest.max(Some(took));
                return Ok(Some(f64::from(tasks) / seconds));
            }
            Err(BenchError::Interrupted) => return Err(BenchError::Interrupted),
            Err(BenchError::Hung(within)) => hung(within, when),
            Err(problem) => format!("failed in {when}: {problem}"),
        };
        self.fell_out = Some(why);
        // Its processes end here, so that what comes next is measured without them.
        self.running = None;
        Ok(None)
    }
}

fn hung(within: Duration, when: &str) -> String {
    let seconds = within.as_secs_f64();
    format!("hung in {when}: no answer within {seconds:.0} s; its processes were ended")
}

impl Running {
    fn seconds(&mut self, tasks: u32, program: &Path, until: Until<'_>) -> Result<f64, BenchError> {
        let dir = match self {
            Self::Driver(driver) => return driver.seconds(tasks, program, until),
            Self::Hq { dir, .. } => dir,
        };
        let started = Instant::now();
        let array = format!("--array=1-{tasks}");
        let mut submit = hq(dir);
        submit
            .args(["submit", &array, "--stdout=none", "--stderr=none", "--wait"])
            .arg(program);
        let status = Part::start(&mut submit, "`hq submit`")?.wait(until)?;
        match status.success() {
            true => Ok(started.elapsed().as_secs_f64()),
            false => Err(BenchError::Broken(format!("`hq submit` ended: {status}"))),
        }
    }
}

impl Driver {
    /// Starts a driver; `package` is what it needs.
    fn start(mut command: Command, package: &str, until: Until<'_>) -> Result<Self, BenchError> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = Part::start(&mut command, &format!("a driver of {package}"))?;
        let (orders, answers) = process.pipes()?;
        // A package may have something to say of itself first.
        for _ in 0..GREETING_LINES_MAX {
            match answers.next(until)?.as_deref() {
                Some("ready") => {
                    return Ok(Self {
                        _process: process,
                        orders,
                        answers,
                    });
                }
                None => break,
                Some(_) => {}
            }
        }
        Err(BenchError::Broken(format!(
            "{package} did not start; is it installed for the python3 on the path?"
        )))
    }

    fn seconds(&mut self, tasks: u32, program: &Path, until: Until<'_>) -> Result<f64, BenchError> {
        writeln!(self.orders, "{tasks} {}", program.display()).doing("order tasks of a driver")?;
        let text = self.answers.next(until)?.unwrap_or_default();
        text.parse()
            .map_err(|_| BenchError::Broken(format!("a driver gave no time but {text:?}")))
    }
}

fn hq(dir: &Path) -> Command {
    let mut command = Command::new("hq");
    command
        .arg("--server-dir")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Whether the program is there. One that hangs already here is there.
fn is_installed(program: &mut Command, until: Until<'_>) -> Result<bool, BenchError> {
    let Ok(mut part) = Part::start(program.arg("--version"), "`hq --version`") else {
        return Ok(false);
    };
    match part.wait(until) {
        Ok(_) | Err(BenchError::Hung(_)) => Ok(true),
        Err(problem) => Err(problem),
    }
}

fn start_hq(scratch: &Path, until: Until<'_>) -> Result<Running, BenchError> {
    let dir = scratch.join("hq");
    let part = |args: &[&str]| Part::start(hq(&dir).args(args), "HyperQueue (`hq`)");
    let journal = scratch.join("hq.journal").display().to_string();
    let server = part(&[
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--journal",
        &journal,
    ])?;
    let access = dir.join("hq-current/access.json");
    while !access.exists() {
        until.check()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    let worker = part(&["worker", "start", "--cpus=2"])?;
    Ok(Running::Hq {
        dir,
        _parts: [worker, server],
    })
}
