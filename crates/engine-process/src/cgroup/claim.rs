//! Whose part of the groups is whose, and what is left of agents that were killed.
//!
//! It owns the locks by which an agent is known to live and the removal of parts that nobody holds.
//! It must not know what runs in a group. An agent holds a lock (flock(2)) on the directory of its
//! part, so the kernel forgets the claim with the process, however that ends, and one process sees
//! the other's across namespaces of processes and mounts, where a number of a process would mean
//! another. A part without a lock and without a process in any hierarchy is removed.

use super::{Backend, DetectOptions, Kind, files, group_names};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the names of agents' parts begin with; eight hexadecimal digits follow. Other names are
/// somebody else's, or of a version that held no lock.
pub(crate) const PART: &str = "node-";

/// What the names of our parent groups begin and end with.
const OURS: [&str; 2] = ["gleaner", ".slice"];

/// Parent groups of pools for trying out, one a folder: gone with their last part. The others stay,
/// since all agents of a PC use the same one.
const TRYING_OUT: &str = "gleaner-dev-";

/// How long to wait for a process that sweeps, which takes milliseconds. Anybody may hold a lock on
/// a directory that they can read, so nobody waits for ever.
const WAIT: Duration = Duration::from_secs(2);

/// How long to wait for agents that find their groups: no start is worth more than that.
const SWEEP_WAIT: Duration = Duration::from_millis(200);

/// Levels of groups below a part that are looked at; ours has one.
const DEPTH_MAX: u32 = 4;

/// Held by an agent as long as it uses its part of the groups.
#[derive(Debug)]
pub(crate) struct Claim {
    _lock: File,
}

impl Backend {
    /// Finds the groups, claims this agent's part of them, and removes what is left of agents that
    /// are gone. Without a claim, which somebody hostile can prevent, everything works the same; the
    /// part may then go while nothing runs in it.
    pub(crate) fn settle(options: &DetectOptions) -> (Self, Option<Claim>) {
        // Nobody sweeps while a part is there and not claimed yet.
        let gate = shared(&options.root, WAIT);
        let backend = Self::detect(options);
        let part = match &backend.inner {
            Kind::V2(tree) => Some(&tree.parent),
            Kind::V1(tree) => tree.parents.values().next(),
            Kind::None(_) => None,
        };
        let claim = part.and_then(|part| match shared(part, WAIT) {
            Ok(lock) => Some(Claim { _lock: lock }),
            Err(error) => {
                tracing::warn!(part = %part.display(), %error, "the groups are not claimed");
                None
            }
        });
        drop(gate);
        backend.sweep_dead(&options.root);
        (backend, claim)
    }

    /// Removes the parts of agents that are gone, beside our own and in every parent group next to
    /// ours, where nothing is left in them. Where agents keep starting meanwhile, one of them will.
    fn sweep_dead(&self, root: &Path) {
        let Ok(_gate) = locked(root, File::try_lock, SWEEP_WAIT) else {
            return;
        };
        let slices = match &self.inner {
            Kind::V2(tree) => vec![tree.slice.clone()],
            Kind::V1(tree) => {
                let all = tree.slices.values().cloned();
                all.chain(tree.cpuset_slice()).collect()
            }
            Kind::None(_) => Vec::new(),
        };
        // The same group has one name in every hierarchy, and a claim in one of them.
        let tops: BTreeSet<PathBuf> = slices
            .iter()
            .filter_map(|slice| Some(slice.parent()?.to_path_buf()))
            .collect();
        let own = slices.first().and_then(|slice| slice.file_name());
        let own = own.and_then(|name| name.to_str()).unwrap_or_default();
        for part in remove_dead(&tops, own) {
            tracing::info!(%part, "removed the groups of an agent that is gone");
        }
    }
}

/// A lock on a directory that others may have too.
fn shared(dir: &Path, wait: Duration) -> io::Result<File> {
    locked(dir, File::try_lock_shared, wait)
}

