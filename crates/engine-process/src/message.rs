//! Messages between the agent, the shim and the processes of the cage.
//!
//! One message is one packet of a local socket, as JSON, with descriptors beside it. One that
//! is too large for a packet travels in a memory file whose descriptor comes last. Both ends
//! are this program, and often in one version. An upgraded agent that adopts an older shim's
//! attempts meets unknown fields, which are ignored, absent ones, which have defaults, and orders
//! that are not understood ([`Foreign`]), which are passed over: everything else goes on.

use crate::bundle::Bay;
use gleaner_engine::{AttemptSpec, Control, Ending};
use gleaner_model::{AttemptId, Time, Usage};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// Largest packet in bytes: well below the kernel's default socket buffer of 208 KiB.
pub(crate) const PACKET_MAX_BYTES: usize = 96 * 1024;

/// Largest message in bytes. A spec with 10,000 inputs takes about 2 MiB.
const MESSAGE_MAX_BYTES: u64 = 64 << 20;

/// Most descriptors with one message, the memory file included.
const DESCRIPTORS_MAX: usize = 24;

/// What stands in the packet when the message is in a memory file.
const IN_MEMORY_FILE: &[u8] = b"@";

/// From the agent to a shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToShim {
    /// Begin an attempt, in a bay that no other has.
    Start { bay: Bay, spec: Box<AttemptSpec> },
    /// Steer one.
    Control {
        attempt: AttemptId,
        control: Control,
    },
    /// What each attempt may have now.
    Share(Share),
    /// Freeze everything at once, or take that back; for where no group does it.
    Hold { on: bool },
    /// The agent lives.
    Beat { lease_left_ms: u64 },
    /// Run on this processor only; on all where there is none.
    Place {
        attempt: AttemptId,
        cpu: Option<u32>,
    },
    /// Copy the files by which it saves itself, while it stands still.
    Save { attempt: AttemptId },
    /// What has it used? Answered with the same number.
    Usage { attempt: AttemptId, ask: u64 },
    /// Nothing more will come: exit.
    Quit,
}

/// What each attempt of an agent may have of its own limits, for where no group above all of
/// them can be bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Share {
    /// Thousandths of its processors.
    pub(crate) permille: u32,
    /// Bytes a second from and to disks; none where only its own limit counts.
    pub(crate) disk_rate: Option<u64>,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            permille: 1000,
            disk_rate: None,
        }
    }
}

/// From a shim to the agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromShim {
    /// The first word to an agent that connects: what runs, and since when.
    Running(Vec<(AttemptId, Option<Time>)>),
    Started {
        attempt: AttemptId,
        at: Time,
    },
    Paused {
        attempt: AttemptId,
    },
    Resumed {
        attempt: AttemptId,
    },
    Ended {
        attempt: AttemptId,
        ending: Box<Ending>,
    },
    Usage {
        ask: u64,
        usage: Option<Usage>,
    },
    /// The copies are made, or why not.
    Saved {
        attempt: AttemptId,
        error: Option<String>,
    },
}

/// From the shim to the process that holds a bundle's namespaces.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToZygote {
    /// Our ids are mapped: build the root.
    Go,
    /// Start a cage. Beside it: status socket, stdout, stderr, and the files by which it enters
    /// its group.
    Launch(Box<Launch>),
}

/// What one cage needs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// User id in the cage.
    pub(crate) uid: u32,
    /// Which place it runs in: no other cage of the bundle that runs has the same.
    pub(crate) place: u32,
    /// The scratch directory's name below the bundle's cages.
    pub(crate) scratch: String,
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) stdin: Option<String>,
    /// Bound of one file, in bytes.
    pub(crate) file_max: u64,
    /// Bound of shared memory files, in bytes.
    pub(crate) shared_memory_max: u64,
    /// Resource limits where there is no control group: number, value.
    pub(crate) resources: Vec<(i32, u64)>,
    /// Whether its init waits for [`GoOn`], because it is moved to its group from outside.
    pub(crate) waits: bool,
}

/// The zygote's answers, in order of the requests.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromZygote {
    /// The root stands.
    Ready { degraded: Vec<String> },
    /// The init of a new cage, as the shim sees it.
    Launched { pid: i32 },
    /// It did not work.
    Failed { detail: String },
}

/// A program that ends sooner is told of when it has ended: to wake the shim and the agent for its
/// start as well would cost as much as such a program does.
pub(crate) const BRIEF: Duration = Duration::from_millis(2);

/// From a cage's init to the shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Status {
    /// The program runs, confined, or it has run: for so many microseconds by now. With this come
    /// its mount namespace and the filter's listener; or why there is none.
    Started {
        degraded: Vec<String>,
        ran_us: u64,
        /// Where it has ended already: nothing more is said then.
        exited: Option<Exited>,
    },
    /// There is no such program.
    NoProgram { program: String },
    /// The cage or the program could not be started.
    Failed { detail: String },
    /// The program has ended and nothing of it is left.
    Exited(Exited),
}

/// What a cage's init knows of the program at its end.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Exited {
    /// The main process' wait status.
    pub(crate) status: i32,
    /// CPU time of every process that was waited for, in microseconds.
    pub(crate) cpu_us: u64,
    /// The largest resident set of one process, in bytes.
    pub(crate) resident_peak: u64,
    pub(crate) page_faults: u64,
    /// Of the CPU time, that in the kernel.
    pub(crate) system_us: u64,
    pub(crate) minor_faults: u64,
    /// Voluntary context switches.
    pub(crate) waits: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
}

/// The shim's word that a cage's init may go on: it is in its group now.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GoOn;

