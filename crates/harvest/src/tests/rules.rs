//! Rule by rule.

use super::*;
use crate::{Hours, OwnerWish, Relief, Resource};
use std::string::ToString;
use std::vec;

const S: fn(u64) -> Span = Span::seconds;

#[test]
fn nothing_runs_before_the_first_sample_and_all_of_it_after() {
    let now = Time { ms: MONDAY };
    let mut brain = Brain::new(cpus(4), Settings::default(), now);
    assert_eq!(brain.decision().verdict, Verdict::Pause);
    assert!(brain.step(now, Event::Sampled(Box::new(CALM.sample(MONDAY)))));
    let later = Time { ms: MONDAY + 4000 };
    brain.step(later, Event::Sampled(Box::new(CALM.sample(MONDAY + 4000))));
    let decision = brain.decision();
    assert_eq!(decision.verdict, Verdict::Run);
    assert_eq!((decision.allowance, decision.io), (cpus(4), 1000));
    assert_eq!(
        decision.room,
        Bytes((4 << 30) - (8 << 30) / 10 / (64 << 20) * (64 << 20) - (64 << 20))
    );
    assert!(decision.admits);
    assert!(decision.transfers);
    assert_eq!(decision.to_string(), "working: nothing else needs the PC");
}

#[test]
fn every_veto_pauses_at_once_says_why_and_goes_when_its_reason_does() {
    type Change = fn(&mut Sees);
    let calm: Change = |sees| *sees = CALM;
    let vetoes: [(Change, &str, u64); 8] = [
        (
            |sees| sees.power = battery(Some(43)),
            "paused: on battery (43 %)",
            5,
        ),
        (|sees| sees.power = battery(None), "paused: on battery", 5),
        (
            |sees| sees.heat = degrees(91),
            "paused: 91 °C, the limit is 90 °C",
            30,
        ),
        (
            |sees| sees.disk_free = Some(Bytes(900 << 20)),
            "paused: 900 MiB of disk are free; tasks go on at 2 GiB",
            10,
        ),
        (
            |sees| sees.sleeping = Some(true),
            "paused: the PC is going to sleep",
            2,
        ),
        (
            |sees| sees.pressure = pressed(123, 0),
            "paused: programs waited for memory 12 % of the last second",
            5,
        ),
        (
            |sees| {
                sees.memory = Some(Memory {
                    total: Bytes(8 << 30),
                    available: Bytes(300 << 20),
                    tasks: Bytes(0),
                    major_faults: 0,
                });
            },
            "paused: 300 MiB of memory are left, 819.1 MiB are kept for your programs",
            5,
        ),
        (
            |sees| {
                sees.sleeping = None;
                sees.power = battery(Some(10));
            },
            "paused: on battery (10 %)",
            5,
        ),
    ];
    for (veto, said, calm_s) in vetoes {
        let mut desk = Desk::new(4, Settings::default());
        desk.pass(S(10));
        desk.see(veto);
        assert_eq!((desk.verdict(), desk.says()), (Verdict::Pause, said.into()));
        desk.see(calm);
        desk.pass(Span {
            ms: calm_s * 1000 - 1,
        });
        assert_eq!(desk.verdict(), Verdict::Pause, "{said}");
        desk.pass(S(1));
        assert_eq!(desk.verdict(), Verdict::Run, "{said}");
        assert_eq!(desk.milli(), 2000, "resumes with half");
        desk.pass(S(4));
        assert_eq!(desk.milli(), 4000, "{said}");
    }
}

#[test]
fn between_its_two_thresholds_a_reason_stays_what_it_is() {
    let mut desk = Desk::new(4, Settings::default());
    desk.see(|sees| sees.heat = degrees(80));
    assert_eq!((desk.verdict(), desk.milli()), (Verdict::Run, 4000));
    desk.see(|sees| sees.heat = degrees(82));
    assert_eq!(desk.says(), "slowed: half for tasks, at 82 °C");
    desk.see(|sees| sees.heat = degrees(95));
    desk.see(|sees| sees.heat = degrees(80));
    desk.pass(S(300));
    assert_eq!(desk.verdict(), Verdict::Pause);
    desk.see(|sees| sees.heat = degrees(77));
    desk.pass(S(30));
    assert_eq!(desk.verdict(), Verdict::Run);
}

