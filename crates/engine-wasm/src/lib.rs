//! The `wasm` engine: WebAssembly programs that ask for nothing but WASI preview 1.
//!
//! Two halves. [`runner`] runs one program to its end inside the process that calls it: bounded
//! memory and time, one directory, no network, no threads. It knows no operating system, so it is
//! what hosts that are not Linux build upon. Around it, on Linux, [`WasmEngine`] puts the process
//! engine's cage: the attempt's program there is `gleaner` itself, called again ([`wasm_main`]),
//! so shims, limits, freezers, streams and leases are the same as for every other task, and a
//! program that broke out of the runner would be where a native one begins.
//!
//! This crate must not know the server or why something runs. A task comes in as an
//! `AttemptSpec`, travels to the runner as one file of JSON, and comes back as a [`Record`] beside
//! the program's directory, which the program cannot reach.
//!
//! Code that was compiled for an attempt is kept for the next one of the same module (`cache`).
//! To believe such code is this crate's one `unsafe` call, in [`runner`].
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod cache;
mod call;
mod engine;
mod probe;
mod record;
pub mod runner;
mod translate;

pub use call::{is_wasm_call, wasm_main};
pub use engine::{WasmConfig, WasmEngine, WasmRunner};
pub use probe::trial;
pub use record::{End, Origin, Record};
