//! One event device.

use crate::moment::Moment;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Size of an event as the kernel writes it.
const EVENT_BYTES: usize = size_of::<libc::input_event>();

/// Most events taken at once; the kernel keeps about as many for a reader and drops the rest.
const EVENTS_MAX: usize = 64;

/// Requests the clock of a device's times (Linux, `include/uapi/linux/input.h`: `_IOW('E', 0xa0,
/// int)`).
const EVIOCSCLOCKID: u32 = 0x4004_45a0;

/// Kinds of events that people cause: keys and buttons, relative and absolute motion, switches
/// (a lid, a plugged-in headphone). All others are separators or come from programs.
const OF_PEOPLE: &[u16] = &[0x01, 0x02, 0x03, 0x05];

/// A device that people use.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) fd: OwnedFd,
    /// The kernel stamps its events with the time since boot.
    stamped: bool,
}

/// What came of reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Nothing,
    Touched(Moment),
    Gone,
}

impl Device {
    pub(super) fn open(path: &Path, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        let clock: libc::c_int = libc::CLOCK_BOOTTIME;
        // SAFETY: the descriptor is open, and the request reads one int behind the pointer, which
        // outlives the call.
        let done = unsafe { libc::ioctl(fd.as_raw_fd(), EVIOCSCLOCKID.into(), &raw const clock) };
        Ok(Self {
            name: name.to_owned(),
            fd,
            stamped: done == 0,
        })
    }

    /// Takes what is there, up to one buffer.
    pub(super) fn read(&self, now: Moment) -> Reading {
        let mut bytes = [0_u8; EVENT_BYTES * EVENTS_MAX];
        let reading = match rustix::io::read(&self.fd, &mut bytes) {
            Ok(0) => Reading::Gone,
            Ok(read) => latest(&bytes[..read], self.stamped, now),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Reading::Nothing,
            Err(_) => Reading::Gone,
        };
        // Which keys they were stays here.
        bytes.fill(0);
        std::hint::black_box(&bytes);
        reading
    }
}

/// The time of the last event that somebody caused. A device whose clock is not the kernel's is
/// not believed: then it is now.
fn latest(bytes: &[u8], stamped: bool, now: Moment) -> Reading {
    let events = bytes.chunks_exact(EVENT_BYTES);
    let last = events.rev().find(|event| OF_PEOPLE.contains(&kind(event)));
    match last {
        None => Reading::Nothing,
        Some(event) if stamped => Reading::Touched(time(event).map_or(now, |at| at.min(now))),
        Some(_) => Reading::Touched(now),
    }
}

/// The event's type, eight bytes before its end; code and value, behind it, are not looked at.
fn kind(event: &[u8]) -> u16 {
    let at = EVENT_BYTES - 8;
    u16::from_ne_bytes([event[at], event[at + 1]])
}

/// The event's time where the layout is that of 64-bit kernels: seconds, then microseconds.
fn time(event: &[u8]) -> Option<Moment> {
    if EVENT_BYTES != 24 {
        return None;
    }
    let word = |at: usize| -> Option<u64> {
        let bytes: [u8; 8] = event.get(at..at + 8)?.try_into().ok()?;
        u64::try_from(i64::from_ne_bytes(bytes)).ok()
    };
    let seconds = Duration::from_secs(word(0)?);
    Some(Moment::at(
        seconds.checked_add(Duration::from_micros(word(8)?))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event as the kernel writes it.
    fn event(seconds: i64, kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(seconds.to_ne_bytes());
        bytes.extend(0_i64.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(code.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_what_people_cause_counts() {
        let now = Moment::at(Duration::from_secs(1000));
        let table = [
            (0x00, false), // a separator
            (0x01, true),  // a key
            (0x02, true),  // a mouse
            (0x03, true),  // a touch screen
            (0x04, false), // a scan code, beside its key
            (0x05, true),  // a lid
            (0x11, false), // a light that a program switches
            (0x12, false), // a beep
            (0x15, false), // a rumble
        ];
        for (kind, counts) in table {
            let reading = latest(&event(990, kind, 30, 1), true, now);
            assert_eq!(reading != Reading::Nothing, counts, "type {kind:#x}");
        }
    }

    #[test]
    fn times_are_the_kernels_and_never_ahead() {
        let now = Moment::at(Duration::from_secs(1000));
        let at = |seconds, stamped| latest(&event(seconds, 1, 30, 1), stamped, now);
        let earlier = Moment::at(Duration::from_secs(990));
        assert_eq!(at(990, true), Reading::Touched(earlier));
        assert_eq!(at(5000, true), Reading::Touched(now), "a clock ahead");
        assert_eq!(at(-5, true), Reading::Touched(now), "a broken clock");
        assert_eq!(at(990, false), Reading::Touched(now), "an unknown clock");
    }

    #[test]
    fn half_an_event_is_none() {
        let now = Moment::now();
        let bytes = event(990, 1, 30, 1);
        assert_eq!(latest(&bytes[..10], true, now), Reading::Nothing);
        assert_eq!(latest(&[], true, now), Reading::Nothing);
    }
}
