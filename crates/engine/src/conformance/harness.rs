//! A test binary around the suite, for engines whose tests cannot have the usual harness: such a
//! binary is the engine's shim too, and must become one before any thread exists.

use super::{Bench, all_cases};
use crate::{Engine, Events};
use std::collections::BTreeSet;
use std::fs::DirEntry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What names of groups of tests begin with; then comes the number of the process, and no digit.
const GROUPS: &str = "gleaner-test-";

/// The parent of all groups of this test run.
#[must_use]
pub fn group_parent() -> String {
    format!("{GROUPS}{}.slice", std::process::id())
}

/// How long processes of a test may take to leave their groups once their engine is gone.
const GROUPS_GONE_WITHIN: Duration = Duration::from_secs(30);

/// Where the kernel shows groups.
const HIERARCHIES: &str = "/sys/fs/cgroup";

/// The group of version 2 that we are in, as a path below the root.
fn own_group() -> String {
    let all = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = all.lines().find_map(|line| line.strip_prefix("0::/"));
    own.unwrap_or_default().to_owned()
}

/// Removes the groups whose names begin with `prefix`, wherever engines can have made them: below
/// the root of each hierarchy, or, as a plain user, beside a group that we are in. Gives those that
/// something still runs in.
fn remove_groups(root: &Path, own: &str, prefix: &str) -> Vec<PathBuf> {
    let own = root.join(own);
    let above = own.ancestors().take_while(|dir| dir.starts_with(root));
    let places = directories(root)
        .into_iter()
        .chain(above.map(PathBuf::from));
    let places: BTreeSet<PathBuf> = places.collect();
    let is_ours = |dir: &PathBuf| {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with(['.', '-']))
    };
    let ours = places.iter().flat_map(|place| directories(place));
    let ours: Vec<PathBuf> = ours.filter(is_ours).collect();
    ours.into_iter().filter(|dir| !remove(dir)).collect()
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is_dir = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter(is_dir).map(|entry| entry.path()).collect()
}

/// A group with those in it; whether it is gone.
fn remove(group: &Path) -> bool {
    for inner in directories(group) {
        remove(&inner);
    }
    std::fs::remove_dir(group).is_ok() || !group.exists()
}

/// Priority is tested where it is made. Here tasks run like anything else, or a busy PC would
/// let every test time out: a task at idle priority gets nothing there, as it should.
pub fn run_like_others() {
    group_like_others(&group_parent());
}

/// The same for a group of another name.
pub fn group_like_others(name: &str) {
    let parent = format!("/sys/fs/cgroup/cpu/{name}");
    std::thread::spawn(move || {
        loop {
            // Each shim puts the group back to idle when it starts.
            for (file, value) in [("cpu.idle", "0"), ("cpu.shares", "1024")] {
                let _no_such_group = std::fs::write(format!("{parent}/{file}"), value);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

/// Counts the failures and says how each test went.
#[derive(Debug, Default)]
pub struct Report {
    filter: Vec<String>,
    /// Whether the words are whole names.
    exact: bool,
    failed: usize,
}

impl Report {
    /// One that tries the tests whose names hold one of the words on the command line; all,
    /// where there is none. With `--exact` the words are whole names. Other options and hidden calls (`__…`) are no such words.
    #[must_use]
    pub fn of_command_line() -> Self {
        let words = std::env::args_os().skip(1);
        let words: Vec<String> = words
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        Self {
            exact: words.iter().any(|word| word == "--exact"),
            filter: words
                .into_iter()
                .filter(|word| !word.starts_with('-') && !word.starts_with("__"))
                .collect(),
            failed: 0,
        }
    }

    /// Runs a test, unless it is filtered out. One that panics has failed.
    #[expect(clippy::print_stdout, reason = "this is what a test harness is for")]
    pub fn try_one(&mut self, name: &str, test: impl FnOnce()) {
        let chosen = |part: &String| match self.exact {
            true => name == part,
            false => name.contains(part),
        };
        if !self.filter.is_empty() && !self.filter.iter().any(chosen) {
            return;
        }
        let begun = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        self.failed += usize::from(!passed);
        let word = if passed { "ok" } else { "FAILED" };
        let seconds = begun.elapsed().as_secs_f64();
        println!("test {name} ... {word} ({seconds:.2} s)");
    }

    /// Puts the engine that `make` gives through the cases that `applies` to, with blobs in
    /// `dir`.
    ///
    /// # Panics
    /// Where `dir` cannot be made.
    pub fn cases<E>(
        &mut self,
        dir: &Path,
        make: impl FnOnce(Events) -> E,
        prefix: &str,
        applies: impl Fn(&str) -> bool,
    ) -> Bench
    where
        E: Engine + Clone + 'static,
    {
        let blobs = dir.join("blobs");
        std::fs::create_dir(&blobs).unwrap();
        let bench = Bench::new(blobs, make);
        for (name, case) in all_cases() {
            if applies(name) {
                self.try_one(&format!("{prefix}{name}"), || case(&bench));
            }
        }
        bench
    }

    /// How the binary ends, once every engine is gone: with it go the groups of this run.
    #[must_use]
    #[expect(clippy::print_stdout, reason = "this is what a test harness is for")]
    pub fn exit_code(&self) -> ExitCode {
        let prefix = format!("{GROUPS}{}", std::process::id());
        let (begun, own) = (Instant::now(), own_group());
        let remove = || remove_groups(Path::new(HIERARCHIES), &own, &prefix);
        let mut left = remove();
        while !left.is_empty() && begun.elapsed() < GROUPS_GONE_WITHIN {
            std::thread::sleep(Duration::from_millis(50));
            left = remove();
        }
        for group in &left {
            println!(
                "test groups are left behind ... FAILED: {}",
                group.display()
            );
        }
        if self.failed > 0 || !left.is_empty() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_this_run_go_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        let all = [
            "cpu/t-7.slice/agent-1/task",
            "cpu/t-71.slice",
            "memory/t-7-agents.slice",
            "user.slice/user-1/t-7.slice",
            "user.slice/user-1/session/deep",
            "t-7.slice",
            "other/deep/t-7.slice",
        ];
        for group in all {
            std::fs::create_dir_all(root.path().join(group)).unwrap();
        }
        // Something runs in there.
        std::fs::write(root.path().join("memory/t-7-agents.slice/x"), "").unwrap();
        let left = remove_groups(root.path(), "user.slice/user-1/session", "t-7");
        assert_eq!(left, [root.path().join("memory/t-7-agents.slice")]);
        let stays = all.map(|group| root.path().join(group).exists());
        assert_eq!(stays, [false, true, true, false, true, false, true]);
    }
}
