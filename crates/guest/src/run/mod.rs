//! The host's end: makes the scratch disk, starts the guest's kernel, and carries what goes
//! between the guest and the cage's scratch directory.
//!
//! It runs in the attempt's cage with no more rights than the kernel beside it. Everything that
//! the guest says is taken for what an enemy says: bounded, checked, and written below one
//! directory only. How it all went lies in [`crate::task::RECORD_FILE`] at the end.

mod accelerator;
mod clock;
mod disk;
mod outputs;
mod save;
mod saved;
mod signal;
mod stream;

use crate::message::{ToGuest, ToHost, VERSION};
use crate::task::{
    BEGIN_FILE, BEGUN_FILE, DIED, DISK_DIR, End, GuestTask, NO_ROOM, NOTED_FILE, OUT_DIR,
    READY_FILE, RECORD_FILE, Record, SILENT, TASK_FILE,
};
use accelerator::Guest;
use clock::{Clock, now_ms};
use outputs::Outputs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use save::Restored;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use stream::Stream;

/// The scratch disk's file; it loses its name as soon as the guest has it open.
const SCRATCH_IMAGE: &str = "scratch.img";

/// Most that one look adds to the time of silence: whatever lies between two looks beyond that,
/// we were frozen or waited for a processor ourselves, and so did the guest.
const LOOK: Duration = Duration::from_secs(1);

/// The same while the guest waits for its task to begin, in nanoseconds: most of that time we are
/// frozen, and then there is hurry.
const LOOK_WAITING_NS: i64 = 2_000_000;

/// Longest silence of a guest that was booted ahead when its task begins; then another one is
/// booted. It need only answer.
const BEGIN_SILENCE: Duration = Duration::from_secs(20);

/// Serves one task, whose description lies in the working directory.
#[must_use]
pub fn main() -> ExitCode {
    let record = match attempt() {
        Ok(record) => record,
        Err(error) => Record {
            end: End::Failed(disk::because(&error)),
            ..noted()
        },
    };
    let written = serde_json::to_vec(&record)
        .map_err(io::Error::from)
        .and_then(|text| fs::write(RECORD_FILE, text));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::StorageFull => ExitCode::from(NO_ROOM),
        Err(_) => ExitCode::FAILURE,
    }
}

