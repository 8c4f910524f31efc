//! Agents that fall silent, die and come back, and shims that die.

use crate::{engine, engine_with, group_parent};
use gleaner_engine::conformance::{BEAT, Bench, DEADLINE};
use gleaner_engine::{AttemptSpec, Control, Engine as _, EngineEvent, Events};
use gleaner_engine_process::own_processors;
use gleaner_model::{JobId, LeaseId, Reason, TaskId};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("kill -9 of a shim ends its sandboxes", shim_killed),
    ("without beats all is frozen, then ended", silent_agent),
    ("a restarted agent adopts", adoption),
    ("a trial's attempts end with who began them", trial_deserted),
    ("a bundle outlives its idle shim", idle_shim),
    ("a shim is made ahead, for one job only", made_ahead),
    ("shims outlive what they were copied from", nursery_killed),
    ("the host's user id is nobody's", host_uid),
    ("tasks have a mask of files of their own", strict_mask),
];

/// The agent lets nobody else read what it makes, as root does on some PCs.
fn strict_mask() {
    let mask = |mode| rustix::process::umask(rustix::fs::Mode::from_raw_mode(mode));
    let before = mask(0o077);
    let dir = tempfile::tempdir().unwrap();
    let make = |events| engine(&dir.path().join("engine"), &group_parent(), BEAT, events);
    let bench = Bench::new(dir.path().to_path_buf(), make);
    let script = "umask; : > file; stat -c %a file; cat /etc/passwd > /dev/null && ls /";
    let (ending, files) = bench.run(&bench.script(script));
    rustix::process::umask(before);
    assert_eq!(ending.reason, Reason::Exit { code: 0 }, "{ending:?}");
    let said = String::from_utf8(files.unwrap()["stdout"].clone()).unwrap();
    assert!(said.starts_with("0022\n644\n"), "{said}");
}

/// How long a shim that has nothing to do is kept.
const KEEP_IDLE: Duration = Duration::from_secs(5);

/// Host processes whose arguments contain all of `words`.
fn processes(words: &[&str]) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if words.iter().all(|word| line.contains(word)) {
            found.push(pid);
        }
    }
    found
}

