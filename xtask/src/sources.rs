//! The files of the repository as text, and which of their lines are tests.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &["target", "node_modules", "results"];

/// One text file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path from the root of the repository, with slashes.
    pub(crate) path: String,
    /// Its content.
    pub(crate) text: String,
}

impl Source {
    /// A file of tests as a whole: `tests.rs`, `*_tests.rs`, or anything under a `tests` folder.
    pub(crate) fn is_test_file(&self) -> bool {
        let stem = self
            .path
            .rsplit('/')
            .next()
            .unwrap_or("")
            .trim_end_matches(".rs");
        stem == "tests"
            || stem.ends_with("_tests")
            || self
                .path
                .split('/')
                .rev()
                .skip(1)
                .any(|folder| folder == "tests")
    }

    /// The lines with `true` for those that only tests compile.
    pub(crate) fn lines(&self) -> Vec<(&str, bool)> {
        let whole = self.is_test_file();
        let lines: Vec<&str> = self.text.lines().collect();
        let mut marked: Vec<(&str, bool)> = lines.iter().map(|line| (*line, whole)).collect();
        let mut at = 0;
        while at < lines.len() {
            let end = if lines[at].trim() == "#[cfg(test)]" {
                test_end(&lines, at)
            } else {
                at
            };
            for mark in marked.iter_mut().take(end + 1).skip(at) {
                mark.1 |= end > at;
            }
            at = end + 1;
        }
        marked
    }
}

/// Last line of the inline module that follows `#[cfg(test)]` at `start`; `start` where the
/// attribute belongs to something else.
fn test_end(lines: &[&str], start: usize) -> usize {
    let opens = (start + 1..lines.len()).find(|&i| !lines[i].trim().starts_with("#["));
    let Some(open) = opens.filter(|&i| is_module(lines[i])) else {
        return start;
    };
    let indent = lines[open].len() - lines[open].trim_start().len();
    let close = format!("{}}}", " ".repeat(indent));
    (open + 1..lines.len())
        .find(|&i| lines[i] == close)
        .unwrap_or(lines.len() - 1)
}

fn is_module(line: &str) -> bool {
    let line = line.trim();
    let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
    line.starts_with("mod ") && line.ends_with('{')
}

/// Every file under `root` with one of these endings, in order of path.
pub(crate) fn walk(root: &Path, endings: &[&str]) -> Result<Vec<Source>, String> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for entry in entries {
            let entry = entry.map_err(|e| format!("{}: {e}", folder.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().map_err(|e| format!("{name}: {e}"))?;
            if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                folders.push(entry.path());
            } else if kind.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(read(root, &entry.path())?);
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn read(root: &Path, path: &Path) -> Result<Source, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let relative = path.strip_prefix(root).unwrap_or(path);
    Ok(Source {
        path: relative.to_string_lossy().into_owned(),
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(path: &str, text: &str) -> Vec<bool> {
        let source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        source.lines().into_iter().map(|(_, test)| test).collect()
    }

    #[test]
    fn an_inline_module_of_tests_is_marked() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\nfn c() {}\n";
        assert_eq!(
            marks("src/a.rs", text),
            [false, true, true, true, true, true, false]
        );
    }

    #[test]
    fn an_attribute_of_something_else_marks_nothing() {
        assert_eq!(
            marks("src/a.rs", "#[cfg(test)]\nmod tests;\nfn c() {}\n"),
            [false; 3]
        );
    }

    #[test]
    fn files_of_tests_are_marked_whole() {
        assert_eq!(marks("crates/a/src/tests.rs", "fn a() {}\n"), [true]);
        assert_eq!(marks("crates/a/tests/it/main.rs", "fn a() {}\n"), [true]);
        assert_eq!(marks("crates/a/src/attests.rs", "fn a() {}\n"), [false]);
    }
}
