//! A client of the message bus, small enough that every wait has an end: a peer that hangs, talks
//! nonsense or floods costs its own word and nothing else.
//!
//! Only what the sources need: calls with texts and numbers, replies of any type, signals, one
//! descriptor at a time. Source: D-Bus Specification 0.43.

mod value;
mod wire;

pub(crate) use value::Value;
pub(crate) use wire::Arg;

use crate::thread::{Stop, timespec};
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recvmsg, send, socket_with,
};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use wire::Message;

/// How long a peer may take to answer. Those who are asked answer from memory.
const ANSWER: Duration = Duration::from_secs(3);

/// Most signals kept while an answer is waited for; older ones are dropped, since each only says
/// "look again".
const SIGNALS_MAX: usize = 64;

/// Longest line of the authentication, in bytes.
const LINE_MAX: usize = 4096;

/// Most descriptors kept that nobody asked for yet.
const DESCRIPTORS_MAX: usize = 4;

/// Why the bus, or somebody on it, did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BusError {
    /// There is no bus at this address.
    #[error("no message bus")]
    NoBus,
    /// Nobody has this name.
    #[error("{0} is not running")]
    NoPeer(String),
    /// The peer said no.
    #[error("refused: {0}")]
    Refused(String),
    #[error("no answer within {} s", ANSWER.as_secs())]
    Silent,
    #[error("a message that is not understood: {0}")]
    Nonsense(&'static str),
    #[error("the address {0:?} is not understood")]
    Address(String),
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is time to end.
    #[error("stopped")]
    Stopped,
}

impl From<rustix::io::Errno> for BusError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Whom to ask.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer<'a> {
    pub(crate) name: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
}

/// The bus itself.
const BUS: Peer<'static> = Peer {
    name: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

/// Interface of everybody's properties.
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// A signal: somebody says that something happened.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) member: String,
    pub(crate) body: Vec<Value>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Bus<'s> {
    stop: &'s Stop,
    fd: OwnedFd,
    serial: u32,
    /// Bytes read and not yet understood.
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    signals: VecDeque<Said>,
}

