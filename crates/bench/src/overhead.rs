//! `gleaner bench overhead`: what the cage costs a program, against the same program native.
//!
//! Each round runs the same fixed work once native and once contained, in alternating order, and
//! compares the CPU seconds that the program itself counted. Starting is measured apart.

use crate::burn::burn_args;
use crate::stats::{bootstrap, median, paired_ratio, percentile};
use crate::{BenchError, Doing as _, Goal, Report, Row};
use gleaner_engine::{AttemptSpec, CollectedFile, Engine, EngineEvent, InputFile, Saving};
use gleaner_model::{AttemptId, Bytes, Digest, JobId, LeaseId, Limits, TaskId};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// What to measure, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `gleaner` program: it is also the work.
    pub program: PathBuf,
    /// Pairs of native and contained runs.
    pub rounds: u32,
    /// Sieves a run: sets its length.
    pub work: u32,
    /// Starts of a program that ends at once.
    pub starts: u32,
}

/// Longest wait for one run.
const RUN_WITHIN: Duration = Duration::from_secs(300);
/// Name of the work in the sandbox.
const WORK: &str = "work";

/// An engine under the clock.
struct Bench<'e> {
    engine: &'e dyn Engine,
    events: &'e Receiver<EngineEvent>,
    next: u32,
}

/// Runs it all on `engine`, whose events arrive on `events`; `say` hears what is being done.
///
/// # Errors
/// Where a run does not end well.
pub fn run(
    engine: &dyn Engine,
    events: &Receiver<EngineEvent>,
    options: &Options,
    say: &mut dyn FnMut(&str),
) -> Result<Report, BenchError> {
    let mut bench = Bench {
        engine,
        events,
        next: 0,
    };
    let mut rows = Vec::new();
    bench.cpu(options, say, &mut rows)?;
    bench.starts(options, say, &mut rows)?;
    Ok(Report {
        bench: "overhead",
        version: env!("CARGO_PKG_VERSION"),
        rows,
    })
}

