//! The module on made-up trees, and on whatever the kernel under the test really has.

use super::*;
use gleaner_engine::Level;
use gleaner_model::{Bytes, Cpus, Rate};
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// A directory with files of the given contents.
fn plant(dir: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(dir).unwrap();
    for (name, text) in files {
        fs::write(dir.join(name), text).unwrap();
    }
}

fn options(root: &Path, own: &str) -> DetectOptions {
    DetectOptions {
        root: root.to_path_buf(),
        parent_name: "g.slice".to_owned(),
        domain: None,
        own: own.to_owned(),
        ask_systemd: false,
    }
}

const LEAF_V2: &[(&str, &str)] = &[
    ("cgroup.procs", ""),
    ("cgroup.events", "populated 0\nfrozen 0\n"),
    ("cgroup.freeze", "0\n"),
    ("cgroup.kill", ""),
    ("memory.max", "max\n"),
    ("memory.swap.max", "max\n"),
    ("memory.oom.group", "0\n"),
    ("memory.current", "9000000\n"),
    ("memory.peak", "20000000\n"),
    (
        "memory.stat",
        "anon 3000000\nfile 7000000\nshmem 1000000\npgmajfault 4\n",
    ),
    ("memory.events", "low 0\nhigh 0\nmax 3\noom 0\noom_kill 0\n"),
    ("pids.max", "max\n"),
    ("pids.current", "2\n"),
    ("pids.peak", "9\n"),
    ("pids.events", "max 5\n"),
    ("cpu.max", "max 100000\n"),
    (
        "cpu.stat",
        "usage_usec 1500000\nuser_usec 1\nnr_periods 0\nthrottled_usec 70\n",
    ),
    (
        "io.stat",
        "254:0 rbytes=10 wbytes=20 rios=1\n8:0 rbytes=1 wbytes=2\n",
    ),
];

/// A version 2 tree as the kernel shows it, with a group `a` already made.
fn fake_v2(controllers: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let node = [
        ("cgroup.procs", ""),
        ("cgroup.controllers", controllers),
        ("cgroup.subtree_control", controllers),
        ("cpu.idle", "0\n"),
        ("cpu.weight", "100\n"),
    ];
    plant(root.path(), &node);
    plant(&root.path().join("g.slice"), &node);
    plant(&root.path().join("g.slice/a"), LEAF_V2);
    root
}

fn read(root: &TempDir, path: &str) -> String {
    fs::read_to_string(root.path().join(path)).unwrap()
}

fn limits() -> Limits {
    Limits {
        cpus: Cpus { milli: 250 },
        memory: Bytes(64 << 20),
        processes: 10,
        ..Limits::default()
    }
}

fn ask(limits: &Limits) -> Ask<'_> {
    Ask {
        limits,
        scratch: Path::new("/nowhere"),
        own_processes: 1,
    }
}

#[test]
fn version_2_limits_are_written_as_the_kernel_reads_them() {
    let root = fake_v2("cpu memory pids io\n");
    let backend = Backend::detect(&options(root.path(), "0::/\n"));
    assert_eq!(backend.name(), "cgroup v2");
    assert!(backend.at_top());
    assert_eq!(backend.idle(), IdleMeans::CpuIdle);
    assert_eq!(read(&root, "g.slice/cpu.idle"), "1");
    let group = backend.create("a").unwrap();
    assert!(group.clone_fd().is_some());
    assert_eq!(group.apply(&ask(&limits())), Vec::<String>::new());
    assert_eq!(read(&root, "g.slice/a/memory.max"), "67108864");
    assert_eq!(read(&root, "g.slice/a/memory.swap.max"), "0");
    assert_eq!(read(&root, "g.slice/a/memory.oom.group"), "1");
    assert_eq!(read(&root, "g.slice/a/pids.max"), "11");
    assert_eq!(read(&root, "g.slice/a/cpu.max"), "25000 100000");
    assert!(group.slow(250, 500));
    assert_eq!(read(&root, "g.slice/a/cpu.max"), "12500 100000");
    assert!(group.slow(250, 0), "the least there is, never nothing");
    assert_eq!(read(&root, "g.slice/a/cpu.max"), "1000 100000");
    assert!(
        !group.freeze(true).unwrap(),
        "nobody answers in a made-up tree"
    );
    assert_eq!(read(&root, "g.slice/a/cgroup.freeze"), "1");
    assert!(group.kill().unwrap());
    assert_eq!(read(&root, "g.slice/a/cgroup.kill"), "1");
}

