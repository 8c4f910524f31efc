//! What the server hears and when: reports that wait for it, states, adopted attempts, what is
//! declined.

use super::*;

#[test]
fn results_are_kept_while_the_server_is_away_and_sent_when_it_is_back() {
    let mut desk = Desk::new(1000);
    desk.running(grant(1, 1000, 1, 0..2));
    desk.step(Event::LinkDown);
    desk.now = desk.now + Span { ms: 10 * LEASE.ms };
    assert_eq!(desk.book.lease_left(desk.now), Span { ms: 0 });
    // The lease is over, and still the attempt goes on, and the next one starts.
    let ended = desk.step(Event::Ended(id(0), exit(0)));
    assert_eq!(ended, [Action::Start(id(1)), collect(0, exit(0), true)]);
    assert_eq!(desk.step(Event::Started(id(1))), []);
    assert_eq!(desk.step(Event::Collected(id(0), exit(0))), []);
    assert_eq!(desk.after(2 * RESEND_MS), []);
    let up = desk.step(Event::LinkUp { lease: LEASE });
    assert_eq!(up, [Action::Report(id(0))]);
    assert_eq!(desk.book.lease_left(desk.now), LEASE);
    let told = desk.after(TELL_DELAY_MS);
    assert_eq!(told, [Action::Tell(id(1), AttemptState::Running)]);
    let again = desk.after(RESEND_MS - TELL_DELAY_MS);
    assert_eq!(again, [Action::Report(id(0))]);
    desk.step(Event::Acknowledged(vec![id(0)]));
    assert_eq!(desk.after(RESEND_MS), []);
}

#[test]
fn beats_renew_the_lease() {
    let mut desk = Desk::new(1000);
    desk.now = desk.now + Span { ms: 9000 };
    assert_eq!(desk.book.lease_left(desk.now).ms, 21_000);
    desk.step(Event::Beaten);
    assert_eq!(desk.book.lease_left(desk.now), LEASE);
}

#[test]
fn only_states_that_last_are_told() {
    let mut desk = Desk::new(1000);
    desk.running(grant(1, 1000, 1, 0..2));
    // The first ends before anybody heard of it; the second lasts.
    desk.running(Event::Ended(id(0), exit(0)));
    desk.step(Event::Started(id(1)));
    let told = desk.after(TELL_DELAY_MS);
    assert_eq!(told, [Action::Tell(id(1), AttemptState::Running)]);
    assert_eq!(desk.after(TELL_DELAY_MS), []);
    // While the link is down nothing is told; afterwards it is.
    desk.step(Event::LinkDown);
    desk.step(Event::Paused(id(1)));
    assert_eq!(desk.after(TELL_DELAY_MS), []);
    desk.step(Event::LinkUp { lease: LEASE });
    let told = desk.after(TELL_DELAY_MS);
    assert_eq!(told, [Action::Tell(id(1), AttemptState::Paused)]);
}

/// The owner asked for a pause while no agent was there.
#[test]
fn what_is_adopted_while_the_node_pauses_is_frozen_at_once() {
    let mut desk = Desk::new(2000);
    desk.step(Event::Judged(Verdict::Pause));
    let adoption = Event::Adopted(Adoption {
        attempt: id(0),
        lease: LeaseId(1),
        cpus: cpus(1000),
        memory: Bytes(100),
        saving: Saving::default(),
        ended: None,
    });
    assert_eq!(desk.step(adoption), [Action::Pause(id(0))]);
}

#[test]
fn adopted_attempts_count_and_report_like_others() {
    let mut desk = Desk::new(1000);
    desk.step(Event::LinkDown);
    let adoption = |index, ended| {
        Event::Adopted(Adoption {
            attempt: id(index),
            lease: LeaseId(9),
            cpus: cpus(1000),
            memory: Bytes(100),
            saving: Saving::default(),
            ended,
        })
    };
    let over = desk.step(adoption(0, Some(exit(3))));
    assert_eq!(over, [collect(0, exit(3), true)]);
    assert_eq!(desk.step(adoption(1, None)), []);
    assert_eq!(desk.step(adoption(1, None)), []);
    let held = [
        (id(0), AttemptState::Failed),
        (id(1), AttemptState::Running),
    ];
    assert_eq!(desk.book.inventory(), held);
    desk.step(Event::LinkUp { lease: LEASE });
    // The node is full with what was adopted.
    assert_eq!(desk.running(grant(2, 1000, 1, 5..6)), []);
    assert_eq!(desk.running(Event::Ended(id(1), exit(0))), [id(5)]);
}

#[test]
fn a_second_grant_of_the_same_attempt_changes_nothing() {
    let mut desk = Desk::new(1000);
    desk.running(grant(1, 1000, 1, 0..2));
    assert_eq!(desk.step(grant(1, 1000, 1, 0..2)), []);
    assert_eq!(desk.book.held(), 2);
}

#[test]
fn more_than_the_bound_is_declined() {
    let mut desk = Desk::new(1000);
    let bound = u32::try_from(HELD_MAX).unwrap();
    let actions = desk.step(grant(1, 1000, 1, 0..bound + 3));
    let declined = |action: &&Action| matches!(action, Action::Decline(..));
    assert_eq!(actions.iter().filter(declined).count(), 3);
    assert_eq!(desk.book.held(), HELD_MAX);
}
