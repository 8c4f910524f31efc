//! The rules of other systems, to be compared with ours on the same owners. Their documents give
//! the figures; how each asks its PC is simplified to the same samples that ours gets.

use crate::chance::whole;
use gleaner_model::Verdict;

/// Whose rules a PC follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// HTCondor, `use POLICY : DESKTOP`: starts after 15 min without input at a load of at most
    /// 0.3; suspends at an input within 60 s, or at a load of 0.5 for 120 s; goes on at a load of
    /// at most 0.3 after 5 min without input; evicts after 10 min of suspension. Polled each 5 s.
    Condor,
    /// BOINC's defaults: works beside its owner; suspends while other programs use more than 25 %
    /// of the processors in use and 50 % otherwise, for at least 20 s; looks each 10 s.
    Boinc,
}

const S: u64 = 1000;
const MIN: u64 = 60 * S;

/// A PC under such rules.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    rules: Rules,
    cpus_milli: u32,
    pub(crate) verdict: Verdict,
    touched: u64,
    load: u16,
    /// Since when the load is too high for Condor; when the present verdict began.
    loud: Option<u64>,
    since: u64,
}

impl Peer {
    pub(crate) const fn new(rules: Rules, cpus_milli: u32, now: u64) -> Self {
        Self {
            rules,
            cpus_milli,
            verdict: Verdict::Evict,
            touched: 0,
            load: 0,
            loud: None,
            since: now,
        }
    }

    /// What there is to see now; says whether the verdict changed.
    pub(crate) fn look(&mut self, now: u64, touched: u64, load: u16) -> bool {
        self.touched = touched;
        self.load = load;
        let loud = self.loadavg() >= 0.5;
        self.loud = if loud { self.loud.or(Some(now)) } else { None };
        let verdict = match self.rules {
            Rules::Condor => self.condor(now),
            Rules::Boinc => self.boinc(now),
        };
        let changed = verdict != self.verdict;
        if changed {
            self.since = now;
        }
        self.verdict = verdict;
        changed
    }

    /// The owner's load as processes that run, as Condor counts.
    fn loadavg(&self) -> f64 {
        f64::from(self.load) / 1000.0 * f64::from(self.cpus_milli) / 1000.0
    }

    fn condor(&self, now: u64) -> Verdict {
        let idle = now - self.touched;
        let quiet = self.loadavg() <= 0.3;
        let loud = self.loud.is_some_and(|since| now - since >= 120 * S);
        match self.verdict {
            Verdict::Run if idle < MIN || loud => Verdict::Pause,
            Verdict::Run => Verdict::Run,
            Verdict::Pause if quiet && now - self.since >= 10 * S && idle >= 5 * MIN => {
                Verdict::Run
            }
            Verdict::Pause if now - self.since >= 10 * MIN => Verdict::Evict,
            Verdict::Pause => Verdict::Pause,
            Verdict::Evict if idle >= 15 * MIN && quiet => Verdict::Run,
            Verdict::Evict => Verdict::Evict,
        }
    }

    fn boinc(&self, now: u64) -> Verdict {
        let in_use = now - self.touched < 3 * MIN;
        let most = if in_use { 250 } else { 500 };
        let held = self.verdict == Verdict::Pause && now - self.since < 20 * S;
        if self.load > most || held {
            Verdict::Pause
        } else {
            Verdict::Run
        }
    }

    /// How late it sees a change, in milliseconds, on average.
    pub(crate) const fn late(&self) -> u64 {
        match self.rules {
            Rules::Condor => 2500,
            Rules::Boinc => 5000,
        }
    }

    /// When to look again although nothing else happens.
    pub(crate) fn due(&self, now: u64) -> Option<u64> {
        let idle = [MIN, 3 * MIN, 5 * MIN, 15 * MIN].map(|after| self.touched + after);
        let held = [10 * S, 20 * S, 10 * MIN].map(|after| self.since + after);
        let loud = self.loud.map(|since| since + 120 * S);
        let all = idle.into_iter().chain(held).chain(loud);
        all.filter(|at| *at > now).min()
    }
}

/// Thousandths as a number of processors, rounded down.
#[must_use]
pub(crate) fn offered(cpus_milli: u32, load: u16) -> u32 {
    let free = f64::from(cpus_milli) * (1000.0 - f64::from(load.min(1000))) / 1000.0;
    u32::try_from(whole(free)).unwrap_or(cpus_milli)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condor_waits_a_quarter_of_an_hour_suspends_at_a_touch_and_evicts_after_ten_minutes() {
        let mut pc = Peer::new(Rules::Condor, 4000, 0);
        for (minute, touched, load, verdict) in [
            (14, 0, 20, Verdict::Evict),
            (15, 0, 20, Verdict::Run),
            (20, 20, 20, Verdict::Pause),
            (24, 20, 20, Verdict::Pause),
            (25, 20, 20, Verdict::Run),
            (40, 20, 200, Verdict::Run),
            (42, 20, 200, Verdict::Pause),
            (52, 20, 200, Verdict::Evict),
            (53, 20, 60, Verdict::Run),
        ] {
            pc.look(minute * MIN, touched * MIN, load);
            assert_eq!(pc.verdict, verdict, "minute {minute}");
        }
    }

    #[test]
    fn boinc_works_beside_its_owner_until_others_use_a_quarter() {
        let mut pc = Peer::new(Rules::Boinc, 4000, 0);
        for (second, touched, load, verdict) in [
            (10, 10, 240, Verdict::Run),
            (20, 20, 260, Verdict::Pause),
            (30, 30, 100, Verdict::Pause),
            (40, 40, 100, Verdict::Run),
            (300, 40, 260, Verdict::Run),
            (310, 40, 510, Verdict::Pause),
        ] {
            pc.look(second * S, touched * S, load);
            assert_eq!(pc.verdict, verdict, "second {second}");
        }
    }
}
