//! The guest's two ends and what goes between them.
//!
//! One small static program, three roles: [`init`] is process 1 of the guest, `start` becomes the
//! task's program inside it, and [`run`] sits beside the guest's kernel on the host, in the same
//! cage, and speaks to `init`. What the guest says is parsed by [`run`] alone, so that whoever
//! has taken over a guest talks to a process that may do no more than the guest's kernel may.
//!
//! [`frame`], [`message`], [`outputs`] and [`window`] are pure: bytes in, values out. This crate must not
//! know engines, jobs or servers; a task comes as a [`task::GuestTask`], and a
//! [`task::Record`] says what became of it.
#![warn(missing_docs)]

pub mod frame;
pub mod init;
pub mod message;
pub mod outputs;
pub mod run;
pub mod task;
pub mod window;
