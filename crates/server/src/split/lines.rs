//! A blob of lines, reached by number without being held: an offset for every so many lines.

use gleaner_blob::{BlobError, Blobs};
use gleaner_model::{BlobRef, MAX_TASKS};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

/// Lines between two remembered offsets: 1/8 byte a line is kept, and a bundle's lines are got
/// with a few reads.
const STRIDE: usize = 64;

/// Longest line in bytes: it becomes an argument, and a bundle carries some hundred of them.
pub(super) const LINE_BYTES_MAX: u64 = 16 << 10;

/// Bytes read at a time when a blob is indexed.
const READ_BYTES: usize = 256 << 10;

/// Why a blob is no list of lines.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinesError {
    /// The content is not fit.
    #[error("line {line} {problem}")]
    Line {
        /// Counted from 1, as editors do.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// More lines than a job may have tasks.
    #[error("has more than {MAX_TASKS} lines, the most that one job may have tasks; cut it")]
    TooMany,
    /// The blob cannot be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// The index of one blob.
#[derive(Debug)]
pub(crate) struct Lines {
    file: File,
    size: u64,
    count: u32,
    /// Where line 0, STRIDE, 2 STRIDE, … starts.
    offsets: Vec<u64>,
    /// The stride that was read last: tasks of a bundle are neighbours.
    last: Mutex<(usize, Vec<u8>)>,
}

impl Lines {
    /// Reads the blob once; `check` sees each line and may refuse it.
    pub(crate) fn index(
        blobs: &Blobs,
        blob: &BlobRef,
        check: &mut dyn FnMut(u32, &str) -> Result<(), String>,
    ) -> Result<Self, LinesError> {
        let (file, size) = blobs.open_blob(&blob.digest)?;
        let read = |source| {
            LinesError::Blob(BlobError::Disk {
                what: "read",
                path: blob.digest.hex().into(),
                source,
            })
        };
        let (mut offsets, mut count, mut at) = (Vec::new(), 0_u32, 0_u64);
        let mut reader = BufReader::with_capacity(READ_BYTES, &file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut limited = reader.by_ref().take(LINE_BYTES_MAX + 2);
            let length = limited.read_until(b'\n', &mut line).map_err(read)?;
            if length == 0 {
                break;
            }
            if u64::from(count) == MAX_TASKS {
                return Err(LinesError::TooMany);
            }
            if (count as usize).is_multiple_of(STRIDE) {
                offsets.push(at);
            }
            let text = text_of(&line).and_then(|text| check(count, text).map(|()| text));
            text.map_err(|problem| LinesError::Line {
                line: u64::from(count) + 1,
                problem,
            })?;
            at += length as u64;
            count += 1;
        }
        Ok(Self {
            file,
            size,
            count,
            offsets,
            last: Mutex::new((usize::MAX, Vec::new())),
        })
    }

    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    /// About how many bytes of memory this takes.
    pub(crate) const fn memory(&self) -> usize {
        self.offsets.capacity() * 8 + 256
    }

    /// The line with this number, from 0, without its end.
    pub(crate) fn line(&self, number: u32) -> std::io::Result<String> {
        let (stride, within) = (number as usize / STRIDE, number as usize % STRIDE);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != stride {
            let gone = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            let from = *self.offsets.get(stride).ok_or_else(gone)?;
            let to = self.offsets.get(stride + 1).copied().unwrap_or(self.size);
            let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(0)];
            self.file.read_exact_at(&mut bytes, from)?;
            *last = (stride, bytes);
        }
        let line = last.1.split_inclusive(|byte| *byte == b'\n').nth(within);
        let bad = |problem: String| std::io::Error::new(std::io::ErrorKind::InvalidData, problem);
        let line = line.ok_or_else(|| bad(format!("line {number} is gone")))?;
        text_of(line).map(str::to_owned).map_err(bad)
    }
}

/// A line as text, without its end.
fn text_of(line: &[u8]) -> Result<&str, String> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() as u64 > LINE_BYTES_MAX {
        return Err(format!(
            "is longer than {LINE_BYTES_MAX} bytes; send it as a file instead"
        ));
    }
    if line.contains(&0) {
        return Err("holds a NUL byte, which no argument may; remove it".into());
    }
    std::str::from_utf8(line).map_err(|_| "is not UTF-8; convert the file".into())
}
