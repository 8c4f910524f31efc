//! One attempt's group, the same to its user whichever back end made it.

use super::detect::online_cpus;
use super::{
    Ask, Baseline, Counters, GroupEvents, GroupUsage, describe, files, none, quota_us, v1, v2,
};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The group of one attempt. Dropping it leaves it in the kernel; see [`Group::remove`].
#[derive(Debug)]
pub struct Group {
    name: String,
    inner: Inner,
    base: Baseline,
    memory_seen: AtomicU64,
    processes_seen: AtomicU64,
    /// Whether it may be frozen still; a group from elsewhere is taken to be.
    frozen: AtomicBool,
    /// Its counters since nothing runs in it any more.
    last: Mutex<Option<Counters>>,
}

#[derive(Debug)]
pub(super) enum Inner {
    V2(v2::Leaf),
    V1(v1::Leaf),
    None(none::Tree),
}

impl Group {
    pub(super) fn new(name: &str, inner: Inner, base: Baseline) -> Self {
        Self {
            name: name.to_owned(),
            inner,
            base,
            memory_seen: AtomicU64::new(0),
            processes_seen: AtomicU64::new(0),
            frozen: AtomicBool::new(true),
            last: Mutex::new(None),
        }
    }

    /// Its name below the parent.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// To be stored with the attempt; see [`super::Backend::open`].
    #[must_use]
    pub const fn baseline(&self) -> Baseline {
        self.base
    }

