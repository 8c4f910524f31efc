//! The host's end: makes the scratch disk, starts the guest's kernel, and carries what goes
//! between the guest and the cage's scratch directory.
//!
//! It runs in the attempt's cage with no more rights than the kernel beside it. Everything that
//! the guest says is taken for what an enemy says: bounded, checked, and written below one
//! directory only. How it all went lies in [`crate::task::RECORD_FILE`] at the end.

mod accelerator;
mod disk;
mod outputs;
mod save;
mod saved;
mod signal;
mod stream;

use crate::message::{ToGuest, ToHost, VERSION};
use crate::task::{DISK_DIR, End, GuestTask, OUT_DIR, RECORD_FILE, Record, TASK_FILE};
use accelerator::Guest;
use outputs::Outputs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use save::Restored;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use stream::Stream;

/// The scratch disk's file; it loses its name as soon as the guest has it open.
const SCRATCH_IMAGE: &str = "scratch.img";

/// Most that one look adds to the time of silence: whatever lies between two looks beyond that,
/// we were frozen or waited for a processor ourselves, and so did the guest.
const LOOK: Duration = Duration::from_secs(1);

/// Serves one task, whose description lies in the working directory.
#[must_use]
pub fn main() -> ExitCode {
    let record = match attempt() {
        Ok(record) => record,
        Err(error) => Record {
            end: End::Failed(error.to_string()),
            ..Record::default()
        },
    };
    let written = serde_json::to_vec(&record)
        .map_err(io::Error::from)
        .and_then(|text| fs::write(RECORD_FILE, text));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn attempt() -> io::Result<Record> {
    // Before anything else: a stop must find us listening.
    let stop = signal::termination()?;
    let text = fs::read(Path::new(DISK_DIR).join(TASK_FILE))?;
    let task: GuestTask = serde_json::from_slice(&text)?;
    fs::create_dir_all(OUT_DIR)?;
    let restored = match save::restore(&task) {
        Ok(restored) => restored,
        Err(error) => {
            return Ok(Record {
                end: End::Unrestored(error.to_string()),
                ..Record::default()
            });
        }
    };
    let phase = match &restored {
        Some(_) => Phase::Program,
        None => Phase::Boot,
    };
    let Restored {
        guest,
        stream,
        disk,
    } = match restored {
        Some(restored) => restored,
        None => begin(&task)?,
    };
    let mut keeper = Keeper {
        outputs: Outputs::new(&task),
        task,
        guest,
        stream,
        disk,
        stop,
        silence: Duration::ZERO,
        looked: Instant::now(),
        phase,
        begun: Instant::now(),
    };
    let record = keeper.serve();
    keeper.guest.end();
    // Also where the guest never got as far as to open it.
    let _gone_already = fs::remove_file(SCRATCH_IMAGE);
    record
}

/// A guest that boots.
fn begin(task: &GuestTask) -> io::Result<Restored> {
    let image = Path::new(SCRATCH_IMAGE);
    disk::make(task, image)?;
    // Before the guest can be told from its kernel: later it has no name.
    let disk = File::open(image)?;
    let (guest, channel) = Guest::start(task, image, None)?;
    Ok(Restored {
        guest,
        stream: Stream::new(channel),
        disk,
    })
}

/// How far the guest is.
enum Phase {
    /// Until it says hello.
    Boot,
    /// Until the program has ended.
    Program,
    /// It tells what lies in scratch.
    Listing(Box<Record>),
    /// It sends what was asked for.
    Fetching(Box<Record>),
}

/// Everything about one running guest.
struct Keeper {
    task: GuestTask,
    guest: Guest,
    stream: Stream,
    /// The scratch disk, to be saved.
    disk: File,
    stop: OwnedFd,
    outputs: Outputs,
    silence: Duration,
    looked: Instant,
    phase: Phase,
    begun: Instant,
}

impl Keeper {
    /// Until the outputs are here, or the guest is of no more use.
    fn serve(&mut self) -> io::Result<Record> {
        loop {
            let (channel, console, stop) = self.wait()?;
            self.save_if_asked()?;
            if console {
                self.guest.read_console();
                // Such a kernel stands still instead of ending.
                if self.guest.has_panicked() {
                    return Err(self.died());
                }
            }
            if stop {
                signal::take(&self.stop);
                self.stream.send(ToGuest::Stop)?;
            }
            if channel {
                self.silence = Duration::ZERO;
                if !self.stream.receive()? {
                    return Err(self.died());
                }
                while let Some(message) = self.stream.message().map_err(|e| self.lies(&e))? {
                    if let Some(record) = self.hear(message)? {
                        return Ok(record);
                    }
                }
            }
            let waits = !matches!(self.phase, Phase::Program);
            let most = Duration::from_secs(self.task.silence_seconds.into());
            if waits && self.silence > most {
                return Err(self.silent());
            }
        }
    }

    fn wait(&mut self) -> io::Result<(bool, bool, bool)> {
        let console = self.guest.console();
        let mut polls = vec![
            PollFd::new(self.stream.socket(), PollFlags::IN),
            PollFd::new(&self.stop, PollFlags::IN),
        ];
        if let Some(console) = console {
            polls.push(PollFd::new(console, PollFlags::IN));
        }
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        match poll(&mut polls, Some(&second)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let now = Instant::now();
        self.silence += heard_nothing(now - self.looked);
        self.looked = now;
        let ready = |at: usize| {
            let poll = polls.get(at);
            poll.is_some_and(|poll| !poll.revents().is_empty())
        };
        Ok((ready(0), ready(2), ready(1)))
    }

    /// Takes one message. Gives the record when all is done.
    fn hear(&mut self, message: ToHost) -> io::Result<Option<Record>> {
        match (&mut self.phase, message) {
            (Phase::Boot, ToHost::Hello(VERSION)) => {
                // The guest has it open: from now on nobody can find it any more.
                fs::remove_file(SCRATCH_IMAGE)?;
                self.phase = Phase::Program;
            }
            (Phase::Boot, ToHost::Hello(other)) => {
                let text = format!("the guest speaks version {other}; build its image anew");
                return Err(io::Error::other(text));
            }
            (Phase::Program, ToHost::Started) => {}
            (Phase::Program, ToHost::Stdout(bytes)) => io::stdout().write_all(&bytes)?,
            (Phase::Program, ToHost::Stderr(bytes)) => io::stderr().write_all(&bytes)?,
            (Phase::Program, ToHost::Ended(json)) => {
                let mut record: Record = serde_json::from_slice(&json)?;
                let life = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                record.boot_ms = record.boot_ms.min(life);
                self.phase = Phase::Listing(Box::new(record));
            }
            (Phase::Listing(_), ToHost::Entry(entry)) => {
                self.outputs.offer(entry)?;
            }
            (Phase::Listing(record), ToHost::Listed) => {
                let mut record = std::mem::take(&mut **record);
                record.outputs_bytes = self.outputs.bytes();
                if record.outputs_bytes > self.task.output_bytes {
                    record.output_at = Some(now_ms());
                    record.end = End::Output;
                    return Ok(Some(record));
                }
                self.phase = Phase::Fetching(Box::new(record));
                return self.ask_next();
            }
            (Phase::Fetching(_), ToHost::Data(bytes)) => self.outputs.data(&bytes)?,
            (Phase::Fetching(_), ToHost::DataEnd(digest)) => {
                self.outputs.end(digest)?;
                return self.ask_next();
            }
            (_, ToHost::Trouble(text)) => {
                let text: String = text
                    .chars()
                    .take(1000)
                    .filter(|c| !c.is_control())
                    .collect();
                return Err(io::Error::other(format!("the guest gave up: {text}")));
            }
            _ => return Err(io::Error::other("the guest speaks out of turn")),
        }
        Ok(None)
    }

    /// Asks for the next output; the record where there is none left.
    fn ask_next(&mut self) -> io::Result<Option<Record>> {
        match self.outputs.next()? {
            Some((entry, offset)) => {
                self.stream.send(ToGuest::Get { entry, offset })?;
                Ok(None)
            }
            None => match &mut self.phase {
                Phase::Fetching(record) => Ok(Some(std::mem::take(&mut **record))),
                Phase::Boot | Phase::Program | Phase::Listing(_) => {
                    Err(io::Error::other("nothing was asked for"))
                }
            },
        }
    }

    fn died(&mut self) -> io::Error {
        let last = self.guest.last_words();
        io::Error::other(format!(
            "the guest's kernel ended by itself; its last words: {last}"
        ))
    }

    fn silent(&mut self) -> io::Error {
        let last = self.guest.last_words();
        io::Error::other(format!(
            "the guest was silent for {} s; its last words: {last}",
            self.task.silence_seconds
        ))
    }

    fn lies(&self, error: &io::Error) -> io::Error {
        io::Error::other(format!("the guest's words make no sense: {error}"))
    }
}

/// What a look after so long adds to the silence. One that comes late was kept waiting for a
/// processor, as the guest was: it counts less, but never for nothing, so that silence has an end.
fn heard_nothing(passed: Duration) -> Duration {
    let late = passed.saturating_sub(LOOK);
    passed.min(LOOK) - late.min(LOOK * 3 / 4)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_where_the_guest_could_have_spoken() {
        let ms = Duration::from_millis;
        for (passed, counts) in [(100, 100), (1000, 1000), (1500, 500), (60_000, 250)] {
            assert_eq!(heard_nothing(ms(passed)), ms(counts), "{passed}");
        }
    }
}
