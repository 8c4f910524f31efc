//! The text of a job description: sections, the words in them, and the files that they move.
//!
//! It knows how things are written, not what becomes of them: sections and transfers go to the reader
//! in the module above.

use super::super::Wrong;
use super::{FILES_MAX, require};
use crate::nearest::nearest;

/// Everything that can stand before a colon. `grid` and `taskdefaults` are MyGrid's.
const SECTIONS: &[&str] = &[
    "job",
    "label",
    "requirements",
    "annotations",
    "taskdefaults",
    "task",
    "init",
    "remote",
    "grid",
    "final",
    "check",
];

/// One section with its lines; the first is what stood behind the colon.
pub(super) struct Section<'t> {
    pub(super) line: usize,
    pub(super) name: &'static str,
    pub(super) body: Vec<(usize, &'t str)>,
}

/// `put FROM TO`, `store FROM TO` or `get FROM TO`.
pub(super) struct Transfer {
    pub(super) line: usize,
    pub(super) from: String,
    pub(super) to: String,
}

/// The word before a colon or an equals sign at the start of a line, and what follows.
fn header(line: &str) -> Option<(String, char, &str)> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let (word, rest) = line.split_at(end.filter(|end| *end > 0)?);
    let rest = rest.trim_start();
    let sign = rest.chars().next().filter(|c| matches!(c, ':' | '='))?;
    Some((word.to_ascii_lowercase(), sign, rest[1..].trim()))
}

pub(super) fn sections(text: &str) -> Result<Vec<Section<'_>>, Wrong> {
    let mut found: Vec<Section<'_>> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (number, line) = (number + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let head = header(line);
        let known = |word: &str| SECTIONS.iter().copied().find(|known| *known == word);
        match (&head, found.last_mut()) {
            (Some((word, ':', rest)), _) => {
                let Some(name) = known(word) else {
                    let near = nearest(word, SECTIONS.iter().copied()).unwrap_or("task");
                    let problem = format!("unknown section `{word}`; did you mean `{near} :`?");
                    return Err(Wrong::at(number, problem));
                };
                let body = vec![(number, *rest)];
                found.push(Section {
                    line: number,
                    name,
                    body,
                });
            }
            (Some((word, ..)), _) if known(word).is_some() => {
                let problem = format!("`=` does not begin a section; write `{word} : …`");
                return Err(Wrong::at(number, problem));
            }
            (_, Some(section)) => section.body.push((number, line)),
            (_, None) => {
                let problem = match line.starts_with('[') {
                    true => {
                        "this is JDL (ClassAds), which is not read; write it with `job :` and `task :`, or as job.toml"
                    }
                    false => "a job description begins with `job :`; write that line first",
                };
                return Err(Wrong::at(number, problem));
            }
        }
    }
    Ok(found)
}

impl Section<'_> {
    /// Its one line, without quotes where it is all in quotes.
    pub(super) fn text(&self) -> Result<String, Wrong> {
        if let Some((line, _)) = self.body.get(1) {
            let problem = format!(
                "`{} :` is one line; join commands with `;` or `&&`",
                self.name
            );
            return Err(Wrong::at(*line, problem));
        }
        let text = self.body.first().map_or("", |(_, text)| text);
        let inner = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        let whole =
            inner.filter(|inner| !inner.replace("\\\\", "").replace("\\\"", "").contains('"'));
        // OurGrid takes a backslash off quotes and backslashes before a shell sees the line.
        Ok(unescaped(whole.unwrap_or(text)))
    }

    /// Refuses text behind a section that has none.
    pub(super) fn bare(&self) -> Result<(), Wrong> {
        match self.body.iter().find(|(_, text)| !text.is_empty()) {
            None => Ok(()),
            Some((line, text)) => Err(Wrong::at(
                *line,
                format!(
                    "{text:?} belongs to no section; write `init :`, `remote :`, `final :` or `task :` before it"
                ),
            )),
        }
    }

    pub(super) fn once<T>(&self, slot: &mut Option<T>, value: T) -> Result<(), Wrong> {
        if slot.replace(value).is_some() {
            let problem = format!("`{} :` stands twice here; leave one out", self.name);
            return Err(Wrong::at(self.line, problem));
        }
        Ok(())
    }
}

