//! Keyboards, pointers, touch: when one was last used, by the event devices of the kernel.
//!
//! Works on every desktop, on the console and at the greeter. Each device is waited for, never
//! asked; after an event all of them are left alone for [`HOLD`], so a pointer that reports a
//! thousand times a second, or a broken device that floods, costs ten wake-ups. Of what is read
//! only the kernel's time is looked at; codes and values are wiped before the reader goes on.

mod device;
mod kind;

use crate::board::Board;
use crate::event::SenseEvent;
use crate::moment::Moment;
use crate::thread::{Stop, timespec};
use device::{Device, Reading};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long devices are left alone after an event: the rate at which anybody needs to know that
/// the owner is still there.
const HOLD: Duration = Duration::from_millis(100);

/// How often the word is confirmed while nobody touches anything.
const BEAT: Duration = Duration::from_secs(1);

/// How often devices are looked for where the kernel says nothing about new ones.
const RESCAN: Duration = Duration::from_secs(10);

/// Most devices that are kept open; a PC has about ten.
const DEVICES_MAX: usize = 64;

/// What to do where devices may not be read.
const FIX: &str = "run the agent as a system service, or let its user read input devices: \
                   sudo usermod -aG input USER, then log in again";

/// Reads until the stop.
pub(crate) fn run(stop: &Stop, board: &Board, dev: &Path, sys: Option<&Path>) {
    let mut reader = Reader {
        devices: Vec::new(),
        denied: Vec::new(),
        // Nobody knows what was before: the owner may have been there a moment ago.
        last: Moment::now(),
        ever: false,
        dev,
        sys,
    };
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok();
    let mut rescan = Instant::now();
    let mut quiet_until = Instant::now();
    while !stop.stopped() {
        let now = Instant::now();
        if now >= rescan {
            reader.watch(watch.as_ref());
            reader.scan();
            rescan = now + RESCAN;
        }
        reader.tell(board);
        let hold = quiet_until.saturating_duration_since(Instant::now());
        let waited = reader.wait(stop, watch.as_ref(), hold);
        if waited.plugged && drain(watch.as_ref()) {
            // A device appears in steps: the node, then its rights. Each step is told.
            rescan = rescan.min(Instant::now() + HOLD / 10);
        }
        if waited.input && reader.read() {
            quiet_until = Instant::now() + HOLD;
            reader.tell(board);
            board.emit(SenseEvent::Input);
        }
    }
}

struct Reader<'a> {
    devices: Vec<Device>,
    /// Devices that count but may not be read, and why.
    denied: Vec<(String, io::Error)>,
    last: Moment,
    /// Whether there ever was a device. One that is switched off after minutes without use (as
    /// wireless ones are) makes the last input no less known.
    ever: bool,
    dev: &'a Path,
    sys: Option<&'a Path>,
}

#[derive(Default)]
struct Waited {
    plugged: bool,
    input: bool,
}

impl Reader<'_> {
    /// Asks to be told of new devices. Watches are set again and again since the directory may
    /// come and go with its devices.
    fn watch(&self, watch: Option<&OwnedFd>) {
        use inotify::WatchFlags as On;
        let Some(watch) = watch else { return };
        let input = self.dev.join("input");
        let in_input = On::CREATE | On::ATTRIB | On::DELETE | On::MOVED_TO | On::ONLYDIR;
        if inotify::add_watch(watch, &input, in_input).is_err() {
            let _none = inotify::add_watch(watch, self.dev, On::CREATE | On::ONLYDIR);
        }
    }

    /// Opens what is new, forgets what is gone.
    fn scan(&mut self) {
        self.denied.clear();
        let mut names: Vec<String> = fs::read_dir(self.dev.join("input"))
            .map(|entries| {
                entries
                    .flatten()
                    .filter_map(|entry| entry.file_name().into_string().ok())
                    .filter(|name| name.starts_with("event"))
                    .take(DEVICES_MAX * 2)
                    .collect()
            })
            .unwrap_or_default();
        names.sort();
        self.devices.retain(|device| names.contains(&device.name));
        for name in names {
            let open = self.devices.iter().any(|device| device.name == name);
            let room = self.devices.len() < DEVICES_MAX;
            if open || !room || !self.sys.is_none_or(|sys| kind::of_people(sys, &name)) {
                continue;
            }
            match Device::open(&self.dev.join("input").join(&name), &name) {
                Ok(device) => self.devices.push(device),
                // Gone again before it was opened.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.denied.push((name, error)),
            }
        }
        self.ever |= !self.devices.is_empty();
    }

    /// Puts the word on the board.
    fn tell(&self, board: &Board) {
        if let Some((name, error)) = self.denied.first() {
            let detail = format!(
                "{} of {} devices cannot be read; {name}: {error}",
                self.denied.len(),
                self.denied.len() + self.devices.len()
            );
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            board.changed(board.input.failed(&detail, denied.then_some(FIX)));
        } else if self.ever {
            board.input.seen(self.last, Moment::now());
            board
                .input
                .describe(&format!("{} devices", self.devices.len()));
        } else {
            board.changed(board.input.absent("no keyboard, pointer or touch device"));
        }
    }

    fn wait(&self, stop: &Stop, watch: Option<&OwnedFd>, hold: Duration) -> Waited {
        let stop_fd = stop.fd();
        let mut fds = vec![PollFd::new(&stop_fd, PollFlags::IN)];
        fds.extend(watch.map(|watch| PollFd::new(watch, PollFlags::IN)));
        let first = fds.len();
        if hold.is_zero() {
            let devices = self.devices.iter();
            fds.extend(devices.map(|device| PollFd::new(&device.fd, PollFlags::IN)));
        }
        let timeout = if hold.is_zero() { BEAT } else { hold };
        if poll(&mut fds, Some(&timespec(timeout))).is_err() {
            return Waited::default();
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        Waited {
            plugged: fds[1..first].iter().any(ready),
            input: fds[first..].iter().any(ready),
        }
    }

    /// Takes what the devices have; whether anybody touched one.
    fn read(&mut self) -> bool {
        let now = Moment::now();
        let mut touched = None;
        self.devices.retain(|device| match device.read(now) {
            Reading::Nothing => true,
            Reading::Touched(at) => {
                touched = touched.max(Some(at));
                true
            }
            Reading::Gone => false,
        });
        if let Some(at) = touched {
            self.last = self.last.max(at);
        }
        touched.is_some()
    }
}

/// Empties the queue of news; what exactly happened is seen by looking.
fn drain(watch: Option<&OwnedFd>) -> bool {
    let mut bytes = [0_u8; 4096];
    watch.is_some_and(|watch| rustix::io::read(watch, &mut bytes).is_ok_and(|read| read > 0))
}

#[cfg(test)]
mod tests;
