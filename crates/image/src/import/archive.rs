//! Tar archives, as whole trees and as layers over others: POSIX ustar and pax, GNU tar; for
//! whiteouts, the OCI image specification ("Image Layer Filesystem Changeset").

use super::{DEVICE, LeftOut};
use crate::content::{From, Part, PartReader};
use crate::tree::{Node, PATH_BYTES_MAX, Tree, What};
use crate::{Content, ENTRIES_MAX, ImageError, entry, io_at};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;
use tar::{Archive, EntryType};

/// In layers, what begins with this takes something away.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const OF_BUILDERS: &[u8] = b".wh..wh.";

/// Most bytes that describe one entry: its name, its link's target and its attributes, of which
/// Linux allows 64 KiB each.
const HEAD_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a name that is too long that are shown.
const SHOWN_BYTES: usize = 64;

/// Beginning of the words by which an entry of pax says that its content is not its file, but a list
/// of the parts of one with holes (GNU tar's manual, "Storing Sparse Files").
const SPARSE: &[u8] = b"GNU.sparse.";

/// What an archive means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// All there is.
    Whole,
    /// Changes of what is there.
    Layer,
}

/// One entry, read.
struct Entry {
    path: Vec<u8>,
    kind: EntryType,
    link: Vec<u8>,
    mode: u32,
    mtime: u64,
    content: Option<Part>,
}

/// Reads heads. The library holds what describes an entry in memory, and an archive that says that
/// this is all of its many gigabytes would fill it.
struct Heads {
    reader: PartReader,
    /// Bytes that the next entry's head may have.
    left: Rc<Cell<u64>>,
}

impl Read for Heads {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        let left = self.left.get().checked_sub(count as u64);
        let long = || io::Error::other("an entry's name and attributes are longer than 1 MiB");
        self.left.set(left.ok_or_else(long)?);
        Ok(count)
    }
}

impl Seek for Heads {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.reader.seek(to)
    }
}

fn damaged(error: &io::Error) -> ImageError {
    ImageError::Source(format!(
        "the archive is no tar archive, or damaged: {error}"
    ))
}

/// Hands over every entry, in the order of the archive.
fn each(
    part: &Part,
    mut take: impl FnMut(Entry) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let left = Rc::new(Cell::new(HEAD_BYTES_MAX));
    let mut archive = Archive::new(Heads {
        reader: part.reader(),
        left: Rc::clone(&left),
    });
    let entries = archive.entries_with_seek().map_err(|e| damaged(&e))?;
    for (count, found) in entries.enumerate() {
        let mut found = found.map_err(|error| damaged(&error))?;
        let sparse = is_sparse(&mut found);
        left.set(HEAD_BYTES_MAX);
        let header = found.header();
        let path = found.path_bytes().into_owned();
        let link = found.link_name_bytes().unwrap_or_default().into_owned();
        if path.len().max(link.len()) > PATH_BYTES_MAX {
            let begins = path.get(..SHOWN_BYTES).unwrap_or(&path);
            return Err(entry(begins)(format!(
                "has a name or a target of more than {PATH_BYTES_MAX} bytes"
            )));
        }
        if count >= ENTRIES_MAX {
            return Err(entry(&path)(format!(
                "is one entry more than the {ENTRIES_MAX} allowed"
            )));
        }
        if sparse {
            return Err(entry(&path)(HOLES.to_owned()));
        }
        let size = found.size();
        let kind = header.entry_type();
        let content = part.within(found.raw_file_position(), size);
        if content.is_none() && matches!(kind, EntryType::Regular | EntryType::Continuous) {
            return Err(entry(&path)(
                "is cut short: the archive ends before it does".into(),
            ));
        }
        take(Entry {
            kind,
            link,
            mode: header.mode().unwrap_or(0),
            mtime: header.mtime().unwrap_or(0),
            content,
            path,
        })?;
    }
    Ok(())
}

/// Why a file with holes is no entry of an image.
const HOLES: &str = "is stored with holes; make the archive without --sparse (for bsdtar, with \
                     --no-read-sparse)";