#[test]
fn a_lenient_pool_passes_over_schedule_battery_and_heat_only() {
    let mut desk = Desk::new(
        4,
        Settings {
            lenient: true,
            schedule: vec![Hours { from: 0, to: 1 }],
            ..Settings::default()
        },
    );
    desk.see(|sees| {
        sees.power = battery(Some(5));
        sees.heat = Some(Heat {
            celsius: 99,
            critical: Some(100),
            throttled: true,
        });
    });
    assert_eq!((desk.verdict(), desk.milli()), (Verdict::Run, 4000));
    desk.see(|sees| sees.disk_free = Some(Bytes(1)));
    assert_eq!(desk.verdict(), Verdict::Pause);
}

#[test]
fn where_the_battery_may_be_used_it_is_until_it_is_low() {
    let mut desk = Desk::new(
        2,
        Settings {
            on_battery: true,
            ..Settings::default()
        },
    );
    desk.see(|sees| sees.power = battery(Some(31)));
    assert_eq!(desk.verdict(), Verdict::Run);
    desk.see(|sees| sees.power = battery(Some(29)));
    assert_eq!(desk.says(), "paused: on battery (29 %)");
    desk.see(|sees| sees.power = battery(Some(31)));
    desk.pass(S(60));
    assert_eq!(desk.verdict(), Verdict::Pause);
}

#[test]
fn a_metered_connection_stops_transfers_only() {
    let mut desk = Desk::new(2, Settings::default());
    desk.see(|sees| sees.metered = Some(true));
    assert_eq!((desk.verdict(), desk.milli()), (Verdict::Run, 2000));
    assert!(!desk.decision().transfers);
    assert_eq!(
        desk.says(),
        "slowed: files wait, the connection costs by the byte"
    );
}

#[test]
fn a_game_a_film_or_a_presentation_leave_half_and_count_as_somebody_there() {
    let with = |change: fn(&mut Attention)| {
        move |sees: &mut Sees| change(sees.attention.as_mut().unwrap())
    };
    for change in [
        (|a| a.game = true) as fn(&mut Attention),
        |a| a.presenting = true,
        |a| a.full_screen = true,
    ] {
        let mut desk = Desk::new(4, Settings::default());
        desk.see(with(change));
        assert_eq!((desk.verdict(), desk.milli()), (Verdict::Run, 2000));
        let mut desk = Desk::new(4, policy(Policy::Screensaver));
        assert_eq!(desk.verdict(), Verdict::Run);
        desk.see(with(change));
        assert_eq!(desk.verdict(), Verdict::Pause);
        desk.pass(S(500));
        assert_eq!(desk.verdict(), Verdict::Pause, "no input, and still there");
    }
    let mut desk = Desk::new(4, policy(Policy::IdleAfter));
    desk.see(|sees| sees.sessions.as_mut().unwrap().idle_inhibited = true);
    assert_eq!(desk.verdict(), Verdict::Pause);
}

#[test]
fn an_input_leaves_one_processor_free_for_two_seconds_where_there_are_four() {
    for (processors, active) in [(1, 1), (2, 2), (3, 3), (4, 3), (16, 15)] {
        let mut desk = Desk::new(processors, Settings::default());
        desk.pass(S(40));
        let changed = desk.input();
        assert_eq!(desk.milli(), active * 1000);
        assert_eq!(desk.decision().io, 250);
        assert!(changed);
        assert_eq!(desk.brain.wake_at().unwrap().ms, desk.now + 2000);
        desk.now += 1999;
        desk.step(Event::Tick);
        assert_eq!(desk.milli(), active * 1000);
        desk.now += 1;
        desk.step(Event::Tick);
        assert_eq!(desk.milli(), processors * 1000);
        assert!(desk.says().contains("25 % of disk"), "{}", desk.says());
    }
    let settings = Settings {
        active_cpus: Some(cpus(1)),
        ..Settings::default()
    };
    let mut desk = Desk::new(2, settings);
    desk.pass(S(10));
    desk.input();
    assert_eq!(
        desk.says(),
        "slowed: you are at the PC; tasks have 1 processor"
    );
}

