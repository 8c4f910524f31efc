//! `gleaner map`: one task a file, or a line of a file.

use super::submit::{self, After};
use super::task_options::{TaskOptions, with_axis};
use crate::out::{self, Failure, Outcome};
use crate::progress::Shown;
use crate::session::Session;
use crate::watch::Interrupt;
use gleaner_model::{Axis, Sweep};
use std::path::Path;

/// Run one task for each file that matches PATTERN, or for each line of a file
///
/// {} in the command and the options is the file's name in the sandbox, or the line; {{ gives {.
/// Quote the pattern, so that gleaner and not the shell expands it. Results lie in
/// ./results-<JOB>/<INDEX>/.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: TaskOptions,
    /// PATTERN is a text file; one task a line
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    #[expect(clippy::option_option, reason = "absent, a flag, or with its file")]
    lines: Option<Option<String>>,
    /// The job's id only
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// A quoted glob, as in 'data/*.txt'
    #[arg(value_name = "PATTERN")]
    pattern: Vec<String>,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Args {
    pub(crate) async fn run(self, session: &Session) -> Outcome {
        let (name, axis) = self.axis()?;
        let written = |text: &str| with_axis(text, name);
        let mut spec = self.options.spec(&self.command, &written)?;
        let placeholder = format!("{{{name}}}");
        if !spec
            .task
            .command
            .iter()
            .any(|word| word.contains(&placeholder))
        {
            out::say("warning: no {} in the command, so every task runs the same one");
        }
        spec.sweep = Sweep {
            axes: [(name.to_owned(), axis)].into(),
            ..Sweep::default()
        };
        let shown = if self.options.json || self.quiet {
            Shown::Nothing
        } else {
            Shown::Progress
        };
        let mut interrupt = Interrupt::listen();
        let prepared = submit::prepare(spec, Path::new("."), shown, &mut interrupt).await??;
        let job = submit::hand_in(session, &prepared, shown, &mut interrupt, Failure::from).await?;
        let after = After {
            wait: !self.options.detach,
            json: self.options.json,
            quiet: self.quiet,
            results: self.options.results,
        };
        after.go_on(session, job, interrupt).await
    }

    fn axis(&self) -> Result<(&'static str, Axis), Failure> {
        match (&self.lines, self.pattern.as_slice()) {
            (None, [pattern]) => Ok(("file", Axis::Files(pattern.clone()))),
            (Some(None), [file]) | (Some(Some(file)), []) => {
                Ok(("line", Axis::Lines(file.clone())))
            }
            (Some(_), _) => Err(Failure::usage(
                "--lines takes one file: gleaner map --lines FILE -- CMD {}",
            )),
            (None, []) => Err(Failure::usage(
                "which files? gleaner map 'data/*.txt' -- CMD {}",
            )),
            (None, [first, ..]) => Err(Failure::usage(format!(
                "map takes one pattern, but got {} names, {first} first; quote the pattern so that \
                 the shell leaves it alone: gleaner map 'data/*.txt' -- CMD {{}}",
                self.pattern.len()
            ))),
        }
    }
}
