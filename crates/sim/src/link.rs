//! Messages between a PC and the server, and what a breaking link does to them.
//!
//! A connection delivers in order or not at all: that is what TCP gives. When it breaks, what was
//! under way may be lost, may still be read from a buffer later (even after the next hello), or
//! comes twice because the agent sends it again.

use gleaner_core::{AttemptEnd, Bundle, NodeHello, NodeOffer, NodeWish, Saved};
use gleaner_model::{AttemptId, AttemptState, NodeState, Time};
use std::collections::BTreeMap;

/// From a PC to the server.
#[derive(Debug, Clone)]
pub(crate) enum Up {
    Hello(Box<NodeHello>),
    Offer(Box<NodeOffer>),
    Beat(NodeState),
    Progress(AttemptId, AttemptState),
    Ended(Box<AttemptEnd>),
    Saved(AttemptId, Box<Saved>),
}

/// From the server to a PC.
#[derive(Debug, Clone)]
pub(crate) enum Down {
    Welcome,
    /// Tasks, and what they go on from: which part of their work is done.
    Bundle(Box<Bundle>, BTreeMap<AttemptId, f64>),
    Revoke(Vec<AttemptId>),
    Acknowledge(Vec<AttemptId>),
    Wish(NodeWish),
    Kept(AttemptId, Time, bool),
}

/// One PC's connection, as the PC sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Link {
    /// Counts connections: a message belongs to one of them.
    pub(crate) epoch: u32,
    /// The agent believes in it: from its hello until it sees it broken.
    pub(crate) open: bool,
    /// The server welcomed it.
    pub(crate) welcome: bool,
    /// It is broken, whether anybody has seen it or not.
    pub(crate) cut: bool,
    /// No connection can be made before this time.
    pub(crate) dark_until: u64,
    /// The last arrival in each direction: later ones come no earlier.
    pub(crate) up_at: u64,
    pub(crate) down_at: u64,
}