#[test]
fn where_no_delay_is_measured_no_processor_is_left_free() {
    let mut desk = Desk::new(4, Settings::default());
    desk.pass(S(61));
    desk.input();
    assert_eq!(desk.milli(), 4000);
    desk.see(|sees| sees.delay = Some(11));
    desk.see(|sees| sees.delay = Some(0));
    desk.pass(S(50));
    desk.input();
    assert_eq!(desk.milli(), 3000, "one delay brings the rule back");
    // What is not measured is not proven.
    let mut desk = Desk::new(4, Settings::default());
    desk.sees.delay = None;
    desk.pass(S(600));
    desk.input();
    assert_eq!(desk.milli(), 3000);
}

#[test]
fn measured_delay_halves_at_once_and_gives_back_a_processor_each_two_seconds() {
    let mut desk = Desk::new(8, Settings::default());
    desk.pass(S(10));
    desk.see(|sees| sees.delay = Some(10));
    assert_eq!(desk.milli(), 8000);
    desk.see(|sees| sees.delay = Some(21));
    assert_eq!(desk.milli(), 4000);
    assert_eq!(
        desk.says(),
        "slowed: your programs waited 2.1 % of the last second"
    );
    desk.now += 100;
    desk.see(|sees| sees.delay = Some(21));
    assert_eq!(desk.milli(), 4000, "a cut needs a moment to show");
    desk.now += 100;
    desk.look();
    assert_eq!(desk.milli(), 2000);
    desk.see(|sees| sees.delay = Some(0));
    for (seconds, milli) in [(1, 2000), (1, 3000), (2, 4000), (8, 8000), (9, 8000)] {
        desk.pass(S(seconds));
        assert_eq!(desk.milli(), milli);
    }
}

#[test]
fn delay_that_no_cut_helps_against_is_not_ours() {
    let mut desk = Desk::new(4, Settings::default());
    desk.pass(S(10));
    desk.sees.delay = Some(200);
    desk.pass(S(2));
    assert_eq!(desk.milli(), 500);
    desk.pass(S(11));
    assert_eq!(desk.milli(), 4000, "it was given back");
    desk.pass(S(40));
    assert_eq!(desk.milli(), 4000);
    desk.pass(S(20));
    assert!(desk.milli() < 4000, "and is tried again after a minute");
    // Delay that the cut does help against keeps it.
    let mut desk = Desk::new(4, Settings::default());
    desk.pass(S(10));
    let mut most = 0;
    for round in 0..1000 {
        desk.sees.delay = Some(if desk.milli() > 1000 { 100 } else { 0 });
        desk.pass(Span { ms: 500 });
        most = if round > 4 { most.max(desk.milli()) } else { 0 };
    }
    assert!(most <= 2000, "{most}");
}

#[test]
fn tasks_that_use_nothing_delay_nobody() {
    let mut desk = Desk::new(4, Settings::default());
    desk.pass(S(10));
    desk.see(|sees| {
        sees.load = Some(Load {
            owner: 500,
            tasks: 2,
            stolen: 0,
            busiest: 900,
        });
        sees.delay = Some(300);
    });
    assert_eq!(desk.milli(), 4000);
}

#[test]
fn an_owner_who_needs_all_processors_gets_them() {
    let mut desk = Desk::new(2, Settings::default());
    desk.pass(S(10));
    desk.owner_uses(950);
    desk.pass(S(1));
    assert_eq!(desk.verdict(), Verdict::Run);
    desk.pass(S(1));
    assert_eq!(
        desk.says(),
        "paused: your programs use 95 % of the processors"
    );
    desk.owner_uses(700);
    desk.pass(S(60));
    assert_eq!(desk.verdict(), Verdict::Pause);
    desk.owner_uses(100);
    desk.pass(S(3));
    assert_eq!(desk.verdict(), Verdict::Pause);
    desk.pass(S(1));
    assert_eq!(desk.verdict(), Verdict::Run);
}

