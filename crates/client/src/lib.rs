//! The Rust client of a gleaner pool: settings, the REST calls, job files, and the two ways of
//! data: local files to the server before a job, results to a folder after it.
//!
//! It owns how a job file becomes a [`gleaner_model::Submission`]. It must not know terminals,
//! environment variables (the caller passes them) or how the server works inside. Data comes from
//! job files and local paths and goes to the server's `/api/v1`; results come back and never land
//! outside the folder they were asked into.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod blobs;
mod error;
mod fetch;
mod foreign;
mod glob;
mod http;
mod images;
mod jobfile;
mod nearest;
mod prepare;
mod settings;

pub use blobs::Progress;
pub use error::{ClientError, JobFileError};
pub use fetch::{Fetched, fetch};
pub use http::{Client, JobQuery, NodeQuery, TaskQuery};
pub use jobfile::{JobFile, read_job_file};
pub use prepare::{Prepared, Sources, prepare, submit};
pub use settings::{Places, Settings};

#[cfg(test)]
mod wire_tests;
