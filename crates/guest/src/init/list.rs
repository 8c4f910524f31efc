//! After the program: what it left in scratch, and the content of what the host asks for.

use super::channel::Channel;
use super::{DISK, READ_BYTES};
use crate::message::{Entry, EntryKind, NAME_MAX_BYTES, ToGuest, ToHost};
use crate::outputs::wanted;
use crate::task::WORK;
use globset::GlobSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Most names that are told, far more than an attempt may bring home.
const ENTRIES_MAX: usize = 200_000;

/// The directory of temporary files, which is nobody's output.
const TEMPORARY: &str = ".tmp";

/// Tells what there is of these outputs and sends what is asked for, until the host hangs up.
pub(super) fn serve(channel: &mut Channel, outputs: &[String]) -> io::Result<()> {
    let top = Path::new(DISK).join(WORK);
    let mut files = Vec::new();
    for entry in entries(&top, &wanted(outputs), ENTRIES_MAX)? {
        files.push(top.join(&entry.path));
        channel.send(&ToHost::Entry(entry))?;
    }
    channel.send(&ToHost::Listed)?;
    loop {
        if let ToGuest::Get { entry, offset } = channel.request()? {
            let file = usize::try_from(entry).ok().and_then(|at| files.get(at));
            let file =
                file.ok_or_else(|| io::Error::other("the host asks for what is not there"))?;
            content(channel, file, offset)?;
        }
    }
}

/// Everything below `top` that is wanted, in order of names. Nothing runs any more that could change
/// it. However much else a program leaves; but never a part of what is wanted for the whole.
fn entries(top: &Path, wanted: &GlobSet, most: usize) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(dir) = left.pop() {
        // Too deep to name: nothing in it can be asked for.
        let Ok(read) = fs::read_dir(top.join(&dir)) else {
            continue;
        };
        for name in read.flatten().map(|entry| entry.file_name()) {
            let path = dir.join(&name);
            let Ok(data) = fs::symlink_metadata(top.join(&path)) else {
                continue;
            };
            if path == Path::new(TEMPORARY) || path.as_os_str().len() > NAME_MAX_BYTES {
                continue;
            }
            let kind = data.file_type();
            let kind = if kind.is_dir() {
                left.push(path.clone());
                EntryKind::Directory
            } else if kind.is_symlink() {
                EntryKind::Link
            } else if kind.is_fifo() || kind.is_socket() || !kind.is_file() {
                EntryKind::Other
            } else if data.nlink() > 1 {
                EntryKind::Linked
            } else {
                EntryKind::File
            };
            if !wanted.is_match(&path) {
                continue;
            }
            if found.len() >= most {
                return Err(io::Error::other(format!(
                    "the outputs are more than {most} files; pack them into an archive"
                )));
            }
            found.push(Entry {
                kind,
                mode: data.mode() & 0o777,
                size: data.len(),
                path,
            });
        }
    }
    found.sort_by(|a, b| {
        a.path
            .as_os_str()
            .as_bytes()
            .cmp(b.path.as_os_str().as_bytes())
    });
    Ok(found)
}

/// Sends a file from `offset` on; the digest at the end is that of the whole.
fn content(channel: &mut Channel, path: &Path, offset: u64) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut before = (&file).take(offset);
    io::copy(&mut before, &mut hasher)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let length = file.read(&mut buffer)?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return channel.send(&ToHost::DataEnd(*hasher.finalize().as_bytes()));
        }
        hasher.update(bytes);
        channel.send(&ToHost::Data(bytes.to_vec()))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(top: &Path, globs: &[&str], most: usize) -> io::Result<Vec<Entry>> {
        let globs: Vec<String> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        entries(top, &wanted(&globs), most)
    }

    #[test]
    fn names_beyond_the_bound_are_an_error_and_others_are_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.txt", "b.txt", "c.txt", "1", "2", "3", "4"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let told = all(dir.path(), &["./*.txt"], 3).unwrap();
        let names: Vec<_> = told
            .iter()
            .map(|entry| entry.path.to_str().unwrap())
            .collect();
        assert_eq!(names, ["a.txt", "b.txt", "c.txt"]);
        let error = all(dir.path(), &["*.txt"], 2).unwrap_err().to_string();
        assert!(error.contains("more than 2 files"), "{error}");
    }

    #[test]
    fn everything_is_told_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("b/c")).unwrap();
        fs::create_dir(at(TEMPORARY)).unwrap();
        fs::write(at(".tmp/x"), "x").unwrap();
        fs::write(at("b/c/f"), "12345").unwrap();
        fs::write(at("a"), "").unwrap();
        fs::hard_link(at("a"), at("z")).unwrap();
        std::os::unix::fs::symlink("/etc", at("b/e")).unwrap();
        let all = all(dir.path(), &["**"], 10).unwrap();
        let told: Vec<_> = all
            .iter()
            .map(|entry| (entry.path.to_str().unwrap(), entry.kind, entry.size))
            .collect();
        assert_eq!(
            told.iter().map(|one| one.0).collect::<Vec<_>>(),
            ["a", "b", "b/c", "b/c/f", "b/e", "z"]
        );
        assert_eq!(told[0].1, EntryKind::Linked);
        assert_eq!(told[1].1, EntryKind::Directory);
        assert_eq!((told[3].1, told[3].2), (EntryKind::File, 5));
        assert_eq!(told[4].1, EntryKind::Link);
    }
}
