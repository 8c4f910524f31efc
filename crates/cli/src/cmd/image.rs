//! `gleaner image guest`: what guests on this PC are made of.

use crate::out::{self, Outcome, REFUSED};
use gleaner_engine_process::ProcessConfig;
use gleaner_engine_vm::image::{Image, default_dir, find_program};
use gleaner_engine_vm::probe::{self, Outcome as Trial};
use gleaner_engine_vm::{VmConfig, probe::Remembered};
use serde::Serialize;
use std::path::PathBuf;

/// Make what guests are made of
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Build the guest's kernel, first file system and base image from this PC's packages, where
    /// they are missing or older, and try them
    Guest {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Made {
    id: String,
    name: &'static str,
    state: &'static str,
    dir: PathBuf,
    kernel: String,
    packages: usize,
    trial: Trial,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let Verb::Guest { json } = self.verb;
        let refused = |text: String| out::Failure::new(REFUSED, text);
        let gleaner = std::env::current_exe().map_err(|error| refused(error.to_string()))?;
        let program = find_program(&gleaner).ok_or_else(|| {
            refused(
                "no guest can be made: install user-mode-linux, erofs-utils and e2fsprogs; the \
                 guest's program comes with gleaner's package, or from `cargo xtask guest`"
                    .to_owned(),
            )
        })?;
        let dir = default_dir();
        let image = Image::open_or_build(&dir, &program);
        let image = image.map_err(|error| refused(error.to_string()))?;
        let mut config = VmConfig::new(ProcessConfig::new(dir.with_extension("engine")), dir);
        config.program = Some(program);
        // Somebody asks because it did not work, or because something was changed.
        let trial = probe::outcome(&config, &image, Remembered::Ignored);
        let (works, said) = match &trial {
            Trial::Works { took_ms } => (
                true,
                format!("a guest booted and ran a program in {took_ms} ms"),
            ),
            Trial::Fails { why } => (false, format!("no guest runs here: {why}")),
        };
        if json {
            out::json(&Made {
                id: image.manifest.digest(),
                name: "guest",
                state: if works { "works" } else { "fails" },
                dir: image.dir.clone(),
                kernel: image.manifest.kernel.clone(),
                packages: image.manifest.packages.len(),
                trial,
            })?;
        } else {
            out::line(format!(
                "{}\n{}: user-mode Linux {}, {} packages\n{said}",
                image.manifest.digest(),
                image.dir.display(),
                image.manifest.kernel,
                image.manifest.packages.len(),
            ))?;
        }
        Ok(if works { 0 } else { REFUSED })
    }
}
