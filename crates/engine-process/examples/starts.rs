//! How many sandboxed programs a second: `starts [COUNT] [AT-A-TIME]`, in one bundle.
//!
//! Prints attempts a second, the spread of the time from order to running program, and the
//! same for bare `posix_spawn` on the same PC, since only the ratio says something.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for the command line that has nothing to go on with"
)]

use gleaner_engine::{AttemptSpec, Engine, EngineEvent};
use gleaner_engine_process::{ProcessConfig, ProcessEngine, is_shim_call, shim_main};
use gleaner_model::{AttemptId, JobId, LeaseId, Reason, TaskId};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How long the last shims may take to leave their groups.
const GROUPS_WAIT: Duration = Duration::from_secs(15);

fn spec(index: u32, bundle: u64) -> AttemptSpec {
    let attempt = TaskId::new(JobId(bundle), index).attempt(1);
    AttemptSpec::bare(attempt, LeaseId(bundle), vec!["/bin/true".to_owned()])
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, Duration::as_secs_f64) * 1000.0
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if is_shim_call(&args) {
        return shim_main(&args);
    }
    let number = |at: usize, default: u32| {
        let word = args.get(at).and_then(|word| word.to_str());
        word.and_then(|word| word.parse().ok()).unwrap_or(default)
    };
    let (count, at_a_time) = (number(1, 2000), number(2, 2));
    let bundles = u64::from(number(3, 1));

    let dir = tempfile::tempdir().unwrap();
    let (say, events) = mpsc::channel();
    let slice = format!("gleaner-bench-{}.slice", std::process::id());
    let config = ProcessConfig {
        group_parent: slice.clone(),
        ..ProcessConfig::new(dir.path())
    };
    let sink = Arc::new(move |event| drop(say.send((Instant::now(), event))));
    let engine = ProcessEngine::new(config, sink).unwrap();

    let begun = Instant::now();
    let mut ordered: BTreeMap<AttemptId, Instant> = BTreeMap::new();
    let mut starts = Vec::new();
    let mut next = 0;
    let order = |next: u32, ordered: &mut BTreeMap<AttemptId, Instant>| {
        let spec = spec(next, u64::from(next) % bundles + 1);
        ordered.insert(spec.attempt, Instant::now());
        engine.start(spec).unwrap();
    };
    let mut ended = 0;
    let mut beat = Instant::now();
    while ended < count {
        while next < count && next < ended + at_a_time {
            order(next, &mut ordered);
            next += 1;
        }
        let (at, event) = events.recv_timeout(Duration::from_secs(30)).unwrap();
        match event {
            EngineEvent::Started { attempt, .. } => starts.push(at - ordered[&attempt]),
            EngineEvent::Ended { attempt, ending } => {
                assert_eq!(ending.reason, Reason::Exit { code: 0 });
                let files = engine.collect(attempt).unwrap();
                assert_eq!(files.len(), 2);
                engine.discard(attempt);
                ended += 1;
            }
            EngineEvent::Paused { .. }
            | EngineEvent::Resumed { .. }
            | EngineEvent::Saved { .. } => {}
        }
        if beat.elapsed() > Duration::from_millis(500) {
            engine.beat(30_000);
            beat = Instant::now();
        }
    }
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    starts.sort();
    println!(
        "sandboxed: {rate:.0}/s, {at_a_time} at a time; start p50 {:.2} ms, p99 {:.2} ms, first {:.2} ms",
        percentile(&starts, 50),
        percentile(&starts, 99),
        percentile(&starts, 100),
    );
    let bare = Instant::now();
    for _ in 0..count / 4 {
        Command::new("/bin/true").status().unwrap();
    }
    let bare = f64::from(count / 4) / bare.elapsed().as_secs_f64();
    println!("bare, one at a time: {bare:.0}/s; ratio {:.2}", rate / bare);
    clean_up(&engine, &slice);
    ExitCode::SUCCESS
}

/// Waits until the shims have left, which they do when they have had nothing to do for some
/// seconds, and removes the groups.
fn clean_up(engine: &ProcessEngine, slice: &str) {
    let over = Instant::now();
    while !leave_no_groups(slice) && over.elapsed() < GROUPS_WAIT {
        engine.beat(30_000);
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Removes the groups of this run in every hierarchy; says whether none is left.
fn leave_no_groups(slice: &str) -> bool {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten();
    let tops = hierarchies.map(|entry| entry.path().join(slice));
    let all: Vec<PathBuf> = tops.chain([root.join(slice)]).collect();
    all.iter().for_each(|top| remove_groups(top));
    !all.iter().any(|top| top.exists())
}

/// Groups within a group first; one that is in use stays.
fn remove_groups(top: &Path) {
    let within = std::fs::read_dir(top).into_iter().flatten().flatten();
    for entry in within.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_groups(&entry.path());
    }
    let _in_use = std::fs::remove_dir(top);
}
