//! Wayland compositors: idleness by `ext_idle_notifier_v1`, or by its older sibling
//! `org_kde_kwin_idle`; full screen by `zwlr_foreign_toplevel_manager_v1` where it is.
//!
//! The protocol is spoken directly: four interfaces, no buffers, no descriptors. Titles and names
//! of programs that a compositor sends along are skipped unread.

mod proxy;
mod socket;

use super::Desk;
use crate::moment::Moment;
use crate::thread::Stop;
use proxy::{Event, Objects};
use socket::Socket;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How long nobody must touch anything for a seat to be idle: the resolution of the word.
const IDLE: Duration = Duration::from_secs(1);

/// How often the word is confirmed.
const BEAT: Duration = Duration::from_secs(1);

/// Most seats that are looked at.
const SEATS_MAX: usize = 8;

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The compositor is gone, or it is time to end.
    Gone,
    /// The compositor does not tell about idleness.
    NoIdle,
}

/// Listens until the compositor is gone, the stop comes, or it shows that nobody tells.
pub(super) fn run(stop: &Stop, desk: &Desk, path: &Path) -> End {
    match listen(stop, desk, path) {
        Ok(end) => end,
        Err(_) => End::Gone,
    }
}

fn listen(stop: &Stop, desk: &Desk, path: &Path) -> io::Result<End> {
    let mut socket = Socket::connect(path, stop)?;
    let mut objects = Objects::default();
    socket.send(&objects.get_registry())?;
    // The answer to this comes after all that there is.
    socket.send(&objects.sync())?;
    let mut state = State::default();
    loop {
        while let Some(message) = socket.next(BEAT)? {
            let event = objects.event(&message);
            if state.take(event, &mut objects, &mut socket)? == Some(End::NoIdle) {
                return Ok(End::NoIdle);
            }
            state.tell(desk);
        }
        if stop.stopped() {
            return Ok(End::Gone);
        }
        state.tell(desk);
    }
}

/// What the compositor said so far.
#[derive(Debug, Default)]
struct State {
    /// Names of the seats.
    seats: Vec<u32>,
    /// Seats whose idleness is watched: how many, and which of them are idle.
    watched: usize,
    idle: BTreeSet<u32>,
    /// When the last of them became idle.
    last: Option<Moment>,
    /// Windows that fill a screen and are in front.
    full: BTreeSet<u32>,
}

impl State {
    fn take(
        &mut self,
        event: Event,
        objects: &mut Objects,
        socket: &mut Socket<'_>,
    ) -> io::Result<Option<End>> {
        match event {
            Event::Seat(name) if self.seats.len() < SEATS_MAX => self.seats.push(name),
            Event::Window(Some(request)) => socket.send(&request)?,
            // All there is has been told: ask.
            Event::Done => {
                for seat in std::mem::take(&mut self.seats) {
                    let Some(requests) = objects.watch(seat, IDLE) else {
                        return Ok(Some(End::NoIdle));
                    };
                    socket.send(&requests)?;
                    self.watched += 1;
                }
                if self.watched == 0 {
                    return Ok(Some(End::NoIdle));
                }
                socket.send(&objects.watch_windows())?;
            }
            Event::Idle(watch) => {
                self.idle.insert(watch);
                self.last = Some(Moment::now().before(IDLE));
            }
            Event::Resumed(watch) => {
                self.idle.remove(&watch);
            }
            Event::FullScreen(window, full) => {
                if full {
                    self.full.insert(window);
                } else {
                    self.full.remove(&window);
                }
            }
            Event::Closed(window, request) => {
                self.full.remove(&window);
                socket.send(&request)?;
            }
            Event::Broken => return Err(io::ErrorKind::InvalidData.into()),
            Event::Seat(_) | Event::Window(None) | Event::Nothing => {}
        }
        Ok(None)
    }

    fn tell(&self, desk: &Desk) {
        if self.watched == 0 {
            return;
        }
        // One seat that is not idle is in use now.
        let active = match self.last {
            Some(last) if self.idle.len() >= self.watched => last,
            _ => Moment::now(),
        };
        desk.used(active);
        desk.full_screen(!self.full.is_empty());
    }
}

#[cfg(test)]
mod tests;
