//! The cage: everything that stands between a task and the PC.
//!
//! Three processes, each less trusted than the one before: the shim (outside, in
//! [`crate::shim`]), the [`zygote`] that holds what the cages of a bundle share (user, net and
//! uts namespace and a prepared root), and in each cage an [`init`] that confines itself for
//! good before it starts the program. It must not know of limits, leases or messages to the
//! agent. Nothing here runs in a process with more than one thread.

pub(crate) mod etc;
pub(crate) mod init;
mod ipc;
pub(crate) mod landlock;
pub(crate) mod root;
pub(crate) mod seccomp;
pub(crate) mod sys;
mod user;
pub(crate) mod zygote;

use std::io;

/// Most cages of one bundle at a time, each with a user id of its own where we may give one.
pub(crate) const SLOTS: u32 = 64;

/// User ids of one bundle: one for each slot, and the zygote's.
pub(crate) const UIDS_OF_BUNDLE: u32 = SLOTS + 1;

/// The first user id inside a cage; the usual first one of a person. Never 0.
pub(crate) const INNER_UID_FIRST: u32 = 1000;

/// A cage could not be built: what was being done, and what the kernel said.
#[derive(Debug, thiserror::Error)]
#[error("failed to {doing}: {source}{}", hint(.doing, .source))]
pub(crate) struct Trouble {
    doing: &'static str,
    source: io::Error,
}

impl Trouble {
    /// For `map_err`: names what was being done.
    pub(crate) fn at<E: Into<io::Error>>(doing: &'static str) -> impl Fn(E) -> Self {
        move |error| Self {
            doing,
            source: error.into(),
        }
    }
}

/// What the reader can do about the usual causes.
fn hint(doing: &str, source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) if doing.contains("namespace") => {
            "; unprivileged user namespaces are forbidden here: run `gleaner doctor`"
        }
        Some(libc::ENOSPC) if doing.contains("namespace") => {
            "; raise the limits under /proc/sys/user"
        }
        Some(libc::ENOSYS) => "; Linux 5.12 or later is needed",
        _ => "",
    }
}
