//! Messages of the Wayland protocol over its socket: an object, an event, words.

use crate::thread::{Stop, timespec};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest time for handing a request to the compositor.
const WRITE_MAX: Duration = Duration::from_secs(3);

/// One event, as it came.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) object: u32,
    pub(super) event: u16,
    body: Vec<u8>,
}

impl Message {
    /// A number, by its place among the words of the body.
    pub(super) fn number(&self, place: usize) -> Option<u32> {
        let bytes = self.body.get(place * 4..place * 4 + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    }

    /// A text that begins at that word.
    pub(super) fn text(&self, place: usize) -> Option<&str> {
        let bytes = self.bytes(place)?;
        std::str::from_utf8(bytes.split_last()?.1).ok()
    }

    /// An array of numbers that begins at that word.
    pub(super) fn numbers(&self, place: usize) -> Option<impl Iterator<Item = u32>> {
        let words = self.bytes(place)?.chunks_exact(4);
        Some(words.map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])))
    }

    fn bytes(&self, place: usize) -> Option<&[u8]> {
        let length = usize::try_from(self.number(place)?).ok()?;
        let from = (place + 1) * 4;
        self.body.get(from..from.checked_add(length)?)
    }

    /// The word after a text that begins at that word.
    pub(super) fn after_text(&self, place: usize) -> Option<usize> {
        let length = usize::try_from(self.number(place)?).ok()?;
        Some(place + 1 + length.div_ceil(4))
    }
}

/// A request.
pub(super) fn request(object: u32, number: u16, words: &[Word<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for word in words {
        match word {
            Word::Number(number) => body.extend(number.to_ne_bytes()),
            Word::Text(text) => {
                let length = u32::try_from(text.len() + 1).unwrap_or(u32::MAX);
                body.extend(length.to_ne_bytes());
                body.extend(text.as_bytes());
                body.push(0);
                body.resize(body.len().next_multiple_of(4), 0);
            }
        }
    }
    let size = u32::try_from(body.len() + 8).unwrap_or(u32::MAX);
    let mut bytes = Vec::from(object.to_ne_bytes());
    bytes.extend((size << 16 | u32::from(number)).to_ne_bytes());
    bytes.extend(body);
    bytes
}

/// A part of a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Word<'a> {
    Number(u32),
    Text(&'a str),
}

/// A connection to a compositor.
#[derive(Debug)]
pub(super) struct Socket<'s> {
    stream: UnixStream,
    stop: &'s Stop,
    bytes: Vec<u8>,
}

impl<'s> Socket<'s> {
    pub(super) fn connect(path: &Path, stop: &'s Stop) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(WRITE_MAX))?;
        Ok(Self {
            stream,
            stop,
            bytes: Vec::new(),
        })
    }

    pub(super) fn send(&mut self, requests: &[u8]) -> io::Result<()> {
        self.stream.write_all(requests)
    }

    /// The next event, or none within the time or at the stop. A size below that of a header is
    /// an error, one above 64 KiB cannot be said.
    pub(super) fn next(&mut self, within: Duration) -> io::Result<Option<Message>> {
        let end = Instant::now() + within;
        loop {
            if let Some(message) = self.whole()? {
                return Ok(Some(message));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.stopped() {
                return Ok(None);
            }
            let stop = self.stop.fd();
            let mut fds = [
                PollFd::new(&self.stream, PollFlags::IN),
                PollFd::new(&stop, PollFlags::IN),
            ];
            poll(&mut fds, Some(&timespec(left)))?;
            if !fds[0].revents().is_empty() {
                let mut bytes = [0_u8; 4096];
                match self.stream.read(&mut bytes)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    read => self.bytes.extend_from_slice(&bytes[..read]),
                }
            }
        }
    }

    fn whole(&mut self) -> io::Result<Option<Message>> {
        let word = |at: usize| -> Option<u32> {
            let bytes = self.bytes.get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?))
        };
        let (Some(object), Some(head)) = (word(0), word(4)) else {
            return Ok(None);
        };
        let size = usize::try_from(head >> 16).unwrap_or_default();
        if size < 8 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.bytes.len() < size {
            return Ok(None);
        }
        let whole: Vec<u8> = self.bytes.drain(..size).collect();
        Ok(Some(Message {
            object,
            event: u16::try_from(head & 0xffff).unwrap_or_default(),
            body: whole[8..].to_vec(),
        }))
    }
}
