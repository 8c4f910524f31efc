//! Memory that is there, and page faults that waited for a disk.

use crate::board::Board;
use crate::moment::Moment;
use gleaner_model::{Bytes, Memory};
use std::fs;
use std::path::{Path, PathBuf};

/// Looks at memory.
#[derive(Debug)]
pub(super) struct Meter {
    proc: PathBuf,
    faults: Option<(u64, Moment)>,
}

impl Meter {
    pub(super) fn new(proc: &Path) -> Self {
        Self {
            proc: proc.to_owned(),
            faults: None,
        }
    }

    pub(super) fn look(&mut self, board: &Board) {
        let now = Moment::now();
        match self.take(now) {
            Ok(memory) => {
                board.memory.seen(memory, now);
                board
                    .memory
                    .describe(&format!("{} MiB available", memory.available.0 >> 20));
            }
            Err(why) => {
                board.memory.failed(&why, None);
            }
        }
    }

    fn take(&mut self, now: Moment) -> Result<Memory, String> {
        let path = self.proc.join("meminfo");
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let row = |name: &str| kibibytes(&text, name);
        let total = row("MemTotal").ok_or_else(|| format!("{}: no total", path.display()))?;
        // Kernels before 3.14, and some containers, do not say what is available.
        let available = row("MemAvailable").unwrap_or_else(|| {
            let parts = ["MemFree", "Buffers", "Cached"];
            parts.into_iter().filter_map(row).sum()
        });
        Ok(Memory {
            total: Bytes(total * 1024),
            available: Bytes(available.min(total) * 1024),
            tasks: Bytes(0),
            major_faults: self.rate(now),
        })
    }

    /// Major faults a second since the last look; none where the kernel does not count them.
    fn rate(&mut self, now: Moment) -> u32 {
        let text = fs::read_to_string(self.proc.join("vmstat")).unwrap_or_default();
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("pgmajfault ")?.trim().parse::<u64>().ok());
        let Some(count) = count else { return 0 };
        let Some((old, at)) = self.faults.replace((count, now)) else {
            return 0;
        };
        let millis = u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
        let rate = count.saturating_sub(old).saturating_mul(1000) / millis.max(1);
        u32::try_from(rate).unwrap_or(u32::MAX)
    }
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let row = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    row.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn old_kernels_are_helped() {
        let proc = tempfile::tempdir().unwrap();
        let text = "MemTotal:  4000 kB\nMemFree: 1000 kB\nBuffers: 10 kB\nCached: 500 kB\n";
        fs::write(proc.path().join("meminfo"), text).unwrap();
        let mut meter = Meter::new(proc.path());
        let memory = meter.take(Moment::now()).unwrap();
        assert_eq!(memory.available, Bytes(1510 * 1024));
        let with = format!("{text}MemAvailable: 2000 kB\n");
        fs::write(proc.path().join("meminfo"), with).unwrap();
        let memory = meter.take(Moment::now()).unwrap();
        assert_eq!(memory.available, Bytes(2000 * 1024));
        assert_eq!(memory.total, Bytes(4000 * 1024));
    }

    #[test]
    fn faults_are_counted_by_the_second() {
        let proc = tempfile::tempdir().unwrap();
        let write = |count: u64| {
            let text = format!("pgfault 9\npgmajfault {count}\n");
            fs::write(proc.path().join("vmstat"), text).unwrap();
        };
        let mut meter = Meter::new(proc.path());
        let start = Moment::at(Duration::from_secs(10));
        write(1000);
        assert_eq!(meter.rate(start), 0, "nothing to compare with");
        write(1600);
        assert_eq!(meter.rate(Moment::at(Duration::from_secs(12))), 300);
        write(5);
        let later = Moment::at(Duration::from_secs(13));
        assert_eq!(meter.rate(later), 0, "a counter that began anew");
    }

    #[test]
    fn nonsense_is_a_failure() {
        let proc = tempfile::tempdir().unwrap();
        Meter::new(proc.path()).take(Moment::now()).unwrap_err();
        fs::write(proc.path().join("meminfo"), "MemTotal: much\n").unwrap();
        Meter::new(proc.path()).take(Moment::now()).unwrap_err();
    }
}
