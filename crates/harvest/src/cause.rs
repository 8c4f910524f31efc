//! Why a decision is what it is, as data and as a sentence for the owner.

use core::fmt;
use gleaner_model::{Bytes, Cpus, Span, Time};
use serde::{Deserialize, Serialize};

/// Something that a sensor tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sense {
    /// What the owner attends to.
    Attention,
    /// Processor time.
    Load,
    /// How long the owner's programs wait.
    Delay,
    /// Power.
    Power,
    /// Heat.
    Heat,
}

/// What the owner attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Focus {
    /// A game.
    Game,
    /// A presentation.
    Presentation,
    /// One window that fills the screen.
    FullScreen,
}

/// The rule that decided, with its figures. Its text is a sentence for the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "cause")]
pub enum Cause {
    /// Nothing speaks against work.
    Free,

    /// The owner said so.
    OwnerPause {
        /// When the pause ends.
        until: Option<Time>,
        /// How long that is.
        left: Option<Span>,
    },
    /// The PC goes to sleep.
    Sleeping,
    /// No sample has come yet, or none for a while.
    Silent,
    /// The hour is outside the schedule.
    Schedule {
        /// How long until it is inside; none where that never comes.
        left: Option<Span>,
    },
    /// The hour is outside the policy's.
    Day {
        /// How long until it is inside.
        left: Option<Span>,
    },
    /// On battery.
    Battery {
        /// Charge in percent.
        charge: Option<u8>,
    },
    /// Too hot.
    Hot {
        /// Temperature in degrees Celsius.
        celsius: i16,
        /// From where on it is too hot.
        limit: i16,
    },
    /// The disk is nearly full.
    DiskLow {
        /// Free bytes.
        free: Bytes,
        /// Bytes at which work goes on.
        enough: Bytes,
    },
    /// Somebody waits for memory.
    MemoryPressure {
        /// For how much of the last moment, in thousandths.
        permille: u16,
    },
    /// Too little memory is left for the owner's programs.
    MemoryLow {
        /// What is left.
        available: Bytes,
        /// What is kept for them.
        reserve: Bytes,
    },
    /// The owner's programs need the processors.
    Busy {
        /// How much of them, in thousandths.
        permille: u16,
    },
    /// Nobody can tell whether somebody is there.
    Blind,
    /// Somebody is there, or was a while ago.
    InUse {
        /// How long ago.
        ago: Span,
        /// How much longer nobody must be there.
        left: Span,
    },
    /// Somebody is logged in with an open screen.
    LoggedIn,
    /// A sensor exists and does not speak, and without it work is not safe for the PC.
    Unseen {
        /// Which.
        sense: Sense,
    },

    /// The owner's or admin's limit.
    Limit {
        /// Processors.
        cpus: Cpus,
    },
    /// The owner is active.
    Active {
        /// Processors left to tasks.
        cpus: Cpus,
    },
    /// The owner's programs waited.
    Delay {
        /// For how much of wall time, in thousandths.
        permille: u16,
    },
    /// Something has the owner's attention.
    Attending {
        /// What.
        focus: Focus,
    },
    /// Near the temperature that ends work, or throttled.
    Warm {
        /// Temperature in degrees Celsius.
        celsius: i16,
    },
    /// A sensor exists and does not speak; half must do.
    Unsure {
        /// Which.
        sense: Sense,
    },
    /// Work has just been resumed.
    Resuming {
        /// Processors so far.
        cpus: Cpus,
    },
    /// Somebody is at the PC: disk and network are kept for them.
    Near {
        /// Share left to tasks, in thousandths.
        permille: u16,
    },
    /// Somebody waited for a disk.
    DiskPressure {
        /// For how much of the last moment, in thousandths.
        permille: u16,
    },
    /// The connection costs by the byte.
    Metered,
}

/// "1 processor", "1.5 processors".
struct Processors(Cpus);

impl fmt::Display for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.0 == Cpus::ONE { "" } else { "s" };
        write!(f, "{} processor{end}", self.0)
    }
}

/// Thousandths as percent.
struct Percent(u16);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 / 10)?;
        if self.0 < 100 && !self.0.is_multiple_of(10) {
            write!(f, ".{}", self.0 % 10)?;
        }
        f.write_str(" %")
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attention => "what fills the screen",
            Self::Load => "the load of the PC",
            Self::Delay => "how long your programs wait",
            Self::Power => "whether the PC is on battery",
            Self::Heat => "how hot the PC is",
        })
    }
}

