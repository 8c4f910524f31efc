//! Who waits for memory, for a disk, for a processor: the kernel's pressure stall information
//! (Linux, `Documentation/accounting/psi.rst`; Weiner, "psi: pressure stall information for CPU,
//! memory, and IO").
//!
//! Read of the owner's groups where ours are apart from them, so that a task that waits for its
//! own disk is not taken for the owner; the worst of the groups counts. Elsewhere memory and disk
//! are the whole PC's, and for processors nothing is said: tasks at idle priority always wait.

use super::trigger::{Limit, Trigger};
use crate::board::Board;
use crate::event::SenseEvent;
use crate::moment::Moment;
use gleaner_model::Pressure;
use rustix::event::PollFlags;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The kernel brings its totals up to date every 2 s, so a total that stood still for longer
/// stands still.
const STANDS_STILL: Duration = Duration::from_millis(2500);

/// Most triggers; each is a file, and the kernel works for each.
const TRIGGERS_MAX: usize = 16;

/// Time in which a thread waited, turned into a share of time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stall {
    last: Option<(u64, Moment)>,
    share: u16,
}

impl Stall {
    /// Takes a total in microseconds; gives the share of the last period in thousandths.
    pub(super) fn step(&mut self, total: u64, now: Moment) -> u16 {
        let Some((old, at)) = self.last else {
            self.last = Some((total, now));
            return 0;
        };
        let passed = now.since(at);
        if total != old && !passed.is_zero() {
            let waited = u128::from(total.saturating_sub(old)) * 1000;
            let share = (waited / passed.as_micros().max(1)).min(1000);
            self.share = u16::try_from(share).unwrap_or(1000);
            self.last = Some((total, now));
        } else if passed > STANDS_STILL {
            self.share = 0;
            self.last = Some((total, now));
        }
        self.share
    }
}

