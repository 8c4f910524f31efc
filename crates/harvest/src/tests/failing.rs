//! Sensors that are missing, fail, lie or flood.

use super::*;
use crate::thresholds as at;
use std::string::String;
use std::vec;
use std::vec::Vec;

const FAILED_FOR: Span = Span::seconds(40);

/// Samples in which some sources have failed, for long enough that they count as failed.
fn fail(desk: &mut Desk, change: &dyn Fn(&mut Sample)) {
    let end = desk.now + FAILED_FOR.ms;
    while desk.now < end {
        desk.now += 1000;
        let mut sample = desk.sees.sample(desk.now);
        change(&mut sample);
        desk.step(Event::Sampled(Box::new(sample)));
    }
}

fn since() -> Time {
    Time { ms: MONDAY }
}

fn all_inputs(sample: &mut Sample) {
    let since = since();
    sample.input = Signal::Failed { since };
    sample.terminal = Signal::Failed { since };
    sample.desktop = Signal::Failed { since };
    sample.sessions = Signal::Failed { since };
}

#[test]
fn a_pc_without_any_sensor_is_idle() {
    let nothing = |desk: &mut Desk| {
        let sample = Sample {
            at: Time { ms: desk.now },
            minute_of_week: 5 * 24 * 60,
            ..Sample::default()
        };
        desk.step(Event::Sampled(Box::new(sample)));
    };
    for word in Policy::ALL {
        let mut desk = Desk {
            brain: Brain::new(cpus(4), policy(*word), Time { ms: MONDAY }),
            now: MONDAY,
            sees: CALM,
        };
        nothing(&mut desk);
        desk.now += 5000;
        nothing(&mut desk);
        assert_eq!(
            (desk.verdict(), desk.milli()),
            (Verdict::Run, 4000),
            "{word}"
        );
        assert_eq!(desk.decision().room, Bytes(u64::MAX));
        assert!(desk.decision().admits);
        assert!(desk.decision().transfers);
    }
}

#[test]
fn where_every_source_of_input_failed_the_pc_counts_as_in_use() {
    for (word, verdict) in [
        (Policy::Continuous, Verdict::Run),
        (Policy::Screensaver, Verdict::Pause),
        (Policy::IdleAfter, Verdict::Pause),
    ] {
        let mut desk = Desk::new(4, policy(word));
        desk.pass(Span::seconds(10));
        assert_eq!(desk.verdict(), Verdict::Run);
        fail(&mut desk, &all_inputs);
        assert_eq!(desk.verdict(), verdict, "{word}");
        if verdict == Verdict::Run {
            assert_eq!((desk.milli(), desk.decision().io), (3000, 250));
        } else {
            assert!(desk.says().contains("counts as in use"), "{}", desk.says());
        }
    }
}

#[test]
fn a_desk_that_cannot_be_seen_is_in_use_unless_nobody_can_sit_there() {
    let input_gone = |sample: &mut Sample| sample.input = Signal::Failed { since: since() };
    let mut desk = Desk::new(2, policy(Policy::Screensaver));
    fail(&mut desk, &input_gone);
    assert_eq!(desk.decision().cause, crate::Cause::Blind);
    for sessions in [
        Sessions {
            people: 1,
            active: 1,
            locked: true,
            ..Sessions::default()
        },
        Sessions {
            people: 1,
            remote: 1,
            ..Sessions::default()
        },
    ] {
        let mut desk = Desk::new(2, policy(Policy::Screensaver));
        desk.sees.sessions = Some(sessions);
        fail(&mut desk, &input_gone);
        assert_eq!(desk.verdict(), Verdict::Run, "{sessions:?}");
    }
}

