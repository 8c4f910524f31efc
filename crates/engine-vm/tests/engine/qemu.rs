//! What is different under QEMU, here where it translates each instruction: that runs anywhere.

use crate::{guests, images};
use gleaner_engine::conformance::harness::group_parent;
use gleaner_engine::conformance::{Bench, DEADLINE};
use gleaner_engine::{
    AfterSave, AttemptSpec, Control, Ending, EngineEvent, InputFile, Restore, Saves,
};
use gleaner_engine_process::ProcessConfig;
use gleaner_engine_vm::image::Image;
use gleaner_engine_vm::probe::{Outcome, Remembered, chosen, trials};
use gleaner_engine_vm::{Accelerator, VmConfig};
use gleaner_model::{Bytes, CheckpointKind, Digest, Reason, Span};
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

type Test = fn(&Bench, &Image);

pub(crate) const TESTS: &[(&str, Test)] = &[
    (
        "a distribution's kernel, and no device leads out",
        own_kernel,
    ),
    ("nothing is refused in an ordinary run", nothing_refused),
    ("two streams that flood are both whole", guests::two_floods),
    (
        "what the trial of the device says is bounded and remembered",
        device,
    ),
    (
        "a guest that was saved goes on on another node with the same result",
        moved,
    ),
    (
        "a guest with a root of its own is saved, goes on, and on no other root",
        images::moved_with_its_root,
    ),
];

fn own_kernel(bench: &Bench, image: &Image) {
    let said = bench.stdout_of(
        &bench.script("uname -r; ls /sys/class/net; nproc; ls /dev | tr '\\n' ' '; id -u | wc -c"),
    );
    let release = image.manifest.kernel(Accelerator::Tcg).unwrap();
    let devices = "fd full null random shm stderr stdin stdout urandom zero ";
    // A user without rights: its number has more digits than that of root.
    let expected = format!("{release}\nlo\n1\n{devices}");
    let rest = said
        .strip_prefix(&expected)
        .unwrap_or_else(|| panic!("{said}"));
    assert_ne!(rest.trim(), "2", "not root");
}

fn nothing_refused(bench: &Bench, _: &Image) {
    let (ending, _) = bench.run(&bench.script("head -c 5m /dev/zero > f; sync f; true"));
    assert!(ending.refused_calls.is_empty(), "{ending:?}");
    assert!(ending.degraded.is_empty(), "{ending:?}");
}

/// On a PC whose virtualisation works this is quick; on one where the device opens and hangs it
/// must not take long either. A busy PC is asked again, so nothing is remembered then.
fn device(_: &Bench, image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let process = ProcessConfig {
        group_parent: group_parent(),
        ..ProcessConfig::new(dir.path().join("engine"))
    };
    let copy = dir.path().join("image");
    std::os::unix::fs::symlink(&image.dir, &copy).unwrap();
    let config = VmConfig {
        accelerator: Some(Accelerator::Kvm),
        ..VmConfig::new(process, copy)
    };
    let begun = Instant::now();
    let first = trials(&config, image, Remembered::Believed);
    let took = begun.elapsed();
    assert_eq!(first.len(), 1, "{first:?}");
    match &first[0].outcome {
        Outcome::Works { .. } => assert_eq!(chosen(&first), Some(Accelerator::Kvm)),
        Outcome::Absent { why } => {
            assert!(
                !Path::new("/dev/kvm").exists() || why.contains("group"),
                "{why}"
            );
        }
        Outcome::Fails { why } => {
            assert_eq!(chosen(&first), None);
            // Generous: the bound holds on a busy PC.
            assert!(took < Duration::from_secs(90), "{took:?}");
            if !why.contains("busy") {
                let again = Instant::now();
                assert_eq!(trials(&config, image, Remembered::Believed), first);
                assert!(again.elapsed() < Duration::from_secs(5), "it is remembered");
            }
        }
    }
}

/// A chain of hashes, which says now and then how far it is.
const CHAIN: &str = "$|=1; $x='seed'; for (1..$ENV{STEPS}) { $x=sha256_hex($x); \
                     print \"step $_\\n\" if $_ % ($ENV{STEPS}/20) == 0 } \
                     open F, '>chain'; print F $x; warn \"done\\n\"";

/// Long enough under translation that it is saved before its end, whatever else the PC does.
const STEPS: &str = "140000";

fn chain(bench: &Bench) -> AttemptSpec {
    let mut spec = bench.spec(&["perl", "-MDigest::SHA=sha256_hex", "-e", CHAIN]);
    spec.env.insert("STEPS".to_owned(), STEPS.to_owned());
    spec.outputs = vec!["chain".to_owned()];
    spec.limits.memory = Bytes(64 << 20);
    spec.limits.disk = Bytes(64 << 20);
    spec.saving.every = Some(Span::seconds(600));
    spec
}

