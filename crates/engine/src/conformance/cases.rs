//! The promises, one function each.

use super::{Bench, Case, DEADLINE, read_all, record};
use crate::{AttemptSpec, Control, Ending, EngineError, EngineEvent, InputFile};
use gleaner_model::{Bytes, LimitKind, Reason, Span};
use std::time::{Duration, Instant};

/// Every promise, by name.
pub const CASES: &[(&str, Case)] = &[
    ("the same program gives the same digest", same_digest),
    ("exit codes and signals are told", exits),
    ("inputs, environment, stdin and streams", surroundings),
    ("a flipped byte is an integrity failure", flipped_byte),
    ("a program that is not there", no_program),
    ("many inputs", many_inputs),
    ("memory ends a task, page cache does not", memory),
    ("disk ends a task soon", disk),
    ("unlinked files count as disk", unlinked),
    ("wall time without pauses ends a task", wall_time),
    ("CPU time ends a task", cpu_time),
    ("a fork bomb is held", processes),
    ("output ends a task", output),
    ("pause and resume", pause),
    ("stop with and without a trap", stop),
    ("nothing is left behind", nothing_left),
    ("usage covers descendants", usage),
    ("outputs stay within scratch", outputs),
    (
        "the owner's files and devices are out of reach",
        out_of_reach,
    ),
    ("attempts of a bundle see nothing of each other", apart),
];

fn ended_by(ending: &Ending, limit: LimitKind) {
    assert_eq!(ending.reason, Reason::Limit { limit }, "{ending:?}");
    let record = record(ending, limit);
    assert_eq!(record.action, "ended", "{record:?}");
    assert!(record.at.is_some(), "{record:?}");
}

fn same_digest(bench: &Bench) {
    let script = "seq 1 20000 | sort -r | cksum; seq 1 1000 > out.txt";
    let run = || {
        let mut spec = bench.script(script);
        spec.outputs = vec!["out.txt".to_owned()];
        let (ending, files) = bench.run(&spec);
        assert_eq!(ending.reason, Reason::Exit { code: 0 });
        files.unwrap_or_default()
    };
    let first = run();
    assert_eq!(first.len(), 3, "{:?}", first.keys());
    for _ in 0..3 {
        assert_eq!(run(), first);
    }
}

fn exits(bench: &Bench) {
    for (script, reason) in [
        ("exit 0", Reason::Exit { code: 0 }),
        ("exit 7", Reason::Exit { code: 7 }),
        ("kill -SEGV $$", Reason::Signal { signal: 11 }),
        ("kill -9 $$", Reason::Signal { signal: 9 }),
    ] {
        let spec = bench.script(script);
        bench.start(&spec);
        // However brief it is, its start is told before its end.
        bench.started(spec.attempt);
        let ending = bench.ending(spec.attempt);
        assert_eq!(ending.reason, reason, "{script}");
        let started = ending.started;
        assert!(started.is_some_and(|at| at <= ending.ended), "{ending:?}");
    }
}

fn surroundings(bench: &Bench) {
    let mut spec = bench.script(
        "pwd; echo $HOME; echo $TMPDIR; echo $X; cat; cat sub/dir/b; ./run; echo x > /tmp/y; \
         cat $TMPDIR/y; echo changed > a.txt; echo oops >&2; id -u | grep -qv '^0$'",
    );
    spec.env.insert("X".to_owned(), "a value".to_owned());
    spec.inputs = vec![
        bench.input("a.txt", b"from stdin\n", 0o644),
        bench.input("sub/dir/b", b"from b\n", 0o600),
        bench.input("run", b"#!/bin/sh\necho ran\n", 0o755),
    ];
    spec.stdin = Some("a.txt".to_owned());
    spec.outputs = vec!["a.txt".to_owned()];
    let (ending, files) = bench.run(&spec);
    assert_eq!(
        ending.reason,
        Reason::Exit { code: 0 },
        "{ending:?} {files:?}"
    );
    let files = files.unwrap_or_default();
    let text = |name: &str| String::from_utf8_lossy(&files[name]).into_owned();
    let stdout = text("stdout");
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[0], lines[1], "the working directory is HOME");
    assert!(lines[2].starts_with(lines[0]), "TMPDIR is in scratch");
    assert_eq!(lines[3..], ["a value", "from stdin", "from b", "ran", "x"]);
    assert_eq!(text("stderr"), "oops\n");
    assert_eq!(text("a.txt"), "changed\n", "an input is a private copy");
}

