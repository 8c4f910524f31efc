//! What is done to all tasks at once, what single ones are held to, and tasks that mean ill: the
//! owner's side of the engine.

use crate::{engine, engine_with, group_parent};
use gleaner_engine::conformance::{BEAT, Bench, DEADLINE, is_held};
use gleaner_engine::{Allowance, AttemptSpec, Control, Ending, EngineEvent, Events};
use gleaner_engine_process::domain_name;
use gleaner_model::{Bytes, Cpus, LimitKind, Rate, Reason};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("all tasks are held at once and can still be stopped", held),
    ("all tasks together are bounded", bounded),
    ("the engines of an agent have one group", one_group),
    ("all threads of a task are held to a processor", placed),
    ("a task keeps to its disk rate", disk_rate),
    (
        "a task that reads its memory back too often goes",
        page_faults,
    ),
    ("what a task asks of the kernel is counted", asked),
    ("a task is last in everything, and stays so", last),
    ("ten thousand threads, all syncing", threads),
    ("huge pages only where a program asks for them", huge_pages),
    ("memory taken back is what it is said to be", taken_back),
];

const MIB: usize = 1 << 20;

/// Runs in the sandbox.
pub(crate) fn payload(word: &str) -> ExitCode {
    match word {
        "write" => write_cached(),
        "fault" => fault(),
        "threads" => spawn_threads(),
        "crew" => crew(),
        "rise" => rise(),
        "pages" => touch_pages(),
        "hoard" => hoard(),
        other => panic!("{other}?"),
    }
    ExitCode::SUCCESS
}

/// 64 MiB by way of the page cache, as most programs write, and then onto the disk.
fn write_cached() {
    let mut file = File::create("written").unwrap();
    let block = vec![7; MIB];
    for _ in 0..64 {
        file.write_all(&block).unwrap();
        // Longer than one look: a program that is over before anybody looks is not slowed.
        std::thread::sleep(Duration::from_millis(1));
    }
    file.sync_all().unwrap();
}

/// Maps a file that lies on disk only and touches it here and there, again and again.
fn fault() {
    const LENGTH: usize = 64 * MIB;
    let mut file = File::create_new("mapped").unwrap();
    for _ in 0..LENGTH / MIB {
        file.write_all(&vec![1; MIB]).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    let file = File::open("mapped").unwrap();
    loop {
        let (map, fd) = (libc::MAP_SHARED, file.as_raw_fd());
        // SAFETY: a new mapping of a file that nobody changes.
        let all = unsafe { libc::mmap(std::ptr::null_mut(), LENGTH, libc::PROT_READ, map, fd, 0) };
        assert_ne!(all, libc::MAP_FAILED);
        // SAFETY: the mapping is ours and of this length.
        unsafe { libc::madvise(all, LENGTH, libc::MADV_RANDOM) };
        // SAFETY: the mapping is ours, readable and of this length until it is undone below.
        let bytes = unsafe { std::slice::from_raw_parts(all.cast::<u8>(), LENGTH) };
        let sum: u64 = bytes
            .iter()
            .step_by(64 * 1024)
            .copied()
            .map(u64::from)
            .sum();
        assert!(sum > 0);
        // SAFETY: nothing refers to the mapping any more.
        unsafe { libc::munmap(all, LENGTH) };
        // SAFETY: takes numbers only. Nothing maps the file now, so its pages go.
        unsafe { libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
}

/// As many threads as it may have, each of which syncs, writes and takes memory in bursts.
fn spawn_threads() {
    let mut got = 0;
    for _ in 0..10_000 {
        let thread = std::thread::Builder::new().stack_size(64 << 10);
        let work = || {
            loop {
                // SAFETY: takes no arguments.
                unsafe { libc::sync() };
                std::hint::black_box(vec![1_u8; MIB]);
            }
        };
        match thread.spawn(work) {
            Ok(_) => got += 1,
            Err(_) => break,
        }
    }
    // SAFETY: takes no arguments.
    unsafe { libc::sync() };
    println!("{got}");
}

/// Some threads that stay, and one that is always another.
fn crew() {
    for _ in 0..8 {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
    println!("ready");
    loop {
        std::thread::spawn(|| {}).join().unwrap();
    }
}

/// Every way up that a program has: each must fail or change nothing.
fn rise() {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: takes numbers only.
    let nice = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -5) };
    // SAFETY: the pointer is to a whole sched_param.
    let policy = unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameter) };
    // SAFETY: takes numbers only.
    let disk = unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, 2 << 13) };
    let tried = [
        ("nice", nice.into()),
        ("policy", policy.into()),
        ("disk", disk),
    ];
    for (what, result) in tried {
        println!("{what} {result}");
    }
    let lowered = fs::write("/proc/self/oom_score_adj", "0");
    println!("oom {}", if lowered.is_ok() { 0 } else { -1 });
    let left = fs::write("/sys/fs/cgroup/cgroup.procs", "0");
    println!("group {}", if left.is_ok() { 0 } else { -1 });
}

