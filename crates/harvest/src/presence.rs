//! Whether somebody is at the PC.

use crate::clock::{Clock, Mono};
use crate::gate::{Gate, Seen};
use crate::senses::{Reading, Senses};
use crate::thresholds::{LOCKED_AFTER, LOGGED_OUT_FOR};
use gleaner_model::{Span, Time};

/// Who was there, and when.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    /// What each source of activity said last: only a change is news, so that a source that lies
    /// about the time does so once.
    said: [Option<Time>; 3],
    /// When somebody last touched the PC.
    touched: Option<Mono>,
    /// When somebody was last there, touching it or not.
    there: Option<Mono>,
    blind: bool,
    /// Somebody counts as there at this moment, touching it or not.
    held: bool,
    /// Some session in the foreground is open, or may be.
    unlocked: Gate,
    logged_in: Gate,
}

impl Presence {
    pub(crate) const fn new() -> Self {
        Self {
            said: [None; 3],
            touched: None,
            there: None,
            blind: false,
            held: false,
            unlocked: Gate::new(Span { ms: 0 }, LOCKED_AFTER),
            logged_in: Gate::new(Span { ms: 0 }, LOGGED_OUT_FOR),
        }
    }

    /// The owner touched the PC at this moment.
    pub(crate) fn touch(&mut self, at: Mono) {
        self.touched = self.touched.max(Some(at));
        self.there = self.there.max(self.touched);
    }

    /// Looks at the sources again.
    pub(crate) fn look(&mut self, senses: &Senses, clock: &Clock, fresh: bool) {
        let now = clock.mono;
        let sources = [&senses.input, &senses.terminal, &senses.desktop];
        for (source, said) in sources.into_iter().zip(0..) {
            let value = source.value(now);
            if value.is_some() && self.said.get(said) != Some(&value) {
                if let Some(said) = self.said.get_mut(said) {
                    *said = value;
                }
                let age = value.map_or(Span { ms: 0 }, |time| clock.wall.since(time));
                self.touch(now.minus(age));
            }
        }
        let sessions = senses.sessions.value(now);
        let unknown = senses.sessions.failed(now);
        let open = sessions.is_some_and(|s| s.active > 0 && !s.locked);
        let locked = sessions.is_some_and(|s| s.locked);
        self.unlocked.see(Seen::plain(!locked), now, fresh);
        self.logged_in.see(Seen::plain(open || unknown), now, fresh);
        self.blind = blind(senses, now);
        let attends = senses
            .attention
            .value(now)
            .is_some_and(|a| a.full_screen || a.presenting || a.game);
        let inhibits = sessions.is_some_and(|s| s.idle_inhibited);
        // Where nothing tells activity, a person who is logged in is taken to be active.
        let only_sessions = sources.iter().all(|source| !source.exists())
            && sessions.is_some_and(|s| s.people > 0 && !s.locked);
        self.held = self.blind || attends || inhibits || only_sessions;
        if self.held {
            self.there = Some(now);
        }
    }

    /// Nobody can tell whether somebody is there.
    pub(crate) const fn blind(&self) -> bool {
        self.blind
    }

    /// How long ago somebody touched the PC.
    pub(crate) fn untouched(&self, now: Mono) -> Option<Span> {
        self.touched.map(|at| now.since(at))
    }

    /// How long nobody has been there; none where nobody ever was.
    pub(crate) fn away(&self, now: Mono) -> Option<Span> {
        self.there.map(|at| now.since(at))
    }

    pub(crate) const fn locked(&self) -> bool {
        !self.unlocked.on()
    }

    pub(crate) const fn logged_in(&self) -> bool {
        self.logged_in.on()
    }

    /// When somebody will have been untouching or away for so long.
    pub(crate) fn due(&self, untouched: [Span; 2], away: Option<Span>) -> [Option<Mono>; 5] {
        let [one, other] = untouched;
        [
            self.touched.map(|at| at.plus(one)),
            self.touched.map(|at| at.plus(other)),
            away.filter(|_| !self.held)
                .and_then(|away| self.there.map(|at| at.plus(away))),
            self.unlocked.due(false),
            self.logged_in.due(false),
        ]
    }
}

/// Whether nobody can tell that somebody is there: every source failed; or those of the desk did,
/// and the session manager does not say that nobody sits there.
fn blind(senses: &Senses, now: Mono) -> bool {
    let (sessions, terminal) = (&senses.sessions, &senses.terminal);
    let activity = [&senses.input, &senses.desktop, terminal];
    let exists = sessions.exists() || activity.iter().any(|source| source.exists());
    let works = |source: &&Reading<Time>| source.value(now).is_some();
    let nobody = sessions
        .value(now)
        .is_some_and(|s| s.active == 0 || s.locked);
    if sessions.value(now).is_none() && !activity.iter().any(works) {
        return exists;
    }
    let desk = [&senses.input, &senses.desktop];
    let failed = desk.iter().any(|source| source.failed(now));
    failed && !desk.iter().any(works) && !nobody
}
