//! `cargo xtask demo`: a small pool on this machine renders one picture with POV-Ray.
//!
//! Uses the product as a user would: by its command line. Leaves nothing behind but the picture.

use crate::Failure;
use crate::apparmor;
use crate::debian;
use crate::needs::POVRAY;
use crate::process;
use crate::workspace::{Workspace, capture, cargo_command};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Nodes of the pool.
const NODES: &str = "3";

/// How long the pool may take to be ready: it makes its keys and runs the self-test once.
const READY: Duration = Duration::from_secs(120);

/// How long the pool may take to end all it started.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// How often to look whether something happened.
const POLL: Duration = Duration::from_millis(50);

/// Lines of the pool's log that are shown when it fails.
const LOG_TAIL_LINES: usize = 30;

/// Renders the picture; its path is the last line printed.
///
/// # Errors
/// A step failed, or POV-Ray has to be installed by hand.
pub(crate) fn run() -> Result<(), Failure> {
    debian::ensure(&[POVRAY])?;
    let workspace = Workspace::load()?;
    apparmor::ensure(&workspace.target)?;
    println!("building gleaner (release)");
    build(&workspace)?;
    let folder = workspace.target.join("demo");
    let mut pool = Pool::start(&workspace, &folder)?;
    let picture = folder.join("render.png");
    let rendered = render(&workspace, &pool, &picture);
    let stopped = pool.stop();
    if rendered.is_ok() && stopped.is_ok() {
        pool.forget();
    }
    rendered?;
    stopped?;
    println!("{}", picture.display());
    Ok(())
}

fn build(workspace: &Workspace) -> Result<(), String> {
    let status = cargo_command()
        .args(["build", "--release", "--locked", "--bin", "gleaner"])
        .current_dir(&workspace.root)
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        _ => Err("gleaner does not build".to_owned()),
    }
}

fn render(workspace: &Workspace, pool: &Pool, picture: &Path) -> Result<(), String> {
    let job = workspace.root.join("recipes/render/job.toml");
    println!("submitting {}", job.display());
    let status = pool
        .gleaner(&["submit", &job.to_string_lossy(), "--wait"])
        .status()
        .map_err(|e| format!("gleaner submit: {e}"))?;
    if !status.success() {
        return Err(format!("gleaner submit: {status}\n{}", pool.log_tail()));
    }
    let jobs = pool.json(&["jobs", "--json"])?;
    let id = jobs[0]["id"].to_string().trim_matches('"').to_owned();
    let results = pool.dir.join(format!("results-{id}"));
    fs::copy(results.join("picture.png"), picture)
        .map_err(|e| format!("no picture in {}: {e}", results.display()))?;
    print_work(&pool.json(&["tasks", &id, "--json"])?);
    Ok(())
}

/// What one node contributed.
#[derive(Debug, Default, PartialEq)]
struct Work {
    tiles: u64,
    cpu_seconds: f64,
}

fn print_work(tasks: &Value) {
    let nodes = work(tasks);
    let mut total = Work::default();
    println!("{:<12} {:>6} {:>10}", "node", "tiles", "CPU time");
    for (name, work) in &nodes {
        println!("{name:<12} {:>6} {:>8.1} s", work.tiles, work.cpu_seconds);
        total.tiles += work.tiles;
        total.cpu_seconds += work.cpu_seconds;
    }
    println!(
        "{:<12} {:>6} {:>8.1} s",
        "all", total.tiles, total.cpu_seconds
    );
}

/// Tiles and CPU time by node; the merge is no tile.
fn work(tasks: &Value) -> BTreeMap<String, Work> {
    let mut nodes: BTreeMap<String, Work> = BTreeMap::new();
    for task in tasks.as_array().into_iter().flatten() {
        let Some(node) = task["node"].as_str() else {
            continue;
        };
        let work = nodes.entry(node.to_owned()).or_default();
        // A tile is named by its rows, as `first=1 last=20`.
        let tile = task["name"].as_str().is_some_and(|name| name.contains('='));
        work.tiles += u64::from(tile);
        work.cpu_seconds += task["cpu_seconds"].as_f64().unwrap_or(0.0);
    }
    nodes
}

