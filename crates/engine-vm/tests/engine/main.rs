//! The vm engine, tested as the agent uses it: the suite that every engine passes, then what
//! only guests can get wrong. Without the usual test harness: this binary is the shim too, and
//! must become one before any thread exists.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "this is its own test harness, and says how each test went"
)]

mod guests;

use gleaner_engine::Events;
use gleaner_engine::conformance::{BEAT, Bench, CASES};
use gleaner_engine_process::{ProcessConfig, is_shim_call, shim_main};
use gleaner_engine_vm::image::Image;
use gleaner_engine_vm::{VmConfig, VmEngine};
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

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

/// The parent of all groups of this test run.
pub(crate) fn group_parent() -> String {
    format!("gleaner-test-{}.slice", std::process::id())
}

/// Priority is tested where it is made. Here guests run like anything else, or a busy PC would
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
        let seconds = begun.elapsed().as_secs_f64();
        println!("test {name} ... {word} ({seconds:.2} s)");
    }
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
    let words = args
        .iter()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned());
    let mut report = Report {
        filter: words.filter(|word| !word.starts_with('-')).collect(),
        failed: 0,
    };
    // Where the suite does not run, neither the kernel nor the guest's program are at hand.
    let Some(image) = image() else {
        return ExitCode::SUCCESS;
    };
    run_like_others();
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("blobs");
    std::fs::create_dir(&blobs).unwrap();
    let make = |events: Events| engine(&image, &dir.path().join("engine"), &group_parent(), events);
    let bench = Bench::new(blobs, make);
    for (name, case) in CASES {
        match NOT_HERE.iter().find(|(left_out, _)| left_out == name) {
            Some((_, why)) => println!("{name} does not apply: {why}"),
            None => report.try_one(name, || case(&bench)),
        }
    }
    for (name, test) in guests::TESTS {
        report.try_one(name, || test(&bench, &image));
    }
    if report.failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
