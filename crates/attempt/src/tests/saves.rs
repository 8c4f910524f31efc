//! When attempts are saved, and how those that can be are given back.

use super::*;

const ITSELF: Saving = Saving {
    itself: true,
    every: None,
    whole: false,
};
const COPIED: Saving = Saving {
    itself: true,
    every: Some(Span { ms: 60_000 }),
    whole: false,
};
const WHOLE: Saving = Saving {
    itself: false,
    every: Some(Span { ms: 60_000 }),
    whole: true,
};

fn one(saving: Saving) -> Desk {
    let mut desk = Desk::new(1000);
    desk.running(with(saving, grant(1, 1000, 1, 0..1)));
    desk
}

fn save(last: bool) -> Action {
    Action::Save {
        attempt: id(0),
        last,
    }
}

fn saved(well: bool) -> Event {
    Event::Saved {
        attempt: id(0),
        well,
    }
}

fn stop_in(grace_ms: u32) -> Action {
    Action::Stop {
        attempt: id(0),
        grace_ms,
    }
}

fn without_tells(actions: Vec<Action>) -> Vec<Action> {
    let told = |action: &Action| matches!(action, Action::Tell(..));
    actions.into_iter().filter(|action| !told(action)).collect()
}

#[test]
fn saves_come_a_whole_period_after_the_last_was_over() {
    let mut desk = one(COPIED);
    assert_eq!(without_tells(desk.after(59_999)), []);
    assert_eq!(without_tells(desk.after(1)), [save(false)]);
    // However long it takes: no second one is asked for.
    assert_eq!(without_tells(desk.after(200_000)), []);
    assert_eq!(desk.step(saved(true)), []);
    assert_eq!(without_tells(desk.after(59_999)), []);
    assert_eq!(without_tells(desk.after(1)), [save(false)]);
    assert_eq!(desk.step(saved(false)), []);
    assert_eq!(without_tells(desk.after(60_000)), [save(false)]);
}

#[test]
fn what_runs_and_can_be_moved_is_saved_before_the_node_sleeps() {
    for saving in [COPIED, WHOLE] {
        let mut desk = one(saving);
        assert_eq!(desk.step(Event::SaveAll), [save(false)]);
        assert!(desk.book.is_saving());
        // Asked once more, and due by itself: one at a time.
        assert_eq!(desk.step(Event::SaveAll), []);
        assert_eq!(without_tells(desk.after(200_000)), []);
        assert_eq!(desk.step(saved(true)), []);
        assert!(!desk.book.is_saving());
        assert_eq!(without_tells(desk.after(59_999)), []);
        assert_eq!(without_tells(desk.after(1)), [save(false)]);
    }
    for saving in [Saving::default(), ITSELF] {
        let mut desk = one(saving);
        assert_eq!(desk.step(Event::SaveAll), [], "{saving:?}");
        assert!(!desk.book.is_saving());
    }
    let mut desk = one(COPIED);
    desk.step(Event::Judged(Verdict::Pause));
    desk.step(Event::Paused(id(0)));
    assert_eq!(desk.step(Event::SaveAll), [], "it stands still");
}

#[test]
fn what_stands_still_is_not_saved() {
    let mut desk = one(COPIED);
    desk.step(Event::Judged(Verdict::Pause));
    desk.step(Event::Paused(id(0)));
    assert_eq!(without_tells(desk.after(70_000)), []);
    desk.step(Event::Judged(Verdict::Run));
    desk.step(Event::Resumed(id(0)));
    assert_eq!(without_tells(desk.after(60_000)), [save(false)]);
}

#[test]
fn exit_code_85_is_a_checkpoint_only_where_the_program_saves_itself() {
    let table = [
        (ITSELF, 85, AttemptState::Checkpointed),
        (COPIED, 85, AttemptState::Checkpointed),
        (ITSELF, 86, AttemptState::Failed),
        (WHOLE, 85, AttemptState::Failed),
        (Saving::default(), 85, AttemptState::Failed),
    ];
    for (saving, code, state) in table {
        let mut desk = one(saving);
        desk.step(Event::Ended(id(0), exit(code)));
        assert_eq!(desk.book.state(id(0)), Some(state), "{saving:?} {code}");
    }
}

