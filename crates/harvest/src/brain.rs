//! The judgement.

use crate::{Cause, Decision, Event, Relief, Settings, Verdict};
use gleaner_model::{Bytes, Cpus, Time};

/// Judges one PC.
#[derive(Debug, Clone)]
pub struct Brain {
    settings: Settings,
    decision: Decision,
}

impl Brain {
    /// A brain for a PC of so many processors.
    #[must_use]
    pub fn new(processors: Cpus, settings: Settings, now: Time) -> Self {
        let decision = Decision {
            verdict: Verdict::Run,
            allowance: processors,
            io: 1000,
            transfers: true,
            room: Bytes(u64::MAX),
            relief: Relief::None,
            cause: Cause::Free,
            since: now,
        };
        Self { settings, decision }
    }

    /// Takes an event; says whether the decision changed.
    pub fn step(&mut self, _now: Time, event: Event) -> bool {
        if let Event::Settings(settings) = event {
            self.settings = settings;
        }
        false
    }

    /// What to do now.
    #[must_use]
    pub const fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The settings in force.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// When the next [`Event::Tick`] is due.
    #[must_use]
    pub const fn wake_at(&self) -> Option<Time> {
        None
    }
}
