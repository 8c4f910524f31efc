//! Takes the compression off an archive, into a file without a name.

use crate::content::Part;
use crate::{ImageError, io_at};
use std::io::{self, BufRead as _, BufReader, Read, Write as _};

/// What files of the common compressions begin with.
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const OTHERS: [(&[u8], &str); 3] = [
    (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
    (b"BZh", "bzip2"),
    (b"LZIP", "lzip"),
];

/// Bytes of a zstd file that are none of its content begin so, but for the low half of the first byte;
/// their length follows (RFC 8878, 3.1.2). Parallel compressors write them first, and builders put the
/// lists of layers that are fetched in parts behind.
const SKIPPED: &[u8] = &[0x50, 0x2a, 0x4d, 0x18];

/// Bytes read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// The archive itself where it is not compressed, else what it unpacks to.
pub(super) fn plain(part: Part, bytes_max: u64) -> Result<Part, ImageError> {
    let mut head = Vec::new();
    let start = part.reader().take(8).read_to_end(&mut head);
    start.map_err(io_at("read the archive"))?;
    let input = BufReader::with_capacity(PIECE_BYTES, part.reader());
    if head.starts_with(GZIP) {
        spool(
            flate2::bufread::MultiGzDecoder::new(input),
            "gzip",
            bytes_max,
        )
    } else if head.starts_with(ZSTD) || is_skipped(&head) {
        spool(Frames { input, frame: None }, "zstd", bytes_max)
    } else if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| head.starts_with(magic)) {
        Err(ImageError::Source(format!(
            "the archive is compressed with {name}; unpack it first, with `{name} -d`"
        )))
    } else {
        Ok(part)
    }
}

fn spool(mut input: impl Read, name: &str, bytes_max: u64) -> Result<Part, ImageError> {
    let mut file = tempfile::tempfile().map_err(io_at("make a temporary file"))?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut left = bytes_max;
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(ImageError::Source(format!(
                    "the {name} archive is damaged: {error}"
                )));
            }
        };
        left = left.checked_sub(count as u64).ok_or_else(|| {
            ImageError::Source(format!(
                "the archive unpacks to more than {} GiB; if that is meant, allow it with \
                 --max-size",
                bytes_max >> 30
            ))
        })?;
        file.write_all(buffer.get(..count).unwrap_or_default())
            .map_err(io_at("unpack the archive into a temporary file"))?;
    }
    Part::whole(file).map_err(io_at("unpack the archive"))
}

/// Whether a frame of zstd that begins so has nothing for us.
fn is_skipped(head: &[u8]) -> bool {
    match (head, SKIPPED) {
        ([low, rest @ ..], [first, magic @ ..]) => low & 0xf0 == *first && rest.starts_with(magic),
        _ => false,
    }
}

/// A zstd file may have any number of frames, one behind the other.
struct Frames<R: Read> {
    input: BufReader<R>,
    frame: Option<Box<ruzstd::decoding::FrameDecoder>>,
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::errors::FrameDecoderError;
        use ruzstd::decoding::errors::ReadFrameHeaderError::SkipFrame;
        use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
        loop {
            let Some(frame) = &mut self.frame else {
                if self.input.fill_buf()?.is_empty() {
                    return Ok(0);
                }
                let mut frame = Box::new(FrameDecoder::new());
                match frame.init(&mut self.input) {
                    Ok(()) => self.frame = Some(frame),
                    Err(FrameDecoderError::ReadFrameHeaderError(SkipFrame { length, .. })) => {
                        let mut skipped = (&mut self.input).take(length.into());
                        io::copy(&mut skipped, &mut io::sink())?;
                    }
                    Err(error) => return Err(io::Error::other(error)),
                }
                continue;
            };
            if frame.can_collect() == 0 && !frame.is_finished() {
                let most = BlockDecodingStrategy::UptoBytes(buffer.len());
                let decoded = frame.decode_blocks(&mut self.input, most);
                decoded.map_err(io::Error::other)?;
            }
            let count = frame.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            if frame.is_finished() {
                let said = frame.get_checksum_from_data();
                if said.is_some() && said != frame.get_calculated_checksum() {
                    return Err(io::Error::other("its content does not fit its checksum"));
                }
                self.frame = None;
            }
        }
    }
}
