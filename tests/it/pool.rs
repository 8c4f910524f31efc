//! A pool to test against: starts `gleaner dev`, runs commands, cleans up, keeps logs on failure.
//!
//! Everything here panics on what should not happen, so that tests read as what should.

use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take on a loaded machine before it counts as stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How long a pool may take to end all it started.
const SHUTDOWN: Duration = Duration::from_secs(40);

/// How often to look whether something happened.
const POLL: Duration = Duration::from_millis(20);

/// An id that no account has on most systems.
const PLAIN_USER: u32 = 2_000_013;

/// The binary under test.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("GLEANER_BIN") {
        Some(path) => path.into(),
        None => build(),
    })
}

/// Builds the binary into the target directory that these tests lie in.
fn build() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let profile = own.parent().and_then(Path::parent).unwrap().to_owned();
    let mut cargo = Command::new(env!("CARGO"));
    // What describes this package would make build scripts build anew.
    for (name, _) in std::env::vars_os() {
        let ours =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(ours) {
            cargo.env_remove(name);
        }
    }
    let status = cargo
        .args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            "gleaner-cli",
            "--bin",
            "gleaner",
            "--target-dir",
        ])
        .arg(profile.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(status.success(), "gleaner does not build");
    profile.join("gleaner")
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Exit code; 128 + n where signal n ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Asserts the exit code; a failure shows all that was printed.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "exit code\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| {
            panic!(
                "{e}\n--- stdout\n{}\n--- stderr\n{}",
                self.stdout, self.stderr
            )
        })
    }

    /// Asserts that standard error has all these words, whatever their case.
    #[track_caller]
    pub(crate) fn complains_of(self, words: &[&str]) -> Self {
        let text = self.stderr.to_lowercase();
        for word in words {
            assert!(
                text.contains(&word.to_lowercase()),
                "no {word:?} in: {}",
                self.stderr
            );
        }
        self
    }
}

/// A user's folder with files, in which commands run.
#[derive(Debug)]
pub(crate) struct Desk {
    dir: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file; folders on the way are made.
    pub(crate) fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Writes a file that may be executed.
    pub(crate) fn script(&self, name: &str, text: &str) -> &Self {
        self.write(name, text);
        fs::set_permissions(self.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// A file's text.
    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.path().join(name);
        fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{}: {e}; there are {:?}", path.display(), self.list()))
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path().join(name).exists()
    }

    /// Every file under the folder, sorted.
    pub(crate) fn list(&self) -> Vec<String> {
        let (mut found, mut folders) = (Vec::new(), vec![self.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    let path = entry.path();
                    let name = path.strip_prefix(self.path()).unwrap();
                    found.push(name.to_string_lossy().into_owned());
                }
            }
        }
        found.sort();
        found
    }
}

/// A running program of ours that ends with us, and whose log is shown when a test fails.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts the binary with its output going to a log file.
    pub(crate) fn start(arguments: &[&str], log: PathBuf) -> Self {
        Self::start_as(None, arguments, &[], log)
    }

    /// The same with these variables in its environment.
    pub(crate) fn start_with(
        environment: &[(&str, &str)],
        arguments: &[&str],
        log: PathBuf,
    ) -> Self {
        Self::start_as(None, arguments, environment, log)
    }

    /// The same as another user, where one is named.
    fn start_as(
        user: Option<u32>,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: PathBuf,
    ) -> Self {
        let mut command = dies_with_us();
        if let Some(user) = user {
            command.uid(user).gid(user).current_dir("/");
            // Of its own: what root made there is not for it.
            command.env("HOME", log.with_file_name("home"));
        }
        command
            .args(arguments)
            // Guests are tried where they were built for these tests, and nowhere else.
            .env(
                "GLEANER_GUEST",
                std::env::var_os("GLEANER_GUEST").unwrap_or_default(),
            )
            .envs(environment.iter().copied());
        Self::start_by(&mut command, log)
    }

    /// The same by a command of one's own.
    pub(crate) fn start_by(command: &mut Command, log: PathBuf) -> Self {
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits until it has ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        signal(self.pid(), "TERM");
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        while start.elapsed() < SHUTDOWN {
            if let Some(status) = self.ended() {
                return status;
            }
            thread::sleep(POLL);
        }
        panic!("it did not end within {SHUTDOWN:?}\n{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.ended().is_none() {
            signal(self.pid(), "TERM");
            let start = Instant::now();
            while start.elapsed() < SHUTDOWN && self.ended().is_none() {
                thread::sleep(POLL);
            }
        }
        if self.ended().is_none() {
            self.kill();
        }
        if thread::panicking() {
            eprintln!("--- log of {}\n{}", self.log.display(), tail(&self.log));
        }
    }
}

