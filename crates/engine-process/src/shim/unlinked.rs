//! Files that a task has unlinked and still holds open or mapped: no directory shows them, yet
//! they take room on the disk. Read from /proc of the task's processes; what vanishes meanwhile,
//! or may not be read, is not counted.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;

/// What `st_blocks` counts, in bytes.
const BLOCK_BYTES: u64 = 512;

/// Bytes of all unlinked files on `device` (as `st_dev` has it) that these processes hold, each
/// file once.
pub(crate) fn held(processes: &[i32], device: u64) -> u64 {
    let mut files = BTreeMap::new();
    for process in processes {
        note_open(*process, device, &mut files);
        note_mapped(*process, device, &mut files);
    }
    files.values().sum()
}

fn note_open(process: i32, device: u64, files: &mut BTreeMap<u64, u64>) {
    let open = fs::read_dir(format!("/proc/{process}/fd"));
    for entry in open.into_iter().flatten().flatten() {
        // Follows the link to the open file itself, wherever its name went.
        if let Some(found) = fs::metadata(entry.path()).ok().filter(is_unlinked)
            && found.dev() == device
        {
            files.insert(found.ino(), found.blocks() * BLOCK_BYTES);
        }
    }
}

fn is_unlinked(found: &Metadata) -> bool {
    found.is_file() && found.nlink() == 0
}

fn note_mapped(process: i32, device: u64, files: &mut BTreeMap<u64, u64>) {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    for map in maps.lines().filter_map(|line| deleted(line, device)) {
        // Only the host's root may follow these; for others the part that is mapped must do.
        let found = fs::metadata(format!("/proc/{process}/map_files/{}", map.range));
        let bytes = found.map_or(map.end, |found| found.blocks() * BLOCK_BYTES);
        let known = files.entry(map.inode).or_default();
        *known = bytes.max(*known);
    }
}

/// A mapping of a file that has no name any more.
#[derive(Debug, PartialEq, Eq)]
struct Mapped<'a> {
    range: &'a str,
    inode: u64,
    /// Where in the file the mapping ends, in bytes.
    end: u64,
}

/// Source of the format: proc_pid_maps(5).
fn deleted(line: &str, device: u64) -> Option<Mapped<'_>> {
    let line = line.strip_suffix("(deleted)")?;
    let mut words = line.split_ascii_whitespace();
    let (range, _mode, offset) = (words.next()?, words.next()?, words.next()?);
    let (major, minor) = words.next()?.split_once(':')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let same = hex(major)? == u64::from(rustix::fs::major(device))
        && hex(minor)? == u64::from(rustix::fs::minor(device));
    let inode = words
        .next()?
        .parse()
        .ok()
        .filter(|inode| same && *inode > 0)?;
    let (from, to) = range.split_once('-')?;
    let length = hex(to)?.saturating_sub(hex(from)?);
    let end = hex(offset)?.saturating_add(length);
    Some(Mapped { range, inode, end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn lines_of_other_files_do_not_count() {
        let device = rustix::fs::makedev(0xfe, 1);
        let line = "7f00-9f00 rw-s 00001000 fe:01 77                     /scratch/big (deleted)";
        let found = Mapped {
            range: "7f00-9f00",
            inode: 77,
            end: 0x3000,
        };
        assert_eq!(deleted(line, device), Some(found));
        for other in [
            "7f00-9f00 rw-s 00001000 fe:02 77 /scratch/big (deleted)",
            "7f00-9f00 rw-s 00001000 fe:01 77 /scratch/big",
            "7f00-9f00 rw-p 00000000 00:00 0 ",
            "nonsense (deleted)",
        ] {
            assert_eq!(deleted(other, device), None, "{other}");
        }
    }

    #[test]
    fn what_we_hold_without_a_name_is_found_once() {
        let dir = tempfile::tempdir().unwrap();
        let device = fs::metadata(dir.path()).unwrap().dev();
        let us = [std::process::id().cast_signed()];
        let before = held(&us, device);
        let mut options = fs::File::options();
        let options = options.read(true).write(true).create_new(true);
        let mut file = options.open(dir.path().join("named")).unwrap();
        file.write_all(&[1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        let named = held(&us, device);
        fs::remove_file(dir.path().join("named")).unwrap();
        let again = file.try_clone().unwrap();
        let unlinked = held(&us, device);
        assert!(named < before + (1 << 20), "{before} {named}");
        assert!(unlinked >= 1 << 20, "{unlinked}");
        assert!(unlinked < before + (2 << 20), "{before} {unlinked}");
        // SAFETY: a new mapping of a file that is open; nothing reads it.
        let map = unsafe {
            let shared = libc::MAP_SHARED;
            libc::mmap(
                std::ptr::null_mut(),
                1 << 20,
                libc::PROT_READ,
                shared,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(map, libc::MAP_FAILED);
        drop((file, again));
        let mapped = held(&us, device);
        assert!(mapped >= 1 << 20, "{mapped}");
        // SAFETY: the mapping made above, which nothing uses.
        let unmapped = unsafe { libc::munmap(map, 1 << 20) };
        assert_eq!(unmapped, 0);
    }
}
