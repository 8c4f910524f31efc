//! Control groups version 1: one hierarchy a controller, beside an (often empty) version 2 tree.
//!
//! A group is a directory of the same name in each hierarchy. Where the freezer is missing,
//! freezing and killing go through the version 2 tree.
//! Source of the file formats: "Control Groups version 1", the kernel's admin guide.

use super::controllers::{CPUSET, UNIFIED, V1};
use super::{
    Ask, Baseline, CPU_PERIOD_US, Counters, DetectOptions, Device, FREEZE_WAIT, IdleMeans, files,
    told,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Page cache of an earlier task that may stay charged to a group that is used again: as much
/// as the kernel's own batch of charges, so a small program's record stays exact enough.
const RESIDUE_MAX_BYTES: u64 = 1 << 20;

/// Processes that every task has, its cage's init among them.
const PROCESSES_OF_ALL: u64 = 2;

/// Where a thread enters a group.
const ENTRY: &str = "tasks";

/// The most memory a group has had, to be read and reset.
const PEAK: &str = "memory.max_usage_in_bytes";

/// The groups in which all tasks of a PC lie, by controller; `unified` among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tree {
    /// Where the hierarchies are mounted.
    pub(crate) root: PathBuf,
    /// The group of all tasks, at idle priority.
    #[serde(deserialize_with = "told::by_controller")]
    pub(crate) slices: BTreeMap<&'static str, PathBuf>,
    /// Where tasks' groups are made: in the slice, or in the agent's own part of it.
    #[serde(deserialize_with = "told::by_controller")]
    pub(crate) parents: BTreeMap<&'static str, PathBuf>,
    /// The group that bounds the processors of all tasks of an agent. They lie in it directly.
    pub(crate) cpuset: Option<PathBuf>,
    pub(crate) idle: IdleMeans,
    /// Whether the cpu group competes with everything else on the PC.
    pub(crate) at_top: bool,
}

/// One task's group.
#[derive(Debug)]
pub(crate) struct Leaf {
    dirs: BTreeMap<&'static str, PathBuf>,
    /// Shared by all tasks of an agent, so never removed with a task's group.
    cpuset: Option<PathBuf>,
    /// What was written last, so that a group used again costs no write for equal limits.
    written: Mutex<BTreeMap<&'static str, String>>,
    /// Files that each attempt needs again, by controller and name: to open one costs five
    /// times what reading it does.
    open: Mutex<BTreeMap<(&'static str, &'static str), Arc<File>>>,
}

impl Tree {
    /// Takes every hierarchy in which we may make a group.
    pub(crate) fn detect(options: &DetectOptions) -> Result<Self, String> {
        let (root, own) = (options.root.as_path(), options.own.as_str());
        let name = &options.parent_name;
        let mut parents = BTreeMap::new();
        let mut at_top = false;
        let mut reason = String::from("no version 1 hierarchy found");
        for controller in V1.into_iter().chain([UNIFIED]) {
            let top = root.join(controller);
            let key = if controller == UNIFIED {
                ""
            } else {
                controller
            };
            if !top.join("cgroup.procs").exists() {
                continue;
            }
            match make_parent(&top, files::own_path(own, key).unwrap_or("/"), name) {
                Ok((dir, top_most)) => {
                    at_top |= controller == "cpu" && top_most;
                    parents.insert(controller, dir);
                }
                Err(error) => reason = format!("{}: {error}", top.display()),
            }
        }
        drop_spare(&mut parents);
        if parents.is_empty() || parents.keys().all(|key| *key == UNIFIED) {
            return Err(reason);
        }
        let idle = make_idle(&parents);
        let (slices, mut cpuset) = (parents.clone(), None);
        if let Some(domain) = &options.domain {
            for dir in parents.values_mut() {
                dir.push(domain);
                files::make_dir(dir)
                    .map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
            }
            cpuset = make_cpuset(&root.join(CPUSET), own, [name, domain]);
        }
        Ok(Self {
            root: root.to_path_buf(),
            slices,
            parents,
            cpuset,
            idle,
            at_top,
        })
    }

    /// The group of all tasks in the hierarchy of processors, which only agents make.
    pub(crate) fn cpuset_slice(&self) -> Option<PathBuf> {
        let (controller, slice) = self.slices.first_key_value()?;
        let inside = slice.strip_prefix(self.root.join(controller)).ok()?;
        let dir = self.root.join(CPUSET).join(inside);
        dir.exists().then_some(dir)
    }

