//! What an owner does with a PC at a time.

use crate::chance::whole;

/// What an owner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The PC has power.
    pub(crate) on: bool,
    /// Somebody is logged in.
    pub(crate) logged_in: bool,
    /// Keys and pointer are used.
    pub(crate) touching: bool,
    /// Processor time that the owner's programs take, in thousandths of all processors.
    pub(crate) load: u16,
}

impl Usage {
    /// On, and left alone.
    pub(crate) const ALONE: Self = Self {
        on: true,
        logged_in: false,
        touching: false,
        load: 0,
    };
    /// Off.
    pub(crate) const OFF: Self = Self {
        on: false,
        ..Self::ALONE
    };
}

/// A share in thousandths.
pub(crate) fn permille(share: f64) -> u16 {
    u16::try_from(whole(share.clamp(0.0, 1.0) * 1000.0)).unwrap_or(1000)
}