fn wait_until(what: &str, mut met: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !met() {
        assert!(Instant::now() < end, "{what} never came true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Seconds to sleep that nobody else on this PC sleeps: names a process.
fn odd_sleep(kind: u32) -> String {
    format!(
        "{}",
        100_000 + u64::from(kind) * 10_000_000 + u64::from(std::process::id())
    )
}

fn shim_killed() {
    let dir = tempfile::tempdir().unwrap();
    let make = |events: Events| engine(&dir.path().join("engine"), &group_parent(), BEAT, events);
    let bench = Bench::new(dir.path().to_path_buf(), make);
    let mark = odd_sleep(1);
    let spec = bench.script(&format!("setsid sleep {mark} & sleep {mark}"));
    bench.start(&spec);
    bench.started(spec.attempt);
    wait_until("both sleep", || processes(&["sleep", &mark]).len() >= 2);
    let lease = format!("bundles/{}", spec.bundle);
    let base = dir.path().to_string_lossy().into_owned();
    let shims = processes(&["__shim", &base, &lease]);
    // The zygote and the cage's init are copies of the shim and have its arguments: the shim
    // is the oldest, and the only one that is ours.
    kill(*shims.iter().min().unwrap());
    let ending = bench.ending(spec.attempt);
    assert!(
        matches!(ending.reason, Reason::Lost { .. }),
        "{:?}",
        ending.reason
    );
    wait_until("nothing sleeps", || processes(&["sleep", &mark]).is_empty());
    wait_until("no process of it is left", || {
        processes(&["__shim", &base, &lease]).is_empty()
    });
    bench.engine().discard(spec.attempt);
    // The bundle can be used again.
    let mut next = bench.script("echo again");
    next.bundle = spec.bundle;
    assert_eq!(bench.stdout_of(&next), "again\n");
}

fn wait_for<T>(heard: &Receiver<EngineEvent>, wanted: impl Fn(&EngineEvent) -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if let Some(found) = wanted(&heard.recv_timeout(left).unwrap()) {
            return found;
        }
    }
}

/// Somebody who will be killed: starts an attempt that nobody is to adopt.
pub(crate) fn trial(dir: &Path, parent: &str) -> ExitCode {
    let (say, heard) = channel();
    let say = Mutex::new(say);
    let events: Events = Arc::new(move |event| drop(say.lock().unwrap().send(event)));
    let engine = engine_with(dir, parent, events, |config| config.outlives = false);
    let script = format!("exec sleep {}", dir.file_name().unwrap().to_string_lossy());
    engine.start(bare_spec(1, &script)).unwrap();
    wait_for(&heard, |event| {
        matches!(event, EngineEvent::Started { .. }).then_some(())
    });
    // Far longer than the test waits.
    engine.beat(10 * u64::try_from(DEADLINE.as_millis()).unwrap());
    println!("ready");
    loop {
        std::thread::sleep(DEADLINE);
    }
}

fn trial_deserted() {
    let dir = tempfile::tempdir().unwrap();
    let mark = odd_sleep(3);
    let mut first = Command::new(std::env::current_exe().unwrap())
        .arg("__trial")
        .arg(dir.path().join(&mark))
        .arg(group_parent())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(first.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    first.kill().unwrap();
    first.wait().unwrap();
    let base = dir.path().to_string_lossy().into_owned();
    wait_until("nothing of it is left", || {
        processes(&["sleep", &mark]).is_empty() && processes(&["__shim", &base]).is_empty()
    });
}

/// The shim is told to go and the next attempt of its bundle comes at the same moment.
fn idle_shim() {
    let dir = tempfile::tempdir().unwrap();
    let make = |events: Events| engine(&dir.path().join("engine"), &group_parent(), BEAT, events);
    let bench = Bench::new(dir.path().to_path_buf(), make);
    let first = bench.script("echo first");
    assert_eq!(bench.stdout_of(&first), "first\n");
    for _ in 0..2 {
        std::thread::sleep(KEEP_IDLE);
        let next = AttemptSpec {
            bundle: first.bundle,
            ..bench.script("echo next")
        };
        // This beat sends the shim away.
        bench.engine().beat(60_000);
        assert_eq!(bench.stdout_of(&next), "next\n");
    }
}

/// Names of the bundles whose shims listen.
fn listening(dir: &Path) -> BTreeSet<String> {
    let bundles = std::fs::read_dir(dir.join("engine/bundles")).unwrap();
    let listens = bundles
        .flatten()
        .filter(|dir| dir.path().join("socket").exists());
    let names = listens.map(|dir| dir.file_name().to_string_lossy().into_owned());
    names.collect()
}

/// Once something has run there is a shim that nobody has; the next job gets it, and then there is
/// another, which goes with the engine.
fn made_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let make = |events: Events| {
        engine_with(
            &dir.path().join("engine"),
            &group_parent(),
            events,
            |config| {
                (config.beat, config.spare) = (BEAT, true);
            },
        )
    };
    let bench = Bench::new(dir.path().to_path_buf(), make);
    let mut known = BTreeSet::new();
    let new = |known: &mut BTreeSet<String>| {
        let found = || listening(dir.path()).difference(known).next().cloned();
        wait_until("a shim is there", || found().is_some());
        let found = found().unwrap();
        known.insert(found.clone());
        found
    };
    let first = bench.script("echo first");
    known.insert(first.bundle.to_string());
    assert_eq!(bench.stdout_of(&first), "first\n");
    for number in 2..4 {
        let spare = new(&mut known);
        let next = AttemptSpec {
            attempt: TaskId::new(JobId(number), 0).attempt(1),
            bundle: LeaseId(number),
            ..bench.script("echo next")
        };
        assert_eq!(bench.stdout_of(&next), "next\n");
        let journal = dir
            .path()
            .join("engine/bundles")
            .join(spare)
            .join("journal");
        let journal = std::fs::read_to_string(journal).unwrap();
        assert!(journal.contains("echo next"), "{journal}");
    }
    let base = dir.path().to_string_lossy().into_owned();
    let left = format!("bundles/{}", new(&mut known));
    assert!(!processes(&["__shim", &base, &left]).is_empty());
    drop(bench);
    wait_until("the spare shim is gone", || {
        processes(&["__shim", &base, &left]).is_empty()
    });
}

/// Our own children with this word among their arguments.
fn children(word: &str) -> Vec<i32> {
    let ours = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default();
        fields.split_whitespace().nth(1) == Some(&std::process::id().to_string())
    };
    processes(&[word]).into_iter().filter(ours).collect()
}

fn nursery_killed() {
    let dir = tempfile::tempdir().unwrap();
    let make = |events: Events| {
        engine_with(
            &dir.path().join("engine"),
            &group_parent(),
            events,
            |config| {
                (config.beat, config.fresh) = (BEAT, true);
            },
        )
    };
    let bench = Bench::new(dir.path().to_path_buf(), make);
    let first = bench.script("sleep 1000");
    bench.start(&first);
    bench.started(first.attempt);
    let nurseries = children("__nursery");
    assert!(!nurseries.is_empty());
    nurseries.iter().copied().for_each(kill);
    // What it is ordered while it dies is lost, as with a shim that dies.
    wait_until("it is dead", || {
        nurseries.iter().all(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        })
    });
    assert_eq!(bench.stdout_of(&bench.script("echo another")), "another\n");
    let stop = Control::Stop { grace_ms: 0 };
    bench.engine().control(first.attempt, stop).unwrap();
    assert_eq!(bench.ending(first.attempt).reason, Reason::Cancelled);
}