/// A figure of `/proc/self/smaps_rollup`, in bytes.
fn own_memory(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.unwrap().split_whitespace().next().unwrap();
    kib.parse::<u64>().unwrap() << 10
}

/// So many bytes of fresh memory, touched; `asks` for huge pages first.
fn fresh_memory(bytes: usize, asks: bool) -> &'static mut [u8] {
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping that nothing else refers to.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    if asks {
        // SAFETY: the mapping is ours and of this length.
        unsafe { libc::madvise(at, bytes, libc::MADV_HUGEPAGE) };
    }
    // SAFETY: the mapping is ours, writable, of this length, and never undone.
    let all = unsafe { std::slice::from_raw_parts_mut(at.cast::<u8>(), bytes) };
    all.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    all
}

/// Memory with and without the wish for huge pages, and what the kernel says of the process.
fn touch_pages() {
    let _plain = fresh_memory(64 * MIB, false);
    println!("plain {}", own_memory("AnonHugePages:"));
    let _asked = fresh_memory(64 * MIB, true);
    println!("asked {}", own_memory("AnonHugePages:"));
    // SAFETY: takes numbers only.
    let off = unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) };
    println!("off {off}");
}

/// Holds 32 MiB that it uses and 64 MiB of a file that it has read, and talks.
fn hoard() {
    let used = fresh_memory(32 * MIB, false);
    let mut file = File::create_new("hoarded").unwrap();
    for _ in 0..64 {
        file.write_all(&vec![1; MIB]).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    assert_eq!(fs::read("hoarded").unwrap().len(), 64 * MIB);
    loop {
        let sum: u64 = used.iter().step_by(4096).copied().map(u64::from).sum();
        println!("{sum}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn bench(dir: &Path) -> Bench {
    let make = |events: Events| engine(&dir.join("engine"), &group_parent(), BEAT, events);
    Bench::new(dir.to_path_buf(), make)
}

fn spec(bench: &Bench, word: &str) -> AttemptSpec {
    let mut spec = bench.spec(&["./payload", "__payload", word]);
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    spec.inputs = vec![bench.input("payload", &own, 0o755)];
    spec
}

fn length(bench: &Bench, spec: &AttemptSpec) -> u64 {
    let [stdout, _] = bench.engine().streams(spec.attempt).unwrap();
    stdout.metadata().unwrap().len()
}

fn until(what: &str, mut met: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !met() {
        assert!(Instant::now() < end, "{what} never came true");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn held() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path());
    let chatter = || bench.script("while :; do echo x; sleep 0.005; done & while :; do :; done");
    let all = [chatter(), chatter()];
    for spec in &all {
        bench.start(spec);
        bench.started(spec.attempt);
        until("it talks", || length(&bench, spec) > 0);
    }
    let lengths = || all.each_ref().map(|spec| length(&bench, spec));
    let still = |what: &str| {
        let mut last = lengths();
        // They may be on their way to a stop; then nothing may move for a while.
        until(what, || {
            // On purpose: a span in which nothing may move.
            std::thread::sleep(Duration::from_millis(150));
            let now = lengths();
            std::mem::replace(&mut last, now) == now
        });
    };
    bench.engine().hold(true);
    still("all stand still");
    bench.engine().hold(false);
    let before = lengths();
    until("all go on", || {
        lengths().iter().zip(before).all(|(now, then)| *now > then)
    });
    // Frozen one by one below the hold, as the agent does; then one is given back.
    bench.engine().hold(true);
    let control = |spec: &AttemptSpec, control| {
        bench.engine().control(spec.attempt, control).unwrap();
    };
    for spec in &all {
        control(spec, Control::Pause);
        bench.wait(spec.attempt, |event| {
            matches!(event, EngineEvent::Paused { .. }).then_some(())
        });
    }
    let before = lengths();
    control(&all[0], Control::Stop { grace_ms: 60_000 });
    assert_eq!(bench.ending(all[0].attempt).reason, Reason::Cancelled);
    // On purpose: a span in which nothing may move.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(lengths()[1], before[1], "the other one stays frozen");
    bench.engine().hold(false);
    control(&all[1], Control::Resume);
    until("it goes on", || length(&bench, &all[1]) > before[1]);
    control(&all[1], Control::Stop { grace_ms: 0 });
    bench.ending(all[1].attempt);
    for spec in &all {
        bench.engine().discard(spec.attempt);
    }
}

fn placed() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path());
    is_held(&bench, &spec(&bench, "crew"));
}

fn allowance(milli: u32, io_permille: u16) -> Allowance {
    Allowance {
        cpus: Cpus { milli },
        io_permille,
        memory: Some(Bytes(8 << 30)),
    }
}

fn bounded() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path());
    let mut spec = bench.script(
        "grep Cpus_allowed_list /proc/self/status; \
         (while :; do :; done) & (while :; do :; done) & \
         until [ -e /tmp/x ]; do sleep 0.05; grep Cpus_allowed_list /proc/self/status; done",
    );
    spec.limits.cpus = Cpus { milli: 64_000 };
    bench.start(&spec);
    bench.started(spec.attempt);
    until("it talks", || length(&bench, &spec) > 0);
    bench.engine().allow(&allowance(500, 1000));
    let cpu = || bench.engine().usage(spec.attempt).unwrap().cpu_seconds;
    // The kernel hands out a tenth of a second at a time, and the word goes through a shim.
    until("it is slowed", || {
        let (start, before) = (Instant::now(), cpu());
        // On purpose: a span to measure in.
        std::thread::sleep(Duration::from_millis(500));
        (cpu() - before) / start.elapsed().as_secs_f64() < 0.75
    });
    let last = || last_word(&bench, &spec);
    let whole = std::thread::available_parallelism().unwrap().get();
    if whole > 1 && Path::new("/sys/fs/cgroup/cpuset").exists() {
        until("one processor is left to it", || {
            last().parse::<u32>().is_ok()
        });
        bench.engine().allow(&allowance(64_000, 1000));
        until("all are back", || last().parse::<u32>().is_err());
    }
    bench
        .engine()
        .control(spec.attempt, Control::Stop { grace_ms: 0 })
        .unwrap();
    bench.ending(spec.attempt);
    bench.engine().discard(spec.attempt);
    assert!(bench.engine().reclaim() < u64::MAX);
    assert!(bench.engine().memory_now().is_some());
}

