//! Which engine tasks get whose job leaves it open, and what that is learnt from.

use crate::pool::{BAD, OK, Pool, attempt, bundles, ended, hello, job};
use gleaner_core::{AskedBy, BOUNDS, Event, JobCost, KernelUse, NewJob, NodeHello};
use gleaner_model::{Engine, EngineChoice, GuestPrice, JobId};

fn open(count: u32) -> NewJob {
    let mut new = job(1, count);
    new.need.engine = EngineChoice::Auto;
    new
}

fn node(engines: &[Engine], guests: GuestPrice) -> NodeHello {
    let mut node = hello(1, 1);
    node.engines = engines.to_vec();
    node.guests = guests;
    node
}

/// An end after this much CPU and wall time, and what it asked of the kernel.
fn cost(index: u32, (cpu, busy): (f64, f64), system_seconds: f64, faults: u64) -> Event {
    match ended(1, attempt(1, index, 1), OK) {
        Event::Ended(mut end) => {
            (end.cpu_seconds, end.busy_seconds) = (cpu, busy);
            end.kernel = Some(KernelUse {
                asked_by: AskedBy::Program,
                system_seconds,
                faults,
            });
            Event::Ended(end)
        }
        other => other,
    }
}

const BOTH: [Engine; 2] = [Engine::Process, Engine::Vm];

/// What the second task runs in, after the first one was such.
fn second(node: NodeHello, first: Event) -> Option<Engine> {
    let mut pool = Pool::new();
    pool.step(Event::Hello(node));
    pool.submit(open(2));
    bundles(&pool.step(first))[0].engine
}

#[test]
fn the_second_task_runs_in_what_suits_the_first() {
    use GuestPrice::{Calls, Everything, Little};
    let minute = (60.0, 60.0);
    let (process, vm) = (Some(Engine::Process), Some(Engine::Vm));
    let table = [
        ("arithmetic", Calls, cost(0, minute, 0.1, 10_000), vm),
        ("arithmetic", Little, cost(0, minute, 0.1, 10_000), vm),
        (
            "arithmetic",
            Everything,
            cost(0, minute, 0.1, 10_000),
            process,
        ),
        ("calls", Calls, cost(0, minute, 1.3, 0), process),
        ("calls", Little, cost(0, minute, 50.0, 0), vm),
        ("faults", Calls, cost(0, minute, 0.0, 61_000), process),
        ("faults", Little, cost(0, minute, 0.0, 9_000_000), vm),
        ("short", Little, cost(0, (29.0, 29.0), 0.0, 0), process),
        ("short", Calls, cost(0, (29.0, 29.0), 0.0, 0), process),
        ("idle", Calls, cost(0, (0.9, 900.0), 0.0, 0), process),
        ("nothing", Calls, cost(0, (0.0, 900.0), 0.0, 0), process),
        (
            "nonsense",
            Calls,
            cost(0, (f64::NAN, f64::NAN), f64::NAN, 0),
            process,
        ),
        (
            "more than all",
            Calls,
            cost(0, minute, 1e300, u64::MAX),
            process,
        ),
    ];
    for (what, price, first, wanted) in table {
        assert_eq!(second(node(&BOTH, price), first), wanted, "{what}, {price}");
    }
}

#[test]
fn a_node_with_one_engine_uses_it_whatever_was_seen() {
    let dear = || cost(0, (60.0, 60.0), 30.0, 0);
    let light = || cost(0, (60.0, 60.0), 0.0, 0);
    let guests = |price| node(&[Engine::Vm], price);
    for price in GuestPrice::ALL {
        assert_eq!(second(guests(*price), dear()), Some(Engine::Vm), "{price}");
    }
    let processes = node(&[Engine::Process, Engine::Wasm], GuestPrice::Little);
    assert_eq!(second(processes, light()), Some(Engine::Process));
}

#[test]
fn two_processors_are_never_a_guest() {
    let mut pool = Pool::new();
    let mut wide = node(&BOTH, GuestPrice::Little);
    wide.cpus.milli = 2000;
    pool.step(Event::Hello(wide));
    let mut new = open(2);
    new.need.cpus.milli = 2000;
    pool.submit(new);
    let next = pool.step(cost(0, (60.0, 60.0), 0.0, 0));
    assert_eq!(bundles(&next)[0].engine, Some(Engine::Process));
    let said = pool.state.explain(JobId(1)).unwrap().engine.unwrap();
    assert!(said.contains("one processor"), "{said}");
}

