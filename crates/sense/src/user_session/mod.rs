//! The small process in an owner's desktop that tells the agent when the desktop was last used.
//!
//! It runs as its user, started by the desktop, and owns a connection to the display, one to the
//! session's message bus and one to the agent's socket. It tells a time and five times yes or no
//! (a window fills the screen, presenting, a game, somebody asks not to be idle, locked), never a
//! title, a name or a key: those are dropped where they come in. It ends with its desktop.
//!
//! Each connection has a thread, and each word its age: where the display hangs, the process says
//! that it cannot tell, and the agent judges by its other sources.

mod attention;
mod mutter;
mod wayland;
mod x11;

use crate::SenseConfig;
use crate::desktops::word::{BEAT, Word};
use crate::moment::Moment;
use crate::thread::{Stop, Threads};
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The hidden argument with which the `gleaner` binary becomes this process.
const CALL: &str = "__session";

/// How old a word of the display may be and still be believed.
const DISPLAY_AGE_MAX: Duration = Duration::from_secs(10);

/// Shortest time between two words to the agent.
const GAP: Duration = Duration::from_millis(100);

/// First wait for an agent that is not there; doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Longest wait for an agent that is not there: it may be started at any time.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Longest time for handing one line to the agent.
const WRITE_MAX: Duration = Duration::from_secs(3);

/// Which displays a session has, as its environment says.
#[derive(Debug, Clone, Default)]
pub struct Displays {
    /// Name of an X display: `DISPLAY`.
    pub x11: Option<String>,
    /// Socket of a Wayland compositor: `WAYLAND_DISPLAY`, in `XDG_RUNTIME_DIR` where it is not an
    /// absolute path.
    pub wayland: Option<PathBuf>,
    /// Address of the session's message bus: `DBUS_SESSION_BUS_ADDRESS`.
    pub bus: Option<String>,
}

impl Displays {
    /// Those of this process.
    #[must_use]
    pub fn of_environment() -> Self {
        let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let name = std::env::var_os("WAYLAND_DISPLAY").filter(|name| !name.is_empty());
        let wayland = name.and_then(|name| match Path::new(&name).is_absolute() {
            true => Some(PathBuf::from(name)),
            false => run.as_ref().map(|run| run.join(name)),
        });
        let bus = std::env::var("DBUS_SESSION_BUS_ADDRESS").ok();
        let usual = || {
            let socket = run.as_ref()?.join("bus");
            socket
                .exists()
                .then(|| format!("unix:path={}", socket.display()))
        };
        Self {
            x11: std::env::var("DISPLAY")
                .ok()
                .filter(|name| !name.is_empty()),
            wayland,
            bus: bus.or_else(usual),
        }
    }
}

/// Whether the binary was called to be this process.
#[must_use]
pub fn is_session_call(arguments: &[OsString]) -> bool {
    arguments.get(1).is_some_and(|word| word == CALL)
}

/// Is this process; the socket may be named after the call, else it is the usual one of the
/// system's agent, or of the user's own where the system has none.
#[must_use]
pub fn session_main(arguments: &[OsString]) -> ExitCode {
    let named = arguments.get(2).map(PathBuf::from);
    let system = PathBuf::from("/run/gleaner/session.sock");
    let sockets = match named {
        Some(socket) => vec![socket],
        None => [Some(system), SenseConfig::usual_session_socket()]
            .into_iter()
            .flatten()
            .collect(),
    };
    match run(&sockets, &Displays::of_environment()) {
        Ok(()) => ExitCode::SUCCESS,
        // Where the desktop writes its log.
        Err(_) => ExitCode::from(4),
    }
}

/// Reports to the first of these sockets that somebody listens at, until the display is gone.
///
/// # Errors
/// Where there is no display at all, or no files can be had.
pub fn run(sockets: &[PathBuf], displays: &Displays) -> io::Result<()> {
    if displays.x11.is_none() && displays.wayland.is_none() {
        let why = "no display: start it from the desktop's session";
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    let stop = Stop::new()?;
    let desk = Arc::new(Desk::default());
    let mut threads = Threads::new(stop.clone());
    start(&mut threads, &desk, displays);
    let mut wait = RETRY_MIN;
    while !desk.ended() {
        match sockets.iter().find_map(|socket| connect(socket).ok()) {
            Some(stream) => {
                wait = RETRY_MIN;
                // The agent went, or hangs: look for it again.
                let _lost = report(&desk, stream);
            }
            None => wait = (wait * 2).min(RETRY_MAX),
        }
        desk.rest(wait);
    }
    drop(threads);
    Ok(())
}

/// Starts a thread for each source.
fn start(threads: &mut Threads, desk: &Arc<Desk>, displays: &Displays) {
    let ended = |desk: &Arc<Desk>| {
        let desk = desk.clone();
        move |_: &str| desk.end()
    };
    match (&displays.wayland, &displays.x11) {
        (Some(socket), _) => {
            let (source, socket, bus) = (desk.clone(), socket.clone(), displays.bus.clone());
            let work = move |stop: &Stop| wayland_or_mutter(stop, &source, &socket, bus.as_deref());
            threads.spawn("wayland", work, ended(desk));
        }
        (None, Some(name)) => {
            let (source, name) = (desk.clone(), name.clone());
            let work = move |stop: &Stop| x11::run(stop, &source, &name);
            threads.spawn("x11", work, ended(desk));
        }
        (None, None) => {}
    }
    if let Some(bus) = displays.bus.clone() {
        let source = desk.clone();
        let work = move |stop: &Stop| attention::run(stop, &source, &bus);
        threads.spawn("attention", work, |_| {});
    }
}

/// Compositors tell by their own protocol; GNOME's only by the message bus.
fn wayland_or_mutter(stop: &Stop, desk: &Desk, socket: &Path, bus: Option<&str>) {
    match (wayland::run(stop, desk, socket), bus) {
        (wayland::End::NoIdle, Some(bus)) => {
            while !stop.stopped() && UnixStream::connect(socket).is_ok() {
                mutter::run(stop, desk, bus);
                stop.wait(RETRY_MIN);
            }
        }
        // Nobody tells; the process stays for what the message bus says.
        (wayland::End::NoIdle, None) => {
            while UnixStream::connect(socket).is_ok() && stop.wait(BEAT) {}
        }
        (wayland::End::Gone, _) => {}
    }
    desk.end();
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(WRITE_MAX))?;
    Ok(stream)
}

