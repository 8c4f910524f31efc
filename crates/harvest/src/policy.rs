//! The four policies as data. Each asks for all that the one before asks for, so that they can be
//! ordered by strictness; vetoes and limits hold for all of them.

use crate::settings::Hours;
use crate::thresholds::{IDLE_AFTER, NIGHT, SCREENSAVER_AFTER};
use gleaner_model::{Policy, Span};

/// What a policy asks for before it lets tasks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Nobody has been at the PC for this long.
    pub(crate) away: Option<Span>,
    /// A locked screen will do instead.
    pub(crate) or_locked: bool,
    /// The owner's programs rest.
    pub(crate) quiet: bool,
    /// The hour is one of these; any where empty.
    pub(crate) hours: &'static [Hours],
    /// Nobody is logged in with an open screen.
    pub(crate) logged_out: bool,
}

/// Fragments of any length count (NDDE): only vetoes and limits speak against work.
const CONTINUOUS: Rule = Rule {
    away: None,
    or_locked: false,
    quiet: false,
    hours: &[],
    logged_out: false,
};

/// SETI@home: when a screen saver would run.
const SCREENSAVER: Rule = Rule {
    away: Some(SCREENSAVER_AFTER),
    or_locked: true,
    ..CONTINUOUS
};

/// Condor: nobody for a quarter of an hour, and no program at work.
const IDLE: Rule = Rule {
    away: Some(IDLE_AFTER),
    quiet: true,
    ..CONTINUOUS
};

/// I-Cluster: nights and weekends.
const AT_NIGHT: Rule = Rule {
    hours: &NIGHT,
    logged_out: true,
    ..IDLE
};

/// What this policy asks for.
pub(crate) const fn rule(policy: Policy) -> Rule {
    match policy {
        Policy::Continuous => CONTINUOUS,
        Policy::Screensaver => SCREENSAVER,
        Policy::IdleAfter => IDLE,
        Policy::Night => AT_NIGHT,
    }
}