/// What one engine does to all tasks reaches those of another that shares its group, and is not
/// undone when that one goes.
fn one_group() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| {
        let home = dir.path().join(name);
        fs::create_dir(&home).unwrap();
        let place = home.join("engine");
        let make = |events: Events| {
            engine_with(&place, &group_parent(), events, |config| {
                config.beat = BEAT;
                config.domain = Some(domain_name(dir.path()));
            })
        };
        Bench::new(home.clone(), make)
    };
    let (first, second) = (of("first"), of("second"));
    let group = first.engine().group();
    assert!(group.is_some() && group == second.engine().group());
    let spec =
        second.script("while :; do grep Cpus_allowed_list /proc/self/status; sleep 0.005; done");
    second.start(&spec);
    second.started(spec.attempt);
    until("it talks", || length(&second, &spec) > 0);
    until("both count its memory", || {
        let [own, other] = [&second, &first].map(|bench| bench.engine().memory_now().unwrap());
        own > 0 && other > 0
    });
    first.engine().hold(true);
    let mut last = 0;
    until("it stands still", || {
        // On purpose: a span in which nothing may move.
        std::thread::sleep(Duration::from_millis(150));
        let now = length(&second, &spec);
        std::mem::replace(&mut last, now) == now
    });
    first.engine().hold(false);
    until("it goes on", || length(&second, &spec) > last);
    let whole = std::thread::available_parallelism().unwrap().get();
    if whole > 1 && Path::new("/sys/fs/cgroup/cpuset").exists() {
        first.engine().allow(&allowance(1000, 1000));
        until("one processor is left to it", || {
            last_word(&second, &spec).parse::<u32>().is_ok()
        });
        first.engine().allow(&allowance(64_000, 1000));
    }
    drop(first);
    let control = Control::Stop { grace_ms: 0 };
    second.engine().control(spec.attempt, control).unwrap();
    second.ending(spec.attempt);
    second.engine().discard(spec.attempt);
    let (ending, _) = second.run(&second.spec(&["true"]));
    assert_eq!(ending.reason, Reason::Exit { code: 0 });
}

