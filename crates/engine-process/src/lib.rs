//! placeholder

pub mod cgroup;
