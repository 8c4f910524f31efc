//! What holds for all streams of events.

use super::*;
use crate::{Hours, OwnerSettings, OwnerWish, Resource};
use proptest::collection::vec as many;
use proptest::option;
use proptest::prelude::*;
use std::vec::Vec;

fn signal<T: Clone + core::fmt::Debug + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<(u8, i64, T)> {
    // Mostly fresh, sometimes old, from the future, failed or absent.
    let age = prop_oneof![6 => Just(0_i64), 1 => 0..60_000_i64, 1 => -100_000..0_i64];
    (0_u8..12, age, value).boxed()
}

fn signal_of<T, U>(drawn: (u8, i64, T), now: u64, make: impl FnOnce(T) -> U) -> Signal<U> {
    let (kind, age, value) = drawn;
    match kind {
        0 => Signal::Absent,
        1 => Signal::Failed {
            since: Time { ms: now },
        },
        _ => Signal::Seen {
            value: make(value),
            at: Time {
                ms: now.saturating_add_signed(-age),
            },
        },
    }
}

prop_compose! {
    fn attention()(full_screen in prop::bool::weighted(0.1), game in prop::bool::weighted(0.1)) -> Attention {
        Attention { full_screen, presenting: false, game }
    }
}
prop_compose! {
    fn sessions()(people in 0..3_u32, active in 0..2_u32, remote in 0..2_u32, locked: bool, inhibited in prop::bool::weighted(0.1)) -> Sessions {
        Sessions { people, active, remote, locked, idle_inhibited: inhibited }
    }
}

/// Everything of a sample, with ages instead of times.
#[derive(Debug, Clone)]
struct Drawn {
    touched: (u8, i64, u64),
    sessions: (u8, i64, Sessions),
    attention: (u8, i64, Attention),
    load: (u8, i64, (u16, u16)),
    delay: (u8, i64, u16),
    pressure: (u8, i64, (u16, u16)),
    available: (u8, i64, u64),
    power: (u8, i64, (bool, Option<u8>)),
    heat: (u8, i64, (i16, bool)),
    disk: (u8, i64, u64),
    minute: u16,
    sleeping: bool,
}

prop_compose! {
    fn drawn()(
        touched in signal(prop_oneof![0..5_000_u64, 0..2_000_000_u64]),
        sessions in signal(sessions()),
        attention in signal(attention()),
        load in signal((prop_oneof![Just(0_u16), Just(950), 0..1000_u16], 0..1000_u16)),
        delay in signal(prop_oneof![3 => Just(0_u16), 1 => 0..400_u16]),
        pressure in signal((prop_oneof![3 => Just(0_u16), 1 => 0..200_u16], 0..400_u16)),
        available in signal(prop_oneof![3 => Just(4_u64 << 30), 1 => 0..(4_u64 << 30)]),
        power in signal((prop::bool::weighted(0.8), option::of(0..100_u8))),
        heat in signal((30..110_i16, prop::bool::weighted(0.1))),
        disk in signal(prop_oneof![3 => Just(9_u64 << 30), 1 => 0..(4_u64 << 30)]),
        minute in 0..10_080_u16,
        sleeping in prop::bool::weighted(0.05),
    ) -> Drawn {
        Drawn { touched, sessions, attention, load, delay, pressure, available, power, heat, disk, minute, sleeping }
    }
}

impl Drawn {
    fn sample(&self, now: u64) -> Sample {
        let it = self;
        let memory = |available| Memory {
            total: Bytes(8 << 30),
            available: Bytes(available),
            tasks: Bytes(0),
            major_faults: 0,
        };
        let load = |(owner, tasks)| Load {
            owner,
            tasks,
            stolen: 0,
            busiest: owner,
        };
        let pressure = |(memory, io)| Pressure {
            cpu: None,
            memory,
            io,
        };
        let heat = |(celsius, throttled)| Heat {
            celsius,
            critical: Some(100),
            throttled,
        };
        let touched = |age| Time { ms: now } - Span { ms: age };
        Sample {
            at: Time { ms: now },
            input: signal_of(it.touched, now, touched),
            terminal: Signal::Absent,
            desktop: Signal::Absent,
            sessions: signal_of(it.sessions, now, |sessions| sessions),
            attention: signal_of(it.attention, now, |attention| attention),
            load: signal_of(it.load, now, load),
            delay: signal_of(it.delay, now, |delay| delay),
            pressure: signal_of(it.pressure, now, pressure),
            memory: signal_of(it.available, now, memory),
            power: signal_of(it.power, now, |(mains, charge)| Power { mains, charge }),
            heat: signal_of(it.heat, now, heat),
            metered: Signal::Absent,
            disk_free: signal_of(it.disk, now, Bytes),
            sleeping: Signal::Seen {
                value: it.sleeping,
                at: Time { ms: now },
            },
            minute_of_week: it.minute,
        }
    }
}