/// Takes the backslash off quotes and backslashes.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = (c == '\\').then(|| chars.next_if(|next| matches!(next, '"' | '\\')));
        plain.push(escaped.flatten().unwrap_or(c));
    }
    plain
}

/// `check` runs at home, to catch PCs that give false results, so no task can stand for it.
pub(super) fn check(section: &Section<'_>) -> Result<(), Wrong> {
    let text = section.text()?;
    if text.is_empty() || text.eq_ignore_ascii_case("none") {
        return Ok(());
    }
    let problem = format!(
        "`check :` runs at home on what was fetched, which is not done here; check the results after `gleaner submit --wait`, or where the PC that made them may check them itself, write `remote : … && {text}`"
    );
    Err(Wrong::at(section.line, problem))
}

/// A word of `init :` or `final :`.
struct Word {
    line: usize,
    text: String,
    quoted: bool,
}

impl Word {
    /// With its quotes, for what reads it again.
    fn written(self) -> String {
        if self.quoted {
            format!("\"{}\"", self.text)
        } else {
            self.text
        }
    }

    fn is(&self, word: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(word)
    }
}

/// Words end at blanks outside of quotes; `#` before a word makes the rest a comment.
fn words(line: usize, text: &str, found: &mut Vec<Word>) -> Result<(), Wrong> {
    let mut rest = text.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (mut word, mut end, mut inside, mut escaped) =
            (String::new(), rest.len(), false, false);
        for (at, c) in rest.char_indices() {
            let takes = inside && !escaped && c == '\\';
            match c {
                '"' if !escaped => inside = !inside,
                _ if c.is_whitespace() && !inside => {
                    end = at;
                    break;
                }
                _ if !takes => word.push(c),
                _ => {}
            }
            escaped = takes;
        }
        if inside {
            return Err(Wrong::at(
                line,
                "a quote has no end; write another `\"` behind the name",
            ));
        }
        let quoted = rest.starts_with('"');
        found.push(Word {
            line,
            text: word,
            quoted,
        });
        rest = rest[end..].trim_start();
    }
    Ok(())
}

/// The transfers of a section, as far as its conditions hold on Linux.
pub(super) fn transfers(section: &Section<'_>, known: &[&str]) -> Result<Vec<Transfer>, Wrong> {
    let mut all = Vec::new();
    for (line, text) in &section.body {
        // `if(os == linux)then` needs no blanks.
        match text.strip_prefix("if(") {
            Some(rest) => words(
                *line,
                &format!("if ({}", rest.replace(")then", ") then")),
                &mut all,
            )?,
            None => words(*line, text, &mut all)?,
        }
    }
    let (mut list, mut words, mut open) = (Vec::new(), all.into_iter(), None);
    while let Some(word) = words.next() {
        let line = word.line;
        let wrong = |problem: String| Err(Wrong::at(line, problem));
        if word.is("if") && open.is_none() {
            let expression = words.by_ref().take_while(|word| !word.is("then"));
            let expression: Vec<String> = expression.map(Word::written).collect();
            open = Some((line, require::condition(line, &expression.join(" "))?));
        } else if word.is("else") && open.is_some() {
            open = open.map(|(line, holds)| (line, !holds));
        } else if word.is("endif") && open.is_some() {
            open = None;
        } else if known.iter().any(|known| word.is(known)) {
            let (Some(from), Some(to)) = (words.next(), words.next()) else {
                return wrong(format!(
                    "`{}` needs two names; write `{0} FROM TO`",
                    word.text
                ));
            };
            if to.line != line {
                return wrong(format!(
                    "`{}` needs two names on its line; write `{0} FROM TO`",
                    word.text
                ));
            }
            if open.is_none_or(|(_, holds)| holds) {
                list.push(Transfer {
                    line,
                    from: from.text,
                    to: to.text,
                });
            }
        } else if !word.is("none") {
            return wrong(format!(
                "`{}` is not known in `{} :`; write `{} FROM TO`, quote names with blanks, and give commands to `remote :`",
                word.text, section.name, known[0]
            ));
        }
    }
    match open {
        Some((line, _)) => Err(Wrong::at(line, "`if` has no end; write `endif` behind it")),
        None if list.len() > FILES_MAX => Err(Wrong::at(
            section.line,
            format!("more than {FILES_MAX} files; put them into an archive"),
        )),
        None => Ok(list),
    }
}
