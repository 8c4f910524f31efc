//! What the suite cannot ask of programs that have no shell, and what only they can get wrong.

use crate::engine;
use crate::programs::{NAME, input};
use gleaner_engine::conformance::harness::group_parent;
use gleaner_engine::conformance::{BEAT, Bench, DEADLINE, Files, record};
use gleaner_engine::{
    AttemptSpec, Control, Ending, Engine as _, EngineError, EngineEvent, Events, Level,
};
use gleaner_engine_wasm::{Origin, Record, WasmEngine};
use gleaner_model::{Bytes, LimitKind, Reason, Span};
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Where the compiled programs lie.
pub(crate) struct Built<'b> {
    pub(crate) module: &'b Path,
    pub(crate) native: &'b Path,
}

type Test = fn(&Bench, &Built<'_>);

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("exit codes and traps are told", exits),
    ("arguments, environment, stdin and files", surroundings),
    (
        "the same bytes as the same program compiled for this PC",
        same_bytes,
    ),
    ("what is not scratch is out of reach", hostile),
    ("what comes home is a plain file of scratch", outputs),
    ("a program is stopped", stop),
    ("a program that closes everything confuses nobody", closes),
    ("what is no program is refused with what to do", no_module),
    (
        "a program asks the PC for nothing but time",
        not_the_runners_environment,
    ),
    ("where asked every run is the same", deterministic),
    ("a new agent takes a running program over", taken_over),
    ("the trial runs a program", trial),
    ("addresses may be bounded", few_addresses),
    (
        "code is compiled once, kept apart by settings, and not believed where it was altered",
        compiled_once,
    ),
];

fn spec(bench: &Bench, built: &Built<'_>, arguments: &[&str]) -> AttemptSpec {
    let words: Vec<&str> = [NAME].iter().chain(arguments).copied().collect();
    let mut spec = bench.spec(&words);
    spec.inputs = vec![input(built.module)];
    spec
}

fn run(bench: &Bench, spec: &AttemptSpec) -> (Ending, Files) {
    let (ending, files) = bench.run(spec);
    (ending, files.unwrap_or_default())
}

fn text(files: &Files, name: &str) -> String {
    String::from_utf8_lossy(files.get(name).map(Vec::as_slice).unwrap_or_default()).into_owned()
}

fn exits(bench: &Bench, built: &Built<'_>) {
    for (arguments, reason) in [
        (["exit", "0"], Reason::Exit { code: 0 }),
        (["exit", "7"], Reason::Exit { code: 7 }),
        (["exit", "200"], Reason::Exit { code: 200 }),
        (["abort", ""], Reason::Signal { signal: 6 }),
        (["wild", ""], Reason::Signal { signal: 11 }),
    ] {
        let (ending, files) = run(bench, &spec(bench, built, &arguments));
        assert_eq!(ending.reason, reason, "{arguments:?} {files:?}");
        assert!(ending.started.is_some());
        let trapped = matches!(reason, Reason::Signal { .. });
        assert_eq!(text(&files, "stderr").contains("wasm trap"), trapped);
    }
}

fn surroundings(bench: &Bench, built: &Built<'_>) {
    let mut spec = spec(bench, built, &["surroundings", "last one"]);
    spec.env.insert("X".to_owned(), "a value".to_owned());
    spec.inputs.extend([
        bench.input("a.txt", b"from stdin\n", 0o644),
        bench.input("sub/dir/b", b"from b\n", 0o600),
    ]);
    spec.stdin = Some("a.txt".to_owned());
    spec.outputs = vec!["a.txt".to_owned()];
    let (ending, files) = run(bench, &spec);
    assert_eq!(ending.reason, Reason::Exit { code: 0 }, "{files:?}");
    let stdout = text(&files, "stdout");
    assert_eq!(
        stdout.lines().collect::<Vec<_>>(),
        [
            "3 last one",
            "/scratch",
            "/tmp",
            "C.UTF-8",
            "a value",
            "none",
            "from stdin",
            "from b",
            "from b",
            "temporary",
        ]
    );
    assert_eq!(text(&files, "stderr"), "oops\n");
    assert_eq!(
        text(&files, "a.txt"),
        "changed\n",
        "an input is a private copy"
    );
}