/// Adds the end of a log to what a failing test says: the pool that tests share outlives them.
fn say_on_panic(log: PathBuf) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        eprintln!("--- log of the shared pool\n{}", tail(&log));
    }));
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let log = fs::read_to_string(log).unwrap_or_default();
    let from = log.len().saturating_sub(8000);
    let from = (from..log.len()).find(|&at| log.is_char_boundary(at));
    log[from.unwrap_or(0)..].to_owned()
}

/// A pool: where its client settings are, and what keeps it running.
#[derive(Debug)]
pub(crate) struct Pool {
    config: PathBuf,
    daemon: Mutex<Daemon>,
    _dir: Option<TempDir>,
}

impl Pool {
    /// A pool of its own with this many nodes.
    pub(crate) fn start(nodes: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut pool = Self::start_in(dir.path(), nodes);
        pool._dir = Some(dir);
        pool
    }

    /// A pool of a user without rights; none where we are one ourselves.
    pub(crate) fn of_plain_user() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        // Nobody else gives files away.
        std::os::unix::fs::chown(dir.path(), Some(PLAIN_USER), Some(PLAIN_USER)).ok()?;
        let mut pool = Self::start_as(Some(PLAIN_USER), dir.path(), 1);
        pool._dir = Some(dir);
        Some(pool)
    }

    /// The same with its data in a given folder, which stays.
    pub(crate) fn start_in(dir: &Path, nodes: u32) -> Self {
        Self::start_as(None, dir, nodes)
    }

    fn start_as(user: Option<u32>, dir: &Path, nodes: u32) -> Self {
        let (data, nodes) = (dir.join("pool"), nodes.to_string());
        let arguments = [
            "dev",
            "--nodes",
            &nodes,
            "--listen",
            "127.0.0.1:0",
            "--data",
            data.to_str().unwrap(),
        ];
        let mut daemon = Daemon::start_as(user, &arguments, &[], dir.join("log"));
        let config = data.join("client.toml");
        let started = Instant::now();
        // A stale file of an earlier run may be there for a moment; the pool replaces it.
        while !answers(&config) {
            let ended = daemon.ended();
            assert!(
                ended.is_none(),
                "the pool ended: {ended:?}\n{}",
                daemon.log()
            );
            assert!(
                started.elapsed() < PATIENCE,
                "the pool is not ready\n{}",
                daemon.log()
            );
            thread::sleep(POLL);
        }
        Self {
            config,
            daemon: Mutex::new(daemon),
            _dir: None,
        }
    }

    /// A pool that tests share which do not disturb each other. It ends with the process.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Pool> = OnceLock::new();
        SHARED.get_or_init(|| {
            let (ready, pool) = mpsc::channel();
            // The pool is told to end when the thread that started it does: this one stays.
            thread::spawn(move || {
                let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shared-pool");
                // That of an earlier run may still be ending.
                until("the earlier shared pool ends", || {
                    let dir = dir.to_str().unwrap();
                    processes().iter().all(|(_, line)| !line.contains(dir))
                });
                if dir.exists() {
                    fs::remove_dir_all(&dir).unwrap();
                }
                fs::create_dir_all(&dir).unwrap();
                say_on_panic(dir.join("log"));
                ready.send(Self::start_in(&dir, 2)).unwrap();
                loop {
                    thread::park();
                }
            });
            pool.recv().expect("the shared pool starts")
        })
    }

    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// A command of ours, ready to run in a folder.
    pub(crate) fn command(&self, desk: &Desk, arguments: &[&str]) -> Command {
        command(&self.config, desk, arguments)
    }

    /// Runs a command of ours to its end.
    #[track_caller]
    pub(crate) fn gleaner(&self, desk: &Desk, arguments: &[&str]) -> Outcome {
        finish(&mut self.command(desk, arguments))
    }

    /// Submits a job file and returns the job's id; does not wait.
    #[track_caller]
    pub(crate) fn submit(&self, desk: &Desk, job: &str) -> String {
        desk.write("job.toml", job);
        let out = self
            .gleaner(desk, &["submit", "job.toml", "--json"])
            .exits(0);
        id_of(&out.json())
    }

    /// Submits a job file, waits, and returns the id and how the command ended.
    #[track_caller]
    pub(crate) fn submit_and_wait(&self, desk: &Desk, job: &str) -> (String, Outcome) {
        let id = self.submit(desk, job);
        let out = self.gleaner(desk, &["wait", &id]);
        let fetched = self.gleaner(desk, &["fetch", &id, "out"]);
        assert!(out.code != 0 || fetched.code == 0, "fetch: {fetched:?}");
        (id, out)
    }

    /// One job.
    #[track_caller]
    pub(crate) fn job(&self, id: &str) -> Value {
        self.gleaner(&Desk::new(), &["job", id, "--json"])
            .exits(0)
            .json()
    }

    /// The tasks of a job.
    #[track_caller]
    pub(crate) fn tasks(&self, id: &str) -> Vec<Value> {
        let out = self
            .gleaner(&Desk::new(), &["tasks", id, "--json"])
            .exits(0);
        out.json().as_array().unwrap().clone()
    }

    /// The task `J.INDEX`, with its attempts.
    #[track_caller]
    pub(crate) fn task(&self, id: &str) -> Value {
        let out = self.gleaner(&Desk::new(), &["tasks", id, "--json"]);
        out.exits(0).json()
    }

    /// Waits until a job is in a state.
    #[track_caller]
    pub(crate) fn wait_for_state(&self, id: &str, state: &str) {
        until(&format!("job {id} is {state}"), || {
            self.job(id)["state"] == state
        });
    }

    /// The process that is the pool.
    pub(crate) fn with_daemon<T>(&self, act: impl FnOnce(&mut Daemon) -> T) -> T {
        act(&mut self.daemon.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether there is a pool behind the settings.
fn answers(config: &Path) -> bool {
    config.exists() && finish(&mut command(config, &Desk::new(), &["nodes", "--json"])).code == 0
}

/// A command of ours with these settings.
pub(crate) fn command(config: &Path, desk: &Desk, arguments: &[&str]) -> Command {
    let mut command = dies_with_us();
    command
        .args(arguments)
        .env("GLEANER_CONFIG", config)
        .current_dir(desk.path());
    command
}

/// Runs a command to its end, or kills it when it is stuck.
#[track_caller]
pub(crate) fn finish(command: &mut Command) -> Outcome {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    outcome(child)
}

/// Waits for a started command, or kills it when it is stuck: when it has neither said anything
/// for a while nor ended. Tasks at idle priority get little of a busy PC, and slow is not stuck.
#[track_caller]
pub(crate) fn outcome(mut child: Child) -> Outcome {
    let (says, said) = mpsc::channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as _),
        child.stderr.take().map(|stream| Box::new(stream) as _),
    ];
    for (index, stream) in streams.into_iter().enumerate() {
        let Some(mut stream) = stream else { continue };
        let says = says.clone();
        thread::spawn(move || {
            let mut space = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut space) {
                says.send((index, space[..length].to_vec())).unwrap();
            }
        });
    }
    drop(says);
    let mut texts = [Vec::new(), Vec::new()];
    let shown = |texts: &[Vec<u8>; 2]| texts.clone().map(|text| lossy(&text));
    loop {
        match said.recv_timeout(PATIENCE) {
            Ok((index, text)) => texts[index].extend(text),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                signal(child.id(), "KILL");
                panic!("a command was stuck; it said {:?}", shown(&texts))
            }
        }
    }
    let mut status = None;
    until("a command without streams ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let [stdout, stderr] = shown(&texts);
    Outcome {
        code: code(status.unwrap()),
        stdout,
        stderr,
    }
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .code()
        .or_else(|| status.signal().map(|n| 128 + n))
        .unwrap()
}

