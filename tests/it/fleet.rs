//! A server and agents as separate programs, so that each can die alone.

use crate::pool::{Daemon, Desk, Outcome, PATIENCE, command, dies_with_us, finish, id_of, until};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the groups of ended agents may stay busy, and how often to look.
const GONE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// A server with agents.
#[derive(Debug)]
pub(crate) struct Fleet {
    dir: TempDir,
    port: u16,
    /// What runs the agents' guests; what their trial chooses, where it is empty.
    accelerator: &'static str,
    pub(crate) server: Daemon,
    pub(crate) agents: Vec<Daemon>,
}

impl Fleet {
    /// A server with this many agents, all of them online.
    pub(crate) fn start(agents: usize) -> Self {
        Self::start_on("", agents, &[])
    }

    /// The same, with what runs the agents' guests and more arguments for them.
    pub(crate) fn start_on(accelerator: &'static str, agents: usize, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Free now, and ours in a moment: a restarted server must listen where it did before.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let data = dir.path().join("server");
        let server = serve(&data, port, dir.path().join("server.log"));
        let mut fleet = Self {
            dir,
            port,
            accelerator,
            server,
            agents: Vec::new(),
        };
        fleet.wait_for_server();
        for index in 0..agents {
            let agent = fleet.agent_with(index, fleet.port, more);
            fleet.agents.push(agent);
        }
        fleet.wait_for_nodes(agents);
        fleet
    }

    /// A server without agents that may open so many files.
    pub(crate) fn start_bounded(files: u64) -> Self {
        let mut fleet = Self::start(0);
        fleet.server.kill();
        let data = fleet.server_data();
        let mut command = Command::new("prlimit");
        let server = dies_with_us();
        command
            .arg(format!("--nofile={files}:{files}"))
            .arg("--")
            .arg(server.get_program())
            .args(server.get_args())
            .args(["server", "--data", data.to_str().unwrap(), "--listen"])
            .arg(format!("127.0.0.1:{}", fleet.port));
        fleet.server = Daemon::start_by(&mut command, fleet.dir.path().join("server.log"));
        fleet.wait_for_server();
        fleet
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("server/client.toml")
    }

    /// Where the server and an agent keep what is theirs.
    pub(crate) fn server_data(&self) -> PathBuf {
        self.dir.path().join("server")
    }

