//! What admin and owner may set, and how the two combine.

use alloc::vec::Vec;
use gleaner_model::{Cpus, Policy, Span};
use serde::{Deserialize, Serialize};

/// Hours of the week, in minutes since Monday 00:00 local time; the end is not included.
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
    /// Most processors for tasks while the owner is active; as measured delay allows where absent.
    pub active_cpus: Option<Cpus>,
    /// Temperature that ends work, in degrees Celsius; below what the PC says where absent.
    pub celsius_max: Option<i16>,
    /// How long attempts stay frozen before they are given back.
    pub frozen_max: Span,
    /// Vetoes for schedule, battery and heat do not count (a pool for trying out).
    pub lenient: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::Continuous,
            schedule: Vec::new(),
            on_battery: false,
            active_cpus: None,
            celsius_max: None,
            frozen_max: crate::FROZEN_MAX,
            lenient: false,
        }
    }
}
