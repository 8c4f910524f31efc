//! Files that a task has unlinked and still holds open or mapped: no directory shows them, yet
//! they take room on the disk. Read from /proc of the task's processes; what vanishes meanwhile,
//! or may not be read, is not counted.
//!
//! A thread may have open files of its own, and the first thread of a process may be gone while
//! others go on, so each thread is looked at. A descriptor that lies in a socket, sent and not yet
//! received, is nobody's: then it is only said that there are such.

use crate::cage::sys::same_files;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

/// What `st_blocks` counts, in bytes.
const BLOCK_BYTES: u64 = 512;

/// What processes hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Bytes of unlinked files, each file once.
    pub(crate) bytes: u64,
    /// Whether descriptors lie in their sockets: of which files is not to be seen.
    pub(crate) under_way: bool,
}

/// Looks through them.
#[derive(Debug)]
struct Search {
    /// The disk that matters, as `st_dev` has it.
    device: u64,
    /// Bytes by inode.
    files: BTreeMap<u64, u64>,
    under_way: bool,
}

/// All unlinked files on `device` (as `st_dev` has it) that these processes hold.
pub(crate) fn held(processes: &[i32], device: u64) -> Held {
    let mut search = Search {
        device,
        files: BTreeMap::new(),
        under_way: false,
    };
    for process in processes {
        search.process(*process);
    }
    Held {
        bytes: search.files.values().sum(),
        under_way: search.under_way,
    }
}

impl Search {
    fn process(&mut self, process: i32) {
        // A program may have let go of all memory that it was loaded into.
        self.file(&format!("/proc/{process}/exe"));
        let threads = fs::read_dir(format!("/proc/{process}/task"));
        let threads = threads.into_iter().flatten().flatten();
        let threads = threads.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let mut before: Option<i32> = None;
        for thread in threads {
            if before.is_some_and(|before| same_files(before, thread) == Some(true)) {
                continue;
            }
            // One that has ended shows nothing; its process may go on.
            if !self.open(process, thread) {
                continue;
            }
            if before.replace(thread).is_none() {
                self.mapped(process, thread);
            }
        }
    }

    /// Notes what the link leads to, wherever its name went.
    fn file(&mut self, link: &str) -> Option<Metadata> {
        let found = fs::metadata(link).ok()?;
        if is_unlinked(&found) && found.dev() == self.device {
            self.files.insert(found.ino(), found.blocks() * BLOCK_BYTES);
        }
        Some(found)
    }

    fn open(&mut self, process: i32, thread: i32) -> bool {
        let of = format!("/proc/{process}/task/{thread}");
        let Ok(open) = fs::read_dir(format!("{of}/fd")) else {
            return false;
        };
        for entry in open.flatten() {
            let name = entry.file_name();
            let Some(number) = name.to_str() else {
                continue;
            };
            let found = self.file(&format!("{of}/fd/{number}"));
            if !self.under_way && found.is_some_and(|found| found.file_type().is_socket()) {
                let about = fs::read_to_string(format!("{of}/fdinfo/{number}"));
                self.under_way = about.is_ok_and(|about| descriptors(&about) > 0);
            }
        }
        true
    }

    fn mapped(&mut self, process: i32, thread: i32) {
        let maps = fs::read_to_string(format!("/proc/{process}/task/{thread}/maps"));
        let maps = maps.unwrap_or_default();
        for map in maps.lines().filter_map(|line| deleted(line, self.device)) {
            // Only the host's root may follow these; for others the part that is mapped must do.
            let found = fs::metadata(format!("/proc/{process}/map_files/{}", map.range));
            let bytes = found.map_or(map.end, |found| found.blocks() * BLOCK_BYTES);
            let known = self.files.entry(map.inode).or_default();
            *known = bytes.max(*known);
        }
    }
}

/// How many descriptors lie in a local socket. Source: proc_pid_fdinfo(5); kernels before 5.6 do
/// not say.
fn descriptors(about: &str) -> u64 {
    let mut lines = about.lines();
    let count = lines.find_map(|line| line.strip_prefix("scm_fds:"));
    count.map_or(0, |count| count.trim().parse().unwrap_or(0))
}

fn is_unlinked(found: &Metadata) -> bool {
    found.is_file() && found.nlink() == 0
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
        let before = held(&us, device).bytes;
        let mut options = fs::File::options();
        let options = options.read(true).write(true).create_new(true);
        let mut file = options.open(dir.path().join("named")).unwrap();
        file.write_all(&[1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        let named = held(&us, device).bytes;
        fs::remove_file(dir.path().join("named")).unwrap();
        let again = file.try_clone().unwrap();
        let unlinked = held(&us, device).bytes;
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
        let mapped = held(&us, device).bytes;
        assert!(mapped >= 1 << 20, "{mapped}");
        // SAFETY: the mapping made above, which nothing uses.
        let unmapped = unsafe { libc::munmap(map, 1 << 20) };
        assert_eq!(unmapped, 0);
    }

    /// A process of ours that does `what`, says so, and waits to be killed.
    fn beside(dir: &std::path::Path, what: &str) -> std::process::Child {
        let mut child = std::process::Command::new("python3")
            .args(["-c", &format!("{HOLDER}\n{what}\n{SAID}")])
            .current_dir(dir)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 1];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        child
    }

    const HOLDER: &str = "
import os, socket, sys, threading
def held():
    file = os.open('held', os.O_CREAT | os.O_RDWR)
    os.write(file, b'x' * (1 << 20)); os.fsync(file); os.unlink('held')
    return file
";

    const SAID: &str = "
os.write(1, b'.')
sys.stdin.read()
";

    #[test]
    fn no_corner_of_a_process_hides_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let device = fs::metadata(dir.path()).unwrap().dev();
        // What runs here has no name any more and is as large as its file.
        let gone = dir.path().join("sleep");
        fs::copy("/usr/bin/sleep", &gone).unwrap();
        let grow = fs::File::options().write(true).open(&gone).unwrap();
        let program = grow.metadata().unwrap().len();
        std::os::unix::fs::FileExt::write_all_at(&grow, &[1; 1 << 20], program).unwrap();
        grow.sync_all().unwrap();
        drop(grow);
        let mut program = std::process::Command::new(&gone)
            .arg("600")
            .spawn()
            .unwrap();
        fs::remove_file(&gone).unwrap();
        let mut leaderless = beside(
            dir.path(),
            &LEADERLESS.replace("EXIT", &libc::SYS_exit.to_string()),
        );
        let mut sent = beside(
            dir.path(),
            "file = held(); ours, theirs = socket.socketpair(); \
             socket.send_fds(ours, [b'x'], [file]); os.close(file)",
        );
        let found = |child: &std::process::Child| held(&[child.id().cast_signed()], device);
        let (a, b, c) = (found(&program), found(&leaderless), found(&sent));
        for child in [&mut program, &mut leaderless, &mut sent] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(a.bytes >= 1 << 20 && !a.under_way, "{a:?}");
        assert!(b.bytes >= 1 << 20 && !b.under_way, "{b:?}");
        assert!(c.under_way, "{c:?}");
    }

    /// The first thread ends, another holds the file and goes on.
    const LEADERLESS: &str = "
def rest():
    global file
    file = held()
    os.write(1, b'.')
    sys.stdin.read()
threading.Thread(target=rest).start()
import ctypes
ctypes.CDLL(None).syscall(EXIT, 0)
";
}
