//! What the sensors of a PC say: the language between `sense`, which reads, and `harvest`, which
//! judges. Nothing here tells what an owner types, runs or sees, only that they do.

use crate::{Bytes, Time};
use serde::{Deserialize, Serialize};

/// One source and how old its word is. A source that is absent is no reason to doubt, one that
/// failed is: the owner may be there and nobody would know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Signal<T> {
    /// This PC has no such thing.
    #[default]
    Absent,
    /// There is one, but it cannot be read.
    Failed {
        /// Since when.
        since: Time,
    },
    /// It was read.
    Seen {
        /// What it said.
        value: T,
        /// When it said so; a source that pushes its changes is confirmed by every beat.
        at: Time,
    },
}

impl<T> Signal<T> {
    /// The value, however old.
    pub const fn value(&self) -> Option<&T> {
        match self {
            Self::Seen { value, .. } => Some(value),
            Self::Absent | Self::Failed { .. } => None,
        }
    }
}

/// Who is logged in, as the session manager says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sessions {
    /// Sessions of people, remote ones included; never a greeter.
    pub people: u32,
    /// Of these, in the foreground of a seat.
    pub active: u32,
    /// Of these, over a network.
    pub remote: u32,
    /// Whether every session in the foreground is locked, or there is none.
    pub locked: bool,
    /// Whether a program asks that the PC count as in use (a film, a call, a presentation).
    pub idle_inhibited: bool,
}

/// Processor time of the last moment, in thousandths of all processors together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Used by everything that is not ours.
    pub owner: u16,
    /// Used by tasks.
    pub tasks: u16,
    /// Taken by the host of a virtual machine.
    pub stolen: u16,
    /// Used by the owner's busiest processor, in thousandths of one: a program of one thread
    /// can need all it has while the PC looks idle.
    pub busiest: u16,
}

/// Share of the last moment in which some thread waited for a resource (Linux: PSI `some`), in
/// thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pressure {
    /// For a processor, tasks of ours not counted where the PC can tell them apart.
    pub cpu: Option<u16>,
    /// For memory.
    pub memory: u16,
    /// For a disk.
    pub io: u16,
}

/// The PC's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub total: Bytes,
    /// What programs could take without anybody swapping.
    pub available: Bytes,
    /// What tasks hold that the kernel cannot take back without them.
    #[serde(default)]
    pub tasks: Bytes,
    /// Page faults that waited for a disk, per second, of the whole PC.
    pub major_faults: u32,
}

/// Where the power comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Power {
    /// On mains.
    pub mains: bool,
    /// Charge of the fullest battery in percent; none without one.
    pub charge: Option<u8>,
}

/// How hot the PC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Heat {
    /// Hottest sensor of processor or case, in degrees Celsius.
    pub celsius: i16,
    /// Temperature at which the PC protects itself, where it says so.
    pub critical: Option<i16>,
    /// Whether a processor slowed down to cool since the last look.
    pub throttled: bool,
}

/// What the owner attends to, without saying what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attention {
    /// One window fills the screen.
    pub full_screen: bool,
    /// The desktop is in its presentation mode.
    pub presenting: bool,
    /// A game asked for all the PC has.
    pub game: bool,
}

/// Everything that the sensors of a PC know at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sample {
    /// When it was put together.
    pub at: Time,
    /// When a key, button, pointer or touch was last used, as the devices say.
    pub input: Signal<Time>,
    /// When a terminal or a session over a network last showed activity.
    pub terminal: Signal<Time>,
    /// When the desktops of X11 or Wayland last saw activity.
    pub desktop: Signal<Time>,
    /// Who is logged in.
    pub sessions: Signal<Sessions>,
    /// What the owner attends to.
    pub attention: Signal<Attention>,
    /// Processor time.
    pub load: Signal<Load>,
    /// Time in which a thread of the owner's was runnable but did not run, in thousandths of
    /// wall time: what the owner would feel.
    pub delay: Signal<u16>,
    /// Who waits for what.
    pub pressure: Signal<Pressure>,
    /// Memory.
    pub memory: Signal<Memory>,
    /// Power.
    pub power: Signal<Power>,
    /// Heat.
    pub heat: Signal<Heat>,
    /// Whether the connection costs by the byte.
    pub metered: Signal<bool>,
    /// Free bytes on the disk that holds the agent's directory.
    pub disk_free: Signal<Bytes>,
    /// Whether the PC is about to sleep.
    pub sleeping: Signal<bool>,
    /// Whether the owner's local time is inside the hours that the schedule allows is judged
    /// from this: minutes since Monday 00:00 local time.
    pub minute_of_week: u16,
}