/// What the guest had said of its use before it was lost.
fn noted() -> Record {
    let text = fs::read(NOTED_FILE).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn attempt() -> io::Result<Record> {
    let begun = Instant::now();
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
    // It booted long ago, elsewhere; here it takes as long as to read it in.
    let (phase, waited) = match &restored {
        Some(_) => (Phase::Program, Some(begun.elapsed())),
        None => (Phase::Boot, None),
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
        asked: false,
        clock: Clock::new(begun, now_ms()),
        looked: Instant::now(),
        done: None,
        phase,
        begun,
        waited,
    };
    let mut record = keeper.serve();
    if record.is_err() && keeper.is_still_ahead() {
        keeper.boot_again()?;
        record = keeper.serve();
    }
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
    /// It has booted ahead of its task: until that is to begin.
    Waiting,
    /// Until its program says that it begins.
    Beginning,
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
    /// Whether it was asked to speak, and has said nothing since.
    asked: bool,
    looked: Instant,
    /// What the guest's clock is held against.
    clock: Clock,
    phase: Phase,
    /// The record, once all is here.
    done: Option<Record>,
    begun: Instant,
    /// From then to the beginning of a task that the guest waited for, or that goes on.
    waited: Option<Duration>,
}

impl Keeper {
    /// Until the outputs are here, or the guest is of no more use.
    fn serve(&mut self) -> io::Result<Record> {
        loop {
            let (channel, console, stop) = self.wait()?;
            self.save_if_asked()?;
            if matches!(self.phase, Phase::Waiting) {
                self.begin_if_asked()?;
            }
            if console {
                self.guest.read_console();
                // Such a kernel stands still instead of ending.
                if self.guest.has_panicked() {
                    return Err(self.died());
                }
                // What the program wrote there is lost, and it need not have heard of it.
                if self.guest.has_lost_a_disk() {
                    return Err(disk::fails(&self.guest.last_words()));
                }
            }
            if stop {
                signal::take(&self.stop);
                self.stream.send(ToGuest::Stop)?;
            }
            if channel {
                self.take()?;
            } else if self.guest.has_ended() {
                // Others of its processes may hold the channel open, and nobody is behind it.
                return Err(self.died());
            }
            if let Some(record) = self.done.take() {
                return Ok(record);
            }
            self.ask_if_silent()?;
            if self
                .longest_silence()
                .is_some_and(|most| self.silence > most)
            {
                return Err(self.silent());
            }
        }
    }

    /// Takes what the guest has said. Whatever it is, it is there.
    fn take(&mut self) -> io::Result<()> {
        (self.silence, self.asked) = (Duration::ZERO, false);
        if !self.stream.receive()? {
            return Err(self.died());
        }
        while let Some(message) = self.stream.message().map_err(|e| self.lies(&e))? {
            if let Some(record) = self.hear(message)? {
                self.done = Some(record);
            }
        }
        Ok(())
    }

    /// How long the guest may be silent now; as long as it likes where there is none.
    fn longest_silence(&self) -> Option<Duration> {
        let usual = Duration::from_secs(self.task.silence_seconds.into());
        match self.phase {
            Phase::Waiting => None,
            Phase::Beginning => Some(usual.min(BEGIN_SILENCE)),
            Phase::Boot | Phase::Program | Phase::Listing(_) | Phase::Fetching(_) => Some(usual),
        }
    }

    /// A program may be quiet for days; its guest may not.
    fn ask_if_silent(&mut self) -> io::Result<()> {
        let long = Duration::from_secs(self.task.silence_seconds.into()) / 4;
        if matches!(self.phase, Phase::Program) && self.silence >= long && !self.asked {
            self.stream.send(ToGuest::Speak)?;
            self.asked = true;
        }
        Ok(())
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
        let look = match self.phase {
            Phase::Waiting => Timespec {
                tv_sec: 0,
                tv_nsec: LOOK_WAITING_NS,
            },
            Phase::Boot
            | Phase::Beginning
            | Phase::Program
            | Phase::Listing(_)
            | Phase::Fetching(_) => Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            },
        };
        match poll(&mut polls, Some(&look)) {
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
        let ready = (ready(0), ready(2), ready(1));
        // One that is not there yet takes the time that it finds.
        let told = self.clock.looked(now, now_ms());
        if let (Some(ms), Phase::Program) = (told, &self.phase) {
            self.stream.send(ToGuest::Clock(ms))?;
        }
        Ok(ready)
    }

    /// Takes one message. Gives the record when all is done.
    fn hear(&mut self, message: ToHost) -> io::Result<Option<Record>> {
        match (&mut self.phase, message) {
            (Phase::Boot, ToHost::Hello(VERSION)) => {
                // The guest has it open: from now on nobody can find it any more.
                fs::remove_file(SCRATCH_IMAGE)?;
                self.phase = Phase::Program;
                if self.task.waits {
                    self.phase = Phase::Waiting;
                    fs::write(READY_FILE, "")?;
                }
            }
            (Phase::Boot, ToHost::Hello(other)) => {
                let text = format!("the guest speaks version {other}; build its image anew");
                return Err(io::Error::other(text));
            }
            (Phase::Program, ToHost::Started) => {}
            (Phase::Beginning, ToHost::Started) => {
                self.waited = Some(self.begun.elapsed());
                self.phase = Phase::Program;
                fs::write(BEGUN_FILE, "")?;
                let _stays = fs::remove_dir_all(DISK_DIR);
            }
            (Phase::Program, ToHost::Stdout(bytes)) => io::stdout().write_all(&bytes)?,
            (Phase::Program, ToHost::Stderr(bytes)) => io::stderr().write_all(&bytes)?,
            (Phase::Program | Phase::Beginning, ToHost::Ended(json)) => {
                let record = self.record(&json)?;
                self.phase = Phase::Listing(Box::new(record));
            }
            (Phase::Program, ToHost::Noted(json)) => {
                // Whole or not at all, for who reads it after we were killed.
                let part = format!("{NOTED_FILE}.part");
                fs::write(&part, serde_json::to_vec(&self.record(&json)?)?)?;
                fs::rename(part, NOTED_FILE)?;
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
            (_, ToHost::Here) => {}
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

    /// What the guest says of its task, with the boot as we saw it.
    fn record(&self, json: &[u8]) -> io::Result<Record> {
        let mut record: Record = serde_json::from_slice(json)?;
        let boot = record.boot_ms.min(ms(self.begun.elapsed()));
        let ahead = self.task.waits.then(|| self.begun.elapsed());
        record.boot_ms = self.waited.or(ahead).map_or(boot, ms);
        Ok(record)
    }

    /// Lets the task of a guest that was booted ahead begin.
    fn begin_if_asked(&mut self) -> io::Result<()> {
        if fs::exists(BEGIN_FILE)? {
            self.phase = Phase::Beginning;
            self.silence = Duration::ZERO;
            // Its clock may have stood still with us.
            self.stream.send(ToGuest::Clock(now_ms()))?;
            self.stream.send(ToGuest::Begin)?;
        }
        Ok(())
    }

    /// Whether the guest was booted ahead and nothing of its task has run.
    const fn is_still_ahead(&self) -> bool {
        let phase = matches!(self.phase, Phase::Boot | Phase::Waiting | Phase::Beginning);
        self.task.waits && phase
    }

    /// A guest that was lost while it waited costs time only: another one gets a disk of its own.
    fn boot_again(&mut self) -> io::Result<()> {
        self.guest.end();
        let _it_has_no_name = fs::remove_file(SCRATCH_IMAGE);
        let Restored {
            guest,
            stream,
            disk,
        } = begin(&self.task)?;
        (self.guest, self.stream, self.disk) = (guest, stream, disk);
        (self.phase, self.silence) = (Phase::Boot, Duration::ZERO);
        Ok(())
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
                Phase::Boot
                | Phase::Waiting
                | Phase::Beginning
                | Phase::Program
                | Phase::Listing(_) => Err(io::Error::other("nothing was asked for")),
            },
        }
    }

    fn died(&mut self) -> io::Error {
        let last = self.guest.last_words();
        io::Error::other(format!("{DIED}; its last words: {last}"))
    }

    fn silent(&mut self) -> io::Error {
        let last = self.guest.last_words();
        io::Error::other(format!(
            "{SILENT} for {} s; its last words: {last}",
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

/// How long, in whole milliseconds.
fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
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