fn flipped_byte(bench: &Bench) {
    let mut spec = bench.script("cat data");
    let input = bench.input("data", b"the right content, this time", 0o644);
    spec.inputs = vec![input.clone()];
    assert_eq!(bench.stdout_of(&spec), "the right content, this time");
    let mut wrong = std::fs::read(&input.source).unwrap_or_default();
    wrong[3] ^= 1;
    std::fs::write(&input.source, wrong).unwrap();
    let mut again = bench.script("cat data");
    again.inputs = vec![input];
    let (ending, _) = bench.run(&again);
    assert!(
        matches!(ending.reason, Reason::Integrity { .. }),
        "{:?}",
        ending.reason
    );
    assert_eq!(ending.started, None);
}

fn no_program(bench: &Bench) {
    let (ending, _) = bench.run(&bench.spec(&["no-such-program-anywhere", "x"]));
    let program = "no-such-program-anywhere".to_owned();
    assert_eq!(ending.reason, Reason::NoProgram { program });
    let mut spec = bench.spec(&["./plain"]);
    spec.inputs = vec![bench.input("plain", b"text\n", 0o644)];
    let (ending, _) = bench.run(&spec);
    assert!(
        matches!(ending.reason, Reason::Engine { .. }),
        "{:?}",
        ending.reason
    );
    assert!(
        ending.reason.to_string().contains("not executable"),
        "{}",
        ending.reason
    );
}

fn many_inputs(bench: &Bench) {
    let mut spec = bench.script("ls in | wc -l");
    let one = bench.input("x", b"one blob, many names\n", 0o644);
    spec.inputs = (0..10_000)
        .map(|at| InputFile {
            name: format!("in/file-{at}"),
            ..one.clone()
        })
        .collect();
    assert_eq!(bench.stdout_of(&spec).trim(), "10000");
}

fn memory(bench: &Bench) {
    // Whoever gives the end of a stream keeps what may be the end.
    let mut spec = bench.script("head -c 200m /dev/zero | tail -c 190m | wc -c");
    spec.limits.memory = Bytes(64 << 20);
    let (ending, _) = bench.run(&spec);
    ended_by(&ending, LimitKind::Memory);
    assert!(record(&ending, LimitKind::Memory).peak > 32e6, "{ending:?}");
    // Twice the limit in page cache, read twice.
    let mut spec = bench.script("head -c 128m /dev/zero > f; cat f f | wc -c; rm f");
    spec.limits.memory = Bytes(64 << 20);
    assert_eq!(bench.stdout_of(&spec).trim(), "268435456");
}

fn disk(bench: &Bench) {
    let mut spec = bench.script(
        "i=0; while [ $i -lt 160 ]; do head -c 64m /dev/zero > f$i || exit 3; i=$((i+1)); done",
    );
    spec.limits.disk = Bytes(64 << 20);
    let begun = Instant::now();
    let (ending, _) = bench.run(&spec);
    let held = record(&ending, LimitKind::Disk);
    assert!(
        ending.reason
            == Reason::Limit {
                limit: LimitKind::Disk
            }
            || held.action == "enospc",
        "{ending:?}"
    );
    assert!(held.at.is_some());
    // Ten gigabytes would have been written.
    assert!(held.peak < 2e9, "{held:?}");
    assert!(begun.elapsed() < DEADLINE);
}

/// Files without a name take room too.
fn unlinked(bench: &Bench) {
    let mut spec = bench.script(
        "exec perl -e 'my $b = \"x\" x (16 << 20); for my $i (1..160) { \
         open(my $f, \">\", \"f$i\") or exit 3; unlink \"f$i\"; \
         for (1..4) { syswrite($f, $b) or exit 4 } push @held, $f } sleep 60'",
    );
    spec.limits.disk = Bytes(128 << 20);
    let (ending, _) = bench.run(&spec);
    ended_by(&ending, LimitKind::Disk);
    let held = record(&ending, LimitKind::Disk);
    assert!(held.peak > 128e6 && held.peak < 4e9, "{held:?}");
}

fn wall_time(bench: &Bench) {
    let mut spec = bench.script("sleep 100");
    spec.limits.time = Span { ms: 1500 };
    bench.start(&spec);
    bench.started(spec.attempt);
    let control = |control| bench.engine().control(spec.attempt, control);
    control(Control::Pause).unwrap();
    bench.wait(spec.attempt, |event| {
        matches!(event, EngineEvent::Paused { .. }).then_some(())
    });
    // Longer than the limit: time that is paused does not count.
    std::thread::sleep(Duration::from_millis(2000));
    control(Control::Resume).unwrap();
    let ending = bench.ending(spec.attempt);
    bench.engine().discard(spec.attempt);
    ended_by(&ending, LimitKind::Time);
    assert!(ending.paused_seconds >= 1.9, "{ending:?}");
    assert!(
        ending.wall_seconds - ending.paused_seconds >= 1.4,
        "{ending:?}"
    );
}

