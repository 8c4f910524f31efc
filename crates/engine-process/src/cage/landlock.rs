//! Landlock: a second bound on what a cage may write, where the kernel has it.
//!
//! Mounts already show everything read-only but scratch and shared memory. Should a mount ever
//! be wrong, this still holds: writes go below the allowed directories only. Reading is left to
//! the mounts, since the process file system differs from cage to cage. From version 6 on it
//! also keeps the abstract sockets and signals of one cage from another's in the same bundle.
//! Source: landlock(7).

use super::sys;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

const WRITE_FILE: u64 = 1 << 1;
const REMOVE_AND_MAKE: u64 = 0x1FF0;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;

/// Abstract sockets and signals.
const SCOPES: u64 = 0b11;

/// Writable directories of a cage.
const WRITABLE: [&str; 2] = ["/scratch", "/dev/shm"];

/// Writable devices: the ones that writing cannot change.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/full"];

/// The devices, opened once for all cages of a bundle.
pub(crate) fn devices() -> io::Result<Vec<OwnedFd>> {
    let all = DEVICES.iter().map(|path| place(path));
    all.collect()
}

/// A place to name in a rule.
pub(crate) fn place(path: &str) -> io::Result<OwnedFd> {
    Ok(openat(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// The version of Landlock here; 0 for none.
pub(crate) fn version() -> i32 {
    sys::landlock_ruleset(&[]).unwrap_or(0)
}

/// Confines this process and all it starts. It may also write to `files`: the devices, and its
/// streams by way of `/dev/stdout` and the like.
///
/// # Errors
/// Where the kernel has Landlock and still refuses: the cage must not start then.
pub(crate) fn confine(version: i32, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    if version < 1 {
        return Ok(());
    }
    let mut handled = WRITE_FILE | REMOVE_AND_MAKE;
    if version >= 2 {
        handled |= REFER;
    }
    if version >= 3 {
        handled |= TRUNCATE;
    }
    let attributes = [handled, 0, SCOPES];
    let known = if version >= 6 { 3 } else { 1 };
    let ruleset = sys::landlock_ruleset(attributes.split_at(known).0)?;
    let ruleset = sys::own_descriptor(ruleset);
    for path in WRITABLE {
        sys::landlock_allow(ruleset.as_fd(), place(path)?.as_fd(), handled)?;
    }
    for file in files {
        let access = handled & (WRITE_FILE | TRUNCATE);
        sys::landlock_allow(ruleset.as_fd(), *file, access)?;
    }
    sys::landlock_restrict(ruleset.as_fd())
}
