//! A test binary around the suite, for engines whose tests cannot have the usual harness: such a
//! binary is the engine's shim too, and must become one before any thread exists.

use super::{Bench, all_cases};
use crate::{Engine, Events};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The parent of all groups of this test run.
#[must_use]
pub fn group_parent() -> String {
    format!("gleaner-test-{}.slice", std::process::id())
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

    /// How the binary ends.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        if self.failed > 0 {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}
