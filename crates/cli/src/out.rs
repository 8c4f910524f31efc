//! What a command leaves behind: text on standard output, sentences on standard error, an exit
//! code. A closed pipe (`gleaner jobs | head`) is no failure and no panic.

use gleaner_client::ClientError;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};
use std::sync::OnceLock;

/// Exit code when a task failed.
pub(crate) const TASK_FAILED: u8 = 1;
/// Exit code for wrong usage.
pub(crate) const USAGE: u8 = 2;
/// Exit code when the answer is no.
pub(crate) const REFUSED: u8 = 4;
/// Exit code after Ctrl-C: 128 + SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;
/// Stands for a character that a terminal would obey.
const NOT_SHOWN: &str = "\u{fffd}";

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal that can, unless NO_COLOR is set
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

/// What the command line says of colours, from its first moment on.
static COLOUR: OnceLock<Colour> = OnceLock::new();

/// Sets when colours are used. The first call holds.
pub(crate) fn choose_colour(choice: Colour) {
    COLOUR.get_or_init(|| choice);
}

/// Whether what goes there may have colours.
pub(crate) fn has_colour(terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match COLOUR.get().unwrap_or(&Colour::Auto) {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => {
            let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            terminal && !set("NO_COLOR") && !dumb
        }
    }
}

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

/// Writes text for people to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(harmless(text).as_bytes())
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
    print_bytes(format!("{text}\n").as_bytes())
}

/// What a terminal only shows. Names and reasons come from other users and from programs, and a
/// control character in them could move the cursor, rename the window or answer for its owner.
/// Colours, which our tables have, change nothing but colours.
fn harmless(text: &str) -> Cow<'_, str> {
    let control = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(control) {
        let (before, tail) = rest.split_at(at);
        let kept = colour_length(tail);
        let taken = kept.unwrap_or_else(|| tail.chars().next().map_or(0, char::len_utf8));
        shown.push_str(before);
        shown.push_str(kept.map_or(NOT_SHOWN, |length| &tail[..length]));
        rest = &tail[taken..];
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

/// Bytes of the order to change colours that `text` begins with (ECMA-48, SGR).
fn colour_length(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\u{1b}[")?;
    let end = numbers.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    numbers[end..]
        .starts_with('m')
        .then_some("\u{1b}[".len() + end + 1)
}

/// Tells the person at the terminal something that is not the result.
pub(crate) fn say(text: impl AsRef<str>) {
    // Standard error may be closed; then nobody wants to know.
    let _gone = writeln!(std::io::stderr().lock(), "{}", harmless(text.as_ref()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_colours_and_nothing_else() {
        for (text, shown) in [
            ("plain\ttext, ünïcödé\n", "plain\ttext, ünïcödé\n"),
            ("\u{1b}[1;32mdone\u{1b}[0m", "\u{1b}[1;32mdone\u{1b}[0m"),
            ("\u{1b}[2Jgone", "\u{fffd}[2Jgone"),
            ("\u{1b}]0;title\u{7}x", "\u{fffd}]0;title\u{fffd}x"),
            ("\u{1b}[31", "\u{fffd}[31"),
            ("a\rb\u{8}\u{9b}5n", "a\u{fffd}b\u{fffd}\u{fffd}5n"),
            ("\u{1b}", "\u{fffd}"),
        ] {
            assert_eq!(harmless(text), shown, "{text:?}");
        }
    }
}