#[test]
fn an_old_word_is_a_failed_source() {
    let mut desk = Desk::new(2, policy(Policy::Screensaver));
    let at = Time { ms: desk.now };
    for (age, blind) in [(29_000, false), (30_000, true)] {
        let mut sample = desk.sees.sample(desk.now + age);
        sample.input = Signal::Seen {
            value: Time { ms: MONDAY },
            at,
        };
        sample.sessions = Signal::Seen {
            value: Sessions::default(),
            at,
        };
        let mut brain = desk.brain.clone();
        brain.step(
            Time { ms: desk.now + age },
            Event::Sampled(Box::new(sample)),
        );
        let found = brain.decision().cause == crate::Cause::Blind;
        assert_eq!(found, blind, "{age}");
    }
    // And a driver that says nothing at all lets nothing run.
    let mut looked = 0;
    while let Some(wake) = desk.brain.wake_at().filter(|_| looked < 100) {
        desk.now = wake.ms;
        desk.step(Event::Tick);
        looked += 1;
    }
    assert!(looked < 100);
    assert_eq!(desk.verdict(), Verdict::Evict);
    assert_eq!(desk.decision().cause, crate::Cause::Silent);
}

#[test]
fn each_sensor_that_exists_and_fails_is_taken_for_the_worse() {
    type Change = fn(&mut Sample);
    let cases: [(Change, Verdict, u32, &str); 5] = [
        (
            |s| s.power = Signal::Failed { since: s.at },
            Verdict::Pause,
            4000,
            "paused: whether the PC is on battery cannot be seen",
        ),
        (
            |s| s.heat = Signal::Failed { since: s.at },
            Verdict::Run,
            2000,
            "slowed: how hot the PC is cannot be seen",
        ),
        (
            |s| s.load = Signal::Failed { since: s.at },
            Verdict::Run,
            2000,
            "slowed: the load of the PC cannot be seen",
        ),
        (
            |s| s.attention = Signal::Failed { since: s.at },
            Verdict::Run,
            2000,
            "slowed: what fills the screen cannot be seen",
        ),
        (
            |s| s.delay = Signal::Failed { since: s.at },
            Verdict::Run,
            4000,
            "working: nothing else needs the PC",
        ),
    ];
    for (change, verdict, milli, said) in cases {
        let mut desk = Desk::new(4, Settings::default());
        desk.now += 1000;
        let mut once = desk.sees.sample(desk.now);
        change(&mut once);
        desk.pass(Span::seconds(9));
        desk.step(Event::Sampled(Box::new(once)));
        assert_eq!(
            (desk.verdict(), desk.milli()),
            (Verdict::Run, 4000),
            "one miss is none"
        );
        fail(&mut desk, &change);
        assert_eq!(
            (desk.verdict(), desk.milli(), desk.says()),
            (verdict, milli, String::from(said))
        );
    }
}

#[test]
fn without_a_word_of_disk_memory_or_network_nothing_new_begins() {
    type Change = fn(&mut Sample);
    let mut desk = Desk::new(4, Settings::default());
    fail(&mut desk, &|s| s.metered = Signal::Failed { since: s.at });
    assert!(!desk.decision().transfers);
    for change in [
        (|s| s.memory = Signal::Failed { since: s.at }) as Change,
        |s| s.disk_free = Signal::Failed { since: s.at },
    ] {
        let mut desk = Desk::new(4, Settings::default());
        fail(&mut desk, &change);
        assert_eq!(
            (desk.verdict(), desk.decision().admits),
            (Verdict::Run, false)
        );
    }
    let mut desk = Desk::new(4, Settings::default());
    fail(&mut desk, &|s| s.pressure = Signal::Failed { since: s.at });
    assert_eq!(desk.decision().io, 250);
    let mut desk = Desk::new(4, policy(Policy::IdleAfter));
    fail(&mut desk, &|s| s.load = Signal::Failed { since: s.at });
    assert_eq!(desk.verdict(), Verdict::Pause);
}

#[test]
fn a_source_that_lies_about_time_does_so_once() {
    let year = 365 * 24 * HOUR;
    let mut desk = Desk::new(2, policy(Policy::Screensaver));
    desk.sees.touched = Some(desk.now + year);
    desk.look();
    assert_eq!(desk.verdict(), Verdict::Pause, "it may be true");
    desk.pass(Span::seconds(601));
    assert_eq!(desk.verdict(), Verdict::Run, "and then nothing happened");
    // A word from the future is no word.
    let mut desk = Desk::new(2, policy(Policy::Screensaver));
    fail(&mut desk, &|sample| {
        let at = sample.at + Span::seconds(3600);
        sample.input = Signal::Seen { value: at, at };
        sample.sessions = Signal::Absent;
    });
    assert_eq!(desk.decision().cause, crate::Cause::Blind);
}

