//! The files that come out of the guest. Names and kinds are replayed below one directory, so
//! that whoever collects them judges them as it would judge the program's own scratch: a link
//! stays a link, a pipe a pipe, and neither is followed.

use crate::message::{Entry, EntryKind};
use crate::outputs::wanted;
use crate::task::{GuestTask, OUT_DIR};
use globset::GlobSet;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::collections::VecDeque;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Most names that a guest may tell.
const ENTRIES_MAX: u32 = 200_000;

/// Most bytes of the names that are wanted, all together.
const NAMES_MAX_BYTES: usize = 32 << 20;

/// Where second names of files lie that had several.
const SECOND_NAMES: &str = "names";

pub(super) struct Outputs {
    wanted: GlobSet,
    told: u32,
    names: usize,
    bytes: u64,
    left: VecDeque<(u32, Entry)>,
    open: Option<Receiving>,
    top: PathBuf,
}

/// A file on its way.
struct Receiving {
    file: File,
    hasher: blake3::Hasher,
    entry: Entry,
    got: u64,
}

impl Outputs {
    pub(super) fn new(task: &GuestTask) -> Self {
        Self::below(Path::new("."), &task.outputs)
    }

    fn below(top: &Path, globs: &[String]) -> Self {
        Self {
            wanted: wanted(globs),
            told: 0,
            names: 0,
            bytes: 0,
            left: VecDeque::new(),
            open: None,
            top: top.to_owned(),
        }
    }

    /// Length of all wanted files.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Looks whether this is wanted.
    pub(super) fn offer(&mut self, entry: Entry) -> io::Result<()> {
        let many = || io::Error::other("the guest tells too many names");
        if self.told >= ENTRIES_MAX {
            return Err(many());
        }
        if self.wanted.is_match(&entry.path) {
            self.names = self.names.saturating_add(entry.path.as_os_str().len());
            if self.names > NAMES_MAX_BYTES {
                return Err(many());
            }
            if matches!(entry.kind, EntryKind::File | EntryKind::Linked) {
                self.bytes = self.bytes.saturating_add(entry.size);
            }
            self.left.push_back((self.told, entry));
        }
        self.told += 1;
        Ok(())
    }

    /// Makes what needs no content, up to the next file; its place, and from which byte on.
    pub(super) fn next(&mut self) -> io::Result<Option<(u32, u64)>> {
        fs::create_dir_all(self.top.join(OUT_DIR))?;
        while let Some((number, entry)) = self.left.pop_front() {
            let path = self.top.join(OUT_DIR).join(&entry.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            match entry.kind {
                EntryKind::Directory => fs::create_dir_all(&path)?,
                EntryKind::Link => std::os::unix::fs::symlink("its-target", &path)?,
                EntryKind::Other => {
                    let mode = Mode::from_raw_mode(0o600);
                    mknodat(CWD, &path, FileType::Fifo, mode, 0)?;
                }
                EntryKind::File | EntryKind::Linked => {
                    let file = File::options().write(true).create_new(true).open(&path)?;
                    if entry.kind == EntryKind::Linked {
                        let names = self.top.join(SECOND_NAMES);
                        fs::create_dir_all(&names)?;
                        fs::hard_link(&path, names.join(number.to_string()))?;
                    }
                    self.open = Some(Receiving {
                        file,
                        hasher: blake3::Hasher::new(),
                        entry,
                        got: 0,
                    });
                    return Ok(Some((number, 0)));
                }
            }
        }
        Ok(None)
    }

    /// Takes content of the file that was asked for.
    pub(super) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let open = self
            .open
            .as_mut()
            .ok_or_else(|| io::Error::other("the guest sends what nobody asked for"))?;
        open.got = open.got.saturating_add(bytes.len() as u64);
        if open.got > open.entry.size {
            return Err(io::Error::other(
                "the guest sends more than it said there is",
            ));
        }
        open.hasher.update(bytes);
        open.file.write_all(bytes)
    }

    /// The file is whole, if length and digest say so.
    pub(super) fn end(&mut self, digest: [u8; 32]) -> io::Result<()> {
        let open = self
            .open
            .take()
            .ok_or_else(|| io::Error::other("the guest ends what nobody asked for"))?;
        if open.got != open.entry.size || open.hasher.finalize() != digest {
            let name = open.entry.path.display().to_string();
            return Err(io::Error::other(format!(
                "output {} was damaged on its way out of the guest",
                name.escape_debug()
            )));
        }
        open.file
            .set_permissions(Permissions::from_mode(open.entry.mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryKind, path: &str, size: u64) -> Entry {
        Entry {
            kind,
            mode: 0o640,
            size,
            path: path.into(),
        }
    }

    #[test]
    fn only_what_is_wanted_is_asked_for_and_kinds_stay() {
        let dir = tempfile::tempdir().unwrap();
        let globs = ["a/**".to_owned(), "*.txt".to_owned()];
        let mut outputs = Outputs::below(dir.path(), &globs);
        for one in [
            entry(EntryKind::File, "no", 9),
            entry(EntryKind::Directory, "a", 0),
            entry(EntryKind::Link, "a/link", 3),
            entry(EntryKind::Linked, "a/two", 2),
            entry(EntryKind::Other, "a/pipe", 0),
            entry(EntryKind::File, "x.txt", 4),
        ] {
            outputs.offer(one).unwrap();
        }
        assert_eq!(outputs.bytes(), 6);
        assert_eq!(outputs.next().unwrap(), Some((3, 0)));
        outputs.data(b"ab").unwrap();
        outputs.end(*blake3::hash(b"ab").as_bytes()).unwrap();
        assert_eq!(outputs.next().unwrap(), Some((5, 0)));
        outputs.data(b"1234").unwrap();
        outputs.end(*blake3::hash(b"1234").as_bytes()).unwrap();
        assert_eq!(outputs.next().unwrap(), None);
        let out = dir.path().join(OUT_DIR);
        assert!(
            fs::symlink_metadata(out.join("a/link"))
                .unwrap()
                .is_symlink()
        );
        assert_eq!(fs::read(out.join("x.txt")).unwrap(), b"1234");
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(fs::metadata(out.join("a/two")).unwrap().nlink(), 2);
        assert!(!out.join("no").exists());
    }

    #[test]
    fn names_are_bounded_in_number_and_in_bytes() {
        let flood = |path: &str| {
            let mut outputs = Outputs::below(Path::new("."), &["**".to_owned()]);
            let mut taken = 0_usize;
            while outputs.offer(entry(EntryKind::File, path, 0)).is_ok() {
                taken += 1;
            }
            taken
        };
        assert_eq!(flood("short"), ENTRIES_MAX as usize);
        let long = vec!["x".repeat(200); 20].join("/");
        assert_eq!(flood(&long), NAMES_MAX_BYTES / long.len());
    }

    #[test]
    fn a_guest_that_sends_other_bytes_than_it_said_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let mut outputs = Outputs::below(dir.path(), &["*".to_owned()]);
        outputs.data(b"x").unwrap_err();
        outputs.end([0; 32]).unwrap_err();
        outputs.offer(entry(EntryKind::File, "f", 2)).unwrap();
        outputs.next().unwrap();
        outputs.data(b"xyz").unwrap_err();
        let mut outputs = Outputs::below(dir.path(), &["*".to_owned()]);
        outputs.offer(entry(EntryKind::File, "g", 1)).unwrap();
        outputs.next().unwrap();
        outputs.data(b"x").unwrap();
        let error = outputs.end([0; 32]).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
        // The same name twice.
        outputs.offer(entry(EntryKind::File, "g", 1)).unwrap();
        outputs.next().unwrap_err();
    }
}
