//! What an owner's recorder keeps and may export: how long a PC idles and at what hours, as
//! counts. `gleaner sim --trace` reads it back as the owner of a simulated PC.
//!
//! Counts only: no event has a time, no program has a name. The file is one JSON object; unknown
//! keys are errors, so that nobody exports more than is written here.

use alloc::vec;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::Span;

/// Version of the format that this crate reads and writes.
pub const USAGE_FORMAT: u32 = 1;

/// Hours of a week.
pub const WEEK_HOURS: usize = 7 * 24;

/// Bins of [`Gaps`]: the last one begins at 100 ms times 2^23, which is nine days.
pub const GAP_BINS: usize = 24;

/// Where the first bin of [`Gaps`] ends, in milliseconds; shorter is how fast people type.
pub const GAP_FIRST_MS: u64 = 100;

/// Owner load from which a moment counts as busy, in thousandths of all processors: above what a
/// desktop at rest needs, below one busy thread on a PC of eight processors.
pub const BUSY_ABOVE_PERMILLE: u16 = 100;

/// Lengths of time, counted in bins that double.
///
/// Bin 0 counts what is shorter than 100 ms, bin `i` what is from 100 ms times 2^(i-1) and shorter
/// than twice that; the last bin counts all that is longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gaps {
    /// Counts; [`GAP_BINS`] of them.
    pub counts: Vec<u64>,
}

/// One hour of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HourUse {
    /// Seconds in which the recorder ran: the PC was on.
    pub on_seconds: u64,
    /// Of these, seconds within a minute after an input.
    pub used_seconds: u64,
    /// Processor time that nobody but tasks used, in thousandths of all processors, summed over
    /// `on_seconds`: divided by these it is the mean idle share.
    pub idle_permille_seconds: u64,
}

/// How a PC was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageHistogram {
    /// [`USAGE_FORMAT`].
    pub format: u32,
    /// Processors of the PC.
    pub processors: u32,
    /// Hours of the week, Monday 00:00 local time first; [`WEEK_HOURS`] of them.
    pub hours: Vec<HourUse>,
    /// Times from one input to the next.
    pub input_gaps: Gaps,
    /// Times in which the owner's load stayed below [`BUSY_ABOVE_PERMILLE`].
    pub idle_gaps: Gaps,
    /// Times in which it stayed above.
    pub busy_runs: Gaps,
}

/// A recorded usage does not fit its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// Another version.
    #[error("usage format {0} is not known; export it with this version of gleaner")]
    Format(u32),
    /// A list is too long or too short.
    #[error("{name} has {found} entries instead of {wanted}; export the usage again")]
    Length {
        /// Which list.
        name: &'static str,
        /// Entries found.
        found: usize,
        /// Entries that belong there.
        wanted: usize,
    },
    /// There is no processor.
    #[error("a PC without processors; export the usage again")]
    NoProcessors,
}

impl Default for Gaps {
    fn default() -> Self {
        Self {
            counts: vec![0; GAP_BINS],
        }
    }
}

impl Gaps {
    /// Counts a length of time.
    pub fn note(&mut self, length: Span) {
        let doublings = (length.ms / GAP_FIRST_MS).checked_ilog2();
        let bin = doublings.map_or(0, |log| log as usize + 1);
        if let Some(count) = self.counts.get_mut(bin.min(GAP_BINS - 1)) {
            *count += 1;
        }
    }

    /// Where a bin begins and ends.
    #[must_use]
    pub const fn bounds(bin: usize) -> (Span, Span) {
        let bin = if bin < GAP_BINS { bin } else { GAP_BINS - 1 };
        let from = match bin {
            0 => 0,
            _ => GAP_FIRST_MS << (bin - 1),
        };
        let to = GAP_FIRST_MS << bin;
        (Span { ms: from }, Span { ms: to })
    }

    /// How many were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl UsageHistogram {
    /// Nothing recorded yet.
    #[must_use]
    pub fn new(processors: u32) -> Self {
        Self {
            format: USAGE_FORMAT,
            processors,
            hours: vec![HourUse::default(); WEEK_HOURS],
            input_gaps: Gaps::default(),
            idle_gaps: Gaps::default(),
            busy_runs: Gaps::default(),
        }
    }

    /// The hour of the week that a minute since Monday 00:00 lies in.
    pub fn hour_mut(&mut self, minute_of_week: u16) -> Option<&mut HourUse> {
        self.hours.get_mut(usize::from(minute_of_week) / 60)
    }

    /// Whether it is what this crate writes; call it after reading one.
    ///
    /// # Errors
    /// Another version, or lists of other lengths.
    pub fn check(&self) -> Result<(), UsageError> {
        if self.format != USAGE_FORMAT {
            return Err(UsageError::Format(self.format));
        }
        if self.processors == 0 {
            return Err(UsageError::NoProcessors);
        }
        let lists = [
            ("hours", self.hours.len(), WEEK_HOURS),
            ("input_gaps", self.input_gaps.counts.len(), GAP_BINS),
            ("idle_gaps", self.idle_gaps.counts.len(), GAP_BINS),
            ("busy_runs", self.busy_runs.counts.len(), GAP_BINS),
        ];
        for (name, found, wanted) in lists {
            if found != wanted {
                return Err(UsageError::Length {
                    name,
                    found,
                    wanted,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_falls_into_the_bin_whose_bounds_hold_it() {
        for ms in [0, 1, 99, 100, 199, 200, 12_345, 3_600_000, 500_000_000] {
            let mut gaps = Gaps::default();
            gaps.note(Span { ms });
            let bin = gaps.counts.iter().position(|count| *count == 1).unwrap();
            let (from, to) = Gaps::bounds(bin);
            assert!(from.ms <= ms && ms < to.ms, "{ms} in bin {bin}");
        }
        let mut gaps = Gaps::default();
        gaps.note(Span { ms: u64::MAX });
        assert_eq!((gaps.counts[GAP_BINS - 1], gaps.total()), (1, 1));
    }

    #[test]
    fn it_is_one_flat_json_object_and_comes_back() {
        let mut usage = UsageHistogram::new(4);
        usage.hour_mut(61).unwrap().on_seconds = 17;
        usage.idle_gaps.note(Span::seconds(3));
        let text = serde_json::to_string(&usage).unwrap();
        assert!(text.contains("\"idle_gaps\":[0,0,0,0,0,1,"), "{text}");
        let back: UsageHistogram = serde_json::from_str(&text).unwrap();
        assert_eq!(back.check(), Ok(()));
        assert_eq!(back, usage);
        assert!(usage.hour_mut(7 * 24 * 60).is_none());
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_to_do() {
        let mut usage = UsageHistogram::new(1);
        usage.hours.pop();
        let said = usage.check().unwrap_err();
        assert!(alloc::format!("{said}").contains("167 entries instead of 168"));
        assert_eq!(
            UsageHistogram {
                format: 9,
                ..UsageHistogram::new(1)
            }
            .check(),
            Err(UsageError::Format(9))
        );
        assert_eq!(
            UsageHistogram::new(0).check(),
            Err(UsageError::NoProcessors)
        );
    }
}
