//! Globs that no file could match, because they are none. Told before a task has run for nothing: by
//! the client before it uploads anything, and by the server to whoever comes without one.

use gleaner_model::{JobSpec, Merge, SpecError, Template};
use globset::GlobBuilder;
use std::borrow::Cow;

/// Whether each pattern of a job is a glob.
///
/// # Errors
/// At the key of the first that is none.
pub fn check_patterns(spec: &JobSpec) -> Result<(), SpecError> {
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
            one(spec, glob).map_err(|problem| SpecError {
                key: key.to_owned(),
                problem: format!("{glob:?} is not a glob: {problem}; write [[] for a plain ["),
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