/// Integers and strict IEEE arithmetic: the digests of one engine are those of the other.
fn same_bytes(bench: &Bench, built: &Built<'_>) {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["digest"][..], &["primes", "1000000"], &["chaos"]] {
        let native = Command::new(built.native)
            .args(arguments)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(native.status.success());
        let mut spec = spec(bench, built, arguments);
        if arguments == ["digest"] {
            spec.outputs = vec!["out.txt".to_owned()];
        }
        let (ending, files) = run(bench, &spec);
        assert_eq!(ending.reason, Reason::Exit { code: 0 });
        assert_eq!(
            text(&files, "stdout"),
            String::from_utf8_lossy(&native.stdout)
        );
        if let Some(out) = files.get("out.txt") {
            assert_eq!(*out, std::fs::read(dir.path().join("out.txt")).unwrap());
        }
    }
    // And those of the script that the program stands for.
    let script = "seq 1 20000 | LC_ALL=C sort -r | cksum";
    let shell = Command::new("/bin/sh")
        .args(["-c", script])
        .output()
        .unwrap();
    let (_, files) = run(bench, &spec(bench, built, &["digest"]));
    assert_eq!(
        text(&files, "stdout"),
        String::from_utf8_lossy(&shell.stdout)
    );
}

fn hostile(bench: &Bench, built: &Built<'_>) {
    let mut spec = spec(bench, built, &["hostile"]);
    spec.outputs = vec!["*".to_owned()];
    let (ending, files) = bench.run(&spec);
    assert_eq!(ending.reason, Reason::Exit { code: 0 });
    // The links that it made are no files to bring home.
    let stdout = match files {
        Ok(files) => text(&files, "stdout"),
        Err(error) => {
            assert!(error.to_string().contains("symbolic link"), "{error}");
            spec.outputs.clear();
            spec.attempt = bench.spec(&[]).attempt;
            text(&run(bench, &spec).1, "stdout")
        }
    };
    assert_eq!(stdout, "");
    // A name that leads out of scratch is no program.
    for name in [
        "/usr/lib/program.wasm",
        "../task.json",
        "sub/../../task.json",
    ] {
        let (ending, _) = bench.run(&bench.spec(&[name]));
        let program = name.to_owned();
        assert_eq!(ending.reason, Reason::NoProgram { program });
    }
}

fn outputs(bench: &Bench, built: &Built<'_>) {
    for (what, output, says) in [
        ("symlink", "out", "symbolic link"),
        ("hardlink", "out", "hard link"),
        ("nothing", "out", "is missing"),
        ("nothing", "../out", "leaves the scratch directory"),
        ("nothing", "../task.json", "leaves the scratch directory"),
        ("nothing", "/etc/passwd", "leaves the scratch directory"),
        ("newline", "*", "rename it"),
    ] {
        let mut spec = spec(bench, built, &["outputs", what]);
        spec.outputs = vec![output.to_owned()];
        let (ending, files) = bench.run(&spec);
        assert_eq!(ending.reason, Reason::Exit { code: 0 }, "{what}");
        match files {
            Err(error @ EngineError::Output { .. }) => {
                assert!(error.to_string().contains(says), "{what}: {error}");
            }
            other => panic!("{what} brought home {other:?}"),
        }
    }
    let mut spec = spec(bench, built, &["outputs", "files"]);
    spec.outputs = vec!["a/**".to_owned(), "*.txt".to_owned()];
    let names: Vec<String> = run(bench, &spec).1.into_keys().collect();
    assert_eq!(names, ["3.txt", "a/1.txt", "a/b/2.txt", "stderr", "stdout"]);
}

fn said(bench: &Bench, spec: &AttemptSpec) -> u64 {
    let streams = bench.engine().streams(spec.attempt).ok();
    streams
        .and_then(|[stdout, _]| stdout.metadata().ok())
        .map_or(0, |data| data.len())
}

