//! A real pool for a benchmark: the release program as server and agent on loopback, with TLS.

use crate::{BenchError, Doing as _};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for a part of the pool to come up: covers a first start on a slow disk.
const START_WITHIN: Duration = Duration::from_secs(60);

/// Time between two looks whether a job is over: what a rate may be wrong by.
const LOOK: Duration = Duration::from_millis(10);
/// Time between two words about how far a job is.
const TICK: Duration = Duration::from_secs(1);

/// A running pool; ends with the value.
#[derive(Debug)]
pub(crate) struct Pool {
    program: PathBuf,
    dir: tempfile::TempDir,
    server: Child,
    agent: Option<Child>,
}

impl Pool {
    /// Starts a server in a fresh directory.
    pub(crate) fn start(program: &Path) -> Result<Self, BenchError> {
        let dir = tempfile::tempdir().doing("make a directory for the pool")?;
        let log = fs::File::create(dir.path().join("server.log")).doing("make a log")?;
        let server = Command::new(program)
            .args(["server", "--listen", "127.0.0.1:0", "--data"])
            .arg(dir.path().join("server"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .doing("start the server")?;
        let mut pool = Self {
            program: program.into(),
            dir,
            server,
            agent: None,
        };
        let config = pool.config();
        pool.until("the server writes client.toml", |_| Ok(config.exists()))?;
        pool.until("the server answers", |pool| {
            Ok(pool.call(&["nodes", "--json"]).is_ok())
        })?;
        Ok(pool)
    }

    /// Adds one agent with the real sandbox, called `name`, with more options; another that was
    /// there before ends first.
    pub(crate) fn set_agent(&mut self, name: &str, more: &[&str]) -> Result<(), BenchError> {
        if let Some(mut before) = self.agent.take() {
            end(&mut before);
        }
        let address = self.setting("server")?;
        let log = fs::File::create(self.dir.path().join("agent.log")).doing("make a log")?;
        let agent = Command::new(&self.program)
            .args([
                "agent",
                "--name",
                name,
                "--server",
                &address,
                "--token-file",
            ])
            .arg(self.node_token())
            .arg("--data")
            .arg(self.dir.path().join(name))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .doing("start the agent")?;
        self.agent = Some(agent);
        self.until("the node is online", |pool| {
            let nodes = pool.call(&["nodes", "--json"])?;
            let online = |node: &Value| node["name"] == name && node["state"] == "online";
            Ok(nodes
                .as_array()
                .is_some_and(|nodes| nodes.iter().any(online)))
        })
    }

    /// The agent's process, where one was added.
    pub(crate) fn agent_id(&self) -> Option<u32> {
        self.agent.as_ref().map(Child::id)
    }

    /// The settings file of this pool's client.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("server/client.toml")
    }

    /// The file with the token of its nodes.
    pub(crate) fn node_token(&self) -> PathBuf {
        self.dir.path().join("server/node.token")
    }

    /// A setting of its client.
    pub(crate) fn setting(&self, key: &str) -> Result<String, BenchError> {
        let settings = fs::read_to_string(self.config()).doing("read client.toml")?;
        let value = |line: &str| {
            let (name, value) = line.split_once(" = ")?;
            (name == key).then(|| value.trim_matches('"').to_owned())
        };
        settings
            .lines()
            .find_map(value)
            .ok_or_else(|| BenchError::Broken(format!("client.toml names no {key}")))
    }

    /// A directory for files of the benchmark.
    pub(crate) fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the command line and gives what it printed as JSON.
    pub(crate) fn call(&self, args: &[&str]) -> Result<Value, BenchError> {
        let output = self.command(args).output().doing("run the command line")?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(BenchError::Broken(format!(
                "`gleaner {}`: {words}",
                args.join(" ")
            )));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| BenchError::Broken(format!("`gleaner {}`: {error}", args.join(" "))))
    }

    /// A call of the command line against this pool.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env("GLEANER_CONFIG", self.config())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Submits a job file and gives the job's id and the seconds the command line took.
    pub(crate) fn submit(&self, job: &Value) -> Result<(String, f64), BenchError> {
        let file = self.dir.path().join("job.json");
        fs::write(&file, job.to_string()).doing("write a job file")?;
        let started = Instant::now();
        let view = self.call(&["submit", "job.json", "--json"])?;
        Ok((view["id"].to_string(), started.elapsed().as_secs_f64()))
    }

    /// Waits until a job is over; an error unless it is done. Meanwhile `tick` is called, and asks
    /// the pool nothing: what it costs the server is being measured.
    pub(crate) fn wait(&self, job: &str, mut tick: impl FnMut()) -> Result<(), BenchError> {
        let mut waiting = self
            .command(&["wait", job])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .doing("wait for a job")?;
        let mut ticked = Instant::now();
        let status = loop {
            if let Some(status) = waiting.try_wait().doing("wait for a job")? {
                break status;
            }
            if ticked.elapsed() >= TICK {
                tick();
                ticked = Instant::now();
            }
            std::thread::sleep(LOOK);
        };
        match status.success() {
            true => Ok(()),
            false => Err(BenchError::Broken(format!(
                "job {job} was not done: {status}"
            ))),
        }
    }

    /// CPU seconds (user and system) that the server has used.
    pub(crate) fn server_cpu_seconds(&self) -> Result<f64, BenchError> {
        // `stat` counts all threads, those that ended too, in hundredths of a second.
        let path = format!("/proc/{}/stat", self.server.id());
        let stat = fs::read_to_string(&path).doing(format!("read {path}"))?;
        let fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let ticks: f64 = fields
            .skip(11)
            .take(2)
            .filter_map(|n| n.parse::<f64>().ok())
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "a small constant")]
        let a_second = rustix::param::clock_ticks_per_second() as f64;
        Ok(ticks / a_second)
    }

    /// Resident memory of the server in bytes.
    pub(crate) fn server_memory(&self) -> Result<f64, BenchError> {
        let path = format!("/proc/{}/status", self.server.id());
        let status = fs::read_to_string(&path).doing(format!("read {path}"))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|kib| kib.parse::<f64>().ok())
            .map(|kib| kib * 1024.0)
            .ok_or_else(|| BenchError::Broken(format!("{path} tells no resident memory")))
    }

    /// Asks until `ready`, an error after [`START_WITHIN`] or when a part has died.
    fn until(
        &mut self,
        what: &str,
        mut ready: impl FnMut(&Self) -> Result<bool, BenchError>,
    ) -> Result<(), BenchError> {
        let started = Instant::now();
        while started.elapsed() < START_WITHIN {
            let parts = [Some(&mut self.server), self.agent.as_mut()];
            let ended = parts
                .into_iter()
                .flatten()
                .find_map(|part| part.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(BenchError::Broken(format!(
                    "a part of the pool ended before {what}: {status}\n{}",
                    self.logs()
                )));
            }
            if ready(self)? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(BenchError::Broken(format!(
            "waited in vain until {what}\n{}",
            self.logs()
        )))
    }

    fn logs(&self) -> String {
        ["server.log", "agent.log"]
            .iter()
            .filter_map(|name| fs::read_to_string(self.dir.path().join(name)).ok())
            .collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for child in [self.agent.as_mut(), Some(&mut self.server)]
            .into_iter()
            .flatten()
        {
            end(child);
        }
    }
}

fn end(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let _status = child.wait();
}
