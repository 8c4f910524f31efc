//! User ids for tasks: a range of the host's that belongs to nobody.
//!
//! No account is made. A range must lie within what the user namespace maps (in a container
//! that is little), and outside accounts, delegated ranges (subuid(5)), and those that systemd
//! gives out ("Users, Groups, UIDs and GIDs on systemd Systems").

use crate::cage::UIDS_OF_BUNDLE;
use std::fs;
use std::ops::Range;

/// How many ids are looked for by default: a thousand bundles at a time.
const WANTED: u32 = 65_536;

/// Fewer than one bundle's are of no use.
const WANTED_MIN: u32 = UIDS_OF_BUNDLE;

/// Where to begin looking, best first: above everything that distributions allot, then the
/// gaps below.
const STARTS: [u32; 6] = [
    1_900_000_000,
    2_000_000_000,
    400_000_000,
    70_000,
    20_000,
    2_000,
];

/// Ranges that systemd and the kernel use.
const TAKEN: [Range<u32>; 5] = [
    // The system's own, and the first persons'.
    0..2_000,
    // Home directories, greeters and services with dynamic users; nobody.
    60_001..66_000,
    // Containers.
    524_288..1_879_048_192,
    // Foreign images.
    2_147_352_576..2_147_418_112,
    // Negative numbers for programs that have them so.
    2_147_483_648..u32::MAX,
];

/// The default range of user ids for tasks on this PC; none where nothing is free.
#[must_use]
pub fn default_range() -> Option<Range<u32>> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut taken = TAKEN.to_vec();
    for path in ["/etc/passwd", "/etc/group"] {
        taken.extend(accounts(&read(path)));
    }
    for path in ["/etc/subuid", "/etc/subgid"] {
        taken.extend(delegated(&read(path)));
    }
    let mapped = [
        mapped(&read("/proc/self/uid_map")),
        mapped(&read("/proc/self/gid_map")),
    ];
    choose(&mapped, &taken)
}

/// A range within all of `mapped` and none of `taken`, as long as can be had up to the wanted
/// length.
fn choose(mapped: &[Vec<Range<u32>>], taken: &[Range<u32>]) -> Option<Range<u32>> {
    let mut length = WANTED;
    while length >= WANTED_MIN {
        for start in STARTS {
            if let Some(found) = fit(start, length, mapped, taken) {
                return Some(found);
            }
        }
        length /= 4;
    }
    None
}

/// The first free range of this length at or after `start`, below the next but one gap.
fn fit(
    start: u32,
    length: u32,
    mapped: &[Vec<Range<u32>>],
    taken: &[Range<u32>],
) -> Option<Range<u32>> {
    let mut from = start;
    // Each step leaves a taken range behind, so it ends.
    for _ in 0..=taken.len() {
        let range = from..from.checked_add(length)?;
        let within = |map: &Vec<Range<u32>>| {
            map.iter()
                .any(|all| all.start <= range.start && range.end <= all.end)
        };
        let clash = taken
            .iter()
            .filter(|other| other.start < range.end && range.start < other.end)
            .map(|other| other.end)
            .max();
        match clash {
            Some(end) => from = end,
            None => return mapped.iter().all(within).then_some(range),
        }
    }
    None
}

/// Ids in a map of user_namespaces(7): inside, outside, count.
fn mapped(text: &str) -> Vec<Range<u32>> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let first = numbers.next()?.ok()?;
        let count = numbers.nth(1)?.ok()?;
        Some(first..first.saturating_add(count))
    };
    text.lines().filter_map(line).collect()
}

/// Ids in passwd(5) or group(5): the third field.
fn accounts(text: &str) -> Vec<Range<u32>> {
    let ids = text
        .lines()
        .filter_map(|line| line.split(':').nth(2)?.parse::<u32>().ok());
    ids.map(|id| id..id.saturating_add(1)).collect()
}

/// Ranges in subuid(5): name, first, count.
fn delegated(text: &str) -> Vec<Range<u32>> {
    let line = |line: &str| {
        let mut fields = line.split(':').skip(1);
        let first: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        Some(first..first.saturating_add(count))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_avoids_everybody_else() {
        let all = vec![mapped("0 0 4294967295\n")];
        let passwd = accounts("root:x:0:0::/:\nme:x:1900000100:1:::\n");
        let sub = delegated("me:100000:65536\nyou:165536:65536\n");
        let taken: Vec<_> = TAKEN.into_iter().chain(passwd).chain(sub).collect();
        let found = choose(&all, &taken).unwrap();
        assert_eq!(found, 1_900_000_101..1_900_065_637);

        // A container that maps the usual 65,536.
        let few = vec![mapped("0 100000 65536\n"), mapped("0 100000 65536\n")];
        let found = choose(&few, &taken).unwrap();
        assert!(found.start >= 2_000 && found.end <= 60_001, "{found:?}");
        assert!(found.end - found.start >= UIDS_OF_BUNDLE);

        // A plain user's namespace.
        assert_eq!(choose(&[mapped("0 1000 1\n")], &taken), None);
    }

    #[test]
    fn files_are_read_as_their_manuals_say() {
        assert_eq!(
            mapped("         0          0 4294967295\n"),
            vec![0..u32::MAX]
        );
        assert_eq!(accounts("a:x:7:\nbroken\n:::\n"), vec![7..8]);
        assert_eq!(delegated("a:10:5\n#no\n"), vec![10..15]);
    }
}
