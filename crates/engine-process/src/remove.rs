//! Removes what a task left, whatever it looks like.
//!
//! Trees deeper than any path can name, directories without permissions, links to anywhere:
//! every step is relative to an open directory and follows nothing.

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, RawDir, RenameFlags, fchmod, openat, renameat, renameat_with,
    unlinkat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

/// Directories held open at a time. What lies deeper is moved to the top first.
const DEPTH_MAX: u32 = 128;

/// Removes the tree at `path`; nothing there is fine, and so is somebody else who removes it too.
///
/// # Errors
/// Where something cannot be removed; the rest is.
pub(crate) fn tree(path: &Path) -> io::Result<()> {
    let top = match open(CWD, &CString::new(path.as_os_str().as_encoded_bytes())?) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(unlinkat(CWD, path, AtFlags::empty())?),
        Err(error) => return Err(error.into()),
    };
    let mut moved = 0;
    // Each round empties what was there; only what was moved up is left for the next.
    loop {
        let before = moved;
        empty(&top, top.as_fd(), 0, &mut moved)?;
        if moved == before {
            break;
        }
    }
    Ok(absent_is_fine(unlinkat(CWD, path, AtFlags::REMOVEDIR))?)
}

/// What should go may have gone already.
fn absent_is_fine(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// Whether the directory at `path` holds nothing but an empty directory called `below`.
pub(crate) fn is_bare(path: &Path, below: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(top) = openat(CWD, path, flags, Mode::empty()) else {
        return false;
    };
    let inner = openat(&top, below, flags, Mode::empty());
    holds_only(&top, Some(below)) && inner.is_ok_and(|inner| holds_only(&inner, None))
}

/// Whether there is nothing else in a directory that was just opened.
pub(crate) fn holds_only(dir: &OwnedFd, name: Option<&str>) -> bool {
    let mut space = [MaybeUninit::uninit(); 512];
    let mut entries = RawDir::new(dir, &mut space);
    while let Some(entry) = entries.next() {
        let Ok(entry) = entry else { return false };
        let found = entry.file_name().to_bytes();
        let known = name.is_some_and(|name| name.as_bytes() == found);
        if !known && !matches!(found, b"." | b"..") {
            return false;
        }
    }
    true
}

fn open(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(at, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            unlock(&openat(at, name, flags | OFlags::PATH, Mode::empty())?);
            openat(at, name, flags, Mode::empty())
        }
        done => done,
    }
}

/// Gives us back a directory that was opened as a place only. Not by its path: the task may have put
/// a link there meanwhile.
pub(crate) fn unlock(found: &OwnedFd) {
    // Such a descriptor has no mode to change but by this name of it.
    let name = format!("/proc/self/fd/{}", found.as_raw_fd());
    let _not_ours = rustix::fs::chmod(name, Mode::from_raw_mode(0o700));
}

fn empty(dir: &OwnedFd, top: BorrowedFd<'_>, depth: u32, moved: &mut u64) -> Result<(), Errno> {
    let mut entries = Dir::read_from(dir)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let mut gone = unlinkat(dir, name, AtFlags::empty());
        if gone == Err(Errno::ACCESS) {
            fchmod(dir, Mode::from_raw_mode(0o700))?;
            gone = unlinkat(dir, name, AtFlags::empty());
        }
        match gone {
            Ok(()) | Err(Errno::NOENT) => continue,
            // It is a directory: EISDIR on Linux, EPERM in the standard.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        if depth >= DEPTH_MAX {
            move_up(dir, name, top, moved)?;
            continue;
        }
        let below = match open(dir.as_fd(), name) {
            Err(Errno::NOENT) => continue,
            opened => opened?,
        };
        empty(&below, top, depth + 1, moved)?;
        drop(below);
        absent_is_fine(unlinkat(dir, name, AtFlags::REMOVEDIR))?;
    }
    Ok(())
}

/// Moves what lies too deep to the top. The task may have used any name there.
fn move_up(dir: &OwnedFd, name: &CStr, top: BorrowedFd<'_>, moved: &mut u64) -> Result<(), Errno> {
    loop {
        *moved += 1;
        let to = format!(".removed-{moved}");
        match renameat_with(dir, name, top, &to, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            // Some file systems cannot be asked to keep what is there; few directories are in the way.
            Err(Errno::INVAL) => match renameat(dir, name, top, to) {
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                done => return done,
            },
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_link_that_takes_a_directorys_place_opens_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let named = |name: &str| dir.path().join(name);
        let mode = |name: &str| fs::metadata(named(name)).unwrap().permissions().mode() & 0o777;
        for (name, mode) in [("closed", 0o000), ("outside", 0o750)] {
            fs::create_dir(named(name)).unwrap();
            fs::set_permissions(named(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rustix::fs::open(named("closed"), flags, Mode::empty()).unwrap();
        fs::rename(named("closed"), named("moved")).unwrap();
        symlink(named("outside"), named("closed")).unwrap();
        unlock(&found);
        assert_eq!((mode("moved"), mode("outside")), (0o700, 0o750));
    }

    #[test]
    fn deep_closed_and_linked_trees_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        // Names that we use ourselves are no hindrance.
        for at in 1..40 {
            fs::create_dir_all(top.join(format!("a/.removed-{at}/x"))).unwrap();
            fs::create_dir_all(top.join(format!(".removed-{at}/x"))).unwrap();
        }
        symlink(&outside, top.join("link")).unwrap();
        let closed = top.join("closed");
        fs::create_dir(&closed).unwrap();
        fs::write(closed.join("file"), "x").unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut at = openat(CWD, &top, flags, Mode::empty()).unwrap();
        for _ in 0..1500 {
            mkdirat(&at, "deeper", Mode::from_raw_mode(0o755)).unwrap();
            at = openat(&at, "deeper", flags, Mode::empty()).unwrap();
        }
        drop(at);
        tree(&top).unwrap();
        assert!(!top.exists());
        assert!(outside.join("kept").exists());
        tree(&top).unwrap();
    }
}
