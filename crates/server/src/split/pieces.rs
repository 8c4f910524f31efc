//! Cuts one file into the inputs of many tasks: by lines, bytes or FASTA records.
//!
//! FASTA: a record starts with a line whose first byte is `>` (Pearson and Lipman, Improved tools
//! for biological sequence comparison).

use super::{SplitError, wrong};
use gleaner_blob::{BlobError, Blobs, Writer};
use gleaner_model::{BlobRef, Digest, FileEntry, MAX_TASKS, Records, Split};
use std::io::{BufRead as _, BufReader};

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// Pieces that are synced together; each holds a file open until then.
const SYNCED_TOGETHER: usize = 128;

/// Permission bits of a piece.
const PIECE_MODE: u32 = 0o644;

/// The pieces as they come to be.
struct Pieces<'a> {
    blobs: &'a Blobs,
    axis: &'a str,
    base: String,
    /// The listing: one JSON `FileEntry` a line.
    listing: Writer,
    current: Option<Writer>,
    /// Whole, but not synced yet.
    whole: Vec<Writer>,
    digests: Vec<Digest>,
}

impl Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SplitError> {
        let writer = match self.current.take() {
            Some(writer) => self.current.insert(writer),
            None => self.current.insert(self.blobs.writer()?),
        };
        Ok(writer.write(bytes)?)
    }

    /// Ends the current piece, if there is one.
    fn cut(&mut self) -> Result<(), SplitError> {
        let Some(writer) = self.current.take() else {
            return Ok(());
        };
        let number = self.digests.len();
        if number as u64 == MAX_TASKS {
            return Err(wrong(
                format!("sweep.{}", self.axis),
                format!("cuts into more than {MAX_TASKS} pieces; make `per_task` larger"),
            ));
        }
        let entry = FileEntry {
            name: format!("{:06}-{}", number, self.base),
            blob: writer.blob(),
            mode: PIECE_MODE,
        };
        self.digests.push(entry.blob.digest);
        self.whole.push(writer);
        if self.whole.len() == SYNCED_TOGETHER {
            self.blobs.finish_many(&self.whole)?;
            self.whole.clear();
        }
        let mut line = serde_json::to_vec(&entry).map_err(|error| {
            wrong(
                format!("sweep.{}", self.axis),
                format!("cannot be listed: {error}"),
            )
        })?;
        line.push(b'\n');
        Ok(self.listing.write(&line)?)
    }
}

/// Cuts `blob`; gives the listing and the digests of all pieces.
pub(super) fn cut(
    blobs: &Blobs,
    axis: &str,
    how: &Split,
    blob: &BlobRef,
) -> Result<(BlobRef, Vec<Digest>), SplitError> {
    let (file, _) = blobs.open_blob(&blob.digest)?;
    let base = how.split.rsplit('/').next().unwrap_or("piece").to_owned();
    let mut pieces = Pieces {
        blobs,
        axis,
        base,
        listing: blobs.writer()?,
        current: None,
        whole: Vec::new(),
        digests: Vec::new(),
    };
    let mut reader = BufReader::with_capacity(READ_BYTES, file);
    match how.records {
        Records::Bytes => by_bytes(&mut reader, how.per_task, &mut pieces)?,
        Records::Lines => by_marks(&mut reader, how.per_task, &mut pieces, Mark::LineEnd)?,
        Records::Fasta => by_marks(&mut reader, how.per_task, &mut pieces, Mark::Header)?,
    }
    pieces.cut()?;
    blobs.finish_many(&pieces.whole)?;
    Ok((pieces.listing.finish()?, pieces.digests))
}

fn failed(source: std::io::Error) -> SplitError {
    SplitError::Blob(BlobError::Disk {
        what: "read",
        path: "the file to split".into(),
        source,
    })
}

fn by_bytes(
    reader: &mut BufReader<std::fs::File>,
    per_task: u64,
    pieces: &mut Pieces<'_>,
) -> Result<(), SplitError> {
    let mut room = per_task;
    loop {
        let bytes = reader.fill_buf().map_err(failed)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let take = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        pieces.write(&bytes[..take])?;
        reader.consume(take);
        room -= take as u64;
        if room == 0 {
            pieces.cut()?;
            room = per_task;
        }
    }
}

/// What ends or starts a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// The end of a line ends one.
    LineEnd,
    /// A line that starts with `>` starts one; what stands before the first belongs to it.
    Header,
}

fn by_marks(
    reader: &mut BufReader<std::fs::File>,
    per_task: u64,
    pieces: &mut Pieces<'_>,
    mark: Mark,
) -> Result<(), SplitError> {
    let (mut records, mut at_line_start) = (0, true);
    loop {
        let bytes = reader.fill_buf().map_err(failed)?;
        let Some(first) = bytes.first() else {
            return Ok(());
        };
        // A record starts here: with each line, or with a header.
        let starts = at_line_start && (mark == Mark::LineEnd || *first == b'>');
        if starts {
            if records == per_task {
                pieces.cut()?;
                records = 0;
            }
            records += 1;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let take = end.map_or(bytes.len(), |end| end + 1);
        pieces.write(&bytes[..take])?;
        at_line_start = end.is_some();
        reader.consume(take);
    }
}
