//! Saving a guest and going on from one: what has to stand still for it, and in which order.
//!
//! The guest stands still, then nothing may be on its way in the channel: what came is taken,
//! what we sent must have been read. Then both ends of the channel lie between two frames, or in
//! the middle of one of which we hold the part that came, and that is written down with the rest.

use super::saved::{self, Head, Most};
use super::stream::Stream;
use super::{Keeper, Phase, SCRATCH_IMAGE, disk};
use crate::message::{ToGuest, VERSION};
use crate::run::accelerator::Guest;
use crate::task::{ANSWER_FILE, GuestTask, RESTORE_FILE, SAVE_FILE, SAVED_FILE, Saved};
use std::fs::{self, File};
use std::io::{self, Write as _, pipe};
use std::path::Path;
use std::thread;

/// A saved guest in the making.
const PART: &str = "guest.part";

/// Tries to find a moment in which nothing is on its way: a guest that writes all the time is
/// told all the time how much was taken.
const TRIES: u32 = 200;

/// Silence after which nothing comes any more from a guest that stands still, in nanoseconds.
const QUIET_NS: i64 = 20_000_000;

impl Keeper {
    /// Does what was asked, if something was.
    pub(super) fn save_if_asked(&mut self) -> io::Result<()> {
        let Ok(text) = fs::read_to_string(SAVE_FILE) else {
            return Ok(());
        };
        fs::remove_file(SAVE_FILE)?;
        let Ok(number) = text.trim().parse() else {
            return Ok(());
        };
        let error = self.save().err().map(|error| error.to_string());
        let answer = serde_json::to_vec(&Saved { number, error })?;
        let part = format!("{ANSWER_FILE}.part");
        fs::write(&part, answer)?;
        fs::rename(part, ANSWER_FILE)
    }

    fn save(&mut self) -> io::Result<()> {
        if !matches!(self.phase, Phase::Program) {
            return Err(io::Error::other(
                "it cannot be saved before its program runs nor after that has ended",
            ));
        }
        let saved = self.stand_still().and_then(|()| self.write());
        // Also where it never stood still.
        let goes_on = self.guest.run(true);
        // Its clock stood still with it.
        let told = goes_on.and_then(|()| self.stream.send(ToGuest::Clock(super::now_ms())));
        if let Err(error) = saved.and(told) {
            let _never_begun = fs::remove_file(PART);
            return Err(error);
        }
        fs::rename(PART, SAVED_FILE)
    }

    /// Until nothing is on its way in either direction.
    fn stand_still(&mut self) -> io::Result<()> {
        for _ in 0..TRIES {
            self.guest.run(false)?;
            while self.stream.comes_within(QUIET_NS)? {
                self.take()?;
            }
            if !matches!(self.phase, Phase::Program) {
                return Err(io::Error::other("its program has ended meanwhile"));
            }
            if self.stream.all_read() {
                return Ok(());
            }
            self.guest.run(true)?;
        }
        Err(io::Error::other("its guest writes without a pause"))
    }

    fn write(&mut self) -> io::Result<()> {
        let stream = |name: &str| File::open(format!("/proc/self/fd/{name}"));
        let streams = [stream("1")?, stream("2")?];
        let (machine, base) = (self.task.machine.clone(), self.task.base.clone());
        let head = Head::new(machine, base, self.task.guest_mib, self.stream.state());
        let packer = saved::write(head, &streams, &self.disk, File::create(PART)?)?;
        let (reader, writer) = pipe()?;
        let packs = thread::spawn(move || saved::finish(packer, reader));
        let told = self.guest.save(&writer);
        drop(writer);
        if let Err(error) = told {
            // Where it is why, as on a full disk, it has ended.
            let packed = packs.is_finished().then(|| packs.join());
            let why = packed.and_then(|packed| packed.ok()?.err());
            let why = why.map_or_else(String::new, |why| format!("{why}: "));
            let last = self.guest.last_words();
            return Err(io::Error::other(format!(
                "{why}{error}; its last words: {last}"
            )));
        }
        // Its own end was closed when it was done.
        let packed = packs.join();
        packed.map_err(|_| io::Error::other("what was saved could not be packed"))??;
        if self.stream.comes_within(0)? {
            return Err(io::Error::other("its guest spoke while it was saved"));
        }
        Ok(())
    }
}

/// A guest that goes on, our end of its channel, and its disk.
pub(super) struct Restored {
    pub(super) guest: Guest,
    pub(super) stream: Stream,
    pub(super) disk: File,
}

/// Goes on with the guest in [`RESTORE_FILE`], if there is one.
pub(super) fn restore(task: &GuestTask) -> io::Result<Option<Restored>> {
    let mut file = match File::open(RESTORE_FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let head = saved::head(&mut file)?;
    fits(&head, task)?;
    let mut options = File::options();
    let disk = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(SCRATCH_IMAGE)?;
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let mut unpacker = saved::unpacker(file);
    let most = Most {
        streams: task.output_bytes,
        disk: disk::size(task).1,
    };
    saved::unpack(&head, &mut unpacker, [&mut out, &mut err], &disk, most)?;
    out.flush()?;
    let (reader, mut writer) = pipe()?;
    let (mut guest, channel) = Guest::start(task, Path::new(SCRATCH_IMAGE), Some(reader))?;
    // Ends with what there is, or with the guest that reads it.
    thread::spawn(move || io::copy(&mut unpacker, &mut writer));
    let arrived = guest.arrived().and_then(|()| guest.run(true));
    if let Err(error) = arrived {
        let last = guest.last_words();
        guest.end();
        return Err(io::Error::other(format!("{error}; its last words: {last}")));
    }
    for name in [SCRATCH_IMAGE, RESTORE_FILE] {
        fs::remove_file(name)?;
    }
    let mut stream = Stream::resumed(channel, head.channel);
    stream.send(ToGuest::Clock(super::now_ms()))?;
    Ok(Some(Restored {
        guest,
        stream,
        disk,
    }))
}

/// Whether what was saved can go on here.
fn fits(head: &Head, task: &GuestTask) -> io::Result<()> {
    let differs = |what: &str, was: &dyn std::fmt::Display, is: &dyn std::fmt::Display| {
        Err(io::Error::other(format!(
            "{what} differs: it was saved with {was}, and here it is {is}"
        )))
    };
    if head.machine != task.machine {
        return differs("the machine", &head.machine, &task.machine);
    }
    if head.base != task.base {
        return differs("the base image", &head.base, &task.base);
    }
    if head.protocol != VERSION {
        return differs(
            "the version of the guest's program",
            &head.protocol,
            &VERSION,
        );
    }
    if head.guest_mib != task.guest_mib {
        return differs("the memory in MiB", &head.guest_mib, &task.guest_mib);
    }
    Ok(())
}