/// Makes the pool's folder empty. Its path is always the same, so that a pool finds what one that
/// was killed left running; one that is still ending is waited for.
fn clear(dir: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", dir.display());
    let start = Instant::now();
    // The pool holds a lock on this file while it lives.
    while let Ok(lock) = File::open(dir.join("data/dev.lock")) {
        if lock.try_lock().is_ok() {
            break;
        }
        if start.elapsed() > SHUTDOWN {
            return Err(format!(
                "another demo uses {}; wait for it or end it",
                dir.display()
            ));
        }
        thread::sleep(POLL);
    }
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(failed)?;
    }
    fs::create_dir_all(dir).map_err(failed)
}

/// A running `gleaner dev`.
struct Pool {
    binary: PathBuf,
    dir: PathBuf,
    child: Child,
}

impl Pool {
    fn start(workspace: &Workspace, folder: &Path) -> Result<Self, String> {
        let binary = workspace.target.join("release/gleaner");
        let dir = folder.join("pool");
        clear(&dir)?;
        let log = File::create(dir.join("pool.log")).map_err(|e| format!("pool.log: {e}"))?;
        let errors = log.try_clone().map_err(|e| format!("pool.log: {e}"))?;
        println!("starting a pool with {NODES} nodes");
        let data = dir.join("data");
        let mut command = dies_with_us(&binary, "TERM");
        command
            .args(["dev", "--nodes", NODES, "--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        // Ctrl-C at the terminal must reach us first: the pool then gets one SIGTERM, not two.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command
            .spawn()
            .map_err(|e| format!("{}: {e}", binary.display()))?;
        let mut pool = Self { binary, dir, child };
        let ready = pool.wait_until_ready(&data.join("client.toml"));
        if ready.is_err() {
            // The reason is already known; a second failure adds nothing.
            let _: Result<(), String> = pool.stop();
        }
        ready.map(|()| pool)
    }

    fn wait_until_ready(&mut self, client: &Path) -> Result<(), String> {
        let start = Instant::now();
        while !client.exists() {
            let ended = self.child.try_wait().map_err(|e| e.to_string())?;
            if let Some(status) = ended {
                return Err(format!("the pool ended: {status}\n{}", self.log_tail()));
            }
            if start.elapsed() > READY {
                return Err(format!("the pool is not ready\n{}", self.log_tail()));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn gleaner(&self, arguments: &[&str]) -> Command {
        let mut command = dies_with_us(&self.binary, "KILL");
        // Ctrl-C is for us: this command would say how to come back to a pool that ends.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .env("GLEANER_CONFIG", self.dir.join("data/client.toml"))
            .current_dir(&self.dir);
        command
    }

    fn json(&self, arguments: &[&str]) -> Result<Value, String> {
        let text = capture(&mut self.gleaner(arguments))?;
        serde_json::from_str(&text).map_err(|e| format!("gleaner {}: {e}", arguments.join(" ")))
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.dir.join("pool.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Asks the pool to end, and waits until it has.
    fn stop(&mut self) -> Result<(), String> {
        process::signal(self.child.id(), "TERM");
        let start = Instant::now();
        while start.elapsed() < SHUTDOWN {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("the pool ended: {status}")),
                Ok(None) => thread::sleep(POLL),
                Err(error) => return Err(error.to_string()),
            }
        }
        process::kill_tree(self.child.id());
        Err(format!(
            "the pool did not end within {} s",
            SHUTDOWN.as_secs()
        ))
    }

    /// Removes the pool's folder; it stays after a failure, for its log.
    fn forget(&self) {
        // What cannot be removed now is removed by the next run.
        let _: std::io::Result<()> = fs::remove_dir_all(&self.dir);
    }
}

/// The program gets this signal when we die, however we die; util-linux has the tool on every
/// Debian.
fn dies_with_us(binary: &Path, signal: &str) -> Command {
    if !debian::present("setpriv") {
        return Command::new(binary);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal, "--"]).arg(binary);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_by_node() {
        let tasks = serde_json::json!([
            { "id": "1.0", "name": "first=1", "node": "a", "cpu_seconds": 1.5 },
            { "id": "1.1", "name": "first=2", "node": "b", "cpu_seconds": 2.0 },
            { "id": "1.2", "node": "a", "cpu_seconds": 0.5, "name": "merge" },
            { "id": "1.3", "name": "first=3", "node": null },
        ]);
        let nodes = work(&tasks);
        assert_eq!(
            nodes["a"],
            Work {
                tiles: 1,
                cpu_seconds: 2.0
            }
        );
        assert_eq!(
            nodes["b"],
            Work {
                tiles: 1,
                cpu_seconds: 2.0
            }
        );
        assert_eq!(nodes.len(), 2);
    }
}