#[test]
fn a_build_with_gaps_freezes_and_a_desktop_that_flickers_does_not_keep_frozen() {
    let mut desk = Desk::new(2, Settings::default());
    desk.pass(S(10));
    let tenths = |desk: &mut Desk, count: u64, each: u64, often: u16, seldom: u16| {
        for tenth in 0..count {
            desk.now += 100;
            let load = if tenth % each == 0 { seldom } else { often };
            desk.owner_uses(load);
            desk.look();
        }
    };
    tenths(&mut desk, 20, 10, 1000, 100);
    assert_eq!(desk.verdict(), Verdict::Pause, "a tenth of a second idle");
    tenths(&mut desk, 45, 10, 50, 1000);
    assert_eq!(desk.verdict(), Verdict::Run, "a tenth of a second busy");
}

#[test]
fn disk_pressure_halves_the_share_while_somebody_may_feel_it() {
    let mut desk = Desk::new(2, Settings::default());
    desk.see(|sees| sees.pressure = pressed(0, 400));
    assert_eq!(desk.decision().io, 500);
    assert_eq!(
        desk.says(),
        "slowed: programs waited for a disk 40 % of the last second"
    );
    desk.pass(S(4));
    assert_eq!(desk.decision().io, 50);
    desk.see(|sees| sees.pressure = CALM.pressure);
    desk.pass(S(4));
    assert_eq!(desk.decision().io, 250);
    desk.pass(S(16));
    assert_eq!(desk.decision().io, 1000);
    desk.step(Event::Pressed(Resource::Disk));
    assert_eq!(desk.decision().io, 500);
    // A task's own disk work on a PC that nobody uses is nobody's trouble.
    let mut desk = Desk::new(2, Settings::default());
    desk.owner_uses(5);
    desk.see(|sees| sees.pressure = pressed(0, 900));
    assert_eq!(desk.decision().io, 1000);
}

#[test]
fn what_tasks_hold_is_room_too() {
    let mut desk = Desk::new(2, Settings::default());
    let before = desk.decision().room;
    // A task takes a gibibyte: what it holds is no longer available, and all may hold as much.
    desk.see(|sees| {
        let memory = sees.memory.as_mut().unwrap();
        memory.available.0 -= 1 << 30;
        memory.tasks.0 += 1 << 30;
    });
    assert_eq!(desk.decision().room, before);
    // The owner takes one: tasks may hold that much less.
    desk.see(|sees| sees.memory.as_mut().unwrap().available.0 -= 1 << 30);
    assert_eq!(desk.decision().room, Bytes(before.0 - (1 << 30)));
    assert!(desk.decision().admits);
}

#[test]
fn memory_is_given_back_in_steps() {
    let mut desk = Desk::new(2, Settings::default());
    desk.see(|sees| sees.memory.as_mut().unwrap().available = Bytes(700 << 20));
    let decision = desk.decision();
    assert_eq!(
        (decision.verdict, decision.relief),
        (Verdict::Run, Relief::Reclaim)
    );
    assert!(!decision.admits);
    let mut desk = Desk::new(2, Settings::default());
    assert!(desk.step(Event::Pressed(Resource::Memory)));
    assert_eq!(desk.verdict(), Verdict::Pause);
    assert_eq!(desk.decision().relief, Relief::Reclaim);
    desk.sees.pressure = pressed(300, 0);
    desk.pass(S(21));
    assert_eq!(desk.decision().relief, Relief::Shed);
    // While it lasts, one attempt every five seconds.
    let mut asked = 0;
    for _ in 0..40 {
        desk.now += 500;
        asked += u32::from(desk.look());
    }
    assert_eq!(asked, 4);
    desk.see(|sees| sees.pressure = CALM.pressure);
    assert_eq!(desk.decision().relief, Relief::Reclaim);
    desk.pass(S(5));
    assert_eq!(
        (desk.verdict(), desk.decision().relief),
        (Verdict::Run, Relief::None)
    );
}