fn cpu_time(bench: &Bench) {
    let mut spec = bench.script("while :; do :; done & while :; do :; done");
    spec.limits.cpu_time = Some(Span { ms: 1000 });
    let (ending, _) = bench.run(&spec);
    ended_by(&ending, LimitKind::CpuTime);
    assert!(ending.usage.cpu_seconds >= 0.9, "{ending:?}");
}

fn processes(bench: &Bench) {
    let mut spec = bench.script("b() { b | b & }; b 2>/dev/null; sleep 2; exit 0");
    spec.limits.processes = 24;
    spec.limits.time = Span::seconds(20);
    let (ending, _) = bench.run(&spec);
    let held = record(&ending, LimitKind::Processes);
    assert_eq!(held.action, "fork failed", "{ending:?}");
    assert!(held.peak <= 24.0, "{held:?}");
}

fn output(bench: &Bench) {
    let mut spec = bench.spec(&["yes"]);
    spec.limits.output = Bytes(1 << 20);
    let (ending, _) = bench.run(&spec);
    ended_by(&ending, LimitKind::Output);
    let mut spec = bench.script("head -c 3000000 /dev/zero > big");
    spec.outputs = vec!["big".to_owned()];
    spec.limits.output = Bytes(1 << 20);
    let (ending, files) = bench.run(&spec);
    ended_by(&ending, LimitKind::Output);
    assert!(
        matches!(files, Err(EngineError::Output { .. })),
        "{files:?}"
    );
}

fn pause(bench: &Bench) {
    let spec = bench.script("while :; do echo x; sleep 0.01; done & while :; do :; done");
    bench.start(&spec);
    bench.started(spec.attempt);
    let control = |control| bench.engine().control(spec.attempt, control).unwrap();
    control(Control::Pause);
    bench.wait(spec.attempt, |event| {
        matches!(event, EngineEvent::Paused { .. }).then_some(())
    });
    let written = || {
        let [stdout, _] = bench.engine().streams(spec.attempt).unwrap();
        stdout.metadata().map_or(0, |data| data.len())
    };
    let cpu = || {
        bench
            .engine()
            .usage(spec.attempt)
            .map_or(-1.0, |usage| usage.cpu_seconds)
    };
    // On a busy PC what was asked to stop may have to wait for a processor to do so.
    let end = Instant::now() + DEADLINE;
    let before = loop {
        let before = (written(), cpu());
        std::thread::sleep(Duration::from_millis(300));
        let after = (written(), cpu());
        if after == before {
            break before;
        }
        assert!(Instant::now() < end, "it runs while paused: {after:?}");
    };
    control(Control::Resume);
    bench.wait(spec.attempt, |event| {
        matches!(event, EngineEvent::Resumed { .. }).then_some(())
    });
    let end = Instant::now() + DEADLINE;
    while written() <= before.0 {
        assert!(Instant::now() < end, "it never ran again");
        std::thread::sleep(Duration::from_millis(5));
    }
    // One that is paused can be stopped.
    control(Control::Pause);
    control(Control::Stop { grace_ms: 60_000 });
    assert_eq!(bench.ending(spec.attempt).reason, Reason::Cancelled);
    bench.engine().discard(spec.attempt);
}