#[test]
fn version_2_figures_are_read() {
    let root = fake_v2("cpu memory pids io\n");
    let backend = Backend::detect(&options(root.path(), "0::/\n"));
    let group = backend.create("a").unwrap();
    let usage = group.usage();
    assert_eq!(usage.cpu_us, 1_500_000);
    assert_eq!(usage.memory_now, 3_000_000, "without 6 MB of page cache");
    assert_eq!(usage.memory_peak, 14_000_000);
    assert_eq!((usage.read_bytes, usage.written_bytes), (11, 22));
    assert_eq!((usage.processes_now, usage.processes_peak), (2, 9));
    assert_eq!(usage.page_faults, 4);
    let wanted = GroupEvents {
        oom_kills: 0,
        pids_max_hits: 5,
        throttled_us: 70,
    };
    assert_eq!(group.events(), wanted);
    // With a baseline, as on a group used again, only what came since counts.
    let base = Baseline(group.counters());
    let again = backend.open("a", base).unwrap();
    assert_eq!(again.usage().cpu_us, 0);
    assert_eq!(again.events(), GroupEvents::default());
    plant(
        &root.path().join("g.slice/a"),
        &[("memory.events", "oom_kill 1\n")],
    );
    assert_eq!(again.events().oom_kills, 1);
    assert_eq!(
        again.usage().memory_peak,
        20_000_000,
        "a full group had no cache left"
    );
}

#[test]
fn a_missing_controller_is_named_and_the_others_work() {
    let root = fake_v2("memory cpu\n");
    for file in ["pids.max", "io.max", "pids.peak"] {
        let _absent = fs::remove_file(root.path().join("g.slice/a").join(file));
    }
    fs::remove_file(root.path().join("g.slice/cpu.idle")).unwrap();
    let backend = Backend::detect(&options(root.path(), "0::/\n"));
    assert_eq!(backend.idle(), IdleMeans::Weight);
    assert_eq!(read(&root, "g.slice/cpu.weight"), "1");
    let group = backend.create("a").unwrap();
    let asked = Limits {
        disk_io: Some(Rate(1000)),
        ..limits()
    };
    let words = group.apply(&ask(&asked));
    assert_eq!(words.len(), 2, "{words:?}");
    assert!(words[0].starts_with("processes ") && words[1].starts_with("disk_io "));
    assert_eq!(read(&root, "g.slice/a/memory.max"), "67108864");
    assert_eq!(group.usage().processes_peak, 2, "as seen");
    let weak: BTreeSet<String> = backend
        .describe()
        .into_iter()
        .filter(|row| row.level != Level::Good)
        .map(|row| {
            assert!(row.fix.is_some(), "{} has no fix", row.name);
            row.name
        })
        .collect();
    let wanted = ["process limit", "disk bandwidth", "idle priority"];
    assert_eq!(weak, wanted.map(str::to_owned).into());
}

#[test]
fn the_highest_writable_group_is_taken() {
    let root = fake_v2("cpu memory pids io\n");
    let node: &[(&str, &str)] = &[
        ("cgroup.procs", ""),
        ("cgroup.controllers", "cpu memory pids io\n"),
        ("cgroup.subtree_control", "cpu memory pids io\n"),
    ];
    // The top and a.slice cannot be delegated: they lack what a write needs.
    fs::remove_file(root.path().join("cgroup.subtree_control")).unwrap();
    plant(&root.path().join("a.slice"), &[("cgroup.procs", "")]);
    plant(&root.path().join("a.slice/u.service"), node);
    plant(&root.path().join("a.slice/u.service/app"), node);
    let backend = Backend::detect(&options(root.path(), "0::/a.slice/u.service/app\n"));
    let wanted = root.path().join("a.slice/u.service/g.slice");
    assert_eq!(backend.cpu_parent(), Some(wanted.as_path()));
    assert!(!backend.at_top());
    // Nothing writable at all.
    let none = Backend::detect(&options(root.path(), "0::/a.slice\n"));
    assert_eq!(none.name(), "no cgroup");
    assert_eq!(none.describe()[0].level, Level::Degraded);
}

