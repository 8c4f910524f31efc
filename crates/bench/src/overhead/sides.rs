//! Running a program native and in an engine, and waiting for its end. What it measures is not
//! looked at here.

use super::plan::Program;
use super::rounds::Run;
use super::{Kind, Options, Side, numpy};
use crate::burn::{BY_WALL, Work};
use crate::{BenchError, Doing as _};
use gleaner_engine::{
    AttemptSpec, CollectedFile, Control, Ending, EngineEvent, ImageFile, InputFile, Saving,
};
use gleaner_model::{AttemptId, Bytes, Digest, JobId, LeaseId, Limits, TaskId};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for one run: a guest on a busy PC takes minutes.
const RUN_WITHIN: Duration = Duration::from_secs(300);
/// Longest wait for a run that was told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// A second is the shims' beat; waiting in such steps keeps them running.
const BEAT: Duration = Duration::from_secs(1);
/// Between two looks whether something was done ahead.
const PREPARED_LOOK: Duration = Duration::from_millis(100);
/// What a beat says of the lease: a benchmark that was killed leaves nothing for longer.
const LEASE_MS: u64 = 10_000;
/// Name of the work in the sandbox.
const WORK: &str = "work";
/// The same for WebAssembly, compiled from [`crate::burn`]; see `main.rs` beside it.
const MODULE: &[u8] = include_bytes!("../../wasm/work.wasm");
const MODULE_NAME: &str = "work.wasm";
/// The smallest program of WebAssembly: a function `_start` that returns. In it there is nothing to
/// compile. See the binary format of the WebAssembly specification.
const NOTHING: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
const NOTHING_NAME: &str = "nothing.wasm";
/// Scratch of a run besides the program, in bytes.
const SCRATCH_BYTES: u64 = 128 << 20;
/// Longest output that is read, in bytes.
const OUTPUT_MAX_BYTES: u64 = 1 << 20;
/// What both sides find in their environment: large pieces of memory come from the kernel each
/// time (mallopt(3)), and a BLAS has one thread, as a guest has one processor.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("OPENBLAS_NUM_THREADS", "1"),
    ("OMP_NUM_THREADS", "1"),
    ("MKL_NUM_THREADS", "1"),
];

/// A task that is to be run once.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) command: Vec<String>,
    pub(crate) inputs: Vec<InputFile>,
    /// What it sees instead of the usual programs.
    pub(crate) image: Option<ImageFile>,
    /// Attempts of one bundle may share what holds nothing of a task.
    pub(crate) bundle: u64,
    pub(crate) memory: Bytes,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) stdout: String,
    pub(crate) ending: Ending,
    /// From the order to start until the end was heard, in milliseconds.
    pub(crate) took_ms: f64,
}

/// The work as inputs, hashed once.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// This program.
    program: InputFile,
    /// The same work as a module of WebAssembly.
    module: InputFile,
    /// A module that does nothing.
    nothing: InputFile,
    /// What guests run numpy with; made when one shall.
    numpy: OnceCell<numpy::Root>,
}

impl Inputs {
    pub(crate) fn new(options: &Options) -> Result<Self, BenchError> {
        let module = options.dir.join(MODULE_NAME);
        fs::write(&module, MODULE).doing("write the module")?;
        let nothing = options.dir.join(NOTHING_NAME);
        fs::write(&nothing, NOTHING).doing("write the smallest module")?;
        let program = fs::read(&options.program).doing("read the program")?;
        let of = |name: &str, source: &Path, content: &[u8]| InputFile {
            name: name.into(),
            source: source.to_owned(),
            digest: Digest(*blake3::hash(content).as_bytes()),
            mode: 0o755,
        };
        Ok(Self {
            program: of(WORK, &options.program, &program),
            module: of(MODULE_NAME, &module, MODULE),
            nothing: of(NOTHING_NAME, &nothing, NOTHING),
            numpy: OnceCell::new(),
        })
    }

    /// The module that does nothing.
    pub(crate) const fn nothing(&self) -> &InputFile {
        &self.nothing
    }

    /// Size of the module.
    pub(crate) const fn module_bytes(&self) -> usize {
        MODULE.len()
    }

    /// What guests run numpy with, made in `dir`.
    fn numpy(&self, dir: &Path) -> Result<&numpy::Root, BenchError> {
        if let Some(root) = self.numpy.get() {
            return Ok(root);
        }
        let root = numpy::Root::new("numpy", dir)?;
        Ok(self.numpy.get_or_init(|| root))
    }

