//! From an image back to its tree, believing nothing: what is read must be, byte for byte, what
//! [`Tree::write`] makes of it.

use super::layout::{Layout, Placed};
use super::write::Counted;
use super::{
    BLOCK, ENTRY, FORMAT_INLINE, FORMAT_PLAIN, INODE, IS_DIR, IS_FILE, IS_LINK, MAGIC, SLOT,
    SUPER_AT, SUPER_BYTES,
};
use crate::content::From;
use crate::tree::{Node, ROOT, Tree, What, name_problem};
use crate::{Content, ENTRIES_MAX, ImageError, io_at, root};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Largest directory in bytes: every name that an image may have, in one.
const DIR_BYTES_MAX: u64 = ENTRIES_MAX as u64 * 64;

/// Longest target of a link, as in archives.
const LINK_BYTES_MAX: u64 = 4095;

fn foreign(what: impl Into<String>) -> ImageError {
    ImageError::Foreign(what.into())
}

/// Opens an image and reads its tree; contents stay where they are. What comes back is fit to be
/// mounted by a kernel: the file is the one that belongs to the tree.
///
/// # Errors
/// Where the file is anything else, or cannot be read.
pub fn open(file: File) -> Result<Tree, ImageError> {
    let len = file.metadata().map_err(io_at("look at the image"))?.len();
    let image = Image {
        file: Arc::new(file),
        len,
    };
    let (root, blocks) = image.superblock()?;
    if blocks.checked_mul(BLOCK) != Some(len) {
        return Err(foreign(format!(
            "it has {len} bytes and should have {blocks} blocks"
        )));
    }
    let tree = image.tree(root)?;
    image.check(&tree)?;
    root::check(&tree)?;
    Ok(tree)
}

struct Image {
    file: Arc<File>,
    len: u64,
}

