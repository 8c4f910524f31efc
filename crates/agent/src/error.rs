//! What can keep an agent from working, and what to do about it.

use std::path::{Path, PathBuf};

/// An agent could not start, or had to give up.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A setting cannot be meant.
    #[error("{setting}: {problem}")]
    Setting {
        /// Which setting.
        setting: &'static str,
        /// What is wrong and what to write instead.
        problem: String,
    },
    /// Another agent works in this directory.
    #[error("another agent already uses {0}; stop it, or give this one a directory of its own")]
    InUse(PathBuf),
    /// The PC would not do it.
    #[error("failed to {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the PC said.
        source: std::io::Error,
    },
    /// No secure connection can be set up with these certificates.
    #[error("cannot use the certificates for the server: {0}")]
    Tls(String),
    /// The server does not take this node. Retrying will not help.
    #[error("the server refused this node: {0}")]
    Refused(String),
    /// No engine can run tasks on this PC.
    #[error("no engine works here: {0}; `gleaner doctor` says what is missing")]
    Engine(String),
}

impl AgentError {
    /// Wraps an I/O error with what was being done to which file.
    pub(crate) fn io(doing: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let doing = format!("{doing} {}", path.display());
        move |source| Self::Io { doing, source }
    }
}

/// An error with its causes, which tonic's own text leaves out; each is said once.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Said {
        text: &'static str,
        source: Option<Box<Said>>,
    }

    #[test]
    fn a_cause_that_repeats_another_is_said_once() {
        let cause = |text, source: Option<Said>| Said {
            text,
            source: source.map(Box::new),
        };
        let name = cause("no such name", None);
        let lookup = cause("lookup: no such name", Some(name));
        let error = cause("no connection", Some(lookup));
        assert_eq!(causes(&error), "no connection: lookup: no such name");
    }
}
