//! The engine: tasks in, runners in cages, endings out.

use crate::cache::{self, CodeCache, Key};
use crate::record::{CODE_FILE, MARK_FILE, Origin, RECORD_FILE, Record, TASK_FILE, WORK};
use crate::translate::Own;
use crate::{probe, translate};
use gleaner_engine::{
    AfterSave, AttemptSpec, Capability, CollectedFile, Ending, Engine as _, EngineError, Events,
    InputFile, Saves,
};
use gleaner_engine_process::{Caged, Cages, ProcessConfig, Runner};
use gleaner_model::{AttemptId, Digest};
use std::fs::{self, File};
use std::io;
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
    /// None where it cannot be had: every attempt compiles for itself then.
    cache: Option<CodeCache>,
}

/// Files beside the task: the attempt's seal, and its hold on an entry of the cache.
const SEAL: &str = "seal";
const CODE: &str = "code";

/// The input that is the program.
fn module(spec: &AttemptSpec) -> Option<&InputFile> {
    let name = |name: &str| {
        name.trim_start_matches("/scratch/")
            .trim_start_matches("./")
            .to_owned()
    };
    let program = spec.command.first().map(|word| name(word));
    let mut inputs = spec.inputs.iter();
    inputs.find(|input| Some(name(&input.name)) == program)
}

impl WasmRunner {
    /// The cache, and a task's entry in it.
    fn entry(&self, spec: &AttemptSpec) -> Option<(&CodeCache, Key)> {
        let (cache, module) = (self.cache.as_ref()?, module(spec)?);
        Some((cache, cache.key(&module.digest, spec.deterministic)))
    }

    /// Keeps the code that an attempt left, for the next one of the same module.
    fn keep(&self, cages: &Cages, spec: &AttemptSpec) -> io::Result<()> {
        let Some((cache, key)) = self.entry(spec) else {
            return Ok(());
        };
        let open = |name: &str| -> io::Result<File> {
            let file = cages.engine().open_in_scratch(spec.attempt, name);
            file.map_err(io::Error::other)
        };
        let seal = cache::sealed(&cages.file(spec.attempt, SEAL))
            .ok_or_else(|| io::Error::other("its seal is gone"))?;
        cache.keep(&key, &seal, [open(CODE_FILE)?, open(MARK_FILE)?])
    }
}

impl Runner for WasmRunner {
    type Config = WasmConfig;

    const KIND: gleaner_model::Engine = gleaner_model::Engine::Wasm;

    fn new(config: WasmConfig, _events: &Events) -> (Self, ProcessConfig) {
        let process = ProcessConfig {
            program: Some(config.runner.clone()),
            ..config.process.clone()
        };
        // Without the engine's directory there is no engine either, and it says so.
        let cache = CodeCache::open(&config.process.dir.join(CODE), &config.runner);
        let cache = cache
            .inspect_err(|error| tracing::warn!(%error, "compiled code cannot be kept"))
            .ok();
        (Self { config, cache }, process)
    }

    fn probe(&self, _cages: &Cages) -> Vec<Capability> {
        vec![probe::trial(&self.config)]
    }

    fn cage(&self, cages: &Cages, spec: &AttemptSpec) -> Result<AttemptSpec, EngineError> {
        let found = module(spec).and_then(|module| fs::metadata(&module.source).ok());
        let mut own = Own {
            module_bytes: found.map_or(0, |found| found.len()),
            ..Own::default()
        };
        let mut task = translate::runner_task(spec);
        if let Some((cache, key)) = self.entry(spec) {
            task.module = module(spec).map(|module| module.digest);
            own.files
                .push(cache::seal(&cages.file(spec.attempt, SEAL))?);
            let source = cages.file(spec.attempt, CODE);
            let kept = cache.link(&key, &source);
            own.leaves_code = kept.is_none();
            own.files.extend(kept.map(|digest| InputFile {
                name: CODE_FILE.to_owned(),
                source,
                digest,
                mode: 0o400,
            }));
        }
        let (source, text) = cages.tell(spec.attempt, &task)?;
        own.files.push(InputFile {
            name: TASK_FILE.to_owned(),
            source,
            digest: Digest(*blake3::hash(&text).as_bytes()),
            mode: 0o644,
        });
        Ok(translate::cage(spec, own))
    }

    fn ending(&self, cages: &Cages, spec: &AttemptSpec, cage: &Ending) -> Ending {
        let record: Option<Record> = cages.said(spec.attempt, RECORD_FILE);
        // Without a record it was stopped, and may have left code all the same.
        let code = record.as_ref().map(|record| record.code);
        if code.is_none_or(|code| code == Origin::Left)
            && let Err(error) = self.keep(cages, spec)
        {
            tracing::debug!(%error, "compiled code is not kept");
        }
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

    fn discarded(&self, cages: &Cages, attempt: AttemptId) {
        for ending in [SEAL, CODE] {
            let _never_made = fs::remove_file(cages.file(attempt, ending));
        }
    }
}
