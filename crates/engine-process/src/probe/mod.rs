//! What this PC can do for the process engine, each found out by trying, for `gleaner doctor`
//! and the node's inventory.
//!
//! Every trial runs in a throw-away child with a deadline and changes nothing outside it. Each
//! row below [`Level::Good`] says what to type. It must not know attempts; the agent's own
//! choices (scratch directory, uid range, self-test) come in with [`ProbeOptions`].

mod child;
mod preempt;

use crate::cgroup::{Backend, capability};
use crate::image::try_mount;
use crate::priority::{Outcome, percent};
use child::{Sleeper, trial};
use gleaner_engine::{Capability, Level};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the agent means to use.
#[derive(Debug, Clone, Default)]
pub struct ProbeOptions {
    /// Where scratch directories are made.
    pub scratch: PathBuf,
    /// First and last uid for attempts; none as plain user.
    pub uid_range: Option<(u32, u32)>,
    /// What the self-test of idle priority said, if it was run.
    pub self_test: Option<Outcome>,
}

/// Tries everything. Takes some tens of milliseconds, a few seconds where things hang.
#[must_use]
pub fn probe(backend: &Backend, options: &ProbeOptions) -> Vec<Capability> {
    let mut all = vec![
        user_namespaces(&Causes::read(Path::new("/proc/sys"))),
        system_call_filter(),
        landlock(child::landlock_version()),
    ];
    all.extend(backend.describe());
    try_freeze(backend, &mut all);
    all.extend(options.self_test.as_ref().map(self_test));
    all.push(scratch_quota(&options.scratch));
    all.push(images(&options.scratch));
    all.push(uid_range(options.uid_range));
    all.push(swap(
        backend,
        &read("/proc/swaps"),
        &read("/proc/self/cgroup"),
    ));
    all.push(pressure(Path::new("/proc/pressure")));
    all.push(preempt::preemption());
    all
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn good(name: &str, found: impl Into<String>) -> Capability {
    capability(name, Level::Good, found.into(), None)
}

/// Kernel settings that forbid user namespaces to plain users.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Causes {
    /// Ubuntu's `kernel.apparmor_restrict_unprivileged_userns`.
    apparmor: bool,
    /// Debian's `kernel.unprivileged_userns_clone` is 0.
    clone_off: bool,
    /// `user.max_user_namespaces` is 0.
    none_allowed: bool,
}

impl Causes {
    fn read(sysctl: &Path) -> Self {
        let is = |name: &str, value: &str| {
            fs::read_to_string(sysctl.join(name)).is_ok_and(|text| text.trim() == value)
        };
        Self {
            apparmor: is("kernel/apparmor_restrict_unprivileged_userns", "1"),
            clone_off: is("kernel/unprivileged_userns_clone", "0"),
            none_allowed: is("user/max_user_namespaces", "0"),
        }
    }

    /// What to do, the cause that is set first.
    fn fix(&self) -> &'static str {
        if self.none_allowed {
            "the kernel allows none: sudo sysctl -w user.max_user_namespaces=65536"
        } else if self.clone_off {
            "plain users may not make any: sudo sysctl -w kernel.unprivileged_userns_clone=1"
        } else if self.apparmor {
            "AppArmor forbids them to programs without a profile: sudo install -m 644 \
             packaging/apparmor/gleaner /etc/apparmor.d/gleaner && \
             sudo apparmor_parser -r /etc/apparmor.d/gleaner"
        } else {
            "a container or security module forbids them: run outside of it, or in docker with \
             --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
        }
    }
}

fn user_namespaces(causes: &Causes) -> Capability {
    const NAME: &str = "user namespaces";
    match trial(child::namespaces) {
        Ok(()) => good(NAME, "user, mount, pid, net, ipc and uts namespaces work"),
        Err(error) => capability(
            NAME,
            Level::Missing,
            format!("refused: {error}"),
            Some(causes.fix().to_owned()),
        ),
    }
}

