//! The process engine, tested as the agent uses it. Without the usual test harness: this
//! binary is the shim too, and must become one before any thread exists.
//!
//! The conformance suite runs as we are, once more without control groups, and where we are
//! root once more as a plain user. Then come the promises of this engine alone.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "this is its own test harness, and says how each test went"
)]

mod agents;
mod hostile;
mod together;

use gleaner_engine::Events;
use gleaner_engine::conformance::{BEAT, Bench, CASES};
use gleaner_engine_process::{ProcessConfig, ProcessEngine, is_shim_call, shim_main};
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// A name that no group can have, so that the engine does without.
const NO_GROUPS: &str = "no/groups";

/// An id that no account has on most systems.
const PLAIN_UID: u32 = 2_000_012;

/// What also holds where limits are only watched, in words of the cases' names. A fork bomb is
/// held there too, but a short one is over before anybody looks, so the record may not say so.
const WITHOUT_GROUPS: [&str; 8] = [
    "exit", "inputs,", "memory", "disk", "wall", "pause", "stop", "nothing",
];
const AS_PLAIN_USER: [&str; 6] = [
    "exit",
    "inputs,",
    "flipped",
    "outputs",
    "reach",
    "each other",
];

/// What is worth a second look where every attempt has a shim of its own.
const FRESH: [&str; 3] = ["exit", "pause", "each other"];

pub(crate) fn engine(dir: &Path, parent: &str, beat: Duration, events: Events) -> ProcessEngine {
    engine_with(dir, parent, events, |config| config.beat = beat)
}

fn engine_with(
    dir: &Path,
    parent: &str,
    events: Events,
    change: impl FnOnce(&mut ProcessConfig),
) -> ProcessEngine {
    let mut config = ProcessConfig {
        group_parent: parent.to_owned(),
        ..ProcessConfig::new(dir)
    };
    change(&mut config);
    ProcessEngine::new(config, events).unwrap()
}

/// The parent of all groups of this test run.
pub(crate) fn group_parent() -> String {
    format!("gleaner-test-{}.slice", std::process::id())
}

/// Priority is tested where it is made. Here tasks run like anything else, or a busy PC would
/// let every test time out: a task at idle priority gets nothing there, as it should.
fn run_like_others() {
    let parent = format!("/sys/fs/cgroup/cpu/{}", group_parent());
    std::thread::spawn(move || {
        loop {
            // Each shim puts the group back to idle when it starts.
            for (file, value) in [("cpu.idle", "0"), ("cpu.shares", "1024")] {
                let _no_such_group = std::fs::write(format!("{parent}/{file}"), value);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

/// Counts the failures and says how each test went.
struct Report {
    filter: Vec<String>,
    failed: usize,
}

impl Report {
    fn try_one(&mut self, name: &str, test: impl FnOnce()) {
        if !self.filter.is_empty() && !self.filter.iter().any(|part| name.contains(part)) {
            return;
        }
        let begun = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        self.failed += usize::from(!passed);
        let word = if passed { "ok" } else { "FAILED" };
        println!(
            "test {name} ... {word} ({:.2} s)",
            begun.elapsed().as_secs_f64()
        );
    }

    fn suite(&mut self, dir: &Path, parent: &str, prefix: &str, only: &[&str]) {
        let make = |events: Events| engine(&dir.join("engine"), parent, BEAT, events);
        self.cases(dir, make, prefix, only);
    }

    fn cases(
        &mut self,
        dir: &Path,
        make: impl FnOnce(Events) -> ProcessEngine,
        prefix: &str,
        only: &[&str],
    ) {
        let blobs = dir.join("blobs");
        std::fs::create_dir(&blobs).unwrap();
        let bench = Bench::new(blobs, make);
        for (name, case) in CASES {
            if only.is_empty() || only.iter().any(|part| name.contains(part)) {
                self.try_one(&format!("{prefix}{name}"), || case(&bench));
            }
        }
    }

    /// The same with nothing shared between attempts.
    fn fresh(&mut self, dir: &Path) {
        let parent = group_parent();
        let make = |events: Events| {
            engine_with(&dir.join("engine"), &parent, events, |config| {
                (config.beat, config.fresh) = (BEAT, true);
            })
        };
        self.cases(dir, make, "fresh cages: ", &FRESH);
    }
}

/// The suite again in a process of its own, as somebody else.
fn as_plain_user() {
    let exe = std::env::current_exe().unwrap();
    let status = Command::new(exe)
        .args(["__plain_user"])
        .uid(PLAIN_UID)
        .gid(PLAIN_UID)
        .current_dir("/")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if is_shim_call(&args) {
        return shim_main(&args);
    }
    let word = |at: usize| args.get(at).map_or("", |word| word.to_str().unwrap());
    match word(1) {
        "__hostile" => return hostile::main(),
        "__payload" => return together::payload(word(2)),
        "__agent" => return agents::main(Path::new(word(2)), word(3)),
        _ => {}
    }
    let plain_user = word(1) == "__plain_user";
    let words = args
        .iter()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned());
    let mut report = Report {
        filter: words
            .filter(|word| !word.starts_with('-') && !word.starts_with("__"))
            .collect(),
        failed: 0,
    };
    run_like_others();
    let dir = || tempfile::tempdir().unwrap();
    if plain_user {
        report.suite(
            dir().path(),
            &group_parent(),
            "plain user: ",
            &AS_PLAIN_USER,
        );
        report.try_one("plain user: hostile calls", hostile::calls_are_refused);
    } else {
        report.suite(dir().path(), &group_parent(), "", &[]);
        report.suite(dir().path(), NO_GROUPS, "no groups: ", &WITHOUT_GROUPS);
        report.fresh(dir().path());
        for (name, test) in hostile::TESTS
            .iter()
            .chain(agents::TESTS)
            .chain(together::TESTS)
        {
            report.try_one(name, test);
        }
        if rustix::process::geteuid().is_root() {
            report.try_one("as a plain user", as_plain_user);
        }
    }
    if report.failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
