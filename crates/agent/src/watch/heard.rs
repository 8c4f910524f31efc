//! What the event loop hears.

use super::status::Order;
use gleaner_harvest::{OwnerWish, Resource, Sample, Settings};

/// Something that will not wait for the next look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sensed {
    /// The owner touched the PC.
    Input,
    /// Somebody waits for this resource longer than the trigger allows.
    Pressed(Resource),
    /// The PC is about to sleep, or has woken.
    Sleeping(bool),
    /// Something else changed (power, sessions, a lock): worth a look now.
    Changed,
}

/// Everything the event loop hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A sensor will not wait.
    Sensed(Sensed),
    /// The slow loop looked.
    Looked(Box<Sample>),
    /// The owner wants something.
    Order(Order),
    /// The owner's wish is durable.
    Kept(OwnerWish),
    /// What the admin set.
    Pool(Settings),
    /// What can be moved is saved, or cannot be: the PC need not wait for it.
    Saved,
    /// Engines hold attempts, or none any more.
    Holding(bool),
    /// The agent stops.
    Stop,
}
