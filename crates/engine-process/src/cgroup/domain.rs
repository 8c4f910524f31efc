//! What is done to all tasks of an agent at once: freeze, bound, take memory back.
//!
//! One write to one group above theirs, so that it takes as long for a hundred tasks as for one.
//! Limits of single tasks stay as they are below it. It must not know why something is done.

use super::{Backend, CPU_PERIOD_US, CPU_QUOTA_MIN_US, Kind, detect, files, v1, v2};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

/// One call asks for this share of what tasks hold, as a divisor: page cache first, and what is
/// left of a program that waits is not pushed out all at once.
const RECLAIM_SHARE: u64 = 2;

/// What could not be bounded for all at once, and must be done for each task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Thousandths of its own limit that each task may have.
    pub(crate) permille: u32,
}

impl Backend {
    /// What tells the group of all tasks from those of others on this PC; none without groups.
    pub(crate) fn domain(&self) -> Option<String> {
        let dir = match &self.inner {
            Kind::V2(tree) => &tree.parent,
            Kind::V1(tree) => tree.parents.values().next()?,
            Kind::None(_) => return None,
        };
        Some(dir.to_string_lossy().into_owned())
    }

    /// Freezes everything below the agent's group, or takes that back. Written at the return,
    /// not waited for. Says whether there is a group to do it by.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub(crate) fn hold(&self, on: bool) -> io::Result<bool> {
        match &self.inner {
            Kind::V2(tree) => v2::ask_freeze(&tree.parent, on)?,
            Kind::V1(tree) => {
                if let Some(dir) = tree.parents.get("unified") {
                    v2::ask_freeze(dir, on)?;
                } else if let Some(dir) = tree.parents.get("freezer") {
                    files::write(&dir.join("freezer.state"), v1::state_word(on))?;
                } else {
                    return Ok(false);
                }
            }
            Kind::None(_) => return Ok(false),
        }
        Ok(true)
    }

    /// Bounds the processors of all tasks together, in thousandths. Whole ones are taken away
    /// altogether, where the kernel can: a task that runs on all of them for a part of the time
    /// would meet the owner on each.
    pub(crate) fn allow_cpus(&self, milli: u32) -> Rest {
        let online = detect::online_cpus();
        let all = online * 1000;
        let milli = u64::from(milli.max(1)).min(all);
        let whole = milli.div_ceil(1000);
        let taken = match &self.inner {
            Kind::V2(tree) => v2_cpuset(tree, whole),
            Kind::V1(tree) => v1_cpuset(tree, whole),
            Kind::None(_) => false,
        };
        let granted = if taken { whole * 1000 } else { all };
        let held = match &self.inner {
            Kind::V2(tree) => v2_quota(tree, (milli < granted).then_some(milli)),
            // There a child may not have a larger quota than its parent, so that a smaller one
            // above running tasks is refused.
            Kind::V1(_) | Kind::None(_) => milli >= granted,
        };
        // Of the whole PC, whatever part of it is left to them: tasks that fill it fill no more
        // than this together.
        let permille = if held { 1000 } else { milli * 1000 / all };
        Rest {
            permille: u32::try_from(permille.max(1)).unwrap_or(1000),
        }
    }

    /// Where the kernel begins to take memory back from all tasks; none where it need not.
    /// Version 2 only: elsewhere the agent lets fewer tasks in.
    pub(crate) fn allow_memory(&self, bytes: Option<u64>) {
        if let Kind::V2(tree) = &self.inner {
            let text = bytes.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string());
            let _absent = files::write(&tree.parent.join("memory.high"), &text);
        }
    }

    /// Memory of all tasks that is not page cache, in bytes; none where no group counts it.
    pub(crate) fn memory_now(&self) -> Option<u64> {
        let (stat, keys) = match &self.inner {
            Kind::V2(tree) => (tree.parent.join("memory.stat"), ["anon", "shmem"]),
            Kind::V1(tree) => (
                tree.parents.get("memory")?.join("memory.stat"),
                ["total_rss", "total_shmem"],
            ),
            Kind::None(_) => return None,
        };
        let text = files::read(&stat).ok()?;
        Some(keys.iter().filter_map(|key| files::keyed(&text, key)).sum())
    }

    /// Asks the kernel to take back what tasks can do without; says how many bytes came free.
    /// Takes as long as the kernel does.
    pub(crate) fn reclaim(&self) -> u64 {
        match &self.inner {
            Kind::V2(tree) => v2_reclaim(&tree.parent),
            Kind::V1(tree) => tree
                .parents
                .get("memory")
                .map_or(0, |parent| v1_reclaim(parent)),
            Kind::None(_) => 0,
        }
    }
}

