//! placeholder

pub mod cgroup;
pub mod priority;
