//! The vm engine, tested as the agent uses it: the suite that every engine passes, then what
//! only guests can get wrong. Without the usual test harness: this binary is the shim too, and
//! must become one before any thread exists.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "this is its own test harness; a test panics where a promise is broken"
)]

mod guests;

use gleaner_engine::Events;
use gleaner_engine::conformance::BEAT;
use gleaner_engine::conformance::harness::{Report, group_parent, run_like_others};
use gleaner_engine_process::{ProcessConfig, is_shim_call, shim_main};
use gleaner_engine_vm::image::Image;
use gleaner_engine_vm::{VmConfig, VmEngine};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The guest's program, built by `cargo xtask guest`.
const PROGRAM: &str = "GLEANER_GUEST";

/// Cases that do not apply here, and why.
const NOT_HERE: [(&str, &str); 1] = [(
    "unlinked files count as disk",
    "the scratch disk is a disk: a write that does not fit fails with ENOSPC, and the program \
     lives on; the case wants it ended",
)];

pub(crate) fn engine(image: &Image, dir: &Path, parent: &str, events: Events) -> VmEngine {
    let process = ProcessConfig {
        beat: BEAT,
        group_parent: parent.to_owned(),
        ..ProcessConfig::new(dir)
    };
    VmEngine::new(VmConfig::new(process, image.dir.clone()), events).unwrap()
}

/// The image of this test run, kept between runs: it only changes with its packages.
fn image() -> Option<Image> {
    let Some(program) = std::env::var_os(PROGRAM).map(PathBuf::from) else {
        println!("{PROGRAM} is not set; `cargo xtask test vm` builds the guest and sets it");
        return None;
    };
    let dir = program.with_file_name("image");
    Some(Image::open_or_build(&dir, &program).unwrap())
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if is_shim_call(&args) {
        return shim_main(&args);
    }
    let mut report = Report::of_command_line();
    // Where the suite does not run, neither the kernel nor the guest's program are at hand.
    let Some(image) = image() else {
        return ExitCode::SUCCESS;
    };
    run_like_others();
    let dir = tempfile::tempdir().unwrap();
    for (name, why) in NOT_HERE {
        println!("{name} does not apply: {why}");
    }
    let make = |events: Events| engine(&image, &dir.path().join("engine"), &group_parent(), events);
    let applies = |name: &str| !NOT_HERE.iter().any(|(left_out, _)| *left_out == name);
    let bench = report.cases(dir.path(), make, "", applies);
    for (name, test) in guests::TESTS {
        report.try_one(name, || test(&bench, &image));
    }
    report.exit_code()
}