/// Version 1 hierarchies beside a version 2 tree, with a group `a` already made in each.
fn fake_v1() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for controller in ["cpu", "cpuacct", "memory", "pids", "unified"] {
        plant(&at(controller), &[("cgroup.procs", "")]);
        plant(
            &at(controller).join("g.slice"),
            &[("cpu.idle", "0\n"), ("cpu.shares", "1024\n")],
        );
    }
    plant(
        &at("memory/g.slice/a"),
        &[
            ("cgroup.procs", ""),
            ("memory.limit_in_bytes", ""),
            ("memory.memsw.limit_in_bytes", ""),
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.max_usage_in_bytes", "9000\n"),
            (
                "memory.stat",
                "cache 5\ntotal_cache 4000\ntotal_shmem 1000\ntotal_pgmajfault 7\n",
            ),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
            ),
        ],
    );
    plant(
        &at("pids/g.slice/a"),
        &[
            ("cgroup.procs", ""),
            ("pids.max", ""),
            ("pids.current", "3\n"),
        ],
    );
    plant(
        &at("cpu/g.slice/a"),
        &[
            ("cgroup.procs", ""),
            ("cpu.cfs_quota_us", ""),
            ("cpu.cfs_period_us", ""),
            ("cpu.stat", "throttled_time 5000\n"),
        ],
    );
    plant(
        &at("cpuacct/g.slice/a"),
        &[("cgroup.procs", ""), ("cpuacct.usage", "2000000\n")],
    );
    plant(&at("unified/g.slice/a"), LEAF_V2);
    root
}

#[test]
fn version_1_writes_each_hierarchy() {
    let root = fake_v1();
    let backend = Backend::detect(&options(root.path(), "3:cpu:/\n0::/\n"));
    assert_eq!(backend.name(), "cgroup v1");
    assert_eq!(backend.idle(), IdleMeans::CpuIdle);
    let group = backend.create("a").unwrap();
    assert!(group.clone_fd().is_none());
    group.add(4711).unwrap();
    for controller in ["cpu", "cpuacct", "memory", "pids", "unified"] {
        assert_eq!(
            read(&root, &format!("{controller}/g.slice/a/cgroup.procs")),
            "4711"
        );
    }
    assert_eq!(group.apply(&ask(&limits())), Vec::<String>::new());
    assert_eq!(
        read(&root, "memory/g.slice/a/memory.limit_in_bytes"),
        "67108864"
    );
    assert_eq!(read(&root, "cpu/g.slice/a/cpu.cfs_quota_us"), "25000");
    assert_eq!(read(&root, "pids/g.slice/a/pids.max"), "11");
    let usage = group.usage();
    assert_eq!(
        (usage.cpu_us, usage.memory_peak, usage.page_faults),
        (2000, 6000, 7)
    );
    assert_eq!(group.events().throttled_us, 5);
}

#[test]
fn what_was_found_out_can_be_told_while_it_stands() {
    let (v1, v2) = (fake_v1(), fake_v2("cpu memory pids io"));
    let empty = tempfile::tempdir().unwrap();
    for root in [&v1, &v2, &empty] {
        let mut found = options(root.path(), "0::/\n");
        found.domain = Some("agent".to_owned());
        let backend = Backend::detect(&found);
        let text = serde_json::to_string(&backend).unwrap();
        let told: Backend = serde_json::from_str(&text).unwrap();
        assert_eq!(told, backend);
        assert!(told.stands());
        let other = text.replace("\"memory\"", "\"memories\"");
        let understood = serde_json::from_str::<Backend>(&other).is_ok();
        assert_eq!(understood, other == text, "{text}");
        backend.remove_domain();
        assert_eq!(told.stands(), !backend.has_groups(), "{}", backend.name());
    }
}

#[test]
fn names_stay_inside_the_parent() {
    let root = fake_v2("memory\n");
    let backend = Backend::detect(&options(root.path(), "0::/\n"));
    for name in ["", "..", "a/b", ".hidden", "a\nb"] {
        assert!(backend.create(name).is_err(), "{name:?}");
    }
    let bad = DetectOptions {
        parent_name: "../x".to_owned(),
        ..options(root.path(), "0::/\n")
    };
    assert_eq!(Backend::detect(&bad).name(), "no cgroup");
}

#[test]
fn quotas_follow_the_limit_and_the_slowing() {
    for (milli, permille, online, quota) in [
        (1000, 1000, 2, Some(100_000)),
        (2000, 1000, 2, None),
        (2000, 500, 2, Some(100_000)),
        (500, 100, 2, Some(5_000)),
        (10, 10, 2, Some(CPU_QUOTA_MIN_US)),
        (1000, 5000, 2, Some(100_000)),
        (64_000, 250, 2, Some(50_000)),
        (64_000, 1000, 2, None),
    ] {
        assert_eq!(
            quota_us(milli, permille, online),
            quota,
            "{milli} {permille}"
        );
    }
}