    /// The one that engines of this kind run.
    pub(crate) const fn of(&self, kind: Kind) -> &InputFile {
        match kind {
            Kind::Wasm => &self.module,
            Kind::Process | Kind::UserModeLinux | Kind::Kvm | Kind::Tcg => &self.program,
        }
    }
}

/// What is asked of an engine of this kind.
pub(crate) fn asked(
    program: Program,
    inputs: &Inputs,
    kind: Kind,
    (memory_mib, dir): (u32, &Path),
) -> Result<Asked, BenchError> {
    let (command, inputs, image) = match program {
        Program::Burn(work) => {
            let input = inputs.of(kind);
            let first = format!("./{}", input.name);
            let command = [first].into_iter().chain(work.args()).collect();
            (command, vec![input.clone()], None)
        }
        Program::Numpy if kind.is_guest() => {
            let root = inputs.numpy(dir)?;
            (root.command(), Vec::new(), Some(root.image.clone()))
        }
        Program::Numpy => {
            let first = numpy::PYTHON.to_owned();
            let command = [first].into_iter().chain(numpy::arguments()).collect();
            (command, Vec::new(), None)
        }
    };
    Ok(Asked {
        command,
        inputs,
        image,
        bundle: 1,
        memory: Bytes(u64::from(memory_mib) << 20),
    })
}

/// Nothing at all, for an engine that may run the program.
pub(crate) fn idle(input: &InputFile, memory_mib: u32) -> Asked {
    let first = format!("./{}", input.name);
    Asked {
        command: [first].into_iter().chain(Work::Nothing.args()).collect(),
        inputs: vec![input.clone()],
        image: None,
        bundle: 1,
        memory: Bytes(u64::from(memory_mib) << 20),
    }
}

/// Runs the program outside every engine, in `dir`.
pub(crate) fn native(
    program: Program,
    options: &Options,
    dir: &PathBuf,
) -> Result<Run, BenchError> {
    let mut command = match program {
        Program::Burn(work) => {
            let mut command = Command::new(&options.program);
            command.args(work.args());
            command
        }
        Program::Numpy => {
            let mut command = Command::new(numpy::PYTHON);
            command.args(numpy::arguments());
            command
        }
    };
    let output = command
        .envs(ENVIRONMENT)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .doing("run the work")?;
    options.stop.check()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(BenchError::Broken(format!(
            "the work ended natively: {}; {}",
            output.status,
            words.trim()
        )));
    }
    readings(&String::from_utf8_lossy(&output.stdout))
}

/// The readings that the work printed.
pub(crate) fn readings(text: &str) -> Result<Run, BenchError> {
    let readings: Result<Run, String> = text.lines().map(str::parse).collect();
    readings.map_err(BenchError::Broken)
}

impl Side {
    fn spec(&mut self, asked: Asked) -> AttemptSpec {
        self.next += 1;
        let attempt = AttemptId {
            task: TaskId::new(JobId(1), self.next),
            number: 1,
        };
        spec(attempt, asked, self.kind)
    }

    /// A task for which the engine has done what it does ahead; none where it does nothing.
    pub(crate) fn prepared(
        &mut self,
        asked: Asked,
        options: &Options,
    ) -> Result<Option<AttemptSpec>, BenchError> {
        if !self.engine.prepares() {
            return Ok(None);
        }
        let spec = self.spec(asked);
        self.engine.beat(LEASE_MS);
        self.engine.prepare(spec.clone()).map_err(broken)?;
        let deadline = Instant::now() + RUN_WITHIN;
        while !self.engine.is_prepared(spec.attempt) {
            let stopped = options.stop.check();
            if stopped.is_err() || Instant::now() > deadline {
                self.engine.discard(spec.attempt);
                stopped?;
                let text = format!("nothing was done ahead on {}", self.name);
                return Err(BenchError::Broken(text));
            }
            // What happens is told of attempts that have begun; this one has not.
            let _of_an_earlier_one = self.events.recv_timeout(PREPARED_LOOK);
            self.engine.beat(LEASE_MS);
        }
        Ok(Some(spec))
    }

