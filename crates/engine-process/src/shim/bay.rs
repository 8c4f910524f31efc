//! The bays of a bundle: scratch directory and streams, made once and used again by one
//! attempt after another.
//!
//! Nothing of an attempt reaches the next: a directory or file is used again only where it is
//! the very one that was made here, empty, and all that its owner can set on it (mode, flags,
//! extended attributes, access lists, links) is as it was. Whatever differs is removed and made
//! anew, at the price that every attempt would pay otherwise. The agent gives a bay away only
//! once it has no use for the attempt that had it.

use super::scratch::{Owner, TEMPORARY, give};
use crate::bundle::{Bay, Bundle};
use crate::cage::sys::{Attributes, attributes};
use crate::remove::holds_only;
use rustix::fs::{
    AtFlags, Mode, OFlags, Stat, Timespec, Timestamps, flistxattr, fstat, ftruncate, futimens,
    mkdirat, openat, unlinkat,
};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Bays remembered: more than are ever in use at a time.
const KNOWN_MAX: usize = 1024;

/// Names of extended attributes that are compared, in bytes; whoever has more is made anew.
const NAMES_MAX: usize = 256;

const STREAMS: [&str; 2] = ["stdout", "stderr"];
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const STREAM: OFlags = OFlags::WRONLY
    .union(OFlags::APPEND)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What a bay holds, opened for one attempt.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) scratch: OwnedFd,
    pub(crate) streams: [File; 2],
}

/// All that tells a new file or directory from one that somebody had.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    inode: (u64, u64),
    mode: u32,
    links: libc::nlink_t,
    /// Of a directory; a used one may have grown.
    size: i64,
    owner: (u32, u32),
    attributes: Attributes,
    names: Vec<u8>,
    changed: (i64, i64),
}

#[derive(Debug)]
struct Known {
    scratch: Mark,
    temporary: Mark,
    streams: [Mark; 2],
}

/// What was made and may be used again.
#[derive(Debug)]
pub(crate) struct Bays {
    cages: OwnedFd,
    cages_path: PathBuf,
    runs: OwnedFd,
    known: BTreeMap<Bay, Known>,
}

impl Bays {
    pub(crate) fn open(bundle: &Bundle) -> io::Result<Self> {
        let open = |path: &Path| openat(rustix::fs::CWD, path, DIRECTORY, Mode::empty());
        Ok(Self {
            cages: open(&bundle.cages())?,
            cages_path: bundle.cages(),
            runs: open(&bundle.runs())?,
            known: BTreeMap::new(),
        })
    }

    /// Opens a bay for the next attempt, as good as new.
    pub(crate) fn take(&mut self, bay: Bay, owner: Owner) -> io::Result<Taken> {
        let name = bay.to_string();
        let known = self.known.remove(&bay);
        let (known_dirs, known_streams) = match known {
            Some(known) => (Some([known.scratch, known.temporary]), Some(known.streams)),
            None => (None, None),
        };
        let again = known_dirs.and_then(|marks| self.scratch_again(&name, owner, marks));
        let (scratch, [mark, temporary]) = match again {
            Some(again) => again,
            None => self.scratch(&name, owner)?,
        };
        let run = self.run(&name)?;
        let [out_mark, err_mark] = known_streams.map_or([None, None], |marks| marks.map(Some));
        let (stdout, out_mark) = stream(run.as_fd(), STREAMS[0], owner, out_mark)?;
        let (stderr, err_mark) = stream(run.as_fd(), STREAMS[1], owner, err_mark)?;
        if self.known.len() < KNOWN_MAX {
            let known = Known {
                scratch: mark,
                temporary,
                streams: [out_mark, err_mark],
            };
            self.known.insert(bay, known);
        }
        Ok(Taken {
            scratch,
            streams: [stdout, stderr],
        })
    }

