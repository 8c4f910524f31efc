//! `gleaner image guest`: what guests on this PC are made of.

use crate::out::{self, Outcome, REFUSED};
use gleaner_engine_process::ProcessConfig;
use gleaner_engine_vm::image::{Image, default_dir, find_program};
use gleaner_engine_vm::machine;
use gleaner_engine_vm::probe::{self, Remembered, Trial};
use gleaner_engine_vm::{Accelerator, VmConfig};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Made {
    id: String,
    name: &'static str,
    state: &'static str,
    dir: PathBuf,
    kernels: BTreeMap<String, String>,
    packages: usize,
    accelerator: Option<Accelerator>,
    trials: Vec<Trial>,
}

/// Makes it and tries it.
pub(super) fn run(json: bool) -> Outcome {
    let refused = |text: String| out::Failure::new(REFUSED, text);
    let gleaner = std::env::current_exe().map_err(|error| refused(error.to_string()))?;
    let program = find_program(&gleaner).map_err(|why| {
        refused(format!(
            "no guest can be made: {why} (guests need erofs-utils and e2fsprogs, and \
             user-mode-linux or qemu-system-x86, or both)"
        ))
    })?;
    let dir = default_dir();
    let image = Image::open_or_build(&dir, &program);
    let image = image.map_err(|error| refused(error.to_string()))?;
    let mut config = VmConfig::new(ProcessConfig::new(dir.with_extension("engine")), dir);
    config.program = Some(program);
    config.accelerator = machine::asked().map_err(refused)?;
    // Somebody asks because it did not work, or because something was changed.
    let trials = probe::trials(&config, &image, Remembered::Ignored);
    let accelerator = probe::chosen(&trials);
    let works = accelerator.is_some();
    if json {
        out::json(&Made {
            id: image.manifest.digest(),
            name: "guest",
            state: if works { "works" } else { "fails" },
            dir: image.dir.clone(),
            kernels: image.manifest.kernels.clone(),
            packages: image.manifest.packages.len(),
            accelerator,
            trials,
        })?;
    } else {
        let rows = probe::trial_rows(&trials).into_iter();
        let said = rows.map(|row| format!("{}: {}", row.name, row.found));
        out::line(format!(
            "{}\n{}: {}, {} packages\n{}",
            image.manifest.digest(),
            image.dir.display(),
            image.manifest.kernels_text(),
            image.manifest.packages.len(),
            said.collect::<Vec<_>>().join("\n"),
        ))?;
    }
    Ok(if works { 0 } else { REFUSED })
}
