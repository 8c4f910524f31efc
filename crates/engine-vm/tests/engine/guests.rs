//! What only guests can get wrong, and what must become of it.

use gleaner_engine::conformance::harness::group_parent;
use gleaner_engine::conformance::{BEAT, Bench, DEADLINE, record};
use gleaner_engine::{AfterSave, AttemptSpec, Control, Engine as _, EngineEvent, Events, Saves};
use gleaner_engine_process::ProcessConfig;
use gleaner_engine_vm::image::{Image, Program};
use gleaner_engine_vm::probe::{Outcome, Remembered, chosen, trials};
use gleaner_engine_vm::{Accelerator, VmConfig, VmEngine};
use gleaner_model::{Bytes, LimitKind, Reason, Span};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

type Test = fn(&Bench, &Image);

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("the program runs on another kernel", another_kernel),
    ("a full disk is an error of the program", full_disk),
    ("two streams that flood are both whole", two_floods),
    (
        "a kernel that is killed ends its task with the reason",
        killed,
    ),
    (
        "a guest may be quiet, and is ended when it answers no more",
        lost,
    ),
    ("a guest that panics says so", panics),
    ("guests that lie, flood or say nothing are ended", fakes),
    ("a new agent takes a running guest over", taken_over),
    ("what a task used is known whoever ends it", used),
    ("the trial boots a guest and is remembered", trial),
    ("the same packages give the same image", same_image),
    ("user-mode Linux says that it cannot save", unsavable),
];

fn another_kernel(bench: &Bench, image: &Image) {
    let release = bench.stdout_of(&bench.script("uname -r"));
    assert_eq!(
        Some(release.trim()),
        image.manifest.kernel(Accelerator::Uml)
    );
    // No device leads out of it.
    let devices = bench.stdout_of(&bench.script("ls /sys/class/net; nproc"));
    assert_eq!(devices, "lo\n1\n");
}

fn full_disk(bench: &Bench, _: &Image) {
    let mut spec = bench.script(
        "head -c 20m /dev/zero > a && echo fits; head -c 40m /dev/zero > b || echo full; exit 0",
    );
    spec.limits.disk = Bytes(32 << 20);
    bench.start(&spec);
    let ending = bench.ending(spec.attempt);
    assert_eq!(ending.reason, Reason::Exit { code: 0 });
    let held = record(&ending, LimitKind::Disk);
    assert_eq!((held.action.as_str(), held.at.is_some()), ("enospc", true));
    let mut text = String::new();
    let [mut stdout, _] = bench.engine().streams(spec.attempt).unwrap();
    std::io::Read::read_to_string(&mut stdout, &mut text).unwrap();
    assert_eq!(text, "fits\nfull\n");
    bench.engine().discard(spec.attempt);
}

/// The host takes nothing for a while, as where its disk is slow: one stream finds no room, since
/// the other has just had the last of it, and is not at its end for that.
pub(crate) fn two_floods(bench: &Bench, _: &Image) {
    let mut spec = bench.script(
        "head -c 24m /dev/zero & head -c 24m /dev/zero >&2; code=$?; wait $!; exit $(($? + code))",
    );
    spec.limits.output = Bytes(64 << 20);
    bench.start(&spec);
    bench.started(spec.attempt);
    let sizes = || {
        let streams = bench.engine().streams(spec.attempt).unwrap();
        streams.map(|stream| stream.metadata().unwrap().len())
    };
    until("both write", || sizes().iter().all(|size| *size > 0));
    let [host_end] = called("/run/guest/gleaner-guest\0run")[..] else {
        panic!("not one guest");
    };
    let host_end = rustix::process::Pid::from_raw(host_end.try_into().unwrap()).unwrap();
    let tell = |signal| rustix::process::kill_process(host_end, signal).unwrap();
    tell(rustix::process::Signal::STOP);
    // On purpose: whoever writes has to fill what room there is.
    std::thread::sleep(Duration::from_secs(2));
    tell(rustix::process::Signal::CONT);
    let ending = bench.ending(spec.attempt);
    assert_eq!(ending.reason, Reason::Exit { code: 0 });
    assert_eq!(sizes(), [24 << 20; 2]);
    bench.engine().discard(spec.attempt);
}

