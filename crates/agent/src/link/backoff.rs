//! How long to wait between tries: doubling, bounded, spread by chance so that a fleet does not
//! come back all at once (AWS Architecture Blog, "Exponential Backoff And Jitter").

use std::time::Duration;

/// The first wait, in milliseconds: a server that restarts is back within a second.
const FIRST_MS: u64 = 200;

/// The longest wait, in milliseconds: a node is back soon after its server.
const LONGEST_MS: u64 = 20_000;

/// The wait after `failures` failures in a row (from 1). `chance` is uniform over all `u64`; the
/// wait is between half and the whole of the doubled time.
pub(crate) fn wait(failures: u32, chance: u64) -> Duration {
    let doubled = FIRST_MS
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(LONGEST_MS);
    Duration::from_millis(doubled / 2 + chance % (doubled / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_differ_by_chance() {
        for (failures, low, high) in [
            (0, 100, 200),
            (1, 100, 200),
            (2, 200, 400),
            (5, 1600, 3200),
            (40, 10_000, 20_000),
            (u32::MAX, 10_000, 20_000),
        ] {
            let waits = [0, 1, 77, u64::MAX / 3, u64::MAX].map(|chance| wait(failures, chance));
            for wait in waits {
                let range = Duration::from_millis(low)..=Duration::from_millis(high);
                assert!(range.contains(&wait), "{failures}: {wait:?}");
            }
            assert!(waits.iter().any(|wait| *wait != waits[0]));
        }
    }
}
