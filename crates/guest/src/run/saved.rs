//! A saved guest as one file: who it was, what it had written, its scratch disk without the
//! holes, and at the end its memory and devices as QEMU writes them.
//!
//! ```text
//! magic 8 bytes | length u32 | head, JSON | one frame of LZ4 to the end:
//!     stdout | stderr | (offset u64, length u64, bytes)* | u64::MAX, 0 | QEMU's own
//! ```
//! A guest's memory is half of it code, text and zeros, and travels over a network: LZ4 halves it for
//! less time than the disk takes. Source: "LZ4 Frame Format Description".
//!
//! Whoever reads it believes nothing: it may come from a PC that lies.

use crate::frame::{CHECK_BYTES, HEAD_BYTES, TO_HOST_MAX_BYTES};
use crate::message::VERSION;
use crate::task::Machine;
use lz4_flex::frame::{FrameDecoder, FrameEncoder};
use rustix::fs::{SeekFrom as Seek, seek};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};

const MAGIC: &[u8; 8] = b"GLGUEST\n";

/// Of what is written here; another is not read.
const FORMAT: u32 = 3;

/// Longest head, in bytes: it holds a frame in parts.
const HEAD_MAX_BYTES: u32 = 1 << 20;

/// Who was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    format: u32,
    /// Of the frames: its process 1 goes on with the words that it knew.
    pub(super) protocol: u8,
    /// What it ran on.
    pub(super) machine: Machine,
    /// Digest of its base image.
    pub(super) base: String,
    /// Its memory.
    pub(super) guest_mib: u64,
    /// Length of its scratch disk, in bytes.
    pub(super) disk_bytes: u64,
    /// Bytes that it has written to stdout and stderr.
    pub(super) streams: [u64; 2],
    /// Where the channel is.
    pub(super) channel: Channel,
}

/// The host's end of the channel between two frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Channel {
    /// Numbers of the next frames, to us and from us.
    pub(super) next: [u32; 2],
    /// Bytes of a frame whose rest has not come.
    pub(super) held: Vec<u8>,
    /// Bytes taken and told of, for flow control.
    pub(super) window: [u64; 2],
}

impl Channel {
    /// Whether we could have written it: less than a frame waits, and nobody told of what he had
    /// not taken.
    const fn can_be(&self) -> bool {
        let [taken, told] = self.window;
        self.held.len() < HEAD_BYTES + TO_HOST_MAX_BYTES + CHECK_BYTES && told <= taken
    }
}

impl Head {
    pub(super) const fn new(
        machine: Machine,
        base: String,
        guest_mib: u64,
        channel: Channel,
    ) -> Self {
        Self {
            format: FORMAT,
            protocol: VERSION,
            machine,
            base,
            guest_mib,
            disk_bytes: 0,
            streams: [0; 2],
            channel,
        }
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::other(format!("what was saved {what}"))
}

/// What comes after the head is written to this, and read from that.
pub(super) type Packer = FrameEncoder<File>;
pub(super) type Unpacker = FrameDecoder<File>;

/// Reads what comes after the head.
pub(super) fn unpacker(from: File) -> Unpacker {
    FrameDecoder::new(from)
}

/// Writes all but QEMU's part, which is to be written to what this gives.
pub(super) fn write(
    mut head: Head,
    streams: &[File; 2],
    disk: &File,
    mut file: File,
) -> io::Result<Packer> {
    head.disk_bytes = disk.metadata()?.len();
    for (length, stream) in head.streams.iter_mut().zip(streams) {
        *length = stream.metadata()?.len();
    }
    let text = serde_json::to_vec(&head)?;
    file.write_all(MAGIC)?;
    file.write_all(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes())?;
    file.write_all(&text)?;
    let mut to = FrameEncoder::new(file);
    for (length, mut stream) in head.streams.into_iter().zip(streams) {
        stream.seek(SeekFrom::Start(0))?;
        exactly(&mut stream.take(length), &mut to, length)?;
    }
    let mut at = 0;
    while let Some((start, end)) = extent(disk, at)? {
        to.write_all(&start.to_le_bytes())?;
        to.write_all(&(end - start).to_le_bytes())?;
        let mut disk = disk;
        disk.seek(SeekFrom::Start(start))?;
        exactly(&mut disk.take(end - start), &mut to, end - start)?;
        at = end;
    }
    to.write_all(&u64::MAX.to_le_bytes())?;
    to.write_all(&0_u64.to_le_bytes())?;
    Ok(to)
}

/// Adds QEMU's part, which is all that comes.
pub(super) fn finish(mut to: Packer, mut rest: impl Read) -> io::Result<()> {
    io::copy(&mut rest, &mut to)?;
    to.finish().map(drop).map_err(io::Error::other)
}

/// The next part of a file that is no hole.
fn extent(file: &File, at: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match seek(file, Seek::Data(at)) {
        Ok(start) => start,
        // Nothing but a hole up to the end.
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some((start, seek(file, Seek::Hole(start))?)))
}

fn exactly(from: &mut impl Read, to: &mut impl Write, length: u64) -> io::Result<()> {
    if io::copy(from, to)? == length {
        return Ok(());
    }
    Err(wrong("is cut short"))
}

/// Reads who was saved.
pub(super) fn head(from: &mut File) -> io::Result<Head> {
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic)?;
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if magic != *MAGIC || length > HEAD_MAX_BYTES {
        return Err(wrong("is no guest"));
    }
    let mut text = Vec::new();
    from.take(length.into()).read_to_end(&mut text)?;
    let kind: Kind = serde_json::from_slice(&text).map_err(|_| wrong("has no head"))?;
    if kind.format != FORMAT {
        return Err(wrong("was saved by another version"));
    }
    let head: Head = serde_json::from_slice(&text).map_err(|_| wrong("has no head"))?;
    if !head.channel.can_be() {
        return Err(wrong("has a channel that cannot be"));
    }
    Ok(head)
}

