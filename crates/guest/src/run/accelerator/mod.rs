//! What runs the guest's kernel: user-mode Linux, a kernel that is a program ([`uml`]), or QEMU,
//! a program that is a machine ([`qemu`]).
//!
//! Either way its disks are files, the channel is our socket, its last words come by a pipe, and
//! it has no network device. The cage around it is the boundary, not the kernel: it has access
//! to the cage's files if its guest takes it over, and to nothing else.

mod qemu;
mod qmp;
mod uml;

use crate::task::{Accelerator, GuestTask};
use qmp::Monitor;
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde_json::json;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _, pipe};
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where the guest's kernels and disks lie in the cage.
const GUEST_DIR: &str = "/run/guest";

/// What Linux says first when it cannot go on.
const PANIC: &str = "Kernel panic";

/// What it says of a disk that took or gave something no more.
const NO_DISK: &str = "I/O error, dev ";

/// The end of the console's text that is kept, in bytes.
const CONSOLE_BYTES: usize = 2048;

pub(super) struct Guest {
    child: Child,
    console: Option<PipeReader>,
    said: Vec<u8>,
    /// What was among it, which need not be at its end.
    panicked: bool,
    lost_a_disk: bool,
    /// The line to QEMU, before and after its greeting.
    line: Option<OwnedFd>,
    monitor: Option<Monitor>,
}

/// What a program gets by number.
struct Handed {
    channel: i32,
    /// QEMU's own.
    line: i32,
    /// The scratch disk, to be written and to be read: it may have no name when QEMU opens it
    /// once more, as it does for a save.
    disk: [i32; 2],
    /// What it goes on from.
    incoming: Option<i32>,
}

/// A program and its arguments.
struct Call {
    program: String,
    arguments: Vec<String>,
}

/// Longest that memory may take on its way to a file or back.
const MOVE_MAX: Duration = Duration::from_secs(300);

/// A socket to a program that finds its end by number.
fn socket() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty())?;
    Ok((ours, theirs))
}

impl Guest {
    /// Starts the kernel, or goes on with one that was saved, of which QEMU's part comes by this
    /// pipe. Gives our end of the channel.
    pub(super) fn start(
        task: &GuestTask,
        scratch: &Path,
        incoming: Option<PipeReader>,
    ) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socket()?;
        let (line, its_line) = socket()?;
        if let Some(file) = &incoming {
            rustix::io::fcntl_setfd(file, FdFlags::empty())?;
        }
        let disk = [
            File::options().read(true).write(true).open(scratch)?,
            File::open(scratch)?,
        ];
        for file in &disk {
            rustix::io::fcntl_setfd(file, FdFlags::empty())?;
        }
        let handed = Handed {
            disk: disk.each_ref().map(AsRawFd::as_raw_fd),
            channel: theirs.as_raw_fd(),
            line: its_line.as_raw_fd(),
            incoming: incoming.as_ref().map(AsRawFd::as_raw_fd),
        };
        let (console, writer) = pipe()?;
        let call = match task.machine.accelerator {
            Accelerator::Uml => uml::call(task, scratch, handed.channel),
            Accelerator::Kvm | Accelerator::Tcg => qemu::call(task, &handed),
        };
        let child = Command::new(&call.program)
            .args(call.arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("TMPDIR", "/dev/shm")
            .env("HOME", "/scratch/.tmp")
            .stdin(Stdio::null())
            .stderr(writer.try_clone()?)
            .stdout(writer)
            .spawn()
            .map_err(|error| {
                let program = call.program;
                io::Error::other(format!(
                    "the guest's kernel could not be started: {program}: {error}"
                ))
            })?;
        let guest = Self {
            child,
            console: Some(console),
            said: Vec::new(),
            panicked: false,
            lost_a_disk: false,
            line: Some(line),
            monitor: None,
        };
        Ok((guest, ours))
    }

    /// QEMU's ear.
    fn monitor(&mut self) -> io::Result<&mut Monitor> {
        let monitor = match (self.monitor.take(), self.line.take()) {
            (Some(monitor), _) => monitor,
            (None, Some(line)) => Monitor::greet(line)?,
            (None, None) => return Err(io::Error::other("nobody can be told to save this guest")),
        };
        Ok(self.monitor.insert(monitor))
    }

    /// Stands still, or goes on.
    pub(super) fn run(&mut self, on: bool) -> io::Result<()> {
        let word = if on { "cont" } else { "stop" };
        self.monitor()?.ask(word, json!({})).map(drop)
    }

    /// Writes memory and devices of one that stands still.
    pub(super) fn save(&mut self, to: &PipeWriter) -> io::Result<()> {
        self.monitor()?.migrate(to.as_fd(), MOVE_MAX)
    }

    /// Waits until one that was saved is there again; it stands still.
    pub(super) fn arrived(&mut self) -> io::Result<()> {
        self.monitor()?.arrived(MOVE_MAX)
    }

    /// Where the kernel's messages come from.
    pub(super) const fn console(&self) -> Option<&PipeReader> {
        self.console.as_ref()
    }

    /// Takes what the kernel says, and keeps the end of it.
    pub(super) fn read_console(&mut self) {
        let mut buffer = [0; 4096];
        let Some(console) = &mut self.console else {
            return;
        };
        match console.read(&mut buffer) {
            Ok(length) if length > 0 => {
                self.said.extend(buffer.get(..length).unwrap_or_default());
                let text = String::from_utf8_lossy(&self.said);
                self.panicked |= text.contains(PANIC);
                self.lost_a_disk |= text.contains(NO_DISK);
                let excess = self.said.len().saturating_sub(CONSOLE_BYTES);
                self.said.drain(..excess);
            }
            _ => self.console = None,
        }
    }

    /// Whether the kernel has given itself up.
    pub(super) const fn has_panicked(&self) -> bool {
        self.panicked
    }

    /// Whether one of its disks has failed. Its kernel may drop what a program had written, and
    /// the program need not hear of it.
    pub(super) const fn has_lost_a_disk(&self) -> bool {
        self.lost_a_disk
    }

    /// The end of what it said, as one line.
    pub(super) fn last_words(&mut self) -> String {
        // What is still in the pipe fits one read; more is not worth waiting for.
        let waiting = self.console.as_ref().is_some_and(|console| {
            rustix::io::ioctl_fionread(console).is_ok_and(|bytes| bytes > 0)
        });
        if waiting {
            self.read_console();
        }
        let text = String::from_utf8_lossy(&self.said);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let lines: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
        let panic = lines.iter().position(|line| line.contains(PANIC));
        let from = panic.unwrap_or_else(|| lines.len().saturating_sub(4));
        let words = lines.get(from..).unwrap_or_default().join(" | ");
        if words.is_empty() {
            return "none".to_owned();
        }
        words
            .chars()
            .filter(|c| !c.is_control())
            .take(500)
            .collect()
    }

    /// Whether the kernel's first process is gone.
    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Ends the kernel. Its processes end with the cage.
    pub(super) fn end(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The disks and the channel, as process 1 is told of them.
fn devices(disk: &str, channel: &str) -> Vec<String> {
    vec![
        format!("gl.channel={channel}"),
        format!("gl.root=/dev/{disk}a"),
        "gl.rootfs=erofs".to_owned(),
        format!("gl.scratch=/dev/{disk}b"),
    ]
}