impl Bench<'_> {
    fn cpu(
        &mut self,
        options: &Options,
        say: &mut dyn FnMut(&str),
        rows: &mut Vec<Row>,
    ) -> Result<(), BenchError> {
        let program = fs::read(&options.program).doing("read the program")?;
        let digest = Digest(*blake3::hash(&program).as_bytes());
        let source = options.program.clone();
        let input = InputFile {
            name: WORK.into(),
            source,
            digest,
            mode: 0o755,
        };
        let (mut native, mut contained) = (Vec::new(), Vec::new());
        for round in 0..options.rounds {
            say(&format!(
                "native and contained, round {} of {}",
                round + 1,
                options.rounds
            ));
            if round % 2 == 0 {
                native.push(native_seconds(options)?);
            }
            contained.push(self.contained_seconds(options, &input)?);
            if round % 2 == 1 {
                native.push(native_seconds(options)?);
            }
        }
        let (ratio, interval) = paired_ratio(&contained, &native);
        let percent = |ratio: f64| (ratio - 1.0) * 100.0;
        let interval = crate::Interval {
            low: percent(interval.low),
            high: percent(interval.high),
        };
        rows.push(
            Row::new(
                "CPU-bound program, contained over native",
                percent(ratio),
                "%",
            )
            .interval(interval)
            .goal(Goal::AtMost(1.0))
            .note(format!(
                "CPU seconds of the program, {} pairs, median",
                native.len()
            )),
        );
        rows.push(Row::new("native", median(&native), "CPU s"));
        rows.push(Row::new("contained", median(&contained), "CPU s"));
        Ok(())
    }

    /// CPU seconds of the work inside the cage, as the work counts them.
    fn contained_seconds(
        &mut self,
        options: &Options,
        input: &InputFile,
    ) -> Result<f64, BenchError> {
        let mut command = vec![format!("./{WORK}")];
        command.extend(burn_args(options.work));
        let spec = self.spec(command, vec![input.clone()], 1);
        let attempt = spec.attempt;
        self.until_ended(spec)?;
        let files = self.engine.collect(attempt).map_err(broken)?;
        let stdout = files.into_iter().find(|file| file.name == "stdout");
        let CollectedFile { mut file, .. } =
            stdout.ok_or_else(|| BenchError::Broken("the engine collected no stdout".into()))?;
        let mut text = String::new();
        file.read_to_string(&mut text)
            .doing("read the work's output")?;
        self.engine.discard(attempt);
        seconds_in(&text)
    }

    fn starts(
        &mut self,
        options: &Options,
        say: &mut dyn FnMut(&str),
        rows: &mut Vec<Row>,
    ) -> Result<(), BenchError> {
        say(&format!("{} starts", options.starts));
        let (mut native, mut shared, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..options.starts {
            let started = Instant::now();
            let status = Command::new("/bin/true").stdin(Stdio::null()).status();
            status.doing("start /bin/true")?;
            native.push(started.elapsed().as_secs_f64() * 1000.0);
            shared.push(self.start_ms(1)?);
            fresh.push(self.start_ms(u64::from(round) + 2)?);
        }
        for (name, times_ms, goal) in [
            ("start to end of /bin/true, native, p50", &native, None),
            (
                "start to end of /bin/true, contained, p50",
                &shared,
                Some(Goal::AtMost(5.0)),
            ),
            ("the same with namespaces of its own, p50", &fresh, None),
        ] {
            let row = Row::new(name, median(times_ms), "ms")
                .interval(bootstrap(times_ms, median))
                .note(format!("p99 {:.1} ms", percentile(times_ms, 0.99)));
            rows.push(match goal {
                Some(goal) => row.goal(goal),
                None => row,
            });
        }
        Ok(())
    }

    fn start_ms(&mut self, bundle: u64) -> Result<f64, BenchError> {
        let spec = self.spec(vec!["/bin/true".into()], Vec::new(), bundle);
        let (attempt, started) = (spec.attempt, Instant::now());
        self.until_ended(spec)?;
        let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
        self.engine.discard(attempt);
        Ok(elapsed_ms)
    }

    fn spec(&mut self, command: Vec<String>, inputs: Vec<InputFile>, bundle: u64) -> AttemptSpec {
        self.next += 1;
        AttemptSpec {
            attempt: AttemptId {
                task: TaskId::new(JobId(1), self.next),
                number: 1,
            },
            bundle: LeaseId(bundle),
            command,
            env: BTreeMap::new(),
            stdin: None,
            inputs,
            outputs: Vec::new(),
            limits: Limits {
                memory: Bytes(1 << 30),
                ..Limits::default()
            },
            saving: Saving::default(),
        }
    }

    fn until_ended(&self, spec: AttemptSpec) -> Result<(), BenchError> {
        let wanted = spec.attempt;
        self.engine
            .beat(u64::try_from(RUN_WITHIN.as_millis()).unwrap_or(u64::MAX));
        self.engine.start(spec).map_err(broken)?;
        let deadline = Instant::now() + RUN_WITHIN;
        loop {
            // A second is the shims' beat; waiting in such steps keeps them running.
            match self.events.recv_timeout(Duration::from_secs(1)) {
                Ok(EngineEvent::Ended { attempt, ending }) if attempt == wanted => {
                    return match ending.reason.is_success() {
                        true => Ok(()),
                        false => Err(BenchError::Broken(format!(
                            "a run ended: {}",
                            ending.reason
                        ))),
                    };
                }
                Ok(_) => {}
                Err(_) if Instant::now() > deadline => {
                    return Err(BenchError::Broken("a run did not end".into()));
                }
                Err(_) => self.engine.beat(10_000),
            }
        }
    }
}

fn broken(error: gleaner_engine::EngineError) -> BenchError {
    BenchError::Broken(error.to_string())
}

/// CPU seconds of the work outside, as the work counts them.
fn native_seconds(options: &Options) -> Result<f64, BenchError> {
    let output = Command::new(&options.program)
        .args(burn_args(options.work))
        .stdin(Stdio::null())
        .output()
        .doing("run the work")?;
    seconds_in(&String::from_utf8_lossy(&output.stdout))
}

fn seconds_in(text: &str) -> Result<f64, BenchError> {
    let seconds = text
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok());
    seconds.ok_or_else(|| BenchError::Broken(format!("the work printed {text:?}, not seconds")))
}