#[test]
fn a_job_that_names_its_engine_is_not_measured() {
    let mut pool = Pool::new();
    pool.step(Event::Hello(node(&BOTH, GuestPrice::Little)));
    let (_, granted) = pool.submit(job(1, 2));
    assert_eq!(granted[0].engine, None);
    pool.step(cost(0, (60.0, 60.0), 0.0, 0));
    assert_eq!(pool.state.explain(JobId(1)).unwrap().engine, None);
}

#[test]
fn what_ran_in_a_guest_tells_how_long_tasks_take_and_nothing_of_the_kernel() {
    let in_guest = |index, seconds| match cost(index, (seconds, seconds), 0.0, 0) {
        Event::Ended(mut end) => {
            end.kernel = None;
            Event::Ended(end)
        }
        other => other,
    };
    let mut pool = Pool::new();
    pool.step(Event::Hello(node(&BOTH, GuestPrice::Calls)));
    pool.submit(open(8));
    let after = |pool: &mut Pool, event| bundles(&pool.step(event))[0].engine;
    let first = cost(0, (60.0, 60.0), 0.1, 0);
    assert_eq!(after(&mut pool, first), Some(Engine::Vm));
    // A long one changes nothing; many short ones are not worth their boots.
    assert_eq!(after(&mut pool, in_guest(1, 60.0)), Some(Engine::Vm));
    for index in 2..6 {
        pool.step(in_guest(index, 0.1));
    }
    assert_eq!(after(&mut pool, in_guest(6, 0.1)), Some(Engine::Process));
    let said = pool.state.explain(JobId(1)).unwrap().engine.unwrap();
    assert!(said.contains("short tasks"), "{said}");
}

/// An end in a guest: what the guest asked of its node, its boot with it.
fn guest(index: u32, (cpu, busy): (f64, f64), system_seconds: f64) -> Event {
    match cost(index, (cpu, busy), system_seconds, 40_000) {
        Event::Ended(mut end) => {
            end.kernel = end.kernel.map(|kernel| KernelUse {
                asked_by: AskedBy::Guest,
                ..kernel
            });
            Event::Ended(end)
        }
        other => other,
    }
}

#[test]
fn guests_that_call_much_bring_their_job_back_where_calls_are_dear() {
    use GuestPrice::{Calls, Everything, Little};
    let minute = (60.0, 60.0);
    let (process, vm) = (Some(Engine::Process), Some(Engine::Vm));
    let table = [
        ("arithmetic", Calls, guest(1, minute, 0.3), vm),
        ("a boot on a slow PC", Calls, guest(1, minute, 2.0), vm),
        ("calls", Calls, guest(1, minute, 6.0), process),
        ("nothing but a boot", Calls, guest(1, (1.5, 60.0), 1.5), vm),
        (
            "too little to be believed",
            Calls,
            guest(1, (9.0, 60.0), 8.0),
            vm,
        ),
        ("nonsense", Calls, guest(1, (60.0, 60.0), f64::NAN), vm),
        ("more than all", Calls, guest(1, minute, 1e300), process),
        ("a machine's own", Little, guest(1, minute, 30.0), vm),
        ("translated", Everything, guest(1, minute, 30.0), process),
    ];
    for (what, price, second, wanted) in table {
        let mut pool = Pool::new();
        pool.step(Event::Hello(node(&BOTH, price)));
        pool.submit(open(3));
        pool.step(cost(0, minute, 0.0, 0));
        let third = bundles(&pool.step(second))[0].engine;
        assert_eq!(third, wanted, "{what}, {price}");
        let said = pool.state.explain(JobId(1)).unwrap().engine.unwrap();
        let because = said.contains("because of what calls took in guests");
        assert_eq!(
            because,
            price == Calls && wanted == process,
            "{what}: {said}"
        );
        pool.restart();
        let again = pool.state.explain(JobId(1)).unwrap().engine.unwrap();
        assert_eq!(again, said, "a restart keeps it");
    }
}