    pub(crate) fn has(&self, controller: &str) -> bool {
        self.parents.contains_key(controller)
    }

    pub(crate) fn create(&self, name: &str) -> io::Result<Leaf> {
        let leaf = self.leaf(name);
        for (controller, dir) in &leaf.dirs {
            if let Err(error) = files::make_dir(dir) {
                leaf.remove().unwrap_or_default();
                return Err(io::Error::new(
                    error.kind(),
                    format!("{controller}: {}: {error}", dir.display()),
                ));
            }
        }
        Ok(leaf)
    }

    pub(crate) fn leaf(&self, name: &str) -> Leaf {
        let dirs = self
            .parents
            .iter()
            .map(|(controller, parent)| (*controller, parent.join(name)))
            .collect();
        Leaf {
            dirs,
            cpuset: self.cpuset.clone(),
            written: Mutex::new(BTreeMap::new()),
            open: Mutex::new(BTreeMap::new()),
        }
    }
}

/// Keeps one way to freeze and count. The freezer is preferred: a process enters version 1
/// groups by itself without a lock ([`Leaf::join_files`]), while moving one in a version 2 tree
/// holds up every fork and exit on the PC for a moment, for each task anew.
fn drop_spare(parents: &mut BTreeMap<&'static str, PathBuf>) {
    let freezer = parents.contains_key("freezer") && parents.contains_key("cpuacct");
    let spare = match parents.get(UNIFIED) {
        _ if freezer => &[UNIFIED][..],
        Some(unified) if unified.join("cpu.stat").exists() => &["freezer", "cpuacct"],
        Some(_) => &["freezer"],
        None => &[],
    };
    for controller in spare {
        if let Some(dir) = parents.remove(controller) {
            // Another agent may use it, or another controller share it.
            let _kept = files::remove_dir(&dir);
        }
    }
}

/// Makes our group as near the top of a hierarchy as we may, and tries a child of it.
fn make_parent(top: &Path, own: &str, name: &str) -> io::Result<(PathBuf, bool)> {
    // Co-mounted controllers are links to one directory; either name works.
    let way = files::way_down(top, own);
    let anchor = way
        .iter()
        .find(|dir| files::writable(dir) && files::writable(&dir.join("cgroup.procs")))
        .ok_or_else(|| io::Error::from(io::ErrorKind::PermissionDenied))?;
    let parent = anchor.join(name);
    files::make_dir(&parent)?;
    let probe = parent.join(format!("try-{}", std::process::id()));
    files::make_dir(&probe)?;
    files::remove_dir(&probe)?;
    Ok((parent, anchor.as_path() == top))
}

/// A group of processors inside one of that name. A new one has neither processors nor memory
/// until it is given those of the group above it.
fn make_cpuset(top: &Path, own: &str, names: [&str; 2]) -> Option<PathBuf> {
    let (mut dir, _) = make_parent(top, files::own_path(own, CPUSET)?, names[0]).ok()?;
    let fill = |dir: &Path| {
        ["cpuset.mems", "cpuset.cpus"].iter().all(|file| {
            let above = dir.parent().map(|above| files::read(&above.join(file)));
            let empty = files::read(&dir.join(file)).is_ok_and(|text| text.trim().is_empty());
            let all = above.and_then(Result::ok).unwrap_or_default();
            !empty || files::write(&dir.join(file), all.trim()).is_ok()
        })
    };
    let mut usable = fill(&dir);
    dir.push(names[1]);
    usable &= files::make_dir(&dir).is_ok() && fill(&dir);
    usable.then_some(dir)
}

/// Puts the group as a whole behind everything else that wants a CPU or a disk.
fn make_idle(parents: &BTreeMap<&'static str, PathBuf>) -> IdleMeans {
    let set = |controller: &str, file: &str, value: &str| {
        parents
            .get(controller)
            .is_some_and(|dir| files::write(&dir.join(file), value).is_ok())
    };
    set("blkio", "blkio.prio.class", "idle");
    set("blkio", "blkio.bfq.weight", "1");
    set("memory", "memory.swappiness", "0");
    let reads_one = || {
        parents
            .get("cpu")
            .and_then(|dir| files::number(&dir.join("cpu.idle")))
            == Some(1)
    };
    if set("cpu", "cpu.idle", "1") && reads_one() {
        IdleMeans::CpuIdle
    } else if set("cpu", "cpu.shares", "2") {
        IdleMeans::Weight
    } else {
        IdleMeans::None
    }
}

