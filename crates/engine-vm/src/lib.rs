//! The `vm` engine: a task runs on a guest operating system whose disk is one file.
//!
//! A guest's kernel, or the machine that it runs on, is a program in the process engine's cage. So
//! one set of shims, namespaces, filters, limits, freezers and leases serves both engines, and a
//! guest that is taken over has no more than a hostile process has. Beside the kernel, in the same
//! cage, runs [`gleaner_guest`]'s host end, the only one that listens to the guest.
//!
//! This crate owns the guest's image ([`image`]), what guests run on ([`machine`]), whether they run
//! here at all ([`probe`]), and the translation between a task and the attempt that holds its guest.
//! It must not know the server or why something runs.
//!
//! From below: `translate`, `machine`, `known`, `waiting` and `outcome` are values; `guests` starts
//! cages; `saving` and `ahead` are what can be done with a guest besides; `engine` answers the calls.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod ahead;
mod engine;
mod guests;
pub mod image;
mod known;
pub mod machine;
mod outcome;
pub mod probe;
mod saving;
mod translate;
mod waiting;

pub use gleaner_guest::task::{Accelerator, Machine};
pub use guests::{Guests, VmConfig, VmEngine};
