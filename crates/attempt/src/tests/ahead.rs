//! What would start next.

use super::*;

fn offer(bytes: u64) -> Event {
    Event::Offered(Capacity {
        cpus: cpus(1000),
        memory: Bytes(bytes),
    })
}

#[test]
fn what_starts_next_waits_for_processors_and_not_for_memory() {
    let mut desk = Desk::new(1000);
    assert_eq!(desk.book.starts_next(2), []);
    assert_eq!(desk.running(grant(1, 1000, 4, 0..3)), [id(0)]);
    assert_eq!(desk.book.starts_next(2), [id(1)]);
    // Two tasks of 100 bytes do not fit 150.
    for (bytes, next) in [(150, &[][..]), (200, &[id(1)])] {
        desk.step(offer(bytes));
        assert_eq!(desk.book.starts_next(2), next, "{bytes}");
    }
    let ended = desk.step(Event::Ended(id(0), exit(0)));
    assert_eq!(ended[0], Action::Start(id(1)));
    assert_eq!(desk.book.starts_next(2), [id(2)]);
}

#[test]
fn the_next_of_each_bundle_starts_next_and_no_more_than_asked_for() {
    let mut desk = Desk::new(1000);
    for bundle in 0..3_u32 {
        let tasks = bundle * 10..bundle * 10 + 3;
        desk.running(grant(bundle.into(), 1000, 1, tasks));
    }
    assert_eq!(desk.book.starts_next(0), []);
    assert_eq!(desk.book.starts_next(2), [id(1), id(10)]);
    assert_eq!(desk.book.starts_next(9), [id(1), id(10), id(20)]);
    // Beside the one that runs there is room for two of 100 bytes.
    desk.step(offer(300));
    assert_eq!(desk.book.starts_next(9), [id(1), id(10)]);
}

#[test]
fn nothing_starts_next_where_nothing_may_start() {
    for event in [
        Event::Judged(Verdict::Pause),
        Event::Judged(Verdict::Evict),
        Event::Wished(Wish::Pause),
        Event::Wished(Wish::Drain),
        offer(0),
    ] {
        let mut desk = Desk::new(1000);
        desk.running(grant(1, 1000, 1, 0..3));
        desk.step(event.clone());
        assert_eq!(desk.book.starts_next(9), [], "{event:?}");
    }
}
