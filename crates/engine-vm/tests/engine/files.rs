//! The host's files under a guest: a disk that fills up while the guest's own lies on it, and an
//! image that somebody changes.

use crate::guests::{kernels, until, with};
use crate::qemu::said;
use gleaner_engine::conformance::Bench;
use gleaner_engine::{AfterSave, AttemptSpec};
use gleaner_engine_vm::image::{Image, Program};
use gleaner_engine_vm::{Accelerator, VmConfig, VmEngine};
use gleaner_model::{Bytes, Reason, Span};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

type Test = fn(&Image, Accelerator);

const FULL: (&str, Test) = ("a full disk of the PC ends a guest with the reason", full);

pub(crate) const TESTS: &[(&str, Test)] = &[
    FULL,
    (
        "an image that is changed is run no more, and one that can be is built anew",
        |image, _| changed(image),
    ),
];

pub(crate) const UNDER_QEMU_TOO: &[(&str, Test)] = &[
    FULL,
    (
        "a save that the PC has no room for is refused, and the guest goes on",
        no_room_to_save,
    ),
];

/// A disk of the PC of a few megabytes, which nobody else sees.
struct Small(TempDir);

impl Small {
    /// None where nobody lets us mount one.
    fn new(mib: u32) -> Option<Self> {
        std::env::var_os(crate::APART)?;
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("mode=755,size={mib}m"),
                "none",
            ])
            .arg(dir.path())
            .status();
        assert!(mounted.unwrap().success());
        Some(Self(dir))
    }

    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.0.path()).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Leaves so many bytes of it.
    fn fill(&self, leave: u64) {
        let free = self.free();
        let mut zeros = io::Read::take(io::repeat(0), free.saturating_sub(leave));
        io::copy(
            &mut zeros,
            &mut File::create(self.0.path().join("full")).unwrap(),
        )
        .unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.0.path().join("full")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.unwrap().success());
    }
}

/// A bench whose guests' disks lie there.
fn bench(image: &Image, disk: &Path, accelerator: Accelerator) -> Bench {
    let blobs = disk.join("blobs");
    fs::create_dir(&blobs).unwrap();
    Bench::new(blobs, |events| {
        crate::engine(image, &disk.join("engine"), accelerator, events)
    })
}

fn task(bench: &Bench, script: &str) -> AttemptSpec {
    let mut spec = bench.script(script);
    spec.limits.memory = Bytes(48 << 20);
    spec.limits.disk = Bytes(1 << 30);
    spec
}

fn full(image: &Image, accelerator: Accelerator) {
    let Some(small) = Small::new(64) else {
        println!("nobody lets us mount a small disk");
        return;
    };
    let bench = bench(image, small.0.path(), accelerator);
    for script in [
        // It hears of nothing: what it wrote is in its memory.
        "head -c 200m /dev/zero > f; sync; cat f | wc -c",
        "head -c 200m /dev/zero",
    ] {
        let (ending, _) = bench.run(&task(&bench, script));
        let Reason::Engine { detail } = &ending.reason else {
            panic!("{script}: {:?}", ending.reason)
        };
        assert!(detail.contains("disk of this PC is full"), "{detail}");
        until("no guest", || kernels().is_empty());
    }
    // Full before it begins, and what was there has gone.
    until("there is room", || small.free() > 60 << 20);
    for leave in [64 << 10, 0] {
        small.fill(leave);
        let spec = task(&bench, "head -c 9m /dev/zero > f; sync; true");
        let why = why(&bench, &spec);
        println!("{leave} bytes left: {why}");
        let says = ["disk of this PC is full", "No space left"];
        assert!(says.iter().any(|words| why.contains(words)), "{why}");
        bench.engine().discard(spec.attempt);
        small.empty();
    }
    let script = "head -c 1m /dev/zero > f; wc -c < f";
    assert_eq!(bench.stdout_of(&task(&bench, script)), "1048576\n");
}

fn no_room_to_save(image: &Image, accelerator: Accelerator) {
    let Some(small) = Small::new(64) else {
        return;
    };
    let bench = bench(image, small.0.path(), accelerator);
    let mut spec = task(
        &bench,
        "echo a; until read x < go; do sleep 0.1; done; exit 7",
    );
    spec.command[2] = "echo a; sleep 6; exit 7".to_owned();
    spec.saving.every = Some(Span::seconds(600));
    bench.start(&spec);
    said(&bench, &spec, 2);
    small.fill(2 << 20);
    bench.engine().save(spec.attempt, AfterSave::End).unwrap();
    let refused = bench.saved(spec.attempt, 0).unwrap_err();
    assert!(refused.contains("No space left"), "{refused}");
    small.empty();
    assert_eq!(bench.ending(spec.attempt).reason, Reason::Exit { code: 7 });
    bench.engine().discard(spec.attempt);
}

/// Why an attempt ended, or was not even begun.
fn why(bench: &Bench, spec: &AttemptSpec) -> String {
    match bench.engine().start(spec.clone()) {
        Ok(()) => bench.ending(spec.attempt).reason.to_string(),
        Err(error) => error.to_string(),
    }
}

fn changed(image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let copy = with(image, dir.path(), "other", b"");
    let make = |name: &str, program: Option<Program>| {
        let place = dir.path().join(name);
        fs::create_dir_all(place.join("blobs")).unwrap();
        Bench::new(place.join("blobs"), |events| {
            let usual = crate::config(&copy, &place.join("engine"), Accelerator::Uml);
            VmEngine::new(VmConfig { program, ..usual }, events).unwrap()
        })
    };
    let bench = make("one", None);
    let spec = bench.script("echo a; sleep 2; echo b");
    bench.start(&spec);
    said(&bench, &spec, 2);
    // Under it, where nobody reads it: of its last page.
    let base = File::options()
        .write(true)
        .open(copy.dir.join("base.img"))
        .unwrap();
    let length = base.metadata().unwrap().len();
    base.write_all_at(b"!", length - 1).unwrap();
    let reason = bench.ending(spec.attempt).reason;
    assert!(matches!(reason, Reason::Engine { .. }), "{reason:?}");
    assert!(
        reason.to_string().contains("was changed while it ran"),
        "{reason}"
    );
    bench.engine().discard(spec.attempt);
    let refused = why(&bench, &bench.script("true"));
    assert!(refused.contains("is not what was built"), "{refused}");
    base.set_len(length / 2).unwrap();
    let refused = why(&bench, &bench.script("true"));
    assert!(refused.contains("is not what was built"), "{refused}");
    // The same packages give the same image.
    let program = Program::File(image.dir.join("gleaner-guest"));
    let bench = make("other", Some(program));
    let first = bench.script("echo again");
    for index in 0..2 {
        // Of one bundle, whose first cages show the directory that is gone the second time.
        let mut spec = first.clone();
        spec.attempt.task.index = index;
        assert_eq!(bench.stdout_of(&spec), "again\n");
        assert_eq!(Image::open(&copy.dir).unwrap().manifest, image.manifest);
        let base = File::options().write(true).open(copy.dir.join("base.img"));
        base.unwrap().write_all_at(b"!", length - 1).unwrap();
    }
}
