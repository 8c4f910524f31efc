//! How often a verdict may change.

use super::*;
use crate::thresholds as at;
use std::vec::Vec;

/// The owner's load, averaged over the time since the last look as real sensors do: full for the
/// first `on` of each `on + off` milliseconds.
fn average(from: u64, to: u64, on: u64, off: u64) -> u16 {
    let full = |until: u64| until / (on + off) * on + (until % (on + off)).min(on);
    let share = (full(to) - full(from)) * 1000 / (to - from).max(1);
    u16::try_from(share).unwrap()
}

/// Changes of the verdict's kind in so long, sampled each `period` with a jitter.
fn changes(
    settings: Settings,
    length_s: u64,
    period: u64,
    jitter: u64,
    load: &dyn Fn(u64, u64) -> u16,
) -> (u32, Vec<u64>) {
    let mut desk = Desk::new(2, settings);
    desk.pass(Span::seconds(400));
    let (begin, mut last, mut count, mut resumes) = (desk.now, 0, 0, Vec::new());
    let mut draw = period * 7919 + jitter;
    while desk.now < begin + length_s * 1000 {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        desk.now += period - jitter + (draw >> 33) % (2 * jitter + 1);
        desk.owner_uses(load(last, desk.now - begin));
        last = desk.now - begin;
        let before = desk.verdict();
        desk.look();
        if desk.verdict() != before {
            count += 1;
            if desk.verdict() == Verdict::Run {
                resumes.push(desk.now);
            }
        }
    }
    (count, resumes)
}

#[test]
fn a_load_that_comes_and_goes_each_second_changes_the_verdict_at_most_twice_in_ten_minutes() {
    for policy_word in [Policy::Continuous, Policy::IdleAfter] {
        for period in [100, 250, 333, 700, 990, 1000, 1010, 1500, 2000, 2500, 9000] {
            for jitter in [0, period / 20, period / 3] {
                for phase in [0, 250, 900, 1500] {
                    let load = |from: u64, to: u64| average(from + phase, to + phase, 1000, 1000);
                    let (count, _) = changes(policy(policy_word), 600, period, jitter, &load);
                    assert!(
                        count <= 2,
                        "{policy_word}: {count} at {period} ± {jitter}, {phase}"
                    );
                }
            }
        }
    }
}

#[test]
fn so_does_one_that_is_sampled_in_moments_instead() {
    for period in [100, 333, 500, 700, 830] {
        for jitter in [0, period / 20, period / 6] {
            for phase in [0, 250, 900, 1500] {
                let load = |_, to: u64| if (to + phase) % 2000 < 1000 { 1000 } else { 0 };
                let (count, _) = changes(Settings::default(), 600, period, jitter, &load);
                assert!(count <= 2, "{count} at {period} ± {jitter}, {phase}");
            }
        }
    }
}

#[test]
fn whatever_the_rhythm_relapses_become_rare_and_resumes_stay_apart() {
    for (on, off) in [
        (1300, 3100),
        (2000, 4000),
        (3000, 7000),
        (5000, 14_000),
        (2000, 20_000),
    ] {
        for period in [100, 500, 1000] {
            let load = |from: u64, to: u64| average(from, to, on, off);
            let (count, resumes) = changes(Settings::default(), 600, period, period / 5, &load);
            assert!(count <= 20, "{count} at {on}/{off}, {period}");
            for pair in resumes.windows(2) {
                assert!(pair[1] - pair[0] >= at::HOLD.ms, "{resumes:?}");
            }
        }
    }
}

#[test]
fn a_sensor_that_toggles_each_sample_resumes_nothing_twice_within_two_seconds() {
    type Toggle = fn(&mut Sees, bool);
    let toggles: [Toggle; 7] = [
        |sees, bad| sees.power.as_mut().unwrap().mains = !bad,
        |sees, bad| sees.heat.as_mut().unwrap().celsius = if bad { 120 } else { 20 },
        |sees, bad| sees.disk_free = Some(Bytes(if bad { 0 } else { 1 << 40 })),
        |sees, bad| sees.pressure.as_mut().unwrap().memory = if bad { 900 } else { 0 },
        |sees, bad| sees.memory.as_mut().unwrap().available = Bytes(if bad { 0 } else { 7 << 30 }),
        |sees, bad| sees.sleeping = Some(bad),
        |sees, bad| sees.sessions.as_mut().unwrap().locked = !bad,
    ];
    for (toggle, number) in toggles.into_iter().zip(0..) {
        for half in [100, 700, 1500, 2500, 4000] {
            let settings = policy(if number == 6 {
                Policy::Screensaver
            } else {
                Policy::Continuous
            });
            let mut desk = Desk::new(2, settings);
            desk.sees.touched = Some(desk.now - 60_000);
            desk.pass(Span::seconds(60));
            let mut resumed = Vec::new();
            for step in 0..6000 {
                let before = desk.verdict();
                desk.now += 100;
                desk.see(|sees| toggle(sees, step * 100 / half % 2 == 1));
                if before != Verdict::Run && desk.verdict() == Verdict::Run {
                    resumed.push(desk.now);
                }
            }
            for pair in resumed.windows(2) {
                assert!(pair[1] - pair[0] >= at::HOLD.ms, "{number}: {resumed:?}");
            }
        }
    }
}
