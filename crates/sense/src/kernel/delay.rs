//! How long the owner's threads wait for a processor.
//!
//! Where ours are in groups apart, the kernel's own measure of the owner's groups: the share of
//! time in which some thread of theirs was runnable and did not run; that includes threads that
//! wait for each other. Elsewhere a canary stands for the owner: this thread, at normal priority,
//! wakes twenty times a second for some microseconds, and the kernel tells exactly how long it
//! was runnable before it ran (`schedstat`, field 2). The canary's share is a floor: a thread that
//! works longer waits more often.

use super::Sources;
use super::pressure::{Stall, some_total};
use crate::board::Board;
use crate::moment::Moment;
use crate::thread::Stop;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// How often the owner's groups are asked; the kernel counts every 2 s.
const ASK: Duration = Duration::from_millis(500);

/// How often the canary wakes: often enough that half a second holds ten wake-ups, seldom enough
/// that they cost a thousandth of a processor.
const WAKE: Duration = Duration::from_millis(50);

/// Wake-ups that a word of the canary spans.
const WAKES: u32 = 10;

/// How often it is looked whether there are groups.
const REGROUP: Duration = Duration::from_secs(10);

/// Measures until the stop.
pub(crate) fn run(stop: &Stop, board: &Board, sources: &Sources) {
    while !stop.stopped() {
        let owners = sources.owners();
        let going = match owners.is_empty() {
            true => canary(stop, board, sources),
            false => ask(stop, board, &owners),
        };
        if !going {
            return;
        }
    }
}

/// Asks the owner's groups for a while; false at the stop.
fn ask(stop: &Stop, board: &Board, owners: &[PathBuf]) -> bool {
    let mut stalls: BTreeMap<PathBuf, Stall> = BTreeMap::new();
    let end = Moment::now().since_boot() + REGROUP;
    while Moment::now().since_boot() < end {
        let now = Moment::now();
        let mut worst = None;
        for group in owners {
            if let Ok(total) = some_total(&group.join("cpu.pressure")) {
                let stall = stalls.entry(group.clone()).or_default();
                worst = worst.max(Some(stall.step(total, now)));
            }
        }
        match worst {
            Some(share) => {
                board.delay.seen(share, now);
                board
                    .delay
                    .describe("of the owner's programs, by the kernel");
            }
            // Every group went at once: look for others.
            None => return stop.wait(ASK),
        }
        if !stop.wait(ASK) {
            return false;
        }
    }
    true
}

/// Stands for the owner for a while; false at the stop.
fn canary(stop: &Stop, board: &Board, sources: &Sources) -> bool {
    let file = sources.proc.join("thread-self/schedstat");
    let looks = u32::try_from(REGROUP.as_millis() / (WAKE * WAKES).as_millis()).unwrap_or(1);
    for _ in 0..looks.max(1) {
        let before = waited(&file);
        let start = Moment::now();
        for _ in 0..WAKES {
            if !stop.wait(WAKE) {
                return false;
            }
        }
        let now = Moment::now();
        match (before, waited(&file)) {
            (Some(before), Some(after)) => {
                let waited = after.saturating_sub(before).as_micros() * 1000;
                let share = waited / now.since(start).as_micros().max(1);
                let share = u16::try_from(share.min(1000)).unwrap_or(1000);
                board.delay.seen(share, now);
                board
                    .delay
                    .describe("of a thread that stands for the owner's");
            }
            _ => {
                let detail = "the kernel does not count how long threads wait";
                board.delay.absent(detail);
            }
        }
    }
    true
}

/// How long this thread has waited for a processor since it began.
fn waited(file: &std::path::Path) -> Option<Duration> {
    let text = fs::read_to_string(file).ok()?;
    let nanos = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_kernel_tells_how_long_this_thread_waited() {
        let file = Path::new("/proc/thread-self/schedstat");
        if !file.exists() {
            return; // A kernel that does not count it; told as absent.
        }
        let before = waited(file).unwrap();
        assert!(waited(file).unwrap() >= before);
    }

    #[test]
    fn another_text_is_not_understood() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(waited(file.path()), None);
        fs::write(file.path(), "5 7000 3\n").unwrap();
        assert_eq!(waited(file.path()), Some(Duration::from_micros(7)));
    }
}