// --- on the kernel under the test ------------------------------------------------------------

/// A back end of this test's own, removed with everything in it.
struct Real {
    name: String,
    backend: Backend,
}

fn real() -> Real {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("gleaner-test-{}-{number}", std::process::id());
    let options = DetectOptions {
        parent_name: name.clone(),
        ..DetectOptions::default()
    };
    Real {
        name,
        backend: Backend::detect(&options),
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.backend.sweep_stale(&|_| false);
        let _kept = self.backend.remove_parent();
    }
}

/// A shell that waits for a line before it does what it is told.
fn shell(group: &Group, script: &str) -> Child {
    let mut child = Command::new("/bin/sh")
        .args(["-c", &format!("read go; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    group.add(i32::try_from(child.id()).unwrap()).unwrap();
    io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
    child
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    // Groups are idle: on a PC that is busy with other things they wait long.
    let end = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < end, "never happened: {what}");
        files::short_wait();
    }
}

#[test]
fn a_real_group_freezes_counts_and_kills_a_tree() {
    let real = real();
    let group = real.backend.create("task").unwrap();
    let words = group.apply(&ask(&limits()));
    let mut child = shell(&group, "(while :; do :; done) & while :; do :; done");
    wait_until("two processes run", || group.usage().processes_now >= 2);
    wait_until("CPU time is counted", || group.usage().cpu_us > 20_000);
    wait_until("it freezes", || group.freeze(true).unwrap());
    let before = group.usage().cpu_us;
    // On purpose: a span in which a frozen tree must not run.
    std::thread::sleep(Duration::from_millis(60));
    let after = group.usage().cpu_us;
    assert!(
        after - before < 10_000,
        "it ran while frozen: {} us",
        after - before
    );
    assert!(group.freeze(false).unwrap());
    wait_until("it runs again", || group.usage().cpu_us > after + 5_000);
    assert!(group.freeze(true).unwrap() || real.backend.has_groups());
    assert!(group.kill().unwrap(), "killed although frozen");
    child.wait().unwrap();
    assert!(!group.populated().unwrap());
    group.remove().unwrap();
    if real.backend.has_groups() {
        real.backend.open("task", Baseline::default()).unwrap_err();
    } else {
        assert!(
            words.len() >= 3,
            "without groups every limit is weaker: {words:?}"
        );
    }
}

#[test]
fn a_real_group_holds_memory_and_processes() {
    let real = real();
    let group = real.backend.create("task").unwrap();
    let words = group.apply(&ask(&limits()));
    let held = |limit: &str| !words.iter().any(|word| word.starts_with(limit));
    if held("memory") {
        // tail keeps a line without an end in memory.
        let mut child = shell(&group, "tail /dev/zero");
        wait_until("an out-of-memory kill", || group.events().oom_kills > 0);
        let usage = group.usage();
        assert!(usage.memory_peak > 32 << 20, "{usage:?}");
        assert!(usage.memory_peak <= 64 << 20, "{usage:?}");
        group.kill().unwrap();
        child.wait().unwrap();
    }
    if held("processes") {
        let bomb = "i=0; while [ $i -lt 40 ]; do sleep 60 & i=$((i+1)); done";
        let mut child = shell(&group, bomb);
        wait_until("a refused fork", || group.events().pids_max_hits > 0);
        assert!(group.usage().processes_peak <= 11);
        assert!(group.kill().unwrap());
        child.wait().unwrap();
    }
    assert_eq!(
        held("memory"),
        real.backend.describe()[1].level == Level::Good
    );
    assert_eq!(
        held("processes"),
        real.backend.describe()[2].level == Level::Good
    );
}

#[test]
fn page_cache_does_not_end_a_task_nor_count() {
    let real = real();
    let group = real.backend.create("task").unwrap();
    let held = group.apply(&ask(&limits())).is_empty();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("big");
    let script = format!(
        "dd if=/dev/zero of={} bs=1M count=100 && cat {0} >/dev/null",
        file.display()
    );
    let status = shell(&group, &script).wait().unwrap();
    if held && Device::under(dir.path()) == Device::Memory {
        // Files on a tmpfs are memory, and count.
        assert!(!status.success() && group.events().oom_kills > 0);
        return;
    }
    assert!(status.success());
    let usage = group.usage();
    assert_eq!(group.events().oom_kills, 0);
    if held {
        assert!(usage.memory_peak < 48 << 20, "cache was counted: {usage:?}");
    }
}

#[test]
fn a_pool_hands_out_clean_groups() {
    let real = real();
    let pool = GroupPool::new(real.backend.clone(), "p".to_owned(), 2);
    let first = pool.take().unwrap();
    let name = first.name().to_owned();
    let _words = first.apply(&ask(&limits()));
    let mut child = shell(&first, "sleep 60 & sleep 60 & exec sleep 60");
    wait_until("three processes", || first.usage().processes_now >= 3);
    pool.give_back(first).unwrap();
    child.wait().unwrap();
    let again = pool.take().unwrap();
    if real.backend.has_groups() {
        assert_eq!(again.name(), name, "it is used again");
    }
    let usage = again.usage();
    assert_eq!(
        (usage.cpu_us, usage.processes_now, usage.processes_peak),
        (0, 0, 0)
    );
    assert!(usage.memory_peak <= 4 << 20, "{usage:?}");
    let stored = serde_json::to_string(&again.baseline()).unwrap();
    assert_eq!(
        serde_json::from_str::<Baseline>(&stored).unwrap(),
        again.baseline()
    );
    pool.give_back(again).unwrap();
}

#[test]
fn stale_groups_are_swept_and_wanted_ones_kept() {
    let real = real();
    if !real.backend.has_groups() {
        assert_eq!(real.backend.sweep_stale(&|_| false), 0);
        return;
    }
    let keep = real.backend.create("keep").unwrap();
    let stale = real.backend.create("stale").unwrap();
    let mut child = shell(&stale, "exec sleep 60");
    assert_eq!(real.backend.sweep_stale(&|name| name == "keep"), 1);
    child.wait().unwrap();
    assert!(!keep.populated().unwrap());
    real.backend.open("stale", Baseline::default()).unwrap_err();
}

#[test]
fn what_is_frozen_in_the_part_of_an_agent_goes_with_it() {
    let whole = real();
    if !whole.backend.has_groups() {
        return;
    }
    let part = DetectOptions {
        parent_name: whole.name.clone(),
        domain: Some("part".to_owned()),
        ..DetectOptions::default()
    };
    let part = Backend::detect(&part);
    let task = part.create("task").unwrap();
    let mut child = shell(&task, "exec sleep 60");
    wait_until("it freezes", || task.freeze(true).unwrap());
    child.kill().unwrap();
    whole.backend.sweep_stale(&|_| false);
    child.wait().unwrap();
    assert!(part.names().is_empty());
    whole.backend.remove_parent().unwrap();
}

#[test]
fn a_process_enters_by_itself() {
    let real = real();
    let group = real.backend.create("task").unwrap();
    let mut command = Command::new("sleep");
    command.arg("60");
    let files = group.join_files().unwrap();
    let by_itself = files.is_some();
    if let Some(files) = files {
        // SAFETY: between fork and exec the child only writes to files that are open already.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, move || join(&files)) };
    }
    let mut child = command.spawn().unwrap();
    if !by_itself {
        group.add(i32::try_from(child.id()).unwrap()).unwrap();
    }
    assert_eq!(group.usage().processes_now, 1);
    assert!(group.populated().unwrap());
    assert!(group.kill().unwrap());
    child.wait().unwrap();
}

#[test]
fn a_real_group_holds_disk_bandwidth() {
    let real = real();
    let group = real.backend.create("task").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let asked = Limits {
        disk_io: Some(Rate(2 << 20)),
        ..limits()
    };
    let words = group.apply(&Ask {
        limits: &asked,
        scratch: dir.path(),
        own_processes: 0,
    });
    let held = !words.iter().any(|word| word.starts_with("disk_io"));
    let device = Device::under(dir.path());
    assert!(!held || device != Device::Unknown);
    if held && device != Device::Memory {
        // Past the cache, so that the writer itself waits: 4 MiB at 2 MiB a second.
        let script = format!(
            "dd if=/dev/zero of={}/big bs=256k count=16 oflag=direct",
            dir.path().display()
        );
        let begun = Instant::now();
        let status = shell(&group, &script).wait().unwrap();
        assert!(status.success());
        assert!(
            begun.elapsed() > Duration::from_millis(1200),
            "{:?}",
            begun.elapsed()
        );
        assert!(
            group.usage().written_bytes >= 4 << 20,
            "{:?}",
            group.usage()
        );
    }
}
