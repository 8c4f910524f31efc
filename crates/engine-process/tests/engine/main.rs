//! The process engine, tested as the agent uses it. Without the usual test harness: this
//! binary is the shim too, and must become one before any thread exists.
//!
//! The conformance suite runs as we are, and outside of a guest once more without control groups
//! and, where we are root, as a plain user. Then come the promises of this engine alone.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "payloads tell what they saw; a test panics where a promise is broken"
)]

mod agents;
mod hostile;
mod images;
mod ipc;
mod together;

use gleaner_engine::Events;
use gleaner_engine::conformance::BEAT;
use gleaner_engine::conformance::harness::{Report, group_parent, run_like_others};
use gleaner_engine_process::{ProcessConfig, ProcessEngine, is_shim_call, shim_main};
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Set where `cargo xtask test uml` runs these tests.
const IN_GUEST: &str = "GLEANER_UML";

/// A name that no group can have, so that the engine does without.
const NO_GROUPS: &str = "no/groups";

/// An id that no account has on most systems.
const PLAIN_UID: u32 = 2_000_012;

/// What also holds where limits are only watched, in words of the cases' names. A fork bomb is
/// held there too, but a short one is over before anybody looks, so the record may not say so.
const WITHOUT_GROUPS: [&str; 10] = [
    "exit",
    "inputs,",
    "memory",
    "disk",
    "wall",
    "pause",
    "stop",
    "nothing",
    "save",
    "processor",
];
const AS_PLAIN_USER: [&str; 8] = [
    "save",
    "processor",
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

fn suite(report: &mut Report, dir: &Path, parent: &str, prefix: &str, only: &[&str]) {
    let make = |events: Events| engine(&dir.join("engine"), parent, BEAT, events);
    let applies = |name: &str| only.is_empty() || only.iter().any(|part| name.contains(part));
    report.cases(dir, make, prefix, applies);
}

/// The same with nothing shared between attempts.
fn fresh(report: &mut Report, dir: &Path) {
    let make = |events: Events| {
        engine_with(&dir.join("engine"), &group_parent(), events, |config| {
            (config.beat, config.fresh) = (BEAT, true);
        })
    };
    let applies = |name: &str| FRESH.iter().any(|part| name.contains(part));
    report.cases(dir, make, "fresh cages: ", applies);
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
        "__ipc" => return ipc::payload(word(2)),
        "__payload" => return together::payload(word(2)),
        "__trial" => return agents::trial(Path::new(word(2)), word(3)),
        "__agent" => return agents::main(Path::new(word(2)), word(3)),
        _ => {}
    }
    let plain_user = word(1) == "__plain_user";
    // A guest is there for its groups of version 2, and boots once more for a plain user.
    let in_guest = std::env::var_os(IN_GUEST).is_some();
    let mut report = Report::of_command_line();
    run_like_others();
    let dir = || tempfile::tempdir().unwrap();
    if plain_user {
        let (dir, parent) = (dir(), group_parent());
        suite(
            &mut report,
            dir.path(),
            &parent,
            "plain user: ",
            &AS_PLAIN_USER,
        );
        report.try_one("plain user: hostile calls", hostile::calls_are_refused);
        for (name, test) in images::TESTS.iter().chain(ipc::TESTS) {
            report.try_one(&format!("plain user: {name}"), test);
        }
    } else {
        suite(&mut report, dir().path(), &group_parent(), "", &[]);
        if !in_guest {
            let (dir, only) = (dir(), &WITHOUT_GROUPS);
            suite(&mut report, dir.path(), NO_GROUPS, "no groups: ", only);
        }
        fresh(&mut report, dir().path());
        for (name, test) in hostile::TESTS
            .iter()
            .chain(agents::TESTS)
            .chain(images::TESTS)
            .chain(ipc::TESTS)
            .chain(together::TESTS)
        {
            report.try_one(name, test);
        }
        if rustix::process::geteuid().is_root() && !in_guest {
            report.try_one("as a plain user", as_plain_user);
        }
    }
    report.exit_code()
}
