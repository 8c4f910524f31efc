//! Macros: `$(name)`, `$(name:default)`, `$ENV(name)`, `$Fpnx(name)`.
//!
//! What is the same for every task is put in as text. What differs from task to task becomes an axis
//! of the job: while a value is worked on, one letter of Unicode's private area stands for it.

use super::lines::Setting;
use crate::foreign::Wrong;
use crate::nearest::nearest;
use gleaner_model::verbatim;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Most macros within macros.
const DEPTH_MAX: u32 = 32;

/// The first of the letters that stand for axes; nobody writes it, for it means nothing.
const FIRST_MARK: u32 = 0xF_0000;
const LAST_MARK: u32 = 0xF_FFFD;

/// The number of a task.
const INDEX: usize = 0;

/// Values that differ from task to task.
#[derive(Debug)]
struct Axis {
    name: String,
    /// One a task; none for the number of the task.
    values: Vec<String>,
}

/// Everything that a macro can stand for.
#[derive(Debug)]
pub(super) struct Macros<'s> {
    settings: &'s BTreeMap<String, Setting>,
    count: usize,
    axes: Vec<Axis>,
    /// Axes by the macro's name in lower case.
    by_name: BTreeMap<String, usize>,
    used: BTreeSet<usize>,
    /// Settings that were asked for.
    pub(super) read: BTreeSet<String>,
}

/// Whether a text has a letter that stands for an axis: something that differs from task to task.
pub(super) fn has_marks(text: &str) -> bool {
    text.chars().any(|letter| mark_of(letter).is_some())
}

fn mark_of(letter: char) -> Option<usize> {
    let code = u32::from(letter);
    let at = (FIRST_MARK..=LAST_MARK).contains(&code);
    at.then(|| usize::try_from(code - FIRST_MARK).unwrap_or(usize::MAX))
}

impl<'s> Macros<'s> {
    /// Before the queue statement is read, for one task.
    pub(super) fn new(settings: &'s BTreeMap<String, Setting>) -> Self {
        let index = Axis {
            name: "index".to_owned(),
            values: Vec::new(),
        };
        Self {
            settings,
            count: 1,
            axes: vec![index],
            by_name: BTreeMap::new(),
            used: BTreeSet::new(),
            read: BTreeSet::new(),
        }
    }

    /// From here on there are so many tasks, each with its value of every name; `numbers` are the
    /// names besides `Process` that count the tasks.
    pub(super) fn split(
        &mut self,
        count: usize,
        numbers: &[&str],
        columns: Vec<(String, Vec<String>)>,
    ) {
        self.count = count;
        for name in ["process", "procid"].iter().chain(numbers) {
            self.by_name.insert((*name).to_owned(), INDEX);
        }
        for (name, values) in columns {
            let at = self.add(&name, values);
            self.by_name.insert(name.to_lowercase(), at);
        }
    }

    /// How many tasks there are.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// A new axis with a name that no other has.
    fn add(&mut self, name: &str, values: Vec<String>) -> usize {
        let plain = |c: char| if c.is_alphanumeric() { c } else { '_' };
        let name: String = name.chars().map(plain).collect();
        let taken = |name: &str| {
            matches!(name, "outputs" | "mode") || self.axes.iter().any(|axis| axis.name == name)
        };
        let mut free = name.clone();
        let mut number = 1;
        while taken(&free) {
            number += 1;
            free = format!("{name}_{number}");
        }
        self.axes.push(Axis { name: free, values });
        self.axes.len() - 1
    }

    fn mark(at: usize) -> String {
        let code = u32::try_from(at).ok().map(|at| FIRST_MARK + at);
        let letter = code.filter(|code| *code <= LAST_MARK);
        letter.and_then(char::from_u32).unwrap_or('?').to_string()
    }

    /// The value of a command, whether it is set for all or stands in the queue's list.
    pub(super) fn value(&mut self, name: &str) -> Option<Result<(usize, String), Wrong>> {
        let plain = |name: &str| name.replace('_', "");
        let axis = self.by_name.iter().find(|(known, _)| plain(known) == name);
        let setting = self.settings.iter().find(|(known, _)| plain(known) == name);
        if let Some((_, at)) = axis {
            let line = setting.map_or(1, |(_, setting)| setting.line);
            return Some(Ok((line, Self::mark(*at))));
        }
        let (known, setting) = setting?;
        self.read.insert(known.clone());
        let text = self.expand(setting.line, &setting.value);
        Some(text.map(|text| (setting.line, text)))
    }