fn system_call_filter() -> Capability {
    const NAME: &str = "system call filter";
    let plain = trial(child::plain_filter);
    let listener = trial(child::filter_with_listener);
    match (plain, listener) {
        (Ok(()), Ok(())) => good(NAME, "seccomp with notification"),
        (Ok(()), Err(error)) => capability(
            NAME,
            Level::Degraded,
            format!("seccomp without notification ({error}): refused calls are not counted"),
            Some("a kernel from 5.5 on can: sudo apt full-upgrade".to_owned()),
        ),
        (Err(error), _) => capability(
            NAME,
            Level::Missing,
            format!("refused: {error}"),
            Some(
                "the kernel needs CONFIG_SECCOMP_FILTER; see: zgrep SECCOMP /proc/config.gz"
                    .to_owned(),
            ),
        ),
    }
}

fn landlock(version: Option<i64>) -> Capability {
    const NAME: &str = "Landlock";
    match version {
        Some(version) => good(NAME, format!("version {version}")),
        None => capability(
            NAME,
            Level::Degraded,
            "absent: files are guarded by the mount namespace alone".to_owned(),
            Some(
                "add landlock to the lsm= kernel parameter (list: cat \
                 /sys/kernel/security/lsm), or use a kernel from 5.13 on"
                    .to_owned(),
            ),
        ),
    }
}

/// How a root that tasks bring is made theirs. The image for the trial is written here: it takes
/// no other program.
fn images(scratch: &Path) -> Capability {
    const NAME: &str = "images";
    if !rustix::process::geteuid().is_root() {
        return good(
            NAME,
            "unpacked once each, below the agent's directory: only root mounts",
        );
    }
    let path = scratch.join(format!(".image-{}", std::process::id()));
    let written = || -> io::Result<fs::File> {
        let options = fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .clone();
        let mut file = options.open(&path)?;
        let tree = gleaner_image::Tree::without_source().map_err(io::Error::other)?;
        tree.write(&mut file).map_err(io::Error::other)?;
        Ok(file)
    };
    let mounted = written().and_then(|file| try_mount(&file));
    let _never_made = fs::remove_file(&path);
    match mounted {
        Ok(_) => good(NAME, "mounted by the kernel (erofs)"),
        Err(error) => capability(
            NAME,
            Level::Degraded,
            format!("unpacked once each, below the agent's directory: {error}"),
            Some(
                "the kernel mounts them where it has erofs: sudo modprobe erofs (and loop, before \
                 Linux 6.12)"
                    .to_owned(),
            ),
        ),
    }
}

/// Makes a group, freezes and kills a child in it. A failure replaces the row that said it
/// should work.
fn try_freeze(backend: &Backend, all: &mut [Capability]) {
    let Err(error) = freeze_and_kill(backend) else {
        return;
    };
    for row in all.iter_mut().filter(|row| row.name == "freeze") {
        row.level = Level::Missing;
        row.found = format!("a trial failed: {error}");
        row.fix = Some(
            "see what holds the group: cat /sys/fs/cgroup/gleaner.slice/cgroup.events; then \
             restart the agent: sudo systemctl restart gleaner-agent"
                .to_owned(),
        );
    }
}

/// Each try waits for half a second by itself; a PC on which this is not enough cannot pause.
const TRIES_MAX: u32 = 10;

/// Asks again while the answer is "not yet": on a busy PC a sleeper at idle priority has to be
/// scheduled once before it stands still or goes.
fn in_time(mut act: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    for _ in 0..TRIES_MAX {
        if act()? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn freeze_and_kill(backend: &Backend) -> io::Result<()> {
    let group = backend.create(&format!("probe-{}", std::process::id()))?;
    let sleeper = Sleeper::start()?;
    let tried = group.add(sleeper.pid()).and_then(|()| {
        let frozen = in_time(|| group.freeze(true))?;
        let empty = in_time(|| group.kill())?;
        match (frozen, empty) {
            (true, true) => Ok(()),
            (false, _) => Err(io::Error::other("it did not stand still in time")),
            (true, false) => Err(io::Error::other("it was not killed in time")),
        }
    });
    drop(sleeper);
    let removed = group.remove();
    tried.and(removed)
}

fn self_test(outcome: &Outcome) -> Capability {
    const NAME: &str = "idle priority self-test";
    match outcome {
        Outcome::Passed { share, .. } => good(
            NAME,
            format!(
                "tasks take {} of a CPU that the owner wants",
                percent(*share)
            ),
        ),
        Outcome::Refused { sentence, .. } => {
            let (found, fix) = sentence.split_once(": ").unwrap_or((sentence, sentence));
            capability(NAME, Level::Missing, found.to_owned(), Some(fix.to_owned()))
        }
        Outcome::Unclear { sentence } => capability(
            NAME,
            Level::Degraded,
            sentence.clone(),
            Some("try again when the PC is less busy: gleaner doctor".to_owned()),
        ),
    }
}

/// Mount options of the file system that `path` is on, from `/proc/self/mountinfo`.
fn mount_options(mountinfo: &str, path: &Path) -> Option<(String, String)> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (front, back) = line.split_once(" - ")?;
            let target = front.split(' ').nth(4)?;
            let mut back = back.split(' ');
            let (kind, _source, options) = (back.next()?, back.next()?, back.next()?);
            path.starts_with(target)
                .then(|| (target.len(), kind.to_owned(), options.to_owned()))
        })
        .max_by_key(|(length, _, _)| *length)
        .map(|(_, kind, options)| (kind, options))
}

