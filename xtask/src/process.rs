//! Running other programs: with a deadline, with their output shown and counted, and ending all
//! that they started.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read};
use std::ops::AddAssign;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Environment variable that asks tests for their long form.
pub(crate) const LONG: &str = "GLEANER_LONG";

/// How long output may still come after a program ended, from something it left behind.
const DRAIN: Duration = Duration::from_secs(5);

/// Tests that passed and failed, as cargo's test harness reports them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Passed.
    pub(crate) passed: u64,
    /// Failed.
    pub(crate) failed: u64,
    /// Failed beside others and passed alone; they count as passed too.
    pub(crate) unsteady: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.unsteady += other.unsteady;
    }
}

impl Counts {
    /// Adds what a line of output reports; most report nothing.
    fn add(&mut self, line: &str) {
        let line = line.trim();
        let Some(report) = line.strip_prefix("test result: ") else {
            self.add_one(line);
            return;
        };
        self.passed += number_before(report, " passed");
        self.failed += number_before(report, " failed");
    }
}

impl Counts {
    /// A line of our own harnesses: `test NAME ... ok (0.12 s)`. Cargo's has no time, and sums up.
    fn add_one(&mut self, line: &str) {
        let timed = line.starts_with("test ") && line.ends_with(" s)");
        self.passed += u64::from(timed && line.contains(" ... ok ("));
        self.failed += u64::from(timed && line.contains(" ... FAILED ("));
    }
}

fn number_before(text: &str, word: &str) -> u64 {
    text.split_once(word)
        .and_then(|(before, _)| before.rsplit(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With code 0.
    Success,
    /// With another code, or by a signal.
    Failure(ExitStatus),
    /// It passed its deadline and was killed with all it started.
    Stuck,
}

/// What came of a program.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// How it ended.
    pub(crate) end: End,
    /// Tests that it reported.
    pub(crate) counts: Counts,
    /// Names of the tests that failed.
    pub(crate) failed: Vec<String>,
}

/// What a program has reported so far.
#[derive(Debug, Default)]
struct Heard {
    counts: Counts,
    failed: Vec<String>,
}

impl Heard {
    fn line(&mut self, line: &str) {
        self.counts.add(line);
        self.failed.extend(failed_name(line));
    }
}

/// The test that a line says has failed. Cargo's harness heads what each of them printed with its
/// name; the line of the test itself may be torn apart by what other tests print.
fn failed_name(line: &str) -> Option<String> {
    let line = line.trim();
    let cargos = || line.strip_prefix("---- ")?.strip_suffix(" stdout ----");
    let ours = || {
        let (name, rest) = line.strip_prefix("test ")?.split_once(" ... FAILED (")?;
        rest.ends_with(" s)").then_some(name)
    };
    cargos().or_else(ours).map(str::to_owned)
}

/// Runs a program to its end or its deadline, showing its output as it comes.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn run(command: &mut Command, deadline: Duration) -> io::Result<Outcome> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let pid = child.id();
    let heard = Arc::new(Mutex::new(Heard::default()));
    let (drained, output_ended) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        let heard = Arc::clone(&heard);
        thread::spawn(move || {
            show(output, &heard);
            drop(drained);
        });
    }
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(child.wait()));
    let end = match end.recv_timeout(deadline) {
        Ok(status) => match status? {
            status if status.success() => End::Success,
            status => End::Failure(status),
        },
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            kill_tree(pid);
            End::Stuck
        }
    };
    // Either way is fine: all output was read, or what was left behind keeps the pipe open.
    let _: Result<(), RecvTimeoutError> = output_ended.recv_timeout(DRAIN);
    let heard = std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Outcome {
        end,
        counts: heard.counts,
        failed: heard.failed,
    })
}

fn show(output: impl Read, heard: &Mutex<Heard>) {
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .line(&line);
    }
}

/// Kills a program and everything below it. Children stay in our process group, so that Ctrl-C
/// reaches them; that is why the tree is read from `/proc` instead.
pub(crate) fn kill_tree(pid: u32) {
    let parents = parents();
    let mut doomed = vec![pid];
    let mut at = 0;
    while at < doomed.len() {
        let parent = doomed[at];
        doomed.extend(
            parents
                .iter()
                .filter(|(_, p)| **p == parent)
                .map(|(child, _)| *child),
        );
        at += 1;
    }
    for pid in doomed {
        signal(pid, "KILL");
    }
}

/// Sends a signal by name. A process that is gone already is what was wanted.
pub(crate) fn signal(pid: u32, name: &str) {
    let script = format!("kill -s {name} {pid}");
    let _: io::Result<ExitStatus> = Command::new("sh")
        .args(["-c", &script])
        .stderr(Stdio::null())
        .status();
}

/// Parent of each process.
fn parents() -> BTreeMap<u32, u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name in parentheses may hold anything, spaces and parentheses too.
            let fields = stat.rsplit_once(')')?.1;
            Some((pid, fields.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_the_test_harness_are_counted() {
        let mut counts = Counts::default();
        counts.add("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out");
        counts.add("test result: FAILED. 1 passed; 2 failed; 0 ignored");
        counts.add("test something ... ok");
        counts.add("test of a harness of our own ... ok (1.25 s)\r");
        counts.add("test of a harness of our own ... FAILED (1.25 s)");
        assert_eq!(
            counts,
            Counts {
                passed: 14,
                failed: 3,
                unsteady: 0
            }
        );
    }

    #[test]
    fn what_failed_is_known_by_name() {
        let failed = |line: &str| failed_name(line);
        assert_eq!(failed("---- a::b stdout ----"), Some("a::b".to_owned()));
        assert_eq!(
            failed("test root: a case ... FAILED (1.25 s)\r"),
            Some("root: a case".to_owned())
        );
        assert_eq!(failed("test a::b ... FAILED"), None, "said again below");
        assert_eq!(failed("test root: a case ... ok (1.25 s)"), None);
    }

    #[test]
    fn a_program_ends_by_itself() {
        let outcome = run(
            Command::new("sh").args(["-c", "exit 3"]),
            Duration::from_secs(60),
        )
        .unwrap();
        assert!(matches!(outcome.end, End::Failure(status) if status.code() == Some(3)));
        let outcome = run(&mut Command::new("true"), Duration::from_secs(60)).unwrap();
        assert_eq!(outcome.end, End::Success);
    }

    #[test]
    fn a_stuck_program_is_killed_with_its_children() {
        let mut command = Command::new("sh");
        // The child writes to a pipe of ours, which ends only when the child is gone.
        let (reader, writer) = io::pipe().unwrap();
        command.args(["-c", "sleep 1000 & wait"]).stderr(writer);
        let outcome = run(&mut command, Duration::from_secs(1)).unwrap();
        assert_eq!(outcome.end, End::Stuck);
        drop(command);
        assert_eq!(BufReader::new(reader).lines().count(), 0);
    }
}
