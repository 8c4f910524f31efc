//! When the peers' rules let tasks run. Pure: what they sample comes in, with the time.
//!
//! BOINC's is its default computing preference "suspend when non-BOINC CPU usage is above 25 %"
//! (looked at every 10 s, kept for 20 s); HTCondor's is `use POLICY:DESKTOP` of its manual.

/// BOINC's 25 % rule.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Boinc {
    /// Suspended at least until then, in seconds.
    until: Option<f64>,
}

impl Boinc {
    /// Time between two looks at the load, in seconds.
    pub const SAMPLE_S: f64 = 10.0;
    /// Share of all CPUs that others may use.
    const OTHERS: f64 = 0.25;
    /// Least length of a suspension, in seconds.
    const HOLD_S: f64 = 20.0;

    /// Takes a sample at `now` (seconds): the share of all CPUs that others used since the one
    /// before. Says whether tasks run until the next.
    pub fn sample(&mut self, now_s: f64, others: f64) -> bool {
        if others > Self::OTHERS {
            self.until = Some(now_s + Self::HOLD_S);
        }
        if self.until.is_some_and(|until| now_s >= until) {
            self.until = None;
        }
        self.until.is_none()
    }
}

/// HTCondor's desktop rule: what its slot is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condor {
    /// No job.
    Unclaimed,
    /// A job runs; the load of others has been high since then.
    Running {
        /// Seconds; none where it is low.
        busy_since: Option<f64>,
        /// When the job started, in seconds.
        started: f64,
    },
    /// The job is stopped since then.
    Suspended {
        /// Seconds.
        since: f64,
        /// When the job started, in seconds.
        started: f64,
    },
}

impl Condor {
    /// START, in seconds without input.
    const START_IDLE_S: f64 = 15.0 * 60.0;
    /// CONTINUE, in seconds without input.
    const CONTINUE_IDLE_S: f64 = 5.0 * 60.0;
    /// Input less than this many seconds ago is an owner at work.
    const BUSY_IDLE_S: f64 = 60.0;
    /// Load average of others that counts as none.
    const LOW_LOAD: f64 = 0.3;
    /// Load average of others that counts as use.
    const HIGH_LOAD: f64 = 0.5;
    /// How long it must be high, in seconds.
    const HIGH_FOR_S: f64 = 120.0;
    /// A younger job is not suspended for load, in seconds.
    const YOUNG_S: f64 = 90.0;
    /// A suspended job does not continue before, in seconds.
    const SUSPENDED_S: f64 = 10.0;
    /// A job suspended longer is evicted, in seconds.
    const EVICT_S: f64 = 10.0 * 60.0;

    /// A look (each 5 s by default) at seconds without input and the load of others.
    #[must_use]
    pub fn step(self, now_s: f64, input_idle_s: f64, load: f64) -> Self {
        match self {
            Self::Unclaimed if input_idle_s > Self::START_IDLE_S && load <= Self::LOW_LOAD => {
                Self::Running {
                    busy_since: None,
                    started: now_s,
                }
            }
            Self::Unclaimed => self,
            Self::Running {
                busy_since,
                started,
            } => {
                let busy_since =
                    (load >= Self::HIGH_LOAD).then_some(busy_since.map_or(now_s, |since| since));
                let long = busy_since.is_some_and(|since| now_s - since > Self::HIGH_FOR_S);
                let loaded = long && now_s - started > Self::YOUNG_S;
                if input_idle_s < Self::BUSY_IDLE_S || loaded {
                    Self::Suspended {
                        since: now_s,
                        started,
                    }
                } else {
                    Self::Running {
                        busy_since,
                        started,
                    }
                }
            }
            Self::Suspended { since, .. } if now_s - since > Self::EVICT_S => Self::Unclaimed,
            Self::Suspended { since, started } => {
                let quiet = load <= Self::LOW_LOAD && input_idle_s > Self::CONTINUE_IDLE_S;
                match quiet && now_s - since > Self::SUSPENDED_S {
                    true => Self::Running {
                        busy_since: None,
                        started,
                    },
                    false => self,
                }
            }
        }
    }

    /// Whether the job runs.
    #[must_use]
    pub const fn runs(self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boinc_stops_above_a_quarter_and_holds_for_twenty_seconds() {
        let mut rule = Boinc::default();
        for (now, others, runs) in [
            (0.0, 0.10, true),
            (10.0, 0.25, true),
            (20.0, 0.26, false),
            (30.0, 0.05, false),
            (40.0, 0.05, true),
            (50.0, 0.90, false),
            (60.0, 0.90, false),
            // Each sample above the limit starts the hold again.
            (70.0, 0.0, false),
            (80.0, 0.0, true),
        ] {
            assert_eq!(rule.sample(now, others), runs, "at {now} s");
        }
    }

    #[test]
    fn condor_waits_for_fifteen_quiet_minutes() {
        let mut slot = Condor::Unclaimed;
        // An owner who types: never.
        for second in (0..3600).step_by(5) {
            slot = slot.step(f64::from(second), 0.1, 0.2);
            assert!(!slot.runs());
        }
        // Gone, but a program works on: not either.
        slot = slot.step(5000.0, 1000.0, 0.6);
        assert!(!slot.runs());
        slot = slot.step(5005.0, 1005.0, 0.1);
        assert!(slot.runs());
    }

    #[test]
    fn condor_suspends_continues_and_evicts() {
        let running = Condor::Running {
            busy_since: None,
            started: 0.0,
        };
        let suspended = running.step(100.0, 2.0, 0.0);
        assert!(!suspended.runs());
        assert!(!suspended.step(200.0, 100.0, 0.0).runs(), "too early");
        assert!(suspended.step(500.0, 400.0, 0.1).runs());
        assert!(!suspended.step(500.0, 400.0, 0.4).runs(), "load");
        assert_eq!(suspended.step(701.0, 50.0, 0.0), Condor::Unclaimed);
    }

    #[test]
    fn condor_gives_way_to_two_minutes_of_load() {
        let mut slot = Condor::Running {
            busy_since: None,
            started: 0.0,
        };
        for now in (0..=120).step_by(5) {
            slot = slot.step(f64::from(now), 2000.0, 0.8);
            assert!(slot.runs(), "{now}");
        }
        slot = slot.step(125.0, 2000.0, 0.8);
        assert!(!slot.runs());
        // A short burst is forgotten.
        let mut slot = Condor::Running {
            busy_since: Some(0.0),
            started: 0.0,
        };
        slot = slot.step(100.0, 2000.0, 0.1).step(130.0, 2000.0, 0.8);
        assert!(slot.runs());
    }
}
