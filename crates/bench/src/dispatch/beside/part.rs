//! A program of a peer: in a process group of its own, which ends with it, and never waited for
//! without an end. What it is told and what that means is not known here.

use crate::{BenchError, Doing as _, Stop};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Time that a program has to end by itself; then its group is killed.
const END_WITHIN: Duration = Duration::from_secs(5);
/// Time between two looks whether a program is over: what a rate may be wrong by.
const LOOK: Duration = Duration::from_millis(5);
/// Time between two looks whether to stop while a line is waited for.
const LISTEN: Duration = Duration::from_millis(100);
/// Lines that a program may be ahead of who reads them.
const LINES_AHEAD_MAX: usize = 16;

/// How long to wait, and for whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until<'a> {
    pub(super) at: Instant,
    pub(super) within: Duration,
    pub(super) stop: &'a Stop,
}

impl<'a> Until<'a> {
    pub(super) fn within(within: Duration, stop: &'a Stop) -> Self {
        Self {
            at: Instant::now() + within,
            within,
            stop,
        }
    }

    /// An error where the time is up, or where the benchmark was told to stop.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        self.stop.check()?;
        match Instant::now() < self.at {
            true => Ok(()),
            false => Err(BenchError::Hung(self.within)),
        }
    }
}

/// A running program; it and its process group end with the value.
#[derive(Debug)]
pub(super) struct Part {
    process: Child,
}

impl Part {
    pub(super) fn start(command: &mut Command, what: &str) -> Result<Self, BenchError> {
        let process = command
            .process_group(0)
            .spawn()
            .doing(format!("start {what}"))?;
        Ok(Self { process })
    }

    /// What it reads, and what it prints line by line; they can be had once.
    pub(super) fn pipes(&mut self) -> Result<(ChildStdin, Lines), BenchError> {
        let (Some(orders), Some(answers)) = (self.process.stdin.take(), self.process.stdout.take())
        else {
            return Err(BenchError::Broken(
                "a peer was started without pipes".into(),
            ));
        };
        let (told, lines) = sync_channel(LINES_AHEAD_MAX);
        // The thread ends with the pipe, which ends with the program's group.
        std::thread::spawn(move || {
            for line in BufReader::new(answers).lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    break;
                }
            }
        });
        Ok((orders, Lines(lines)))
    }

    /// Waits until it is over.
    pub(super) fn wait(&mut self, until: Until<'_>) -> Result<ExitStatus, BenchError> {
        loop {
            if let Some(status) = self.process.try_wait().doing("wait for a peer")? {
                return Ok(status);
            }
            until.check()?;
            std::thread::sleep(LOOK);
        }
    }

    /// Whether it has ended; it keeps its number, and so does its group.
    fn is_over(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let pid = Pid::from_child(&self.process);
        !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.process);
        let _gone = kill_process_group(group, Signal::TERM);
        let asked = Instant::now();
        while !self.is_over() && asked.elapsed() < END_WITHIN {
            std::thread::sleep(LOOK);
        }
        let _gone = kill_process_group(group, Signal::KILL);
        let _status = self.process.wait();
    }
}

/// What a program prints, line by line.
#[derive(Debug)]
pub(super) struct Lines(Receiver<String>);

impl Lines {
    /// The next line, without blanks around it; nothing where the program prints no more.
    pub(super) fn next(&self, until: Until<'_>) -> Result<Option<String>, BenchError> {
        loop {
            match self.0.recv_timeout(LISTEN) {
                Ok(line) => return Ok(Some(line.trim().to_owned())),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => until.check()?,
            }
        }
    }
}