/// The last word of a task's standard output so far.
fn last_word(bench: &Bench, spec: &AttemptSpec) -> String {
    let [mut stdout, _] = bench.engine().streams(spec.attempt).unwrap();
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    let word = text.split_whitespace().last();
    word.unwrap_or_default().to_owned()
}

fn action(ending: &Ending, limit: LimitKind) -> &str {
    let found = ending.limits.iter().find(|record| record.limit == limit);
    found.map_or("", |record| record.action.as_str())
}

fn disk_rate() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path());
    let mut limited = spec(&bench, "write");
    limited.limits.disk_io = Some(Rate(16 << 20));
    let (ending, _) = bench.run(&limited);
    assert_eq!(ending.reason, Reason::Exit { code: 0 });
    // Four seconds' worth; what one look lets pass is paid back before the next.
    assert!(ending.wall_seconds > 2.0, "{ending:?}");
    assert!(
        ending.paused_seconds < 1.0,
        "slowed, not paused: {ending:?}"
    );
    // Where the kernel holds it by itself, it does not say so.
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert_eq!(action(&ending, LimitKind::DiskIo), "slowed", "{ending:?}");
    }
    // The same by what the owner feels: a fifth of a plain disk.
    bench.engine().allow(&allowance(64_000, 200));
    let (ending, _) = bench.run(&spec(&bench, "write"));
    assert_eq!(ending.reason, Reason::Exit { code: 0 });
    assert!(ending.wall_seconds > 2.0, "{ending:?}");
}

fn page_faults() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path());
    let mut spec = spec(&bench, "fault");
    spec.limits.page_faults = Some(20);
    bench.start(&spec);
    bench.wait(spec.attempt, |event| {
        matches!(event, EngineEvent::Paused { .. }).then_some(())
    });
    let ending = bench.ending(spec.attempt);
    bench.engine().discard(spec.attempt);
    assert!(
        matches!(ending.reason, Reason::Evicted { .. }),
        "{ending:?}"
    );
    assert!(ending.usage.page_faults > 20, "{ending:?}");
    assert_eq!(
        action(&ending, LimitKind::PageFaults),
        "paused, then evicted"
    );
}

