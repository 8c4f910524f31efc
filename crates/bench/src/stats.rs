//! The few statistics that benchmarks need. Deterministic: the bootstrap has a fixed seed.

use serde::Serialize;

/// A 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// Resamples drawn for a bootstrap interval; more changes the third digit at most.
const RESAMPLES: usize = 4000;

/// The value below which the share `p` (0 to 1) of `values` lies; NaN where there are none.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index below the length"
)]
pub fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1) as f64;
    let (low, high) = ((last * p).floor() as usize, (last * p).ceil() as usize);
    match (sorted.get(low), sorted.get(high)) {
        (Some(a), Some(b)) => a + (b - a) * (last * p).fract(),
        _ => f64::NAN,
    }
}

/// The middle value.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The median over rounds of `a / b`, pair by pair, with its bootstrap interval over rounds
/// (Efron's percentile method).
#[must_use]
pub fn paired_ratio(a: &[f64], b: &[f64]) -> (f64, Interval) {
    let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| a / b).collect();
    (median(&ratios), bootstrap(&ratios, median))
}

/// Bootstrap interval of `statistic` over `values`.
#[must_use]
pub(crate) fn bootstrap(values: &[f64], statistic: fn(&[f64]) -> f64) -> Interval {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut draw = |bound: usize| {
        // Marsaglia's xorshift64: chance enough for choosing rounds.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound.max(1) as u64).unwrap_or(0)
    };
    let figures: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sample: Vec<f64> = values.iter().map(|_| values[draw(values.len())]).collect();
            statistic(&sample)
        })
        .collect();
    Interval {
        low: percentile(&figures, 0.025),
        high: percentile(&figures, 0.975),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_interpolate() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert!((median(&values) - 2.5).abs() < 1e-12);
        assert!((percentile(&values, 1.0) - 4.0).abs() < 1e-12);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn pairing_removes_what_both_share() {
        // Rounds differ tenfold, but within each round a is 2 % above b.
        let b: Vec<f64> = (1..=20).map(f64::from).collect();
        let a: Vec<f64> = b.iter().map(|b| b * 1.02).collect();
        let (ratio, interval) = paired_ratio(&a, &b);
        assert!((ratio - 1.02).abs() < 1e-9);
        assert!(interval.high - interval.low < 1e-9);
    }

    #[test]
    fn an_interval_covers_the_spread() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i % 10)).collect();
        let interval = bootstrap(&values, median);
        assert!(interval.low <= 4.5 && interval.high >= 4.5 && interval.high > interval.low);
    }
}
