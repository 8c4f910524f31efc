//! Times of millions of replies in a few kilobytes: a histogram whose buckets grow with the time.
//! Many threads count into it at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is promised of replies, to nodes and to users, in milliseconds.
pub(super) const REPLY_MS: f64 = 1000.0;

/// Buckets to each doubling of a time, as a power of two: a figure is at most 1/32 too high.
const FINE_BITS: u32 = 5;
const FINE: usize = 1 << FINE_BITS;
/// Doublings of 32 µs that are told apart: up to twelve days.
const DOUBLINGS: usize = 35;

/// Counted times. Figures are upper ends of buckets, so never better than what was measured.
#[derive(Debug)]
pub(super) struct Times {
    buckets: Box<[AtomicU64]>,
    longest_us: AtomicU64,
}

impl Default for Times {
    fn default() -> Self {
        let buckets = (0..FINE * (DOUBLINGS + 1)).map(|_| AtomicU64::new(0));
        Self {
            buckets: buckets.collect(),
            longest_us: AtomicU64::new(0),
        }
    }
}

/// Below 32 µs each has a bucket; above, the five bits behind the first one tell.
fn bucket(us: u64) -> usize {
    let doubling = us.max(1).ilog2().saturating_sub(FINE_BITS - 1);
    let fine = usize::try_from(us >> doubling.saturating_sub(1)).unwrap_or(usize::MAX);
    match usize::try_from(doubling).unwrap_or(usize::MAX) {
        0 => fine,
        doubling => (doubling.min(DOUBLINGS) * FINE).saturating_add(fine % FINE),
    }
}

/// The longest time of a bucket, in microseconds.
fn upper_us(bucket: usize) -> u64 {
    let (doubling, fine) = (bucket / FINE, (bucket % FINE) as u64);
    match doubling {
        0 => fine,
        doubling => ((FINE as u64 + fine + 1) << (doubling - 1)) - 1,
    }
}

impl Times {
    pub(super) fn count(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket(us)).or_else(|| self.buckets.last()) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.longest_us.fetch_max(us, Ordering::Relaxed);
    }

    /// How many were counted.
    pub(super) fn len(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).sum()
    }

    /// The time in milliseconds that the share `p` (0 to 1) did not exceed; NaN where there is
    /// none.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts far below 2^53"
    )]
    pub(super) fn percentile_ms(&self, p: f64) -> f64 {
        let wanted = ((self.len() as f64 * p).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count.load(Ordering::Relaxed);
            if seen >= wanted {
                let longest = self.longest_us.load(Ordering::Relaxed);
                return upper_us(bucket).min(longest) as f64 / 1000.0;
            }
        }
        f64::NAN
    }

    #[expect(clippy::cast_precision_loss, reason = "microseconds of days")]
    pub(super) fn longest_ms(&self) -> f64 {
        self.longest_us.load(Ordering::Relaxed) as f64 / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_every_time_once_and_in_order() {
        let mut last = None;
        for us in (0..100_000).chain([1 << 30, (1 << 39) - 1, 1 << 39, u64::MAX]) {
            let own = bucket(us);
            assert!(last.is_none_or(|last| own >= last), "{us}");
            last = Some(own);
            if us < 1 << 39 {
                let (upper, least) = (upper_us(own), own.checked_sub(1).map(upper_us));
                assert!(upper >= us && least.is_none_or(|least| least < us), "{us}");
                assert!(upper <= us + us / 32 + 1, "{us} {upper}");
            }
        }
    }

    #[test]
    fn a_percentile_is_never_better_than_the_truth() {
        let times = Times::default();
        assert!(times.percentile_ms(0.5).is_nan());
        for ms in 1..=1000 {
            times.count(Duration::from_millis(ms));
        }
        assert_eq!(times.len(), 1000);
        for (p, truth) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let told = times.percentile_ms(p);
            assert!((truth..=truth * 1.04).contains(&told), "{p} {told}");
        }
        assert!((times.longest_ms() - 1000.0).abs() < 1e-9);
    }
}
