//! Where the bytes of a file are until they are written: a part of an archive, a file of this
//! PC, or two parts of an image.

use crate::{ImageError, io_at};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes moved at a time.
const PIECE_BYTES: usize = 256 << 10;

/// A range of a file that is open.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) file: Arc<File>,
    pub(crate) at: u64,
    pub(crate) len: u64,
}

impl Part {
    pub(crate) fn whole(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self {
            file: Arc::new(file),
            at: 0,
            len,
        })
    }

    /// A range of this range; none where it is not within.
    pub(crate) fn within(&self, at: u64, len: u64) -> Option<Self> {
        let end = at.checked_add(len)?;
        (end <= self.len).then(|| Self {
            file: Arc::clone(&self.file),
            at: self.at + at,
            len,
        })
    }

    pub(crate) fn reader(&self) -> PartReader {
        PartReader {
            part: self.clone(),
            done: 0,
        }
    }
}

/// Reads a [`Part`] with a place of its own.
#[derive(Debug)]
pub(crate) struct PartReader {
    part: Part,
    done: u64,
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.part.len.saturating_sub(self.done);
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        let count = self.part.file.read_at(buffer, self.part.at + self.done)?;
        self.done += count as u64;
        Ok(count)
    }
}

impl Seek for PartReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.part.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.done.checked_add_signed(by),
        };
        self.done = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.done)
    }
}

/// The content of a file of an image.
#[derive(Debug, Clone)]
pub struct Content {
    /// In bytes.
    len: u64,
    from: From,
}

#[derive(Debug, Clone)]
pub(crate) enum From {
    /// Made here.
    Memory(Vec<u8>),
    /// A file of this PC.
    Path(PathBuf),
    /// A range of an archive.
    Part(Part),
    /// In an image: whole blocks at one place, the rest at another.
    Image {
        file: Arc<File>,
        blocks_at: u64,
        rest_at: u64,
    },
}

impl Content {
    pub(crate) const fn new(len: u64, from: From) -> Self {
        Self { len, from }
    }

    pub(crate) fn memory(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self {
            len: bytes.len() as u64,
            from: From::Memory(bytes),
        }
    }

    /// Its size in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) const fn from(&self) -> &From {
        &self.from
    }

    /// Writes `len` bytes from `at` on. `block` is the size of an image's blocks.
    pub(crate) fn copy(
        &self,
        (at, len): (u64, u64),
        block: u64,
        out: &mut impl Write,
    ) -> Result<(), ImageError> {
        let cannot = "read a file of the image";
        match &self.from {
            From::Memory(bytes) => {
                let range = usize::try_from(at).ok().zip(usize::try_from(at + len).ok());
                let bytes = range.and_then(|(from, to)| bytes.get(from..to));
                out.write_all(bytes.unwrap_or_default())
                    .map_err(io_at("write the image"))
            }
            From::Path(path) => {
                let open = || format!("read {}", path.display());
                let file = File::open(path).map_err(io_at(open()))?;
                if file.metadata().map_err(io_at(open()))?.len() != self.len {
                    let problem = "changed while it was read; try again when nothing writes to it";
                    return Err(ImageError::Entry {
                        path: path.display().to_string(),
                        problem: problem.to_owned(),
                    });
                }
                copy(&file, (at, len), out, &open())
            }
            From::Part(part) => copy(&part.file, (part.at + at, len), out, cannot),
            From::Image {
                file,
                blocks_at,
                rest_at,
            } => {
                let blocks = self.len - self.len % block;
                let first = len.min(blocks.saturating_sub(at));
                copy(file, (blocks_at + at, first), out, cannot)?;
                let rest = rest_at + (at + first).saturating_sub(blocks);
                copy(file, (rest, len - first), out, cannot)
            }
        }
    }
}

fn copy(
    file: &File,
    (mut at, len): (u64, u64),
    out: &mut impl Write,
    doing: &str,
) -> Result<(), ImageError> {
    let mut left = len;
    let piece = usize::try_from(left)
        .unwrap_or(PIECE_BYTES)
        .min(PIECE_BYTES);
    let mut buffer = vec![0; piece];
    while left > 0 {
        let most = usize::try_from(left)
            .unwrap_or(PIECE_BYTES)
            .min(PIECE_BYTES);
        let piece = buffer.get_mut(..most).unwrap_or_default();
        file.read_exact_at(piece, at).map_err(io_at(doing))?;
        out.write_all(piece).map_err(io_at("write the image"))?;
        at += most as u64;
        left -= most as u64;
    }
    Ok(())
}
