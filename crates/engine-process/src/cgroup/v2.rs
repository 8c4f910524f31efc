//! Control groups version 2: one directory a group, one file a limit.
//!
//! Source of the file formats: "Control Group v2", the kernel's admin guide.

use super::controllers::{CPUSET, V2};
use super::files;
use super::{
    Ask, Baseline, CPU_PERIOD_US, Counters, DetectOptions, Device, FREEZE_WAIT, IdleMeans,
    KILL_WAIT,
};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The group in which all tasks of a PC lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tree {
    /// The top of the hierarchy.
    pub(crate) top: PathBuf,
    /// The group of all tasks, at idle priority.
    pub(crate) slice: PathBuf,
    /// Where tasks' groups are made: in the slice, or in the agent's own part of it.
    pub(crate) parent: PathBuf,
    /// Controllers that our groups really have.
    #[serde(deserialize_with = "super::told::controllers")]
    pub(crate) controllers: Vec<&'static str>,
    pub(crate) idle: IdleMeans,
    /// Whether the parent group competes with everything else on the PC.
    pub(crate) at_top: bool,
}

/// One task's group.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) dir: PathBuf,
    /// Kept open: what `clone3` with CLONE_INTO_CGROUP takes.
    fd: File,
}

impl Tree {
    /// Finds the highest group that we may write, and makes ours in it.
    pub(crate) fn detect(options: &DetectOptions, own: &str) -> Result<Self, String> {
        let top = options.root.as_path();
        let own_path = files::own_path(own, "").unwrap_or("/");
        let way = files::way_down(top, own_path);
        let anchor = way.iter().find(|dir| may_delegate(dir)).ok_or_else(|| {
            format!(
                "no group above {own_path} may be written; run as root, or let systemd delegate one"
            )
        })?;
        let slice = anchor.join(&options.parent_name);
        let parent = match &options.domain {
            Some(domain) => slice.join(domain),
            None => slice.clone(),
        };
        for dir in [&slice, &parent] {
            files::make_dir(dir)
                .map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        }
        // Only the root itself has no such file; a container's top is some group in the middle.
        let is_root = !anchor.join("cgroup.type").exists();
        // A group with processes of its own cannot hand controllers down, the root apart; where
        // the only process is us (a delegated service), a child of our own makes room.
        if !is_root && way.last() == Some(anchor) {
            leave_for_child(anchor);
        }
        let mut way = vec![anchor.as_path(), slice.as_path()];
        if parent != slice {
            let _absent = hand_down(anchor, CPUSET) && hand_down(&slice, CPUSET);
            way.push(&parent);
        }
        let controllers = enable(&way);
        let idle = make_idle(&slice);
        let tree = Self {
            top: top.to_path_buf(),
            slice,
            parent,
            controllers,
            idle,
            at_top: anchor.as_path() == top && is_root,
        };
        tree.try_out()?;
        Ok(tree)
    }

    /// Makes and removes a group, and moves nothing.
    fn try_out(&self) -> Result<(), String> {
        let dir = self.parent.join(format!("try-{}", std::process::id()));
        let made = fs::create_dir(&dir).and_then(|()| files::remove_dir(&dir));
        made.map_err(|error| format!("cannot use {}: {error}", self.parent.display()))
    }

    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.contains(&controller)
    }

    pub(crate) fn create(&self, name: &str) -> io::Result<Leaf> {
        let dir = self.parent.join(name);
        files::make_dir(&dir)?;
        Leaf::open(dir)
    }
}

/// A group that we may make children in and give controllers to.
fn may_delegate(dir: &Path) -> bool {
    files::writable(dir)
        && files::writable(&dir.join("cgroup.procs"))
        && files::writable(&dir.join("cgroup.subtree_control"))
}

/// Moves this process into a child of its group. A failure shows later, as a missing controller.
fn leave_for_child(group: &Path) {
    let child = group.join("agent");
    if files::make_dir(&child).is_ok() {
        let _ignored = files::write(&child.join("cgroup.procs"), &std::process::id().to_string());
    }
}

/// Gives a controller to the children of a group; says whether they have it.
fn hand_down(dir: &Path, controller: &str) -> bool {
    let file = dir.join("cgroup.subtree_control");
    let has = |text: String| text.split_whitespace().any(|word| word == controller);
    if !files::read(&file).is_ok_and(has) {
        let _ignored = files::write(&file, &format!("+{controller}"));
    }
    files::read(&file).is_ok_and(has)
}

/// Hands each controller down this way; says which ones arrived at its end's children.
fn enable(way: &[&Path]) -> Vec<&'static str> {
    V2.into_iter()
        .filter(|controller| way.iter().all(|dir| hand_down(dir, controller)))
        .collect()
}

/// Puts the group as a whole behind everything else that wants a CPU or a disk.
fn make_idle(parent: &Path) -> IdleMeans {
    let set = |file: &str, value: &str| files::write(&parent.join(file), value).is_ok();
    set("io.prio.class", "idle");
    set("io.weight", "1");
    set("io.bfq.weight", "1");
    set("memory.swap.max", "0");
    if set("cpu.idle", "1") && files::number(&parent.join("cpu.idle")) == Some(1) {
        IdleMeans::CpuIdle
    } else if set("cpu.weight", "1") {
        IdleMeans::Weight
    } else {
        IdleMeans::None
    }
}