/// Says every change and every beat until the desktop or the agent is gone.
fn report(desk: &Desk, mut stream: UnixStream) -> io::Result<()> {
    let mut said: Option<(Word, Instant)> = None;
    while !desk.ended() {
        let version = desk.version();
        let word = desk.word();
        let due = said.is_none_or(|(old, at)| word.is_news(old) || at.elapsed() >= BEAT);
        if due {
            stream.write_all(word.line().as_bytes())?;
            said = Some((word, Instant::now()));
            // So many a second are passed on; what changes meanwhile is seen below.
            std::thread::sleep(GAP);
        }
        desk.wait(version, BEAT / 5);
    }
    Ok(())
}

impl Word {
    /// Whether the agent should know before the next beat: something else changed, or it is used
    /// again or still, to the second.
    fn is_news(self, old: Self) -> bool {
        let slow = |word: Self| Self {
            active: None,
            ..word
        };
        let later = match (self.active, old.active) {
            (Some(new), Some(old)) => new.since(old) >= Duration::from_secs(1),
            (new, old) => new.is_some() != old.is_some(),
        };
        slow(self) != slow(old) || later
    }
}

/// What the sources of one desktop know.
#[derive(Debug, Default)]
struct Desk {
    words: Mutex<Words>,
    changed: Condvar,
    ended: AtomicBool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Words {
    /// Last use, and when the display said so.
    active: Option<(Moment, Moment)>,
    full_screen: bool,
    /// Of the message bus.
    bus: attention::Says,
    /// Grows with every word.
    version: u64,
}

impl Desk {
    /// The display says when it was last used.
    fn used(&self, active: Moment) {
        let heard = Moment::now();
        self.change(|words| words.active = Some((active, heard)));
    }

    fn full_screen(&self, full: bool) {
        self.change(|words| words.full_screen = full);
    }

    fn bus_says(&self, says: attention::Says) {
        self.change(|words| words.bus = says);
    }

    fn change(&self, with: impl FnOnce(&mut Words)) {
        let mut words = self.lock();
        with(&mut words);
        words.version += 1;
        drop(words);
        self.changed.notify_all();
    }

    fn word(&self) -> Word {
        let words = *self.lock();
        let now = Moment::now();
        let active = words
            .active
            .filter(|(_, heard)| now.since(*heard) < DISPLAY_AGE_MAX);
        Word {
            active: active.map(|(active, _)| active),
            full_screen: words.full_screen,
            // A film, a slide show: it fills the screen and wants the PC awake.
            presenting: words.bus.presenting || words.full_screen && words.bus.inhibited,
            game: words.bus.game,
            inhibited: words.bus.inhibited,
            locked: words.bus.locked,
        }
    }

    /// The display is gone.
    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        // Whoever is between looking and waiting still holds this.
        drop(self.lock());
        self.changed.notify_all();
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn version(&self) -> u64 {
        self.lock().version
    }

    /// Waits for a word after that version, or the end, so long at most.
    fn wait(&self, version: u64, span: Duration) {
        let old = |words: &mut Words| words.version == version && !self.ended();
        let _woken = self.changed.wait_timeout_while(self.lock(), span, old);
    }

    /// Waits for the end, so long at most.
    fn rest(&self, span: Duration) {
        let going = |_: &mut Words| !self.ended();
        let _woken = self.changed.wait_timeout_while(self.lock(), span, going);
    }

    fn lock(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_that_hangs_cannot_tell() {
        let desk = Desk::default();
        assert_eq!(desk.word().active, None);
        desk.used(Moment::now());
        assert!(desk.word().active.is_some());
        let long_ago = Moment::now().before(DISPLAY_AGE_MAX);
        desk.change(|words| words.active = Some((long_ago, long_ago)));
        assert_eq!(desk.word().active, None);
    }

    #[test]
    fn a_film_is_full_screen_and_inhibits() {
        let desk = Desk::default();
        desk.full_screen(true);
        assert!(desk.word().full_screen && !desk.word().presenting);
        desk.bus_says(attention::Says {
            inhibited: true,
            ..attention::Says::default()
        });
        assert!(desk.word().presenting);
    }

    #[test]
    fn use_is_news_once_a_second() {
        let at = |ms| Word {
            active: Some(Moment::at(Duration::from_millis(ms))),
            ..Word::default()
        };
        assert!(!at(5_400).is_news(at(5_000)));
        assert!(at(6_000).is_news(at(5_000)));
        assert!(Word::default().is_news(at(5_000)));
        let locked = Word {
            locked: true,
            ..at(5_000)
        };
        assert!(locked.is_news(at(5_000)));
    }

    #[test]
    fn without_a_display_it_does_not_start() {
        let end = run(&[], &Displays::default()).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::NotFound);
        assert!(is_session_call(&["gleaner".into(), "__session".into()]));
        assert!(!is_session_call(&["gleaner".into(), "jobs".into()]));
    }
}