fn silent_agent() {
    let dir = tempfile::tempdir().unwrap();
    let (say, heard) = channel();
    let say = Mutex::new(say);
    let events: Events = Arc::new(move |event| drop(say.lock().unwrap().send(event)));
    let beat = Duration::from_millis(200);
    let engine = engine(dir.path(), &group_parent(), beat, events);
    let spec = bare_spec(1, "while :; do echo x; sleep 0.01; done");
    engine.start(spec.clone()).unwrap();
    let is =
        |wanted: fn(&EngineEvent) -> bool| move |event: &EngineEvent| wanted(event).then_some(());
    wait_for(
        &heard,
        is(|event| matches!(event, EngineEvent::Started { .. })),
    );
    // Nobody beats.
    wait_for(
        &heard,
        is(|event| matches!(event, EngineEvent::Paused { .. })),
    );
    let length = || {
        let [stdout, _] = engine.streams(spec.attempt).unwrap();
        stdout.metadata().unwrap().len()
    };
    let before = length();
    // On purpose: a span in which a frozen program must not write.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(length(), before);
    engine.beat(1000);
    wait_for(
        &heard,
        is(|event| matches!(event, EngineEvent::Resumed { .. })),
    );
    // And nobody again, until the lease is over.
    wait_for(
        &heard,
        is(|event| matches!(event, EngineEvent::Paused { .. })),
    );
    let reason = wait_for(&heard, |event| match event {
        EngineEvent::Ended { ending, .. } => Some(ending.reason.clone()),
        EngineEvent::Started { .. }
        | EngineEvent::Paused { .. }
        | EngineEvent::Resumed { .. }
        | EngineEvent::Saved { .. } => None,
    });
    assert!(matches!(reason, Reason::Lost { .. }), "{reason:?}");
    engine.discard(spec.attempt);
}

fn bare_spec(number: u64, script: &str) -> AttemptSpec {
    AttemptSpec {
        attempt: TaskId::new(JobId(number), 0).attempt(1),
        bundle: LeaseId(1),
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        deterministic: false,
        env: std::collections::BTreeMap::new(),
        stdin: None,
        image: None,
        inputs: Vec::new(),
        outputs: Vec::new(),
        limits: gleaner_model::Limits::default(),
        saving: gleaner_engine::Saving::default(),
    }
}

