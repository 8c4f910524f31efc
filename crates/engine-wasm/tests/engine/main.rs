//! The conformance suite on programs of WebAssembly, and what only they can get wrong.
//!
//! One test after the other: each counts CPU seconds and what is frozen. The programs are
//! compiled by `clang`; `cargo xtask test conformance` sees to it that it is there.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is its own test harness; a test panics where a promise is broken"
)]

mod own;
mod programs;

use gleaner_engine::Events;
use gleaner_engine::conformance::BEAT;
use gleaner_engine::conformance::harness::{Report, group_parent, run_like_others};
use gleaner_engine_process::{ProcessConfig, is_shim_call, shim_main};
use gleaner_engine_wasm::{WasmConfig, WasmEngine, is_wasm_call, wasm_main};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// The C library that test programs are linked with, and with it the rest of their compiler.
const LIBRARY: &str = "/usr/lib/wasm32-wasi/libc.a";

/// Cases that do not apply here, and why.
const NOT_HERE: [(&str, &str); 8] = [
    (
        "exit codes and signals are told",
        "preview 1 has no signals; \"exit codes and traps are told\" stands for it",
    ),
    (
        "inputs, environment, stdin and streams",
        "it starts other programs; \"arguments, environment, stdin and files\" stands for it",
    ),
    ("a fork bomb is held", "preview 1 has no processes"),
    (
        "stop with and without a trap",
        "preview 1 has no signals; \"a program is stopped\" stands for it",
    ),
    (
        "a program told to end may save itself",
        "preview 1 has no signals",
    ),
    (
        "nothing is left behind",
        "preview 1 has no processes; \"a program that closes everything\" stands for the rest",
    ),
    (
        "outputs stay within scratch",
        "preview 1 makes no pipes and no names that are not UTF-8; \"what comes home is a plain \
         file of scratch\" stands for it",
    ),
    (
        "the owner's files and devices are out of reach",
        "it calls the userland's programs; \"what is not scratch is out of reach\" stands for it",
    ),
];

pub(crate) fn engine(dir: &Path, parent: &str, events: Events) -> WasmEngine {
    let process = ProcessConfig {
        beat: BEAT,
        group_parent: parent.to_owned(),
        ..ProcessConfig::new(dir)
    };
    let runner = std::env::current_exe().unwrap();
    WasmEngine::new(WasmConfig { process, runner }, events).unwrap()
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if is_shim_call(&args) {
        return shim_main(&args);
    }
    if is_wasm_call(&args) {
        return wasm_main(&args);
    }
    let mut report = Report::of_command_line();
    if !Path::new(LIBRARY).exists() {
        println!("{LIBRARY} is not there; `cargo xtask test conformance` installs it");
        return ExitCode::SUCCESS;
    }
    run_like_others();
    let dir = tempfile::tempdir().unwrap();
    let (module, native) = programs::compile(dir.path());
    let make = |events: Events| programs::Scripted {
        engine: engine(&dir.path().join("engine"), &group_parent(), events),
        module: Arc::new(programs::input(&module)),
    };
    for (name, why) in NOT_HERE {
        println!("{name} does not apply: {why}");
    }
    let applies = |name: &str| !NOT_HERE.iter().any(|(left_out, _)| *left_out == name);
    let bench = report.cases(dir.path(), make, "", applies);
    let built = own::Built {
        module: &module,
        native: &native,
    };
    for (name, test) in own::TESTS {
        report.try_one(name, || test(&bench, &built));
    }
    drop(bench);
    report.exit_code()
}
