//! Why a verdict is what it is.

use core::fmt;
use serde::{Deserialize, Serialize};

/// The rule that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "cause")]
pub enum Cause {
    /// Nothing speaks against work.
    Free,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("the owner leaves the PC to tasks"),
        }
    }
}
