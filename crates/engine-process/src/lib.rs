//! The `process` engine: unmodified Linux programs in a cage of namespaces, limits and filters.
//!
//! Three parts, from the agent inwards: [`ProcessEngine`] lives in the agent and keeps the list;
//! a shim (see [`shim_main`]), one a bundle, starts, limits and watches; in the cage an init
//! confines itself before it becomes nothing but the program's parent. The agent never clones:
//! it has threads, and a copy of one thread of many is not safe to run code in.
//!
//! Other engines put what runs their tasks into its cages: see [`Caged`].
//!
//! The engine must not know the server or why something runs. What a task may use comes in as
//! `Limits`, what it did goes out as an `Ending`.
#![warn(missing_docs)]

mod bundle;
mod cage;
mod caged;
pub mod cgroup;
mod collect;
mod host;
mod image;
mod log;
mod message;
mod place;
pub mod priority;
pub mod probe;
mod remove;
mod shim;

pub use bundle::GuestNeeds;
pub use caged::{Caged, Cages, Runner};
pub use host::uids::default_range as default_uid_range;
pub use host::{ProcessConfig, ProcessEngine, TRIAL_BEAT, TRIAL_LEASE_MS, domain_name};
pub use place::own_processors;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Where a cage that holds a guest finds its kernel and disks.
pub const GUEST_DIR: &str = "/run/guest";

/// Where a cage finds the program that [`ProcessConfig::program`] names.
pub const PROGRAM_PATH: &str = "/run/gleaner";

/// Whether these arguments (the program's own name first) ask for a shim. To be looked at
/// before anything else in `main`: a shim must begin with a single thread.
#[must_use]
pub fn is_shim_call(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|word| {
        word == host::nursery::SHIM_COMMAND || word == host::nursery::NURSERY_COMMAND
    })
}

/// Runs the shim that the arguments describe, until its bundle has nothing left to do.
#[must_use]
pub fn shim_main(args: &[OsString]) -> ExitCode {
    if args
        .get(1)
        .is_some_and(|word| word == host::nursery::NURSERY_COMMAND)
    {
        return host::nursery::main();
    }
    match args.get(2) {
        Some(dir) => shim::main(Path::new(dir)),
        None => ExitCode::from(2),
    }
}
