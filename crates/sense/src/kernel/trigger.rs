//! Asking the kernel to say at once when somebody waits too long.

use crate::event::SenseEvent;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What is too long, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Memory,
    Disk,
}

impl Limit {
    /// The kernel's name of the resource.
    pub(super) const fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "io",
        }
    }

    /// Share of a second in which somebody waited. Waiting for memory is felt at once, since it
    /// hits programs that do not touch a disk; a disk is waited for now and then by everybody.
    pub(super) const fn thousandths(self) -> u16 {
        match self {
            Self::Memory => 50,
            Self::Disk => 150,
        }
    }

    pub(super) const fn event(self) -> SenseEvent {
        match self {
            Self::Memory => SenseEvent::MemoryPressed,
            Self::Disk => SenseEvent::DiskPressed,
        }
    }
}

/// An armed trigger; closing its file ends it.
#[derive(Debug)]
pub(super) struct Trigger {
    fd: OwnedFd,
    limit: Limit,
}

impl Trigger {
    /// Arms one over a second, or over two where the kernel lets users without privilege have
    /// whole multiples of two seconds only.
    pub(super) fn arm(file: &Path, limit: Limit) -> io::Result<Self> {
        Self::over(file, limit, 1).or_else(|_| Self::over(file, limit, 2))
    }

    fn over(file: &Path, limit: Limit, seconds: u32) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(file, flags, Mode::empty())?;
        let window = seconds * 1_000_000;
        let stall = window / 1000 * u32::from(limit.thousandths());
        // The kernel cuts off the last byte.
        let line = format!("some {stall} {window}\0");
        rustix::io::write(&fd, line.as_bytes())?;
        Ok(Self { fd, limit })
    }

    pub(super) const fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) const fn limit(&self) -> Limit {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against this kernel, where it has pressure and lets us ask.
    #[test]
    fn the_kernel_takes_it() {
        for limit in [Limit::Memory, Limit::Disk] {
            let file = Path::new("/proc/pressure").join(limit.resource());
            match Trigger::arm(&file, limit) {
                Ok(trigger) => assert_eq!(trigger.limit(), limit),
                Err(error) => assert!(
                    matches!(
                        error.kind(),
                        io::ErrorKind::NotFound
                            | io::ErrorKind::Unsupported
                            | io::ErrorKind::PermissionDenied
                            | io::ErrorKind::ReadOnlyFilesystem
                    ),
                    "{error}"
                ),
            }
        }
    }

    #[test]
    fn the_line_is_what_the_kernel_wants() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let armed = Trigger::arm(file.path(), Limit::Memory).unwrap();
        let line = std::fs::read(file.path()).unwrap();
        assert_eq!(line, b"some 50000 1000000\0");
        drop(armed);
    }
}