    fn scratch_again(
        &self,
        name: &str,
        owner: Owner,
        [mark, temporary]: [Mark; 2],
    ) -> Option<(OwnedFd, [Mark; 2])> {
        let dir = openat(&self.cages, name, DIRECTORY, Mode::empty()).ok()?;
        let below = openat(&dir, TEMPORARY, DIRECTORY, Mode::empty()).ok()?;
        let empty = holds_only(&dir, Some(TEMPORARY)) && holds_only(&below, None);
        let mark = mark.again(dir.as_fd(), owner).filter(|_| empty)?;
        let temporary = temporary.again(below.as_fd(), owner)?;
        Some((dir, [mark, temporary]))
    }

    fn scratch(&self, name: &str, owner: Owner) -> io::Result<(OwnedFd, [Mark; 2])> {
        let mode = Mode::from_raw_mode(0o700);
        let mut made = mkdirat(&self.cages, name, mode);
        if made == Err(Errno::EXIST) {
            crate::remove::tree(&self.cages_path.join(name))?;
            made = mkdirat(&self.cages, name, mode);
        }
        made?;
        let dir = openat(&self.cages, name, DIRECTORY, Mode::empty())?;
        mkdirat(&dir, TEMPORARY, mode)?;
        let below = openat(&dir, TEMPORARY, DIRECTORY, Mode::empty())?;
        give(&dir, owner)?;
        give(&below, owner)?;
        let marks = [Mark::of(dir.as_fd())?, Mark::of(below.as_fd())?];
        Ok((dir, marks))
    }

    fn run(&self, name: &str) -> io::Result<OwnedFd> {
        match openat(&self.runs, name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => {
                mkdirat(&self.runs, name, Mode::from_raw_mode(0o700))?;
                Ok(openat(&self.runs, name, DIRECTORY, Mode::empty())?)
            }
            done => Ok(done?),
        }
    }
}

/// Opens an empty stream. Its opening is always a new one: an old one would keep the position
/// and the flags that an earlier task gave it.
fn stream(
    run: BorrowedFd<'_>,
    name: &str,
    owner: Owner,
    mark: Option<Mark>,
) -> io::Result<(File, Mark)> {
    let again = |mark: Mark| {
        let file = openat(run, name, STREAM, Mode::empty()).ok()?;
        let mark = mark.again(file.as_fd(), owner)?;
        Some((file.into(), mark))
    };
    if let Some(again) = mark.and_then(again) {
        return Ok(again);
    }
    match unlinkat(run, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = STREAM | OFlags::CREATE | OFlags::EXCL;
    let file = openat(run, name, flags, Mode::from_raw_mode(0o600))?;
    // The task may open it once more, as /dev/stdout.
    give(&file, owner)?;
    let mark = Mark::of(file.as_fd())?;
    Ok((file.into(), mark))
}

impl Mark {
    fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let stat = fstat(fd)?;
        Ok(Self::with(fd, &stat).ok_or(io::ErrorKind::Unsupported)?)
    }

    fn with(fd: BorrowedFd<'_>, stat: &Stat) -> Option<Self> {
        let mut names = vec![0; NAMES_MAX];
        let length = match flistxattr(fd, &mut names[..]) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(_) => return None,
        };
        names.truncate(length);
        Some(Self {
            inode: (stat.st_dev, stat.st_ino),
            mode: stat.st_mode,
            links: stat.st_nlink,
            size: stat.st_size,
            owner: (stat.st_uid, stat.st_gid),
            attributes: attributes(fd),
            names,
            changed: changed(stat),
        })
    }

    /// The mark again, where this is what it was made of and nobody left anything on it. A
    /// stream is emptied, the times of what was touched are set, and `owner` gets it.
    fn again(self, fd: BorrowedFd<'_>, owner: Owner) -> Option<Self> {
        let mut stat = fstat(fd).ok()?;
        let file =
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
        if file && (stat.st_size != 0 || stat.st_blocks != 0) {
            ftruncate(fd, 0).ok()?;
            stat = fstat(fd).ok()?;
        }
        let mut mark = Self::with(fd, &stat)?;
        let touched = mark.changed != self.changed;
        mark.changed = self.changed;
        if mark != self {
            return None;
        }
        let moved = owner.is_some_and(|id| mark.owner != (id, id));
        if moved {
            give(fd, owner).ok()?;
        }
        if touched {
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: rustix::fs::UTIME_NOW,
            };
            let both = Timestamps {
                last_access: now,
                last_modification: now,
            };
            futimens(fd, &both).ok()?;
        }
        if moved || touched {
            let stat = fstat(fd).ok()?;
            mark.owner = (stat.st_uid, stat.st_gid);
            mark.changed = changed(&stat);
        }
        Some(mark)
    }
}