impl Leaf {
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        let fd = File::open(&dir)?;
        Ok(Self { dir, fd })
    }

    pub(crate) const fn fd(&self) -> &File {
        &self.fd
    }

    fn set(&self, file: &str, value: &str) -> bool {
        files::write(&self.dir.join(file), value).is_ok()
    }

    pub(crate) fn add(&self, pid: i32) -> io::Result<()> {
        files::write(&self.dir.join("cgroup.procs"), &pid.to_string())
    }

    /// Sets every limit; names those that the kernel would not take.
    pub(crate) fn apply(&self, ask: &Ask<'_>) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if !self.set("memory.max", &ask.limits.memory.0.to_string()) {
            missing.push("memory");
        }
        // Without swap accounting there is no such file; a PC without swap needs none.
        self.set("memory.swap.max", "0");
        self.set("memory.oom.group", "1");
        if !self.set("pids.max", &ask.processes().to_string()) {
            missing.push("processes");
        }
        if !self.set_cpus(ask.quota_us(1000)) {
            missing.push("cpus");
        }
        if let Some(rate) = ask.limits.disk_io
            && !self.set_disk_rate(ask.scratch, Some(rate.0))
        {
            missing.push("disk_io");
        }
        missing
    }

    /// Bounds bytes a second from and to the disk; none takes that back.
    pub(crate) fn set_disk_rate(&self, scratch: &Path, rate: Option<u64>) -> bool {
        match Device::under(scratch) {
            Device::Memory => true,
            Device::Unknown => rate.is_none(),
            Device::Disk { major, minor } => {
                let rate = rate.map_or_else(|| "max".to_owned(), |rate| rate.max(1).to_string());
                self.set(
                    "io.max",
                    &format!("{major}:{minor} rbps={rate} wbps={rate}"),
                )
            }
        }
    }

    pub(crate) fn set_cpus(&self, quota_us: Option<u64>) -> bool {
        match quota_us {
            Some(quota) => self.set("cpu.max", &format!("{quota} {CPU_PERIOD_US}")),
            // Nothing to hold back is nothing to lack.
            None => self.set("cpu.max", "max") || !self.dir.join("cpu.max").exists(),
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        let text = |file: &str| files::read(&self.dir.join(file)).unwrap_or_default();
        let number = |file: &str| files::number(&self.dir.join(file));
        let (cpu, memory, events) = (text("cpu.stat"), text("memory.stat"), text("memory.events"));
        let (read_bytes, written_bytes) = files::io_stat(&text("io.stat"));
        let stat = |key: &str| files::keyed(&memory, key).unwrap_or(0);
        let current = number("memory.current");
        Counters {
            cpu_us: files::keyed(&cpu, "usage_usec"),
            throttled_us: files::keyed(&cpu, "throttled_usec").unwrap_or(0),
            memory_now: current,
            memory_peak: number("memory.peak"),
            cache_now: stat("file").saturating_sub(stat("shmem")),
            page_faults: stat("pgmajfault"),
            oom_kills: files::keyed(&events, "oom_kill").unwrap_or(0),
            read_bytes,
            written_bytes,
            processes_now: number("pids.current"),
            processes_peak: number("pids.peak"),
            pids_max_hits: files::keyed(&text("pids.events"), "max").unwrap_or(0),
        }
    }

    /// A clean group by the same name. Version 2 cannot reset `pids.peak`, and `memory.peak`
    /// only for one open file, so the directory is made anew: one `rmdir` and one `mkdir`.
    pub(crate) fn recycle(&mut self) -> io::Result<Baseline> {
        files::remove_dir(&self.dir)?;
        files::make_dir(&self.dir)?;
        self.fd = File::open(&self.dir)?;
        Ok(Baseline::default())
    }
}

/// Asks for a freeze or a thaw of a version 2 group.
pub(crate) fn ask_freeze(dir: &Path, on: bool) -> io::Result<()> {
    files::write(&dir.join("cgroup.freeze"), if on { "1" } else { "0" })
}

/// Freezes or thaws a version 2 group; says whether it got there in time.
pub(crate) fn freeze(dir: &Path, on: bool) -> io::Result<bool> {
    ask_freeze(dir, on)?;
    let wanted = u64::from(on);
    files::wait_event(&dir.join("cgroup.events"), FREEZE_WAIT, |text| {
        files::keyed(text, "frozen") == Some(wanted)
    })
}

/// Kills all in a version 2 group and below; says whether it is empty.
pub(crate) fn kill(dir: &Path) -> io::Result<bool> {
    let events = dir.join("cgroup.events");
    let empty = |text: &str| files::keyed(text, "populated") == Some(0);
    match files::write(&dir.join("cgroup.kill"), "1") {
        Ok(()) => files::wait_event(&events, KILL_WAIT, empty),
        // Kernels before 5.14 have no such file.
        Err(_) => super::kill_loop(&dir.join("cgroup.procs"), &mut |on| {
            freeze(dir, on).map(drop)
        }),
    }
}

/// Whether any process is left in the group.
pub(crate) fn populated(dir: &Path) -> io::Result<bool> {
    let text = files::read(&dir.join("cgroup.events"))?;
    Ok(files::keyed(&text, "populated") != Some(0))
}
