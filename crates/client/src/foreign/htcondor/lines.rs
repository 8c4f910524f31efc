//! The lines of a submit file: comments and continuations taken out, statements told apart.

use crate::foreign::Wrong;
use std::collections::BTreeMap;

/// `name = value`.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) line: usize,
    /// As it was written.
    pub(super) name: String,
    pub(super) value: String,
}

/// What follows `queue`.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    pub(super) line: usize,
    pub(super) text: String,
    /// The lines of a list in parentheses that goes over several.
    pub(super) below: Vec<String>,
}

/// A submit file, cut into statements.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// By name, in lower case: capitals mean nothing.
    pub(super) settings: BTreeMap<String, Setting>,
    /// Attributes that somebody else's machines look at.
    pub(super) attributes: Vec<String>,
    pub(super) queue: Option<Queue>,
}

/// Statements of the language around the settings.
const CONTROL: [&str; 8] = [
    "if", "elif", "else", "endif", "include", "error", "warning", "use",
];

impl Script {
    pub(super) fn read(text: &str) -> Result<Self, Wrong> {
        let mut script = Self::default();
        let mut lines = logical(text).into_iter();
        while let Some((line, text)) = lines.next() {
            let (word, rest) = first_word(&text);
            let is_setting = rest.starts_with('=') && !rest.starts_with("==");
            if word.eq_ignore_ascii_case("queue") && !is_setting {
                if script.queue.is_some() {
                    let problem = "is a second queue statement; put it into a file of its own";
                    return Err(Wrong::at(line, problem));
                }
                let below = list_below(rest, line, &mut lines)?;
                script.queue = Some(Queue {
                    line,
                    text: rest.to_owned(),
                    below,
                });
            } else if CONTROL.iter().any(|it| word.eq_ignore_ascii_case(it)) && !is_setting {
                let problem = format!("`{word}` is not read; write the lines that apply");
                return Err(Wrong::at(line, problem));
            } else {
                script.set(line, &text)?;
            }
        }
        Ok(script)
    }

    fn set(&mut self, line: usize, text: &str) -> Result<(), Wrong> {
        let Some((name, value)) = text.split_once('=') else {
            let problem = format!("`{text}` is no setting; write NAME = VALUE, or queue");
            return Err(Wrong::at(line, problem));
        };
        let (name, value) = (name.trim(), value.trim());
        let attribute = name.strip_prefix('+').or_else(|| {
            let (head, tail) = name.split_once('.')?;
            head.eq_ignore_ascii_case("my").then_some(tail)
        });
        if let Some(attribute) = attribute {
            self.attributes.push(attribute.trim().to_owned());
            return Ok(());
        }
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        if name.is_empty() || !name.chars().all(plain) {
            let problem = format!("`{name}` cannot be the name of a setting");
            return Err(Wrong::at(line, problem));
        }
        if self.queue.is_some() {
            let problem = format!("`{name}` stands after queue and would do nothing; move it up");
            return Err(Wrong::at(line, problem));
        }
        let setting = Setting {
            line,
            name: name.to_owned(),
            value: value.to_owned(),
        };
        // The last one counts.
        self.settings.insert(name.to_lowercase(), setting);
        Ok(())
    }
}

/// The word in front and what follows it.
fn first_word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, '=' | '(' | '@'));
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    (word, rest.trim_start())
}

/// Lines with their numbers, without comments and empty ones; one that ends with a backslash goes
/// on in the next.
fn logical(text: &str) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if text.starts_with('#') || text.is_empty() && !goes_on {
            continue;
        }
        let (part, more) = match text.strip_suffix('\\') {
            Some(part) => (part.trim_end(), true),
            None => (text, false),
        };
        match all.last_mut().filter(|_| goes_on) {
            Some((_, so_far)) => {
                so_far.push(' ');
                so_far.push_str(part);
            }
            None => all.push((line, part.to_owned())),
        }
        goes_on = more;
    }
    all
}

/// The rest of a list whose parenthesis is closed in a later line.
fn list_below(
    text: &str,
    line: usize,
    lines: &mut impl Iterator<Item = (usize, String)>,
) -> Result<Vec<String>, Wrong> {
    let mut below = Vec::new();
    // Macros have parentheses of their own.
    let opens = text
        .rfind('(')
        .filter(|at| !text[..*at].ends_with('$') && !text[*at..].contains(')'));
    if opens.is_none() {
        return Ok(below);
    }
    for (_, text) in lines {
        if let Some(last) = text.strip_suffix(')') {
            below.push(last.trim().to_owned());
            return Ok(below);
        }
        below.push(text);
    }
    Err(Wrong::at(line, "the list has no end; close it with `)`"))
}
