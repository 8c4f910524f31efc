//! What events and orders do to a guest whose task has not begun.

use super::*;
use gleaner_model::{JobId, LeaseId, TaskId};

fn spec() -> AttemptSpec {
    let attempt = TaskId::new(JobId(1), 2).attempt(1);
    AttemptSpec::bare(attempt, LeaseId(0), Vec::new())
}

impl Ahead {
    fn set(&self, attempt: AttemptId, state: State) {
        if let Some(waiting) = self.all().get_mut(&attempt) {
            waiting.state = state;
        }
    }
}

fn ahead(state: State) -> Ahead {
    let waiting = Waiting {
        spec: spec(),
        state,
    };
    Ahead(Mutex::new([(spec().attempt, waiting)].into()))
}

#[test]
fn nobody_hears_of_a_guest_before_its_task_begins() {
    let attempt = spec().attempt;
    let at = Time { ms: 7 };
    let guest = ahead(State::Booting { caged: false });
    let started = EngineEvent::Started { attempt, at };
    assert_eq!(guest.heard(&started), Follows::Nothing);
    assert_eq!(guest.state(attempt), Some(State::Booting { caged: true }));
    guest.set(attempt, State::Freezing { wanted: false });
    let paused = EngineEvent::Paused { attempt };
    assert_eq!(guest.heard(&paused), Follows::Nothing);
    assert!(matches!(guest.state(attempt), Some(State::Ready { .. })));
    // Its task begins; only the thaw that this took is kept to ourselves.
    guest.set(attempt, State::Thawing);
    let resumed = EngineEvent::Resumed { attempt };
    assert_eq!(guest.heard(&resumed), Follows::Nothing);
    assert_eq!(guest.heard(&paused), Follows::Told);
    assert_eq!(guest.heard(&resumed), Follows::Told);
    // What is not ours is not looked at.
    assert_eq!(Ahead::default().heard(&resumed), Follows::Told);
}

#[test]
fn a_task_that_begins_while_its_guest_is_being_frozen_is_thawed() {
    let attempt = spec().attempt;
    let guest = ahead(State::Freezing { wanted: true });
    let paused = EngineEvent::Paused { attempt };
    assert_eq!(guest.heard(&paused), Follows::Thaw);
    assert_eq!(guest.state(attempt), Some(State::Thawing));
    // Unless the owner wants the PC in that moment.
    let guest = ahead(State::Freezing { wanted: true });
    guest.asked(attempt, Control::Pause);
    assert_eq!(guest.heard(&paused), Follows::Told);
}

#[test]
fn a_task_that_is_wanted_before_its_cage_begins_with_it() {
    let attempt = spec().attempt;
    let guest = ahead(State::Wanted);
    let at = Time { ms: 7 };
    let started = EngineEvent::Started { attempt, at };
    assert_eq!(guest.heard(&started), Follows::Begin);
    assert_eq!(guest.state(attempt), Some(State::Begun));
}

#[test]
fn a_discarded_guest_is_kept_in_mind_until_it_is_gone_unless_its_task_had_begun() {
    let attempt = spec().attempt;
    for state in [
        State::Booting { caged: true },
        State::Ready { since: now() },
        State::Failed,
        State::Again,
    ] {
        let guest = ahead(state);
        guest.discards(attempt);
        assert_eq!(guest.state(attempt), Some(State::Dropped));
    }
    for state in [State::Wanted, State::Thawing, State::Begun] {
        let guest = ahead(state);
        guest.discards(attempt);
        assert_eq!(guest.state(attempt), None);
    }
}
