//! What the owners' desktops say: a socket to which a small process in each desktop reports
//! ([`crate::user_session`]).
//!
//! A desktop of X11 or Wayland answers only programs of its own user, so a service cannot ask it.
//! Whoever connects is told from the kernel's word about the socket, not by what they say; all
//! they can say is "active then" and five times yes or no. A liar can keep the PC in use, which
//! its owners may, but not make anybody else's activity disappear.

pub(crate) mod word;

use crate::board::{Board, Desktops};
use crate::event::SenseEvent;
use crate::moment::Moment;
use crate::thread::{Stop, timespec};
use gleaner_model::Attention;
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;
use word::{LINE_MAX, Word};

/// Most connections; a PC has a handful of desktops.
const CLIENTS_MAX: usize = 32;

/// Most connections of one user.
const CLIENTS_A_USER_MAX: usize = 4;

/// How long a process may say nothing before it is left; it speaks every [`word::BEAT`].
const SILENT_MAX: Duration = Duration::from_secs(30);

/// How long the sockets are left alone after something was read: whoever floods is heard twenty
/// times a second.
const HOLD: Duration = Duration::from_millis(50);

/// How often the word is confirmed meanwhile.
const LOOK: Duration = Duration::from_secs(1);

/// Activity that is younger than this when it is told is told on at once.
const FRESH: Duration = Duration::from_millis(1500);

/// What to do where there is a desktop that does not report.
const FIX: &str = "install packaging/desktop/gleaner-session.desktop into /etc/xdg/autostart \
                   and log in again";

/// Listens until the stop.
pub(crate) fn run(stop: &Stop, board: &Board, socket: &Path) {
    let listener = match listen(socket) {
        Ok(listener) => listener,
        Err(error) => {
            let detail = format!("{}: {error}", socket.display());
            board.changed(board.desktops.failed(&detail, None));
            board.attention.failed(&detail, None);
            return;
        }
    };
    let mut desk = Desk {
        board,
        clients: Vec::new(),
        active: Moment::default(),
    };
    while !stop.stopped() {
        desk.tell();
        let (knocked, spoke) = desk.wait(stop, &listener);
        if knocked {
            desk.accept(&listener);
        }
        if spoke {
            desk.read();
            desk.tell();
            stop.wait(HOLD);
        }
    }
    let _gone = fs::remove_file(socket);
}

/// Makes the socket, in place of one that nobody listens at any more.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = socket.parent() {
        fs::create_dir_all(parent)?;
    }
    if fs::symlink_metadata(socket).is_ok_and(|meta| meta.file_type().is_socket()) {
        if UnixStream::connect(socket).is_ok() {
            let other = "another agent of this PC listens here";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, other));
        }
        fs::remove_file(socket)?;
    }
    let listener = UnixListener::bind(socket)?;
    listener.set_nonblocking(true)?;
    // A system service hears every user; who they are is known from the socket.
    let mode = match rustix::process::geteuid().is_root() {
        true => 0o666,
        false => 0o600,
    };
    fs::set_permissions(socket, fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// One process of one desktop.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    uid: u32,
    /// The beginning of a line.
    line: Vec<u8>,
    word: Option<Word>,
    heard: Moment,
}

impl Client {
    /// Takes what is there; false where the process is gone or talks nonsense.
    fn read(&mut self) -> bool {
        let mut bytes = [0_u8; LINE_MAX * 4];
        match self.stream.read(&mut bytes) {
            Ok(0) => return false,
            Ok(read) => self.line.extend_from_slice(&bytes[..read]),
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
        // Only the last whole line matters.
        if let Some(end) = self.line.iter().rposition(|byte| *byte == b'\n') {
            let from = self.line[..end].iter().rposition(|byte| *byte == b'\n');
            let line = &self.line[from.map_or(0, |at| at + 1)..end];
            let Some(word) = Word::parse(line) else {
                return false;
            };
            self.word = Some(word);
            self.heard = Moment::now();
            self.line.drain(..=end);
        }
        self.line.len() <= LINE_MAX
    }
}

struct Desk<'a> {
    board: &'a Board,
    clients: Vec<Client>,
    /// The last activity that was told.
    active: Moment,
}

