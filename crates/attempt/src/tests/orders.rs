//! What comes from outside and ends or freezes attempts: revocations, verdicts, want of memory.

use super::*;
use gleaner_model::LimitKind;
use std::string::String;

#[test]
fn revoked_attempts_leave_no_report_in_any_phase() {
    let mut desk = Desk::new(1000);
    desk.running(grant(1, 1000, 1, 0..40));
    desk.step(Event::Ended(id(0), exit(0)));
    desk.running(Event::Collected(id(0), exit(0)));
    desk.step(Event::Started(id(1)));
    // collected, running, ready, leased, unknown
    let all = vec![id(0), id(1), id(2), id(30), id(99)];
    let actions = desk.step(Event::Revoked(all));
    assert_eq!(
        actions,
        [
            Action::Forget(id(0)),
            stop(1),
            Action::Forget(id(2)),
            Action::Forget(id(30)),
            Action::Fetch(id(7)),
        ]
    );
    assert!(!desk.book.inventory().iter().any(|(held, _)| *held == id(1)));
    let ended = desk.step(Event::Ended(id(1), Reason::Cancelled));
    assert_eq!(ended[0], Action::Start(id(3)));
    assert!(ended.contains(&Action::Forget(id(1))));
}

#[test]
fn a_stop_that_is_not_heard_is_asked_again() {
    let mut desk = Desk::new(1000);
    desk.step(grant(1, 1000, 1, 0..1));
    desk.step(Event::Fetched(id(0)));
    assert_eq!(desk.step(Event::Revoked(vec![id(0)])), [stop(0)]);
    // The engine may have had nothing to stop yet.
    assert_eq!(desk.step(Event::Started(id(0))), [stop(0)]);
    assert_eq!(desk.after(STOP_AGAIN_MS), [stop(0)]);
    let ended = desk.step(Event::Ended(id(0), Reason::Cancelled));
    assert_eq!(ended, [Action::Forget(id(0))]);
}

#[test]
fn pause_freezes_and_resume_goes_on() {
    for (pause, resume) in [
        (Event::Wished(Wish::Pause), Event::Wished(Wish::Resume)),
        (Event::Judged(Verdict::Pause), Event::Judged(Verdict::Run)),
    ] {
        let mut desk = Desk::new(1000);
        desk.running(grant(1, 1000, 1, 0..2));
        assert_eq!(desk.step(pause), [Action::Pause(id(0))]);
        desk.step(Event::Paused(id(0)));
        assert_eq!(desk.book.state(id(0)), Some(AttemptState::Paused));
        // Nothing starts while frozen, also when a place falls free.
        let ended = desk.step(Event::Ended(id(0), exit(0)));
        assert_eq!(ended, [collect(0, exit(0), true)]);
        assert_eq!(desk.step(resume), [Action::Start(id(1))]);
    }
}

#[test]
fn what_starts_while_the_node_pauses_is_frozen_at_once() {
    let mut desk = Desk::new(1000);
    desk.run(grant(1, 1000, 1, 0..1));
    let pause = desk.step(Event::Judged(Verdict::Pause));
    assert_eq!(pause, [Action::Pause(id(0))]);
    let started = desk.step(Event::Started(id(0)));
    assert_eq!(started, [Action::Pause(id(0))]);
}

#[test]
fn drain_gives_back_what_has_not_started() {
    let mut desk = Desk::new(1000);
    desk.running(grant(1, 1000, 1, 0..3));
    let drained = desk.step(Event::Wished(Wish::Drain));
    let why = Reason::Evicted {
        detail: String::from("the node is being drained"),
    };
    let back = [
        collect(1, why.clone(), false),
        collect(2, why.clone(), false),
    ];
    assert_eq!(drained, back);
    let more = desk.step(grant(2, 1000, 1, 7..8));
    assert_eq!(more, [Action::Decline(id(7), why)]);
    let ended = desk.step(Event::Ended(id(0), exit(0)));
    assert_eq!(ended, [collect(0, exit(0), true)]);
}

#[test]
fn evict_ends_what_runs_and_says_so() {
    for event in [Event::Wished(Wish::Evict), Event::Judged(Verdict::Evict)] {
        let mut desk = Desk::new(1000);
        desk.running(grant(1, 1000, 1, 0..1));
        assert_eq!(desk.step(event), [stop(0)]);
        let ended = desk.step(Event::Ended(id(0), Reason::Cancelled));
        let [Action::Collect { reason, .. }] = &ended[..] else {
            panic!("{ended:?}");
        };
        assert_eq!(reason.state(), AttemptState::Evicted);
    }
}

#[test]
fn want_of_memory_gives_the_youngest_back_one_at_a_time() {
    let mut desk = Desk::new(3000);
    assert_eq!(desk.step(Event::Shed), vec![], "there is nothing to give");
    assert_eq!(desk.running(grant(1, 1000, 3, 5..8)).len(), 3);
    // A frozen one goes as well.
    desk.step(Event::Judged(Verdict::Pause));
    assert_eq!(desk.step(Event::Shed), vec![stop(7)]);
    assert_eq!(desk.step(Event::Shed), vec![], "one is on its way");
    let evicted = Reason::Evicted {
        detail: "the node's owner needs the memory".into(),
    };
    assert_eq!(
        desk.step(Event::Ended(id(7), Reason::Cancelled)),
        vec![collect(7, evicted, true)]
    );
    assert_eq!(desk.step(Event::Shed), vec![stop(6)]);
}

#[test]
fn a_smaller_offer_starts_nothing_and_ends_nothing() {
    let mut desk = Desk::new(3000);
    assert_eq!(desk.running(grant(1, 1000, 3, 0..2)).len(), 2);
    let offered = |memory| {
        Event::Offered(Capacity {
            cpus: cpus(3000),
            memory: Bytes(memory),
        })
    };
    assert_eq!(desk.step(offered(250)), vec![]);
    assert_eq!(desk.running(grant(2, 1000, 3, 2..3)), vec![]);
    assert_eq!(desk.running(offered(300)), vec![id(2)]);
    // One that is too large runs alone, but not where nothing is offered.
    let mut desk = Desk::new(3000);
    assert_eq!(desk.step(offered(0)), vec![]);
    assert_eq!(desk.running(grant(1, 1000, 3, 0..2)), vec![]);
    assert_eq!(desk.running(offered(50)), vec![id(0)]);
}

#[test]
fn an_end_of_its_own_survives_an_eviction() {
    let mut desk = Desk::new(1000);
    desk.running(grant(1, 1000, 1, 0..1));
    desk.step(Event::Wished(Wish::Evict));
    let limit = Reason::Limit {
        limit: LimitKind::Memory,
    };
    let ended = desk.step(Event::Ended(id(0), limit.clone()));
    assert_eq!(ended, [collect(0, limit, true)]);
}