fn v2_cpuset(tree: &v2::Tree, whole: u64) -> bool {
    let file = tree.parent.join("cpuset.cpus");
    if whole >= detect::online_cpus() {
        // An empty list takes over what the group above has.
        return files::write(&file, "\n").is_ok();
    }
    files::write(&file, &list(whole)).is_ok()
}

fn v1_cpuset(tree: &v1::Tree, whole: u64) -> bool {
    let Some(dir) = &tree.cpuset else {
        return false;
    };
    let all = || {
        let slice = dir.parent()?;
        files::read(&slice.join("cpuset.cpus")).ok()
    };
    let text = match whole >= detect::online_cpus() {
        true => all(),
        false => Some(list(whole)),
    };
    text.is_some_and(|text| files::write(&dir.join("cpuset.cpus"), text.trim()).is_ok())
}

fn v2_quota(tree: &v2::Tree, milli: Option<u64>) -> bool {
    let text = milli.map_or_else(
        || "max".to_owned(),
        |milli| {
            let quota = (milli * CPU_PERIOD_US / 1000).max(CPU_QUOTA_MIN_US);
            format!("{quota} {CPU_PERIOD_US}")
        },
    );
    files::write(&tree.parent.join("cpu.max"), &text).is_ok() || milli.is_none()
}

fn v2_reclaim(parent: &Path) -> u64 {
    let current = || files::number(&parent.join("memory.current")).unwrap_or(0);
    let before = current();
    let share = before / RECLAIM_SHARE;
    if share == 0 {
        return 0;
    }
    // Fails where less than that came free, which is no less welcome; kernels before 5.19 have
    // no such file, and there a bound for a moment does the same.
    let reclaim = parent.join("memory.reclaim");
    if reclaim.exists() {
        let _less = files::write(&reclaim, &share.to_string());
    } else {
        let high = parent.join("memory.high");
        let old = files::read(&high).unwrap_or_else(|_| "max".to_owned());
        let _absent = files::write(&high, &(before - share).to_string());
        let _absent = files::write(&high, old.trim());
    }
    before.saturating_sub(current())
}

/// The page cache of each task's group; swapping is off there, so nothing else can go.
fn v1_reclaim(parent: &Path) -> u64 {
    let current = || files::number(&parent.join("memory.usage_in_bytes")).unwrap_or(0);
    let before = current();
    let groups = fs::read_dir(parent).map_or_else(|_| Vec::new(), super::group_names);
    for group in groups {
        let _busy = files::write(&parent.join(group).join("memory.force_empty"), "0");
    }
    before.saturating_sub(current())
}

/// This many processors as the kernel writes a list of them: one thread of each core first, and
/// the last ones of the PC, since the first take most interrupts.
fn list(count: u64) -> String {
    let order = order(Path::new("/sys/devices/system/cpu"));
    let mut chosen: Vec<u32> = order
        .into_iter()
        .take(usize::try_from(count).unwrap_or(usize::MAX))
        .collect();
    chosen.sort_unstable();
    let words: Vec<String> = chosen.iter().map(u32::to_string).collect();
    words.join(",")
}

/// All online processors in the order in which tasks get them.
fn order(sys: &Path) -> Vec<u32> {
    let online = files::read(&sys.join("online")).unwrap_or_default();
    let online = numbers(online.trim()).unwrap_or_else(|| vec![0]);
    let mut cores = BTreeSet::new();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for cpu in online.into_iter().rev() {
        let file = sys.join(format!("cpu{cpu}/topology/thread_siblings_list"));
        let core = files::read(&file).unwrap_or_else(|_| cpu.to_string());
        let new = cores.insert(core);
        if new { &mut first } else { &mut second }.push(cpu);
    }
    first.append(&mut second);
    first
}

/// The numbers of a kernel list like `0-3,8`.
fn numbers(text: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_get_the_last_processors_and_one_thread_of_a_core_first() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        fs::write(sys.join("online"), "0-3,5\n").unwrap();
        for (cpu, siblings) in [(0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")] {
            let topology = sys.join(format!("cpu{cpu}/topology"));
            fs::create_dir_all(&topology).unwrap();
            fs::write(topology.join("thread_siblings_list"), siblings).unwrap();
        }
        assert_eq!(order(sys), [5, 3, 2, 1, 0]);
        assert_eq!(numbers("3-x"), None);
    }
}