/// The total of the `some` row, in microseconds.
pub(super) fn some_total(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let row = text.lines().find_map(|line| line.strip_prefix("some "));
    let total = row.and_then(|row| row.split("total=").nth(1)?.trim().parse().ok());
    total.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Looks at pressure.
#[derive(Debug)]
pub(super) struct Meter {
    proc: PathBuf,
    owners: Vec<PathBuf>,
    stalls: BTreeMap<PathBuf, Stall>,
    triggers: Vec<Trigger>,
}

impl Meter {
    pub(super) fn new(proc: &Path) -> Self {
        Self {
            proc: proc.to_owned(),
            owners: Vec::new(),
            stalls: BTreeMap::new(),
            triggers: Vec::new(),
        }
    }

    /// Looks at these groups from now on, or at the whole PC where there are none.
    pub(super) fn watch(&mut self, owners: &[PathBuf]) {
        if owners != self.owners || self.triggers.is_empty() {
            self.owners = owners.to_vec();
            let files = |limit: Limit| self.files(limit.resource());
            let wanted = [Limit::Memory, Limit::Disk]
                .into_iter()
                .flat_map(|limit| files(limit).into_iter().map(move |file| (limit, file)));
            self.triggers = wanted
                .filter_map(|(limit, file)| Trigger::arm(&file, limit).ok())
                .take(TRIGGERS_MAX)
                .collect();
            let kept: Vec<PathBuf> = ["cpu", "memory", "io"]
                .iter()
                .flat_map(|resource| self.files(resource))
                .collect();
            self.stalls.retain(|path, _| kept.contains(path));
        }
    }

    /// The files that tell of a resource.
    fn files(&self, resource: &str) -> Vec<PathBuf> {
        match self.owners.as_slice() {
            [] => vec![self.proc.join("pressure").join(resource)],
            owners => owners
                .iter()
                .map(|group| group.join(format!("{resource}.pressure")))
                .collect(),
        }
    }

    pub(super) fn triggers(&self) -> &[Trigger] {
        &self.triggers
    }

    /// What the kernel's answers to the triggers mean; one that was taken away is dropped.
    pub(super) fn fired(&mut self, answers: &[PollFlags]) -> Vec<SenseEvent> {
        let mut events = Vec::new();
        let mut answers = answers.iter();
        self.triggers.retain(|trigger| {
            let answer = answers.next().copied().unwrap_or(PollFlags::empty());
            if answer.contains(PollFlags::ERR) || answer.contains(PollFlags::NVAL) {
                return false;
            }
            if answer.contains(PollFlags::PRI) {
                events.push(trigger.limit().event());
            }
            true
        });
        events
    }

    /// Puts the word on the board; gives the events that no trigger would give.
    pub(super) fn look(&mut self, board: &Board) -> Vec<SenseEvent> {
        let now = Moment::now();
        let read = (self.worst("memory", now), self.worst("io", now));
        let (memory, io) = match read {
            (Ok(memory), Ok(io)) => (memory, io),
            (Err(error), _) | (_, Err(error)) => {
                self.tell_error(board, &error);
                return Vec::new();
            }
        };
        let apart = !self.owners.is_empty();
        let cpu = apart.then(|| self.worst("cpu", now).ok()).flatten();
        board.pressure.seen(Pressure { cpu, memory, io }, now);
        board.pressure.describe(match apart {
            true => "of the owner's programs",
            false => "of the whole PC, tasks included",
        });
        let mut events = Vec::new();
        for (limit, share) in [(Limit::Memory, memory), (Limit::Disk, io)] {
            let armed = self.triggers.iter().any(|trigger| trigger.limit() == limit);
            if !armed && share >= limit.thousandths() {
                events.push(limit.event());
            }
        }
        events
    }

    fn tell_error(&self, board: &Board, error: &io::Error) {
        let off =
            error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::Unsupported;
        if off {
            let detail = "the kernel does not measure it; booted with psi=1 it may";
            board.pressure.absent(detail);
        } else {
            let detail = format!("{}: {error}", self.proc.join("pressure").display());
            board.pressure.failed(&detail, None);
        }
    }

    /// The largest share among the files; a group that went meanwhile is left out.
    fn worst(&mut self, resource: &str, now: Moment) -> io::Result<u16> {
        let mut worst = None;
        let mut error = io::Error::from(io::ErrorKind::NotFound);
        for file in self.files(resource) {
            match some_total(&file) {
                Ok(total) => {
                    let share = self.stalls.entry(file).or_default().step(total, now);
                    worst = worst.max(Some(share));
                }
                Err(why) => error = why,
            }
        }
        worst.ok_or(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::at(Duration::from_millis(ms))
    }

    #[test]
    fn a_share_holds_until_the_kernel_counts_again() {
        let mut stall = Stall::default();
        assert_eq!(stall.step(1_000_000, at(0)), 0, "nothing to compare with");
        assert_eq!(stall.step(1_500_000, at(2_000)), 250);
        assert_eq!(stall.step(1_500_000, at(3_000)), 250, "not counted yet");
        assert_eq!(stall.step(1_500_000, at(5_000)), 0, "nobody waited");
        assert_eq!(
            stall.step(9_900_000, at(7_000)),
            1000,
            "never more than all"
        );
        assert_eq!(stall.step(5, at(9_000)), 0, "a counter that began anew");
    }

    fn tree() -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir(proc.path().join("pressure")).unwrap();
        proc
    }

    fn write(path: &Path, total: u64) {
        let rows = |kind| format!("{kind} avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n");
        fs::write(path, rows("some") + &rows("full")).unwrap();
    }

    #[test]
    fn the_worst_group_of_the_owner_counts() {
        let (proc, root) = (tree(), tempfile::tempdir().unwrap());
        let groups: Vec<PathBuf> = ["a", "b"].iter().map(|g| root.path().join(g)).collect();
        for group in &groups {
            fs::create_dir(group).unwrap();
            write(&group.join("io.pressure"), 0);
        }
        let mut meter = Meter::new(proc.path());
        meter.watch(&groups);
        assert_eq!(meter.worst("io", at(0)).unwrap(), 0);
        write(&groups[0].join("io.pressure"), 100_000);
        write(&groups[1].join("io.pressure"), 300_000);
        assert_eq!(meter.worst("io", at(1_000)).unwrap(), 300);
        fs::remove_dir_all(&groups[1]).unwrap();
        assert_eq!(
            meter.worst("io", at(1_100)).unwrap(),
            100,
            "a group that went"
        );
        meter.worst("memory", at(1_000)).unwrap_err();
    }

    #[test]
    fn a_kernel_without_it_is_told_apart_from_one_that_fails() {
        let board = Board::new(std::sync::Arc::new(|_| {}));
        let proc = tree();
        let mut meter = Meter::new(proc.path());
        meter.look(&board);
        assert!(board.pressure.is_absent());
        fs::write(proc.path().join("pressure/memory"), "nonsense").unwrap();
        meter.look(&board);
        assert!(!board.pressure.is_absent());
        assert_eq!(board.pressure.value(), None);
        write(&proc.path().join("pressure/memory"), 5);
        write(&proc.path().join("pressure/io"), 5);
        meter.look(&board);
        let expected = Pressure {
            cpu: None,
            memory: 0,
            io: 0,
        };
        assert_eq!(board.pressure.value(), Some(expected));
    }
}