    pub(crate) fn agent_data(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("agent-{index}"))
    }

    /// Runs a command of ours to its end.
    #[track_caller]
    pub(crate) fn gleaner(&self, desk: &Desk, arguments: &[&str]) -> Outcome {
        finish(&mut command(&self.config(), desk, arguments))
    }

    fn wait_for_server(&mut self) {
        let started = Instant::now();
        let config = self.config();
        let desk = Desk::new();
        until("the server answers", || {
            let ended = self.server.ended();
            assert!(
                ended.is_none(),
                "the server ended: {ended:?}\n{}",
                self.server.log()
            );
            assert!(started.elapsed() < PATIENCE, "{}", self.server.log());
            config.exists() && finish(&mut command(&config, &desk, &["nodes", "--json"])).code == 0
        });
    }

    /// Waits until this many nodes are online.
    pub(crate) fn wait_for_nodes(&self, count: usize) {
        until("all nodes are online", || self.online() == count);
    }

    pub(crate) fn online(&self) -> usize {
        let nodes = self
            .gleaner(&Desk::new(), &["nodes", "--json"])
            .exits(0)
            .json();
        nodes
            .as_array()
            .unwrap()
            .iter()
            .filter(|node| node["state"] == "online")
            .count()
    }

    fn group(&self, index: usize) -> String {
        format!("gleaner-test-{}-{index}", self.port)
    }

    /// Starts an agent; one that died starts again with what it left.
    pub(crate) fn agent(&self, index: usize, port: u16) -> Daemon {
        self.agent_with(index, port, &[])
    }

    /// The same with more arguments.
    pub(crate) fn agent_with(&self, index: usize, port: u16, more: &[&str]) -> Daemon {
        self.agent_in(&[], index, port, more)
    }

    /// The same in an environment of its own.
    pub(crate) fn agent_in(
        &self,
        environment: &[(&str, &str)],
        index: usize,
        port: u16,
        more: &[&str],
    ) -> Daemon {
        let dir = self.dir.path();
        let token = dir.join("server/node.token");
        let data = dir.join(format!("agent-{index}"));
        let url = format!("https://127.0.0.1:{port}");
        let name = format!("node-{index}");
        // A group of its own each: one that starts sweeps what it finds in its group. What one
        // agent measures at its start is measured elsewhere.
        let group = self.group(index);
        let mut arguments = vec![
            "agent",
            "--server",
            &url,
            "--token-file",
            token.to_str().unwrap(),
            "--data",
            data.to_str().unwrap(),
            "--name",
            &name,
            "--group",
            &group,
            "--dev-nodes",
            "2",
            "--no-self-test",
        ];
        arguments.extend(more);
        let environment = [&[("GLEANER_ACCEL", self.accelerator)], environment].concat();
        let log = dir.join(format!("agent-{index}.log"));
        Daemon::start_with(&environment, &arguments, log)
    }

    /// `kill -9` of the server, and a new one over what it left.
    pub(crate) fn restart_server(&mut self) {
        self.server.kill();
        let dir = self.dir.path();
        self.server = serve(&dir.join("server"), self.port, dir.join("server.log"));
        self.wait_for_server();
    }

    /// Submits a job file and returns the job's id.
    #[track_caller]
    pub(crate) fn submit(&self, desk: &Desk, job: &str) -> String {
        desk.write("job.toml", job);
        id_of(
            &self
                .gleaner(desk, &["submit", "job.toml", "--json"])
                .exits(0)
                .json(),
        )
    }

    #[track_caller]
    pub(crate) fn job(&self, id: &str) -> Value {
        self.gleaner(&Desk::new(), &["job", id, "--json"])
            .exits(0)
            .json()
    }

    /// The task `J.INDEX`, with its attempts.
    #[track_caller]
    pub(crate) fn task(&self, id: &str) -> Value {
        let out = self.gleaner(&Desk::new(), &["tasks", id, "--json"]);
        out.exits(0).json()
    }

    #[track_caller]
    pub(crate) fn tasks(&self, id: &str) -> Vec<Value> {
        let out = self
            .gleaner(&Desk::new(), &["tasks", id, "--json"])
            .exits(0);
        out.json().as_array().unwrap().clone()
    }
}

impl Drop for Fleet {
    /// An agent leaves its empty group to the next one; after a test there is none.
    fn drop(&mut self) {
        let agents = self.agents.len();
        self.agents.clear();
        let root = PathBuf::from("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(&root).into_iter().flatten().flatten();
        let tops: Vec<PathBuf> = hierarchies
            .map(|entry| entry.path())
            .chain([root])
            .collect();
        for group in (0..agents).map(|index| self.group(index)) {
            let started = Instant::now();
            let left = || {
                tops.iter()
                    .map(|top| top.join(&group))
                    .filter(|dir| dir.exists())
            };
            // The last shim ends a moment after its agent.
            while left().any(|dir| !removed(&dir)) && started.elapsed() < GONE {
                thread::sleep(POLL);
            }
        }
    }
}

/// Removes an empty group and the groups in it, of an agent that was killed; says whether it could.
fn removed(group: &Path) -> bool {
    let inner = fs::read_dir(group).into_iter().flatten().flatten();
    for dir in inner.map(|entry| entry.path()).filter(|path| path.is_dir()) {
        removed(&dir);
    }
    fs::remove_dir(group).is_ok()
}

fn serve(data: &Path, port: u16, log: PathBuf) -> Daemon {
    let listen = format!("127.0.0.1:{port}");
    Daemon::start(
        &[
            "server",
            "--data",
            data.to_str().unwrap(),
            "--listen",
            &listen,
        ],
        log,
    )
}
