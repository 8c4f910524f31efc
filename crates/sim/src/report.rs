//! What a run is asked, and what it says in the end.

use crate::trace::Trace;
use gleaner_model::Policy;
use serde::Serialize;
use std::sync::Arc;

/// What to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// PCs; at least 1.
    pub nodes: u32,
    /// Virtual days; afterwards everything submitted is run to its end without faults.
    pub days: f64,
    /// Everything that is left to chance follows from it.
    pub seed: u64,
    /// Whether links break, PCs lose power, agents and the server are killed, users change their
    /// minds.
    pub faults: bool,
    /// When a PC works.
    pub regime: Regime,
    /// Owners out of a recording: PC `i` replays its machine `i`, again from the first where there
    /// are more PCs than machines. Without one they are made of fits.
    pub trace: Option<Arc<Trace>>,
    /// Whether all invariants are checked after each single step. Without it, each step checks
    /// the node and the durable rows that it touched, and every 256th step checks everything.
    pub check_all: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 1000,
            days: 1.0,
            seed: 1,
            faults: false,
            regime: Regime::Own(Policy::Continuous),
            trace: None,
            check_all: false,
        }
    }
}

/// Whose rules say when a PC works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regime {
    /// One of our policies, judged by the real brain.
    Own(Policy),
    /// HTCondor's desktop policy.
    PeerCondor,
    /// BOINC's defaults.
    PeerBoinc,
}

impl Regime {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Own(Policy::Continuous),
        Self::Own(Policy::Screensaver),
        Self::Own(Policy::IdleAfter),
        Self::Own(Policy::Night),
        Self::PeerCondor,
        Self::PeerBoinc,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own(policy) => policy.as_str(),
            Self::PeerCondor => "peer-condor",
            Self::PeerBoinc => "peer-boinc",
        }
    }

    /// The one that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|regime| regime.as_str() == word)
    }

    /// Whether most PCs work at any time.
    pub(crate) const fn is_steady(self) -> bool {
        matches!(self, Self::Own(Policy::Continuous) | Self::PeerBoinc)
    }

    /// Whether it acts on each single input.
    pub(crate) const fn is_keen(self) -> bool {
        matches!(self, Self::Own(Policy::Continuous))
    }
}

/// What came of it. Counts are over the whole run, its end included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// PCs.
    pub nodes: u32,
    /// Virtual days asked for.
    pub days: f64,
    /// The seed.
    pub seed: u64,
    /// Whether there were faults.
    pub faults: bool,
    /// When PCs worked.
    pub policy: &'static str,
    /// The recording that owners came from, if they did.
    pub trace: Option<String>,
    /// Over every action of the server's brain, in order, as 16 hex digits.
    pub hash: String,
    /// Steps of the real brains, the server's and the nodes' together.
    pub steps: u64,
    /// `steps` a second of real time: filled in by whoever holds the clock.
    pub steps_per_second: Option<f64>,
    /// Steps of the server's brain.
    pub server_steps: u64,
    /// Steps of the nodes' brains.
    pub node_steps: u64,
    /// Steps of the brains that judge PCs: samples and inputs.
    pub owner_steps: u64,
    /// Virtual seconds that passed, the end included.
    pub virtual_seconds: f64,
    /// Of the processor time that owners left over on PCs that were on, the part that went into
    /// results that count; over the days asked for.
    pub harvested_share: f64,
    /// The part that the judgement let tasks use, whether there were any or not.
    pub offered_share: f64,
    /// That processor time, in CPU seconds.
    pub idle_cpu_seconds: f64,
    /// CPU seconds that went into results that count.
    pub useful_cpu_seconds: f64,
    /// CPU seconds that went into attempts that did not.
    pub wasted_cpu_seconds: f64,
    /// Difference between users who always had work, in parts of the larger claim: on average.
    pub share_gap: f64,
    /// The same at its largest.
    pub share_gap_most: f64,
    /// How often shares could be compared.
    pub share_samples: u64,
    /// Jobs submitted.
    pub jobs: u64,
    /// Tasks submitted, merge commands counted.
    pub tasks: u64,
    /// Of these, done.
    pub tasks_done: u64,
    /// Of these, failed.
    pub tasks_failed: u64,
    /// Of these, cancelled.
    pub tasks_cancelled: u64,
    /// Attempts granted.
    pub attempts: u64,
    /// Attempts whose node was lost.
    pub attempts_lost: u64,
    /// Lost attempts that came back and went on.
    pub attempts_returned: u64,
    /// Attempts given back because a PC needed itself.
    pub attempts_evicted: u64,
    /// Reports that came for a task that was over or for an attempt that was closed.
    pub reports_stale: u64,
    /// Connections that broke.
    pub link_breaks: u64,
    /// Changes of the kind of a PC's verdict.
    pub verdict_changes: u64,
    /// Times that an owner switched a PC off or restarted it.
    pub power_offs: u64,
    /// PCs that lost power.
    pub power_losses: u64,
    /// Agents that were killed.
    pub agent_kills: u64,
    /// Times that an owner gave more or less memory.
    pub offers: u64,
    /// Times that the server was killed.
    pub server_kills: u64,
    /// Actions that were lost with it before they were durable.
    pub actions_lost: u64,
    /// Full checks of all invariants.
    pub checks: u64,
}

/// A run broke an invariant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what}\nat step {step}, {seconds} virtual seconds after the start; to see it again: {replay}"
)]
pub struct Failure {
    /// Which one, and where.
    pub what: String,
    /// The step of the server's brain after which it was seen.
    pub step: u64,
    /// When that was.
    pub seconds: u64,
    /// The command that shows it again.
    pub replay: String,
}

impl Options {
    /// The command that runs this again.
    #[must_use]
    pub fn replay(&self) -> String {
        let mut command = format!(
            "gleaner sim --nodes {} --days {} --seed {}",
            self.nodes, self.days, self.seed
        );
        if self.regime != Self::default().regime {
            command.push_str(" --policy ");
            command.push_str(self.regime.as_str());
        }
        if let Some(trace) = &self.trace {
            command.push_str(" --trace ");
            command.push_str(&trace.name);
        }
        if self.faults {
            command.push_str(" --faults");
        }
        command
    }
}
