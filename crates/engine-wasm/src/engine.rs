//! The engine: tasks in, runners in cages, endings out.

use crate::record::{RECORD_FILE, WORK};
use crate::{probe, translate};
use gleaner_engine::{
    AfterSave, AttemptSpec, Capability, CollectedFile, Ending, Engine as _, EngineError, Events,
    Saves,
};
use gleaner_engine_process::{Caged, Cages, ProcessConfig, Runner};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

/// How the engine works on this PC.
#[derive(Debug, Clone)]
pub struct WasmConfig {
    /// How cages are made. Its directory must be the engine's own.
    pub process: ProcessConfig,
    /// The program that answers [`crate::is_wasm_call`]: `gleaner`.
    pub runner: PathBuf,
}

/// Runs attempts whose program is WebAssembly. Cheap to share: all clones are one engine.
pub type WasmEngine = Caged<WasmRunner>;

/// `gleaner` itself, called again in each cage.
#[derive(Debug)]
pub struct WasmRunner {
    config: WasmConfig,
}

/// Size of the input that is the program; 0 where none is.
fn module_bytes(spec: &AttemptSpec) -> u64 {
    let name = |name: &str| {
        name.trim_start_matches("/scratch/")
            .trim_start_matches("./")
            .to_owned()
    };
    let program = spec.command.first().map(|word| name(word));
    let input = spec
        .inputs
        .iter()
        .find(|input| Some(name(&input.name)) == program);
    let found = input.and_then(|input| fs::metadata(&input.source).ok());
    found.map_or(0, |found| found.len())
}

impl Runner for WasmRunner {
    type Config = WasmConfig;

    const KIND: gleaner_model::Engine = gleaner_model::Engine::Wasm;

    fn new(config: WasmConfig, _events: &Events) -> (Self, ProcessConfig) {
        let process = ProcessConfig {
            program: Some(config.runner.clone()),
            ..config.process.clone()
        };
        (Self { config }, process)
    }

    fn probe(&self, _cages: &Cages) -> Vec<Capability> {
        vec![probe::trial(&self.config)]
    }

    fn cage(&self, cages: &Cages, spec: &AttemptSpec) -> Result<AttemptSpec, EngineError> {
        let (file, text) = cages.tell(spec.attempt, &translate::runner_task(spec))?;
        Ok(translate::cage(spec, &file, &text, module_bytes(spec)))
    }

    fn ending(&self, cages: &Cages, spec: &AttemptSpec, cage: &Ending) -> Ending {
        let record = cages.said(spec.attempt, RECORD_FILE);
        translate::ending(spec, cage, record.as_ref())
    }

    fn collect(
        &self,
        cages: &Cages,
        spec: &AttemptSpec,
    ) -> Result<Vec<CollectedFile>, EngineError> {
        let (outputs, max) = (&spec.outputs, spec.limits.output.0);
        let cages = cages.engine();
        cages.collect_below(spec.attempt, WORK, outputs, max)
    }

    fn saves(&self, cages: &Cages) -> Saves {
        cages.engine().saves()
    }

    fn save(
        self: &Arc<Self>,
        cages: &Cages,
        spec: &AttemptSpec,
        then: AfterSave,
    ) -> Result<(), EngineError> {
        cages.engine().save(spec.attempt, then)
    }

    fn saved(&self, cages: &Cages, spec: &AttemptSpec) -> Result<Vec<CollectedFile>, EngineError> {
        let mut files = cages.engine().saved(spec.attempt)?;
        for file in &mut files {
            file.name = translate::of_the_program(&file.name).to_owned();
        }
        Ok(files)
    }
}