fn scratch_quota(scratch: &Path) -> Capability {
    const NAME: &str = "scratch quota";
    let path = fs::canonicalize(scratch).unwrap_or_else(|_| PathBuf::from("/"));
    let mount = mount_options(&read("/proc/self/mountinfo"), &path);
    let (kind, options) = mount.unwrap_or_default();
    let project = options
        .split(',')
        .any(|word| matches!(word, "prjquota" | "pquota"));
    let root = rustix::process::geteuid().is_root();
    let mut ways = Vec::new();
    if trial(child::sized_tmpfs).is_ok() {
        ways.push("in memory (tmpfs) up to the memory limit");
    }
    if project && root {
        ways.push("project quota on disk");
    }
    if root && Path::new("/dev/loop-control").exists() {
        ways.push("a file of its own on disk (loop)");
    }
    if !ways.is_empty() {
        return good(
            NAME,
            format!("{} is {kind}: {}", path.display(), ways.join(", ")),
        );
    }
    capability(
        NAME,
        Level::Degraded,
        format!(
            "{} is {kind} without a quota: watched once a second",
            path.display()
        ),
        Some(
            "get user namespaces first, see above; or as root turn project quota on: \
             sudo tune2fs -O project,quota DEVICE, and mount with prjquota"
                .to_owned(),
        ),
    )
}

/// Whether every uid of a range exists for us (`user_namespaces(7)`, uid_map).
fn mapped(uid_map: &str, first: u32, last: u32) -> bool {
    uid_map.lines().any(|line| {
        let mut words = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(start)), _, Some(Ok(count))) = (words.next(), words.next(), words.next())
        else {
            return false;
        };
        start <= u64::from(first) && u64::from(last) < start + count
    })
}

fn uid_range(range: Option<(u32, u32)>) -> Capability {
    const NAME: &str = "uid range";
    match range {
        None if rustix::process::geteuid().is_root() => {
            good(NAME, "chosen at start, outside every account's")
        }
        None => good(
            NAME,
            format!("tasks run as uid {}", rustix::process::geteuid().as_raw()),
        ),
        Some((first, last)) if mapped(&read("/proc/self/uid_map"), first, last) => {
            good(NAME, format!("{first} to {last}"))
        }
        Some((first, last)) => capability(
            NAME,
            Level::Missing,
            format!("{first} to {last} does not exist in this user namespace"),
            Some("choose one within: cat /proc/self/uid_map; give it as --uid-range".to_owned()),
        ),
    }
}

/// A task must never push itself or the owner into swap.
fn swap(backend: &Backend, swaps: &str, own: &str) -> Capability {
    const NAME: &str = "swap";
    let kib: u64 = swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
        .sum();
    if kib == 0 {
        return good(NAME, "none on this PC");
    }
    let size = gleaner_model::Bytes(kib << 10);
    if backend.holds_swap() {
        return good(NAME, format!("{size}; tasks are kept out of it"));
    }
    let fix = if own.lines().any(|line| line.contains(":memory:")) {
        "let the kernel count it: add swapaccount=1 to the kernel parameters, or boot with \
         systemd.unified_cgroup_hierarchy=1"
    } else {
        "get a memory limit first, see above; or: sudo swapoff -a"
    };
    capability(
        NAME,
        Level::Degraded,
        format!("{size}; a task's memory may be swapped out"),
        Some(fix.to_owned()),
    )
}