/// Waits until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The parent of a process; 0 where there is none.
pub(crate) fn parent(pid: u32) -> u32 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.and_then(|line| line.trim().parse().ok()).unwrap_or(0)
}

/// The kernel of the one guest that this process began; what is left of others goes first. The
/// processes that serve it have its name too, and numbers tell nothing: they begin anew after the
/// largest.
pub(crate) fn kernel() -> u32 {
    let mut first = Vec::new();
    until("one guest", || {
        let all = kernels();
        first = all.clone();
        first.retain(|pid| !all.contains(&parent(*pid)));
        first.len() == 1
    });
    first[0]
}

pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Kernels of guests that this process began.
pub(crate) fn kernels() -> Vec<u32> {
    called("/run/guest/kernel")
}

/// Processes of such a command that this process began, by the chain of parents.
pub(crate) fn called(command: &str) -> Vec<u32> {
    let ours = |pid: u32| {
        let mut at = pid;
        while at > 1 && at != std::process::id() {
            at = parent(at);
        }
        at == std::process::id()
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let called = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        called.starts_with(command) && ours(*pid)
    })
    .collect()
}

fn killed(bench: &Bench, _: &Image) {
    let spec = bench.script("echo ready; sleep 1000");
    bench.start(&spec);
    bench.started(spec.attempt);
    let end = Instant::now() + DEADLINE;
    let said = || {
        let [stdout, _] = bench.engine().streams(spec.attempt).unwrap();
        stdout.metadata().unwrap().len()
    };
    while said() == 0 {
        assert!(Instant::now() < end, "the guest never got ready");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(kernel());
    let ending = bench.ending(spec.attempt);
    assert!(
        matches!(ending.reason, Reason::Engine { .. }),
        "{:?}",
        ending.reason
    );
    assert!(
        ending.reason.to_string().contains("ended by itself"),
        "{}",
        ending.reason
    );
    bench.engine().discard(spec.attempt);
}

/// A copy of the image with one file replaced, and a manifest that says so: the engine takes no
/// other.
pub(crate) fn with(image: &Image, dir: &Path, name: &str, content: &[u8]) -> Image {
    let dir = dir.join(format!("image-{name}"));
    fs::create_dir_all(&dir).unwrap();
    for file in fs::read_dir(&image.dir).unwrap().flatten() {
        let copy = dir.join(file.file_name());
        let _replaced = fs::remove_file(&copy);
        fs::copy(file.path(), copy).unwrap();
    }
    fs::write(dir.join(name), content).unwrap();
    let said = dir.join("guest.json");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(&said).unwrap()).unwrap();
    manifest["files"][name] = blake3::hash(content).to_hex().as_str().into();
    fs::write(&said, manifest.to_string()).unwrap();
    Image::open(&dir).unwrap()
}

/// A bench whose guests may be silent for so long.
fn silent_for(image: &Image, dir: &Path, silence: Duration) -> Bench {
    let blobs = dir.join("blobs");
    fs::create_dir(&blobs).unwrap();
    Bench::new(blobs, |events: Events| {
        let process = ProcessConfig {
            beat: BEAT,
            group_parent: group_parent(),
            ..ProcessConfig::new(dir.join("engine"))
        };
        let config = VmConfig {
            silence,
            accelerator: Some(Accelerator::Uml),
            ..VmConfig::new(process, image.dir.clone())
        };
        VmEngine::new(config, events).unwrap()
    })
}

/// Runs `true` on an image with this bound of silence; why it ended.
pub(crate) fn reason_on(image: &Image, silence: Duration) -> Reason {
    let dir = tempfile::tempdir().unwrap();
    let bench = silent_for(image, dir.path(), silence);
    let (ending, _) = bench.run(&bench.spec(&["true"]));
    ending.reason
}

