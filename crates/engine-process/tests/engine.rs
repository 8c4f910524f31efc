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
