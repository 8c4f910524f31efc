//! Whether the disk that holds the agent's directory has room. A task that runs on a full disk
//! fails for no fault of its own, and the owner's programs fail with it.

use std::path::Path;

/// Below this the node pauses, in bytes: what an owner's desktop writes in a few minutes. On a
/// small disk a twentieth of it.
const LOW_BYTES: u64 = 256 << 20;
const LOW_SHARE: u64 = 20;

/// Why work must wait for room, if it must. `waits` says whether it waits already: it goes on
/// only when there is twice as much room as it stopped for.
pub(crate) fn trouble(home: &Path, waits: bool) -> Option<String> {
    // A disk that cannot be asked will say what is wrong when it is written to.
    let stat = rustix::fs::statvfs(home).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    judge(bytes(stat.f_bavail), bytes(stat.f_blocks), waits).map(|wanted| {
        format!(
            "the disk of {} is full ({} MiB free); work goes on at {} MiB",
            home.display(),
            bytes(stat.f_bavail) >> 20,
            (wanted >> 20) + 1
        )
    })
}

/// How many bytes must be free before work goes on; none where it may.
fn judge(free: u64, total: u64, waits: bool) -> Option<u64> {
    let low = LOW_BYTES.min(total / LOW_SHARE);
    let bound = if waits { 2 * low } else { low };
    (free < bound).then_some(2 * low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_stops_when_the_disk_is_full_and_goes_on_with_some_room() {
        const MIB: u64 = 1 << 20;
        for (free, total, waits, stops) in [
            (255 * MIB, 100_000 * MIB, false, true),
            (257 * MIB, 100_000 * MIB, false, false),
            (257 * MIB, 100_000 * MIB, true, true),
            (513 * MIB, 100_000 * MIB, true, false),
            // A small disk is not full at once.
            (20 * MIB, 100 * MIB, false, false),
            (4 * MIB, 100 * MIB, false, true),
        ] {
            assert_eq!(judge(free, total, waits).is_some(), stops, "{free} {waits}");
        }
    }
}
