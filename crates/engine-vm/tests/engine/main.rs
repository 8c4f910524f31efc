//! The vm engine, tested as the agent uses it: the suite that every engine passes, then what
//! only guests can get wrong. Without the usual test harness: this binary is the shim too, and
//! must become one before any thread exists.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "this is its own test harness; a test panics where a promise is broken"
)]

mod agents;
mod ahead;
mod confined;
mod files;
mod guests;
mod hostile;
mod images;
mod qemu;

use gleaner_engine::Events;
use gleaner_engine::conformance::BEAT;
use gleaner_engine::conformance::harness::{Report, group_parent, run_like_others};
use gleaner_engine_process::{ProcessConfig, is_shim_call, shim_main};
use gleaner_engine_vm::image::{Image, Program};
use gleaner_engine_vm::{Accelerator, VmConfig, VmEngine};
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The guest's program, built by `cargo xtask guest`.
const PROGRAM: &str = "GLEANER_GUEST";

/// Cases that do not apply here, and why.
const NOT_HERE: [(&str, &str); 1] = [(
    "unlinked files count as disk",
    "the scratch disk is a disk: a write that does not fit fails with ENOSPC, and the program \
     lives on; the case wants it ended",
)];

/// The whole suite under translation would take longer than anybody waits, so these stand for it
/// unless the long form is asked for.
const ON_TCG: [&str; 6] = [
    "the same program gives the same digest",
    "inputs, environment, stdin and streams",
    "a fork bomb is held",
    "output ends a task",
    "pause and resume",
    "stop with and without a trap",
];

/// Says that this process has mounts of its own.
pub(crate) const APART: &str = "GLEANER_TEST_APART";

/// Asks for the long form.
pub(crate) const LONG: &str = "GLEANER_LONG";

pub(crate) fn engine(
    image: &Image,
    dir: &Path,
    accelerator: Accelerator,
    events: Events,
) -> VmEngine {
    VmEngine::new(config(image, dir, accelerator), events).unwrap()
}

pub(crate) fn config(image: &Image, dir: &Path, accelerator: Accelerator) -> VmConfig {
    let process = ProcessConfig {
        beat: BEAT,
        group_parent: group_parent(),
        ..ProcessConfig::new(dir)
    };
    VmConfig {
        accelerator: Some(accelerator),
        ..VmConfig::new(process, image.dir.clone())
    }
}

/// The image of this test run, kept between runs: it only changes with its packages.
fn image() -> Option<Image> {
    let Some(program) = std::env::var_os(PROGRAM).map(PathBuf::from) else {
        println!("{PROGRAM} is not set; `cargo xtask test vm` builds the guest and sets it");
        return None;
    };
    let dir = program.with_file_name("image");
    Some(Image::open_or_build(&dir, &Program::File(program)).unwrap())
}

/// Goes on with mounts of its own, where that is possible: what tests mount nobody else sees, and it
/// goes with this process.
fn apart() {
    if rustix::process::geteuid().is_root() && std::env::var_os(APART).is_none() {
        let exe = std::env::current_exe().unwrap();
        let error = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .arg(exe)
            .args(std::env::args_os().skip(1))
            .env(APART, "yes")
            .exec();
        println!("no mounts of our own: {error}");
    }
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if is_shim_call(&args) {
        return shim_main(&args);
    }
    if let Some("__agent") = args.get(1).and_then(|word| word.to_str()) {
        return agents::main(&args);
    }
    apart();
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
    let applies = |name: &str| !NOT_HERE.iter().any(|(left_out, _)| *left_out == name);
    let make = |accelerator: Accelerator, dir: &Path| {
        let dir = dir.join("engine");
        let image = &image;
        move |events: Events| engine(image, &dir, accelerator, events)
    };
    let place = dir.path().join(Accelerator::Uml.name());
    std::fs::create_dir(&place).unwrap();
    let bench = report.cases(&place, make(Accelerator::Uml, &place), "", applies);
    for (name, test) in guests::TESTS {
        report.try_one(name, || test(&bench, &image));
    }
    drop(bench);
    for (name, test) in files::TESTS {
        report.try_one(name, || test(&image, Accelerator::Uml));
    }
    for (name, test) in agents::TESTS {
        report.try_one(name, || test(&image, Accelerator::Uml));
    }
    for (name, test) in hostile::TESTS.iter().chain(confined::TESTS) {
        report.try_one(name, || test(&image, Accelerator::Uml));
    }
    for (name, test) in ahead::TESTS {
        report.try_one(name, || test(&image));
    }
    if image.manifest.kernel(Accelerator::Tcg).is_none() {
        println!("nothing runs under QEMU: it or a kernel for it is not installed");
        return report.exit_code();
    }
    let long = std::env::var_os(LONG).is_some();
    let some = |name: &str| applies(name) && (long || ON_TCG.contains(&name));
    let place = dir.path().join(Accelerator::Tcg.name());
    std::fs::create_dir(&place).unwrap();
    let make = make(Accelerator::Tcg, &place);
    let bench = report.cases(&place, make, "under QEMU: ", some);
    for (name, test) in qemu::TESTS {
        report.try_one(&format!("under QEMU: {name}"), || test(&bench, &image));
    }
    drop(bench);
    for (name, test) in hostile::UNDER_QEMU_TOO {
        let name = format!("under QEMU: {name}");
        report.try_one(&name, || test(&image, Accelerator::Tcg));
    }
    let others = files::UNDER_QEMU_TOO.iter().chain(agents::UNDER_QEMU);
    for (name, test) in others.chain(confined::UNDER_QEMU) {
        let name = format!("under QEMU: {name}");
        report.try_one(&name, || test(&image, Accelerator::Tcg));
    }
    report.try_one(
        "under QEMU: the next task starts in a guest that nobody used before",
        || ahead::next_start(&image, Accelerator::Tcg),
    );
    report.exit_code()
}
