//! Globs that no file could match, because they are none: told before a task has run for nothing.

use super::at;
use crate::ClientError;
use gleaner_model::{JobSpec, Merge, Template};
use globset::GlobBuilder;
use std::borrow::Cow;

/// # Errors
/// At the key of the first that is no glob.
pub(super) fn check(spec: &JobSpec) -> Result<(), ClientError> {
    let task = &spec.task;
    let merge: &[String] = match &spec.collect.merge {
        Some(Merge::Command(merge)) => &merge.outputs,
        Some(Merge::Concat(_)) | None => &[],
    };
    for (key, globs) in [
        ("task.outputs", &task.outputs[..]),
        ("task.checkpoint_files", &task.checkpoint_files),
        ("collect.merge.outputs", merge),
    ] {
        for glob in globs {
            one(spec, glob).map_err(|problem| {
                at(
                    key,
                    format!("{glob:?} is not a glob: {problem}; write [[] for a plain ["),
                )
            })?;
        }
    }
    Ok(())
}

/// Nodes read it the same way, with each value standing for itself.
fn one(spec: &JobSpec, glob: &str) -> Result<(), String> {
    let known = |name: &str| name == "index" || spec.sweep.axes.contains_key(name);
    let filled = Template::parse(glob, &known).fill(&|_| Some(Cow::Borrowed("x")));
    let filled = filled.map_err(|error| error.to_string())?;
    let built = GlobBuilder::new(&filled).literal_separator(true).build();
    built.map(drop).map_err(|error| error.kind().to_string())
}