#[test]
fn what_stays_frozen_too_long_is_given_back_until_the_reason_is_gone() {
    let mut desk = Desk::new(2, Settings::default());
    desk.see(|sees| sees.power = battery(Some(80)));
    let since = desk.decision().since;
    assert_eq!(since.ms, desk.now);
    desk.pass(S(599));
    assert_eq!(desk.verdict(), Verdict::Pause);
    desk.pass(S(1));
    assert_eq!(desk.verdict(), Verdict::Evict);
    assert_eq!(desk.says(), "given back to the pool: on battery (80 %)");
    assert!(!desk.decision().admits);
    desk.pass(S(3600));
    assert_eq!(desk.verdict(), Verdict::Evict);
    desk.see(|sees| sees.power = CALM.power);
    desk.pass(S(6));
    assert_eq!(desk.verdict(), Verdict::Run);
}

#[test]
fn the_sleep_of_a_pc_is_a_pause_and_not_a_loss() {
    let mut desk = Desk::new(2, Settings::default());
    assert!(desk.step(Event::Sleeping(true)));
    assert_eq!(desk.verdict(), Verdict::Pause);
    desk.now += 9 * HOUR;
    desk.step(Event::Sleeping(false));
    assert_eq!(desk.verdict(), Verdict::Pause);
    desk.look();
    desk.pass(S(3));
    assert_eq!(desk.verdict(), Verdict::Run);
    // A PC that says so for ever does not sleep.
    desk.sees.sleeping = Some(true);
    desk.pass(S(59));
    assert_eq!(desk.verdict(), Verdict::Pause);
    desk.pass(S(5));
    assert_eq!(desk.verdict(), Verdict::Run);
    // However briefly tasks may stay frozen: on the way to sleep nothing is given back.
    let brief = Settings {
        frozen_max: S(10),
        ..Settings::default()
    };
    let mut desk = Desk::new(2, brief);
    desk.sees.sleeping = Some(true);
    desk.pass(S(40));
    assert_eq!(desk.verdict(), Verdict::Pause);
    // Frozen before the sleep, it has as long as before when it wakes.
    let mut desk = Desk::new(2, Settings::default());
    desk.see(|sees| sees.power = battery(None));
    desk.step(Event::Sleeping(true));
    desk.now += 9 * HOUR;
    desk.step(Event::Sleeping(false));
    desk.pass(S(500));
    assert_eq!(desk.verdict(), Verdict::Pause);
}

#[test]
fn the_owners_pause_ends_when_it_says_or_when_the_owner_does() {
    let mut desk = Desk::new(2, Settings::default());
    let until = Some(Time {
        ms: desk.now + HOUR,
    });
    assert!(desk.step(Event::Owner(OwnerWish::Pause { until })));
    assert_eq!(
        desk.says(),
        "paused: you asked for a pause; it ends in 1 h 00 min"
    );
    assert!(desk.brain.wake_at().is_some());
    desk.pass(S(3599));
    assert_ne!(desk.verdict(), Verdict::Run);
    assert!(desk.says().ends_with("it ends in 1.0 s"), "{}", desk.says());
    desk.pass(S(1));
    assert_eq!(desk.verdict(), Verdict::Run);
    desk.step(Event::Owner(OwnerWish::Pause { until: None }));
    desk.pass(S(7 * 3600));
    assert_ne!(desk.verdict(), Verdict::Run);
    desk.step(Event::Owner(OwnerWish::Resume));
    assert_eq!(desk.verdict(), Verdict::Run);
    // One that a restarted agent remembers.
    let mut brain = Brain::new(cpus(2), Settings::default(), Time { ms: desk.now });
    let until = Some(Time {
        ms: desk.now + 1000,
    });
    brain.step(
        Time { ms: desk.now },
        Event::Owner(OwnerWish::Pause { until }),
    );
    brain.step(
        Time { ms: desk.now },
        Event::Sampled(Box::new(CALM.sample(desk.now))),
    );
    assert_eq!(brain.decision().verdict, Verdict::Pause);
}