impl<'s> Bus<'s> {
    /// Connects to the first address of a list that works.
    pub(crate) fn connect(addresses: &str, stop: &'s Stop) -> Result<Self, BusError> {
        let mut last = BusError::NoBus;
        for address in addresses.split(';') {
            match Self::connect_one(address, stop) {
                Ok(bus) => return Ok(bus),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn connect_one(address: &str, stop: &'s Stop) -> Result<Self, BusError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match connect(&fd, &socket_address(address)?) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT) => return Err(BusError::NoBus),
            // Its queue is full: it accepts nobody.
            Err(rustix::io::Errno::AGAIN) => return Err(BusError::Silent),
            Err(error) => return Err(error.into()),
        }
        let mut bus = Self {
            stop,
            fd,
            serial: 0,
            bytes: Vec::new(),
            descriptors: VecDeque::new(),
            signals: VecDeque::new(),
        };
        bus.authenticate()?;
        bus.call(BUS, "Hello", &[])?;
        Ok(bus)
    }

    /// Says who we are, which the socket proves.
    fn authenticate(&mut self) -> Result<(), BusError> {
        let end = Instant::now() + ANSWER;
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.write(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes(), end)?;
        let answer = self.line(end)?;
        if !answer.starts_with("OK") {
            return Err(BusError::Refused(answer));
        }
        self.write(b"NEGOTIATE_UNIX_FD\r\n", end)?;
        // Without it only descriptors are missing.
        self.line(end)?;
        self.write(b"BEGIN\r\n", end)
    }

    fn line(&mut self, end: Instant) -> Result<String, BusError> {
        loop {
            if let Some(at) = self.bytes.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.bytes.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if self.bytes.len() > LINE_MAX {
                return Err(BusError::Nonsense("an endless line"));
            }
            if !self.read(end)? {
                return Err(BusError::Silent);
            }
        }
    }

    /// Calls a method and waits for its answer.
    pub(crate) fn call(
        &mut self,
        peer: Peer<'_>,
        member: &str,
        args: &[Arg<'_>],
    ) -> Result<Vec<Value>, BusError> {
        let end = Instant::now() + ANSWER;
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        let serial = self.serial;
        self.write(&wire::call(serial, peer, member, args), end)?;
        while let Some(message) = self.message(end)? {
            match message {
                Message::Answer { to, body } if to == serial => return Ok(body),
                Message::Error { to, name, text } if to == serial => {
                    return Err(refusal(peer.name, &name, text));
                }
                Message::Said(said) => self.keep(said),
                Message::Answer { .. } | Message::Error { .. } | Message::Other => {}
            }
        }
        Err(BusError::Silent)
    }

    /// One property.
    pub(crate) fn property(&mut self, peer: Peer<'_>, name: &str) -> Result<Value, BusError> {
        let properties = Peer {
            interface: PROPERTIES,
            ..peer
        };
        let args = [Arg::Text(peer.interface), Arg::Text(name)];
        let answer = self.call(properties, "Get", &args)?;
        let value = answer.into_iter().next();
        value
            .map(Value::inner)
            .ok_or(BusError::Nonsense("an empty answer"))
    }

    /// All properties.
    pub(crate) fn properties(
        &mut self,
        peer: Peer<'_>,
    ) -> Result<BTreeMap<String, Value>, BusError> {
        let properties = Peer {
            interface: PROPERTIES,
            ..peer
        };
        let answer = self.call(properties, "GetAll", &[Arg::Text(peer.interface)])?;
        let map = answer.into_iter().next();
        map.and_then(Value::map)
            .ok_or(BusError::Nonsense("properties that are none"))
    }

    /// Asks for the signals that a rule names.
    pub(crate) fn listen(&mut self, rule: &str) -> Result<(), BusError> {
        self.call(BUS, "AddMatch", &[Arg::Text(rule)]).map(drop)
    }

    /// The next signal, or none within the time.
    pub(crate) fn next(&mut self, within: Duration) -> Result<Option<Said>, BusError> {
        if let Some(said) = self.signals.pop_front() {
            return Ok(Some(said));
        }
        let end = Instant::now() + within;
        while let Some(message) = self.message(end)? {
            if let Message::Said(said) = message {
                return Ok(Some(said));
            }
        }
        Ok(None)
    }

    /// Waits until nobody says anything for so long, but not for ever: many signals at once are
    /// one reason to look again. Those that a caller wants to see are given to it.
    pub(crate) fn settle(&mut self, quiet: Duration) -> Result<Vec<Said>, BusError> {
        let mut said = Vec::new();
        while said.len() < SIGNALS_MAX
            && let Some(one) = self.next(quiet)?
        {
            said.push(one);
        }
        Ok(said)
    }

    /// The descriptor that came with the last answer.
    pub(crate) fn descriptor(&mut self) -> Option<OwnedFd> {
        let last = self.descriptors.pop_back();
        self.descriptors.clear();
        last
    }

    fn keep(&mut self, said: Said) {
        if self.signals.len() >= SIGNALS_MAX {
            self.signals.pop_front();
        }
        self.signals.push_back(said);
    }

    /// The next message, or none until then.
    fn message(&mut self, end: Instant) -> Result<Option<Message>, BusError> {
        loop {
            if let Some(length) = wire::length(&self.bytes)?
                && self.bytes.len() >= length
            {
                let message = wire::message(&self.bytes[..length]);
                self.bytes.drain(..length);
                return message.map(Some);
            }
            if !self.read(end)? {
                return Ok(None);
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8], end: Instant) -> Result<(), BusError> {
        while !bytes.is_empty() {
            match send(&self.fd, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                    if !self.wait(PollFlags::OUT, end)? {
                        return Err(BusError::Silent);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads some bytes; false where none came until then.
    fn read(&mut self, end: Instant) -> Result<bool, BusError> {
        loop {
            let mut bytes = [0_u8; 4096];
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [io::IoSliceMut::new(&mut bytes)];
            let got = recvmsg(&self.fd, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC);
            match got {
                Ok(got) if got.bytes == 0 => {
                    return Err(BusError::Io(io::ErrorKind::ConnectionReset.into()));
                }
                Ok(got) => {
                    for message in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(fds) = message {
                            self.descriptors.extend(fds);
                        }
                    }
                    while self.descriptors.len() > DESCRIPTORS_MAX {
                        self.descriptors.pop_front();
                    }
                    self.bytes.extend_from_slice(&bytes[..got.bytes]);
                    return Ok(true);
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                    if !self.wait(PollFlags::IN, end)? {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the socket; false where nothing happened until then.
    fn wait(&self, want: PollFlags, end: Instant) -> Result<bool, BusError> {
        if self.stop.stopped() {
            return Err(BusError::Stopped);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let stop = self.stop.fd();
        let mut fds = [
            PollFd::new(&self.fd, want),
            PollFd::new(&stop, PollFlags::IN),
        ];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

/// What an error that a peer answered means.
fn refusal(peer: &str, name: &str, text: String) -> BusError {
    match name {
        "org.freedesktop.DBus.Error.ServiceUnknown"
        | "org.freedesktop.DBus.Error.NameHasNoOwner"
        | "org.freedesktop.DBus.Error.Spawn.ServiceNotFound" => BusError::NoPeer(peer.to_owned()),
        "org.freedesktop.DBus.Error.NoReply" => BusError::Silent,
        _ => BusError::Refused(format!("{name} {text}")),
    }
}

/// The socket of one address: `unix:path=…` or `unix:abstract=…`, with `%xx` for odd bytes.
fn socket_address(address: &str) -> Result<SocketAddrUnix, BusError> {
    let wrong = || BusError::Address(address.to_owned());
    let keys = address.strip_prefix("unix:").ok_or_else(wrong)?;
    for pair in keys.split(',') {
        match pair.split_once('=') {
            Some(("path", path)) => return Ok(SocketAddrUnix::new(unescape(path))?),
            Some(("abstract", name)) => {
                return Ok(SocketAddrUnix::new_abstract_name(&unescape(name))?);
            }
            _ => {}
        }
    }
    Err(wrong())
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
