//! The promises that need a clock: each benchmark measures some rows of SPECIFICATION.md.
//!
//! Conditions are interleaved in one run and compared in pairs, so that a noisy machine blurs an
//! answer instead of bending it; where noise hides it, the verdict is `cannot tell`, never a pass.
//! The benchmarks use the `gleaner` program itself as a user would; how to show a report is the
//! caller's business.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod burn;
pub mod dispatch;
pub mod impact;
pub mod overhead;
mod proc;
mod progress;
pub mod scale;
mod stats;
mod svg;

pub use burn::{burn_main, is_burn_call};
pub use progress::{Progress, Stop};
pub use stats::{Interval, median, paired_ratio, percentile};

use serde::Serialize;

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The figure is at most this.
    AtMost(f64),
    /// The figure is at least this.
    AtLeast(f64),
}

/// What a figure says about its goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// The whole confidence interval meets the goal.
    #[serde(rename = "met")]
    Met,
    /// The whole interval misses it.
    #[serde(rename = "missed")]
    Missed,
    /// The interval holds the goal: more rounds or a quieter machine would tell.
    #[serde(rename = "cannot tell")]
    CannotTell,
    /// There is no goal; the figure is context.
    #[serde(rename = "context")]
    Context,
}

/// One figure of a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure.
    pub figure: f64,
    /// Its unit.
    pub unit: &'static str,
    /// 95 % confidence interval over rounds, where there were several.
    pub interval: Option<Interval>,
    /// What it should be.
    pub goal: Option<Goal>,
    /// What it says about the goal.
    pub verdict: Verdict,
    /// How it came about, in words.
    pub note: String,
}

impl Row {
    /// A row whose verdict follows from its interval (or from the figure alone) and its goal.
    #[must_use]
    pub fn new(name: &str, figure: f64, unit: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            figure,
            unit,
            interval: None,
            goal: None,
            verdict: Verdict::Context,
            note: String::new(),
        }
    }

    /// Adds the interval.
    #[must_use]
    pub fn interval(self, interval: Interval) -> Self {
        Self {
            interval: Some(interval),
            ..self
        }
        .judged()
    }

    /// Adds the goal.
    #[must_use]
    pub fn goal(self, goal: Goal) -> Self {
        Self {
            goal: Some(goal),
            ..self
        }
        .judged()
    }

    /// Adds words.
    #[must_use]
    pub fn note(self, note: impl Into<String>) -> Self {
        Self {
            note: note.into(),
            ..self
        }
    }

    fn judged(self) -> Self {
        let (low, high) = self
            .interval
            .map_or((self.figure, self.figure), |i| (i.low, i.high));
        let verdict = match self.goal {
            None => Verdict::Context,
            Some(Goal::AtMost(goal)) if high <= goal => Verdict::Met,
            Some(Goal::AtMost(goal)) if low > goal => Verdict::Missed,
            Some(Goal::AtLeast(goal)) if low >= goal => Verdict::Met,
            Some(Goal::AtLeast(goal)) if high < goal => Verdict::Missed,
            Some(Goal::AtMost(_) | Goal::AtLeast(_)) => Verdict::CannotTell,
        };
        Self { verdict, ..self }
    }
}

/// What a benchmark found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Which benchmark.
    pub bench: &'static str,
    /// Version of the program.
    pub version: &'static str,
    /// Its figures.
    pub rows: Vec<Row>,
}

/// A benchmark could not be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The PC would not do something.
    #[error("failed to {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the PC said.
        source: std::io::Error,
    },
    /// It was told to stop.
    #[error("stopped")]
    Interrupted,
    /// A program gave no answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Hung(std::time::Duration),
    /// A part of gleaner did not do what it should.
    #[error("{0}")]
    Broken(String),
}

/// Names what failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl Into<String>) -> Result<T, BenchError>;
}

impl<T, E: Into<std::io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T, BenchError> {
        self.map_err(|error| BenchError::Io {
            doing: what.into(),
            source: error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_the_whole_interval() {
        let row = |low, high| Row::new("x", 1.0, "%").interval(Interval { low, high });
        for (row, goal, verdict) in [
            (row(0.1, 0.9), Goal::AtMost(1.0), Verdict::Met),
            (row(0.1, 1.1), Goal::AtMost(1.0), Verdict::CannotTell),
            (row(1.1, 1.2), Goal::AtMost(1.0), Verdict::Missed),
            (row(2.0, 2.2), Goal::AtLeast(2.0), Verdict::Met),
            (row(1.9, 2.2), Goal::AtLeast(2.0), Verdict::CannotTell),
            (row(1.0, 1.9), Goal::AtLeast(2.0), Verdict::Missed),
        ] {
            assert_eq!(row.goal(goal).verdict, verdict);
        }
    }
}
