//! What a benchmark that was killed could not take away: its directory, its empty groups, its
//! instance of the tracer. All of them carry its process id, and the next one removes those whose
//! process is gone. Its processes ended by themselves: the owner with it, tasks with their lease.

use gleaner_engine_process::cgroup::{Backend, DetectOptions};
use rustix::mount::{UnmountFlags, unmount};
use std::fs;
use std::path::Path;

/// What the names of everything that a benchmark makes begin with; its process id follows.
pub(crate) const PREFIX: &str = "gleaner-impact-";

/// Where the tracer's file system is mounted in a benchmark's directory, if it is.
pub(crate) const TRACER: &str = "tracing";

/// The name of this process' things.
pub(crate) fn own_name() -> String {
    format!("{PREFIX}{}", std::process::id())
}

/// Whether this is the name of something whose process is gone.
fn is_dead(name: &str) -> bool {
    let pid = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next());
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// Names in a directory that are a dead benchmark's.
fn dead_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_dead(name))
        .collect()
}

/// Removes directories of dead benchmarks in `dir`.
pub(crate) fn sweep_files(dir: &Path) {
    for name in dead_in(dir) {
        let dead = dir.join(name);
        let tracer = dead.join(TRACER);
        let _not_mounted = unmount(&tracer, UnmountFlags::DETACH);
        // Never into the tracer's file system: removing there removes other people's instances.
        if !tracer.join("instances").exists() {
            // Somebody else's is not ours to remove, and cannot be.
            let _theirs = fs::remove_dir_all(dead);
        }
    }
}

/// Removes groups of dead benchmarks beside ours.
pub(crate) fn sweep_groups(ours: &Backend) {
    // Our part lies in our parent group, and that beside those of the others.
    let beside = ours
        .cpu_parent()
        .into_iter()
        .flat_map(Path::ancestors)
        .find(|dir| dir.ends_with(own_name()))
        .and_then(Path::parent);
    for name in beside.map(dead_in).unwrap_or_default() {
        let options = DetectOptions {
            parent_name: name,
            ask_systemd: false,
            ..DetectOptions::default()
        };
        let dead = Backend::detect(&options);
        dead.sweep_stale(&|_| false);
        let _in_use = dead.remove_parent();
    }
}

/// Removes instances of the tracer.
pub(crate) fn sweep_tracers(instances: &Path) {
    for name in dead_in(instances) {
        let _in_use = fs::remove_dir(instances.join(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_benchmark_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        // No process has this id: the kernel's largest is 4,194,304.
        let names = [
            "gleaner-impact-4999999-x",
            "gleaner-impact-",
            "gleaner-data",
        ];
        let own = format!("{}-y", own_name());
        for name in names.into_iter().chain([own.as_str()]) {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        sweep_files(dir.path());
        let left = |name: &str| dir.path().join(name).is_dir();
        assert!(!left(names[0]));
        assert!(left(names[1]) && left(names[2]) && left(&own));
    }
}
