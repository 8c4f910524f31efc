//! Who is logged in, locked screens, inhibitors and the PC's sleep: the session manager's word
//! (`org.freedesktop.login1`).
//!
//! Its idle hint is not looked at: several desktops never set it, terminals set it from what we
//! read ourselves. Of a session we keep that it is there and what kind it is, not whose; of
//! inhibitors, that one of the kind "idle" exists, not who asked or why.

use crate::board::{Board, Logins};
use crate::bus::{Arg, Bus, BusError, Peer, Said, Value};
use crate::event::SenseEvent;
use crate::moment::Moment;
use crate::thread::Stop;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const NAME: &str = "org.freedesktop.login1";

const MANAGER: Peer<'static> = Peer {
    name: NAME,
    path: "/org/freedesktop/login1",
    interface: "org.freedesktop.login1.Manager",
};

/// How often it is asked although it said nothing; a lock that some desktops forget to tell.
const EVERY: Duration = Duration::from_secs(10);

/// How long it must be silent before it is asked again: logging in makes a dozen signals.
const SETTLE: Duration = Duration::from_millis(100);

/// Most sessions that are asked for.
const SESSIONS_MAX: usize = 64;

/// How long the PC's sleep is held up at most; the session manager allows 5 s.
const HOLD_MAX: Duration = Duration::from_secs(4);

/// How often it is looked whether tasks are frozen, meanwhile.
const HOLD_LOOK: Duration = Duration::from_millis(10);

/// Asks and listens until the stop, or until the connection is lost.
pub(crate) fn run(stop: &Stop, board: &Board, address: &str, delay_sleep: bool) {
    let end = Bus::connect(address, stop).and_then(|bus| {
        let mut listener = Listener {
            stop,
            board,
            bus,
            delay_sleep,
            hold: None,
        };
        listener.listen()
    });
    // Whether it sleeps is not known from here on; the jump of the clock still tells.
    board.asleep.store(false, Ordering::SeqCst);
    match end {
        Ok(()) | Err(BusError::Stopped) => {}
        Err(error @ (BusError::NoBus | BusError::NoPeer(_))) => {
            board.changed(board.logins.gone(&error.to_string()));
        }
        Err(error) => {
            let fix = "see systemctl status dbus systemd-logind";
            board.changed(board.logins.failed(&error.to_string(), Some(fix)));
        }
    }
}

struct Listener<'a> {
    stop: &'a Stop,
    board: &'a Board,
    bus: Bus<'a>,
    delay_sleep: bool,
    /// While it is open the session manager waits before it lets the PC sleep.
    hold: Option<OwnedFd>,
}