/// Two hundred children of a shell, each of which touches some memory and is waited for.
fn asked() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path());
    let forks = bench.script("i=0; while [ $i -lt 200 ]; do ( : ); i=$((i+1)); done");
    let (ending, _) = bench.run(&forks);
    assert_eq!(ending.reason, Reason::Exit { code: 0 });
    let used = ending.usage;
    assert!(used.minor_faults > 200 && used.waits > 20, "{used:?}");
    assert!(used.system_seconds > 0.0, "{used:?}");
    // Groups may count CPU time in ticks.
    assert!(used.system_seconds <= used.cpu_seconds + 0.02, "{used:?}");
}

fn last() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path());
    let (ending, files) = bench.run(&spec(&bench, "rise"));
    let said = files.unwrap().remove("stdout").unwrap();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(
        said, "nice -1\npolicy -1\ndisk -1\noom -1\ngroup -1\n",
        "{ending:?}"
    );
    let mark = format!("{}", 70_000_000 + u64::from(std::process::id()));
    let sleeper = bench.spec(&["sleep", &mark]);
    bench.start(&sleeper);
    bench.started(sleeper.attempt);
    let pid = || process(&format!("sleep\0{mark}\0"));
    until("it sleeps", || pid().is_some());
    let proc = pid().unwrap();
    let text = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
    assert_eq!(text("oom_score_adj").trim(), "1000");
    // Field 41 of proc_pid_stat(5), counted after the command; 5 is SCHED_IDLE.
    let stat = text("stat");
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    assert_eq!(fields[38], "5", "{stat}");
    let id: i32 = proc.file_name().unwrap().to_str().unwrap().parse().unwrap();
    // SAFETY: takes numbers only.
    let class = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, id) } >> 13;
    assert_eq!(class, 3, "the idle class");
    let merges = text("ksm_stat");
    assert!(!merges.contains("ksm_merge_any: yes"), "{merges}");
    swaps_never(&text("cgroup"));
    bench
        .engine()
        .control(sleeper.attempt, Control::Stop { grace_ms: 0 })
        .unwrap();
    bench.ending(sleeper.attempt);
    bench.engine().discard(sleeper.attempt);
}

/// The directory in `/proc` of the process with this command line.
fn process(wanted: &str) -> Option<PathBuf> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let line = |path: &Path| fs::read_to_string(path.join("cmdline")).unwrap_or_default();
    entries
        .map(|entry| entry.path())
        .find(|path| line(path) == wanted)
}

fn huge_pages() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path());
    let (ending, files) = bench.run(&spec(&bench, "pages"));
    assert_eq!(ending.reason, Reason::Exit { code: 0 });
    let said = String::from_utf8(files.unwrap().remove("stdout").unwrap()).unwrap();
    let figure = |name: &str| -> u64 {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let setting = setting.unwrap_or_else(|_| "[never]".to_owned());
    // 1: off, 2: but for memory that a program asked for; kernels before 6.18 know only the
    // first and are left as they are.
    let told_apart = figure("off") == 3;
    assert!(told_apart || figure("off") == 0, "{said}");
    if told_apart || !setting.contains("[always]") {
        assert_eq!(figure("plain"), 0, "{said}");
    }
    let asked = figure("asked");
    assert!(asked <= 64 << 20, "{said}");
    assert!(asked == 0 || !setting.contains("[never]"), "{said}");
}

