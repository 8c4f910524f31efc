//! Rules for our sources that no compiler checks: sizes, names, openings, words.
//!
//! Functions of more than 70 lines are clippy's business (`too_many_lines`).

use crate::sources::Source;
use crate::workspace::{Workspace, short};
use std::fs;

/// Most lines of a file, tests apart: what one can still read in one go.
const MAX_FILE_LINES: usize = 600;

/// Most lines of tests inside a file; more go to a file of their own, `tests.rs`.
const MAX_INLINE_TEST_LINES: usize = 300;

/// How far above a `sleep` in a test its loop may begin.
const LOOP_LOOKBACK_LINES: usize = 25;

/// Names that say nothing about what is inside.
const BAGS: &[&str] = &[
    "util", "utils", "helper", "helpers", "common", "manager", "misc",
];

/// Crates that may hold `unsafe` code; every other one forbids it.
const UNSAFE_CRATES: &[&str] = &[
    "engine-process",
    "engine-vm",
    "engine-wasm",
    "guest",
    "sense",
];

/// Words that mean unfinished work or a way around a check, in pieces so that this file does not
/// find itself.
const WORDS: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "finish it or drop it"),
    (concat!("FIX", "ME"), "finish it or drop it"),
    (concat!("#[ign", "ore"), "a test runs or does not exist"),
    (concat!("to", "do!("), "finish it or drop it"),
    (concat!("unimple", "mented!("), "finish it or drop it"),
    (concat!("clippy::too_many", "_lines"), "split the function"),
];

/// What a file has that takes in generated code.
const GENERATED: &str = "include_proto!";

/// Every rule over every source, and the manifests of our packages.
pub(crate) fn check(workspace: &Workspace, sources: &[Source]) -> Vec<String> {
    let mut found: Vec<String> = sources.iter().flat_map(rust).collect();
    found.extend(workspace.members().filter_map(|package| {
        let text = fs::read_to_string(package.dir.join("Cargo.toml")).unwrap_or_default();
        (!inherits_lints(&text)).then(|| {
            format!(
                "{}: Cargo.toml lacks [lints] workspace = true",
                package.name
            )
        })
    }));
    found.extend(workspace.members().filter_map(|package| {
        let root = ["src/lib.rs", "src/main.rs", "it/main.rs"]
            .iter()
            .find_map(|file| fs::read_to_string(package.dir.join(file)).ok())?;
        (!safe_enough(short(&package.name), &root))
            .then(|| format!("{}: lacks #![forbid(unsafe_code)]", package.name))
    }));
    found
}

/// The rules over one source.
pub(crate) fn rust(source: &Source) -> Vec<String> {
    let lines = source.lines();
    let mut found = Vec::new();
    let path = &source.path;
    if !source.text.starts_with("//!") {
        found.push(format!("{path}: does not open with //!"));
    }
    for part in path.trim_end_matches(".rs").split('/') {
        if part.split(['_', '-']).any(|word| BAGS.contains(&word)) {
            found.push(format!(
                "{path}: the name {part:?} says nothing about what is inside"
            ));
        }
    }
    if !source.is_test_file() {
        found.extend(too_long(path, &lines));
    }
    for (number, (line, test)) in lines.iter().enumerate() {
        // Functions that a generator writes have the length that they have.
        let generated = |word: &str| word.starts_with("clippy") && source.text.contains(GENERATED);
        for (word, advice) in WORDS.iter().filter(|(word, _)| line.contains(word)) {
            if generated(word) {
                continue;
            }
            found.push(format!("{path}:{}: {word}: {advice}", number + 1));
        }
        let above = &lines[..number];
        if *test && sleeps(line) && !polls(above, line) && !meant(above) {
            found.push(format!(
                "{path}:{}: a test sleeps outside a polling loop; wait for the event, or say `// On purpose: why`",
                number + 1
            ));
        }
    }
    found
}

fn too_long(path: &str, lines: &[(&str, bool)]) -> Vec<String> {
    let tests = lines.iter().filter(|(_, test)| *test).count();
    let code = lines.len() - tests;
    let mut found = Vec::new();
    if code > MAX_FILE_LINES {
        found.push(format!(
            "{path}: {code} lines, {MAX_FILE_LINES} are allowed"
        ));
    }
    if tests > MAX_INLINE_TEST_LINES {
        found.push(format!(
            "{path}: {tests} lines of tests, {MAX_INLINE_TEST_LINES} are allowed; move them to tests.rs"
        ));
    }
    found
}

fn sleeps(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    code.contains("thread::sleep(") || code.contains("time::sleep(") || code.contains(" sleep(Dur")
}

