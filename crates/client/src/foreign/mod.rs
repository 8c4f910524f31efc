//! Job files of other systems, read as if they were ours.
//!
//! Each reader makes the same shape that a job file in JSON has, so that everything behind it has one
//! kind of job only. It must not know of servers, and it must not guess:
//! what would change the meaning of a job is refused with the line, what only concerns another
//! system's bookkeeping is passed over and told.

pub(crate) mod htcondor;
pub(crate) mod ourgrid;

/// A job that was read.
#[derive(Debug)]
pub(crate) struct Read {
    /// What a job file in JSON would say.
    pub(crate) job: serde_json::Value,
    /// What was passed over, in sentences.
    pub(crate) warnings: Vec<String>,
}

/// What cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Its line, counted from 1.
    pub(crate) line: usize,
    /// What is wrong, and what to write instead.
    pub(crate) problem: String,
}

impl Wrong {
    pub(crate) fn at(line: usize, problem: impl Into<String>) -> Self {
        Self {
            line,
            problem: problem.into(),
        }
    }
}
