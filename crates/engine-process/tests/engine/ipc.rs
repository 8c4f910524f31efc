//! What System V and POSIX keep beyond the end of a process: nothing of it reaches the next task,
//! nor one that runs beside.

use crate::{engine, group_parent};
use gleaner_engine::conformance::{BEAT, Bench};
use gleaner_engine::{AttemptSpec, Events};
use gleaner_model::LeaseId;
use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;

pub(crate) const TESTS: &[(&str, fn())] = &[(
    "objects that outlive processes do not outlive a task",
    nothing_outlives,
)];

const KEY: libc::key_t = 0x676c_6e72;
const NEW: libc::c_int = libc::IPC_CREAT | libc::IPC_EXCL | 0o666;
const QUEUE: &std::ffi::CStr = c"/left";

/// Runs in the sandbox: makes one object, or looks for all; says in which namespace.
pub(crate) fn payload(word: &str) -> ExitCode {
    match word {
        // SAFETY: takes numbers only.
        "memory" => assert!(unsafe { libc::shmget(KEY, 4096, NEW) } >= 0),
        // SAFETY: takes numbers only.
        "semaphores" => assert!(unsafe { libc::semget(KEY, 1, NEW) } >= 0),
        // SAFETY: takes numbers only.
        "messages" => assert!(unsafe { libc::msgget(KEY, NEW) } >= 0),
        "queue" => {
            // Where there is Landlock it takes a queue for a file in a place that is not ours.
            let made = queue(libc::O_CREAT | libc::O_EXCL);
            let error = std::io::Error::last_os_error().raw_os_error();
            assert!(made >= 0 || error == Some(libc::EACCES), "{error:?}");
            print!("{} ", made >= 0);
        }
        _ => look(),
    }
    let namespace = fs::read_link("/proc/self/ns/ipc").unwrap();
    println!("{}", namespace.display());
    ExitCode::SUCCESS
}

fn queue(flags: libc::c_int) -> libc::mqd_t {
    let (mode, usual) = (0o666, std::ptr::null::<libc::mq_attr>());
    // SAFETY: a C string, and no attributes.
    unsafe { libc::mq_open(QUEUE.as_ptr(), libc::O_RDWR | flags, mode, usual) }
}

fn look() {
    for list in ["shm", "sem", "msg"] {
        let text = fs::read_to_string(format!("/proc/sysvipc/{list}")).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    assert_eq!(queue(0), -1);
}

fn spec(bench: &Bench, word: &str) -> AttemptSpec {
    let mut spec = bench.spec(&["./payload", "__ipc", word]);
    // All in one bundle.
    spec.bundle = LeaseId(1);
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    spec.inputs = vec![bench.input("payload", &own, 0o755)];
    spec
}

fn nothing_outlives() {
    let dir = tempfile::tempdir().unwrap();
    let make = |events: Events| engine(&dir.path().join("engine"), &group_parent(), BEAT, events);
    let bench = Bench::new(dir.path().to_path_buf(), make);
    let run = |word: &str| bench.stdout_of(&spec(&bench, word));
    for word in ["memory", "semaphores", "messages", "queue"] {
        let left = run(word);
        // Which place in the bundle an attempt gets depends on which one is cleaned up by then.
        let found: Vec<_> = (0..6).map(|_| run("look")).collect();
        if !left.starts_with("false ") {
            let same = |found: &String| left.ends_with(found);
            assert!(!found.iter().any(same), "{word} made it unfit for others");
        }
        let places: BTreeSet<_> = found.iter().collect();
        assert!(places.len() < found.len(), "what is empty is used again");
    }
    // Two at a time never meet.
    let beside = [(); 2].map(|()| bench.script("readlink /proc/self/ns/ipc; sleep 600"));
    let mut seen = Vec::new();
    for mut spec in beside {
        spec.bundle = LeaseId(1);
        bench.start(&spec);
        bench.started(spec.attempt);
        bench.spoken(spec.attempt);
        let [mut stdout, _] = bench.engine().streams(spec.attempt).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut text).unwrap();
        seen.push(text);
        if seen.len() == 2 {
            assert_ne!(seen[0], seen[1]);
        }
    }
}
