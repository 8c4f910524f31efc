//! Guests that are booted ahead of their tasks: that the next start is quick, that nothing of
//! the task before is in them, and that nothing that becomes of them costs more than time.

use crate::guests::{kernel, kernels, kill, parent, until};
use gleaner_engine::conformance::{BEAT, Bench, record};
use gleaner_engine::{AttemptSpec, Control, Engine as _, EngineEvent, Events};
use gleaner_engine_vm::Accelerator;
use gleaner_engine_vm::image::Image;
use gleaner_model::{Bytes, JobId, LeaseId, LimitKind, Reason, Span, TaskId};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

type Test = fn(&Image);

pub(crate) const TESTS: &[(&str, Test)] = &[
    (
        "the next task of a job starts at once, in a guest that nobody used before",
        |image| next_start(image, Accelerator::Uml),
    ),
    (
        "limits hold in a guest that was booted ahead, and its wait is not the task's",
        limits,
    ),
    (
        "a guest that is killed while it waits costs its task a boot",
        killed,
    ),
    (
        "memory that is wanted ends a guest that waits, and its task begins all the same",
        given_up,
    ),
    (
        "a guest that waits is nobody's once its agent is gone",
        left_behind,
    ),
    (
        "a guest that waits ends with the lease of an agent that says nothing",
        unwatched,
    ),
];

/// Starts that are measured; one where every instruction is translated.
const ROUNDS: u32 = 3;
const ROUNDS_LONG: u32 = 25;

/// Puts its mark wherever a program can, after a look at what was there before it came.
const PROGRAM: &str = "echo begun; echo boot $(cat /proc/sys/kernel/random/boot_id); \
    found=$(find /scratch /tmp /dev/shm -type f; \
            for p in /proc/[0-9]*; do read name < $p/comm; \
              [ $name = tail ] && echo $p; done); \
    echo \"found:$found.\"; \
    for place in . /tmp /dev/shm; do echo $MARK > $place/left; done; \
    all=; i=0; while [ $i -lt 500 ]; do all=$all$MARK; i=$((i+1)); done; \
    echo $all > many; tail -f /dev/null & echo ready; wait";

/// A bench around an engine of its own.
fn bench(image: &Image, dir: &Path, accelerator: Accelerator) -> Bench {
    let blobs = dir.join("blobs");
    fs::create_dir(&blobs).unwrap();
    let place = dir.join("engine");
    Bench::new(blobs, |events| {
        crate::engine(image, &place, accelerator, events)
    })
}

/// A task of one job, and the mark that it makes.
fn task(bench: &Bench, index: u32, script: &str) -> (AttemptSpec, String) {
    let mut spec = bench.script(script);
    spec.attempt = TaskId::new(JobId(9000), index).attempt(1);
    spec.bundle = LeaseId(9000);
    spec.limits.memory = Bytes(48 << 20);
    spec.limits.disk = Bytes(16 << 20);
    let seed = format!("{index} {:?} {}", Instant::now(), std::process::id());
    let mark = blake3::hash(seed.as_bytes()).to_hex().to_string();
    spec.env.insert("MARK".to_owned(), mark.clone());
    (spec, mark)
}

/// What it has said, once that holds these words.
fn said(bench: &Bench, spec: &AttemptSpec, words: &str) -> String {
    let mut text = String::new();
    until(words, || {
        text.clear();
        let streams = bench.engine().streams(spec.attempt);
        let length = streams.map(|[mut stdout, _]| stdout.read_to_string(&mut text));
        length.is_ok() && text.contains(words)
    });
    text
}

/// Boots a guest for it, and waits until that waits.
fn prepare(bench: &Bench, spec: &AttemptSpec) {
    assert!(bench.engine().prepares());
    bench.engine().prepare(spec.clone()).unwrap();
    until("a guest waits", || bench.engine().is_prepared(spec.attempt));
}