fn stop(bench: &Bench) {
    let ready = |spec: &AttemptSpec| {
        let end = Instant::now() + DEADLINE;
        let said = || {
            let streams = bench.engine().streams(spec.attempt).ok();
            streams
                .and_then(|[stdout, _]| stdout.metadata().ok())
                .map_or(0, |data| data.len())
        };
        while said() == 0 {
            assert!(Instant::now() < end, "it never got ready");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let kind =
        bench.script("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done");
    bench.start(&kind);
    ready(&kind);
    let long = Control::Stop { grace_ms: 60_000 };
    bench.engine().control(kind.attempt, long).unwrap();
    assert_eq!(bench.ending(kind.attempt).reason, Reason::Cancelled);
    let files = bench
        .engine()
        .collect(kind.attempt)
        .map(read_all)
        .unwrap_or_default();
    assert_eq!(files["stdout"], b"ready\nbye\n");
    bench.engine().discard(kind.attempt);

    let stubborn = bench.script("trap '' TERM INT HUP; echo ready; while :; do sleep 0.01; done");
    bench.start(&stubborn);
    ready(&stubborn);
    let short = Control::Stop { grace_ms: 200 };
    bench.engine().control(stubborn.attempt, short).unwrap();
    assert_eq!(bench.ending(stubborn.attempt).reason, Reason::Cancelled);
    bench.engine().discard(stubborn.attempt);
    // What has ended can be told anything.
    assert!(matches!(
        bench.engine().control(stubborn.attempt, short),
        Err(EngineError::Unknown(_))
    ));
}

fn nothing_left(bench: &Bench) {
    // A daemon that ignores all it may, in a session of its own, keeps writing to scratch; were
    // it left alive, the stream would grow after the end.
    let spec = bench.script(
        "d() { while :; do echo still here; echo x >> log; done; }; \
         (trap '' TERM HUP INT; d & setsid sh -c 'while :; do echo too; done' &) 2>/dev/null; \
         until [ -s log ]; do sleep 0.01; done; exit 0",
    );
    bench.start(&spec);
    let ending = bench.ending(spec.attempt);
    assert_eq!(ending.reason, Reason::Exit { code: 0 });
    let length = || {
        let [stdout, _] = bench.engine().streams(spec.attempt).unwrap();
        stdout.metadata().map_or(0, |data| data.len())
    };
    let before = length();
    assert!(before > 0);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(length(), before, "a daemon lives on");
    bench.engine().discard(spec.attempt);
    // What ends all it can see ends its own only.
    let (ending, _) = bench.run(&bench.script("sleep 100 & kill -9 -1; wait; exit 6"));
    assert!(
        matches!(
            ending.reason,
            Reason::Signal { signal: 9 } | Reason::Exit { .. }
        ),
        "{:?}",
        ending.reason
    );
    // Closing every descriptor confuses nobody.
    let closes = "exec <&- >&- 2>&- 3<&- 4<&- 5<&-; exit 4";
    let (ending, _) = bench.run(&bench.script(closes));
    assert_eq!(ending.reason, Reason::Exit { code: 4 });
}

fn usage(bench: &Bench) {
    let spec = bench.script(
        "(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done) & \
         (i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done) & wait; \
         head -c 20m /dev/zero > f; cat f > /dev/null",
    );
    let (ending, _) = bench.run(&spec);
    assert_eq!(ending.reason, Reason::Exit { code: 0 });
    let used = ending.usage;
    assert!(used.cpu_seconds > 0.05, "{used:?}");
    assert!(used.written_bytes >= 20 << 20, "{used:?}");
    assert!(used.read_bytes >= 20 << 20, "{used:?}");
    assert!(used.memory_peak > 100_000, "{used:?}");
    assert!(used.processes_peak >= 1, "{used:?}");
    assert!(ending.wall_seconds > 0.0 && ending.ended >= ending.started.unwrap_or_default());
    for kind in [
        LimitKind::Cpus,
        LimitKind::Memory,
        LimitKind::Disk,
        LimitKind::Network,
    ] {
        assert_eq!(record(&ending, kind).limit, kind);
    }
}

fn outputs(bench: &Bench) {
    let cases = [
        ("ln -s /etc/passwd out", "out", "symbolic link"),
        ("mkdir d; ln -s /etc d/e", "d/e/*", "is missing"),
        ("echo x > x; ln x out", "out", "hard link"),
        ("mkfifo out", "out", "not a regular file"),
        ("true", "out", "is missing"),
        ("true", "../out", "leaves the scratch directory"),
        ("true", "/etc/passwd", "leaves the scratch directory"),
        ("printf x > \"$(printf 'a\\nb')\"", "*", "rename it"),
        ("printf x > \"$(printf 'a\\377b')\"", "*", "rename it"),
    ];
    // A few at a time: where each has to boot first, that is half of the time.
    let some = cases.chunks(3).flat_map(|some| {
        let specs = some.iter().map(|(script, output, _)| {
            let mut spec = bench.script(script);
            spec.outputs = vec![(*output).to_owned()];
            bench.start(&spec);
            spec
        });
        let specs: Vec<AttemptSpec> = specs.collect();
        some.iter().zip(specs)
    });
    for ((script, _, says), spec) in some {
        let ending = bench.ending(spec.attempt);
        let files = bench.engine().collect(spec.attempt).map(read_all);
        bench.engine().discard(spec.attempt);
        assert_eq!(ending.reason, Reason::Exit { code: 0 }, "{script}");
        match files {
            Err(error) => assert!(error.to_string().contains(says), "{script}: {error}"),
            Ok(files) => panic!("{script} brought home {:?}", files.keys()),
        }
    }
    let mut spec =
        bench.script("mkdir -p a/b; echo 1 > a/1.txt; echo 2 > a/b/2.txt; echo 3 > 3.txt");
    spec.outputs = vec!["a/**".to_owned(), "*.txt".to_owned()];
    let (_, files) = bench.run(&spec);
    let names: Vec<String> = files.unwrap_or_default().into_keys().collect();
    assert_eq!(names, ["3.txt", "a/1.txt", "a/b/2.txt", "stderr", "stdout"]);
    let mut spec = bench.script("echo said");
    spec.outputs = vec!["stdout".to_owned(), "stderr".to_owned()];
    let (_, files) = bench.run(&spec);
    let files = files.unwrap_or_default();
    assert_eq!(files.get("stdout").map(Vec::as_slice), Some(&b"said\n"[..]));
    assert_eq!(files.len(), 2, "a stream is an output by its name too");
}

fn out_of_reach(bench: &Bench) {
    // Each line must fail; what succeeds is printed.
    let script = r#"
        try() { if (eval "$1") >/dev/null 2>&1; then echo "$1"; fi; }
        try 'ls /home/* | grep .'
        try 'ls /root'
        try 'ls -A /run | grep .'
        try 'cat /etc/shadow'
        try 'cat /etc/machine-id'
        try 'echo x > /usr/x'
        try 'echo x > /etc/x'
        try 'echo x > /x'
        try 'true 3<> /proc/sys/kernel/core_pattern'
        try 'true 3>> /proc/sys/vm/drop_caches'
        # Where the kernel has it, null lies over it.
        try '[ ! -c /proc/sysrq-trigger ] && true 3>> /proc/sysrq-trigger'
        try 'head -c 1 /proc/kcore | grep -q .'
        try 'grep . /proc/keys'
        try 'mount -t tmpfs none /tmp'
        try 'unshare -U true'
        try 'unshare -m true'
        try 'chroot / true'
        try 'mknod /tmp/null c 1 3'
        try 'head -c 1 /dev/sda'
        try 'head -c 1 /dev/mem'
        try 'head -c 1 /dev/tty'
        try 'ls /dev/pts/*'
        try 'hostname other'
        try 'renice -n -5 $$'
        try 'chmod u+s /bin/sh'
        try 'grep -v "^CapEff:.0*$" /proc/self/status | grep CapEff'
        try 'grep "NoNewPrivs:.0" /proc/self/status'
        try 'kill -0 2000000'
        exit 0
    "#;
    assert_eq!(bench.stdout_of(&bench.script(script)), "");
    // And what must work does.
    let script = "echo a > /dev/null; head -c 2 /dev/zero | wc -c; head -c 2 /dev/urandom | wc -c; \
                  echo b >> /dev/stdout; cat /proc/self/comm; ls /usr/bin | grep -c '^env$'";
    assert_eq!(bench.stdout_of(&bench.script(script)), "2\n2\nb\ncat\n1\n");
}

fn apart(bench: &Bench) {
    let leave =
        bench.script("echo secret > /tmp/s; echo secret > /dev/shm/s; echo x > mine; exit 0");
    assert_eq!(bench.stdout_of(&leave), "");
    let mut look = bench.script("ls -A / | grep -q scratch-of; ls -A /tmp /dev/shm . | grep -v :");
    look.bundle = leave.bundle;
    look.command[2] =
        "find /tmp/ /dev/shm . -type f; ps ax 2>/dev/null | grep -c sleepe[r]".to_owned();
    let mut sleeper = bench.script("exec -a sleeper sleep 5 2>/dev/null || sleep 5");
    sleeper.bundle = leave.bundle;
    bench.start(&sleeper);
    bench.started(sleeper.attempt);
    bench.start(&look);
    bench.ending(look.attempt);
    let files = bench
        .engine()
        .collect(look.attempt)
        .map(read_all)
        .unwrap_or_default();
    let seen = String::from_utf8_lossy(&files["stdout"]).into_owned();
    assert!(matches!(seen.as_str(), "0\n" | ""), "{seen:?}");
    for spec in [&sleeper, &look] {
        bench.engine().discard(spec.attempt);
    }
}