/// Waits until the program has said so many bytes.
pub(crate) fn said(bench: &Bench, spec: &AttemptSpec, bytes: u64) {
    let end = Instant::now() + DEADLINE;
    let length = || {
        let streams = bench.engine().streams(spec.attempt);
        streams.map_or(0, |[stdout, _]| stdout.metadata().unwrap().len())
    };
    while length() < bytes {
        assert!(Instant::now() < end, "it said {} bytes", length());
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn save(bench: &Bench, spec: &AttemptSpec, then: AfterSave) {
    bench.engine().save(spec.attempt, then).unwrap();
    let again = bench.engine().save(spec.attempt, then);
    assert!(again.is_err(), "one at a time");
}

/// The saved guest as a blob, like one that came from a server.
pub(crate) fn blob(dir: &Path, name: &str, content: &[u8]) -> InputFile {
    let source = dir.join(name);
    fs::write(&source, content).unwrap();
    InputFile {
        name: "guest".to_owned(),
        source,
        digest: Digest(*blake3::hash(content).as_bytes()),
        mode: 0o600,
    }
}

/// Saves one for the last time; what was saved.
pub(crate) fn saved_and_gone(bench: &Bench, spec: &AttemptSpec) -> (Ending, Vec<u8>) {
    save(bench, spec, AfterSave::End);
    let ended = bench.ending(spec.attempt);
    assert_eq!(ended.reason, Reason::Cancelled);
    let mut saved = Vec::new();
    let [file] = <[_; 1]>::try_from(bench.engine().saved(spec.attempt).unwrap()).unwrap();
    { &file.file }.read_to_end(&mut saved).unwrap();
    bench.engine().discard(spec.attempt);
    (ended, saved)
}

/// Saves one that goes on after a first save, and is gone after the next, for which it is woken.
fn saved(bench: &Bench, machine: &str) -> Vec<u8> {
    let spec = chain(bench);
    bench.start(&spec);
    said(bench, &spec, 20);
    let kind = CheckpointKind::Guest {
        machine: machine.to_owned(),
    };
    save(bench, &spec, AfterSave::GoOn);
    let outcome = bench.wait(spec.attempt, |event| match event {
        EngineEvent::Saved { outcome, .. } => Some(outcome.clone()),
        EngineEvent::Started { .. }
        | EngineEvent::Paused { .. }
        | EngineEvent::Resumed { .. }
        | EngineEvent::Ended { .. } => None,
    });
    assert_eq!(outcome, Ok(kind));
    said(bench, &spec, 60);
    bench
        .engine()
        .control(spec.attempt, Control::Pause)
        .unwrap();
    saved_and_gone(bench, &spec).1
}

fn moved(bench: &Bench, image: &Image) {
    let whole = chain(bench);
    let (from_scratch, files) = bench.run(&whole);
    let files = files.unwrap();
    assert_eq!(from_scratch.reason, Reason::Exit { code: 0 });
    let Saves::Guest { machine } = bench.engine().saves() else {
        panic!("{:?}", bench.engine().saves())
    };

    let saved = saved(bench, &machine);
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    let place = dir.path().join("engine");
    let other = Bench::new(blobs.clone(), |events| {
        crate::engine(image, &place, Accelerator::Tcg, events)
    });
    let restore = |file: InputFile| {
        let mut spec = chain(&other);
        spec.saving.restore = Some(Restore {
            machine: machine.clone(),
            files: vec![file],
        });
        spec
    };
    let (ending, again) = other.run(&restore(blob(&blobs, "saved", &saved)));
    assert_eq!(ending.reason, Reason::Exit { code: 0 }, "{ending:?}");
    assert_eq!(again.unwrap(), files, "the same output and the same words");
    let (rest, all) = (ending.usage.cpu_seconds, from_scratch.usage.cpu_seconds);
    assert!(
        rest < all,
        "it went on in the middle: {rest} of {all} CPU seconds"
    );

    // Another processor, and a file that was cut.
    let at = saved
        .windows(7)
        .position(|part| part == b"Nehalem")
        .unwrap();
    let mut foreign = saved.clone();
    foreign[at..at + 7].copy_from_slice(b"Haswell");
    for (content, says) in [
        (&foreign[..], "the machine differs"),
        (&saved[..saved.len() / 2], ""),
        (&b"nothing of ours, but long enough"[..], "is no guest"),
    ] {
        let (ending, _) = other.run(&restore(blob(&blobs, "bad", content)));
        let Reason::Unrestored { detail } = &ending.reason else {
            panic!("{says}: {:?}", ending.reason)
        };
        assert!(detail.contains(says), "{detail}");
    }
}