fn end(bench: &Bench, spec: &AttemptSpec) {
    let stop = Control::Stop { grace_ms: 0 };
    bench.engine().control(spec.attempt, stop).unwrap();
    bench.ending(spec.attempt);
    bench.engine().discard(spec.attempt);
}

pub(crate) fn next_start(image: &Image, accelerator: Accelerator) {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(image, dir.path(), accelerator);
    let long = std::env::var_os(crate::LONG).is_some();
    let looks = rustix::process::geteuid().is_root() && accelerator == Accelerator::Uml;
    let (mut running, mut mark) = task(&bench, 0, PROGRAM);
    bench.start(&running);
    let mut boots = vec![boot_id(&said(&bench, &running, "ready"))];
    let mut took = Vec::new();
    let rounds = match accelerator {
        _ if long => ROUNDS_LONG,
        Accelerator::Tcg => 1,
        Accelerator::Kvm | Accelerator::Uml => ROUNDS,
    };
    for index in 1..=rounds {
        let (next, its_mark) = task(&bench, index, PROGRAM);
        prepare(&bench, &next);
        end(&bench, &running);
        let begun = Instant::now();
        bench.start(&next);
        said(&bench, &next, "begun");
        took.push(begun.elapsed());
        let text = said(&bench, &next, "ready");
        assert!(text.contains("found:."), "{text}");
        boots.push(boot_id(&text));
        // Whose memory it is that we look at shows in its own mark.
        if looks {
            until("its own mark", || in_memory(&its_mark));
            assert!(!in_memory(&mark), "of the task before");
        }
        (running, mark) = (next, its_mark);
    }
    end(&bench, &running);
    boots.sort();
    boots.dedup();
    assert_eq!(boots.len(), took.len() + 1, "each has a guest of its own");
    took.sort();
    println!(
        "next start: {:?} in the middle of {took:?}",
        took[took.len() / 2]
    );
}

fn boot_id(said: &str) -> String {
    let id = said.lines().find_map(|line| line.strip_prefix("boot "));
    id.unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// Whether this is anywhere in the memory of our guest, as its kernel's first process has it.
fn in_memory(text: &str) -> bool {
    let pid = kernel();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let Ok(mut memory) = File::open(format!("/proc/{pid}/mem")) else {
        return false;
    };
    let bounds = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        rest.starts_with('r')
            .then_some((number(from)?, number(to)?))
    };
    let mut search = Command::new("grep")
        .args(["-aqF", text])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut searched = search.stdin.take().unwrap();
    for (from, to) in maps.lines().filter_map(bounds) {
        memory.seek(SeekFrom::Start(from)).unwrap();
        // It hangs up where it has found what it looks for; some ranges cannot be read.
        let _read = io::copy(&mut memory.by_ref().take(to - from), &mut searched);
    }
    drop(searched);
    search.wait().unwrap().success()
}

fn limits(image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(image, dir.path(), Accelerator::Uml);
    let (spec, _) = task(&bench, 0, "head -c 200m /dev/zero | tail -c 190m | wc -c");
    prepare(&bench, &spec);
    let waited = Instant::now();
    until("some time has passed", || waited.elapsed() > 3 * BEAT);
    let (ending, _) = bench.run(&spec);
    let memory = LimitKind::Memory;
    assert_eq!(ending.reason, Reason::Limit { limit: memory });
    assert_eq!(record(&ending, memory).action, "ended");
    let (mut spec, _) = task(&bench, 1, "sleep 1000");
    spec.limits.time = Span::seconds(1);
    prepare(&bench, &spec);
    let waited = Instant::now();
    until("some time has passed", || waited.elapsed() > 3 * BEAT);
    let (ending, _) = bench.run(&spec);
    let time = LimitKind::Time;
    assert_eq!(ending.reason, Reason::Limit { limit: time });
    assert!(ending.paused_seconds < waited.elapsed().as_secs_f64() / 2.0);
}