impl Desk<'_> {
    fn wait(&self, stop: &Stop, listener: &UnixListener) -> (bool, bool) {
        let stop_fd = stop.fd();
        let mut fds = vec![
            PollFd::new(&stop_fd, PollFlags::IN),
            PollFd::new(listener, PollFlags::IN),
        ];
        let streams = self.clients.iter();
        fds.extend(streams.map(|client| PollFd::new(&client.stream, PollFlags::IN)));
        if poll(&mut fds, Some(&timespec(LOOK))).is_err() {
            return (false, false);
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        (ready(&fds[1]), fds[2..].iter().any(ready))
    }

    fn accept(&mut self, listener: &UnixListener) {
        let own = rustix::process::geteuid();
        for _ in 0..CLIENTS_MAX {
            let Ok((stream, _)) = listener.accept() else {
                return;
            };
            let Ok(peer) = rustix::net::sockopt::socket_peercred(&stream) else {
                continue;
            };
            let known = own.is_root() || peer.uid == own || peer.uid.is_root();
            let uid = peer.uid.as_raw();
            let theirs = self
                .clients
                .iter()
                .filter(|client| client.uid == uid)
                .count();
            let room = self.clients.len() < CLIENTS_MAX && theirs < CLIENTS_A_USER_MAX;
            if known && room && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client {
                    stream,
                    uid,
                    line: Vec::new(),
                    word: None,
                    heard: Moment::now(),
                });
            }
        }
    }

    fn read(&mut self) {
        self.clients.retain_mut(Client::read);
    }

    /// Puts all words together on the board.
    fn tell(&mut self) {
        let now = Moment::now();
        self.clients
            .retain(|client| now.since(client.heard) < SILENT_MAX);
        let words: Vec<Word> = self
            .clients
            .iter()
            .filter_map(|client| client.word)
            .collect();
        let Some(active) = words.iter().filter_map(|word| word.active).max() else {
            self.tell_nothing(&words);
            return;
        };
        let active = active.min(now);
        let heard = self.clients.iter().filter(|client| client.word.is_some());
        let people: BTreeSet<u32> = heard.clone().map(|client| client.uid).collect();
        let at = heard.map(|client| client.heard).max().unwrap_or(now);
        let desktops = Desktops {
            active,
            people: u32::try_from(people.len()).unwrap_or(u32::MAX),
            locked: words.iter().all(|word| word.locked),
            inhibited: words.iter().any(|word| word.inhibited),
        };
        let before = self.board.desktops.value();
        self.board.desktops.seen(desktops, at);
        self.board
            .desktops
            .describe(&format!("{} desktops report", words.len()));
        let slow = |desktops: Desktops| Desktops {
            active: Moment::default(),
            ..desktops
        };
        let changed = before.map(slow) != Some(slow(desktops));
        self.tell_attention(&words, at, changed);
        let news = active > self.active && now.since(active) < FRESH;
        self.active = self.active.max(active);
        if news {
            self.board.emit(SenseEvent::Input);
        }
    }

    fn tell_attention(&self, words: &[Word], at: Moment, changed: bool) {
        let attention = Attention {
            full_screen: words.iter().any(|word| word.full_screen),
            presenting: words.iter().any(|word| word.presenting),
            game: words.iter().any(|word| word.game),
        };
        self.board.attention.describe(match attention {
            Attention { game: true, .. } => "a game asked for the PC",
            Attention {
                presenting: true, ..
            } => "presenting",
            Attention {
                full_screen: true, ..
            } => "a window fills the screen",
            Attention { .. } => "nothing special",
        });
        let changed = self.board.attention.seen(attention, at) || changed;
        self.board.changed(changed);
    }

    /// Nobody reports, or nobody knows anything.
    fn tell_nothing(&self, words: &[Word]) {
        let graphical = self
            .board
            .logins
            .value()
            .map_or(0, |logins| logins.graphical);
        let slots = &self.board;
        let changed = if !words.is_empty() {
            let detail = "a desktop reports, but cannot tell when it was last used";
            slots.attention.failed(detail, None);
            slots.desktops.failed(detail, None)
        } else if graphical > 0 {
            let detail = format!("{graphical} desktops, none of them reports");
            slots.attention.failed(&detail, Some(FIX));
            slots.desktops.failed(&detail, Some(FIX))
        } else {
            slots.attention.absent("no desktop");
            slots.desktops.absent("no desktop")
        };
        self.board.changed(changed);
    }
}

#[cfg(test)]
mod tests;
