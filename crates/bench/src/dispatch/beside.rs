//! Peers that a benchmark can run beside gleaner, where they are installed already.

use crate::{BenchError, Doing as _, Goal};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

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

/// A Python process that runs as many tasks as it is told and prints the seconds it took.
#[derive(Debug)]
pub(super) struct Driver {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// A peer that is up and takes work.
#[derive(Debug)]
pub(super) enum Peer {
    /// Ray, with two worker processes.
    Ray(Driver),
    /// HyperQueue in a Python process.
    HqInPython(Driver),
    /// HyperQueue with a journal, one worker with two CPUs.
    Hq { dir: PathBuf, parts: [Child; 2] },
}

impl Peer {
    /// Starts the peer called `name`.
    pub(super) fn start(name: &str, scratch: &Path) -> Result<Self, BenchError> {
        match name {
            "ray" => Driver::start("ray", RAY).map(Self::Ray),
            "hq" => match hq(scratch).arg("--version").stdout(Stdio::null()).status() {
                Ok(_) => start_hq(scratch),
                Err(_) => Driver::start("hyperqueue", HQ).map(Self::HqInPython),
            },
            _ => Err(BenchError::Broken(format!(
                "cannot run beside {name:?}: known are ray and hq"
            ))),
        }
    }

    /// What is measured, for the report.
    pub(super) const fn what(&self) -> &'static str {
        match self {
            Self::Ray(_) => "Ray, a program from a pooled worker (not durable)",
            Self::HqInPython(_) => "HyperQueue in Python, without a journal, not sandboxed",
            Self::Hq { .. } => "HyperQueue with its journal, not sandboxed",
        }
    }

    /// Its name.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Ray(_) => "Ray",
            Self::HqInPython(_) | Self::Hq { .. } => "HyperQueue",
        }
    }

    /// What gleaner promises against it.
    pub(super) const fn goal(&self) -> Option<Goal> {
        match self {
            Self::Ray(_) => Some(Goal::AtLeast(2.0)),
            Self::HqInPython(_) | Self::Hq { .. } => None,
        }
    }

    /// Runs `program` in so many tasks; tasks a second.
    pub(super) fn rate(&mut self, tasks: u32, program: &Path) -> Result<f64, BenchError> {
        let seconds = match self {
            Self::Ray(driver) | Self::HqInPython(driver) => driver.seconds(tasks, program)?,
            Self::Hq { dir, .. } => {
                let started = Instant::now();
                let array = format!("--array=1-{tasks}");
                let status = hq(dir)
                    .args(["submit", &array, "--stdout=none", "--stderr=none", "--wait"])
                    .arg(program)
                    .stdout(Stdio::null())
                    .status()
                    .doing("submit to HyperQueue")?;
                if !status.success() {
                    return Err(BenchError::Broken(format!("`hq submit` ended: {status}")));
                }
                started.elapsed().as_secs_f64()
            }
        };
        Ok(f64::from(tasks) / seconds)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let parts: &mut [Child] = match self {
            Self::Ray(driver) | Self::HqInPython(driver) => {
                std::slice::from_mut(&mut driver.process)
            }
            Self::Hq { parts, .. } => parts,
        };
        for part in parts {
            let pid = rustix::process::Pid::from_child(part);
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _status = part.wait();
        }
    }
}

impl Driver {
    /// Runs the script with whatever `python3` is on the path; `package` is what it needs.
    fn start(package: &str, script: &str) -> Result<Self, BenchError> {
        let mut process = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .doing(format!("start python3 for {package}"))?;
        let (Some(orders), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(BenchError::Broken("python3 started without pipes".into()));
        };
        let mut driver = Self {
            process,
            orders,
            answers: BufReader::new(answers),
        };
        // A package may have something to say of itself first.
        for _ in 0..GREETING_LINES_MAX {
            match driver.line()?.as_str() {
                "ready" => return Ok(driver),
                "" => break,
                _ => {}
            }
        }
        Err(BenchError::Broken(format!(
            "{package} did not start; is it installed for the python3 on the path?"
        )))
    }

    fn line(&mut self) -> Result<String, BenchError> {
        let mut text = String::new();
        self.answers
            .read_line(&mut text)
            .doing("read an answer of python3")?;
        Ok(text.trim().to_owned())
    }

    fn seconds(&mut self, tasks: u32, program: &Path) -> Result<f64, BenchError> {
        writeln!(self.orders, "{tasks} {}", program.display()).doing("order tasks of python3")?;
        let text = self.line()?;
        text.parse()
            .map_err(|_| BenchError::Broken(format!("a driver gave no time but {text:?}")))
    }
}

fn hq(dir: &Path) -> Command {
    let mut command = Command::new("hq");
    command.arg("--server-dir").arg(dir).stdin(Stdio::null());
    command
}

fn start_hq(scratch: &Path) -> Result<Peer, BenchError> {
    let dir = scratch.join("hq");
    let part = |args: &[&str]| {
        hq(&dir)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .doing("start HyperQueue (`hq`); is it installed?")
    };
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
    let started = Instant::now();
    while !access.exists() && started.elapsed().as_secs() < 30 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let worker = part(&["worker", "start", "--cpus=2"])?;
    Ok(Peer::Hq {
        dir,
        parts: [worker, server],
    })
}
