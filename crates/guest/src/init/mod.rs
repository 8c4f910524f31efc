//! Process 1 of the guest: makes the guest's world, runs one task in it, and says what it did.
//!
//! It must not know where the guest runs: devices come from the kernel's command line. It obeys
//! the host's few messages and nobody else; the program cannot reach it, having another user id
//! and no way out of its root.

pub mod start;

mod channel;
mod list;
mod mounts;
mod program;

use crate::message::{ToGuest, ToHost, VERSION};
use crate::task::{End, GuestTask, Record, TASK_FILE};
use channel::Channel;
use program::Program;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::system::{RebootCommand, reboot};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The root of the initial file system, where all else is mounted.
const ROOT: &str = "/root";
const DISK: &str = "/disk";
const CGROUP: &str = "/cgroup";

/// How often limits are looked at, in nanoseconds.
const LOOK_NS: i64 = 100_000_000;

/// Between two words of what was used so far, at least.
const NOTE: Duration = Duration::from_secs(1);

/// One read of a stream, in bytes: a frame's payload.
const READ_BYTES: usize = crate::frame::TO_HOST_MAX_BYTES;

/// Runs the guest. The machine is switched off at the end.
#[must_use]
pub fn main() -> ExitCode {
    if let Err(error) = guest() {
        // The console is the host's log of the kernel.
        let _nobody_reads = writeln!(io::stderr(), "gleaner-guest: {error}");
    }
    rustix::fs::sync();
    let _off = reboot(RebootCommand::PowerOff);
    ExitCode::FAILURE
}

fn guest() -> io::Result<()> {
    let begun = Instant::now();
    mounts::kernel()?;
    let wanted = mounts::Wanted::read()?;
    // The channel may be a device of theirs.
    mounts::modules()?;
    let mut channel = Channel::open(&wanted.channel)?;
    let served = serve(&mut channel, &wanted, begun);
    if let Err(error) = &served {
        channel.send(&ToHost::Trouble(error.to_string()))?;
    }
    // The host ends us when it has what it wants.
    served.and_then(|()| channel.wait_for_the_end())
}

fn serve(channel: &mut Channel, wanted: &mounts::Wanted, begun: Instant) -> io::Result<()> {
    mounts::disks(wanted)?;
    let text = std::fs::read(Path::new(DISK).join(TASK_FILE))?;
    let task: GuestTask = serde_json::from_slice(&text)?;
    let degraded = mounts::world(&task)?;
    let mut record = Record {
        degraded,
        ..Record::default()
    };
    let program = match task.waits {
        true => ahead(channel, &task, &mut record)?,
        false => {
            channel.send(&ToHost::Hello(VERSION))?;
            Program::start(&task, &mut record)
        }
    };
    match program {
        Ok((program, streams)) => {
            record.boot_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(0);
            channel.send(&ToHost::Started)?;
            let disk = mounts::Disk::open(wanted)?;
            watch(channel, program, streams, &disk, &mut record)?;
        }
        Err(error) => record.end = End::Failed(error.to_string()),
    }
    let json = serde_json::to_vec(&record)?;
    channel.send(&ToHost::Ended(json))?;
    list::serve(channel, &task.outputs)
}

/// Starts the program up to its first instruction, and lets it begin when the host says so. Whoever
/// does not want it any more ends the guest, and says nothing.
fn ahead(
    channel: &mut Channel,
    task: &GuestTask,
    record: &mut Record,
) -> io::Result<io::Result<(Program, [File; 2])>> {
    let program = Program::start(task, record);
    channel.send(&ToHost::Hello(VERSION))?;
    let mut stopped = false;
    let mut request = channel.request()?;
    while request != ToGuest::Begin {
        stopped |= request == ToGuest::Stop;
        request = channel.request()?;
    }
    if let Ok((program, _)) = &program {
        program.begin()?;
        if stopped {
            program.stop();
        }
    }
    Ok(program)
}