/// The agent that will be killed: starts three attempts, says when one has ended and the others
/// run, and beats until then.
pub(crate) fn main(dir: &Path, parent: &str) -> ExitCode {
    let (say, heard) = channel();
    let say = Mutex::new(say);
    let events: Events = Arc::new(move |event| drop(say.lock().unwrap().send(event)));
    let engine = engine(dir, parent, Duration::from_secs(5), events);
    let scripts = [
        "echo early",
        "while ! [ -e go ]; do sleep 0.02; done; echo late; grep Cpus_allowed: /proc/self/status",
        "sleep 1000",
    ];
    for (number, script) in (1..).zip(scripts) {
        engine.start(bare_spec(number, script)).unwrap();
    }
    let (mut started, mut ended) = (0, 0);
    while started < 3 || ended < 1 {
        match heard.recv_timeout(DEADLINE).unwrap() {
            EngineEvent::Started { .. } => started += 1,
            EngineEvent::Ended { .. } => ended += 1,
            EngineEvent::Paused { .. }
            | EngineEvent::Resumed { .. }
            | EngineEvent::Saved { .. } => {}
        }
    }
    // Who takes it over does not know of this; the answer comes when it is done.
    let late = bare_spec(2, scripts[1]).attempt;
    engine.place(late, own_processors().pop());
    engine.usage(late).unwrap();
    println!("ready");
    loop {
        engine.beat(60_000);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Makes an empty file in every scratch directory, whichever it is that waits for it.
fn write_to_all(cages: &Path, name: &str) {
    for cage in std::fs::read_dir(cages).unwrap().flatten() {
        // That of one which has ended may go meanwhile.
        match std::fs::write(cage.path().join(name), "") {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            written => written.unwrap(),
        }
    }
}

/// What `/proc/PID/status` says of where this process may run.
fn own_mask() -> String {
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = own.lines().find(|line| line.starts_with("Cpus_allowed:"));
    line.unwrap().to_owned()
}

/// An agent of a later version: what the shim cannot know it passes over, an attempt that it cannot
/// begin is given back, and the order after that is obeyed.
fn speak_another_version(path: &Path) {
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, connect, recv, send,
        socket,
    };
    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    let hear = || {
        let mut buffer = vec![0; 100_000];
        let (_, length) = recv(&socket, &mut buffer[..], RecvFlags::empty()).unwrap();
        buffer.truncate(length);
        String::from_utf8(buffer).unwrap()
    };
    assert!(hear().contains("Running"));
    for order in [
        r#"{"Beat":{"lease_left_ms":60000}}"#,
        r#""Dance""#,
        r#"{"Sing":{"attempt":"2.0.1","loudly":true}}"#,
        r#"{"Control":{"attempt":"2.0.1","control":"Dance"}}"#,
        r#"{"Start":{"bay":900,"spec":{"attempt":"9.0.1","in":"another way"}}}"#,
        r#"{"Usage":{"attempt":"2.0.1","ask":77}}"#,
    ] {
        send(&socket, order.as_bytes(), SendFlags::empty()).unwrap();
    }
    let refused = hear();
    assert!(refused.contains("9.0.1") && refused.contains("another version"));
    let used = hear();
    assert!(
        used.contains("77") && used.contains("cpu_seconds"),
        "{used}"
    );
}

fn adoption() {
    let dir = tempfile::tempdir().unwrap();
    let parent = group_parent();
    let mut first = Command::new(std::env::current_exe().unwrap())
        .arg("__agent")
        .arg(dir.path())
        .arg(&parent)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(first.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    first.kill().unwrap();
    first.wait().unwrap();

    speak_another_version(&dir.path().join("bundles/1/socket"));

    let (say, heard) = channel();
    let say = Mutex::new(say);
    let events: Events = Arc::new(move |event| drop(say.lock().unwrap().send(event)));
    let engine = engine(dir.path(), &parent, Duration::from_secs(5), events);
    let mut adopted = engine.adopt().unwrap();
    adopted.sort_by_key(|one| one.spec.attempt);
    engine.beat(60_000);
    assert_eq!(adopted.len(), 3);
    let scripts: Vec<&str> = adopted
        .iter()
        .map(|one| one.spec.command[2].as_str())
        .collect();
    assert!(
        scripts[0].contains("early") && scripts[1].contains("late"),
        "{scripts:?}"
    );
    assert!(adopted.iter().all(|one| one.started.is_some()));
    let ending = adopted[0].ending.as_ref().unwrap();
    assert_eq!(ending.reason, Reason::Exit { code: 0 });
    assert!(adopted[1].ending.is_none() && adopted[2].ending.is_none());
    // Again finds the same bundle in good hands.
    assert_eq!(engine.adopt().unwrap(), Vec::new());

    let late = adopted[1].spec.attempt;
    assert!(engine.usage(late).unwrap().cpu_seconds >= 0.0);
    write_to_all(&dir.path().join("bundles/1/cages"), "go");
    let ended = |wanted| {
        wait_for(&heard, |event| {
            let EngineEvent::Ended { attempt, ending } = event else {
                return None;
            };
            (*attempt == wanted).then(|| ending.reason.clone())
        })
    };
    assert_eq!(ended(late), Reason::Exit { code: 0 });
    let sleeper = adopted[2].spec.attempt;
    let stop = Control::Stop { grace_ms: 0 };
    engine.control(sleeper, stop).unwrap();
    assert_eq!(ended(sleeper), Reason::Cancelled);
    let late = format!("late\n{}\n", own_mask());
    for (one, said) in adopted.iter().zip(["early\n", &late, ""]) {
        let mut files = engine.collect(one.spec.attempt).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut files[0].file, &mut text).unwrap();
        assert_eq!(text, said);
        engine.discard(one.spec.attempt);
    }
    wait_until("the bundle is gone", || {
        engine.beat(60_000);
        std::fs::read_dir(dir.path().join("bundles"))
            .unwrap()
            .count()
            == 0
    });
}

fn host_uid() {
    let dir = tempfile::tempdir().unwrap();
    let make = |events: Events| engine(&dir.path().join("engine"), &group_parent(), BEAT, events);
    let bench = Bench::new(dir.path().to_path_buf(), make);
    let mark = odd_sleep(2);
    let mut specs = [
        bench.script(&format!("exec sleep {mark}")),
        bench.script(&format!("exec sleep {mark}")),
    ];
    specs[1].bundle = specs[0].bundle;
    for spec in &specs {
        bench.start(spec);
    }
    wait_until("both sleep", || processes(&["sleep", &mark]).len() >= 2);
    let mut ids: Vec<u32> = Vec::new();
    for pid in processes(&["sleep", &mark]) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for field in ["Uid:", "Gid:"] {
            let line = status.lines().find(|line| line.starts_with(field)).unwrap();
            let all: Vec<u32> = line
                .split_whitespace()
                .skip(1)
                .map(|id| id.parse().unwrap())
                .collect();
            assert!(all.iter().all(|id| *id == all[0] && *id >= 1000), "{line}");
            ids.push(all[0]);
        }
        assert!(
            status
                .lines()
                .any(|line| line.split_whitespace().eq(["CapEff:", "0000000000000000"]))
        );
        assert!(
            status
                .lines()
                .any(|line| line.split_whitespace().eq(["Seccomp:", "2"]))
        );
    }
    if rustix::process::geteuid().is_root() {
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 2, "each attempt has an id of its own: {ids:?}");
    }
    for spec in &specs {
        bench
            .engine()
            .control(spec.attempt, Control::Stop { grace_ms: 0 })
            .unwrap();
        bench.ending(spec.attempt);
        bench.engine().discard(spec.attempt);
    }
}
