//! How long the owner's threads wait for a processor.
//!
//! A canary stands for them: this thread, at normal priority, wakes twenty times a second for some
//! microseconds, and the kernel tells exactly how long it was runnable before it ran (`schedstat`,
//! field 2). Where a processor is free, or only tasks at idle priority are on it, the canary runs
//! at once; it waits where tasks do not give way, or where the owner's own programs fill all
//! processors. Its share is a floor: a thread that works longer waits more often.
//!
//! The kernel's own measure of the owner's groups (`cpu.pressure`) stands in where `schedstat` is
//! not there. It is not the first choice, since it counts the owner's threads that wait for each
//! other: two busy threads that share a processor for a moment make it 100 % while tasks use
//! nothing. As pressure it is told beside this anyway.

use super::Sources;
use super::pressure::{Stall, some_total};
use crate::board::Board;
use crate::moment::Moment;
use crate::thread::Stop;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the owner's groups are asked; the kernel counts every 2 s.
const ASK: Duration = Duration::from_millis(500);

/// How often the canary wakes: often enough that half a second holds ten wake-ups, seldom enough
/// that they cost a thousandth of a processor.
const WAKE: Duration = Duration::from_millis(50);

/// Wake-ups that a word of the canary spans.
const WAKES: u32 = 10;

/// How often it is looked anew what can be measured.
const REGROUP: Duration = Duration::from_secs(10);

/// Measures until the stop.
pub(crate) fn run(stop: &Stop, board: &Board, sources: &Sources) {
    let file = sources.proc.join("thread-self/schedstat");
    let mut going = true;
    while going {
        going = match (waited(&file), sources.owners()) {
            (Some(_), _) => canary(stop, board, &file),
            (None, owners) if !owners.is_empty() => ask(stop, board, &owners),
            (None, _) => {
                let detail = "the kernel does not count how long threads wait";
                board.delay.absent(detail);
                stop.wait(REGROUP)
            }
        };
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
fn canary(stop: &Stop, board: &Board, file: &Path) -> bool {
    let looks = REGROUP.as_millis() / (WAKE * WAKES).as_millis();
    for _ in 0..looks.max(1) {
        let Some(before) = waited(file) else {
            return stop.wait(WAKE);
        };
        let start = Moment::now();
        for _ in 0..WAKES {
            if !stop.wait(WAKE) {
                return false;
            }
        }
        let now = Moment::now();
        let waited = waited(file).unwrap_or(before).saturating_sub(before);
        let share = waited.as_micros() * 1000 / now.since(start).as_micros().max(1);
        let share = u16::try_from(share.min(1000)).unwrap_or(1000);
        board.delay.seen(share, now);
        board
            .delay
            .describe("of a thread that stands for the owner's");
    }
    true
}

/// How long this thread has waited for a processor since it began.
fn waited(file: &Path) -> Option<Duration> {
    let text = fs::read_to_string(file).ok()?;
    let nanos = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn groups_stand_in_for_the_canary() {
        let root = tempfile::tempdir().unwrap();
        for group in ["gleaner.slice", "user.slice"] {
            let group = root.path().join(group);
            fs::create_dir(&group).unwrap();
            fs::write(group.join("cpu.pressure"), "some avg10=0.00 total=5\n").unwrap();
        }
        let own = vec![root.path().join("gleaner.slice")];
        let no_schedstat = root.path().join("proc");
        let groups = Some(root.path().to_owned());
        let sources = Sources::new(no_schedstat, groups, crate::OwnTime::Groups(own));
        let board = std::sync::Arc::new(Board::new(std::sync::Arc::new(|_| {})));
        let stop = Stop::new().unwrap();
        let (seen, end) = (board.clone(), stop.clone());
        let measuring = std::thread::spawn(move || run(&end, &seen, &sources));
        let patience = std::time::Instant::now() + Duration::from_secs(60);
        while board.delay.value().is_none() {
            assert!(std::time::Instant::now() < patience);
            std::thread::sleep(Duration::from_millis(2));
        }
        stop.stop();
        measuring.join().unwrap();
    }

    #[test]
    fn another_text_is_not_understood() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(waited(file.path()), None);
        fs::write(file.path(), "5 7000 3\n").unwrap();
        assert_eq!(waited(file.path()), Some(Duration::from_micros(7)));
    }
}