/// Whether an entry is a list of parts in place of a file.
fn is_sparse(found: &mut tar::Entry<'_, Heads>) -> bool {
    let extensions = found.pax_extensions().ok().flatten();
    extensions
        .into_iter()
        .flatten()
        .flatten()
        .any(|extension| extension.key_bytes().starts_with(SPARSE))
}

/// Every file and every link of an archive by its name.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) files: BTreeMap<Vec<u8>, Part>,
    pub(super) links: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Lists an archive.
pub(super) fn index(part: &Part) -> Result<Index, ImageError> {
    let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
    each(part, |found| {
        let path = found
            .path
            .strip_prefix(b"./")
            .unwrap_or(&found.path)
            .to_vec();
        match (found.kind, found.content) {
            (EntryType::Regular | EntryType::Continuous, Some(content)) => {
                files.insert(path, content);
            }
            (EntryType::Symlink | EntryType::Link, _) => {
                links.insert(path, found.link);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(Index { files, links })
}

/// Puts an archive into the tree.
pub(super) fn apply(
    part: &Part,
    kind: Kind,
    tree: &mut Tree,
    left_out: &mut LeftOut,
) -> Result<(), ImageError> {
    if kind == Kind::Layer {
        tree.begin_layer();
    }
    let mut seen = false;
    each(part, |found| {
        seen = true;
        let path = found.path.clone();
        if kind == Kind::Layer && white_out(tree, &path).map_err(entry(&path))? {
            return Ok(());
        }
        put(tree, found, left_out).map_err(entry(&path))
    })?;
    match seen || kind == Kind::Layer {
        true => Ok(()),
        false => Err(ImageError::Source(
            "this is neither a directory nor a tar archive with something in it".into(),
        )),
    }
}

/// Takes away what a whiteout names. Says whether it was one.
fn white_out(tree: &mut Tree, path: &[u8]) -> Result<bool, String> {
    let at = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |at| at + 1);
    let (above, name) = path.split_at(at);
    if name == OPAQUE {
        tree.clear(above)?;
    } else if name.starts_with(OF_BUILDERS) {
        // Links that one kind of layered file system keeps for itself.
    } else if let Some(name) = name.strip_prefix(WHITEOUT) {
        tree.white_out(&[above, name].concat())?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn put(tree: &mut Tree, found: Entry, left_out: &mut LeftOut) -> Result<(), String> {
    let Entry {
        path,
        kind,
        link,
        mode,
        mtime,
        content,
    } = found;
    let what = match kind {
        EntryType::Regular | EntryType::Continuous => {
            let Some(part) = content else {
                return Err("has no content".into());
            };
            // Some old archives have directories as files whose names end so.
            if path.ends_with(b"/") {
                return tree.put_dir(&path);
            }
            What::File {
                content: Content::new(part.len, From::Part(part)),
                program: mode & 0o111 != 0,
            }
        }
        EntryType::Directory => return tree.put_dir(&path),
        EntryType::Symlink => What::Link(link),
        EntryType::Link => return tree.put_hard_link(&path, &link),
        EntryType::Char | EntryType::Block => {
            let own = path
                .strip_prefix(b"./")
                .unwrap_or(&path)
                .starts_with(b"dev/");
            left_out.devices += u64::from(own);
            return if own { Ok(()) } else { Err(DEVICE.into()) };
        }
        EntryType::Fifo => {
            left_out.pipes += 1;
            return Ok(());
        }
        EntryType::XGlobalHeader => return Ok(()),
        EntryType::GNUSparse => return Err(HOLES.into()),
        EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader => return Ok(()),
        _ => return Err("is of a kind that no image may have".into()),
    };
    tree.put(&path, Node { mtime, what }).map(drop)
}

/// The whole of a small file.
pub(super) fn small(part: &Part, bytes_max: u64) -> Result<Vec<u8>, ImageError> {
    use std::io::Read as _;
    if part.len > bytes_max {
        let text = "a description in the archive is too large to be one".into();
        return Err(ImageError::Source(text));
    }
    let mut bytes = Vec::new();
    let read = part.reader().read_to_end(&mut bytes);
    read.map_err(io_at("read a description"))?;
    Ok(bytes)
}