    /// Puts everything into a text that can be.
    pub(super) fn expand(&mut self, line: usize, text: &str) -> Result<String, Wrong> {
        self.expand_at(line, text, 0)
    }

    fn expand_at(&mut self, line: usize, text: &str, depth: u32) -> Result<String, Wrong> {
        if depth > DEPTH_MAX {
            return Err(Wrong::at(line, "a macro leads back to itself"));
        }
        let (mut out, mut rest) = (String::new(), text);
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let tail = &rest[at + 1..];
            let end = tail.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (function, after) = tail.split_at(end.unwrap_or(tail.len()));
            if after.starts_with('$') && after[1..].starts_with('(') && function.is_empty() {
                let problem = "`$$(…)` is filled by the node's own description; write what it \
                               stands for";
                return Err(Wrong::at(line, problem));
            }
            let Some(inner) = parenthesised(after) else {
                out.push('$');
                rest = tail;
                continue;
            };
            let value = match function {
                "" => self.named(line, inner, depth)?,
                "ENV" => environment(line, inner)?,
                parts if parts.starts_with('F') => self.part(line, &parts[1..], inner, depth)?,
                other => {
                    let problem = format!("`${other}(…)` is not read; write its value");
                    return Err(Wrong::at(line, problem));
                }
            };
            out.push_str(&value);
            rest = &after[inner.len() + 2..];
        }
        out.push_str(rest);
        Ok(out)
    }

    /// `name` or `name:default`.
    fn named(&mut self, line: usize, inner: &str, depth: u32) -> Result<String, Wrong> {
        let (name, default) = match inner.split_once(':') {
            Some((name, default)) => (name.trim(), Some(default)),
            None => (inner.trim(), None),
        };
        let name = name.to_lowercase();
        if let Some(at) = self.by_name.get(&name) {
            return Ok(Self::mark(*at));
        }
        match name.as_str() {
            "itemindex" | "row" | "step" => return Ok("0".to_owned()),
            "dollar" => return Ok("$".to_owned()),
            "cluster" | "clusterid" | "jobid" => {
                let problem = "the job's number is not known before the job is handed in; leave \
                               it out: each job has a folder of its own for its results";
                return Err(Wrong::at(line, problem));
            }
            _ => {}
        }
        if let Some(setting) = self.settings.get(&name) {
            self.read.insert(name);
            return self.expand_at(line, &setting.value, depth + 1);
        }
        if let Some(default) = default {
            return self.expand_at(line, default, depth + 1);
        }
        let known = self.settings.keys().chain(self.by_name.keys());
        let near = nearest(&name, known.map(String::as_str));
        let near = near.map(|near| format!("did you mean `$({near})`? "));
        let problem = format!(
            "`$({name})` is not set; {}write `$({name}:)` where it may be empty",
            near.unwrap_or_default()
        );
        Err(Wrong::at(line, problem))
    }

    /// `$Fpdnxq(name)`: parts of a path.
    fn part(&mut self, line: usize, parts: &str, name: &str, depth: u32) -> Result<String, Wrong> {
        if let Some(other) = parts.chars().find(|letter| !"pdnxq".contains(*letter)) {
            let problem = format!("`$F{parts}(…)`: `{other}` is not read; known are p, d, n, x, q");
            return Err(Wrong::at(line, problem));
        }
        let path = self.named(line, name, depth)?;
        Ok(self.derived(&path, &format!("{name}_{parts}"), |path| {
            path_parts(path, parts)
        }))
    }

    /// The same made of a value for each task.
    pub(super) fn derived(
        &mut self,
        text: &str,
        name: &str,
        make: impl Fn(&str) -> String,
    ) -> String {
        if !has_marks(text) {
            return make(text);
        }
        let values: Vec<String> = (0..self.count)
            .map(|task| make(&self.of_task(text, task)))
            .collect();
        self.column(name, values)
    }

    /// A text for values that are there already: an axis only where they differ.
    pub(super) fn column(&mut self, name: &str, values: Vec<String>) -> String {
        match values.split_first() {
            Some((first, rest)) if rest.iter().all(|other| other == first) => first.clone(),
            _ => {
                let at = self.axes.iter().position(|axis| axis.values == values);
                Self::mark(at.unwrap_or_else(|| self.add(name, values)))
            }
        }
    }

    /// The letters that stand for the values of a list that are no plain words.
    pub(super) fn has_phrases(&self, text: &str) -> bool {
        let phrase = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\');
        text.chars()
            .filter_map(mark_of)
            .filter_map(|at| self.axes.get(at))
            .any(|axis| {
                let mut values = axis.values.iter();
                values.any(|value| value.is_empty() || value.contains(phrase))
            })
    }

    /// A text as one task has it.
    pub(super) fn of_task(&self, text: &str, task: usize) -> String {
        let mut out = String::with_capacity(text.len());
        for letter in text.chars() {
            match mark_of(letter) {
                None => out.push(letter),
                Some(INDEX) => out.push_str(&task.to_string()),
                Some(at) => {
                    let axis = self.axes.get(at);
                    out.push_str(
                        axis.and_then(|axis| axis.values.get(task))
                            .map_or("", |v| v),
                    );
                }
            }
        }
        out
    }

    /// A text as a job file has it.
    pub(super) fn finish(&mut self, text: &str) -> String {
        if self.count == 1 {
            return verbatim(&self.of_task(text, 0));
        }
        let mut out = String::new();
        for letter in text.chars() {
            match mark_of(letter) {
                None => out.push_str(&verbatim(letter.encode_utf8(&mut [0; 4]))),
                Some(at) => {
                    self.used.insert(at);
                    let name = self.axes.get(at).map_or("", |axis| axis.name.as_str());
                    out.extend(["{", name, "}"]);
                }
            }
        }
        out
    }

    /// The axes of a job file: those that are used, and at least one where there are many tasks.
    pub(super) fn sweep(self) -> Option<serde_json::Value> {
        if self.count == 1 {
            return None;
        }
        let mut sweep = serde_json::Map::new();
        sweep.insert("mode".to_owned(), "zip".into());
        for (at, axis) in self.axes.into_iter().enumerate() {
            if at != INDEX && self.used.contains(&at) {
                sweep.insert(axis.name, serde_json::json!({ "list": axis.values }));
            }
        }
        if sweep.len() == 1 {
            let range = serde_json::json!({ "range": [0, self.count - 1] });
            sweep.insert("Process".to_owned(), range);
        }
        Some(sweep.into())
    }
}