impl Cause {
    /// The state of tasks that it leads to, in one word.
    #[must_use]
    pub const fn effect(&self) -> &'static str {
        match self {
            Self::Free => "working",
            Self::OwnerPause { .. }
            | Self::Sleeping
            | Self::Silent
            | Self::Schedule { .. }
            | Self::Day { .. }
            | Self::Battery { .. }
            | Self::Hot { .. }
            | Self::DiskLow { .. }
            | Self::MemoryPressure { .. }
            | Self::MemoryLow { .. }
            | Self::Busy { .. }
            | Self::Blind
            | Self::InUse { .. }
            | Self::LoggedIn
            | Self::Unseen { .. } => "paused",
            Self::Limit { .. }
            | Self::Active { .. }
            | Self::Delay { .. }
            | Self::Attending { .. }
            | Self::Warm { .. }
            | Self::Unsure { .. }
            | Self::Resuming { .. }
            | Self::Near { .. }
            | Self::DiskPressure { .. }
            | Self::Metered => "slowed",
        }
    }

    /// Writes the reason alone, without what follows from it.
    pub(crate) fn reason(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Free => f.write_str("nothing else needs the PC"),
            Self::OwnerPause { left, .. } => match left {
                Some(left) => write!(f, "you asked for a pause; it ends in {left}"),
                None => f.write_str("you asked for a pause, until you resume"),
            },
            Self::Sleeping => f.write_str("the PC is going to sleep"),
            Self::Silent => f.write_str("the sensors of the PC say nothing yet"),
            Self::Schedule { left } | Self::Day { left } => {
                f.write_str(if matches!(self, Self::Day { .. }) {
                    "tasks work at night and on weekends"
                } else {
                    "outside the hours that are set for this PC"
                })?;
                match left {
                    Some(left) => write!(f, "; they begin in {left}"),
                    None => f.write_str("; they never come, see the schedule"),
                }
            }
            Self::Battery { charge } => match charge {
                Some(charge) => write!(f, "on battery ({charge} %)"),
                None => f.write_str("on battery"),
            },
            Self::Hot { celsius, limit } => write!(f, "{celsius} °C, the limit is {limit} °C"),
            Self::DiskLow { free, enough } => write!(
                f,
                "{free} of disk are free; tasks go on at {enough}"
            ),
            Self::MemoryPressure { permille } => write!(
                f,
                "programs waited for memory {} of the last second",
                Percent(permille)
            ),
            Self::MemoryLow { available, reserve } => write!(
                f,
                "{available} of memory are left, {reserve} are kept for your programs"
            ),
            Self::Busy { permille } => write!(
                f,
                "your programs use {} of the processors",
                Percent(permille)
            ),
            Self::Blind => f.write_str(
                "neither keyboard nor screen nor sessions can be watched, so the PC counts as in use",
            ),
            Self::InUse { ago, left } => write!(
                f,
                "the PC was used {ago} ago; tasks go on in {left} if it is left alone"
            ),
            Self::LoggedIn => f.write_str("somebody is logged in"),
            Self::Unseen { sense } | Self::Unsure { sense } => {
                write!(f, "{sense} cannot be seen")
            }
            Self::Limit { .. }
            | Self::Active { .. }
            | Self::Delay { .. }
            | Self::Attending { .. }
            | Self::Warm { .. }
            | Self::Resuming { .. }
            | Self::Near { .. }
            | Self::DiskPressure { .. }
            | Self::Metered => self.reason_to_slow(f),
        }
    }

    /// The reasons that only slow tasks down.
    fn reason_to_slow(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit { cpus } => write!(f, "at most {}, as set", Processors(cpus)),
            Self::Active { cpus } => {
                write!(f, "you are at the PC; tasks have {}", Processors(cpus))
            }
            Self::Delay { permille } => write!(
                f,
                "your programs waited {} of the last second",
                Percent(permille)
            ),
            Self::Attending { focus } => f.write_str(match focus {
                Focus::Game => "half for tasks, while a game runs",
                Focus::Presentation => "half for tasks, during a presentation",
                Focus::FullScreen => "half for tasks, while one window fills the screen",
            }),
            Self::Warm { celsius } => write!(f, "half for tasks, at {celsius} °C"),
            Self::Resuming { cpus } => {
                write!(
                    f,
                    "resumed just now; tasks have {} so far",
                    Processors(cpus)
                )
            }
            Self::Near { permille } => write!(
                f,
                "you are at the PC; tasks have {} of disk and network",
                Percent(permille)
            ),
            Self::DiskPressure { permille } => write!(
                f,
                "programs waited for a disk {} of the last second",
                Percent(permille)
            ),
            Self::Metered => f.write_str("files wait, the connection costs by the byte"),
            Self::Free
            | Self::OwnerPause { .. }
            | Self::Sleeping
            | Self::Silent
            | Self::Schedule { .. }
            | Self::Day { .. }
            | Self::Battery { .. }
            | Self::Hot { .. }
            | Self::DiskLow { .. }
            | Self::MemoryPressure { .. }
            | Self::MemoryLow { .. }
            | Self::Busy { .. }
            | Self::Blind
            | Self::InUse { .. }
            | Self::LoggedIn
            | Self::Unseen { .. }
            | Self::Unsure { .. } => Ok(()),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.effect())?;
        f.write_str(": ")?;
        self.reason(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn every_cause_is_a_sentence_with_its_figures() {
        let left = Span::seconds(3000);
        for (cause, said) in [
            (Cause::Free, "working: nothing else needs the PC"),
            (
                Cause::Battery { charge: Some(43) },
                "paused: on battery (43 %)",
            ),
            (
                Cause::Delay { permille: 21 },
                "slowed: your programs waited 2.1 % of the last second",
            ),
            (
                Cause::OwnerPause {
                    until: None,
                    left: Some(left),
                },
                "paused: you asked for a pause; it ends in 50 min 00 s",
            ),
            (
                Cause::Busy { permille: 931 },
                "paused: your programs use 93 % of the processors",
            ),
            (
                Cause::InUse {
                    ago: Span::seconds(12),
                    left: Span::seconds(588),
                },
                "paused: the PC was used 12.0 s ago; tasks go on in 9 min 48 s if it is left alone",
            ),
            (
                Cause::Day { left: Some(left) },
                "paused: tasks work at night and on weekends; they begin in 50 min 00 s",
            ),
            (
                Cause::Active {
                    cpus: Cpus { milli: 3000 },
                },
                "slowed: you are at the PC; tasks have 3 processors",
            ),
            (
                Cause::Unseen {
                    sense: Sense::Power,
                },
                "paused: whether the PC is on battery cannot be seen",
            ),
        ] {
            assert_eq!(cause.to_string(), said);
        }
    }
}
