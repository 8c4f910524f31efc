//! The commands, one file each or a small group of alike ones: what it takes, and what it does.

pub(crate) mod agent;
pub(crate) mod bench;
pub(crate) mod control;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod fetch;
pub(crate) mod image;
pub(crate) mod jobs;
pub(crate) mod logs;
pub(crate) mod map;
pub(crate) mod nodes;
pub(crate) mod owner;
pub(crate) mod run;
pub(crate) mod server;
pub(crate) mod shell;
pub(crate) mod sim;
pub(crate) mod submit;
mod task_options;
pub(crate) mod tasks;
pub(crate) mod token;
pub(crate) mod wait;

pub(crate) use task_options::in_options;
