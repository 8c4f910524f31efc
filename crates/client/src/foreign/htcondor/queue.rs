//! The queue statement: how many tasks there are, and what differs between them.

use super::lines::Queue;
use super::macros::{Macros, has_marks};
use crate::foreign::Wrong;
use gleaner_model::MAX_TASKS;
use std::path::{Path, PathBuf};

/// Longest file of items that is read, in bytes.
const ITEMS_BYTES_MAX: u64 = 256 << 20;

/// How items are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    List,
    Lines,
    Files,
}

/// What stands between `queue` and the items.
struct Head<'t> {
    each: usize,
    names: Vec<String>,
    from: Option<(From, &'t str)>,
}

/// Splits the job as the statement says; paths start from `base`.
pub(super) fn split(queue: &Queue, macros: &mut Macros<'_>, base: &Path) -> Result<(), Wrong> {
    let line = queue.line;
    let text = macros.expand(line, &queue.text)?;
    let wrong = |problem: String| Wrong::at(line, problem);
    let head = head(&text).map_err(wrong)?;
    let Some((from, rest)) = head.from else {
        return bounded(head.each, 1)
            .map(|count| macros.split(count, &["step"], Vec::new()))
            .map_err(wrong);
    };
    let (slice, rest) = slice(rest).map_err(wrong)?;
    let items = items(from, rest, &queue.below, base).map_err(wrong)?;
    let items = slice.take(items);
    if items.is_empty() {
        return Err(wrong(
            "the list is empty, so the job would have no task".to_owned(),
        ));
    }
    if items.iter().any(|item| has_marks(item)) {
        return Err(wrong(
            "an item has a letter of Unicode's private area".to_owned(),
        ));
    }
    let count = bounded(head.each, items.len()).map_err(wrong)?;
    let mut columns: Vec<(String, Vec<String>)> = Vec::new();
    for (at, name) in head.names.iter().enumerate() {
        let last = at + 1 == head.names.len();
        let value = |item: &String| part(item, at, last);
        let values = items.iter().map(value);
        let values = values.flat_map(|value| std::iter::repeat_n(value, head.each));
        columns.push((name.clone(), values.collect()));
    }
    let mut counting: &[&str] = &["itemindex", "row"];
    if head.each > 1 {
        counting = &[];
        let numbers = |of: fn(usize, usize) -> usize| {
            let number = |task| of(task, head.each).to_string();
            (0..count).map(number).collect()
        };
        columns.push(("ItemIndex".to_owned(), numbers(|task, each| task / each)));
        columns.push(("Row".to_owned(), numbers(|task, each| task / each)));
        columns.push(("Step".to_owned(), numbers(|task, each| task % each)));
    }
    macros.split(count, counting, columns);
    Ok(())
}

fn bounded(each: usize, items: usize) -> Result<usize, String> {
    let most = usize::try_from(MAX_TASKS).unwrap_or(usize::MAX);
    let count = each.saturating_mul(items);
    match count {
        0 => Err("queue 0 makes no task; write at least 1".to_owned()),
        _ if count > most => Err(format!("makes {count} tasks; a job has at most {most}")),
        _ => Ok(count),
    }
}

fn head(text: &str) -> Result<Head<'_>, String> {
    let mut rest = text.trim();
    let mut each = 1;
    let (word, after) = word(rest);
    if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        let number = word.parse();
        each = number.map_err(|_| format!("`{word}` is no count; write queue 10"))?;
        rest = after;
    }
    let mut names = Vec::new();
    loop {
        let (next, after) = self::word(rest);
        let from = match next.to_ascii_lowercase().as_str() {
            "" => {
                return match names.is_empty() {
                    true => Ok(Head {
                        each,
                        names,
                        from: None,
                    }),
                    false => Err("write in, from or matching behind the names".to_owned()),
                };
            }
            "in" => Some(From::List),
            "from" => Some(From::Lines),
            "matching" => Some(From::Files),
            _ => None,
        };
        if let Some(from) = from {
            if names.is_empty() {
                names.push("Item".to_owned());
            }
            return Ok(Head {
                each,
                names,
                from: Some((from, after)),
            });
        }
        if !next
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
        {
            return Err(format!("`{next}` cannot be the name of a value"));
        }
        names.push(next.to_owned());
        rest = after.trim_start_matches([',', ' ', '\t']);
    }
}

/// The first word, up to a space, comma or parenthesis.
fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, ',' | '(' | '['));
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    (word, rest.trim_start())
}

/// Which of the items: as a slice in Python.
#[derive(Debug, Default)]
struct Slice(Option<[Option<i64>; 3]>);