#[test]
fn a_job_may_try_guests_again_after_an_hour_of_processes() {
    let mut pool = Pool::new();
    pool.step(Event::Hello(node(&BOTH, GuestPrice::Calls)));
    pool.submit(open(100));
    let after = |pool: &mut Pool, event| bundles(&pool.step(event))[0].engine;
    let long = (400.0, 400.0);
    assert_eq!(after(&mut pool, cost(0, long, 0.0, 0)), Some(Engine::Vm));
    assert_eq!(
        after(&mut pool, guest(1, long, 300.0)),
        Some(Engine::Process)
    );
    // One of which only guests know what it costs goes to and fro, an hour in one to a task in the other.
    let mut engines = Vec::new();
    for index in 2..50 {
        let end = match engines.last() {
            Some(Some(Engine::Vm)) => guest(index, long, 300.0),
            _ => cost(index, long, 0.0, 0),
        };
        engines.push(after(&mut pool, end));
    }
    let guests = engines
        .iter()
        .filter(|one| **one == Some(Engine::Vm))
        .count();
    assert!((2..=12).contains(&guests), "{guests} of {}", engines.len());
}

#[test]
fn what_was_seen_comes_back_after_a_restart() {
    let mut pool = Pool::new();
    pool.step(Event::Hello(node(&BOTH, GuestPrice::Calls)));
    pool.submit(open(3));
    pool.step(cost(0, (60.0, 60.0), 30.0, 0));
    let before = pool.state.explain(JobId(1)).unwrap().engine;
    pool.restart();
    assert_eq!(pool.state.explain(JobId(1)).unwrap().engine, before);
    let said = before.unwrap();
    assert!(
        said.contains("50.0 %") && said.contains("calls dear"),
        "{said}"
    );
}

#[test]
fn the_reason_is_said_in_words() {
    let table = [
        (None, "which are measured"),
        (
            Some(cost(0, (60.0, 60.0), 0.0, 0)),
            "guests where a node has them",
        ),
        (Some(cost(0, (60.0, 60.0), 0.0, 100_000)), "the page faults"),
        (
            Some(cost(0, (6.0, 6.0), 0.0, 0)),
            "processes, because of the short tasks",
        ),
    ];
    for (first, wanted) in table {
        let mut pool = Pool::new();
        pool.step(Event::Hello(node(&BOTH, GuestPrice::Calls)));
        pool.submit(open(2));
        if let Some(first) = first {
            pool.step(first);
        }
        let said = pool.state.explain(JobId(1)).unwrap().engine.unwrap();
        assert!(said.contains(wanted), "{said:?} lacks {wanted:?}");
    }
}

#[test]
fn failures_teach_as_well_as_results() {
    let mut pool = Pool::new();
    pool.step(Event::Hello(node(&BOTH, GuestPrice::Calls)));
    pool.submit(open(1));
    let Event::Ended(mut end) = cost(0, (60.0, 60.0), 30.0, 0) else {
        unreachable!("an end");
    };
    end.reason = BAD;
    pool.step(Event::Ended(end));
    let said = pool.state.explain(JobId(1)).unwrap().engine.unwrap();
    assert!(said.contains("the time in the kernel"), "{said}");
}

#[test]
fn sums_stay_bounded_and_follow_a_job_that_changes() {
    let mut pool = Pool::new();
    pool.step(Event::Hello(node(&BOTH, GuestPrice::Calls)));
    pool.submit(open(200));
    let mut engines = Vec::new();
    for index in 0..100 {
        // Half of the job computes, the other half calls.
        let system = if index < 50 { 0.0 } else { 200.0 };
        let next = pool.step(cost(index, (400.0, 400.0), system, 0));
        engines.extend(bundles(&next).iter().filter_map(|bundle| bundle.engine));
    }
    assert_eq!(engines[0], Engine::Vm);
    assert_eq!(engines.last(), Some(&Engine::Process));
}

#[test]
fn nothing_seen_suits_no_guest() {
    let nothing = JobCost::default();
    for price in GuestPrice::ALL {
        assert!(!nothing.suits_guests(*price));
    }
    for bound in BOUNDS {
        assert_eq!(nothing.figure(bound.figure), None);
    }
}
