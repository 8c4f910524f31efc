//! What admin and owner may set, and how the two combine.

use alloc::vec::Vec;
use gleaner_model::{Cpus, Policy, Span};
use serde::{Deserialize, Serialize};

/// Minutes of a week.
pub(crate) const WEEK_MINUTES: u16 = 7 * 24 * 60;

/// Hours of the week, in minutes since Monday 00:00 local time; the end is not included, so that
/// two equal minutes are no time at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    /// First minute.
    pub from: u16,
    /// First minute after; smaller than `from` where they pass Sunday midnight.
    pub to: u16,
}

/// When and how much this node works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The policy.
    pub policy: Policy,
    /// Hours in which it may work; always where empty.
    pub schedule: Vec<Hours>,
    /// Whether it works on battery.
    pub on_battery: bool,
    /// Most processors for tasks at any time; all where absent.
    pub cpus_max: Option<Cpus>,
    /// Most processors for tasks while the owner is active; as measured delay allows where absent.
    pub active_cpus: Option<Cpus>,
    /// Temperature that ends work, in degrees Celsius; below what the PC says where absent.
    pub celsius_max: Option<i16>,
    /// How long attempts stay frozen before they are given back.
    pub frozen_max: Span,
    /// Vetoes for schedule, battery and heat do not count (a pool for trying out).
    pub lenient: bool,
}

/// What an owner wishes beyond the admin's [`Settings`]; what is absent is left to the admin.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OwnerSettings {
    /// A stricter policy.
    pub policy: Option<Policy>,
    /// Hours in which it may work; the admin's where empty.
    pub schedule: Vec<Hours>,
    /// Whether it works on battery.
    pub on_battery: Option<bool>,
    /// Most processors for tasks at any time.
    pub cpus_max: Option<Cpus>,
    /// Most processors for tasks while the owner is active.
    pub active_cpus: Option<Cpus>,
    /// Temperature that ends work, in degrees Celsius.
    pub celsius_max: Option<i16>,
    /// How long attempts stay frozen before they are given back.
    pub frozen_max: Option<Span>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::Continuous,
            schedule: Vec::new(),
            on_battery: false,
            cpus_max: None,
            active_cpus: None,
            celsius_max: None,
            frozen_max: crate::FROZEN_MAX,
            lenient: false,
        }
    }
}

impl Hours {
    /// No minute at all: a schedule of only these never works.
    pub(crate) const NEVER: Self = Self { from: 0, to: 0 };

    /// Whether a minute of the week lies inside.
    #[must_use]
    pub const fn contain(self, minute: u16) -> bool {
        let minute = minute % WEEK_MINUTES;
        if self.from <= self.to {
            self.from <= minute && minute < self.to
        } else {
            self.from <= minute || minute < self.to
        }
    }
}

/// Whether a schedule lets a PC work in this minute of the week.
#[must_use]
pub(crate) fn allows(schedule: &[Hours], minute: u16) -> bool {
    schedule.is_empty() || schedule.iter().any(|hours| hours.contain(minute))
}

/// Minutes until one of these hours begins or ends next, one at least; a week where there are none.
#[must_use]
pub(crate) fn next_edge(schedule: &[Hours], minute: u16) -> u16 {
    let minute = minute % WEEK_MINUTES;
    let away = |edge: u16| match (edge % WEEK_MINUTES + WEEK_MINUTES - minute) % WEEK_MINUTES {
        0 => WEEK_MINUTES,
        minutes => minutes,
    };
    let edges = schedule.iter().flat_map(|hours| [hours.from, hours.to]);
    edges.map(away).min().unwrap_or(WEEK_MINUTES)
}

/// Minutes until a schedule lets a PC work; none where it never does.
#[must_use]
pub(crate) fn opens_in(schedule: &[Hours], minute: u16) -> Option<u16> {
    let minute = minute % WEEK_MINUTES;
    if allows(schedule, minute) {
        return Some(0);
    }
    let begins = schedule.iter().filter(|hours| hours.contain(hours.from));
    begins
        .map(|hours| (hours.from % WEEK_MINUTES + WEEK_MINUTES - minute) % WEEK_MINUTES)
        .min()
}

/// The hours that both schedules let a PC work.
fn both(one: &[Hours], other: &[Hours]) -> Vec<Hours> {
    if one.is_empty() || other.is_empty() {
        return if one.is_empty() { other } else { one }.to_vec();
    }
    let mut hours: Vec<Hours> = Vec::new();
    let mut minute = 0;
    while minute < WEEK_MINUTES {
        let step = next_edge(one, minute).min(next_edge(other, minute));
        let to = minute.saturating_add(step).min(WEEK_MINUTES);
        if allows(one, minute) && allows(other, minute) {
            match hours.last_mut() {
                Some(last) if last.to == minute => last.to = to,
                _ => hours.push(Hours { from: minute, to }),
            }
        }
        minute = to;
    }
    if hours.is_empty() {
        hours.push(Hours::NEVER);
    }
    hours
}