#[test]
fn the_schedule_is_kept_to_the_minute_without_a_sample() {
    let noon = 12 * 60;
    let settings = Settings {
        schedule: vec![Hours {
            from: noon - 60,
            to: noon + 1,
        }],
        ..Settings::default()
    };
    let mut desk = Desk::new(2, settings);
    desk.brain = desk.brain.sampled_every(S(60));
    desk.now += 17_000;
    desk.look();
    assert_eq!(desk.verdict(), Verdict::Run);
    let edge = desk.brain.wake_at().unwrap();
    assert!(edge.ms <= MONDAY + (u64::from(noon) + 1) * MINUTE);
    desk.now = MONDAY + (u64::from(noon) + 1) * MINUTE;
    desk.step(Event::Tick);
    assert_eq!(desk.verdict(), Verdict::Pause);
    let said = "paused: outside the hours that are set for this PC; they begin in 6 d 22 h";
    assert_eq!(desk.says(), said);
    desk.step(Event::Settings(Settings::default()));
    desk.now += 2000;
    desk.step(Event::Tick);
    assert_eq!(desk.verdict(), Verdict::Run);
}

#[test]
fn screensaver_waits_ten_minutes_or_for_the_lock_and_stops_at_the_first_input() {
    let mut desk = Desk::new(2, policy(Policy::Screensaver));
    assert_eq!(desk.verdict(), Verdict::Run);
    assert!(desk.input());
    assert_eq!(desk.verdict(), Verdict::Pause);
    assert!(
        desk.says().contains("tasks go on in 10 min 00 s"),
        "{}",
        desk.says()
    );
    desk.pass(S(599));
    assert_eq!(desk.verdict(), Verdict::Pause);
    desk.pass(S(1));
    assert_eq!(desk.verdict(), Verdict::Run);
    desk.input();
    desk.see(|sees| sees.sessions.as_mut().unwrap().locked = true);
    desk.pass(S(4));
    assert_eq!(desk.verdict(), Verdict::Pause);
    desk.pass(S(2));
    assert_eq!(desk.verdict(), Verdict::Run);
    desk.input();
    assert_eq!(desk.verdict(), Verdict::Pause);
}

#[test]
fn idle_after_waits_a_quarter_of_an_hour_and_for_quiet() {
    let mut desk = Desk::new(2, policy(Policy::IdleAfter));
    desk.input();
    desk.pass(S(899));
    assert_eq!(desk.verdict(), Verdict::Evict);
    desk.pass(S(1));
    assert_eq!(desk.verdict(), Verdict::Run);
    desk.owner_uses(600);
    desk.pass(S(2));
    assert_eq!(desk.verdict(), Verdict::Run);
    desk.pass(S(1));
    assert_eq!(
        desk.says(),
        "paused: your programs use 60 % of the processors"
    );
    desk.owner_uses(100);
    desk.pass(S(299));
    assert_eq!(desk.verdict(), Verdict::Pause);
    desk.pass(S(2));
    assert_eq!(desk.verdict(), Verdict::Run);
}

#[test]
fn night_is_a_calendar_and_nobody_logged_in() {
    let mut desk = Desk::new(2, policy(Policy::Night));
    assert_eq!(
        desk.says(),
        "paused: tasks work at night and on weekends; they begin in 8 h 00 min"
    );
    desk.now = MONDAY + 20 * HOUR;
    desk.look();
    assert_ne!(desk.verdict(), Verdict::Run);
    desk.pass(S(2));
    assert_eq!(desk.decision().cause, crate::Cause::LoggedIn);
    desk.see(|sees| {
        sees.sessions = Some(Sessions {
            locked: true,
            ..Sessions::default()
        });
    });
    desk.pass(S(60));
    assert_eq!(desk.verdict(), Verdict::Run);
    desk.input();
    assert_eq!(desk.verdict(), Verdict::Pause);
    // Friday evening to Monday morning.
    let nights = crate::thresholds::NIGHT;
    let open = |hour: u16| nights.iter().any(|night| night.contain(hour * 60));
    let hours: vec::Vec<u16> = (0..168).filter(|hour| open(*hour)).collect();
    assert_eq!(hours.len(), 4 * 10 + 4 + 48 + 6);
    assert!(open(4 * 24 + 20) && open(5 * 24 + 12) && open(6 * 24 + 23) && open(5) && !open(6));
}
