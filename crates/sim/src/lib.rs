//! Fleets on virtual time: the real brains of server and node, driven through days of trouble.
//!
//! One thread, one agenda, one seed. The server is the real [`gleaner_core::State`] behind a
//! driver that commits in batches to a [`gleaner_core::Book`]; each PC is the real
//! [`gleaner_attempt::Book`] behind an engine, an owner and a link. Links break with messages
//! under way, which are then lost, late or doubled; PCs lose power, agents and the server are
//! killed and come back. After each step the invariants of the brains are checked, and a ledger
//! that only sees what became durable checks that no task is lost, none counted twice, no task
//! leased twice. The same options give the same [`Report::hash`] on any machine.
//!
//! Nothing here reads a clock or a random device; who calls [`run`] measures how long it took.
#![forbid(unsafe_code)]

mod agenda;
mod chance;
mod digest;
mod generator;
mod habits;
mod ledger;
mod link;
mod peers;
mod replay;
mod report;
mod source;
mod trace;
mod usage;
mod world;

pub use gleaner_model::Policy;
pub use report::{Failure, Options, Regime, Report};
pub use trace::{Trace, TraceError};
pub use world::run;