fn changed(stat: &Stat) -> (i64, i64) {
    (
        stat.st_ctime,
        i64::try_from(stat.st_ctime_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{IFlags, XattrFlags, fchmod, fsetxattr, ioctl_getflags, ioctl_setflags};
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;

    fn bundle(dir: &Path) -> Bundle {
        let bundle = Bundle::bare(dir);
        for dir in [bundle.cages(), bundle.runs()] {
            fs::create_dir(dir).unwrap();
        }
        bundle
    }

    /// The first attempt does something with its bay, then the second gets it. Says whether the
    /// second has the same scratch directory and standard output.
    fn second(leave: impl FnOnce(&Taken)) -> [bool; 2] {
        let dir = tempfile::tempdir().unwrap();
        let bundle = bundle(dir.path());
        let mut bays = Bays::open(&bundle).unwrap();
        let taken = bays.take(3, None).unwrap();
        let [scratch, stdout] = [bundle.scratch(3), bundle.run(3).join("stdout")];
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let before = [inode(&scratch), inode(&stdout)];
        leave(&taken);
        // The old ones stay open, so that their numbers are not given out again.
        let _second = bays.take(3, None).unwrap();
        let after = fs::metadata(&scratch).unwrap();
        assert_eq!(after.mode() & 0o7777, 0o700);
        assert!(crate::remove::is_bare(&scratch, TEMPORARY));
        assert_eq!(fs::metadata(&stdout).unwrap().len(), 0);
        [before[0] == after.ino(), before[1] == inode(&stdout)]
    }

    #[test]
    fn what_nobody_changed_is_used_again() {
        assert_eq!(second(|_| {}), [true, true]);
        let printed = second(|taken| {
            (&taken.streams[0]).write_all(b"some words").unwrap();
        });
        assert_eq!(printed, [true, true]);
    }

    #[test]
    fn whatever_was_left_on_it_ends_a_bay() {
        let file = second(|taken| mkdirat(&taken.scratch, "left", Mode::RWXU).unwrap());
        assert_eq!(file, [false, true]);
        let deep = second(|taken| {
            mkdirat(&taken.scratch, ".tmp/left", Mode::RWXU).unwrap();
        });
        assert_eq!(deep, [false, true]);
        let mode = second(|taken| {
            fchmod(&taken.scratch, Mode::RWXU | Mode::RGRP).unwrap();
            fchmod(&taken.streams[0], Mode::RWXU).unwrap();
        });
        assert_eq!(mode, [false, false]);
        let linked = second(|taken| {
            let path = format!(
                "/proc/self/fd/{}",
                std::os::fd::AsRawFd::as_raw_fd(&taken.streams[0])
            );
            let real = fs::read_link(path).unwrap();
            fs::hard_link(&real, real.with_file_name("kept")).unwrap();
        });
        assert_eq!(linked, [true, false]);
    }

    #[test]
    fn attributes_end_a_bay_where_the_file_system_has_them() {
        let mut had = true;
        let named = second(|taken| {
            had = fsetxattr(&taken.scratch, "user.left", b"x", XattrFlags::CREATE).is_ok();
        });
        assert_eq!(named, [!had, true]);
        let flagged = second(|taken| {
            had = ioctl_getflags(&taken.scratch)
                .and_then(|flags| ioctl_setflags(&taken.scratch, flags | IFlags::NODUMP))
                .is_ok();
        });
        assert_eq!(flagged, [!had, true]);
    }
}