fn stop(bench: &Bench, built: &Built<'_>) {
    let spec = spec(bench, built, &["ready"]);
    bench.start(&spec);
    let end = Instant::now() + DEADLINE;
    while said(bench, &spec) == 0 {
        assert!(Instant::now() < end, "it never got ready");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Preview 1 has no signals, so nothing waits for the end of the grace.
    let control = Control::Stop { grace_ms: 600_000 };
    bench.engine().control(spec.attempt, control).unwrap();
    assert_eq!(bench.ending(spec.attempt).reason, Reason::Cancelled);
    let mut text = String::new();
    let [mut stdout, _] = bench.engine().streams(spec.attempt).unwrap();
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ready\n");
    bench.engine().discard(spec.attempt);
}

fn closes(bench: &Bench, built: &Built<'_>) {
    let (ending, _) = run(bench, &spec(bench, built, &["close"]));
    assert_eq!(ending.reason, Reason::Exit { code: 4 });
}

fn no_module(bench: &Bench, built: &Built<'_>) {
    let native = std::fs::read(built.native).unwrap();
    let cases: [(&[u8], &str); 4] = [
        (b"#!/bin/sh\necho hello\n", "is no WebAssembly"),
        (&native, "is no WebAssembly"),
        (b"\0asm\x0d\0\x01\0rest", "is a WebAssembly component"),
        (b"\0asm\x01\0\0\0", "has no `_start`"),
    ];
    for (bytes, says) in cases {
        let mut spec = bench.spec(&["./program", "argument"]);
        spec.inputs = vec![bench.input("program", bytes, 0o755)];
        let (ending, _) = bench.run(&spec);
        let reason = ending.reason.to_string();
        assert!(matches!(ending.reason, Reason::Engine { .. }), "{reason}");
        assert!(
            reason.contains(says) && reason.contains("wasm32-wasip1") | reason.contains("main")
        );
    }
}

/// What a job puts into the environment is the program's, and means nothing to the runner.
fn not_the_runners_environment(bench: &Bench, built: &Built<'_>) {
    let mut spec = spec(bench, built, &["exit", "3"]);
    for (name, value) in [
        ("LD_PRELOAD", "/scratch/work/cases.wasm"),
        ("LD_DEBUG", "all"),
        ("RUST_LOG", "trace"),
        ("TOKIO_WORKER_THREADS", "none"),
    ] {
        spec.env.insert(name.to_owned(), value.to_owned());
    }
    let (ending, files) = run(bench, &spec);
    assert_eq!(ending.reason, Reason::Exit { code: 3 });
    assert_eq!(text(&files, "stderr"), "");
}

fn deterministic(bench: &Bench, built: &Built<'_>) {
    // Its clock says the year 2000, which this program takes for a failure.
    let mut spec = spec(bench, built, &["surroundings", "x"]);
    spec.env.insert("X".to_owned(), String::new());
    spec.inputs.push(bench.input("sub/dir/b", b"b\n", 0o644));
    spec.deterministic = true;
    let (ending, _) = run(bench, &spec);
    assert_eq!(ending.reason, Reason::Exit { code: 9 });
}

fn listen() -> (Events, mpsc::Receiver<EngineEvent>) {
    let (told, heard) = mpsc::channel();
    let told = Mutex::new(told);
    let events = Arc::new(move |event| {
        let _nobody_listens = told.lock().unwrap().send(event);
    });
    (events, heard)
}

fn until_ended(engine: &WasmEngine, heard: &mpsc::Receiver<EngineEvent>) -> Ending {
    let end = Instant::now() + DEADLINE;
    loop {
        engine.beat(30_000);
        assert!(Instant::now() < end, "it never ended");
        if let Ok(EngineEvent::Ended { ending, .. }) = heard.recv_timeout(BEAT) {
            return *ending;
        }
    }
}

fn taken_over(_: &Bench, built: &Built<'_>) {
    let dir = tempfile::tempdir().unwrap();
    let make = |events: Events| engine(&dir.path().join("engine"), &group_parent(), events);
    let (events, heard_first) = listen();
    let first = make(events);
    let blobs = dir.path().join("blobs");
    std::fs::create_dir(&blobs).unwrap();
    let maker = Bench::new(blobs, |events| {
        engine(&dir.path().join("unused"), &group_parent(), events)
    });
    let mut spec = spec(&maker, built, &["sleep", "3"]);
    spec.limits.time = Span::seconds(1000);
    spec.limits.memory = Bytes(32 << 20);
    first.start(spec.clone()).unwrap();
    let started = heard_first.recv_timeout(DEADLINE).unwrap();
    assert!(
        matches!(started, EngineEvent::Started { .. }),
        "{started:?}"
    );
    let (events, heard) = listen();
    let second = make(events);
    let adopted = second.adopt().unwrap().pop().unwrap();
    assert_eq!(
        adopted.spec, spec,
        "as it was asked for, not as its cage was"
    );
    let ending = until_ended(&second, &heard);
    assert_eq!(ending.reason, Reason::Exit { code: 0 });
    let memory = record(&ending, LimitKind::Memory);
    assert!(
        (memory.value - f64::from(32 << 20)).abs() < 1.0,
        "{memory:?}"
    );
    assert_eq!(second.collect(spec.attempt).unwrap().len(), 2);
    second.discard(spec.attempt);
}

fn trial(bench: &Bench, _: &Built<'_>) {
    let rows = bench.engine().probe();
    assert!(rows.iter().all(|row| row.level == Level::Good), "{rows:?}");
}

/// Where no control group bounds memory, addresses are bounded instead.
fn few_addresses(_: &Bench, built: &Built<'_>) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("work")).unwrap();
    std::fs::copy(built.module, path("work").join(NAME)).unwrap();
    let task = format!(
        r#"{{"command":["{NAME}","primes","1000"],"env":{{}},"memory_bytes":33554432,
            "time_ms":600000,"deterministic":false}}"#
    );
    std::fs::write(path("task.json"), task).unwrap();
    let output = Command::new("/bin/sh")
        .args(["-c", "ulimit -v 1000000; exec \"$0\" __wasm \"$1\""])
        .args([std::env::current_exe().unwrap().as_path(), dir.path()])
        .output()
        .unwrap();
    let record = std::fs::read_to_string(path("record.json")).unwrap();
    assert!(record.contains(r#""end":{"Exit":0}"#), "{record}");
    let native = Command::new(built.native).args(["primes", "1000"]).output();
    assert_eq!(output.stdout, native.unwrap().stdout);
}

fn compiled_once(_: &Bench, built: &Built<'_>) {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("engine");
    let blobs = dir.path().join("blobs");
    std::fs::create_dir(&blobs).unwrap();
    let maker = Bench::new(blobs, |events| {
        engine(&dir.path().join("unused"), &group_parent(), events)
    });
    let (events, heard) = listen();
    let mut engine_now = engine(&home, &group_parent(), events);
    let origin = |engine: &WasmEngine, heard: &mpsc::Receiver<EngineEvent>, spec: AttemptSpec| {
        let attempt = spec.attempt;
        engine.start(spec).unwrap();
        let ending = until_ended(engine, heard);
        assert_eq!(ending.reason, Reason::Exit { code: 3 });
        let record: Record = engine.cages().said(attempt, "record.json").unwrap();
        let scratch = engine.cages().engine();
        assert!(
            scratch.open_in_scratch(attempt, "seal").is_err(),
            "it stays"
        );
        engine.discard(attempt);
        record.code
    };
    let exit = || spec(&maker, built, &["exit", "3"]);
    let steady = || AttemptSpec {
        deterministic: true,
        ..exit()
    };
    assert_eq!(origin(&engine_now, &heard, exit()), Origin::Left);
    assert_eq!(origin(&engine_now, &heard, exit()), Origin::Kept);
    assert_eq!(origin(&engine_now, &heard, steady()), Origin::Left);
    assert_eq!(origin(&engine_now, &heard, steady()), Origin::Kept);

    let (events, heard) = listen();
    drop(engine_now);
    engine_now = engine(&home, &group_parent(), events);
    assert_eq!(origin(&engine_now, &heard, exit()), Origin::Kept);

    // No file but the input whose digest names the code is compiled for others.
    let mut other = exit();
    let name = format!("scratch/{NAME}");
    let mut program = input(built.module);
    program.name.clone_from(&name);
    other.command[0] = format!("/scratch//{name}");
    other.inputs = vec![maker.input(NAME, b"a popular module", 0o644), program];
    assert_eq!(origin(&engine_now, &heard, other), Origin::Compiled);

    for file in std::fs::read_dir(home.join("code")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none() {
            let mut code = std::fs::read(&path).unwrap();
            let middle = code.len() / 2;
            code[middle] ^= 1;
            std::fs::write(&path, code).unwrap();
        }
    }
    assert_eq!(origin(&engine_now, &heard, exit()), Origin::Left);
    assert_eq!(origin(&engine_now, &heard, exit()), Origin::Kept);
}