/// The smaller of two limits that may be absent.
fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// How strict a policy is: each one asks for all that those before it ask for.
const fn strictness(policy: Policy) -> u8 {
    match policy {
        Policy::Continuous => 0,
        Policy::Screensaver => 1,
        Policy::IdleAfter => 2,
        Policy::Night => 3,
    }
}

impl Settings {
    /// These settings with the owner's wishes: in everything the stricter of the two.
    #[must_use]
    pub fn stricter(&self, owner: &OwnerSettings) -> Self {
        let policy = owner.policy.unwrap_or(self.policy);
        Self {
            policy: if strictness(policy) > strictness(self.policy) {
                policy
            } else {
                self.policy
            },
            schedule: both(&self.schedule, &owner.schedule),
            on_battery: self.on_battery && owner.on_battery.unwrap_or(true),
            cpus_max: least(self.cpus_max, owner.cpus_max),
            active_cpus: least(self.active_cpus, owner.active_cpus),
            celsius_max: least(self.celsius_max, owner.celsius_max),
            frozen_max: owner
                .frozen_max
                .map_or(self.frozen_max, |span| span.min(self.frozen_max)),
            lenient: self.lenient && !owner.wishes_vetoes(),
        }
    }
}

impl OwnerSettings {
    /// Whether the owner set something that [`Settings::lenient`] would pass over.
    const fn wishes_vetoes(&self) -> bool {
        !self.schedule.is_empty()
            || matches!(self.on_battery, Some(false))
            || self.celsius_max.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const DAY: u16 = 24 * 60;

    #[test]
    fn hours_may_pass_sunday_midnight_and_equal_ends_are_no_time() {
        let weekend = Hours {
            from: 6 * DAY,
            to: 60,
        };
        for (minute, inside) in [
            (6 * DAY - 1, false),
            (6 * DAY, true),
            (WEEK_MINUTES - 1, true),
            (0, true),
            (59, true),
            (60, false),
        ] {
            assert_eq!(weekend.contain(minute), inside, "{minute}");
        }
        assert!((0..WEEK_MINUTES).all(|minute| !Hours::NEVER.contain(minute)));
        assert!((0..WEEK_MINUTES).all(|minute| allows(&[], minute)));
    }

    #[test]
    fn a_schedule_knows_when_it_opens_and_where_its_next_edge_lies() {
        let schedule = [
            Hours { from: 600, to: 660 },
            Hours {
                from: DAY,
                to: DAY + 5,
            },
        ];
        assert_eq!(opens_in(&schedule, 0), Some(600));
        assert_eq!(opens_in(&schedule, 630), Some(0));
        assert_eq!(opens_in(&schedule, 660), Some(DAY - 660));
        assert_eq!(
            opens_in(&schedule, DAY + 5),
            Some(WEEK_MINUTES - DAY - 5 + 600)
        );
        assert_eq!(opens_in(&[Hours::NEVER], 5), None);
        assert_eq!(next_edge(&schedule, 600), 60);
        assert_eq!(next_edge(&[], 600), WEEK_MINUTES);
    }

    #[test]
    fn two_schedules_leave_what_both_allow() {
        let day = |from, to| Hours { from, to };
        let night = day(6 * DAY + 1200, 360);
        assert_eq!(both(&[], &[night]), vec![night]);
        assert_eq!(both(&[day(0, 100)], &[day(50, 200)]), vec![day(50, 100)]);
        assert_eq!(both(&[day(0, 100)], &[day(100, 200)]), vec![Hours::NEVER]);
        let found = both(&[night], &[day(0, WEEK_MINUTES)]);
        assert_eq!(found, vec![day(0, 360), day(6 * DAY + 1200, WEEK_MINUTES)]);
    }

    #[test]
    fn an_owner_who_sets_nothing_changes_nothing() {
        let admin = Settings {
            policy: Policy::IdleAfter,
            on_battery: true,
            lenient: true,
            cpus_max: Some(Cpus::ONE),
            ..Settings::default()
        };
        assert_eq!(admin.stricter(&OwnerSettings::default()), admin);
        let owner = OwnerSettings {
            policy: Some(Policy::Continuous),
            on_battery: Some(false),
            cpus_max: Some(Cpus { milli: 4000 }),
            ..OwnerSettings::default()
        };
        let both = admin.stricter(&owner);
        assert_eq!(both.policy, Policy::IdleAfter);
        assert_eq!(both.cpus_max, Some(Cpus::ONE));
        assert!(!both.on_battery && !both.lenient);
    }
}
