//! The last word of one source, and how old it is.

use crate::moment::{Moment, span};
use gleaner_model::{Signal, Span, Time};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Longest detail or fix that is kept, in bytes: one line of a table.
const TEXT_MAX: usize = 300;

/// Why a source that is switched off is absent.
pub(crate) const OFF: &str = "not looked at";

/// What is said of a source that has not spoken.
const UNREAD: &str = "has not been read yet";

/// What a source says.
#[derive(Debug, Clone)]
enum Word<T> {
    Absent,
    Failed { since: Moment },
    Seen { value: T, at: Moment },
}

/// Holds the last word of one source. Its lock is held for a copy, so readers never wait.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    name: &'static str,
    inner: Mutex<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    word: Word<T>,
    detail: String,
    fix: Option<String>,
    /// Whether there ever was one.
    ever: bool,
}

impl<T: Copy + PartialEq> Slot<T> {
    /// A source that has not spoken yet: as good as failed, since nobody knows.
    pub(crate) fn new(name: &'static str) -> Self {
        let inner = Inner {
            word: Word::Failed {
                since: Moment::now(),
            },
            detail: UNREAD.to_owned(),
            fix: None,
            ever: false,
        };
        Self {
            name,
            inner: Mutex::new(inner),
        }
    }

    /// The source was read at this moment. Says whether its word changed.
    pub(crate) fn seen(&self, value: T, at: Moment) -> bool {
        let mut inner = self.lock();
        let changed = !matches!(&inner.word, Word::Seen { value: old, .. } if *old == value);
        if !matches!(inner.word, Word::Seen { .. }) {
            // What was wrong is over.
            inner.detail.clear();
        }
        inner.word = Word::Seen { value, at };
        inner.fix = None;
        inner.ever = true;
        changed
    }

    /// Says in words what was found; shown to people.
    pub(crate) fn describe(&self, detail: &str) {
        let mut inner = self.lock();
        if inner.detail != detail {
            inner.detail = short(detail);
        }
    }

    /// This PC has no such thing. Says whether that is news.
    pub(crate) fn absent(&self, detail: &str) -> bool {
        let mut inner = self.lock();
        let changed = !matches!(inner.word, Word::Absent);
        inner.word = Word::Absent;
        inner.detail = short(detail);
        inner.fix = None;
        changed
    }

    /// There is none now: absent where there never was one, failed where there was, since a PC
    /// does not lose such a thing for good.
    pub(crate) fn gone(&self, detail: &str) -> bool {
        let ever = self.lock().ever;
        match ever {
            true => self.failed(detail, None),
            false => self.absent(detail),
        }
    }

    /// There is one, but it cannot be read. Says whether that is news.
    pub(crate) fn failed(&self, detail: &str, fix: Option<&str>) -> bool {
        let mut inner = self.lock();
        let since = match inner.word {
            Word::Failed { since } => Some(since),
            Word::Absent | Word::Seen { .. } => None,
        };
        inner.word = Word::Failed {
            since: since.unwrap_or_else(Moment::now),
        };
        inner.detail = short(detail);
        inner.fix = fix.map(short);
        since.is_none()
    }

    /// The value, however old.
    pub(crate) fn value(&self) -> Option<T> {
        match self.lock().word {
            Word::Seen { value, .. } => Some(value),
            Word::Absent | Word::Failed { .. } => None,
        }
    }

    /// Whether the PC was found to have no such thing.
    #[cfg(test)]
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.lock().word, Word::Absent)
    }

    /// The word on the caller's clock: `here` is now, which the caller calls `now`.
    pub(crate) fn signal(&self, here: Moment, now: Time) -> Signal<T> {
        match self.lock().word {
            Word::Absent => Signal::Absent,
            Word::Failed { since } => Signal::Failed {
                since: here.on_clock(now, since),
            },
            Word::Seen { value, at } => Signal::Seen {
                value,
                at: here.on_clock(now, at),
            },
        }
    }

    /// The word for people.
    pub(crate) fn report(&self, here: Moment) -> SourceReport {
        let inner = self.lock();
        let (state, age) = match inner.word {
            Word::Absent => (SourceState::Absent, None),
            Word::Failed { since } => (SourceState::Failed, Some(here.since(since))),
            Word::Seen { at, .. } => (SourceState::Seen, Some(here.since(at))),
        };
        SourceReport {
            name: self.name,
            state,
            age: age.map(span),
            detail: inner.detail.clone(),
            fix: inner.fix.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // A word is replaced as a whole, so one that a dying thread left is as good as any.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot<Moment> {
    /// The word where it is itself a time: both go to the caller's clock.
    pub(crate) fn time_signal(&self, here: Moment, now: Time) -> Signal<Time> {
        match self.signal(here, now) {
            Signal::Absent => Signal::Absent,
            Signal::Failed { since } => Signal::Failed { since },
            Signal::Seen { value, at } => Signal::Seen {
                value: here.on_clock(now, value),
                at,
            },
        }
    }
}

fn short(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_MAX);
    text[..end].to_owned()
}

/// How a source does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceState {
    /// This PC has no such thing.
    Absent,
    /// There is one, but it cannot be read.
    Failed,
    /// It was read.
    Seen,
}

/// One source, for people: `gleaner owner why` and `gleaner doctor` show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// What is sensed: `input`, `logind`, `power` …
    pub name: &'static str,
    /// How it does.
    pub state: SourceState,
    /// Since when it has failed, or how old its last word is.
    pub age: Option<Span>,
    /// What was found, or why not. Never anything that the owner typed, ran or saw.
    pub detail: String,
    /// What to do about a failure.
    pub fix: Option<String>,
}

impl SourceReport {
    /// Whether the configuration switched it off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state == SourceState::Absent && self.detail == OFF
    }

    /// Whether it has said anything since it was started.
    pub(crate) fn spoke(&self) -> bool {
        self.detail != UNREAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_source_that_never_spoke_has_failed() {
        let slot: Slot<u16> = Slot::new("load");
        let here = Moment::now();
        let now = Time { ms: 10_000 };
        assert!(matches!(slot.signal(here, now), Signal::Failed { .. }));
        assert!(slot.absent("none here"));
        assert!(!slot.absent("none here"));
        assert_eq!(slot.signal(here, now), Signal::Absent);
    }

    #[test]
    fn a_word_grows_older_and_a_failure_keeps_its_beginning() {
        let slot: Slot<u16> = Slot::new("load");
        let start = Moment::now();
        assert!(slot.seen(7, start));
        assert!(!slot.seen(7, start), "the same word is no news");
        let later = Moment::at(start.since_boot() + Duration::from_secs(3));
        let now = Time { ms: 10_000 };
        let seen = Signal::Seen {
            value: 7,
            at: Time { ms: 7_000 },
        };
        assert_eq!(slot.signal(later, now), seen);
        assert!(slot.failed("gone", Some("plug it in")));
        let first = slot.signal(later, now);
        assert!(!slot.failed("still gone", None));
        assert_eq!(slot.signal(later, now), first);
    }

    #[test]
    fn details_are_bounded() {
        let slot: Slot<u16> = Slot::new("load");
        slot.failed(&"ü".repeat(TEXT_MAX), None);
        assert!(slot.report(Moment::now()).detail.len() <= TEXT_MAX);
    }
}
