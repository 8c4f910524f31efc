//! A program that tries to get out, and what became of each try.

use crate::{engine, group_parent};
use gleaner_engine::Events;
use gleaner_engine::conformance::{BEAT, Bench};
use gleaner_model::{Bytes, LimitKind, LimitRecord, Reason};
use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("hostile calls are refused and counted", calls_are_refused),
    (
        "what the kernel counts for us stays ours",
        counts_are_bounded,
    ),
    (
        "descriptors on their way hide no disk space",
        nothing_is_hidden,
    ),
    (
        "directories too deep to measure are told as what they are",
        too_deep,
    ),
];

/// One try: what it is called, and what the kernel said (0 for success).
type Try = (&'static str, fn() -> i64);

macro_rules! call {
    ($name:literal, $($argument:expr),+) => {
        ($name, || {
            // SAFETY: made to be refused before it does anything; none has a valid pointer that
            // the kernel would write to.
            unsafe { libc::syscall($($argument),+) }
        })
    };
}

const NEWUSER: i32 = libc::CLONE_NEWUSER;

const TRIES: &[Try] = &[
    call!("ptrace", libc::SYS_ptrace, 0, 0, 0, 0),
    call!(
        "process_vm_readv",
        libc::SYS_process_vm_readv,
        1,
        0,
        0,
        0,
        0,
        0
    ),
    call!(
        "mount",
        libc::SYS_mount,
        c"none".as_ptr(),
        c"/scratch".as_ptr(),
        c"tmpfs".as_ptr(),
        0,
        0
    ),
    call!("umount2", libc::SYS_umount2, c"/.outside".as_ptr(), 2),
    call!(
        "pivot_root",
        libc::SYS_pivot_root,
        c".".as_ptr(),
        c".".as_ptr()
    ),
    call!("chroot", libc::SYS_chroot, c"/scratch".as_ptr()),
    call!("fsopen", libc::SYS_fsopen, c"tmpfs".as_ptr(), 0),
    call!("unshare", libc::SYS_unshare, NEWUSER),
    call!("setns", libc::SYS_setns, 0, 0),
    call!(
        "clone",
        libc::SYS_clone,
        NEWUSER | libc::SIGCHLD,
        0,
        0,
        0,
        0
    ),
    call!("bpf", libc::SYS_bpf, 0, 0, 0),
    call!(
        "perf_event_open",
        libc::SYS_perf_event_open,
        0,
        0,
        -1,
        -1,
        0
    ),
    call!("keyctl", libc::SYS_keyctl, 0, -3, 0),
    call!("add_key", libc::SYS_add_key, 0, 0, 0, 0, 0),
    call!("userfaultfd", libc::SYS_userfaultfd, 0),
    call!("io_uring_setup", libc::SYS_io_uring_setup, 1, 0),
    call!("open_by_handle_at", libc::SYS_open_by_handle_at, -100, 0, 0),
    call!("init_module", libc::SYS_init_module, 0, 0, 0),
    call!("kexec_load", libc::SYS_kexec_load, 0, 0, 0, 0),
    call!("reboot", libc::SYS_reboot, 0, 0, 0, 0),
    call!("sethostname", libc::SYS_sethostname, c"x".as_ptr(), 1),
    call!("settimeofday", libc::SYS_settimeofday, 0, 0),
    call!("sched_setscheduler", libc::SYS_sched_setscheduler, 0, 0, 0),
    call!("ioprio_set", libc::SYS_ioprio_set, 1, 0, 2 << 13),
    call!("syslog", libc::SYS_syslog, 3, 0, 0),
    // Local, hypervisor, kernel, raw: only the first kind is for tasks.
    call!("socket", libc::SYS_socket, 40, 1, 0),
    call!("socket", libc::SYS_socket, 16, 3, 0),
    call!("socket", libc::SYS_socket, 17, 3, 0),
    // Protocols for which the kernel would load a module.
    call!("socket", libc::SYS_socket, 2, 5, 132),
    call!("socket", libc::SYS_socket, 10, 6, 33),
    call!("ioctl", libc::SYS_ioctl, 0, 0x5412, 0),
    call!("seccomp", libc::SYS_seccomp, 1, 8, 0),
    call!("prctl", libc::SYS_prctl, 62, 1, 0, 0, 0),
    call!("personality", libc::SYS_personality, 0x8),
];

/// Run in the sandbox: prints `name errno` for each try, and what else is to be known.
pub(crate) fn main() -> ExitCode {
    let said = |result: i64| {
        if result < 0 {
            io::Error::last_os_error().raw_os_error().unwrap_or(-1)
        } else {
            0
        }
    };
    for (name, attempt) in TRIES {
        println!("{name} {}", said(attempt()));
    }
    let others: &[Try] = &[
        call!("clone3", libc::SYS_clone3, 0, 0),
        #[cfg(target_arch = "x86_64")]
        call!("x32", libc::SYS_getpid | 0x4000_0000),
        call!("unknown", 5000),
        call!("unix", libc::SYS_socket, 1, 1, 0),
        call!("inet", libc::SYS_socket, 2, 1, 0),
        call!("inet6", libc::SYS_socket, 10, 1, 0),
        call!("root", libc::SYS_setuid, 0),
    ];
    for (name, attempt) in others {
        println!("{name} {}", said(attempt()));
    }
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger",
    ] {
        let open = std::fs::File::options().write(true).open(path);
        // Where the kernel has it, null may lie over it.
        let null = |file: &std::fs::File| {
            use std::os::unix::fs::FileTypeExt as _;
            file.metadata()
                .is_ok_and(|meta| meta.file_type().is_char_device())
        };
        println!(
            "write:{path} {}",
            i32::from(open.as_ref().map_or(true, null))
        );
    }
    let loopback = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| std::net::TcpStream::connect(listener.local_addr()?));
    println!("loopback {}", i32::from(loopback.is_err()));
    let outside = std::net::TcpStream::connect("192.0.2.1:80");
    println!("outside {}", i32::from(outside.is_err()));
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let processes =
        processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    println!("processes {}", processes.count());
    println!(
        "hidden {}",
        std::fs::read_dir("/.outside").map_or(0, Iterator::count)
    );
    // How often a key was pressed is among them.
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let interrupts = stat.lines().find(|line| line.starts_with("intr "));
    let counted = interrupts.map_or(0, |line| line.split(' ').skip(2).count());
    println!("interrupts {counted}");
    println!("cpus {}", stat.matches("cpu").count());
    // SAFETY: takes no arguments.
    println!("uid {}", unsafe { libc::getuid() });
    ExitCode::SUCCESS
}