/// The kernel lives on without the processes that carry its input and output.
fn lost(_: &Bench, image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let bench = silent_for(image, dir.path(), Duration::from_secs(6));
    let spec = bench.script("echo a; sleep 8; echo b; sleep 1000");
    bench.start(&spec);
    crate::qemu::said(&bench, &spec, 4);
    let first = kernel();
    let serves = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        *pid != first && status.contains("TracerPid:\t0\n")
    };
    let serving: Vec<u32> = kernels().into_iter().filter(serves).collect();
    assert!(!serving.is_empty());
    serving.into_iter().for_each(kill);
    let reason = bench.ending(spec.attempt).reason;
    assert!(
        reason.to_string().contains("was silent for 6 s"),
        "{reason:?}"
    );
    bench.engine().discard(spec.attempt);
}

fn panics(_: &Bench, image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let broken = with(image, dir.path(), "initramfs", &[0; 4096]);
    let reason = reason_on(&broken, DEADLINE).to_string();
    assert!(reason.contains("Kernel panic"), "{reason}");
    // One whose root is no file system comes as far as our own process 1.
    let rootless = with(image, dir.path(), "base.img", &[0; 1 << 20]);
    let reason = reason_on(&rootless, DEADLINE).to_string();
    assert!(reason.contains("mount the image"), "{reason}");
}

