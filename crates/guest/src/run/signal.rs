//! The one signal that means something: the cage's init passes on that the task should end.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// A descriptor that can be read when SIGTERM has come, which ends nobody any more.
pub(super) fn termination() -> io::Result<OwnedFd> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to memory for one set, which the call fills.
    let _always = unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: filled just now.
    let mut set = unsafe { set.assume_init() };
    // SAFETY: a whole set and the number of a signal.
    let _always = unsafe { libc::sigaddset(&raw mut set, libc::SIGTERM) };
    // SAFETY: a whole set, and no place for the old one. This process has one thread.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: a whole set; -1 asks for a new descriptor.
    let raw = unsafe { libc::signalfd(-1, &raw const set, flags) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Takes the signal off the descriptor.
pub(super) fn take(descriptor: &OwnedFd) {
    let _none_left = rustix::io::read(descriptor, &mut [0; size_of::<libc::signalfd_siginfo>()]);
}
