//! Agents that are killed while a guest boots or is being saved: the next one finds all of it, and at
//! the end nothing of it is left.

use crate::guests::until;
use gleaner_engine::conformance::harness::group_like_others;
use gleaner_engine::conformance::{Bench, DEADLINE};
use gleaner_engine::{AfterSave, AttemptSpec, Engine as _, EngineEvent, Events};
use gleaner_engine_process::ProcessConfig;
use gleaner_engine_vm::image::Image;
use gleaner_engine_vm::{Accelerator, VmConfig, VmEngine};
use gleaner_model::{Bytes, Reason, Span};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Test = fn(&Image, Accelerator);

pub(crate) const TESTS: &[(&str, Test)] = &[(
    "an agent that is killed while a guest boots leaves nothing",
    killed_at_boot,
)];

pub(crate) const UNDER_QEMU: &[(&str, Test)] = &[(
    "an agent that is killed while a guest is saved is followed by one that saves it",
    killed_at_save,
)];

/// How long guests go on after an agent's last beat, in milliseconds: longer than a thread waits
/// on a busy PC.
const LEASE_MS: u64 = 5000;

/// A group of tasks that no other test has.
fn parent() -> String {
    format!("gleaner-test-{}-agents.slice", std::process::id())
}

fn make(image: &Path, dir: &Path, parent: &str, accelerator: Accelerator) -> Made {
    let (say, heard) = channel();
    let say = Mutex::new(say);
    let events: Events = Arc::new(move |event| {
        let _nobody_listens = say.lock().unwrap().send(event);
    });
    let process = ProcessConfig {
        beat: Duration::from_secs(1),
        group_parent: parent.to_owned(),
        ..ProcessConfig::new(dir)
    };
    let config = VmConfig {
        accelerator: Some(accelerator),
        ..VmConfig::new(process, image.to_owned())
    };
    (VmEngine::new(config, events).unwrap(), heard)
}

type Made = (VmEngine, Receiver<EngineEvent>);

/// The agent that will be killed: starts an attempt, saves it again and again, where that is asked
/// for, and beats.
pub(crate) fn main(args: &[OsString]) -> ExitCode {
    let word = |at: usize| args[at].to_str().unwrap();
    let (image, dir, parent) = (Path::new(word(2)), Path::new(word(3)), word(4));
    let accelerator = Accelerator::ALL
        .into_iter()
        .find(|one| one.name() == word(5));
    let (engine, _heard) = make(image, dir, parent, accelerator.unwrap());
    let spec: AttemptSpec = serde_json::from_str(word(6)).unwrap();
    let attempt = spec.attempt;
    engine.start(spec).unwrap();
    let saves = word(7) == "save";
    loop {
        engine.beat(LEASE_MS);
        std::thread::sleep(Duration::from_millis(20));
        let said = engine.streams(attempt).map(|[out, _]| out.metadata());
        let runs = said.is_ok_and(|said| said.is_ok_and(|said| said.len() > 0));
        if runs && saves {
            let _under_way = engine.save(attempt, AfterSave::GoOn);
        }
    }
}

fn agent(
    image: &Image,
    dir: &Path,
    accelerator: Accelerator,
    spec: &AttemptSpec,
    how: &str,
) -> Agent {
    let begun = Command::new(std::env::current_exe().unwrap())
        .arg("__agent")
        .args([&image.dir, &dir.to_owned()])
        .args([&parent(), accelerator.name()])
        .args([&serde_json::to_string(spec).unwrap(), how])
        .spawn();
    Agent(begun.unwrap())
}

/// An agent that goes when its test does.
struct Agent(Child);

impl Agent {
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
    }
}

fn task(dir: &Path) -> AttemptSpec {
    let blobs = dir.join("blobs");
    fs::create_dir(&blobs).unwrap();
    // Only to make a task of.
    let process = ProcessConfig::new(dir.join("none"));
    let bench = Bench::new(blobs, |events| {
        gleaner_engine_process::ProcessEngine::new(process, events).unwrap()
    });
    let mut spec = bench.script("echo ready; sleep 1000");
    spec.limits.memory = Bytes(48 << 20);
    spec.limits.disk = Bytes(16 << 20);
    spec.saving.every = Some(Span::seconds(600));
    spec
}