fn slice(text: &str) -> Result<(Slice, &str), String> {
    let text = text.trim();
    let Some((inner, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) else {
        return Ok((Slice::default(), text));
    };
    let wrong = || format!("`[{inner}]` is no slice; write [first:end:step]");
    let mut numbers = [None; 3];
    for (at, part) in inner.split(':').enumerate() {
        let place = numbers.get_mut(at).ok_or_else(wrong)?;
        if !part.trim().is_empty() {
            *place = Some(part.trim().parse().map_err(|_| wrong())?);
        }
    }
    if numbers[2].is_some_and(|step| step < 1) || !inner.contains(':') {
        return Err(wrong());
    }
    Ok((Slice(Some(numbers)), rest.trim()))
}

impl Slice {
    fn take(&self, items: Vec<String>) -> Vec<String> {
        let Some([first, end, step]) = self.0 else {
            return items;
        };
        let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
        let place = |at: i64| usize::try_from(if at < 0 { at + length } else { at }).unwrap_or(0);
        let first = place(first.unwrap_or(0));
        let end = place(end.unwrap_or(length));
        let step = step
            .and_then(|step| usize::try_from(step).ok())
            .unwrap_or(1);
        let taken = items.into_iter().take(end).skip(first);
        taken.step_by(step).collect()
    }
}

fn items(from: From, text: &str, below: &[String], base: &Path) -> Result<Vec<String>, String> {
    let mut listed: Vec<String> = Vec::new();
    let inline = text.strip_prefix('(');
    if let Some(first) = inline {
        listed.push(first.strip_suffix(')').unwrap_or(first).to_owned());
        listed.extend_from_slice(below);
    }
    match (from, inline) {
        (From::Lines, None) => lines(text, base),
        (From::Lines, Some(_)) => Ok(listed
            .into_iter()
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect()),
        (From::List, _) => Ok(split_up(&listed, text)),
        (From::Files, _) => {
            let words = split_up(&listed, text);
            let (kind, patterns) = match words.split_first() {
                Some((first, rest)) if matches!(first.as_str(), "files" | "dirs" | "any") => {
                    (first.as_str(), rest.to_vec())
                }
                _ => ("any", words),
            };
            matching(kind, &patterns, base)
        }
    }
}

/// Items between commas and spaces.
fn split_up(listed: &[String], text: &str) -> Vec<String> {
    let text = match listed {
        [] => text.to_owned(),
        listed => listed.join(" "),
    };
    let items = text.split([',', ' ', '\t']).filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}

/// One item a line of a file.
fn lines(name: &str, base: &Path) -> Result<Vec<String>, String> {
    if name.ends_with('|') {
        return Err("a command's output is not read; write it to a file and name that".to_owned());
    }
    if name.is_empty() {
        return Err("names no file behind from".to_owned());
    }
    let path = base.join(name);
    let wrong = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let about = std::fs::metadata(&path).map_err(|error| wrong(&error))?;
    if !about.is_file() || about.len() > ITEMS_BYTES_MAX {
        return Err(wrong(&"is no file of at most 256 MiB"));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(&error))?;
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

fn matching(kind: &str, patterns: &[String], base: &Path) -> Result<Vec<String>, String> {
    if kind == "dirs" {
        return Err("folders are not listed; write their names into a list".to_owned());
    }
    let mut found: Vec<PathBuf> = Vec::new();
    for pattern in patterns {
        found.extend(crate::glob::files(base, pattern)?);
    }
    found.sort();
    found.dedup();
    let name = |path: PathBuf| {
        let path = path.strip_prefix(base).unwrap_or(&path).to_path_buf();
        let text = path.into_os_string().into_string();
        text.map_err(|name| format!("{} is no UTF-8", name.display()))
    };
    found.into_iter().map(name).collect()
}

/// One of the values of an item, which end with a comma or a space; the last has all the rest.
fn part(item: &str, at: usize, last: bool) -> String {
    let mut rest = item.trim();
    let end = |text: &str| text.find(|c: char| c == ',' || c.is_whitespace());
    for _ in 0..at {
        let tail = end(rest).map_or("", |end| rest[end..].trim_start());
        rest = tail.strip_prefix(',').unwrap_or(tail).trim_start();
    }
    let taken = match end(rest).filter(|_| !last) {
        Some(end) => &rest[..end],
        None => rest,
    };
    taken.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_an_item_end_with_a_comma_or_a_space() {
        for (item, expected) in [
            ("two words", ["two", "words"]),
            ("other, words here", ["other", "words here"]),
            ("a,b c", ["a", "b c"]),
            (" a , b", ["a", "b"]),
            ("alone", ["alone", ""]),
        ] {
            let parts = [part(item, 0, false), part(item, 1, true)];
            assert_eq!(parts, expected, "{item:?}");
        }
    }
}