impl Leaf {
    pub(crate) fn dir(&self, controller: &str) -> Option<&Path> {
        self.dirs.get(controller).map(PathBuf::as_path)
    }

    fn path(&self, controller: &str, file: &str) -> Option<PathBuf> {
        self.dirs.get(controller).map(|dir| dir.join(file))
    }

    /// A file of the group, opened once.
    fn file(&self, controller: &'static str, file: &'static str) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = open.get(&(controller, file)) {
            return Ok(Arc::clone(found));
        }
        let path = match controller {
            CPUSET => self.cpuset.as_ref().map(|dir| dir.join(file)),
            _ => self.path(controller, file),
        };
        let path = path.ok_or(io::ErrorKind::NotFound)?;
        let mut options = OpenOptions::new();
        let options = match file {
            ENTRY => options.write(true),
            PEAK => options.read(true).write(true),
            _ => options.read(true),
        };
        let found = Arc::new(options.open(path)?);
        open.insert((controller, file), Arc::clone(&found));
        Ok(found)
    }

    fn text(&self, controller: &'static str, file: &'static str) -> Option<String> {
        files::read_open(&*self.file(controller, file).ok()?).ok()
    }

    fn number(&self, controller: &'static str, file: &'static str) -> Option<u64> {
        files::parse_number(&self.text(controller, file)?)
    }

    /// Makes the group anew in one hierarchy; says whether it is in that one at all.
    fn anew(&self, controller: &'static str) -> io::Result<bool> {
        let Some(dir) = self.dir(controller) else {
            return Ok(false);
        };
        files::remove_dir(dir)?;
        files::make_dir(dir)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(of, _), _| *of != controller);
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.retain(|file, _| !file.starts_with(controller));
        Ok(true)
    }

    fn put(&self, controller: &str, file: &'static str, value: &str) -> bool {
        self.path(controller, file)
            .is_some_and(|path| files::write(&path, value).is_ok())
    }

    /// Writes unless the same value was written last.
    fn set(&self, controller: &str, file: &'static str, value: &str) -> bool {
        let Ok(mut written) = self.written.lock() else {
            return self.put(controller, file, value);
        };
        if written.get(file).is_some_and(|last| last == value) {
            return true;
        }
        let taken = self.put(controller, file, value);
        if taken {
            written.insert(file, value.to_owned());
        }
        taken
    }

    pub(crate) fn add(&self, pid: i32) -> io::Result<()> {
        let pid = pid.to_string();
        for dir in self.dirs.values().chain(&self.cpuset) {
            files::write(&dir.join("cgroup.procs"), &pid)?;
        }
        Ok(())
    }

    /// Where a single-threaded process enters by writing `0`; none where it must be moved.
    ///
    /// `tasks` moves one thread, and for the writer itself the kernel takes no lock.
    pub(crate) fn join_files(&self) -> io::Result<Option<Vec<Arc<File>>>> {
        if self.dirs.contains_key(UNIFIED) {
            return Ok(None);
        }
        let shared = self.cpuset.as_ref().map(|_| CPUSET);
        let controllers = self.dirs.keys().copied().chain(shared);
        controllers
            .map(|controller| self.file(controller, ENTRY))
            .collect::<io::Result<_>>()
            .map(Some)
    }

    /// Sets every limit; names those that the kernel would not take.
    pub(crate) fn apply(&self, ask: &Ask<'_>) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if !self.set_memory(ask.limits.memory.0) {
            missing.push("memory");
        }
        if !self.set("pids", "pids.max", &ask.processes().to_string()) {
            missing.push("processes");
        }
        if !self.set_cpus(ask.quota_us(1000)) {
            missing.push("cpus");
        }
        if !self.set_disk_io(ask) {
            missing.push("disk_io");
        }
        missing
    }

    fn set_memory(&self, bytes: u64) -> bool {
        const MEMORY: &str = "memory.limit_in_bytes";
        const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
        let value = bytes.to_string();
        self.set("memory", "memory.swappiness", "0");
        // The kernel keeps memory <= memory + swap at each step, so the order depends on the
        // direction. Without swap accounting the second file is absent: nothing to do then.
        let taken = self.set("memory", MEMORY, &value)
            || (self.set("memory", WITH_SWAP, &value) && self.set("memory", MEMORY, &value));
        self.set("memory", WITH_SWAP, &value);
        taken
    }

    fn set_disk_io(&self, ask: &Ask<'_>) -> bool {
        match ask.limits.disk_io {
            Some(rate) => self.set_disk_rate(ask.scratch, Some(rate.0)),
            None => true,
        }
    }

    /// Bounds bytes a second from and to the disk; none takes that back.
    pub(crate) fn set_disk_rate(&self, scratch: &Path, rate: Option<u64>) -> bool {
        match Device::under(scratch) {
            Device::Memory => true,
            Device::Unknown => rate.is_none(),
            Device::Disk { major, minor } => {
                // Zero is the kernel's word for no bound.
                let line = format!("{major}:{minor} {}", rate.map_or(0, |rate| rate.max(1)));
                self.set("blkio", "blkio.throttle.read_bps_device", &line)
                    && self.set("blkio", "blkio.throttle.write_bps_device", &line)
            }
        }
    }

    /// Lets go of a hold on all tasks of the agent, under which nothing could die. Who holds
    /// them has frozen each of the others by now.
    pub(crate) fn free_above(&self) {
        let above = self.dir("freezer").and_then(Path::parent);
        if let Some(state) = above.map(|dir| dir.join("freezer.state"))
            && files::read(&state).is_ok_and(|text| text.trim() != "THAWED")
        {
            let _absent = files::write(&state, "THAWED");
        }
    }

    pub(crate) fn set_cpus(&self, quota_us: Option<u64>) -> bool {
        let quota = || self.path("cpu", "cpu.cfs_quota_us");
        let absent = || !quota().is_some_and(|path| path.exists());
        match quota_us {
            Some(quota) => {
                self.set("cpu", "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())
                    && self.set("cpu", "cpu.cfs_quota_us", &quota.to_string())
            }
            None => absent() || self.set("cpu", "cpu.cfs_quota_us", "-1"),
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        let text = |controller, file| self.text(controller, file).unwrap_or_default();
        let memory = text("memory", "memory.stat");
        let stat = |key: &str| files::keyed(&memory, key).unwrap_or(0);
        let (read_bytes, written_bytes) =
            files::io_service_bytes(&text("blkio", "blkio.throttle.io_service_bytes_recursive"));
        let processes_peak = self.number("pids", "pids.peak");
        let processes_max = self.last_written("pids.max");
        // What is never at its limit never hit it; what has no limit is never slowed.
        let below = processes_max
            .zip(processes_peak)
            .is_some_and(|(max, peak)| peak < max);
        let hits = (!below).then(|| text("pids", "pids.events"));
        let slowed = self.last_written("cpu.cfs_quota_us").is_some();
        let slowed = match slowed {
            true => text("cpu", "cpu.stat"),
            false => String::new(),
        };
        Counters {
            cpu_us: self.cpu_us(),
            throttled_us: files::keyed(&slowed, "throttled_time").unwrap_or(0) / 1000,
            memory_now: self.number("memory", "memory.usage_in_bytes"),
            memory_peak: self.number("memory", PEAK),
            cache_now: stat("total_cache").saturating_sub(stat("total_shmem")),
            page_faults: stat("total_pgmajfault"),
            oom_kills: files::keyed(&text("memory", "memory.oom_control"), "oom_kill").unwrap_or(0),
            read_bytes,
            written_bytes,
            processes_now: self.number("pids", "pids.current"),
            processes_peak,
            pids_max_hits: hits
                .and_then(|text| files::keyed(&text, "max"))
                .unwrap_or(0),
        }
    }

    /// The limit that was written last, where it is a number.
    fn last_written(&self, file: &str) -> Option<u64> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(file)?.parse().ok()
    }

    fn cpu_us(&self) -> Option<u64> {
        if self.dirs.contains_key("cpuacct") {
            return self.number("cpuacct", "cpuacct.usage").map(|ns| ns / 1000);
        }
        files::keyed(&self.text(UNIFIED, "cpu.stat")?, "usage_usec")
    }

    /// Makes the group clean for the next task: what can be reset is, what only counts up is
    /// the next task's baseline, and where neither will do the group is made anew. `counted`
    /// are its counters since nothing runs in it, where somebody has read them.
    pub(crate) fn recycle(&self, counted: Option<Counters>) -> io::Result<Baseline> {
        let mut base = counted.unwrap_or_else(|| self.counters());
        // This peak cannot be reset. Every task reaches two, the cage's init and a program.
        let peak = self.number("pids", "pids.peak");
        if peak.is_none_or(|peak| peak > PROCESSES_OF_ALL) && self.anew("pids")? {
            base.pids_max_hits = 0;
        }
        // A device line stays until its rate is 0; a new group is simpler than that.
        let rates = "blkio.throttle.read_bps_device";
        let rated = self.written.lock().is_ok_and(|all| all.contains_key(rates));
        if rated && self.anew("blkio")? {
            (base.read_bytes, base.written_bytes) = (0, 0);
        }
        let residue = self.number("memory", "memory.usage_in_bytes");
        if residue.is_some_and(|bytes| bytes > RESIDUE_MAX_BYTES) {
            // Its page cache stays in memory; only the charge moves to the parent.
            if self.anew("memory")? {
                (base.page_faults, base.oom_kills) = (0, 0);
            }
        } else if self.dirs.contains_key("memory") {
            self.file("memory", PEAK)?.write_all_at(b"0", 0)?;
        }
        Ok(Baseline(base))
    }

    /// Asks for a freeze or a thaw.
    pub(crate) fn ask_freeze(&self, on: bool) -> io::Result<()> {
        if let Some(dir) = self.dir(UNIFIED) {
            return super::v2::ask_freeze(dir, on);
        }
        let state = self.path("freezer", "freezer.state");
        files::write(&state.ok_or_else(no_freezer)?, state_word(on))
    }

    /// Freezes or thaws; says whether it got there in time.
    pub(crate) fn freeze(&self, on: bool) -> io::Result<bool> {
        if let Some(dir) = self.dir(UNIFIED) {
            return super::v2::freeze(dir, on);
        }
        self.ask_freeze(on)?;
        let state = self
            .path("freezer", "freezer.state")
            .ok_or_else(no_freezer)?;
        let end = Instant::now() + FREEZE_WAIT;
        loop {
            if files::read(&state)?.trim() == state_word(on) {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(false);
            }
            files::short_wait();
        }
    }

    /// Kills all; says whether the group is empty.
    pub(crate) fn kill(&self) -> io::Result<bool> {
        if let Some(dir) = self.dir(UNIFIED) {
            return super::v2::kill(dir);
        }
        self.free_above();
        let procs = self.procs_file().ok_or_else(no_freezer)?;
        super::kill_loop(&procs, &mut |on| {
            if self.dir("freezer").is_some() {
                self.freeze(on).map(drop)
            } else {
                Ok(())
            }
        })
    }

    /// Ids of its processes.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let unified = self.dir(UNIFIED).map(|dir| dir.join("cgroup.procs"));
        let procs = unified.or_else(|| self.procs_file());
        procs
            .and_then(|procs| files::processes(&procs).ok())
            .unwrap_or_default()
    }

    /// Whether any process is left.
    pub(crate) fn populated(&self) -> io::Result<bool> {
        if let Some(dir) = self.dir(UNIFIED) {
            return super::v2::populated(dir);
        }
        let controller = self.surest().ok_or_else(no_freezer)?;
        let procs = self.file(controller, "cgroup.procs")?;
        Ok(!files::read_open(&procs)?.trim().is_empty())
    }

    /// The list of processes in the hierarchy that a task can least have left.
    fn procs_file(&self) -> Option<PathBuf> {
        self.path(self.surest()?, "cgroup.procs")
    }

    fn surest(&self) -> Option<&'static str> {
        ["freezer", "pids", "memory", "cpu", "cpuacct", "blkio"]
            .into_iter()
            .find(|controller| self.dirs.contains_key(controller))
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        let mut result = Ok(());
        for dir in self.dirs.values() {
            if let Err(error) = files::remove_dir(dir) {
                result = Err(error);
            }
        }
        result
    }

    /// Names of the groups beside this one, in any hierarchy.
    pub(crate) fn names(tree: &Tree) -> Vec<String> {
        let mut names: Vec<_> = tree
            .parents
            .values()
            .filter_map(|parent| fs::read_dir(parent).ok())
            .flat_map(super::group_names)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// The freezer's word for what is asked of it.
pub(super) const fn state_word(on: bool) -> &'static str {
    if on { "FROZEN" } else { "THAWED" }
}

fn no_freezer() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "neither a version 2 tree nor the freezer controller can be written",
    )
}
