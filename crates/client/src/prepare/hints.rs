//! Braces that are probably meant as placeholders. They stay as they are, since other languages
//! use braces too, but the user hears of it.

use gleaner_model::{JobSpec, Merge};
use std::collections::BTreeSet;

/// Most edits between a name in braces and an axis' name for it to count as a slip.
const EDITS_MAX: usize = 2;

/// A warning for each `{name}` close to, but not, the name of an axis.
pub(super) fn near_names(spec: &JobSpec) -> Vec<String> {
    let mut known: Vec<&str> = spec.sweep.axes.keys().map(String::as_str).collect();
    known.extend(["index", "outputs"]);
    let mut warned = BTreeSet::new();
    for (key, text) in texts(spec) {
        for name in in_braces(text) {
            if known.contains(&name) {
                continue;
            }
            let near = crate::nearest::nearest(name, known.iter().copied()).filter(|near| {
                let edits = strsim::damerau_levenshtein(&name.to_lowercase(), &near.to_lowercase());
                // Half of a short word changed is another word.
                edits <= EDITS_MAX && edits * 2 < near.chars().count().max(1)
            });
            if let Some(near) = near {
                warned.insert(format!(
                    "{key}: {{{name}}} is not a placeholder and stays as it is; did you mean \
                     {{{near}}}?"
                ));
            }
        }
    }
    warned.into_iter().collect()
}

/// Every text in which placeholders are replaced, with its key.
fn texts(spec: &JobSpec) -> Vec<(&'static str, &str)> {
    let mut texts: Vec<(&'static str, &str)> = Vec::new();
    let task = &spec.task;
    texts.extend(task.command.iter().map(|t| ("task.command", t.as_str())));
    texts.extend(task.env.values().map(|t| ("task.env", t.as_str())));
    for (name, source) in &task.inputs {
        texts.extend([
            ("task.inputs", name.as_str()),
            ("task.inputs", source.as_str()),
        ]);
    }
    texts.extend(task.stdin.iter().map(|t| ("task.stdin", t.as_str())));
    texts.extend(task.outputs.iter().map(|t| ("task.outputs", t.as_str())));
    if let Some(Merge::Command(merge)) = &spec.collect.merge {
        texts.extend(
            merge
                .command
                .iter()
                .map(|t| ("collect.merge.command", t.as_str())),
        );
    }
    texts
}

/// The words that stand alone between braces.
fn in_braces(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices('{').filter_map(|(at, _)| {
        let escaped = text[..at].ends_with('{') || text[at + 1..].starts_with('{');
        let (name, _) = text[at + 1..].split_once('}')?;
        let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        (!escaped && !name.is_empty() && name.chars().all(word)).then_some(name)
    })
}
