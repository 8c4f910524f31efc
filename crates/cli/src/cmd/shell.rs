//! `gleaner completions SHELL` and `gleaner man DIR`: generated from the command line itself.

use crate::out::{self, Failure, Outcome};
use clap::Command;
use std::path::PathBuf;

/// Print completions for a shell, as in: gleaner completions bash > /etc/bash_completion.d/gleaner
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Write man pages, one a command, into a folder
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// The folder; made where it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl CompletionsArgs {
    pub(crate) fn run(self, mut line: Command) -> Outcome {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut line, "gleaner", &mut text);
        out::print_bytes(&text)?;
        Ok(0)
    }
}

impl ManArgs {
    pub(crate) fn run(self, line: Command) -> Outcome {
        let failed = |problem: std::io::Error| {
            Failure::usage(format!("cannot write {}: {problem}", self.dir.display()))
        };
        std::fs::create_dir_all(&self.dir).map_err(failed)?;
        clap_mangen::generate_to(line, &self.dir).map_err(failed)?;
        out::say(format!("man pages are in {}", self.dir.display()));
        Ok(0)
    }
}