/// A lock on a directory, waited for as long as `wait`.
fn locked(
    dir: &Path,
    lock: fn(&File) -> Result<(), fs::TryLockError>,
    wait: Duration,
) -> io::Result<File> {
    let file = File::open(dir)?;
    let end = Instant::now() + wait;
    loop {
        match lock(&file) {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < end => files::short_wait(),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes dead parts of our parent groups in these directories, one of each hierarchy; says which.
/// `own` is a parent group that may have any name.
fn remove_dead(tops: &BTreeSet<PathBuf>, own: &str) -> Vec<String> {
    let is_ours = |name: &str| name == own || name.starts_with(OURS[0]) && name.ends_with(OURS[1]);
    let mut removed = Vec::new();
    for slice in names_in(tops).into_iter().filter(|name| is_ours(name)) {
        let slices: BTreeSet<PathBuf> = tops.iter().map(|top| top.join(&slice)).collect();
        for part in names_in(&slices).into_iter().filter(|name| is_part(name)) {
            let dirs: Vec<PathBuf> = slices.iter().map(|slice| slice.join(&part)).collect();
            if remove_part(&dirs) {
                removed.push(format!("{slice}/{part}"));
            }
        }
        if slice.starts_with(TRYING_OUT) && slice != own {
            // Refused by the kernel where any part is left.
            let _in_use = slices.iter().try_for_each(|dir| remove_tree(dir, 0));
        }
    }
    removed
}

fn is_part(name: &str) -> bool {
    let digits = name.strip_prefix(PART).unwrap_or_default();
    digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn names_in(dirs: &BTreeSet<PathBuf>) -> BTreeSet<String> {
    let entries = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok());
    entries.flat_map(group_names).collect()
}

/// Removes one part from all hierarchies, if nobody claims it and nothing is in it.
fn remove_part(dirs: &[PathBuf]) -> bool {
    let mut locks = Vec::new();
    for dir in dirs {
        match File::open(dir) {
            // Kept until the part is gone.
            Ok(file) if file.try_lock().is_ok() => locks.push(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(_) | Err(_) => return false,
        }
    }
    // What runs has files in the others too: all are looked at before any is removed.
    if dirs.iter().any(|dir| !is_empty(dir, DEPTH_MAX)) {
        return false;
    }
    dirs.iter().all(|dir| remove_tree(dir, DEPTH_MAX).is_ok())
}

/// Whether no process is in a group or below it. One that cannot be read counts as in use.
fn is_empty(dir: &Path, depth: u32) -> bool {
    let procs = dir.join("cgroup.procs");
    let none = match files::processes(&procs) {
        Ok(all) => all.is_empty(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    let mut inside = children(dir).into_iter();
    none && depth > 0 && inside.all(|child| is_empty(&child, depth - 1))
}

/// The kernel takes a group only when it is empty, so a process that came in between keeps it.
fn remove_tree(dir: &Path, depth: u32) -> io::Result<()> {
    if depth > 0 {
        let mut inside = children(dir).into_iter();
        inside.try_for_each(|child| remove_tree(&child, depth - 1))?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).map_or_else(|_| Vec::new(), group_names);
    names.into_iter().map(|name| dir.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two hierarchies, as plain directories.
    fn tops() -> (tempfile::TempDir, BTreeSet<PathBuf>) {
        let root = tempfile::tempdir().unwrap();
        let tops = ["cpu", "pids"].map(|name| root.path().join(name));
        (root, tops.into())
    }

    fn make(tops: &BTreeSet<PathBuf>, path: &str) {
        for top in tops {
            fs::create_dir_all(top.join(path)).unwrap();
        }
    }

    fn there(tops: &BTreeSet<PathBuf>, path: &str) -> bool {
        tops.iter().any(|top| top.join(path).exists())
    }

    #[test]
    fn only_parts_of_dead_agents_go() {
        let (_root, tops) = tops();
        let dead = "gleaner-dev-0000000a.slice/node-0123abcd";
        let live = "gleaner-dev-0000000b.slice/node-0123abcd";
        let [beside, busy, other] = [
            "gleaner.slice/node-11111111",
            "gleaner.slice/node-22222222",
            "gleaner.slice/t33333333",
        ];
        for path in [
            dead,
            live,
            beside,
            busy,
            other,
            "someone.slice/node-0123abcd",
        ] {
            make(&tops, path);
        }
        make(&tops, &format!("{dead}/t00000000-1-0"));
        // A claim in one hierarchy is enough, and so is a process.
        let claim = shared(&tops.first().unwrap().join(live), Duration::ZERO).unwrap();
        let leaf = tops.last().unwrap().join(busy).join("t22222222-1-0");
        fs::create_dir(&leaf).unwrap();
        fs::write(leaf.join("cgroup.procs"), "77\n").unwrap();
        assert_eq!(remove_dead(&tops, "gleaner.slice"), [dead, beside]);
        assert!(!there(&tops, "gleaner-dev-0000000a.slice"));
        assert!(!there(&tops, beside));
        for kept in [live, busy, other, "someone.slice/node-0123abcd"] {
            assert!(there(&tops, kept), "{kept}");
        }
        drop(claim);
        assert_eq!(remove_dead(&tops, "gleaner.slice"), [live]);
        assert!(!there(&tops, "gleaner-dev-0000000b.slice"));
        assert!(there(&tops, "gleaner.slice"), "all agents use it");
    }

    #[test]
    fn names_that_are_no_part_are_left_alone() {
        for (name, part) in [
            ("node-0123abcd", true),
            ("node-0123abc", false),
            ("node-0123abcdx", false),
            ("node-0123abcz", false),
            ("t0123abcd", false),
        ] {
            assert_eq!(is_part(name), part, "{name}");
        }
    }

    #[test]
    fn several_engines_claim_one_part_and_none_of_them_waits_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let one = shared(dir.path(), Duration::ZERO).unwrap();
        let two = shared(dir.path(), Duration::ZERO).unwrap();
        let all = [dir.path().to_path_buf()];
        drop(one);
        assert!(!remove_part(&all), "one still holds it");
        drop(two);
        let hostile = File::open(dir.path()).unwrap();
        hostile.lock().unwrap();
        shared(dir.path(), Duration::from_millis(1)).unwrap_err();
        drop(hostile);
        assert!(remove_part(&all) && !dir.path().exists());
        fs::create_dir(dir.path()).unwrap();
    }
}
