//! The scratch disk: one sparse file with a file system that holds the inputs. Made by the
//! host's own program and mounted by the guest only: the host's kernel never reads what a guest
//! wrote.

use crate::task::{DISK_DIR, GuestTask, WORK};
use rustix::fs::statvfs;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// One file for each so many bytes of scratch, besides the inputs.
const BYTES_PER_FILE: u64 = 16 << 10;

/// Files that a small disk has room for all the same.
const FILES_MIN: u64 = 4096;

/// Most files of a disk; the table costs 256 bytes for each.
const FILES_MAX: u64 = 4 << 20;

/// What a file's entry in the table takes.
const FILE_BYTES: u64 = 256;

/// Room for the file system's own maps: a part of the whole, and a little more.
const OWN_SHARE: u64 = 64;
const OWN_BYTES: u64 = 4 << 20;

/// Makes `image` of what lies in [`DISK_DIR`], which is gone afterwards, unless the guest is booted
/// ahead: until its task begins another one may be needed.
pub(super) fn make(task: &GuestTask, image: &Path) -> io::Result<()> {
    let work = Path::new(DISK_DIR).join(WORK);
    fs::create_dir_all(work.join(".tmp"))?;
    let (files, bytes) = size(task);
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0"])
        // One writer that never comes back needs no journal.
        .args(["-O", "^has_journal,^resize_inode,^metadata_csum"])
        .args(["-E", "lazy_itable_init=1,nodiscard"])
        .args(["-N", &files.to_string(), "-d", DISK_DIR])
        .arg(image)
        .arg(format!("{}k", bytes >> 10))
        .stdin(Stdio::null())
        .output();
    let made = made.map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let install = || io::Error::other("mke2fs is missing; install e2fsprogs");
        if missing { install() } else { error }
    })?;
    if !made.status.success() {
        if is_full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let said = String::from_utf8_lossy(&made.stderr);
        let said = said.lines().last().unwrap_or("nothing");
        return Err(io::Error::other(format!(
            "the scratch disk could not be made: {said}; are the inputs larger than limits.disk?"
        )));
    }
    match task.waits {
        true => Ok(()),
        false => fs::remove_dir_all(DISK_DIR),
    }
}

/// A PC's disk with fewer free bytes is full.
const FULL_BYTES: u64 = 4 << 20;

/// Whether the disk that the cage's scratch lies on is full.
fn is_full() -> bool {
    statvfs(".").is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < FULL_BYTES)
}

/// What an error says to whoever reads of the attempt.
pub(super) fn because(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::StorageFull {
        return FULL.to_owned();
    }
    error.to_string()
}

const FULL: &str = "the disk of this PC is full, and the guest's disk lies on it; make room, or \
                    give the agent a directory elsewhere";

/// The guest's kernel says that a disk took or gave something no more.
pub(super) fn fails(last_words: &str) -> io::Error {
    if is_full() {
        return io::ErrorKind::StorageFull.into();
    }
    io::Error::other(format!(
        "a disk of the guest failed; look at this PC's own. The guest's last words: {last_words}"
    ))
}

/// Files and bytes of the disk that a task needs.
pub(super) fn size(task: &GuestTask) -> (u64, u64) {
    let files = (task.disk_bytes / BYTES_PER_FILE).max(FILES_MIN) + task.inputs.saturating_mul(2);
    let files = files.min(FILES_MAX);
    let bytes = task.disk_bytes + task.disk_bytes / OWN_SHARE + files * FILE_BYTES + OWN_BYTES;
    (files, bytes.next_multiple_of(4096))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_what_else_fails() {
        let full = because(&io::ErrorKind::StorageFull.into());
        assert!(full.contains("make room"), "{full}");
        let other = because(&io::Error::other("something else"));
        assert_eq!(other, "something else");
    }

    #[test]
    fn a_disk_has_room_for_what_it_promises() {
        for (disk_bytes, inputs) in [(1 << 20, 0), (2 << 30, 10_000), (1 << 40, 0)] {
            let task = GuestTask {
                command: Vec::new(),
                env: std::collections::BTreeMap::new(),
                stdin: None,
                outputs: Vec::new(),
                output_bytes: 0,
                memory_bytes: 0,
                disk_bytes,
                processes: 1,
                inputs,
                machine: crate::task::Machine {
                    accelerator: crate::task::Accelerator::Uml,
                    kind: String::new(),
                    cpu: String::new(),
                },
                base: String::new(),
                guest_mib: 64,
                silence_seconds: 1,
                waits: false,
            };
            let (files, bytes) = size(&task);
            assert!(files > inputs && files <= FILES_MAX);
            assert!(bytes >= disk_bytes + files * FILE_BYTES);
            assert_eq!(bytes % 4096, 0);
        }
    }
}