fn pressure(dir: &Path) -> Capability {
    const NAME: &str = "pressure figures";
    let readable =
        |file: &str| fs::read_to_string(dir.join(file)).is_ok_and(|text| !text.is_empty());
    if readable("memory") && readable("io") {
        return good(NAME, "memory and io");
    }
    capability(
        NAME,
        Level::Degraded,
        "absent: the owner's stalls for memory and disk are not seen".to_owned(),
        Some("add psi=1 to the kernel parameters and reboot".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::DetectOptions;

    #[test]
    fn every_weak_row_says_what_to_do() {
        let options = DetectOptions {
            parent_name: format!("gleaner-probe-{}", std::process::id()),
            ..DetectOptions::default()
        };
        let backend = Backend::detect(&options);
        let refused = Outcome::Refused {
            share: 5000,
            sentence: "half of it: sudo something".to_owned(),
        };
        let asked = ProbeOptions {
            scratch: std::env::temp_dir(),
            uid_range: None,
            self_test: Some(refused),
        };
        let all = probe(&backend, &asked);
        for row in &all {
            println!(
                "{:8} {:24} {}",
                format!("{:?}", row.level),
                row.name,
                row.found
            );
            assert_eq!(row.level == Level::Good, row.fix.is_none(), "{row:?}");
            assert!(!row.found.is_empty());
        }
        let row = |name: &str| all.iter().find(|row| row.name == name).unwrap();
        assert_eq!(row("idle priority self-test").level, Level::Missing);
        assert_ne!(row("freeze").level, Level::Missing);
        assert_eq!(
            row("control groups").level == Level::Good,
            backend.has_groups()
        );
        backend.remove_parent().unwrap();
    }

    #[test]
    fn the_cause_is_named() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["kernel", "user"] {
            fs::create_dir(root.path().join(dir)).unwrap();
        }
        let fix = || Causes::read(root.path()).fix();
        assert!(fix().contains("container"));
        let set = |name: &str, value: &str| fs::write(root.path().join(name), value).unwrap();
        set("kernel/apparmor_restrict_unprivileged_userns", "1\n");
        assert!(fix().contains("apparmor_parser"));
        set("kernel/unprivileged_userns_clone", "0\n");
        assert!(fix().contains("unprivileged_userns_clone=1"));
        set("user/max_user_namespaces", "0\n");
        assert!(fix().contains("max_user_namespaces="));
    }

    #[test]
    fn the_innermost_mount_counts() {
        let text = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                    30 22 0:5 / /data rw - xfs /dev/vdb rw,prjquota\n";
        let of = |path: &str| mount_options(text, Path::new(path)).map(|(kind, _)| kind);
        assert_eq!(of("/data/x").as_deref(), Some("xfs"));
        assert_eq!(of("/database").as_deref(), Some("ext4"));
        assert_eq!(mount_options("", Path::new("/")), None);
    }

    #[test]
    fn a_range_must_be_mapped_as_a_whole() {
        let map = "         0          0      65536\n";
        assert!(mapped(map, 60_000, 65_535));
        assert!(!mapped(map, 60_000, 65_536));
        assert!(!mapped("", 1, 2));
        let range = uid_range(Some((u32::MAX - 1, u32::MAX)));
        assert_eq!(range.level, Level::Missing);
    }

    #[test]
    fn swap_without_a_limit_is_weak() {
        let root = tempfile::tempdir().unwrap();
        let options = DetectOptions {
            root: root.path().to_path_buf(),
            ask_systemd: false,
            ..DetectOptions::default()
        };
        let none = Backend::detect(&options);
        let head = "Filename Type Size Used Priority\n";
        assert_eq!(swap(&none, head, "").level, Level::Good);
        let swaps = format!("{head}/dev/vdb partition 1048576 0 -2\n");
        let row = swap(&none, &swaps, "0::/\n");
        assert_eq!(row.level, Level::Degraded);
        assert!(row.found.starts_with("1 GiB"), "{}", row.found);
    }

    #[test]
    fn absent_features_are_not_fatal() {
        assert_eq!(landlock(None).level, Level::Degraded);
        assert_eq!(pressure(Path::new("/nowhere")).level, Level::Degraded);
    }
}