/// Programs that stand in for a kernel whose guest has been taken over.
fn fakes(_: &Bench, image: &Image) {
    let channel =
        "for word in \"$@\"; do case $word in ssl0=fd:*) fd=${word#ssl0=fd:};; esac; done";
    let cases = [
        ("sleep 1000", "was silent for 2 s"),
        ("yes a long line on the console", "was silent for 2 s"),
        (
            "head -c 1000000 /dev/urandom >&$fd; sleep 1000",
            "make no sense",
        ),
        ("yes >&$fd", "make no sense"),
        ("exit 0", "ended by itself"),
        ("kill -SEGV $$", "ended by itself"),
        // A frame as large as four bytes can say, and never sent.
        (
            "printf '\\377\\377\\377\\377aaaaa' >&$fd; sleep 1000",
            "make no sense",
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (script, says) in cases {
        let text = format!("#!/bin/bash\n{channel}\n{script}\n");
        let fake = with(image, dir.path(), "kernel", text.as_bytes());
        fs::set_permissions(fake.dir.join("kernel"), fs::Permissions::from_mode(0o755)).unwrap();
        let reason = reason_on(&fake, Duration::from_secs(2));
        assert!(
            matches!(reason, Reason::Engine { .. }),
            "{script}: {reason:?}"
        );
        assert!(reason.to_string().contains(says), "{script}: {reason}");
    }
}

fn taken_over(bench: &Bench, image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let make = |events: Events| {
        let dir = dir.path().join("engine");
        crate::engine(image, &dir, Accelerator::Uml, events)
    };
    let listen = || -> (Events, mpsc::Receiver<EngineEvent>) {
        let (told, heard) = mpsc::channel();
        let told = Mutex::new(told);
        let events = Arc::new(move |event| {
            let _nobody_listens = told.lock().unwrap().send(event);
        });
        (events, heard)
    };
    let (events, heard_first) = listen();
    let first = make(events);
    let mut spec =
        bench.script("until [ -e stop ]; do sleep 0.05; done & sleep 3; touch stop; wait; exit 9");
    spec.outputs = vec!["stop".to_owned()];
    first.start(spec.clone()).unwrap();
    let started = heard_first.recv_timeout(DEADLINE).unwrap();
    assert!(
        matches!(started, EngineEvent::Started { .. }),
        "{started:?}"
    );
    let (events, heard) = listen();
    let second = make(events);
    let end = Instant::now() + DEADLINE;
    let adopted = second.adopt().unwrap().pop().unwrap();
    assert_eq!(
        adopted.spec, spec,
        "as it was asked for, not as its cage was"
    );
    let reason = loop {
        second.beat(30_000);
        assert!(Instant::now() < end, "it never ended");
        if let Ok(EngineEvent::Ended { ending, .. }) = heard.recv_timeout(BEAT) {
            break ending.reason;
        }
    };
    assert_eq!(reason, Reason::Exit { code: 9 });
    let names: Vec<String> = second
        .collect(spec.attempt)
        .unwrap()
        .into_iter()
        .map(|file| file.name)
        .collect();
    assert_eq!(names, ["stdout", "stderr", "stop"]);
    second.discard(spec.attempt);
}

/// Ended by its engine, and by a kernel that goes away under it.
fn used(bench: &Bench, _: &Image) {
    // What it used is told at the second word at the latest, since what was told before is older than a
    // second then; what it says is told in order.
    let script = "head -c 9m /dev/zero | tail -c 8m > f; sleep 1000 & sleep 1000 & \
                  for word in a b c; do echo $word; sleep 1.1; done; wait";
    let stop = |spec: &AttemptSpec| {
        let stop = Control::Stop { grace_ms: 0 };
        bench.engine().control(spec.attempt, stop).unwrap();
    };
    let lose = |_: &AttemptSpec| {
        kill(kernel());
    };
    let ends: [&dyn Fn(&AttemptSpec); 2] = [&stop, &lose];
    for end in ends {
        let spec = bench.script(script);
        bench.start(&spec);
        crate::qemu::said(bench, &spec, 6);
        end(&spec);
        let ending = bench.ending(spec.attempt);
        let used = ending.usage;
        assert!(used.memory_peak > 6 << 20, "{ending:?}");
        assert!(used.processes_peak >= 3, "{ending:?}");
        assert!(used.written_bytes > 6 << 20, "{ending:?}");
        assert!(record(&ending, LimitKind::Disk).peak > 6e6, "{ending:?}");
        bench.engine().discard(spec.attempt);
        // The next one to be killed must not be what is left of this one.
        until("no guest", || kernels().is_empty());
    }
}

fn trial(_: &Bench, image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let process = ProcessConfig {
        group_parent: group_parent(),
        ..ProcessConfig::new(dir.path().join("engine"))
    };
    // Beside the image lies what was found.
    let copy = with(image, dir.path(), "other", b"");
    let config = VmConfig {
        accelerator: Some(Accelerator::Uml),
        ..VmConfig::new(process, copy.dir.clone())
    };
    let first = trials(&config, &copy, Remembered::Believed);
    assert_eq!(chosen(&first), Some(Accelerator::Uml), "{first:?}");
    assert_eq!(
        trials(&config, &copy, Remembered::Believed),
        first,
        "the second is remembered"
    );
    assert!(!dir.path().join("engine.trial").exists());
    let broken = with(&copy, dir.path(), "initramfs", &[0; 4096]);
    let config = VmConfig {
        image: broken.dir.clone(),
        ..config
    };
    let failed = trials(&config, &broken, Remembered::Believed);
    assert!(
        matches!(failed[..], [ref one] if matches!(one.outcome, Outcome::Fails { .. })),
        "{failed:?}"
    );
}

/// Also for who lets nobody else read what they make.
fn same_image(_: &Bench, image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::File(image.dir.join("gleaner-guest"));
    let strict = rustix::fs::Mode::from_raw_mode(0o077);
    for mask in [None, Some(strict)] {
        let before = mask.map(rustix::process::umask);
        let again = Image::open_or_build(&dir.path().join(format!("{mask:?}")), &program);
        before.map(rustix::process::umask);
        assert_eq!(again.unwrap().manifest, image.manifest, "{mask:?}");
    }
}

fn unsavable(bench: &Bench, _: &Image) {
    assert_eq!(bench.engine().saves(), Saves::Nothing);
    let mut spec = bench.script("sleep 1000");
    spec.saving.every = Some(Span::seconds(60));
    bench.start(&spec);
    let refused = bench.engine().save(spec.attempt, AfterSave::GoOn);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("user-mode Linux"), "{refused}");
    let stop = Control::Stop { grace_ms: 0 };
    bench.engine().control(spec.attempt, stop).unwrap();
    bench.ending(spec.attempt);
    bench.engine().discard(spec.attempt);
}
