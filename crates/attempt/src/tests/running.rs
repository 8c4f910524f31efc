//! What runs, and what waits: from lease to forgotten, bounds, fetching ahead.

use super::*;
use std::string::String;

#[test]
fn a_task_goes_from_lease_to_forgotten() {
    let mut desk = Desk::new(1000);
    assert_eq!(desk.step(grant(1, 1000, 1, 0..1)), [Action::Fetch(id(0))]);
    assert_eq!(desk.step(Event::Fetched(id(0))), [Action::Start(id(0))]);
    assert_eq!(desk.step(Event::Started(id(0))), []);
    let ended = desk.step(Event::Ended(id(0), exit(0)));
    assert_eq!(ended, [collect(0, exit(0), true)]);
    assert_eq!(desk.book.state(id(0)), Some(AttemptState::Finished));
    let reported = desk.step(Event::Collected(id(0), exit(0)));
    assert_eq!(reported, [Action::Report(id(0))]);
    let forgotten = desk.step(Event::Acknowledged(vec![id(0)]));
    assert_eq!(forgotten, [Action::Forget(id(0))]);
    assert_eq!((desk.book.held(), desk.book.wake_at()), (0, None));
}

#[test]
fn the_next_starts_before_the_ended_one_is_collected() {
    let mut desk = Desk::new(4000);
    assert_eq!(desk.running(grant(1, 1000, 2, 0..5)), [id(0), id(1)]);
    let actions = desk.run(Event::Ended(id(0), exit(0)));
    assert_eq!(actions, [Action::Start(id(2)), collect(0, exit(0), true)]);
}

#[test]
fn width_cpus_and_memory_each_bound_what_runs() {
    for (capacity, need, width, expected) in [
        (8000, 1000, 3, 3),
        (2000, 1000, 8, 2),
        (2500, 1000, 8, 2),
        // memory: ten tasks of 100 fill 1000
        (64_000, 1000, 32, 10),
        // larger than the node: alone
        (1000, 4000, 2, 1),
        // a width of nothing counts as one
        (4000, 1000, 0, 1),
    ] {
        let started = Desk::new(capacity).running(grant(1, need, width, 0..40));
        assert_eq!(started.len(), expected, "{capacity} {need} {width}");
    }
}

#[test]
fn small_tasks_do_not_overtake_a_large_one_for_ever() {
    let mut desk = Desk::new(2000);
    assert_eq!(desk.running(grant(1, 1000, 1, 0..1)), [id(0)]);
    assert_eq!(desk.running(grant(2, 2000, 1, 10..11)), []);
    assert_eq!(desk.running(grant(3, 1000, 1, 20..21)), []);
    assert_eq!(desk.running(Event::Ended(id(0), exit(0))), [id(10)]);
    assert_eq!(desk.running(Event::Ended(id(10), exit(0))), [id(20)]);
}

#[test]
fn fetching_stays_a_few_tasks_ahead() {
    let mut desk = Desk::new(2000);
    let fetches = desk.step(grant(1, 1000, 2, 0..100));
    assert_eq!(fetches.len(), 2 + FETCH_AHEAD as usize);
    // Two start, so two more are fetched.
    let mut more = Vec::new();
    for action in fetches {
        if let Action::Fetch(attempt) = action {
            more.extend(desk.step(Event::Fetched(attempt)));
        }
    }
    let fetch = |action: &&Action| matches!(action, Action::Fetch(_));
    assert_eq!(more.iter().filter(fetch).count(), 2);
    assert_eq!(desk.book.live(), 2);
}

#[test]
fn a_failed_fetch_is_reported_without_an_engine() {
    let mut desk = Desk::new(1000);
    desk.step(grant(1, 1000, 1, 0..1));
    let reason = Reason::Fetch {
        detail: String::from("gone"),
    };
    let actions = desk.step(Event::FetchFailed(id(0), reason.clone()));
    assert_eq!(actions, [collect(0, reason, false)]);
}