#[test]
fn who_saves_itself_gets_time_when_it_is_given_back_but_not_when_it_is_cancelled() {
    let mut desk = one(ITSELF);
    let given_back = desk.step(Event::Wished(Wish::Evict));
    assert_eq!(given_back, [stop_in(SAVE_GRACE_MS)]);
    desk.step(Event::Ended(id(0), exit(85)));
    let Some(AttemptState::Checkpointed) = desk.book.state(id(0)) else {
        panic!("{:?}", desk.book.state(id(0)));
    };
    let mut desk = one(ITSELF);
    let cancelled = desk.step(Event::Revoked([id(0)].into()));
    assert_eq!(cancelled, [stop_in(STOP_GRACE_MS)]);
}

#[test]
fn what_its_admin_froze_runs_again_to_save_itself() {
    let mut desk = one(ITSELF);
    desk.step(Event::Wished(Wish::Pause));
    desk.step(Event::Paused(id(0)));
    let given_back = desk.step(Event::Wished(Wish::Evict));
    let asked = [Action::Resume(id(0)), stop_in(SAVE_GRACE_MS)];
    assert_eq!(given_back[..2], asked);
}

#[test]
fn an_owner_who_needs_the_pc_waits_for_no_save() {
    for saving in [ITSELF, COPIED, WHOLE] {
        for before in [Verdict::Run, Verdict::Pause] {
            let mut desk = one(saving);
            desk.step(Event::Judged(before));
            let given_back = desk.step(Event::Judged(Verdict::Evict));
            assert_eq!(given_back[..1], [stop_in(STOP_GRACE_MS)], "{saving:?}");
        }
        // Nor does one who is there and needs the memory back.
        let mut desk = one(saving);
        desk.step(Event::Judged(Verdict::Pause));
        assert_eq!(desk.step(Event::Shed), [stop_in(STOP_GRACE_MS)]);
    }
}

#[test]
fn a_drained_node_does_not_wait_for_what_can_be_moved() {
    let table = [
        (Saving::default(), None),
        // It may not be ready for a signal, and ends or saves itself in its own time.
        (ITSELF, None),
        (COPIED, Some(stop_in(SAVE_GRACE_MS))),
        (WHOLE, Some(save(true))),
    ];
    for (saving, asked) in table {
        let mut desk = one(saving);
        let actions = desk.step(Event::Wished(Wish::Drain));
        assert_eq!(actions, Vec::from_iter(asked), "{saving:?}");
    }
}

#[test]
fn a_guest_is_saved_before_it_is_given_back() {
    let mut desk = one(WHOLE);
    assert_eq!(desk.step(Event::Wished(Wish::Evict)), [save(true)]);
    assert_eq!(desk.step(saved(true)), []);
    let ended = desk.step(Event::Ended(id(0), Reason::Cancelled));
    let evicted = matches!(
        &ended[..],
        [Action::Collect {
            reason: Reason::Evicted { .. },
            ..
        }]
    );
    assert!(evicted, "{ended:?}");
}

#[test]
fn a_guest_that_cannot_be_saved_in_time_is_stopped() {
    let mut desk = one(WHOLE);
    desk.step(Event::Shed);
    assert_eq!(without_tells(desk.after(SAVE_WHOLE_MS - 1)), []);
    assert_eq!(without_tells(desk.after(1)), [stop_in(STOP_GRACE_MS)]);

    let mut desk = one(WHOLE);
    desk.step(Event::Shed);
    assert_eq!(desk.step(saved(false)), [stop_in(STOP_GRACE_MS)]);
}

#[test]
fn a_save_under_way_comes_first_and_the_last_one_follows() {
    let mut desk = one(WHOLE);
    assert_eq!(without_tells(desk.after(60_000)), [save(false)]);
    assert_eq!(desk.step(Event::Wished(Wish::Evict)), []);
    assert_eq!(desk.step(saved(true)), [save(true)]);
    assert_eq!(desk.step(saved(false)), [stop_in(STOP_GRACE_MS)]);
}
