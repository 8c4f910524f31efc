//! Where shims come from: one small process of this program, which copies itself when asked.
//!
//! To execute the program anew for each shim costs more than all that a shim then prepares: the
//! loader finds out about the processor and binds three libraries each time. The agent has threads
//! and cannot be copied, so it starts one process that has none (`gleaner` executed again) and does
//! nothing but wait for orders. An order is a bundle's directory with the shim's two descriptors.
//! It is not answered: where no shim comes of it the descriptors are closed, and the agent finds its
//! end of the socket closed, as with a shim that died.
//!
//! It must not know what a bundle is. It ends with its agent; its shims do not.

use crate::cage::sys;
use crate::message::{buffer, receive, send};
use crate::shim;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};

/// Name of the hidden command that makes the binary a shim.
pub(crate) const SHIM_COMMAND: &str = "__shim";

/// Name of the hidden command that makes it a process that shims are copied from.
pub(crate) const NURSERY_COMMAND: &str = "__nursery";

/// Room for the arguments by which a shim is told from others in listings of processes: the
/// longest path there is.
const ARGUMENTS_BYTES: usize = 4096;

/// A shim to be.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    dir: PathBuf,
}

/// The agent's hold on it.
#[derive(Debug, Default)]
pub(super) struct Nursery(Mutex<Option<Running>>);

#[derive(Debug)]
struct Running {
    socket: OwnedFd,
    process: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _closed = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let _reaped = self.process.wait();
    }
}

impl Nursery {
    /// Makes a shim for the bundle in `dir`, with its end of the agent's socket and its log.
    pub(super) fn shim(
        &self,
        executable: &Path,
        dir: &Path,
        with: [BorrowedFd<'_>; 2],
    ) -> io::Result<()> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let order = Order {
            dir: dir.to_owned(),
        };
        if let Some(there) = &*running
            && send(&there.socket, &order, &with, SendFlags::empty()).is_ok()
        {
            return Ok(());
        }
        // None yet, or it was killed.
        let new = running.insert(Running::start(executable)?);
        send(&new.socket, &order, &with, SendFlags::empty())
    }
}

impl Running {
    fn start(executable: &Path) -> io::Result<Self> {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
        let process = Command::new(executable)
            .arg0("gleaner")
            .arg(NURSERY_COMMAND)
            .arg(" ".repeat(ARGUMENTS_BYTES))
            .env_clear()
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let socket = ours;
        Ok(Self { socket, process })
    }
}

/// Copies itself for each order until the agent is gone; standard input is its socket.
pub(crate) fn main() -> ExitCode {
    sys::reset_signals();
    // A Ctrl-C is the agent's to act on.
    let _leads_already = rustix::process::setsid();
    // SAFETY: descriptor 0 is ours from birth and nothing else here uses it.
    let socket = unsafe { OwnedFd::from_raw_fd(0) };
    // Above the standard ones, which the copies fill anew.
    let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(&socket, 3) else {
        return ExitCode::FAILURE;
    };
    let mut buffer = buffer();
    let mut shims = Vec::new();
    loop {
        if !wait(&socket, &mut shims) {
            continue;
        }
        let order = receive::<Order>(&socket, &mut buffer, RecvFlags::empty());
        let Ok(Some((order, descriptors))) = order else {
            return ExitCode::SUCCESS;
        };
        match sys::copy_self() {
            Ok(None) => {
                drop((socket, shims));
                return hatch(&order.dir, descriptors);
            }
            Ok(Some(pid)) => {
                let pid = Pid::from_raw(pid);
                shims.extend(pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()));
            }
            Err(error) => tell(&descriptors, &error),
        }
    }
}

/// Waits until something happens and takes ended shims off the kernel: what they used is counted
/// with us from then on. Says whether there is an order.
fn wait(socket: &OwnedFd, shims: &mut Vec<OwnedFd>) -> bool {
    let all = std::iter::once(socket).chain(&*shims);
    let mut polls: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    // An interrupted poll is the same as one that saw nothing.
    let _interrupted = poll(&mut polls, None);
    let ready: Vec<bool> = polls
        .iter()
        .map(|poll| !poll.revents().is_empty())
        .collect();
    let mut ended = ready.iter().skip(1);
    shims.retain(|shim| {
        let over = ended.next() == Some(&true);
        if over {
            let _reaped = waitid(WaitId::PidFd(shim.as_fd()), WaitIdOptions::EXITED);
        }
        !over
    });
    ready.first() == Some(&true)
}

/// In the copy: becomes the shim.
fn hatch(dir: &Path, descriptors: Vec<OwnedFd>) -> ExitCode {
    let Ok([agent, log]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return ExitCode::FAILURE;
    };
    let placed = rustix::stdio::dup2_stdin(&agent).and_then(|()| rustix::stdio::dup2_stderr(&log));
    drop((agent, log));
    if placed.is_err() {
        return ExitCode::FAILURE;
    }
    let mut words = b"gleaner\0".to_vec();
    for word in [SHIM_COMMAND.as_bytes(), dir.as_os_str().as_bytes()] {
        words.extend_from_slice(word);
        words.push(0);
    }
    // Listings show the nursery's otherwise, which harms nobody.
    let _unnamed = sys::set_arguments(&words);
    shim::main(dir)
}

/// Writes to the log of the shim that there will not be.
fn tell(descriptors: &[OwnedFd], error: &io::Error) {
    if let Some(log) = descriptors.get(1) {
        let line = format!("the shim could not be copied: {error}\n");
        let _full = rustix::io::write(log, line.as_bytes());
    }
}
