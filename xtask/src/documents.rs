//! Rules for the texts: promises name a command, nobody's machine shows through, links lead
//! somewhere.

use crate::sources::Source;
use std::collections::BTreeSet;
use std::path::Path;

/// The document whose table rows are promises: promise, number, command, last figure.
const SPECIFICATION: &str = "SPECIFICATION.md";

/// Columns of each row there.
const COLUMNS: usize = 4;

/// Beginnings of paths that exist on one person's machine only, in pieces so that this file does
/// not find itself.
const PRIVATE_PATHS: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
    concat!("/tmp/", "wt"),
    concat!("/tmp/", "tgt"),
    concat!("/Use", "rs/"),
];

/// Every rule over every document.
pub(crate) fn check(root: &Path, documents: &[Source]) -> Vec<String> {
    let leads = |path: &str, heading: Option<&str>| {
        let mut texts = documents.iter().filter(|_| path.ends_with(".md"));
        let text = texts.find(|document| document.path == path);
        let known = match (text, heading) {
            (Some(document), Some(heading)) => has_heading(&document.text, heading),
            _ => true,
        };
        known && root.join(path).exists()
    };
    let mut found: Vec<String> = documents
        .iter()
        .flat_map(|document| one(document, &leads))
        .collect();
    if !documents
        .iter()
        .any(|document| document.path == SPECIFICATION)
    {
        found.push(format!("{SPECIFICATION} is missing"));
    }
    found
}

/// Whether a path, and where one is named a heading in it, is there.
type Leads<'l> = &'l dyn Fn(&str, Option<&str>) -> bool;

fn one(document: &Source, leads: Leads<'_>) -> Vec<String> {
    let mut found = private_paths(document);
    if document.path.ends_with(".md") {
        found.extend(dead_links(document, leads));
    }
    if document.path == SPECIFICATION {
        found.extend(promises(document));
    }
    found
}

fn private_paths(document: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in document.text.lines().enumerate() {
        for path in PRIVATE_PATHS.iter().filter(|path| line.contains(**path)) {
            found.push(format!(
                "{}:{}: {path} is one machine's path",
                document.path,
                number + 1
            ));
        }
    }
    found
}

/// Rows whose command column has neither a command in backquotes nor the word pending.
fn promises(document: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut rows = 0;
    for (number, line) in document.text.lines().enumerate() {
        let Some(cells) = cells(line) else { continue };
        let rule = line.chars().all(|c| "-:| ".contains(c));
        if rule || cells[0] == "promise" {
            continue;
        }
        rows += 1;
        let place = format!("{}:{}", document.path, number + 1);
        if cells.len() != COLUMNS {
            found.push(format!(
                "{place}: {} columns instead of {COLUMNS}",
                cells.len()
            ));
        } else if !cells[2].contains('`') && cells[2] != "pending" {
            found.push(format!(
                "{place}: names no command and does not say pending"
            ));
        } else if cells[3].is_empty() {
            found.push(format!("{place}: has no figure and does not say pending"));
        }
    }
    if rows == 0 {
        found.push(format!("{}: has no promises", document.path));
    }
    found
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split(" | ").map(str::trim).collect())
}

/// Links to files of the repository that are not there.
fn dead_links(document: &Source, leads: Leads<'_>) -> Vec<String> {
    let folder = document
        .path
        .rsplit_once('/')
        .map_or("", |(folder, _)| folder);
    targets(&document.text)
        .into_iter()
        .filter(|target| !target.contains("://") && !target.starts_with('/'))
        .filter_map(|target| {
            let (path, heading) = match target.split_once('#') {
                Some(("", heading)) => (document.path.clone(), Some(heading)),
                Some((file, heading)) => (join(folder, file), Some(heading)),
                None => (join(folder, target), None),
            };
            (!leads(&path, heading))
                .then(|| format!("{}: the link to {target} leads nowhere", document.path))
        })
        .collect()
}

/// Whether a text has a heading that a link names so: in small letters and digits, with a hyphen for
/// each blank and without other signs.
fn has_heading(text: &str, link: &str) -> bool {
    let named = |line: &str| {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let name: String = words.chars().filter(kept).collect();
        name.replace(' ', "-") == link
    };
    let mut headings = text.lines().filter(|line| line.starts_with('#'));
    headings.any(named)
}

/// What stands in `](…)`, once each.
fn targets(text: &str) -> BTreeSet<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .filter(|target| !target.is_empty() && !target.contains(char::is_whitespace))
        .collect()
}

fn join(folder: &str, file: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in file.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        one(&source, &|path, heading| {
            path == "docs/there.md" && heading.is_none_or(|heading| heading == "part")
                || path == "docs/a.md" && heading == Some("top")
        })
    }

    const HEAD: &str = "| promise | number | command | last figure |\n|---|---|---|---|\n";

    #[test]
    fn good_documents_pass() {
        let spec =
            format!("{HEAD}| fast | 5 ms | `bench` | 4 ms |\n| vm | 2 % | pending | pending |\n");
        assert_eq!(findings("SPECIFICATION.md", &spec), Vec::<String>::new());
        let text = "see [it](there.md#part), [web](https://example.org/) and [top](#top)\n";
        assert_eq!(findings("docs/a.md", text), Vec::<String>::new());
        assert_eq!(
            findings("README.md", "[it](docs/there.md)"),
            Vec::<String>::new()
        );
        assert_eq!(
            findings("crates/x/a.md", "[it](../../docs/there.md)"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn planted_violations_are_found() {
        let private = format!("built in {}src\n", PRIVATE_PATHS[0]);
        let table = [
            (
                "SPECIFICATION.md",
                format!("{HEAD}| fast | 5 ms | soon | - |\n"),
                "names no command",
            ),
            (
                "SPECIFICATION.md",
                format!("{HEAD}| fast | 5 ms | `x` |\n"),
                "3 columns",
            ),
            (
                "SPECIFICATION.md",
                format!("{HEAD}| fast | 5 ms | `x` |  |\n"),
                "has no",
            ),
            ("SPECIFICATION.md", HEAD.to_owned(), "has no promises"),
            ("README.md", private, "one machine's path"),
            (
                "README.md",
                "[gone](docs/gone.md)".to_owned(),
                "leads nowhere",
            ),
            (
                "README.md",
                "[gone](docs/there.md#gone)".to_owned(),
                "leads nowhere",
            ),
        ];
        for (path, text, expected) in table {
            let found = findings(path, &text);
            assert_eq!(found.len(), 1, "{expected}: {found:?}");
            assert!(found[0].contains(expected), "{expected}: {found:?}");
        }
    }

    #[test]
    fn headings_are_known_by_their_words() {
        let text = "# Top\n\n## `engine = \"auto\"`\n\n    gleaner x   # How fast\n";
        for (link, there) in [
            ("top", true),
            ("engine--auto", true),
            ("how-fast", false),
            ("Top", false),
        ] {
            assert_eq!(has_heading(text, link), there, "{link}");
        }
    }

    #[test]
    fn the_specification_must_exist() {
        assert_eq!(check(Path::new("/nowhere"), &[]).len(), 1);
    }
}
