//! Ids of the things that live in a pool.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An id was not written as the field expects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what} id; expected {shape}")]
pub struct ParseIdError {
    /// What was expected, for example `task`.
    pub what: &'static str,
    /// The shape that would be accepted.
    pub shape: &'static str,
    /// What was given.
    pub text: String,
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.parse().map(Self).map_err(|_| ParseIdError {
                    what: $what,
                    shape: "a number",
                    text: text.into(),
                })
            }
        }
    };
}

number_id!(
    /// A job; counts from 1 in its pool.
    JobId, u64, "job"
);
number_id!(
    /// A node, as the server numbers it at its first hello; counts from 1.
    NodeId, u32, "node"
);
number_id!(
    /// A user of the pool; counts from 1.
    UserId, u32, "user"
);
number_id!(
    /// A lease: the right of one node to run one bundle of tasks of one job.
    LeaseId, u64, "lease"
);

/// A task: one unit of work of a job. Written `J.INDEX`, the index from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The job it belongs to.
    pub job: JobId,
    /// Its place in the job, from 0. A merge command is the task after the last.
    pub index: u32,
}

/// One try of a task on one node. Written `J.INDEX.N`, N from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The task that is tried.
    pub task: TaskId,
    /// Which try this is, from 1; never used twice for a task.
    pub number: u32,
}

impl TaskId {
    /// The id of the task at `index` of `job`.
    #[must_use]
    pub const fn new(job: JobId, index: u32) -> Self {
        Self { job, index }
    }

    /// The id of this task's try number `number`.
    #[must_use]
    pub const fn attempt(self, number: u32) -> AttemptId {
        AttemptId { task: self, number }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.index)
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.task, self.number)
    }
}

impl FromStr for TaskId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bad = || ParseIdError {
            what: "task",
            shape: "JOB.INDEX, as in 7.0",
            text: text.into(),
        };
        let (job, index) = text.split_once('.').ok_or_else(bad)?;
        let job = job.parse().map_err(|_| bad())?;
        let index = index.parse().map_err(|_| bad())?;
        Ok(Self {
            job: JobId(job),
            index,
        })
    }
}

impl FromStr for AttemptId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bad = || ParseIdError {
            what: "attempt",
            shape: "JOB.INDEX.N, as in 7.0.1",
            text: text.into(),
        };
        let (task, number) = text.rsplit_once('.').ok_or_else(bad)?;
        let task = task.parse().map_err(|_| bad())?;
        let number = number.parse().map_err(|_| bad())?;
        Ok(Self { task, number })
    }
}

macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

text_serde!(TaskId);
text_serde!(AttemptId);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn ids_are_written_as_they_are_read() {
        let attempt: AttemptId = "7.0.2".parse().unwrap();
        assert_eq!(attempt, TaskId::new(JobId(7), 0).attempt(2));
        assert_eq!(attempt.to_string(), "7.0.2");
        assert_eq!("12.34".parse(), Ok(TaskId::new(JobId(12), 34)));
        assert_eq!(serde_json::to_string(&attempt.task).unwrap(), "\"7.0\"");
    }

    #[test]
    fn a_wrong_id_is_refused_with_the_right_shape() {
        for text in ["7", "7.", ".0", "a.b", "7.0.1", "-1.0"] {
            let error = text.parse::<TaskId>().unwrap_err().to_string();
            assert!(error.contains("JOB.INDEX"), "{error}");
        }
        assert_eq!("x".parse::<JobId>().unwrap_err().what, "job");
    }
}