/// Processes in the group of the agents' tasks, whoever their parents are; with their arguments.
fn processes() -> Vec<String> {
    let group = parent();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let held = entries.filter(|entry| {
        let text = fs::read_to_string(entry.path().join("cgroup"));
        text.is_ok_and(|text| text.contains(&group))
    });
    let line = |entry: fs::DirEntry| {
        let bytes = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    held.map(line).filter(|line| !line.is_empty()).collect()
}

fn is_kernel(line: &str) -> bool {
    line.starts_with("/run/guest/kernel") || line.contains("qemu-system")
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let below = entries.flat_map(|entry| {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir { files(&path) } else { vec![path] }
    });
    below.collect()
}

/// Directories below, so deep.
fn below(dir: PathBuf, depth: u32) -> Vec<PathBuf> {
    if depth == 0 {
        return vec![dir];
    }
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.flat_map(|entry| below(entry.path(), depth - 1))
        .collect()
}

/// Groups of tasks: an agent has one group for all, in the group of this test.
fn groups() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = below(top.to_owned(), 1).into_iter().chain([top.to_owned()]);
    hierarchies
        .flat_map(|at| below(at.join(parent()), 2))
        .collect()
}

/// Nothing is left of what agents in this directory began, once the last one was told of it.
fn nothing_left(engine: &VmEngine, dir: &Path) {
    until("no process is left", || {
        engine.beat(LEASE_MS);
        processes().is_empty()
    });
    until("no bundle is left", || {
        engine.beat(LEASE_MS);
        files(&dir.join("bundles")).is_empty()
    });
    assert_eq!((files(dir), groups()), (Vec::new(), Vec::new()));
}

fn killed_at_boot(image: &Image, accelerator: Accelerator) {
    group_like_others(&parent());
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("engine");
    let spec = task(home.path());
    let first = agent(image, &dir, accelerator, &spec, "boot");
    until("its kernel runs", || {
        processes().iter().any(|line| is_kernel(line))
    });
    first.kill();
    // Nobody beats any more, and nobody comes.
    assert!(!groups().is_empty());
    until("its lease is over", || {
        !processes().iter().any(|line| is_kernel(line))
    });
    let (second, heard) = make(&image.dir, &dir, &parent(), accelerator);
    let [adopted] = <[_; 1]>::try_from(second.adopt().unwrap()).unwrap();
    assert_eq!(adopted.spec, spec);
    let ended = adopted.ending.map(|ending| ending.reason);
    let reason = ended.unwrap_or_else(|| match heard.recv_timeout(DEADLINE).unwrap() {
        EngineEvent::Ended { ending, .. } => ending.reason,
        other @ (EngineEvent::Started { .. }
        | EngineEvent::Paused { .. }
        | EngineEvent::Resumed { .. }
        | EngineEvent::Saved { .. }) => panic!("{other:?}"),
    });
    assert!(matches!(reason, Reason::Lost { .. }), "{reason:?}");
    second.discard(spec.attempt);
    nothing_left(&second, &dir);
}

fn killed_at_save(image: &Image, accelerator: Accelerator) {
    group_like_others(&parent());
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("engine");
    let spec = task(home.path());
    let first = agent(image, &dir, accelerator, &spec, "save");
    let part = || files(&dir).iter().any(|path| path.ends_with("guest.part"));
    until("it is being saved", part);
    first.kill();
    let (second, heard) = make(&image.dir, &dir, &parent(), accelerator);
    let [adopted] = <[_; 1]>::try_from(second.adopt().unwrap()).unwrap();
    assert_eq!((&adopted.spec, &adopted.ending), (&spec, &None));
    second.beat(LEASE_MS);
    second.save(spec.attempt, AfterSave::End).unwrap();
    let mut saved = false;
    let reason = loop {
        second.beat(LEASE_MS);
        match heard.recv_timeout(Duration::from_millis(100)) {
            Ok(EngineEvent::Saved { outcome, .. }) => {
                outcome.unwrap();
                saved = true;
            }
            Ok(EngineEvent::Ended { ending, .. }) => break ending.reason,
            _ => {}
        }
    };
    assert!(saved && reason == Reason::Cancelled, "{reason:?}");
    let [file] = <[_; 1]>::try_from(second.saved(spec.attempt).unwrap()).unwrap();
    assert!(file.size > 1 << 20, "{}", file.size);
    drop(file);
    second.discard(spec.attempt);
    nothing_left(&second, &dir);
}
