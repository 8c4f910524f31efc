//! What the frames mean, in both directions. Pure.

use crate::frame::Frame;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// The version of this protocol; both ends come from one build, so they must be equal.
pub const VERSION: u8 = 5;

/// Longest path of a file in the guest's scratch that can be named, in bytes.
pub const NAME_MAX_BYTES: usize = 4096;

/// From the host to the guest. Few and small: see [`crate::frame::TO_GUEST_MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToGuest {
    /// So many bytes of payload have been taken in all; room for more is open.
    Taken(u64),
    /// End the program kindly.
    Stop,
    /// Send this entry's content from this byte on.
    Get {
        /// Its place in the list of entries.
        entry: u32,
        /// From where; more than 0 where an earlier try broke off.
        offset: u64,
    },
    /// It was saved and goes on: so late is it, in milliseconds since 1970.
    Clock(u64),
    /// Start the program: a guest that was booted ahead has waited for this.
    Begin,
    /// Say that you are there: nothing was heard for long.
    Speak,
}

/// From the guest to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToHost {
    /// It has booted and found its task. Holds [`VERSION`].
    Hello(u8),
    /// The program begins.
    Started,
    /// The program wrote to standard output.
    Stdout(Vec<u8>),
    /// The program wrote to standard error.
    Stderr(Vec<u8>),
    /// Nothing of the program runs any more: a [`crate::task::Record`] as JSON.
    Ended(Vec<u8>),
    /// What lies in scratch; the first has place 0.
    Entry(Entry),
    /// That was all.
    Listed,
    /// Content of the entry asked for.
    Data(Vec<u8>),
    /// Its end, with the BLAKE3 digest of the whole content.
    DataEnd([u8; 32]),
    /// The guest cannot go on.
    Trouble(String),
    /// What the program has used so far: a [`crate::task::Record`] as JSON. Whoever ends the guest
    /// from outside has nothing newer.
    Noted(Vec<u8>),
    /// The answer to [`ToGuest::Speak`], at any time.
    Here,
}

/// A name in the guest's scratch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its kind.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Path below scratch.
    pub path: PathBuf,
}

/// What is behind a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file with one name.
    File,
    /// A file with several.
    Linked,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A pipe, socket or device.
    Other,
}

const KINDS: [EntryKind; 5] = [
    EntryKind::File,
    EntryKind::Linked,
    EntryKind::Directory,
    EntryKind::Link,
    EntryKind::Other,
];

/// A message that our other end does not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of kind {0} makes no sense")]
pub struct MessageError(pub u8);

impl ToGuest {
    /// Kind and payload.
    #[must_use]
    pub fn encode(self) -> (u8, Vec<u8>) {
        match self {
            Self::Taken(bytes) => (1, bytes.to_le_bytes().to_vec()),
            Self::Stop => (2, Vec::new()),
            Self::Get { entry, offset } => {
                let mut payload = entry.to_le_bytes().to_vec();
                payload.extend(offset.to_le_bytes());
                (3, payload)
            }
            Self::Clock(ms) => (4, ms.to_le_bytes().to_vec()),
            Self::Begin => (5, Vec::new()),
            Self::Speak => (6, Vec::new()),
        }
    }

    /// From a frame.
    ///
    /// # Errors
    /// Where it is none of ours.
    pub fn decode(frame: &Frame) -> Result<Self, MessageError> {
        let mut rest = Rest(&frame.payload);
        let message = match frame.kind {
            1 => rest.u64().map(Self::Taken),
            2 => Some(Self::Stop),
            3 => rest
                .u32()
                .and_then(|entry| Some((entry, rest.u64()?)))
                .map(|(entry, offset)| Self::Get { entry, offset }),
            4 => rest.u64().map(Self::Clock),
            5 => Some(Self::Begin),
            6 => Some(Self::Speak),
            _ => None,
        };
        message
            .filter(|_| rest.0.is_empty())
            .ok_or(MessageError(frame.kind))
    }
}