/// Carries the program's streams until nothing of it runs any more and all is said.
fn watch(
    channel: &mut Channel,
    mut program: Program,
    streams: [File; 2],
    disk: &mounts::Disk,
    record: &mut Record,
) -> io::Result<()> {
    let mut streams = streams.map(Some);
    let mut noted = Noted::default();
    let mut buffer = vec![0; READ_BYTES];
    while !program.is_over() || streams.iter().any(Option::is_some) {
        let woken = wait(channel, &program, &streams)?;
        if woken.channel {
            channel.receive()?;
        }
        while let Some(message) = channel.next_request() {
            match message {
                ToGuest::Stop => program.stop(),
                ToGuest::Speak => {
                    disk.answers()?;
                    channel.send(&ToHost::Here)?;
                }
                ToGuest::Taken(_) | ToGuest::Get { .. } | ToGuest::Clock(_) | ToGuest::Begin => {}
            }
        }
        if woken.program {
            program.hear()?;
        }
        for (stream, (ready, slot)) in woken.streams.into_iter().zip(&mut streams).enumerate() {
            if !ready {
                continue;
            }
            let bytes = take(slot, channel.room(), &mut buffer)?;
            match (bytes.is_empty(), stream) {
                (true, _) => {}
                (false, 0) => channel.send(&ToHost::Stdout(bytes))?,
                (false, _) => channel.send(&ToHost::Stderr(bytes))?,
            }
        }
        program.look(record);
        noted.tell(channel, &program, record)?;
    }
    program.finish(record);
    Ok(())
}

/// Takes what a stream has, as far as the host has room for it. Where the other stream has just
/// taken the last of that, there is nothing to be had, and the stream goes on all the same.
fn take(slot: &mut Option<File>, room: u64, buffer: &mut [u8]) -> io::Result<Vec<u8>> {
    let room = usize::try_from(room)
        .unwrap_or(usize::MAX)
        .min(buffer.len());
    let Some(file) = slot.as_mut().filter(|_| room > 0) else {
        return Ok(Vec::new());
    };
    let length = file.read(buffer.get_mut(..room).unwrap_or_default())?;
    if length == 0 {
        *slot = None;
    }
    Ok(buffer.get(..length).unwrap_or_default().to_vec())
}

/// What the host was told of the program's use last, and when.
#[derive(Default)]
struct Noted {
    told: Record,
    at: Option<Instant>,
}

impl Noted {
    /// Tells what is news; never waits for room, which the streams need more.
    fn tell(
        &mut self,
        channel: &mut Channel,
        program: &Program,
        record: &mut Record,
    ) -> io::Result<()> {
        if self.at.is_some_and(|at| at.elapsed() < NOTE) {
            return Ok(());
        }
        self.at = Some(Instant::now());
        program.count(record);
        if !record.is_news_to(&self.told) {
            return Ok(());
        }
        let json = serde_json::to_vec(&record)?;
        if channel.room() >= json.len() as u64 {
            channel.send(&ToHost::Noted(json))?;
            self.told = record.clone();
        }
        Ok(())
    }
}

/// What the poll woke us for.
struct Woken {
    channel: bool,
    program: bool,
    streams: [bool; 2],
}

fn wait(channel: &Channel, program: &Program, streams: &[Option<File>; 2]) -> io::Result<Woken> {
    let mut polls = vec![PollFd::new(channel, PollFlags::IN)];
    // Its end is told once; then the descriptor is at its end for good, and nothing to wait for.
    let runs = !program.is_over();
    if runs {
        polls.push(PollFd::new(program, PollFlags::IN));
    }
    // A program that writes more than the host takes waits in its own write.
    let room = channel.room() > 0;
    for stream in streams.iter().flatten().filter(|_| room) {
        polls.push(PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN));
    }
    let tick = Timespec {
        tv_sec: 0,
        tv_nsec: LOOK_NS,
    };
    match poll(&mut polls, Some(&tick)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut ready = polls.iter().map(|poll| !poll.revents().is_empty());
    let mut next = || ready.next().unwrap_or(false);
    Ok(Woken {
        channel: next(),
        program: runs && next(),
        streams: streams
            .each_ref()
            .map(|stream| stream.is_some() && room && next()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    #[test]
    fn a_stream_that_finds_no_room_is_not_at_its_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut slot = Some(File::from(OwnedFd::from(reader)));
        let mut buffer = [0; 8];
        writer.write_all(b"one two three").unwrap();
        assert_eq!(take(&mut slot, 0, &mut buffer).unwrap(), b"");
        assert!(slot.is_some());
        assert_eq!(take(&mut slot, 4, &mut buffer).unwrap(), b"one ");
        assert_eq!(take(&mut slot, u64::MAX, &mut buffer).unwrap(), b"two thre");
        drop(writer);
        assert_eq!(take(&mut slot, 9, &mut buffer).unwrap(), b"e");
        assert_eq!(take(&mut slot, 9, &mut buffer).unwrap(), b"");
        assert!(slot.is_none());
    }
}
