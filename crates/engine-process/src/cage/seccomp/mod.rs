//! The system call filter of a cage.
//!
//! [`table`] says what is allowed and why, [`bpf`] makes a program of it, and refused calls come
//! to the shim, which counts them by name and answers EPERM.

pub(crate) mod bpf;
pub(crate) mod table;
