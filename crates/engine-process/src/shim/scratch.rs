//! The scratch directory of one attempt: filled before the program starts, measured while it
//! runs.
//!
//! Inputs are private copies (shared blocks where the file system can), so that a task may
//! change them and nothing of it reaches the blob. The copy is what is hashed: nobody can
//! change a file between the check and its use.

use crate::remove::unlock;
use gleaner_engine::{AttemptSpec, InputFile};
use gleaner_model::{Digest, Reason};
use globset::GlobSet;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fchmod, fchown, ioctl_ficlone, mkdirat,
    openat, openat2, statat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Bytes copied and hashed at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// The kernel accounts disk space in blocks of this many bytes in every stat.
const BLOCK_BYTES: u64 = 512;

/// Charged for each entry at least, so that empty files have an end too: a disk has room for one
/// file in 16 KiB as it is usually made, and what is left of that is the owner's.
const ENTRY_BYTES: u64 = 4096;

/// What temporary files are kept in; also reached as /tmp.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Who owns what is in scratch: none leaves it to whoever we are.
pub(crate) type Owner = Option<u32>;

fn sub_directory(at: BorrowedFd<'_>, path: &Path, owner: Owner) -> io::Result<OwnedFd> {
    match mkdirat(at, path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(at, path, flags, Mode::empty())?;
    give(&dir, owner)?;
    Ok(dir)
}

/// Hands a file to the task's user.
pub(crate) fn give(file: impl std::os::fd::AsFd, owner: Owner) -> io::Result<()> {
    if let Some(id) = owner {
        fchown(file, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?;
    }
    Ok(())
}

/// Brings every input in. Returns the space they take, which is not charged to the task.
pub(crate) fn fill(spec: &AttemptSpec, dir: &OwnedFd, owner: Owner) -> Result<u64, Reason> {
    let mut buffer = vec![0; CHUNK_BYTES];
    for input in &spec.inputs {
        one(input, dir, owner, &mut buffer)?;
    }
    let used = measure(dir.as_fd(), None).map_err(|error| Reason::Engine {
        detail: format!("the inputs could not be measured: {error}"),
    })?;
    Ok(used.bytes)
}

fn one(input: &InputFile, dir: &OwnedFd, owner: Owner, buffer: &mut [u8]) -> Result<(), Reason> {
    let local = |error: &dyn std::fmt::Display| Reason::Engine {
        detail: format!(
            "the input {:?} could not be put into scratch: {error}",
            input.name
        ),
    };
    let name = Path::new(&input.name);
    if !is_within(name) {
        return Err(local(&"its name leaves the scratch directory"));
    }
    let parent = parents(dir, name, owner).map_err(|error| local(&error))?;
    let from = File::open(&input.source).map_err(|error| Reason::Integrity {
        detail: format!(
            "the blob of input {:?} cannot be opened: {error}",
            input.name
        ),
    })?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let base = Path::new(name.file_name().unwrap_or_default());
    let to =
        openat(&parent, base, flags, Mode::from_raw_mode(0o600)).map_err(|error| local(&error))?;
    let mut to = File::from(to);
    let found = copy_and_hash(from, &mut to, buffer).map_err(|error| local(&error))?;
    if found != input.digest {
        return Err(Reason::Integrity {
            detail: format!(
                "input {:?} should be {} but its blob on this PC is {found}",
                input.name, input.digest
            ),
        });
    }
    let mode = Mode::from_raw_mode(input.mode & 0o777 | 0o400);
    fchmod(&to, mode).map_err(|error| local(&error))?;
    give(&to, owner).map_err(|error| local(&error))
}

/// Whether a relative path stays where it is, by its text alone.
pub(crate) fn is_within(path: &Path) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    path.components().all(plain) && path.file_name().is_some()
}

/// Opens the directory that `name` lies in, making it where needed.
fn parents(dir: &OwnedFd, name: &Path, owner: Owner) -> io::Result<OwnedFd> {
    let mut at = rustix::io::dup(dir)?;
    for part in name.parent().iter().flat_map(|path| path.components()) {
        at = sub_directory(at.as_fd(), Path::new(part.as_os_str()), owner)?;
    }
    Ok(at)
}

fn copy_and_hash(mut from: File, to: &mut File, buffer: &mut [u8]) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let shared = ioctl_ficlone(&*to, &from).is_ok();
    if shared {
        to.rewind()?;
    }
    loop {
        let length = if shared {
            to.read(buffer)?
        } else {
            from.read(buffer)?
        };
        let part = buffer.get(..length).unwrap_or_default();
        if part.is_empty() {
            return Ok(Digest(*hasher.finalize().as_bytes()));
        }
        hasher.update(part);
        if !shared {
            to.write_all(part)?;
        }
    }
}

/// What lies in a scratch directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Measure {
    /// Disk space in bytes, directories and entries included.
    pub(crate) bytes: u64,
    /// Length of the files that `outputs` match, in bytes.
    pub(crate) outputs: u64,
}

/// Adds up a tree without following links. What vanishes meanwhile is not counted.
pub(crate) fn measure(dir: BorrowedFd<'_>, outputs: Option<&GlobSet>) -> io::Result<Measure> {
    let mut sum = Measure::default();
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        let Some(open) = open_below(dir, &path)? else {
            continue;
        };
        let mut entries = Dir::new(open)?;
        while let Some(Ok(entry)) = entries.read() {
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(stat) = entries
                .fd()
                .and_then(|open| statat(open, name, AtFlags::SYMLINK_NOFOLLOW))
            else {
                continue;
            };
            let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
            sum.bytes += (blocks * BLOCK_BYTES).max(ENTRY_BYTES);
            let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes());
            let whole = path.join(name);
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::Directory {
                left.push(whole);
            } else if kind == FileType::RegularFile
                && outputs.is_some_and(|set| set.is_match(&whole))
            {
                sum.outputs += u64::try_from(stat.st_size).unwrap_or(0);
            }
        }
    }
    Ok(sum)
}

/// Opens a directory below `dir`; none where it is gone. One that its owner closed is opened
/// again: a plain user's task could hide its files so.
fn open_below(dir: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    if path.as_os_str().is_empty() {
        return Ok(Some(openat(
            dir,
            c".",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(dir, path, flags, Mode::empty(), within) {
        Ok(open) => Ok(Some(open)),
        Err(Errno::ACCESS) => {
            if let Ok(found) = openat2(dir, path, flags | OFlags::PATH, Mode::empty(), within) {
                unlock(&found);
            }
            Ok(openat2(dir, path, flags, Mode::empty(), within).ok())
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::AGAIN | Errno::XDEV) => Ok(None),
        // A tree too deep to name is not made by programs that mean well.
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_entry_counts_however_empty() {
        let dir = tempfile::tempdir().unwrap();
        for at in 0..100 {
            fs::write(dir.path().join(at.to_string()), "").unwrap();
        }
        let open = File::open(dir.path()).unwrap();
        let found = measure(open.as_fd(), None).unwrap();
        assert_eq!(found.bytes, 100 * ENTRY_BYTES);
    }
}
