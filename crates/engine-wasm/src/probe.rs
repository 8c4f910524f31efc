//! Whether WebAssembly runs here, found out by running some.
//!
//! A cage that may not make memory executable, or a runner that not everybody may start, shows
//! only so. It takes tens of milliseconds, so it is done whenever it is asked for.

use crate::{WasmConfig, WasmEngine};
use gleaner_engine::{AttemptSpec, Capability, Engine as _, EngineEvent, InputFile, Level};
use gleaner_engine_process::{TRIAL_BEAT, TRIAL_LEASE_MS};
use gleaner_model::{Bytes, Digest, JobId, LeaseId, Limits, TaskId};
use std::fs;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long the trial may take; tasks run at idle priority, and this PC may be busy.
const WAIT: Duration = Duration::from_secs(60);

/// Memory and disk of the trial.
const TRIAL_BYTES: Bytes = Bytes(16 << 20);

/// The smallest program: a type without parameters and results, one function of it, exported as
/// `_start`, which returns. See the binary format of the WebAssembly specification.
pub(crate) const NOTHING: &[u8] = &[
    0, b'a', b's', b'm', 1, 0, 0, 0, // a module
    1, 4, 1, 0x60, 0, 0, // types
    3, 2, 1, 0, // functions
    7, 10, 1, 6, b'_', b's', b't', b'a', b'r', b't', 0, 0, // exports
    10, 4, 1, 2, 0, 0x0b, // code
];

/// The outcome as a row of `gleaner doctor`. Takes a directory beside the engine's.
#[must_use]
pub fn trial(config: &WasmConfig) -> Capability {
    let process = config.process.of_trial();
    let dir = process.dir.clone();
    let begun = Instant::now();
    let outcome = run(WasmConfig {
        process,
        ..config.clone()
    });
    let _left_for_later = fs::remove_dir_all(dir);
    let name = "WebAssembly".to_owned();
    match outcome {
        Ok(()) => Capability {
            name,
            level: Level::Good,
            found: format!("ran a program in {} ms", begun.elapsed().as_millis()),
            fix: None,
        },
        Err(why) => Capability {
            name,
            level: Level::Missing,
            found: why,
            fix: Some("look at the rows above first: its cages are those of processes".to_owned()),
        },
    }
}

fn run(config: WasmConfig) -> Result<(), String> {
    let dir = config.process.dir.clone();
    let (told, heard) = mpsc::channel();
    let told = Mutex::new(told);
    let events = Arc::new(move |event| {
        let told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let _nobody_waits = told.send(event);
    });
    let engine = WasmEngine::new(config, events).map_err(|error| error.to_string())?;
    let source = dir.join("trial.wasm");
    fs::write(&source, NOTHING).map_err(|error| error.to_string())?;
    let program = InputFile {
        name: "trial.wasm".to_owned(),
        source,
        digest: Digest(*blake3::hash(NOTHING).as_bytes()),
        mode: 0o644,
    };
    let attempt = TaskId::new(JobId(0), 0).attempt(1);
    let command = vec![program.name.clone()];
    let spec = AttemptSpec {
        inputs: vec![program],
        limits: Limits {
            memory: TRIAL_BYTES,
            disk: TRIAL_BYTES,
            ..Limits::default()
        },
        ..AttemptSpec::bare(attempt, LeaseId(0), command)
    };
    let begun = Instant::now();
    engine.start(spec).map_err(|error| error.to_string())?;
    let reason = loop {
        engine.beat(TRIAL_LEASE_MS);
        match heard.recv_timeout(TRIAL_BEAT) {
            Ok(EngineEvent::Ended { ending, .. }) => break Ok(ending.reason),
            _ if begun.elapsed() > WAIT => {
                break Err(format!("nothing ran within {} s", WAIT.as_secs()));
            }
            _ => {}
        }
    };
    engine.discard(attempt);
    match reason? {
        reason if reason.is_success() => Ok(()),
        reason => Err(reason.to_string()),
    }
}
