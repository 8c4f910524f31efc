//! When and how much a PC may work beside its owner: samples in, verdict out.
//!
//! [`Brain`] owns the judgement and nothing else. It must not know how a sample is taken or how a
//! verdict is carried out: the agent (or a simulator) turns what it sees into [`Event`]s, hands
//! them to [`Brain::step`] with the time, and carries out the [`Decision`] when it changed. At
//! [`Brain::wake_at`] it wants an [`Event::Tick`].
//!
//! It protects the owner at once and gives work back slowly: every reason to pause has a threshold
//! at which it comes, a lower one at which it goes, and a time for which it must be gone
//! ([`thresholds`] is the table). Reasons depend on samples alone and not on verdicts, so that
//! stricter settings never allow more.
//!
//! A sensor that is absent is no reason to doubt; one that exists and does not speak is: without
//! input, terminals, desktop and sessions the PC counts as in use, without power it counts as on
//! battery, without load, heat or attention half of the processors must do, without memory or
//! disk nothing new starts, without any sample nothing runs.
//!
//! [`places`] says beside it which processor each attempt has while they fill the PC.
//!
//! Same settings, same events, same times: same decisions.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod brain;
mod cause;
mod clock;
mod effort;
mod gate;
mod judge;
mod mean;
pub mod places;
mod policy;
mod presence;
mod senses;
mod settings;
#[cfg(test)]
mod tests;
pub mod thresholds;
mod vetoes;

pub use brain::Brain;
pub use cause::{Cause, Focus, Sense};
pub use gleaner_model::{Policy, Sample, Verdict};
pub use settings::{Hours, OwnerSettings, Settings};

use alloc::boxed::Box;
use core::fmt;
use gleaner_model::{Bytes, Cpus, Span, Time};
use serde::{Deserialize, Serialize};

/// Something happened on the PC.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The slow loop looked at all sensors.
    Sampled(Box<Sample>),
    /// The owner touched the PC. Comes by itself, within a millisecond, and not more often than
    /// every 100 ms.
    Input,
    /// The kernel says that somebody waits for this resource longer than the trigger allows.
    Pressed(Resource),
    /// The PC is about to sleep, or has woken.
    Sleeping(bool),
    /// The owner wants something, or no longer.
    Owner(OwnerWish),
    /// Settings of the admin and the owner, already combined by [`Settings::stricter`].
    Settings(Settings),
    /// Time passed; see [`Brain::wake_at`].
    Tick,
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Memory: somebody waits for pages.
    Memory,
    /// A disk.
    Disk,
}

/// What the owner said with the button or the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "wish")]
pub enum OwnerWish {
    /// Do nothing until then; without a time, until [`OwnerWish::Resume`].
    Pause {
        /// When the pause ends.
        until: Option<Time>,
    },
    /// Work as the settings say.
    Resume,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether tasks run.
    pub verdict: Verdict,
    /// Processors that all tasks together may use while they run.
    pub allowance: Cpus,
    /// Share of the disk and network rates that tasks may use, in thousandths.
    pub io: u16,
    /// Whether blobs may travel.
    pub transfers: bool,
    /// Memory that all attempts together may hold, those that run among them: what they hold and
    /// what is available, less what is kept for the owner. The kernel takes back what they hold
    /// beyond that. The largest number where the PC does not say how much it has.
    pub room: Bytes,
    /// Whether attempts may start.
    pub admits: bool,
    /// Whether tasks shall give memory back to the owner: the coldest pages of frozen ones first,
    /// then the youngest attempts.
    pub relief: Relief,
    /// Why, in a form that becomes a sentence.
    pub cause: Cause,
    /// Since when this verdict holds.
    pub since: Time,
}

impl fmt::Display for Decision {
    /// A sentence for the owner: what is done, and why.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.verdict == Verdict::Evict {
            f.write_str("given back to the pool: ")?;
            return self.cause.reason(f);
        }
        self.cause.fmt(f)
    }
}

/// How tasks give memory back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relief {
    /// Not at all.
    None,
    /// Pages that can be dropped or are cold.
    Reclaim,
    /// An attempt is given back, the youngest first; asked again while the need lasts.
    Shed,
}

/// How long a node keeps an attempt frozen before it gives it back, by default: long enough for
/// a coffee break of the owner's work, short enough that a user does not wait for a frozen task
/// while other nodes are idle.
pub const FROZEN_MAX: Span = Span::seconds(10 * 60);
