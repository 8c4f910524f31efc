//! From a tree to the bytes of its image.

use super::layout::{Layout, Placed, dir_blocks};
use super::{
    BLOCK, ENTRY, FORMAT_INLINE, FORMAT_PLAIN, IS_DIR, IS_FILE, IS_LINK, MAGIC, SUPER_AT,
    SUPER_BYTES, TYPE_DIR, TYPE_FILE, TYPE_LINK,
};
use crate::tree::{ROOT, Tree, What};
use crate::{ImageError, io_at};
use std::io::{self, BufWriter, Write};

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

impl Tree {
    /// Writes the image. Says how many bytes it has, and their BLAKE3 digest.
    ///
    /// # Errors
    /// Where a content cannot be read, or the image not be written.
    pub fn write(&self, out: &mut impl Write) -> Result<(u64, [u8; 32]), ImageError> {
        let layout = Layout::new(self)?;
        let hashing = Hashing {
            out,
            hasher: blake3::Hasher::new(),
        };
        let mut out = Counted {
            out: BufWriter::with_capacity(BUFFER_BYTES, hashing),
            at: 0,
        };
        layout.metadata(&mut out)?;
        for placed in &layout.placed {
            layout.blocks_of(placed, &mut out)?;
        }
        let size = out.at;
        let cannot = |error: io::Error| io_at("write the image")(error);
        let hashing = out
            .out
            .into_inner()
            .map_err(|error| cannot(error.into_error()))?;
        Ok((size, *hashing.hasher.finalize().as_bytes()))
    }
}

struct Hashing<'o, W> {
    out: &'o mut W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Knows how far it is.
pub(super) struct Counted<W> {
    pub(super) out: W,
    pub(super) at: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Counted<W> {
    /// Zeros up to a place.
    fn fill(&mut self, to: u64) -> io::Result<()> {
        io::copy(
            &mut io::Read::take(io::repeat(0), to.saturating_sub(self.at)),
            self,
        )
        .map(drop)
    }
}

impl Layout<'_> {
    /// All up to the first whole block of content.
    pub(super) fn metadata<W: Write>(&self, out: &mut Counted<W>) -> Result<(), ImageError> {
        let cannot = || io_at("write the image");
        out.fill(SUPER_AT).map_err(cannot())?;
        out.write_all(&self.superblock()).map_err(cannot())?;
        for placed in &self.placed {
            out.fill(placed.at).map_err(cannot())?;
            out.write_all(&self.inode(placed)).map_err(cannot())?;
            if placed.inline {
                self.content(placed, (placed.size - placed.rest(), placed.rest()), out)?;
            }
        }
        out.fill(self.content * BLOCK).map_err(cannot())
    }

    /// The blocks of one inode's content.
    pub(super) fn blocks_of<W: Write>(
        &self,
        placed: &Placed,
        out: &mut Counted<W>,
    ) -> Result<(), ImageError> {
        let whole = placed.size - if placed.inline { placed.rest() } else { 0 };
        self.content(placed, (0, whole), out)?;
        let end = (placed.block + placed.blocks()) * BLOCK;
        out.fill(end).map_err(io_at("write the image"))
    }

    fn superblock(&self) -> Vec<u8> {
        let mut block = Record::default();
        block.u32(MAGIC);
        // Checksum, compatible features.
        block.u32(0);
        block.u32(0);
        block.u8(BLOCK.trailing_zeros().to_le_bytes()[0]);
        block.u8(0);
        // The root is the first inode, so its number is small.
        block.u16(self.of(ROOT).map_or(0, |root| low16(root.nid())));
        block.u64(self.placed.len() as u64);
        // Time of the build: none, so that the same tree is the same file.
        block.u64(0);
        block.u32(0);
        block.u32(low32(self.blocks));
        // Inodes are counted from the beginning; the rest is for features that we do without.
        block.padded(SUPER_BYTES)
    }

    fn inode(&self, placed: &Placed) -> Vec<u8> {
        let node = self.tree.node(placed.node);
        let mode = match node.map(|node| &node.what) {
            Some(What::Dir(_)) => IS_DIR | 0o755,
            Some(What::File { program: true, .. }) => IS_FILE | 0o755,
            Some(What::Link(_)) => IS_LINK | 0o777,
            Some(What::File { .. }) | None => IS_FILE | 0o644,
        };
        let mut inode = Record::default();
        inode.u16(if placed.inline {
            FORMAT_INLINE
        } else {
            FORMAT_PLAIN
        });
        inode.u16(0);
        inode.u16(mode);
        inode.u16(0);
        inode.u64(placed.size);
        inode.u32(low32(placed.block));
        // A number for programs of 32 bits; then owner and group.
        inode.u32(low32(placed.nid()));
        inode.u32(0);
        inode.u32(0);
        inode.u64(node.map_or(0, |node| node.mtime));
        inode.u32(0);
        inode.u32(placed.links);
        inode.padded(super::INODE)
    }

    /// A range of an inode's content.
    fn content<W: Write>(
        &self,
        placed: &Placed,
        (at, len): (u64, u64),
        out: &mut Counted<W>,
    ) -> Result<(), ImageError> {
        let bytes = match self.tree.node(placed.node).map(|node| &node.what) {
            Some(What::File { content, .. }) => return content.copy((at, len), BLOCK, out),
            Some(What::Link(target)) => target.clone(),
            Some(What::Dir(_)) => self.directory(placed),
            None => Vec::new(),
        };
        let range = usize::try_from(at).ok().zip(usize::try_from(at + len).ok());
        let bytes = range
            .and_then(|(from, to)| bytes.get(from..to))
            .unwrap_or_default();
        out.write_all(bytes).map_err(io_at("write the image"))
    }

    fn directory(&self, placed: &Placed) -> Vec<u8> {
        let lines = self.lines(placed);
        let blocks = dir_blocks(&lines);
        let mut content = Record::default();
        for (number, block) in blocks.iter().enumerate() {
            let mut name_at = ENTRY * block.len() as u64;
            for (name, id) in *block {
                let kind = match self.tree.node(*id).map(|node| &node.what) {
                    Some(What::Dir(_)) => TYPE_DIR,
                    Some(What::Link(_)) => TYPE_LINK,
                    Some(What::File { .. }) | None => TYPE_FILE,
                };
                content.u64(self.of(*id).map_or(0, Placed::nid));
                content.u16(low16(name_at));
                content.u8(kind);
                content.u8(0);
                name_at += name.len() as u64;
            }
            for (name, _) in *block {
                content.0.extend_from_slice(name);
            }
            if number + 1 < blocks.len() {
                let end = content.0.len().next_multiple_of(4096);
                content.0.resize(end, 0);
            }
        }
        content.0
    }
}

/// Little-endian numbers one after the other.
#[derive(Debug, Default)]
struct Record(Vec<u8>);

impl Record {
    fn u8(&mut self, number: u8) {
        self.0.push(number);
    }

    fn u16(&mut self, number: u16) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn padded(mut self, to: u64) -> Vec<u8> {
        self.0.resize(usize::try_from(to).unwrap_or_default(), 0);
        self.0
    }
}

/// Numbers that the layout bounds.
fn low16(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn low32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
