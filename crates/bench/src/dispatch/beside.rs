//! Peers that a benchmark can run beside gleaner, where they are installed already.

use crate::{BenchError, Doing as _, Goal};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

/// Ray's usual way to run a program: a pooled worker calls it. Reads a count, prints seconds.
const RAY: &str = "
import ray, subprocess, sys, time
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
@ray.remote
def task():
    return subprocess.call(['/bin/true'])
ray.get([task.remote() for _ in range(20)])
print('ready', flush=True)
for line in sys.stdin:
    n = int(line)
    start = time.monotonic()
    assert sum(ray.get([task.remote() for _ in range(n)])) == 0
    print(time.monotonic() - start, flush=True)
";

/// A peer that is up and takes work.
#[derive(Debug)]
pub(super) enum Peer {
    /// Ray, with two worker processes.
    Ray {
        driver: Child,
        orders: ChildStdin,
        answers: BufReader<ChildStdout>,
    },
    /// HyperQueue with a journal, one worker with two CPUs.
    Hq { dir: PathBuf, parts: [Child; 2] },
}

impl Peer {
    /// Starts the peer called `name`.
    pub(super) fn start(name: &str, scratch: &Path) -> Result<Self, BenchError> {
        match name {
            "ray" => start_ray(),
            "hq" => start_hq(scratch),
            _ => Err(BenchError::Broken(format!(
                "cannot run beside {name:?}: known are ray and hq"
            ))),
        }
    }

    /// What is measured, for the report.
    pub(super) const fn what(&self) -> &'static str {
        match self {
            Self::Ray { .. } => "Ray, a program from a pooled worker (not durable)",
            Self::Hq { .. } => "HyperQueue with its journal, not sandboxed",
        }
    }

    /// Its name.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Ray { .. } => "Ray",
            Self::Hq { .. } => "HyperQueue",
        }
    }

    /// What gleaner promises against it.
    pub(super) const fn goal(&self) -> Option<Goal> {
        match self {
            Self::Ray { .. } => Some(Goal::AtLeast(2.0)),
            Self::Hq { .. } => None,
        }
    }

    /// Runs `tasks` no-op tasks; tasks a second.
    pub(super) fn rate(&mut self, tasks: u32) -> Result<f64, BenchError> {
        let seconds = match self {
            Self::Ray {
                orders, answers, ..
            } => {
                writeln!(orders, "{tasks}").doing("ask Ray")?;
                line(answers)?
                    .parse()
                    .map_err(|_| BenchError::Broken("Ray's driver gave no time".into()))?
            }
            Self::Hq { dir, .. } => {
                let started = Instant::now();
                let array = format!("--array=1-{tasks}");
                let status = hq(dir)
                    .args(["submit", &array, "--stdout=none", "--stderr=none", "--wait"])
                    .arg("/bin/true")
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
            Self::Ray { driver, .. } => std::slice::from_mut(driver),
            Self::Hq { parts, .. } => parts,
        };
        for part in parts {
            let pid = rustix::process::Pid::from_child(part);
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _status = part.wait();
        }
    }
}

fn line(answers: &mut BufReader<ChildStdout>) -> Result<String, BenchError> {
    let mut text = String::new();
    answers.read_line(&mut text).doing("read Ray's answer")?;
    Ok(text.trim().to_owned())
}

fn start_ray() -> Result<Peer, BenchError> {
    let mut driver = Command::new("python3")
        .args(["-c", RAY])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .doing("start python3 for Ray")?;
    let (Some(orders), Some(answers)) = (driver.stdin.take(), driver.stdout.take()) else {
        return Err(BenchError::Broken("python3 started without pipes".into()));
    };
    let mut answers = BufReader::new(answers);
    match line(&mut answers)?.as_str() {
        "ready" => Ok(Peer::Ray {
            driver,
            orders,
            answers,
        }),
        _ => Err(BenchError::Broken(
            "Ray did not start; is the Python package `ray` installed?".into(),
        )),
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
