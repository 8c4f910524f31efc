//! placeholder

pub mod cgroup;
pub mod priority;
pub mod probe;
