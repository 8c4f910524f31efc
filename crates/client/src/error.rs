//! What can go wrong between a user and a pool, and what the user can do about it.

use std::fmt;
use std::path::{Path, PathBuf};

/// A call failed. [`ClientError::exit_code`] says with which code a command should end.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There are no client settings, or they are wrong.
    #[error("{0}")]
    Settings(String),
    /// No answer. Worth trying again.
    #[error(
        "the server at {server} is not reachable ({problem}); check that it runs and that \
         the address is right, or start a pool on this PC with `gleaner dev`"
    )]
    Unreachable {
        /// The address that was tried.
        server: String,
        /// What the network said.
        problem: String,
    },
    /// The server said no. Trying the same again is of no use, unless the status is 503.
    #[error("{}{message}", key.as_ref().map(|k| format!("{k}: ")).unwrap_or_default())]
    Refused {
        /// HTTP status.
        status: u16,
        /// The server's sentence.
        message: String,
        /// The dotted key of the job file at fault.
        key: Option<String>,
    },
    /// The job file is wrong.
    #[error(transparent)]
    JobFile(#[from] JobFileError),
    /// A local file could not be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Local {
        /// A verb: `read`, `write`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file did not arrive as it should.
    #[error("{0}")]
    Transfer(String),
}

impl ClientError {
    pub(crate) fn local(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Local {
            doing,
            path,
            source,
        }
    }

    /// Exit code of a command that ends with this error: 2 wrong usage or job file, 3 server not
    /// reachable, 4 refused. What the server calls a bad request is what the user wrote.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_)
            | Self::JobFile(_)
            | Self::Local { .. }
            | Self::Refused { key: Some(_), .. }
            | Self::Refused {
                status: 400 | 413 | 422,
                ..
            } => 2,
            Self::Unreachable { .. } => 3,
            Self::Refused { .. } | Self::Transfer(_) => 4,
        }
    }

    /// Whether the same call may succeed a little later.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status == 503,
            Self::Settings(_) | Self::JobFile(_) | Self::Local { .. } | Self::Transfer(_) => false,
        }
    }
}

/// What is wrong in a job file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFileError {
    /// The job file, as the user named it.
    pub file: PathBuf,
    /// Line, from 1, where it is known.
    pub line: Option<usize>,
    /// Dotted key, where one is at fault.
    pub key: Option<String>,
    /// What is wrong and what to write instead.
    pub problem: String,
}

impl fmt::Display for JobFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Options of a command line have no file.
        if !self.file.as_os_str().is_empty() {
            write!(f, "{}", self.file.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for JobFileError {}