/// Whether a line sits in a loop: some line above with less indentation opens one.
fn polls(above: &[(&str, bool)], line: &str) -> bool {
    let indent = |line: &str| line.len() - line.trim_start().len();
    above
        .iter()
        .rev()
        .take(LOOP_LOOKBACK_LINES)
        .any(|(candidate, _)| {
            let code = candidate.trim_start();
            let opens = ["loop {", "while ", "for "].iter().any(|word| {
                code.starts_with(word) || code.contains(&format!(" {word}")) && code.ends_with('{')
            });
            opens && indent(candidate) < indent(line)
        })
}

/// Whether the comment above says that the time itself is what is tested.
fn meant(above: &[(&str, bool)]) -> bool {
    let comments = above
        .iter()
        .rev()
        .take_while(|(line, _)| line.trim_start().starts_with("//"));
    comments
        .into_iter()
        .any(|(line, _)| line.contains("// On purpose: "))
}

fn inherits_lints(manifest: &str) -> bool {
    manifest
        .split_once("[lints]")
        .is_some_and(|(_, rest)| rest.trim_start().starts_with("workspace = true"))
}

fn safe_enough(crate_name: &str, root: &str) -> bool {
    UNSAFE_CRATES.contains(&crate_name) || root.contains("#![forbid(unsafe_code)]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        rust(&Source {
            path: path.to_owned(),
            text: text.to_owned(),
        })
    }

    #[test]
    fn a_tidy_file_passes() {
        let text = "//! What it owns.\nfn a() {}\n";
        assert_eq!(findings("crates/a/src/a.rs", text), Vec::<String>::new());
    }

    #[test]
    fn planted_violations_are_found() {
        let long = format!("//! Long.\n{}", "fn a() {}\n".repeat(MAX_FILE_LINES));
        let tests = format!(
            "//! Tests.\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            "    fn a() {}\n".repeat(MAX_INLINE_TEST_LINES)
        );
        let table = [
            ("a.rs", "fn a() {}\n".to_owned(), "does not open with //!"),
            ("utils.rs", "//! Bag.\n".to_owned(), "says nothing"),
            ("job_manager.rs", "//! Bag.\n".to_owned(), "says nothing"),
            ("common/a.rs", "//! Bag.\n".to_owned(), "says nothing"),
            ("a.rs", long, "601 lines"),
            ("a.rs", tests, "lines of tests"),
            (
                "a.rs",
                format!("//! A.\n// {}: later\n", WORDS[0].0),
                "a.rs:2",
            ),
            (
                "a.rs",
                format!("//! A.\n    {}]\n", WORDS[2].0),
                "runs or does not exist",
            ),
            (
                "a.rs",
                format!("//! A.\n#[expect({})]\n", WORDS[5].0),
                "split the function",
            ),
            (
                "tests.rs",
                "//! T.\nfn a() {\n    thread::sleep(X);\n}\n".to_owned(),
                "sleeps",
            ),
        ];
        for (path, text, expected) in table {
            let found = findings(path, &text);
            assert_eq!(found.len(), 1, "{path} {expected}: {found:?}");
            assert!(found[0].contains(expected), "{expected}: {found:?}");
        }
    }

    #[test]
    fn a_polling_loop_may_sleep() {
        let text = "//! T.\nfn a() {\n    while !ready() {\n        thread::sleep(X);\n    }\n}\n";
        assert_eq!(findings("tests.rs", text), Vec::<String>::new());
    }

    #[test]
    fn a_test_may_say_that_it_sleeps_on_purpose() {
        let text = "//! T.\nfn a() {\n    // On purpose: it is frozen.\n    // Two lines.\n    thread::sleep(X);\n}\n";
        assert_eq!(findings("tests.rs", text), Vec::<String>::new());
    }

    #[test]
    fn code_may_sleep() {
        let text = "//! T.\nfn a() {\n    thread::sleep(X);\n}\n";
        assert_eq!(findings("a.rs", text), Vec::<String>::new());
    }

    #[test]
    fn lints_must_be_inherited() {
        assert!(inherits_lints("[package]\n[lints]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\n[lints]\n[dependencies]\n"));
        assert!(!inherits_lints("[package]\n"));
    }

    #[test]
    fn unsafe_must_be_forbidden_outside_its_crates() {
        assert!(!safe_enough("core", "//! A.\n"));
        assert!(safe_enough("core", "//! A.\n#![forbid(unsafe_code)]\n"));
        assert!(safe_enough("engine-process", "//! A.\n"));
    }
}