/// An event without its time.
#[derive(Debug, Clone)]
enum Kind {
    Sampled(Box<Drawn>),
    Input,
    Pressed(Resource),
    Sleeping(bool),
    Pause(Option<i64>),
    Resume,
    Tick,
}

impl Kind {
    fn event(&self, now: u64) -> Event {
        match self {
            Self::Sampled(drawn) => Event::Sampled(Box::new(drawn.sample(now))),
            Self::Input => Event::Input,
            Self::Pressed(resource) => Event::Pressed(*resource),
            Self::Sleeping(sleeping) => Event::Sleeping(*sleeping),
            Self::Pause(length) => Event::Owner(OwnerWish::Pause {
                until: length.map(|length| Time {
                    ms: now.saturating_add_signed(length),
                }),
            }),
            Self::Resume => Event::Owner(OwnerWish::Resume),
            Self::Tick => Event::Tick,
        }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        12 => drawn().prop_map(|drawn| Kind::Sampled(Box::new(drawn))),
        2 => Just(Kind::Input),
        1 => Just(Kind::Pressed(Resource::Memory)),
        1 => Just(Kind::Pressed(Resource::Disk)),
        1 => any::<bool>().prop_map(Kind::Sleeping),
        1 => option::of(-10_000..600_000_i64).prop_map(Kind::Pause),
        1 => Just(Kind::Resume),
        4 => Just(Kind::Tick),
    ]
}

fn steps(jumps: bool) -> impl Strategy<Value = Vec<(i64, Kind)>> {
    let gap = if jumps {
        prop_oneof![
            8 => 0..3000_i64,
            2 => 0..30_000_i64,
            1 => -4_000_000_000..4_000_000_000_000_i64,
            1 => Just(i64::MIN / 2),
            1 => Just(i64::MAX),
        ]
        .boxed()
    } else {
        prop_oneof![8 => 0..3000_i64, 2 => 0..25_000_i64].boxed()
    };
    many((gap, kind()), 1..120)
}

/// Events with their times.
fn timed(steps: &[(i64, Kind)]) -> Vec<(u64, Event)> {
    let mut now = MONDAY;
    let at = |(gap, kind): &(i64, Kind)| {
        now = now.saturating_add_signed(*gap);
        (now, kind.event(now))
    };
    steps.iter().map(at).collect()
}

fn hours() -> impl Strategy<Value = Vec<Hours>> {
    many(
        (0..10_080_u16, 0..10_080_u16).prop_map(|(from, to)| Hours { from, to }),
        0..4,
    )
}

prop_compose! {
    fn settings()(
        word in prop::sample::select(Policy::ALL),
        schedule in prop_oneof![2 => Just(Vec::new()), 1 => hours()],
        on_battery: bool,
        cpus_max in option::of(100..9000_u32),
        active in option::of(100..9000_u32),
        celsius_max in option::of(40..100_i16),
        frozen_s in 0..900_u64,
        lenient in prop::bool::weighted(0.2),
    ) -> Settings {
        Settings {
            policy: word,
            schedule,
            on_battery,
            cpus_max: cpus_max.map(|milli| Cpus { milli }),
            active_cpus: active.map(|milli| Cpus { milli }),
            celsius_max,
            frozen_max: Span::seconds(frozen_s),
            lenient,
        }
    }
}

prop_compose! {
    fn wishes()(set in settings(), which in 0..128_u8) -> OwnerSettings {
        let has = |bit: u8| which >> bit & 1 == 1;
        OwnerSettings {
            policy: has(0).then_some(set.policy),
            schedule: if has(1) { set.schedule } else { Vec::new() },
            on_battery: has(2).then_some(set.on_battery),
            cpus_max: set.cpus_max.filter(|_| has(3)),
            active_cpus: set.active_cpus.filter(|_| has(4)),
            celsius_max: set.celsius_max.filter(|_| has(5)),
            frozen_max: has(6).then_some(set.frozen_max),
        }
    }
}

/// The owner's wishes as settings of their own: what they leave open is allowed.
fn alone(owner: &OwnerSettings) -> Settings {
    Settings {
        policy: owner.policy.unwrap_or(Policy::Continuous),
        schedule: owner.schedule.clone(),
        on_battery: owner.on_battery.unwrap_or(true),
        cpus_max: owner.cpus_max,
        active_cpus: owner.active_cpus,
        celsius_max: owner.celsius_max,
        frozen_max: owner.frozen_max.unwrap_or(Span { ms: u64::MAX }),
        // Whoever sets no veto leaves that to the admin, too.
        lenient: owner.schedule.is_empty()
            && owner.on_battery.unwrap_or(true)
            && owner.celsius_max.is_none(),
    }
}

fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Evict => 0,
        Verdict::Pause => 1,
        Verdict::Run => 2,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_stream_of_events_and_no_clock_leads_to_nonsense(
        settings in settings(), processors in 1..64_u32, steps in steps(true)
    ) {
        let start = Time { ms: MONDAY };
        let mut brain = Brain::new(cpus(processors), settings.clone(), start);
        let mut twin = brain.clone();
        for (now, event) in timed(&steps) {
            let before = brain.decision().clone();
            let changed = brain.step(Time { ms: now }, event.clone());
            twin.step(Time { ms: now }, event);
            let decision = brain.decision();
            prop_assert_eq!(decision, twin.decision(), "a function of the events");
            prop_assert!(decision.allowance.milli > 0);
            prop_assert!(decision.allowance <= cpus(processors));
            prop_assert!(settings.cpus_max.is_none_or(|most| decision.allowance <= most));
            prop_assert!(decision.io <= 1000 && decision.io > 0);
            prop_assert!(changed || (before.verdict, before.allowance) == (decision.verdict, decision.allowance));
            prop_assert!(brain.wake_at().is_none_or(|wake| wake.ms > now || now == u64::MAX));
            let said = std::format!("{decision}");
            prop_assert!(said.len() > 10 && said.len() < 140, "{}", said);
        }
        // Whatever happened: with a calm PC and no pause it works again.
        let mut now = timed(&steps).last().map_or(MONDAY, |(now, _)| *now).clamp(MONDAY, u64::MAX / 2);
        brain.step(Time { ms: now }, Event::Owner(OwnerWish::Resume));
        brain.step(Time { ms: now }, Event::Settings(Settings::default()));
        for _ in 0..130 {
            now += 1000;
            brain.step(Time { ms: now }, Event::Sampled(Box::new(CALM.sample(now))));
        }
        prop_assert_eq!(brain.decision().verdict, Verdict::Run, "{}", brain.decision());
        prop_assert!(brain.decision().transfers);
    }

    #[test]
    fn admin_and_owner_together_never_allow_more_than_either(
        admin in settings(), owner in wishes(), processors in 1..9_u32, steps in steps(false)
    ) {
        let start = Time { ms: MONDAY };
        let brain = |settings: Settings| Brain::new(cpus(processors), settings, start);
        let mut both = brain(admin.stricter(&owner));
        let mut either = [brain(admin), brain(alone(&owner))];
        for (now, event) in timed(&steps) {
            let now = Time { ms: now };
            both.step(now, event.clone());
            let found = both.decision();
            for one in &mut either {
                one.step(now, event.clone());
                let allows = one.decision();
                prop_assert!(rank(found.verdict) <= rank(allows.verdict), "{} | {}", found, allows);
                if found.verdict == Verdict::Run {
                    prop_assert!(found.allowance <= allows.allowance, "{} | {}", found, allows);
                }
                prop_assert!(found.io <= allows.io);
                prop_assert!(found.transfers <= allows.transfers);
                prop_assert!(found.room <= allows.room);
                prop_assert!(found.admits <= allows.admits);
            }
        }
    }

    #[test]
    fn no_rhythm_of_load_changes_the_verdict_more_than_thirty_times_in_ten_minutes(
        rhythm in many((0..=1000_u16, prop_oneof![100..4000_u64, 100..60_000_u64]), 2..40),
        period in 50..1500_u64,
    ) {
        let mut desk = Desk::new(4, Settings::default());
        let (begin, mut changes, mut ends) = (desk.now, 0, desk.now);
        let mut load = rhythm.iter().cycle();
        while desk.now < begin + 600_000 {
            desk.now += period;
            while ends <= desk.now {
                let (permille, length) = load.next().unwrap();
                desk.owner_uses(*permille);
                ends += length;
            }
            let before = desk.verdict();
            desk.look();
            changes += u32::from(desk.verdict() != before);
        }
        prop_assert!(changes <= 30, "{}", changes);
    }

    #[test]
    fn two_resumes_are_never_closer_than_two_seconds(
        settings in settings(), steps in steps(false)
    ) {
        // The owner may resume at will; everything else waits.
        let mut brain = Brain::new(cpus(4), settings, Time { ms: MONDAY });
        let mut resumed: Option<u64> = None;
        for (now, event) in timed(&steps) {
            let wish = matches!(event, Event::Owner(_));
            let before = brain.decision().verdict;
            brain.step(Time { ms: now }, event);
            if wish {
                resumed = None;
            } else if before != Verdict::Run && brain.decision().verdict == Verdict::Run {
                prop_assert!(resumed.is_none_or(|last| now - last >= 2000), "{}", brain.decision());
                resumed = Some(now);
            }
        }
    }
}