/// What every version's head begins with.
#[derive(Deserialize)]
struct Kind {
    format: u32,
}

/// What a task may have, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    /// Of what it has written to stdout and stderr.
    pub(super) streams: u64,
    /// Of its disk.
    pub(super) disk: u64,
}

/// Reads the rest but QEMU's part: the streams, and the disk into an empty file.
pub(super) fn unpack(
    head: &Head,
    from: &mut impl Read,
    streams: [&mut dyn Write; 2],
    disk: &File,
    most: Most,
) -> io::Result<()> {
    let [out, err] = head.streams;
    if out.saturating_add(err) > most.streams {
        return Err(wrong("has written more than its task may"));
    }
    for (length, mut stream) in head.streams.into_iter().zip(streams) {
        exactly(&mut from.by_ref().take(length), &mut stream, length)?;
    }
    if head.disk_bytes > most.disk {
        return Err(wrong("has a larger disk than its task"));
    }
    disk.set_len(head.disk_bytes)?;
    loop {
        let (start, length) = (word(from)?, word(from)?);
        if start == u64::MAX {
            return Ok(());
        }
        let end = start.checked_add(length);
        end.filter(|end| *end <= head.disk_bytes)
            .ok_or_else(|| wrong("leaves its disk"))?;
        let mut disk = disk;
        disk.seek(SeekFrom::Start(start))?;
        exactly(&mut from.by_ref().take(length), &mut disk, length)?;
    }
}