    /// Runs a task to its end; an error where it does not end well.
    pub(crate) fn run(&mut self, asked: Asked, options: &Options) -> Result<Done, BenchError> {
        let spec = self.spec(asked);
        self.run_spec(spec, options)
    }

    /// The same of one that was prepared.
    pub(crate) fn run_spec(
        &self,
        spec: AttemptSpec,
        options: &Options,
    ) -> Result<Done, BenchError> {
        let attempt = spec.attempt;
        let begun = Instant::now();
        self.engine.beat(LEASE_MS);
        self.engine.start(spec).map_err(broken)?;
        let ending = self.until_ended(attempt, options);
        let took_ms = begun.elapsed().as_secs_f64() * 1000.0;
        let stdout = ending.as_ref().ok().map(|_| self.stdout(attempt));
        self.engine.discard(attempt);
        let ending = ending?;
        let stdout = stdout.unwrap_or_else(|| Ok(String::new()))?;
        match ending.reason.is_success() {
            true => Ok(Done {
                stdout,
                ending,
                took_ms,
            }),
            false => Err(BenchError::Broken(format!(
                "a run on {} ended: {}; {}",
                self.name,
                ending.reason,
                stdout.trim()
            ))),
        }
    }

    fn until_ended(&self, wanted: AttemptId, options: &Options) -> Result<Ending, BenchError> {
        let mut deadline = Instant::now() + RUN_WITHIN;
        let mut stopped = false;
        loop {
            match self.events.recv_timeout(BEAT) {
                Ok(EngineEvent::Ended { attempt, ending }) if attempt == wanted => {
                    options.stop.check()?;
                    return Ok(*ending);
                }
                Ok(_) => {}
                Err(_) => self.engine.beat(LEASE_MS),
            }
            if !stopped && options.stop.check().is_err() {
                // Its end is waited for, so that nothing of it is left.
                let _has_ended = self.engine.control(wanted, Control::Stop { grace_ms: 0 });
                (stopped, deadline) = (true, Instant::now() + STOP_WITHIN);
            }
            if Instant::now() > deadline {
                options.stop.check()?;
                return Err(BenchError::Broken(format!(
                    "a run on {} did not end",
                    self.name
                )));
            }
        }
    }

    fn stdout(&self, attempt: AttemptId) -> Result<String, BenchError> {
        let files = self.engine.collect(attempt).map_err(broken)?;
        let stdout = files.into_iter().find(|file| file.name == "stdout");
        let CollectedFile { file, .. } =
            stdout.ok_or_else(|| BenchError::Broken("the engine collected no stdout".into()))?;
        let mut text = String::new();
        file.take(OUTPUT_MAX_BYTES)
            .read_to_string(&mut text)
            .doing("read the work's output")?;
        Ok(text)
    }
}

fn spec(attempt: AttemptId, asked: Asked, kind: Kind) -> AttemptSpec {
    let inputs: u64 = asked
        .inputs
        .iter()
        .filter_map(|input| fs::metadata(&input.source).ok())
        .map(|file| file.len())
        .sum();
    let by_wall = kind
        .is_guest()
        .then(|| (BY_WALL.to_owned(), "1".to_owned()));
    // A WebAssembly program has no allocator to steer and no threads to bound.
    let env = match kind {
        Kind::Wasm => BTreeMap::new(),
        Kind::Process | Kind::UserModeLinux | Kind::Kvm | Kind::Tcg => ENVIRONMENT
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .chain(by_wall)
            .collect(),
    };
    AttemptSpec {
        attempt,
        bundle: LeaseId(asked.bundle),
        command: asked.command,
        deterministic: false,
        env,
        stdin: None,
        image: asked.image,
        inputs: asked.inputs,
        outputs: Vec::new(),
        limits: Limits {
            memory: asked.memory,
            disk: Bytes(SCRATCH_BYTES + inputs * 2),
            ..Limits::default()
        },
        saving: Saving::default(),
    }
}

fn broken(error: gleaner_engine::EngineError) -> BenchError {
    BenchError::Broken(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_that_is_no_reading_is_an_error() {
        let run = readings("read@4096 0.2 0.1 2 1000 0\nwrite@4096 0.4 0.2 2 1000 ff\n").unwrap();
        assert_eq!(run.len(), 2);
        assert!(readings("").unwrap().is_empty());
        let problem = readings("Killed\n").unwrap_err();
        assert!(problem.to_string().contains("no reading"), "{problem}");
    }
}
