//! The guest's end of the byte stream to the host.

use crate::frame::{Parser, TO_GUEST_MAX_BYTES, encode};
use crate::message::{ToGuest, ToHost};
use crate::window::Sending;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// A port shows up a moment after its driver was loaded.
const APPEARS: Duration = Duration::from_secs(60);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Whoever was saved wakes up with the time of then.
fn set_clock(ms: u64) {
    let time = rustix::time::Timespec {
        tv_sec: i64::try_from(ms / 1000).unwrap_or(0),
        tv_nsec: i64::try_from(ms % 1000 * 1_000_000).unwrap_or(0),
    };
    // It only shows in dates.
    let _stays_late = rustix::time::clock_settime(rustix::time::ClockId::Realtime, time);
}

/// Opens what may not be there yet.
fn appear<T>(open: impl Fn() -> rustix::io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    loop {
        match open() {
            Err(Errno::NOENT | Errno::NXIO | Errno::NODEV) if begun.elapsed() < APPEARS => {
                std::thread::sleep(LOOK);
            }
            done => return Ok(done?),
        }
    }
}

/// The stream, opened and raw.
pub(super) struct Channel {
    file: File,
    parser: Parser,
    next: u32,
    sending: Sending,
    requests: VecDeque<ToGuest>,
}

impl Channel {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(appear(|| rustix::fs::open(path, flags, Mode::empty()))?);
        // A port that is no terminal is raw by birth.
        if let Ok(mut terminal) = tcgetattr(&file) {
            terminal.make_raw();
            tcsetattr(&file, OptionalActions::Now, &terminal)?;
        }
        Ok(Self {
            file,
            parser: Parser::new(TO_GUEST_MAX_BYTES),
            next: 0,
            sending: Sending::default(),
            requests: VecDeque::new(),
        })
    }

    /// Bytes that can be sent without waiting for the host.
    pub(super) const fn room(&self) -> u64 {
        self.sending.room()
    }

    /// Sends one message; waits until the host has room for it.
    pub(super) fn send(&mut self, message: &ToHost) -> io::Result<()> {
        let (kind, payload) = message.encode();
        let bytes = payload.len() as u64;
        while self.room() < bytes {
            self.receive()?;
        }
        let mut frame = Vec::new();
        encode(kind, self.next, &payload, &mut frame);
        self.next = self.next.wrapping_add(1);
        self.sending.sent(bytes);
        self.file.write_all(&frame)
    }

    /// Reads what there is, or waits for it, and keeps the requests.
    pub(super) fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; 512];
        let length = self.file.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.parser.push(buffer.get(..length).unwrap_or_default());
        while let Some(frame) = self.parser.frame().map_err(io::Error::other)? {
            match ToGuest::decode(&frame).map_err(io::Error::other)? {
                ToGuest::Taken(total) => self.sending.taken(total),
                ToGuest::Clock(ms) => set_clock(ms),
                request @ (ToGuest::Stop
                | ToGuest::Begin
                | ToGuest::Speak
                | ToGuest::Get { .. }) => {
                    self.requests.push_back(request);
                }
            }
        }
        Ok(())
    }

    /// The oldest request that nobody has looked at.
    pub(super) fn next_request(&mut self) -> Option<ToGuest> {
        self.requests.pop_front()
    }

    /// Waits for a request.
    pub(super) fn request(&mut self) -> io::Result<ToGuest> {
        loop {
            if let Some(request) = self.requests.pop_front() {
                return Ok(request);
            }
            self.receive()?;
        }
    }

    /// Waits until the host has hung up.
    pub(super) fn wait_for_the_end(&mut self) -> io::Result<()> {
        loop {
            self.request()?;
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