fn word(from: &mut impl Read) -> io::Result<u64> {
    let mut word = [0; 8];
    from.read_exact(&mut word)?;
    Ok(u64::from_le_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Accelerator;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt as _;

    const MOST: Most = Most {
        streams: 1 << 10,
        disk: 64 << 20,
    };

    fn saved() -> Head {
        let machine = Machine {
            accelerator: Accelerator::Tcg,
            kind: "pc-q35-6.2".to_owned(),
            cpu: "Nehalem".to_owned(),
        };
        let channel = Channel {
            next: [7, 3],
            held: vec![1, 2, 3],
            window: [900, 800],
        };
        Head::new(machine, "ab".to_owned(), 128, channel)
    }

    fn text(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    /// The same file once more, at the same place.
    fn again(file: &File) -> File {
        file.try_clone().unwrap()
    }

    #[test]
    fn a_guest_comes_back_as_it_was_saved_and_holes_stay_holes() {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(64 << 20).unwrap();
        disk.write_all_at(b"begin", 0).unwrap();
        disk.write_all_at(b"middle", 40 << 20).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let packer = write(saved(), &[text("out"), text("")], &disk, again(&file));
        finish(packer.unwrap(), &b"memory"[..]).unwrap();
        assert!(file.metadata().unwrap().len() < 1 << 20);
        file.rewind().unwrap();
        let head = head(&mut file).unwrap();
        assert_eq!(head.channel, saved().channel);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let again = tempfile::tempfile().unwrap();
        let mut file = unpacker(file);
        unpack(&head, &mut file, [&mut out, &mut err], &again, MOST).unwrap();
        assert_eq!((out.as_slice(), err.as_slice()), (&b"out"[..], &b""[..]));
        let mut part = [0; 6];
        again.read_exact_at(&mut part, 40 << 20).unwrap();
        assert_eq!(&part, b"middle");
        assert_eq!(again.metadata().unwrap().len(), 64 << 20);
        let mut rest = String::new();
        file.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "memory");
    }

    #[test]
    fn what_was_cut_or_lies_is_refused() {
        let disk = text("a disk");
        let mut file = tempfile::tempfile().unwrap();
        let packer = write(saved(), &[text("out"), text("err")], &disk, again(&file));
        finish(packer.unwrap(), &b""[..]).unwrap();
        let length = file.metadata().unwrap().len();
        // The last four bytes are the frame's own end; QEMU knows where its part ends.
        for cut in [0, 5, 11, 40, length - 20, length - 5] {
            let mut whole = Vec::new();
            file.rewind().unwrap();
            (&file).take(cut).read_to_end(&mut whole).unwrap();
            let mut part = tempfile::tempfile().unwrap();
            part.write_all(&whole).unwrap();
            part.rewind().unwrap();
            let read = head(&mut part).and_then(|head| {
                let (mut out, mut err) = (Vec::new(), Vec::new());
                let disk = tempfile::tempfile().unwrap();
                let mut rest = unpacker(again(&part));
                unpack(&head, &mut rest, [&mut out, &mut err], &disk, MOST)
            });
            assert!(read.is_err(), "{cut}");
        }
        file.rewind().unwrap();
        let found = head(&mut file).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let small = tempfile::tempfile().unwrap();
        let mut file = unpacker(file);
        let less = Most { disk: 3, ..MOST };
        let error = unpack(&found, &mut file, [&mut out, &mut err], &small, less).unwrap_err();
        assert!(error.to_string().contains("larger disk"), "{error}");
        let less = Most { streams: 5, ..MOST };
        let error = unpack(&found, &mut file, [&mut out, &mut err], &small, less).unwrap_err();
        assert!(error.to_string().contains("has written more"), "{error}");
        head(&mut text("something else altogether")).unwrap_err();
    }

    /// A file that begins with this head.
    fn of_head(head: &serde_json::Value) -> File {
        let text = head.to_string();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(MAGIC).unwrap();
        let length = u32::try_from(text.len()).unwrap();
        file.write_all(&length.to_le_bytes()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn a_head_that_we_would_not_write_is_refused_with_the_reason() {
        let good = serde_json::to_value(saved()).unwrap();
        assert_eq!(head(&mut of_head(&good)).unwrap(), saved());
        let long = vec![0; HEAD_BYTES + TO_HOST_MAX_BYTES + CHECK_BYTES];
        // Whatever else an earlier or a later version writes, it says which it is.
        let earlier = serde_json::json!({ "format": FORMAT - 1, "memory": 7 });
        let mut cases = vec![(earlier, "another version")];
        for (place, value, says) in [
            ("/format", serde_json::json!(FORMAT + 1), "another version"),
            ("/machine", serde_json::json!(7), "has no head"),
            ("/disk_bytes", serde_json::json!(-1), "has no head"),
            ("/channel/window", serde_json::json!([5, 6]), "cannot be"),
            ("/channel/held", serde_json::json!(long), "cannot be"),
        ] {
            let mut other = good.clone();
            *other.pointer_mut(place).unwrap() = value;
            cases.push((other, says));
        }
        for (other, says) in cases {
            let error = head(&mut of_head(&other)).unwrap_err().to_string();
            assert!(error.contains(says), "{other}: {error}");
        }
    }

    /// A small guest as it is written.
    fn written() -> Vec<u8> {
        let disk = text("a disk");
        let mut file = tempfile::tempfile().unwrap();
        let packer = write(saved(), &[text("out"), text("err")], &disk, again(&file));
        finish(packer.unwrap(), &b"memory"[..]).unwrap();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Reads a file to its end as whoever restores does: what it says, and what was written of it.
    fn read(bytes: &[u8]) -> (io::Result<Head>, u64) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let disk = tempfile::tempfile().unwrap();
        let found = head(&mut file).and_then(|head| {
            let mut rest = unpacker(file);
            unpack(&head, &mut rest, [&mut out, &mut err], &disk, MOST)?;
            io::copy(&mut rest, &mut io::sink())?;
            Ok(head)
        });
        let length = disk.metadata().unwrap().len();
        (found, length + (out.len() + err.len()) as u64)
    }

    proptest! {
        /// Bytes changed, put in and taken away anywhere: it is read or refused, and what is
        /// written of it stays within what the task may have.
        #[test]
        fn a_spoilt_file_is_bounded_and_breaks_nothing(
            changes in proptest::collection::vec((any::<usize>(), any::<u8>(), 0_u8..3), 1..12)
        ) {
            let mut bytes = written();
            for (at, byte, how) in changes {
                let at = at % bytes.len().max(1);
                match how {
                    0 => { let _none = bytes.get_mut(at).map(|old| *old = byte); }
                    1 => bytes.insert(at, byte),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            let (_, written) = read(&bytes);
            prop_assert!(written <= MOST.disk + MOST.streams);
        }

        #[test]
        fn noise_after_a_head_is_bounded_and_breaks_nothing(
            noise in proptest::collection::vec(any::<u8>(), 0..400),
            figures in any::<[u64; 3]>(),
        ) {
            let mut said = saved();
            let [disk, out, err] = figures;
            // Half of them are such as a task may have.
            said.disk_bytes = disk >> (disk % 64);
            said.streams = [out >> (out % 64), err >> (err % 64)];
            let text = serde_json::to_vec(&said).unwrap();
            let mut bytes = MAGIC.to_vec();
            bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
            bytes.extend(text);
            // What no packer made, and the same packed well.
            let mut packed = bytes.clone();
            let mut packer = FrameEncoder::new(Vec::new());
            packer.write_all(&noise).unwrap();
            packed.extend(packer.finish().unwrap());
            bytes.extend(&noise);
            for bytes in [bytes, packed] {
                let (_, written) = read(&bytes);
                prop_assert!(written <= MOST.disk + MOST.streams);
            }
        }
    }
}