/// A whole message that this version does not understand: the other end is of another one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is a message of another version ({problem})")]
pub(crate) struct Foreign {
    /// What kind of message it is.
    pub(crate) word: String,
    /// The attempt that it is about, and the bay that is meant for it, where it says so.
    pub(crate) attempt: Option<AttemptId>,
    pub(crate) bay: Option<Bay>,
    problem: String,
}

/// Most of a foreign message's word that is kept, in characters.
const WORD_CHARS_MAX: usize = 40;

impl Foreign {
    fn of(text: &[u8], problem: &serde_json::Error) -> Self {
        let all: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
        let only = all.as_object().and_then(|object| object.iter().next());
        let word = all.as_str().or_else(|| Some(only?.0.as_str()));
        let field = |name: &str| only.and_then(|(_, fields)| fields.get(name));
        let attempt = field("attempt").or_else(|| field("spec")?.get("attempt"));
        Self {
            word: word.unwrap_or("?").chars().take(WORD_CHARS_MAX).collect(),
            attempt: attempt.and_then(|id| id.as_str()?.parse().ok()),
            bay: field("bay").and_then(|bay| Bay::deserialize(bay).ok()),
            problem: problem.to_string(),
        }
    }

    /// What [`receive`] failed with, if it was this.
    pub(crate) fn behind(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

fn understood<T: DeserializeOwned>(text: &[u8]) -> io::Result<T> {
    serde_json::from_slice(text)
        .map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, Foreign::of(text, &problem)))
}

/// Sends one message. `flags` may add `DONTWAIT`.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    send_text(socket, &serde_json::to_vec(message)?, descriptors, flags)
}

/// Sends one message that is JSON already.
pub(crate) fn send_text(
    socket: impl AsFd,
    text: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    if text.len() <= PACKET_MAX_BYTES {
        return send_packet(socket, text, descriptors, flags);
    }
    let mut memory = File::from(memfd_create("message", MemfdFlags::CLOEXEC)?);
    memory.write_all(text)?;
    let mut with_memory = descriptors.to_vec();
    with_memory.push(memory.as_fd());
    send_packet(socket, IN_MEMORY_FILE, &with_memory, flags)
}

fn send_packet(
    socket: impl AsFd,
    text: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let flags = flags | SendFlags::NOSIGNAL;
    loop {
        match sendmsg(&socket, &[IoSlice::new(text)], &mut ancillary, flags) {
            Err(rustix::io::Errno::INTR) => {}
            done => return Ok(done.map(drop)?),
        }
    }
}

/// Receives one message into `buffer` ([`PACKET_MAX_BYTES`] long); none at the other's end. After
/// one that is [`Foreign`] the next can be received.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    buffer: &mut [u8],
    flags: RecvFlags,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let length = loop {
        let mut slices = [IoSliceMut::new(buffer)];
        match recvmsg(&socket, &mut slices, &mut ancillary, flags) {
            Err(rustix::io::Errno::INTR) => {}
            // The other end died with messages of ours unread.
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            done => break done?.bytes,
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    let packet = buffer.get(..length).unwrap_or_default();
    if packet != IN_MEMORY_FILE {
        return Ok(Some((understood(packet)?, descriptors)));
    }
    let memory = descriptors
        .pop()
        .ok_or_else(|| io::Error::other("a message without its memory file"))?;
    let mut text = Vec::new();
    let memory = File::from(memory);
    rewind(&memory)?;
    memory.take(MESSAGE_MAX_BYTES).read_to_end(&mut text)?;
    Ok(Some((understood(&text)?, descriptors)))
}

/// The sender's position is at the end of what it wrote, and both share it.
fn rewind(memory: &File) -> io::Result<()> {
    let _at = rustix::fs::seek(memory, rustix::fs::SeekFrom::Start(0))?;
    // An empty memory file would read as the end of a message that never was.
    memory.read_exact_at(&mut [0], 0)
}

/// A buffer for [`receive`].
pub(crate) fn buffer() -> Vec<u8> {
    vec![0; PACKET_MAX_BYTES]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn a_message_of_another_version_is_named_and_the_next_one_understood() {
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        );
        let (ours, theirs) = pair.unwrap();
        for (text, word, attempt, bay) in [
            (r#""Dance""#, "Dance", None, None),
            (
                r#"{"Sing":{"attempt":"1.2.3"}}"#,
                "Sing",
                Some("1.2.3"),
                None,
            ),
            (
                r#"{"Start":{"bay":4,"spec":{"attempt":"1.2.1","new":1}}}"#,
                "Start",
                Some("1.2.1"),
                Some(4),
            ),
            (
                r#"{"Control":{"attempt":"1.2.1","control":"Dance"}}"#,
                "Control",
                Some("1.2.1"),
                None,
            ),
            ("no json", "?", None, None),
        ] {
            for text in [text, r#"{"Hold":{"on":true}}"#] {
                send_text(&theirs, text.as_bytes(), &[], SendFlags::empty()).unwrap();
            }
            let mut buffer = buffer();
            let mut next = || receive::<ToShim>(&ours, &mut buffer, RecvFlags::empty());
            let error = next().unwrap_err();
            let foreign = Foreign::behind(&error).unwrap();
            let id = attempt.map(|id| id.parse().unwrap());
            assert_eq!((foreign.word.as_str(), foreign.attempt), (word, id));
            assert_eq!(foreign.bay, bay, "{text}");
            let next = next().unwrap().unwrap().0;
            assert!(matches!(next, ToShim::Hold { on: true }), "{next:?}");
        }
    }
}
