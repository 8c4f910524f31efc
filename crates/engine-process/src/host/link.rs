//! The agent's end of one shim: its process, its socket, and a thread that listens.

use super::nursery::Nursery;
use crate::bundle::{Bundle, private_dir, with_address};
use crate::message::{Foreign, FromShim, ToShim, buffer, receive, send};
use gleaner_engine::{Ending, EngineError};
use gleaner_model::{AttemptId, Reason, Time};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, socket_with, socketpair,
};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a shim may leave its socket full before it is taken to hang.
const SEND_WAIT: Duration = Duration::from_secs(2);

/// How long an adopted shim may take to say what runs.
const GREETING_WAIT: Duration = Duration::from_secs(5);

/// One shim, as the agent sees it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) bundle: Arc<Bundle>,
    socket: OwnedFd,
}

/// What runs in an adopted shim, and since when.
pub(crate) type Running = Vec<(AttemptId, Option<Time>)>;

impl Link {
    /// Starts a shim for a bundle whose directory does not exist yet.
    pub(super) fn spawn(
        bundle: Bundle,
        executable: &Path,
        nursery: &Nursery,
    ) -> Result<Arc<Self>, EngineError> {
        let made = || -> io::Result<()> {
            for dir in [bundle.dir.clone(), bundle.runs(), bundle.cages()] {
                private_dir(&dir)?;
            }
            // The zygote, who has an id of its own, looks up scratch directories here.
            if let Some(first) = bundle.uid_first {
                let id = first + crate::cage::SLOTS;
                std::os::unix::fs::chown(bundle.cages(), Some(id), Some(id))?;
            }
            crate::bundle::write_whole(&Bundle::file(&bundle.dir), &bundle)
        };
        made().map_err(|error| EngineError::io("make the directory of a bundle", error))?;
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        );
        let (ours, theirs) = pair.map_err(|error| EngineError::io("make a socket", error))?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(bundle.dir.join("shim.log"));
        let log = log.map_err(|error| EngineError::io("open the shim's log", error))?;
        nursery
            .shim(executable, &bundle.dir, [theirs.as_fd(), log.as_fd()])
            .map_err(|error| EngineError::io("start a shim", error))?;
        let link = Arc::new(Self {
            bundle: Arc::new(bundle),
            socket: ours,
        });
        Ok(link)
    }

    /// Finds the shim that an earlier agent left. It says first what it runs.
    pub(crate) fn adopt(bundle: Arc<Bundle>) -> io::Result<(Arc<Self>, Running)> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        with_address(&bundle.dir, |address| Ok(connect(&socket, address)?))?;
        wait_for(&socket, PollFlags::IN, GREETING_WAIT)?;
        let greeting = receive::<FromShim>(&socket, &mut buffer(), RecvFlags::empty())?;
        match greeting {
            Some((FromShim::Running(running), _)) => {
                Ok((Arc::new(Self { bundle, socket }), running))
            }
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Sends a message; waits a bounded time where the shim is busy.
    pub(crate) fn send(&self, message: &ToShim) -> io::Result<()> {
        loop {
            match send(&self.socket, message, &[], SendFlags::DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait_for(&self.socket, PollFlags::OUT, SEND_WAIT)?;
                }
                done => return done,
            }
        }
    }

    /// The next message that is understood; none when the shim is gone.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Option<FromShim> {
        loop {
            match receive::<FromShim>(&self.socket, buffer, RecvFlags::empty()) {
                Ok(Some((message, _none))) => return Some(message),
                Ok(None) => return None,
                Err(error) => {
                    tracing::warn!(bundle = %self.bundle.lease, %error, "a shim is not understood");
                    let foreign = Foreign::behind(&error)?;
                    let ended = foreign.attempt.filter(|_| foreign.word == "Ended");
                    if let Some(attempt) = ended {
                        return Some(ended_somehow(attempt));
                    }
                }
            }
        }
    }

    /// Makes the listening thread's next receive find the end.
    pub(crate) fn hang_up(&self) {
        let _gone = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

/// An attempt that nobody would say any more of, and which would be waited for otherwise.
fn ended_somehow(attempt: AttemptId) -> FromShim {
    let detail = "it ended in a way that this version of gleaner does not know; install the one \
                  that began it, or a later one";
    let reason = Reason::Engine {
        detail: detail.to_owned(),
    };
    FromShim::Ended {
        attempt,
        ending: Box::new(Ending::bare(reason, crate::log::now())),
    }
}

fn wait_for(socket: &OwnedFd, what: PollFlags, longest: Duration) -> io::Result<()> {
    let timeout = Timespec {
        tv_sec: i64::try_from(longest.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    let mut polls = [PollFd::from_borrowed_fd(socket.as_fd(), what)];
    match poll(&mut polls, Some(&timeout)) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