impl Listener<'_> {
    fn listen(&mut self) -> Result<(), BusError> {
        self.bus.listen(&format!("type='signal',sender='{NAME}'"))?;
        self.bus.listen(&format!(
            "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{NAME}'"
        ))?;
        self.take_hold();
        loop {
            let logins = self.ask()?;
            let sessions = logins.sessions;
            self.board.logins.describe(&format!(
                "{} people, {} in front, {} remote",
                sessions.people, sessions.active, sessions.remote
            ));
            let changed = self.board.logins.seen(logins, Moment::now());
            self.board.changed(changed);
            if let Some(first) = self.bus.next(EVERY)? {
                self.heard(&first)?;
                for said in self.bus.settle(SETTLE)? {
                    self.heard(&said)?;
                }
            }
        }
    }

    fn heard(&mut self, said: &Said) -> Result<(), BusError> {
        match said.member.as_str() {
            "PrepareForSleep" => {
                self.sleep(said.body.first().is_some_and(Value::yes));
                Ok(())
            }
            // It ended; another may come, which the next question finds out.
            "NameOwnerChanged" if said.body.get(2).and_then(Value::text) == Some("") => {
                Err(BusError::NoPeer(NAME.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// The PC is about to sleep: tells, and holds it up until tasks are frozen.
    fn sleep(&mut self, sleeping: bool) {
        self.board.ready_to_sleep.store(false, Ordering::SeqCst);
        self.board.asleep.store(sleeping, Ordering::SeqCst);
        self.board.emit(SenseEvent::Sleeping(sleeping));
        if !sleeping {
            self.take_hold();
            return;
        }
        let end = Instant::now() + HOLD_MAX;
        while self.hold.is_some()
            && Instant::now() < end
            && !self.board.ready_to_sleep.load(Ordering::SeqCst)
            && self.stop.wait(HOLD_LOOK)
        {}
        self.hold = None;
    }

    /// Asks to be waited for. Where that is refused (a plain user without a session), sleep is
    /// still told, only not held up.
    fn take_hold(&mut self) {
        if !self.delay_sleep {
            return;
        }
        let args = ["sleep", "gleaner", "saves and freezes tasks", "delay"].map(Arg::Text);
        let asked = self.bus.call(MANAGER, "Inhibit", &args);
        self.hold = asked.ok().and_then(|_| self.bus.descriptor());
    }

    fn ask(&mut self) -> Result<Logins, BusError> {
        let inhibited = match self.bus.property(MANAGER, "BlockInhibited") {
            Ok(kinds) => kinds
                .text()
                .is_some_and(|kinds| kinds.split(':').any(|kind| kind == "idle")),
            Err(BusError::Refused(_)) => false,
            Err(error) => return Err(error),
        };
        let answer = self.bus.call(MANAGER, "ListSessions", &[])?;
        let rows = answer.first().map(Value::parts).unwrap_or_default();
        let mut sessions = Vec::new();
        for row in rows.iter().take(SESSIONS_MAX) {
            let Some(path) = row.parts().last().and_then(Value::text) else {
                continue;
            };
            let session = Peer {
                name: NAME,
                path,
                interface: "org.freedesktop.login1.Session",
            };
            match self.bus.properties(session) {
                Ok(properties) => sessions.push(properties),
                // It ended between the two questions.
                Err(BusError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut logins = count(&sessions);
        logins.sessions.idle_inhibited = inhibited;
        Ok(logins)
    }
}

/// Counts sessions by their properties.
fn count(sessions: &[BTreeMap<String, Value>]) -> Logins {
    let mut logins = Logins::default();
    let mut unlocked = 0_u32;
    for session in sessions {
        let text = |name: &str| session.get(name).and_then(Value::text).unwrap_or_default();
        let yes = |name: &str| session.get(name).is_some_and(Value::yes);
        // Not a greeter, not a lock screen, not a program's own; and not one that ended and left
        // processes behind.
        if !text("Class").starts_with("user") || text("State") == "closing" {
            continue;
        }
        logins.sessions.people += 1;
        if matches!(text("Type"), "x11" | "wayland" | "mir") {
            logins.graphical += 1;
        }
        let seat = session.get("Seat").and_then(|seat| seat.parts().first());
        let seated = seat
            .and_then(Value::text)
            .is_some_and(|seat| !seat.is_empty());
        if yes("Remote") {
            logins.sessions.remote += 1;
        }
        if yes("Active") && seated {
            logins.sessions.active += 1;
            unlocked += u32::from(!yes("LockedHint"));
        }
    }
    logins.sessions.locked = unlocked == 0;
    logins
}

#[cfg(test)]
mod tests {
    use super::*;
    use gleaner_model::Sessions;

    /// Sessions where nobody is logged in.
    const NOBODY: Sessions = Sessions {
        people: 0,
        active: 0,
        remote: 0,
        locked: true,
        idle_inhibited: false,
    };

    fn session(class: &str, kind: &str, seat: &str, flags: &[&str]) -> BTreeMap<String, Value> {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut map = BTreeMap::new();
        map.insert("Class".to_owned(), text(class));
        map.insert("Type".to_owned(), text(kind));
        map.insert(
            "Seat".to_owned(),
            Value::Struct(vec![text(seat), text("/")]),
        );
        for flag in ["Active", "Remote", "LockedHint"] {
            map.insert(flag.to_owned(), Value::Bool(flags.contains(&flag)));
        }
        let state = if flags.contains(&"closing") {
            "closing"
        } else {
            "active"
        };
        map.insert("State".to_owned(), text(state));
        map
    }

    #[test]
    fn sessions_are_counted_by_kind() {
        let desk = session("user", "wayland", "seat0", &["Active"]);
        let locked = session("user", "x11", "seat0", &["Active", "LockedHint"]);
        let other = session("user", "x11", "seat0", &[]);
        let ssh = session("user", "tty", "", &["Active", "Remote"]);
        let greeter = session("greeter", "wayland", "seat0", &["Active"]);
        let manager = session("manager", "unspecified", "", &["Active"]);
        let ended = session("user", "tty", "", &["Remote", "closing"]);
        let of = |people, active, remote, locked| Sessions {
            people,
            active,
            remote,
            locked,
            idle_inhibited: false,
        };
        let table = [
            ("nobody", vec![], NOBODY, 0),
            ("a greeter", vec![&greeter, &manager], NOBODY, 0),
            ("a desktop", vec![&desk, &manager], of(1, 1, 0, false), 1),
            ("a locked one", vec![&locked], of(1, 1, 0, true), 1),
            (
                "another in front",
                vec![&desk, &other],
                of(2, 1, 0, false),
                2,
            ),
            ("over a network", vec![&ssh, &ended], of(1, 0, 1, true), 0),
            (
                "locked, and a network",
                vec![&locked, &ssh],
                of(2, 1, 1, true),
                1,
            ),
        ];
        for (name, sessions, expected, graphical) in table {
            let sessions: Vec<_> = sessions.into_iter().cloned().collect();
            let expected = Logins {
                sessions: expected,
                graphical,
            };
            assert_eq!(count(&sessions), expected, "{name}");
        }
    }
}