/// What stands between a parenthesis and the one that closes it.
fn parenthesised(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('(')?;
    let mut open = 1_u32;
    for (at, letter) in inner.char_indices() {
        match letter {
            '(' => open += 1,
            ')' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(&inner[..at]);
        }
    }
    None
}

/// A variable of this shell.
fn environment(line: usize, inner: &str) -> Result<String, Wrong> {
    let (name, default) = match inner.split_once(':') {
        Some((name, default)) => (name.trim(), Some(default)),
        None => (inner.trim(), None),
    };
    let value = std::env::var(name).ok();
    let value = value.filter(|value| !has_marks(value));
    value.or_else(|| default.map(str::to_owned)).ok_or_else(|| {
        let problem = format!("the variable {name} is not set here; write `$ENV({name}:…)`");
        Wrong::at(line, problem)
    })
}

/// Folder, last folder, name, extension; the whole path where nothing is asked for.
pub(super) fn path_parts(path: &str, parts: &str) -> String {
    let (folder, file) = path
        .rfind('/')
        .map_or(("", path), |at| path.split_at(at + 1));
    let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str());
    let stem = stem.unwrap_or(file);
    let mut out = String::new();
    if parts.contains('p') {
        out.push_str(folder);
    } else if parts.contains('d') {
        let last = folder.trim_end_matches('/').rsplit('/').next();
        out.push_str(last.unwrap_or_default());
        if !out.is_empty() {
            out.push('/');
        }
    }
    if parts.contains('n') {
        out.push_str(stem);
    }
    if parts.contains('x') {
        out.push_str(file.strip_prefix(stem).unwrap_or_default());
    }
    if parts.chars().all(|letter| letter == 'q') {
        out.push_str(path);
    }
    if parts.contains('q') {
        return format!("\"{out}\"");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_apart() {
        let path = "data/set/a.tar.gz";
        for (parts, expected) in [
            ("", path),
            ("p", "data/set/"),
            ("d", "set/"),
            ("n", "a.tar"),
            ("x", ".gz"),
            ("nx", "a.tar.gz"),
            ("pnx", path),
            ("nq", "\"a.tar\""),
        ] {
            assert_eq!(path_parts(path, parts), expected, "{parts}");
        }
        assert_eq!(path_parts("plain", "p"), "");
    }
}