/// Bytes that the group of this process holds: all of it, and of that files which the kernel can
/// drop; none where no group counts memory.
fn held_by_group(process: &Path) -> Option<[u64; 2]> {
    let groups = fs::read_to_string(process.join("cgroup")).ok()?;
    let line = |name: &str| groups.lines().find_map(|line| line.split_once(name));
    let (dir, usage, keys) = match line(":memory:") {
        Some((_, path)) => (
            format!("/sys/fs/cgroup/memory{path}"),
            "memory.usage_in_bytes",
            ["total_cache ", "total_shmem "],
        ),
        None => (
            format!("/sys/fs/cgroup{}", line("0::")?.1),
            "memory.current",
            ["file ", "shmem "],
        ),
    };
    let read = |file: &str| fs::read_to_string(format!("{dir}/{file}")).ok();
    let stat = read("memory.stat")?;
    let [files, shared] = keys.map(|key| {
        let rest = stat.lines().find_map(|line| line.strip_prefix(key));
        rest.and_then(|rest| rest.parse::<u64>().ok()).unwrap_or(0)
    });
    Some([read(usage)?.trim().parse().ok()?, files - shared])
}

fn taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path());
    let mut spec = spec(&bench, "hoard");
    let mark = std::process::id().to_string();
    spec.command.push(mark.clone());
    bench.start(&spec);
    bench.started(spec.attempt);
    until("it talks", || length(&bench, &spec) > 0);
    let pid = process(&format!("./payload\0__payload\0hoard\0{mark}\0")).unwrap();
    if let Some([before, files]) = held_by_group(&pid) {
        let now = bench.engine().memory_now().unwrap();
        assert!(now >= 32 << 20, "what it uses is counted: {now}");
        assert!(now + files < before + (8 << 20), "files are not: {now}");
        let said = bench.engine().reclaim();
        let [after, left] = held_by_group(&pid).unwrap();
        // Half at least where there was something to drop: files in memory cannot be.
        if files > 32 << 20 {
            assert!(left < files / 2 + (8 << 20), "{files} to {left}");
            let freed = before.saturating_sub(after);
            assert!(said.abs_diff(freed) < 8 << 20, "{said} said, {freed} freed");
        }
        // What it uses stays, and it goes on with it.
        assert!(bench.engine().memory_now().unwrap() >= 32 << 20);
        let talked = length(&bench, &spec);
        until("it goes on", || length(&bench, &spec) > talked);
    }
    bench
        .engine()
        .control(spec.attempt, Control::Stop { grace_ms: 0 })
        .unwrap();
    bench.ending(spec.attempt);
    bench.engine().discard(spec.attempt);
}

/// Reads back what keeps the group with these lines of `/proc/PID/cgroup` out of swap.
fn swaps_never(groups: &str) {
    let line = |name: &str| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            (parts.next()? == name).then(|| parts.next()).flatten()
        })
    };
    let read = |path: String| fs::read_to_string(path).map(|text| text.trim().to_owned());
    if let Some(path) = line("memory") {
        let dir = format!("/sys/fs/cgroup/memory{path}");
        assert_eq!(read(format!("{dir}/memory.swappiness")).unwrap(), "0");
        // Where swap is accounted for, the two together are no larger than memory alone.
        if let Ok(both) = read(format!("{dir}/memory.memsw.limit_in_bytes")) {
            assert_eq!(both, read(format!("{dir}/memory.limit_in_bytes")).unwrap());
        }
    } else if let Some(path) = line("") {
        let max = read(format!("/sys/fs/cgroup{path}/memory.swap.max"));
        assert_eq!(max.unwrap_or_else(|_| "0".to_owned()), "0");
    }
}

fn threads() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path());
    let mut spec = spec(&bench, "threads");
    spec.limits.processes = 48;
    spec.limits.memory = Bytes(256 << 20);
    let (ending, files) = bench.run(&spec);
    assert_eq!(ending.reason, Reason::Exit { code: 0 });
    let said = files.unwrap().remove("stdout").unwrap();
    let got: u32 = String::from_utf8(said).unwrap().trim().parse().unwrap();
    assert!(got < 48, "{got} threads");
    assert_eq!(action(&ending, LimitKind::Processes), "fork failed");
    assert!(ending.refused_calls.contains_key("sync"), "{ending:?}");
}