    /// The directory that `clone3` with CLONE_INTO_CGROUP takes; none where a process has to be
    /// moved with [`Group::add`] before it starts the program.
    #[must_use]
    pub fn clone_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.inner {
            Inner::V2(leaf) => Some(leaf.fd().as_fd()),
            Inner::V1(_) | Inner::None(_) => None,
        }
    }

    /// Files by which a process of ours enters the group by itself, at a tenth of the price of
    /// [`Group::add`]: it calls [`join`] with them while it has one thread, before anything else
    /// is charged to it. None where it has to be added from outside.
    ///
    /// # Errors
    /// Where they cannot be opened.
    pub fn join_files(&self) -> io::Result<Option<Vec<Arc<File>>>> {
        match &self.inner {
            Inner::V1(leaf) => leaf.join_files(),
            Inner::V2(_) | Inner::None(_) => Ok(None),
        }
    }

    /// Moves a process, its threads and what they fork from now on into the group.
    ///
    /// # Errors
    /// Where the kernel refuses; the process may then be in some hierarchies only, and must not
    /// run the program.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        match &self.inner {
            Inner::V2(leaf) => leaf.add(pid),
            Inner::V1(leaf) => leaf.add(pid),
            Inner::None(tree) => {
                tree.add(pid);
                Ok(())
            }
        }
    }

    /// Sets every limit before the program starts. Returns in words what could not be enforced
    /// by the kernel and must be watched instead.
    #[must_use]
    pub fn apply(&self, ask: &Ask<'_>) -> Vec<String> {
        let missing = match &self.inner {
            Inner::V2(leaf) => leaf.apply(ask),
            Inner::V1(leaf) => leaf.apply(ask),
            Inner::None(_) => none::Tree::apply(ask),
        };
        missing
            .into_iter()
            .map(|limit| describe::not_enforced(limit).to_owned())
            .collect()
    }

    /// Whether the kernel holds the processors, by what [`Group::apply`] said.
    #[must_use]
    pub(crate) fn holds_cpus(missing: &[String]) -> bool {
        let cannot = describe::not_enforced("cpus");
        missing.iter().all(|word| word != cannot)
    }

    /// Holds the group to `permille` thousandths of `cpus_milli` thousandths of a CPU; 1000
    /// gives the limit back. Says whether the kernel takes it.
    #[must_use]
    pub fn slow(&self, cpus_milli: u32, permille: u32) -> bool {
        let quota = quota_us(cpus_milli, permille, online_cpus());
        match &self.inner {
            Inner::V2(leaf) => leaf.set_cpus(quota),
            Inner::V1(leaf) => leaf.set_cpus(quota),
            Inner::None(_) => false,
        }
    }

    /// Bounds the bytes a second from and to the disk under `scratch`; none takes that back.
    /// Says whether the kernel holds all of it: version 1 lets writes pass that go by way of
    /// the page cache, and somebody must watch these.
    #[must_use]
    pub fn disk_rate(&self, scratch: &Path, rate: Option<u64>) -> bool {
        match &self.inner {
            Inner::V2(leaf) => leaf.set_disk_rate(scratch, rate),
            Inner::V1(leaf) => leaf.set_disk_rate(scratch, rate) && rate.is_none(),
            Inner::None(_) => rate.is_none(),
        }
    }

    /// Every process in it now, by its id on the host.
    #[must_use]
    pub fn members(&self) -> Vec<i32> {
        match &self.inner {
            Inner::V2(leaf) => files::processes(&leaf.dir.join("cgroup.procs")).unwrap_or_default(),
            Inner::V1(leaf) => leaf.processes(),
            Inner::None(tree) => tree.pids(),
        }
    }

    /// Asks for a freeze or a thaw and does not wait for it.
    ///
    /// # Errors
    /// Where the kernel has no way to freeze.
    pub fn ask_freeze(&self, on: bool) -> io::Result<()> {
        self.frozen.store(true, Ordering::Relaxed);
        match &self.inner {
            Inner::V2(leaf) => v2::ask_freeze(&leaf.dir, on),
            Inner::V1(leaf) => leaf.ask_freeze(on),
            Inner::None(tree) => tree.signal_all(on),
        }
    }

    /// Thaws it, and what holds all tasks of the agent if that would keep it frozen: for one
    /// that is to die.
    ///
    /// # Errors
    /// Where the kernel has no way to freeze.
    pub fn let_die(&self) -> io::Result<()> {
        if let Inner::V1(leaf) = &self.inner {
            leaf.free_above();
        }
        self.ask_freeze(false)
    }

    /// Freezes (`true`) or thaws every process; returns once all stand still, or `false` when
    /// they do not yet after half a second (they will: the request stays).
    ///
    /// # Errors
    /// Where the kernel has no way to freeze.
    pub fn freeze(&self, on: bool) -> io::Result<bool> {
        self.frozen.store(true, Ordering::Relaxed);
        match &self.inner {
            Inner::V2(leaf) => v2::freeze(&leaf.dir, on),
            Inner::V1(leaf) => leaf.freeze(on),
            Inner::None(tree) => tree.freeze(on),
        }
    }

    /// Asks again for a freeze that took too long, where the kernel does not keep the request;
    /// says whether all stand still.
    #[must_use]
    pub(crate) fn press(&self) -> bool {
        match &self.inner {
            Inner::V2(_) | Inner::V1(_) => true,
            // A process that cannot be signalled is not asked for ever.
            Inner::None(tree) => tree
                .press(true)
                .map_or(true, |(left, asleep)| left == asleep),
        }
    }

    /// Kills every process, frozen or not, whatever it forked. Returns whether the group is
    /// empty; `false` only when one hangs in the kernel for longer than five seconds.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn kill(&self) -> io::Result<bool> {
        match &self.inner {
            Inner::V2(leaf) => v2::kill(&leaf.dir),
            Inner::V1(leaf) => leaf.kill(),
            Inner::None(tree) => tree.kill(),
        }
    }

    /// Whether a process is in it.
    ///
    /// # Errors
    /// Where the group is gone.
    pub fn populated(&self) -> io::Result<bool> {
        match &self.inner {
            Inner::V2(leaf) => v2::populated(&leaf.dir),
            Inner::V1(leaf) => leaf.populated(),
            Inner::None(tree) => Ok(tree.populated()),
        }
    }

    /// Ids of its processes, as our own pid namespace numbers them; what cannot be read is left
    /// out.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        match &self.inner {
            Inner::V2(leaf) => files::processes(&leaf.dir.join("cgroup.procs")).unwrap_or_default(),
            Inner::V1(leaf) => leaf.processes(),
            Inner::None(tree) => tree.processes(),
        }
    }

    /// What it has used. To be read before the group is removed.
    #[must_use]
    pub fn usage(&self) -> GroupUsage {
        self.figures().0
    }

    /// Limits that it ran into.
    #[must_use]
    pub fn events(&self) -> GroupEvents {
        self.figures().1
    }

    /// Both at once, for half the price.
    #[must_use]
    pub fn figures(&self) -> (GroupUsage, GroupEvents) {
        self.figures_of(self.counters())
    }

    /// The same when nothing runs in it any more. If it is used again, the next attempt's count
    /// begins here.
    #[must_use]
    pub fn last_figures(&self) -> (GroupUsage, GroupEvents) {
        let counters = self.counters();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(counters);
        self.figures_of(counters)
    }

    fn figures_of(&self, now: Counters) -> (GroupUsage, GroupEvents) {
        let base = &self.base.0;
        let events = GroupEvents {
            oom_kills: now.oom_kills.saturating_sub(base.oom_kills),
            pids_max_hits: now.pids_max_hits.saturating_sub(base.pids_max_hits),
            throttled_us: now.throttled_us.saturating_sub(base.throttled_us),
        };
        let uncached = now.memory_now.unwrap_or(0).saturating_sub(now.cache_now);
        let memory_seen = at_least(&self.memory_seen, uncached);
        let processes_now = now.processes_now.unwrap_or(0);
        let processes_seen = at_least(&self.processes_seen, processes_now);
        let since = |now: u64, base: u64| now.saturating_sub(base);
        let usage = GroupUsage {
            cpu_us: since(now.cpu_us.unwrap_or(0), base.cpu_us.unwrap_or(0)),
            memory_now: uncached,
            memory_peak: peak_without_cache(&now, memory_seen, events.oom_kills > 0),
            read_bytes: since(now.read_bytes, base.read_bytes),
            written_bytes: since(now.written_bytes, base.written_bytes),
            processes_now: clamp_u32(processes_now),
            processes_peak: clamp_u32(now.processes_peak.unwrap_or(processes_seen)),
            page_faults: since(now.page_faults, base.page_faults),
        };
        (usage, events)
    }

    pub(super) fn counters(&self) -> Counters {
        match &self.inner {
            Inner::V2(leaf) => leaf.counters(),
            Inner::V1(leaf) => leaf.counters(),
            Inner::None(tree) => tree.counters(),
        }
    }

    /// Makes an empty group clean for another attempt.
    ///
    /// # Errors
    /// Where a process is left, or the kernel will not forget; the group is to be removed then.
    pub(super) fn recycle(&mut self) -> io::Result<()> {
        if self.populated()? {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let last = self
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.base = match &mut self.inner {
            Inner::V2(leaf) => leaf.recycle()?,
            Inner::V1(leaf) => {
                if self.frozen.swap(false, Ordering::Relaxed) {
                    leaf.freeze(false)?;
                }
                leaf.recycle(last)?
            }
            Inner::None(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        self.memory_seen.store(0, Ordering::Relaxed);
        self.processes_seen.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the group. It must be empty; a moment is waited for the last process to go.
    ///
    /// # Errors
    /// Where it is still busy.
    pub fn remove(&self) -> io::Result<()> {
        match &self.inner {
            Inner::V2(leaf) => files::remove_dir(&leaf.dir),
            Inner::V1(leaf) => leaf.remove(),
            Inner::None(_) => Ok(()),
        }
    }
}

/// Enters the group whose [`Group::join_files`] these are. The files may come over a socket.
///
/// # Errors
/// Where the kernel refuses; the program must not be started then.
pub fn join(files: &[impl AsFd]) -> io::Result<()> {
    for file in files {
        rustix::io::write(file, b"0")?;
    }
    Ok(())
}

/// Raises a mark to `value`; returns where it stands then.
fn at_least(mark: &AtomicU64, value: u64) -> u64 {
    mark.fetch_max(value, Ordering::Relaxed).max(value)
}

fn clamp_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The best figure for a peak without page cache; see [`GroupUsage::memory_peak`].
fn peak_without_cache(now: &Counters, seen: u64, out_of_memory: bool) -> u64 {
    let Some(peak) = now.memory_peak else {
        return seen;
    };
    if out_of_memory {
        return peak;
    }
    peak.saturating_sub(now.cache_now).max(seen).min(peak)
}