pub(crate) fn calls_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let make = |events: Events| engine(&dir.path().join("engine"), &group_parent(), BEAT, events);
    let bench = Bench::new(dir.path().to_path_buf(), make);
    let mut spec = bench.spec(&["./hostile", "__hostile"]);
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    spec.inputs = vec![bench.input("hostile", &own, 0o755)];
    let (ending, files) = bench.run(&spec);
    let files = files.unwrap();
    let stdout = String::from_utf8_lossy(&files["stdout"]);
    let stderr = String::from_utf8_lossy(&files["stderr"]);
    assert_eq!(ending.reason, Reason::Exit { code: 0 }, "{stdout}{stderr}");
    let mut said: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for line in stdout.lines() {
        let (name, number) = line.split_once(' ').unwrap();
        said.entry(name).or_default().push(number.parse().unwrap());
    }
    for (name, _) in TRIES.iter().filter(|(name, _)| *name != "personality") {
        let all = &said[name];
        assert!(
            all.iter().all(|error| *error == libc::EPERM),
            "{name}: {all:?}"
        );
        let counted = ending.refused_calls.get(*name).copied();
        assert_eq!(
            counted,
            Some(all.len() as u64),
            "{name}: {:?}",
            ending.refused_calls
        );
    }
    for name in ["clone3", "unknown"] {
        assert_eq!(said[name], [libc::ENOSYS], "{name}");
    }
    for name in ["unix", "inet", "loopback", "personality", "hidden"] {
        assert_eq!(said[name], [0], "{name}");
    }
    // A kernel without it says so itself.
    assert!(matches!(said["inet6"][..], [0 | libc::EAFNOSUPPORT]));
    let writes = said.iter().filter(|(name, _)| name.starts_with("write:"));
    assert!(writes.clone().count() == 3 && writes.clone().all(|(_, error)| *error == [1]));
    assert_eq!(said["outside"], [1]);
    assert_eq!(said["interrupts"], [0]);
    assert_ne!(said["cpus"], [0]);
    assert_ne!(said["root"], [0]);
    assert_eq!(said["processes"], [2], "itself and its init");
    assert!(said["uid"][0] >= 1000);
}