#[test]
fn figures_out_of_all_bounds_are_taken_as_they_are() {
    for n in [0_u16, 1, 1000, u16::MAX] {
        let mut desk = Desk::new(2, Settings::default());
        desk.sees = Sees {
            load: Some(Load {
                owner: n,
                tasks: n,
                stolen: n,
                busiest: n,
            }),
            delay: Some(n),
            pressure: Some(Pressure {
                cpu: Some(n),
                memory: n,
                io: n,
            }),
            memory: Some(Memory {
                total: Bytes(u64::from(n)),
                available: Bytes(u64::MAX),
                tasks: Bytes(0),
                major_faults: u32::MAX,
            }),
            power: Some(Power {
                mains: n == 0,
                charge: Some(255),
            }),
            heat: Some(Heat {
                celsius: i16::MAX,
                critical: Some(i16::MIN),
                throttled: true,
            }),
            ..CALM
        };
        desk.pass(Span::seconds(5));
        let mut sample = desk.sees.sample(desk.now);
        sample.minute_of_week = n;
        desk.step(Event::Sampled(Box::new(sample)));
        assert_ne!(desk.verdict(), Verdict::Run);
    }
}

#[test]
fn ten_thousand_inputs_a_second_change_the_decision_once() {
    for word in [Policy::Continuous, Policy::Screensaver] {
        let mut desk = Desk::new(8, policy(word));
        desk.pass(Span::seconds(40));
        let mut changed = 0;
        for input in 0..50_000_u64 {
            desk.now += u64::from(input % 10 == 0);
            changed += u32::from(desk.input());
        }
        assert_eq!(changed, 1, "{word}");
        let after = desk.brain.wake_at().unwrap().ms - desk.now;
        assert!(after <= at::ACTIVE_FOR.ms, "{word}: {after}");
    }
}

#[test]
fn a_clock_that_jumps_costs_no_work_and_pauses_nothing_for_ever() {
    let jumps: Vec<fn(u64) -> u64> = vec![
        |now| now + 365 * 24 * HOUR,
        |now| now - 365 * 24 * HOUR,
        |now| now + HOUR,
        |now| now - HOUR,
        |_| 0,
        |_| u64::MAX / 2,
    ];
    for jump in jumps {
        // Frozen for a minute, it is not frozen for a year.
        let mut desk = Desk::new(2, Settings::default());
        desk.see(|sees| sees.power = battery(None));
        desk.pass(Span::seconds(60));
        desk.now = jump(desk.now);
        desk.step(Event::Tick);
        desk.look();
        assert_eq!(desk.verdict(), Verdict::Pause);
        desk.see(|sees| sees.power = CALM.power);
        desk.pass(Span::seconds(6));
        assert_eq!(desk.verdict(), Verdict::Run);
        // Typing goes on, and is seen.
        let mut desk = Desk::new(2, policy(Policy::Screensaver));
        desk.input();
        desk.pass(Span::seconds(30));
        desk.now = jump(desk.now);
        desk.look();
        assert_eq!(desk.verdict(), Verdict::Pause);
        desk.sees.touched = Some(desk.now);
        desk.look();
        desk.pass(Span::seconds(599));
        assert_ne!(desk.verdict(), Verdict::Run);
        desk.pass(Span::seconds(2));
        assert_eq!(desk.verdict(), Verdict::Run);
        // An owner's hour is at most an hour.
        let mut desk = Desk::new(2, Settings::default());
        let until = Some(Time {
            ms: desk.now + HOUR,
        });
        desk.step(Event::Owner(crate::OwnerWish::Pause { until }));
        desk.now = jump(desk.now);
        desk.look();
        desk.pass(Span::seconds(3601));
        assert_eq!(desk.verdict(), Verdict::Run);
    }
}
