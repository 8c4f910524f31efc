//! What `/proc` and the clocks tell about this PC and about single processes.

use crate::{BenchError, Doing as _};
use rustix::thread::{ClockId, Timespec};
use std::fs;
use std::path::Path;

/// CPUs that this process may use.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Nanoseconds of the monotonic clock.
pub(crate) fn now_ns() -> u64 {
    nanos(rustix::time::clock_gettime(ClockId::Monotonic))
}

pub(crate) fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "differences of some seconds")]
pub(crate) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Sleeps until this time of the monotonic clock.
pub(crate) fn sleep_until(ns: u64) {
    let at = Timespec {
        tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0),
    };
    while rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &at)
        == Err(rustix::io::Errno::INTR)
    {}
}

/// Ends this process when the one that started it ends.
pub(crate) fn die_with_parent() -> Result<(), BenchError> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .doing("tie this process to its parent")
}

/// Seconds that this process' threads were runnable and had no CPU.
pub(crate) fn own_run_delay_s() -> Result<f64, BenchError> {
    let mut delay_ns = 0;
    for thread in fs::read_dir("/proc/self/task").doing("list threads")? {
        let path = thread.doing("list threads")?.path().join("schedstat");
        // A thread that has just ended tells nothing any more.
        let text = fs::read_to_string(path).unwrap_or_default();
        delay_ns += text
            .split_whitespace()
            .nth(1)
            .and_then(|word| word.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(seconds(delay_ns))
}

/// Major page faults of this process so far.
pub(crate) fn own_major_faults() -> Result<u64, BenchError> {
    let text = fs::read_to_string("/proc/self/stat").doing("read /proc/self/stat")?;
    Ok(stat_field(&text, 12).unwrap_or(0))
}

/// A field of `/proc/PID/stat`, counted from 1 as proc(5) does; one after the name.
fn stat_field(text: &str, field: usize) -> Option<u64> {
    let after_name = text.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(field - 3)?.parse().ok()
}

/// CPU seconds (user and system, to a hundredth) and resident bytes of a process.
pub(crate) fn cost(pid: u32) -> Option<(f64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = stat_field(&text, 14)? + stat_field(&text, 15)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()?;
    Some((ticks_to_seconds(ticks), rss << 10))
}

#[expect(clippy::cast_precision_loss, reason = "ticks of days fit")]
fn ticks_to_seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Whether a process is stopped or gone.
pub(crate) fn is_stopped(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = text
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, None | Some('T' | 't' | 'Z' | 'X'))
}

/// Bytes that can be had without swapping.
pub(crate) fn available_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(u64::MAX >> 10) << 10
}

/// The PC's CPU time at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Machine {
    /// The monotonic clock, in seconds.
    pub(crate) at_s: f64,
    /// CPU seconds in which no CPU had anything to run.
    pub(crate) idle_s: f64,
    /// CPU seconds that the host took from this guest.
    pub(crate) steal_s: f64,
}

impl Machine {
    pub(crate) fn now() -> Result<Self, BenchError> {
        let path = Path::new("/proc/stat");
        let text = fs::read_to_string(path).doing("read /proc/stat")?;
        let at_s = seconds(now_ns());
        Self::parse(&text, at_s)
            .ok_or_else(|| BenchError::Broken("/proc/stat has no line of all CPUs".to_owned()))
    }

    fn parse(text: &str, at_s: f64) -> Option<Self> {
        let line = text.lines().find(|line| line.starts_with("cpu "))?;
        let fields: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .map_while(|word| word.parse().ok())
            .collect();
        Some(Self {
            at_s,
            // Waiting for the disk is idle: another program could have run.
            idle_s: ticks_to_seconds(fields.get(3)? + fields.get(4)?),
            steal_s: ticks_to_seconds(fields.get(7).copied().unwrap_or(0)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_blanks_and_brackets_do_not_shift_fields() {
        let text = "7 (a b) c) S 1 1 1 0 -1 4194304 100 0 42 0 11 12 0 0 20 0 1 0";
        assert_eq!(stat_field(text, 12), Some(42));
        assert_eq!(stat_field(text, 14), Some(11));
    }

    #[test]
    fn idle_and_steal_are_read_from_the_line_of_all() {
        let text = "cpu  10 0 20 300 50 1 2 40 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        let machine = Machine::parse(text, 1.0).unwrap();
        let a_second = ticks_to_seconds(1).recip();
        assert!((machine.idle_s * a_second - 350.0).abs() < 1e-9);
        assert!((machine.steal_s * a_second - 40.0).abs() < 1e-9);
        assert_eq!(Machine::parse("intr 1 2 3\n", 1.0), None);
    }

    #[test]
    fn this_process_has_costs() {
        let (cpu_s, rss) = cost(std::process::id()).unwrap();
        assert!(cpu_s >= 0.0 && rss > 100_000);
        assert!(own_run_delay_s().unwrap() >= 0.0);
        assert!(!is_stopped(i32::try_from(std::process::id()).unwrap()));
        assert!(is_stopped(i32::MAX));
        assert!(available_bytes() > 0);
    }
}