/// Takes as much as there is of what the kernel counts for each user; says how much that was.
const TAKES_ALL: &str = "
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def count(call):
    at = 0
    while at < 5000 and call() >= 0: at += 1
    return at
print(count(lambda: libc.inotify_init1(0)))
timer = ctypes.c_void_p()
print(count(lambda: libc.timer_create(1, None, ctypes.byref(timer))))
";

fn counts_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let make = |events: Events| engine(&dir.path().join("engine"), &group_parent(), BEAT, events);
    let bench = Bench::new(dir.path().to_path_buf(), make);
    let mut spec = bench.spec(&["/usr/bin/python3", "takes_all.py"]);
    spec.inputs = vec![bench.input("takes_all.py", TAKES_ALL.as_bytes(), 0o644)];
    let text = bench.stdout_of(&spec);
    let counts: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    // As many as programs need, and a small part of what a user has.
    let [inotify, timers] = counts[..] else {
        panic!("{text}")
    };
    assert!((8..=16).contains(&inotify), "{inotify}");
    assert!((100..=1024).contains(&timers), "{timers}");
}

/// Files without a name, whose descriptors lie in a socket.
const HIDES: &str = "
import os, socket, time
ours, theirs = socket.socketpair()
for at in range(200):
    file = os.open('f', os.O_CREAT | os.O_RDWR)
    os.unlink('f')
    for _ in range(16): os.write(file, b'x' * (1 << 20))
    os.fsync(file)
    socket.send_fds(ours, [b'x'], [file])
    os.close(file)
    time.sleep(0.05)
time.sleep(60)
";

fn nothing_is_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let make = |events: Events| engine(&dir.path().join("engine"), &group_parent(), BEAT, events);
    let bench = Bench::new(dir.path().to_path_buf(), make);
    let mut spec = bench.spec(&["/usr/bin/python3", "hides.py"]);
    spec.inputs = vec![bench.input("hides.py", HIDES.as_bytes(), 0o644)];
    spec.limits.disk = Bytes(96 << 20);
    let (ending, _) = bench.run(&spec);
    let limit = LimitKind::Disk;
    assert_eq!(ending.reason, Reason::Limit { limit }, "{ending:?}");
}

/// Directories whose names together are longer than any path may be.
const DIGS: &str = "
import os, time
for _ in range(40):
    os.mkdir('d' * 200)
    os.chdir('d' * 200)
time.sleep(60)
";

fn too_deep() {
    let dir = tempfile::tempdir().unwrap();
    let make = |events: Events| engine(&dir.path().join("engine"), &group_parent(), BEAT, events);
    let bench = Bench::new(dir.path().to_path_buf(), make);
    let mut spec = bench.spec(&["/usr/bin/python3", "digs.py"]);
    spec.inputs = vec![bench.input("digs.py", DIGS.as_bytes(), 0o644)];
    let (ending, _) = bench.run(&spec);
    let Reason::Engine { detail } = &ending.reason else {
        panic!("{ending:?}")
    };
    assert!(detail.contains("directories lie too deep"), "{detail}");
    let passed = |record: &LimitRecord| record.limit == LimitKind::Disk && record.at.is_some();
    assert!(!ending.limits.iter().any(passed), "{ending:?}");
}