/// An inode as it is on disk.
struct Inode {
    mode: u16,
    size: u64,
    mtime: u64,
    /// Where its whole blocks, and where the rest of its content lie.
    blocks_at: u64,
    rest_at: u64,
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes.get(at..at + len).unwrap_or_default();
    bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl Image {
    fn bytes(&self, at: u64, len: u64) -> Result<Vec<u8>, ImageError> {
        let end = at.checked_add(len).filter(|end| *end <= self.len);
        let len = usize::try_from(len).ok().filter(|_| end.is_some());
        let mut bytes = vec![0; len.ok_or_else(|| foreign("it ends too early"))?];
        self.file
            .read_exact_at(&mut bytes, at)
            .map_err(io_at("read the image"))?;
        Ok(bytes)
    }

    fn superblock(&self) -> Result<(u64, u64), ImageError> {
        let block = self.bytes(SUPER_AT, SUPER_BYTES);
        let block = block.map_err(|_| foreign("it is too short"))?;
        if number(&block, 0, 4) != u64::from(MAGIC) {
            return Err(foreign("it is no erofs file system"));
        }
        Ok((number(&block, 14, 2), number(&block, 36, 4)))
    }

    fn inode(&self, nid: u64) -> Result<Inode, ImageError> {
        let at = nid
            .checked_mul(SLOT)
            .ok_or_else(|| foreign("an inode lies nowhere"))?;
        let inode = self.bytes(at, INODE)?;
        let (format, size) = (number(&inode, 0, 2), number(&inode, 8, 8));
        if size > self.len {
            return Err(foreign("a file is larger than the image"));
        }
        let blocks_at = number(&inode, 16, 4) * BLOCK;
        let rest_at = match format {
            f if f == u64::from(FORMAT_PLAIN) => blocks_at + (size - size % BLOCK),
            f if f == u64::from(FORMAT_INLINE) => at + INODE,
            _ => return Err(foreign("an inode has another form")),
        };
        Ok(Inode {
            mode: u16::try_from(number(&inode, 4, 2)).unwrap_or_default(),
            size,
            mtime: number(&inode, 32, 8),
            blocks_at,
            rest_at,
        })
    }

    fn content(&self, inode: &Inode) -> Content {
        let from = From::Image {
            file: Arc::clone(&self.file),
            blocks_at: inode.blocks_at,
            rest_at: inode.rest_at,
        };
        Content::new(inode.size, from)
    }

    /// All bytes of a directory or link.
    fn short(&self, inode: &Inode, max: u64) -> Result<Vec<u8>, ImageError> {
        if inode.size > max {
            return Err(foreign("a directory or link is too large"));
        }
        let mut bytes = Vec::new();
        self.content(inode)
            .copy((0, inode.size), BLOCK, &mut bytes)?;
        Ok(bytes)
    }

    fn tree(&self, root: u64) -> Result<Tree, ImageError> {
        // The sizes of files that overlap add up to more than the image.
        let mut tree = Tree::new(u64::MAX);
        let mut known: BTreeMap<u64, usize> = [(root, ROOT)].into();
        let mut todo = vec![(root, ROOT)];
        if self.inode(root)?.mode != IS_DIR | 0o755 {
            return Err(foreign("its root is no directory"));
        }
        let mut left = self.len;
        while let Some((nid, id)) = todo.pop() {
            let inode = self.inode(nid)?;
            // Directories that share bytes would be work without end.
            let less = left.checked_sub(inode.size);
            left = less.ok_or_else(|| foreign("its directories overlap"))?;
            for (name, below) in entries(&self.short(&inode, DIR_BYTES_MAX)?)? {
                if name == b"." || name == b".." {
                    continue;
                }
                if let Some(problem) = name_problem(&name) {
                    return Err(foreign(format!("an entry {problem}")));
                }
                let child = match known.get(&below) {
                    Some(known) => match tree.node(*known).map(|node| &node.what) {
                        Some(What::Dir(_)) => return Err(foreign("a directory has two names")),
                        _ => *known,
                    },
                    None => {
                        let (child, is_dir) = self.add(&mut tree, below)?;
                        known.insert(below, child);
                        if is_dir {
                            todo.push((below, child));
                        }
                        child
                    }
                };
                tree.name(id, &name, child);
            }
        }
        Ok(tree)
    }

    fn add(&self, tree: &mut Tree, nid: u64) -> Result<(usize, bool), ImageError> {
        let inode = self.inode(nid)?;
        let what = match (inode.mode & 0o170_000, inode.mode & 0o7777) {
            (IS_DIR, 0o755) => What::Dir(BTreeMap::new()),
            (IS_FILE, mode @ (0o644 | 0o755)) => What::File {
                content: self.content(&inode),
                program: mode == 0o755,
            },
            (IS_LINK, 0o777) => What::Link(self.short(&inode, LINK_BYTES_MAX)?),
            _ => return Err(foreign(format!("it has an entry of mode {:o}", inode.mode))),
        };
        let is_dir = matches!(what, What::Dir(_));
        let node = Node {
            mtime: inode.mtime,
            what,
        };
        Ok((tree.add(node).map_err(foreign)?, is_dir))
    }

    /// Whether the file is what the tree makes.
    fn check(&self, tree: &Tree) -> Result<(), ImageError> {
        let layout = Layout::new(tree)?;
        let differs = || foreign("it is laid out in another way");
        // A directory with two names is reached by way of itself, or has been counted twice.
        if layout.placed.len() != tree.len() || layout.blocks * BLOCK != self.len {
            return Err(differs());
        }
        let compare = |at: u64| Counted {
            out: Compare { image: self, at },
            at,
        };
        layout.metadata(&mut compare(0)).map_err(|_| differs())?;
        for placed in &layout.placed {
            let mut out = compare(placed.block * BLOCK);
            match tree.node(placed.node).map(|node| &node.what) {
                Some(What::File { content, .. }) => {
                    self.in_place(placed, content).ok_or_else(differs)?;
                }
                _ => layout.blocks_of(placed, &mut out).map_err(|_| differs())?,
            }
        }
        Ok(())
    }

    /// Whether a file's content is where it belongs, with nothing behind it in its last block.
    fn in_place(&self, placed: &Placed, content: &Content) -> Option<()> {
        let From::Image {
            blocks_at, rest_at, ..
        } = content.from()
        else {
            return None;
        };
        let end = placed.block * BLOCK + placed.size - placed.rest();
        let rest = if placed.inline {
            placed.at + INODE
        } else {
            end
        };
        (*blocks_at == placed.block * BLOCK && *rest_at == rest).then_some(())?;
        if !placed.inline && placed.rest() > 0 {
            let behind = self
                .bytes(end + placed.rest(), BLOCK - placed.rest())
                .ok()?;
            behind.iter().all(|byte| *byte == 0).then_some(())?;
        }
        Some(())
    }
}

/// Takes the bytes that should be there and fails at the first that is not.
struct Compare<'i> {
    image: &'i Image,
    at: u64,
}

impl Write for Compare<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let there = self.image.bytes(self.at, bytes.len() as u64);
        match there {
            Ok(there) if there == bytes => {
                self.at += bytes.len() as u64;
                Ok(bytes.len())
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The entries of a directory.
fn entries(content: &[u8]) -> Result<Vec<(Vec<u8>, u64)>, ImageError> {
    let damaged = || foreign("a directory is damaged");
    let entry = usize::try_from(ENTRY).unwrap_or(12);
    let mut found = Vec::new();
    for block in content.chunks(4096) {
        let start = |at: usize| usize::try_from(number(block, at * entry + 8, 2)).unwrap_or(0);
        let names_at = start(0);
        let count = names_at / entry;
        if count == 0 || names_at % entry != 0 || names_at > block.len() {
            return Err(damaged());
        }
        for at in 0..count {
            let end = if at + 1 < count {
                start(at + 1)
            } else {
                block.len()
            };
            let name = block.get(start(at)..end).ok_or_else(damaged)?;
            // Behind the last name of a block are zeros.
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            found.push((name.to_vec(), number(block, at * entry, 8)));
        }
        if found.len() > ENTRIES_MAX * 3 {
            return Err(damaged());
        }
    }
    Ok(found)
}
