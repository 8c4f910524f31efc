//! What a command leaves behind: text on standard output, sentences on standard error, an exit
//! code. A closed pipe (`gleaner jobs | head`) is no failure and no panic.

use gleaner_client::ClientError;
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};

/// Exit code when a task failed.
pub(crate) const TASK_FAILED: u8 = 1;
/// Exit code for wrong usage.
pub(crate) const USAGE: u8 = 2;
/// Exit code when the answer is no.
pub(crate) const REFUSED: u8 = 4;
/// Exit code after Ctrl-C: 128 + SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// A command ends early.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For standard error; nothing is printed where it is empty.
    pub(crate) message: String,
    pub(crate) code: u8,
}

/// How a command ended: its exit code.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code,
        }
    }

    /// The reader of our output went away: there is nobody left to tell.
    const fn closed_pipe() -> Self {
        Self {
            message: String::new(),
            code: 0,
        }
    }

    pub(crate) const fn is_closed_pipe(&self) -> bool {
        self.code == 0
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }
}

impl From<ClientError> for Failure {
    fn from(problem: ClientError) -> Self {
        Self::new(problem.exit_code(), problem.to_string())
    }
}

/// Writes to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes a line to standard output.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    print(&format!("{}\n", text.as_ref()))
}

/// Writes raw bytes to standard output at once.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(lost)
}

fn lost(problem: std::io::Error) -> Failure {
    if problem.kind() == std::io::ErrorKind::BrokenPipe {
        return Failure::closed_pipe();
    }
    Failure::usage(format!("cannot write to standard output: {problem}"))
}

/// Writes one JSON object, or one array, to standard output.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|problem| Failure::new(REFUSED, problem.to_string()))?;
    line(text)
}

/// Tells the person at the terminal something that is not the result.
pub(crate) fn say(text: impl AsRef<str>) {
    // Standard error may be closed; then nobody wants to know.
    let _gone = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
}

/// Raw bytes to standard error, as a task wrote them.
pub(crate) fn say_bytes(bytes: &[u8]) {
    let mut err = std::io::stderr().lock();
    // As above.
    let _gone = err.write_all(bytes).and_then(|()| err.flush());
}

/// Whether a person watches standard error.
pub(crate) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}
