//! The host's end of the byte stream to the guest.

use super::saved::Channel;
use crate::frame::{Parser, TO_HOST_MAX_BYTES, encode};
use crate::message::{ToGuest, ToHost};
use crate::window::Taking;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// One read, in bytes.
const READ_BYTES: usize = 64 << 10;

pub(super) struct Stream {
    socket: OwnedFd,
    parser: Parser,
    taking: Taking,
    next: u32,
    buffer: Vec<u8>,
}

impl Stream {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            parser: Parser::new(TO_HOST_MAX_BYTES),
            taking: Taking::default(),
            next: 0,
            buffer: vec![0; READ_BYTES],
        }
    }

    /// Goes on where another one was.
    pub(super) fn resumed(socket: OwnedFd, from: Channel) -> Self {
        let [next_in, next_out] = from.next;
        Self {
            parser: Parser::resumed(TO_HOST_MAX_BYTES, next_in, from.held),
            taking: Taking::resumed(from.window),
            next: next_out,
            ..Self::new(socket)
        }
    }

    /// Where it is.
    pub(super) fn state(&self) -> Channel {
        let (next, held) = self.parser.state();
        Channel {
            next: [next, self.next],
            held: held.to_vec(),
            window: self.taking.state(),
        }
    }

    /// Whether something has come, or comes within this time.
    pub(super) fn comes_within(&self, nanoseconds: i64) -> io::Result<bool> {
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: nanoseconds,
        };
        let mut polls = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut polls, Some(&wait)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the other side has read all that we sent.
    pub(super) fn all_read(&self) -> bool {
        let mut unread: libc::c_int = 0;
        // SAFETY: the request writes one number to where the pointer points.
        let asked =
            unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
        asked == 0 && unread == 0
    }

    pub(super) const fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Reads once. Says whether there is still somebody there.
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        match recv(&self.socket, &mut *self.buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => Ok(false),
            Ok((_, length)) => {
                self.parser
                    .push(self.buffer.get(..length).unwrap_or_default());
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The next message of what was read; makes room for more.
    pub(super) fn message(&mut self) -> io::Result<Option<ToHost>> {
        let Some(frame) = self.parser.frame().map_err(io::Error::other)? else {
            return Ok(None);
        };
        let told = self.taking.took(frame.payload.len() as u64);
        let message = ToHost::decode(frame).map_err(io::Error::other)?;
        if let Some(total) = told {
            self.send(ToGuest::Taken(total))?;
        }
        Ok(Some(message))
    }

    /// Sends one small message. A guest that does not read what fits a socket's buffer many
    /// times over is stuck, and must not make us so.
    pub(super) fn send(&mut self, message: ToGuest) -> io::Result<()> {
        let (kind, payload) = message.encode();
        let mut frame = Vec::new();
        encode(kind, self.next, &payload, &mut frame);
        self.next = self.next.wrapping_add(1);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match send(&self.socket, &frame, flags) {
            Ok(sent) if sent == frame.len() => Ok(()),
            // It hung up, which the next read tells.
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Ok(_) | Err(Errno::AGAIN) => Err(io::Error::other("the guest does not listen")),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{TELL_BYTES, WINDOW_BYTES};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (Stream, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        (Stream::new(ours), theirs)
    }

    fn say(guest: &OwnedFd, bytes: &[u8]) {
        assert_eq!(send(guest, bytes, SendFlags::empty()).unwrap(), bytes.len());
    }

    #[test]
    fn what_is_taken_is_told() {
        let (mut host, guest) = pair();
        let (mut number, mut taken) = (0, 0);
        while taken < WINDOW_BYTES {
            let mut frame = Vec::new();
            let (kind, payload) = ToHost::Stdout(vec![b'x'; TO_HOST_MAX_BYTES]).encode();
            encode(kind, number, &payload, &mut frame);
            say(&guest, &frame);
            number += 1;
            taken += TO_HOST_MAX_BYTES as u64;
            assert!(host.receive().unwrap());
            while host.message().unwrap().is_some() {}
        }
        let mut heard = [0; 4096];
        let (_, length) = recv(&guest, &mut heard[..], RecvFlags::DONTWAIT).unwrap();
        let mut parser = Parser::new(crate::frame::TO_GUEST_MAX_BYTES);
        parser.push(&heard[..length]);
        let mut told = Vec::new();
        while let Some(frame) = parser.frame().unwrap() {
            told.push(ToGuest::decode(&frame).unwrap());
        }
        assert_eq!(told.first(), Some(&ToGuest::Taken(TELL_BYTES)));
        assert_eq!(told.last(), Some(&ToGuest::Taken(WINDOW_BYTES)));
    }

    #[test]
    fn a_guest_that_lies_is_refused_and_one_that_hangs_up_is_gone() {
        let (mut host, guest) = pair();
        say(&guest, &[0xff; 64]);
        assert!(host.receive().unwrap());
        host.message().unwrap_err();
        drop(guest);
        assert!(!host.receive().unwrap());
    }

    #[test]
    fn a_guest_that_never_reads_does_not_hold_us_up() {
        let (mut host, _guest) = pair();
        let stuck = (0..1_000_000).find_map(|_| host.send(ToGuest::Stop).err());
        assert!(stuck.unwrap().to_string().contains("does not listen"));
    }
}
