//! The process engine, tested as the agent uses it. Without the usual test harness: this
//! binary is the shim too, and must become one before any thread exists.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "this is its own test harness, and says how each test went"
)]

use gleaner_engine::conformance::{BEAT, Bench, CASES};
use gleaner_engine_process::{ProcessConfig, ProcessEngine, is_shim_call, shim_main};
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

fn engine(dir: &Path, events: gleaner_engine::Events) -> ProcessEngine {
    let config = ProcessConfig {
        beat: BEAT,
        group_parent: format!("gleaner-test-{}.slice", std::process::id()),
        ..ProcessConfig::new(dir)
    };
    ProcessEngine::new(config, events).unwrap()
}

/// Priority is tested where it is made. Here tasks run like anything else, or a busy PC would
/// let every test time out: a task at idle priority gets nothing there, as it should.
fn run_like_others() {
    let parent = format!(
        "/sys/fs/cgroup/cpu/gleaner-test-{}.slice",
        std::process::id()
    );
    std::thread::spawn(move || {
        loop {
            // Each shim puts the group back to idle when it starts.
            for (file, value) in [("cpu.idle", "0"), ("cpu.shares", "1024")] {
                let _no_such_group = std::fs::write(format!("{parent}/{file}"), value);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    });
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if is_shim_call(&args) {
        return shim_main(&args);
    }
    let filter: Vec<String> = args
        .iter()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .filter(|word| !word.starts_with('-'))
        .collect();
    run_like_others();
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("blobs");
    std::fs::create_dir(&blobs).unwrap();
    let bench = Bench::new(blobs, |events| engine(&dir.path().join("engine"), events));
    let mut failed = 0;
    for (name, case) in CASES {
        if !filter.is_empty() && !filter.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let begun = std::time::Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| case(&bench))).is_ok();
        failed += usize::from(!passed);
        let word = if passed { "ok" } else { "FAILED" };
        println!(
            "test {name} ... {word} ({:.2} s)",
            begun.elapsed().as_secs_f64()
        );
    }
    if failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