fn killed(image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(image, dir.path(), Accelerator::Uml);
    // The kernel, whose host end gets another one.
    let mut spec = task(&bench, 0, "cat in; exit 7").0;
    spec.inputs
        .push(bench.input("in", b"what it was given\n", 0o644));
    prepare(&bench, &spec);
    kill(kernel());
    let (ending, _) = bench.run(&spec);
    assert_eq!(ending.reason, Reason::Exit { code: 7 }, "{ending:?}");
    // The host end, and all with it: the engine makes another cage.
    let (spec, _) = task(&bench, 1, "exit 8");
    prepare(&bench, &spec);
    kill(parent(kernel()));
    let (ending, _) = bench.run(&spec);
    assert_eq!(ending.reason, Reason::Exit { code: 8 }, "{ending:?}");
    until("no guest", || kernels().is_empty());
}

fn given_up(image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(image, dir.path(), Accelerator::Uml);
    let engine = bench.engine();
    let (spec, _) = task(&bench, 0, "exit 7");
    prepare(&bench, &spec);
    engine.reclaim();
    assert!(!engine.is_prepared(spec.attempt));
    let (ending, _) = bench.run(&spec);
    assert_eq!(ending.reason, Reason::Exit { code: 7 });
    // One that is not even booted is begun as well, and one that nobody wants is gone.
    let (spec, _) = task(&bench, 1, "exit 8");
    engine.prepare(spec.clone()).unwrap();
    let (ending, _) = bench.run(&spec);
    assert_eq!(ending.reason, Reason::Exit { code: 8 });
    assert!(ending.paused_seconds <= ending.wall_seconds, "{ending:?}");
    let (spec, _) = task(&bench, 2, "exit 9");
    prepare(&bench, &spec);
    engine.discard(spec.attempt);
    // Its attempt may be wanted after all, at once.
    let (ending, _) = bench.run(&spec);
    assert_eq!(ending.reason, Reason::Exit { code: 9 });
    prepare(&bench, &task(&bench, 3, "exit 9").0);
    engine.discard(task(&bench, 3, "").0.attempt);
    until("no guest", || kernels().is_empty());
}

/// An engine that is not a bench's, and what is heard of it.
fn engine_of(
    image: &Image,
    dir: &Path,
) -> (
    impl Fn() -> gleaner_engine_vm::VmEngine,
    mpsc::Receiver<EngineEvent>,
) {
    let (told, heard) = mpsc::channel();
    let told = Mutex::new(told);
    let events: Events = Arc::new(move |event: EngineEvent| {
        let _nobody_listens = told.lock().unwrap().send(event);
    });
    let (image, dir) = (image.clone(), dir.join("other"));
    let make = move || crate::engine(&image, &dir, Accelerator::Uml, Arc::clone(&events));
    (make, heard)
}

fn left_behind(image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(image, dir.path(), Accelerator::Uml);
    let (make, heard) = engine_of(image, dir.path());
    let (spec, _) = task(&bench, 0, "exit 0");
    let first = make();
    first.prepare(spec.clone()).unwrap();
    until("a guest waits", || {
        first.beat(30_000);
        first.is_prepared(spec.attempt)
    });
    let second = make();
    assert_eq!(second.adopt().unwrap(), []);
    until("no guest", || {
        second.beat(30_000);
        kernels().is_empty()
    });
    let quiet = heard.recv_timeout(BEAT);
    assert!(quiet.is_err(), "nobody hears of it: {quiet:?}");
}

fn unwatched(image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(image, dir.path(), Accelerator::Uml);
    let (make, _heard) = engine_of(image, dir.path());
    let (spec, _) = task(&bench, 0, "exit 0");
    let engine = make();
    engine.prepare(spec.clone()).unwrap();
    until("a guest waits", || {
        engine.beat(30_000);
        engine.is_prepared(spec.attempt)
    });
    engine.beat(100);
    until("no guest", || {
        kernels().is_empty() && !engine.is_prepared(spec.attempt)
    });
}