impl ToHost {
    /// Kind and payload.
    #[must_use]
    pub fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Hello(version) => (1, vec![*version]),
            Self::Started => (2, Vec::new()),
            Self::Stdout(bytes) => (3, bytes.clone()),
            Self::Stderr(bytes) => (4, bytes.clone()),
            Self::Ended(json) => (5, json.clone()),
            Self::Entry(entry) => (6, entry.encode()),
            Self::Listed => (7, Vec::new()),
            Self::Data(bytes) => (8, bytes.clone()),
            Self::DataEnd(digest) => (9, digest.to_vec()),
            Self::Trouble(text) => (10, text.as_bytes().to_vec()),
            Self::Noted(json) => (11, json.clone()),
            Self::Here => (12, Vec::new()),
        }
    }

    /// From a frame.
    ///
    /// # Errors
    /// Where it is none of ours.
    pub fn decode(frame: Frame) -> Result<Self, MessageError> {
        let wrong = MessageError(frame.kind);
        let empty = frame.payload.is_empty();
        Ok(match (frame.kind, frame.payload) {
            (1, payload) => match payload.as_slice() {
                [version] => Self::Hello(*version),
                _ => return Err(wrong),
            },
            (2, _) if empty => Self::Started,
            (3, payload) => Self::Stdout(payload),
            (4, payload) => Self::Stderr(payload),
            (5, payload) => Self::Ended(payload),
            (6, payload) => Self::Entry(Entry::decode(&payload).ok_or(wrong)?),
            (7, _) if empty => Self::Listed,
            (8, payload) => Self::Data(payload),
            (9, payload) => Self::DataEnd(payload.try_into().map_err(|_| wrong)?),
            (10, payload) => Self::Trouble(String::from_utf8_lossy(&payload).into_owned()),
            (11, payload) => Self::Noted(payload),
            (12, _) if empty => Self::Here,
            _ => return Err(wrong),
        })
    }
}

impl Entry {
    fn encode(&self) -> Vec<u8> {
        let kind = KINDS.iter().position(|kind| *kind == self.kind);
        let mut payload = vec![kind.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)];
        payload.extend(self.mode.to_le_bytes());
        payload.extend(self.size.to_le_bytes());
        payload.extend(self.path.as_os_str().as_bytes());
        payload
    }

    /// None where it is malformed, or where its path could lead out of scratch.
    fn decode(payload: &[u8]) -> Option<Self> {
        let mut rest = Rest(payload);
        let kind = *KINDS.get(usize::from(rest.u8()?))?;
        let mode = rest.u32()? & 0o777;
        let size = rest.u64()?;
        let bytes = rest.0;
        let path = Path::new(OsStr::from_bytes(bytes));
        let plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        // A path that does not come back as it was has empty parts or a slash at its end.
        let same = path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
        (plain && same && !bytes.is_empty() && !bytes.contains(&0) && bytes.len() <= NAME_MAX_BYTES)
            .then(|| Self {
                kind,
                mode,
                size,
                path: path.to_owned(),
            })
    }
}

/// What is left of a payload.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame((kind, payload): (u8, Vec<u8>)) -> Frame {
        Frame {
            kind,
            number: 0,
            payload,
        }
    }

    #[test]
    fn messages_survive_the_trip() {
        for message in [
            ToGuest::Taken(u64::MAX),
            ToGuest::Stop,
            ToGuest::Get {
                entry: 7,
                offset: 1 << 40,
            },
            ToGuest::Clock(1 << 41),
            ToGuest::Begin,
            ToGuest::Speak,
        ] {
            let frame = frame(message.encode());
            assert!(frame.payload.len() <= crate::frame::TO_GUEST_MAX_BYTES);
            assert_eq!(ToGuest::decode(&frame), Ok(message));
        }
        let entry = Entry {
            kind: EntryKind::Linked,
            mode: 0o640,
            size: 12,
            path: PathBuf::from(OsStr::from_bytes(b"a/b\xff\nc")),
        };
        for message in [
            ToHost::Hello(VERSION),
            ToHost::Started,
            ToHost::Stdout(b"x".to_vec()),
            ToHost::Stderr(Vec::new()),
            ToHost::Ended(b"{}".to_vec()),
            ToHost::Entry(entry),
            ToHost::Listed,
            ToHost::Data(vec![0; 10]),
            ToHost::DataEnd([3; 32]),
            ToHost::Trouble("no root".to_owned()),
            ToHost::Noted(b"{}".to_vec()),
            ToHost::Here,
        ] {
            assert_eq!(ToHost::decode(frame(message.encode())), Ok(message));
        }
    }

    #[test]
    fn names_that_lead_astray_are_refused() {
        for name in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            "a\0b",
        ] {
            let entry = Entry {
                kind: EntryKind::File,
                mode: 0,
                size: 0,
                path: PathBuf::from(name),
            };
            let sent = frame(ToHost::Entry(entry).encode());
            assert_eq!(ToHost::decode(sent), Err(MessageError(6)), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_makes_a_decoder_panic(
            kind in 0_u8..16, payload in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            let frame = frame((kind, payload));
            if let Ok(message) = ToGuest::decode(&frame) {
                prop_assert_eq!(message.encode().0, kind);
            }
            if let Ok(message) = ToHost::decode(frame) {
                prop_assert_eq!(message.encode().0, kind);
            }
        }
    }
}