/// The binary under test, told to end when we do, however we end.
pub(crate) fn dies_with_us() -> Command {
    if !Path::new("/usr/bin/setpriv").exists() {
        return Command::new(binary());
    }
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(binary());
    command
}

/// Sends a signal by name.
pub(crate) fn signal(pid: u32, name: &str) {
    let mut shell = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -s {name} {pid}"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    shell.wait().unwrap();
}

/// Programs of tasks with a word in their command line: id, and the command line with spaces.
pub(crate) fn processes_with(word: &str) -> Vec<(u32, String)> {
    // The commands of these tests have the word as well.
    let of_task = |line: &str| line.starts_with("sleep") || line.starts_with("sh -c sleep");
    let all = processes().into_iter();
    all.filter(|(_, line)| line.contains(word) && of_task(line))
        .collect()
}

/// All processes: id, and the command line with spaces.
pub(crate) fn processes() -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            Some((pid, line.replace('\0', " ")))
        })
        .collect()
}

/// Waits for something to become true.
#[track_caller]
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(POLL);
    }
}

/// The id in a JSON object, as text.
#[track_caller]
pub(crate) fn id_of(value: &Value) -> String {
    match &value["id"] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            panic!("no id in {value}")
        }
    }
}

/// The attempts of a task, as `tasks J.INDEX --json` shows it, that may have begun. A grant that
/// never reached its node, or only queued there when the node had to pause, was taken back: it is
/// `cancelled` and nothing is recorded of it.
#[track_caller]
pub(crate) fn begun(task: &Value) -> Vec<Value> {
    let made = task["attempts_made"].as_array().expect("a task alone");
    let taken_back = |one: &&Value| one["state"] == "cancelled" && one["record"].is_null();
    made.iter()
        .filter(|one| !taken_back(one))
        .cloned()
        .collect()
}

/// Whether tests are asked for their long form.
pub(crate) fn long() -> bool {
    std::env::var_os("GLEANER_LONG").is_some()
}

/// Writes bytes under a name that need not be text.
pub(crate) fn write_raw(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}
