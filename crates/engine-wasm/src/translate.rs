//! From a task to the attempt that holds its runner, and from that attempt's ending to the
//! task's. Values only.

use crate::call::WASM_COMMAND;
use crate::record::{End, Record, RunnerTask, WORK};
use gleaner_engine::{AttemptSpec, Ending, InputFile, Saving};
use gleaner_engine_process::PROGRAM_PATH;
use gleaner_model::{Bytes, LimitKind, LimitRecord, Limits, Reason};
use std::collections::BTreeMap;

/// Memory of the runner besides the program's, in bytes: itself, and its compiler at work.
const RUNNER_BYTES: u64 = 192 << 20;

/// Further memory for the compiler, for each byte of inputs that may be the module; small
/// modules grow about tenfold on their way to code.
const COMPILER_SHARE: u64 = 16;

/// Disk for code that is left for others, for each byte of the module, and at least; other code is
/// not left. The program's own use of it ends where `limits.disk` does, or so much later.
const CODE_SHARE: u64 = 8;
const CODE_BYTES_MIN: u64 = 256 << 10;

/// Threads of the runner: its own, one that counts time, one for timers, and the workers that
/// read and write what may take long.
const RUNNER_PROCESSES: u32 = 32;

/// What the runner is asked to do.
pub(crate) fn runner_task(spec: &AttemptSpec) -> RunnerTask {
    let mut env = spec.env.clone();
    for (name, value) in [
        ("PATH", "/scratch"),
        ("HOME", "/scratch"),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
    ] {
        env.entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    RunnerTask {
        command: spec.command.clone(),
        env,
        memory_bytes: spec.limits.memory.0,
        time_ms: spec.limits.time.ms,
        deterministic: spec.deterministic,
        module: None,
    }
}

/// A name in the program's directory, which is part of the cage's.
fn below(name: &str) -> String {
    format!("{WORK}/{}", name.trim_start_matches("./"))
}

/// The program's name for a file of the cage.
pub(crate) fn of_the_program(name: &str) -> &str {
    let rest = name.strip_prefix(WORK);
    rest.and_then(|rest| rest.strip_prefix('/')).unwrap_or(name)
}

/// What a cage holds besides the task's own.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// Files of scratch: the runner's task, and what belongs to code.
    pub(crate) files: Vec<InputFile>,
    /// Size of the program.
    pub(crate) module_bytes: u64,
    /// Whether code is made there for others.
    pub(crate) leaves_code: bool,
}

/// The attempt that holds the runner.
pub(crate) fn cage(spec: &AttemptSpec, own: Own) -> AttemptSpec {
    let program_owned = |input: &InputFile| InputFile {
        name: below(&input.name),
        ..input.clone()
    };
    let mut inputs: Vec<InputFile> = spec.inputs.iter().map(program_owned).collect();
    inputs.extend(own.files);
    let all = |globs: &[String]| globs.iter().map(|glob| below(glob)).collect();
    let memory = RUNNER_BYTES + own.module_bytes.saturating_mul(COMPILER_SHARE);
    let disk = match own.leaves_code {
        true => CODE_BYTES_MIN.max(own.module_bytes.saturating_mul(CODE_SHARE)),
        false => 0,
    };
    AttemptSpec {
        command: [PROGRAM_PATH, WASM_COMMAND, "."]
            .map(str::to_owned)
            .to_vec(),
        env: BTreeMap::new(),
        stdin: spec.stdin.as_deref().map(below),
        // The runner is a program of the host's userland; its own programs see no root.
        image: None,
        inputs,
        outputs: all(&spec.outputs),
        saving: Saving {
            files: all(&spec.saving.files),
            ..spec.saving.clone()
        },
        limits: Limits {
            memory: Bytes(spec.limits.memory.0.saturating_add(memory)),
            disk: Bytes(spec.limits.disk.0.saturating_add(disk)),
            processes: spec.limits.processes.saturating_add(RUNNER_PROCESSES),
            ..spec.limits.clone()
        },
        ..spec.clone()
    }
}

/// The task's ending.
pub(crate) fn ending(spec: &AttemptSpec, cage: &Ending, record: Option<&Record>) -> Ending {
    let reason = reason(spec, &cage.reason, record);
    let records = cage.limits.iter();
    let limit = |one: &LimitRecord| limit(spec, one, cage, record, &reason);
    Ending {
        limits: records.map(limit).collect(),
        reason: reason.clone(),
        ..cage.clone()
    }
}

/// What was done to the cage comes first; what the program did, the runner knows.
fn reason(spec: &AttemptSpec, cage: &Reason, record: Option<&Record>) -> Reason {
    let engine = |detail: &str| Reason::Engine {
        detail: detail.to_owned(),
    };
    if let Reason::NoProgram { .. } = cage {
        return engine(
            "the runner of WebAssembly is not in its cage; can everybody read and run the \
             `gleaner` program on this node?",
        );
    }
    if !matches!(cage, Reason::Exit { .. } | Reason::Signal { .. }) {
        return cage.clone();
    }
    let over = |limit| Reason::Limit { limit };
    match record.map(|record| &record.end) {
        Some(End::Exit(code)) => Reason::Exit { code: *code },
        Some(End::Trap { signal }) => Reason::Signal { signal: *signal },
        Some(End::Memory) => over(LimitKind::Memory),
        Some(End::Time) => over(LimitKind::Time),
        Some(End::NoProgram) => Reason::NoProgram {
            program: spec.command.first().cloned().unwrap_or_default(),
        },
        Some(End::Failed(detail)) => engine(detail),
        None => engine(
            "the runner of WebAssembly ended without a word; its last ones may stand in the \
             task's standard error",
        ),
    }
}

/// One limit's record: the task's value instead of the cage's, and what the runner saw of it.
fn limit(
    spec: &AttemptSpec,
    cage: &LimitRecord,
    ending: &Ending,
    record: Option<&Record>,
    reason: &Reason,
) -> LimitRecord {
    let limits = &spec.limits;
    let mut told = cage.clone();
    let ended = *reason == Reason::Limit { limit: cage.limit };
    match cage.limit {
        LimitKind::Memory => {
            told.value = count(limits.memory.0);
            if let Some(record) = record {
                told.peak = count(record.memory_peak);
            }
        }
        LimitKind::Processes => {
            // Whatever the runner needs threads for, the program has one.
            told.value = limits.processes.into();
            told.peak = told.peak.min(1.0);
        }
        LimitKind::Disk => told.value = count(limits.disk.0),
        LimitKind::Cpus
        | LimitKind::DiskIo
        | LimitKind::PageFaults
        | LimitKind::Time
        | LimitKind::CpuTime
        | LimitKind::Output
        | LimitKind::Network
        | LimitKind::NetIo => {}
    }
    if ended {
        told.peak = told.peak.max(told.value);
        told.at = told.at.or(Some(ending.ended));
        "ended".clone_into(&mut told.action);
    }
    told
}

#[expect(
    clippy::cast_precision_loss,
    reason = "records are floating point; 2^53 bytes are enough"
)]
const fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use gleaner_model::{JobId, LeaseId, TaskId, Time, Usage};

    fn spec() -> AttemptSpec {
        AttemptSpec {
            attempt: TaskId::new(JobId(1), 0).attempt(1),
            bundle: LeaseId(1),
            command: vec!["program.wasm".to_owned(), "argument".to_owned()],
            deterministic: true,
            env: BTreeMap::from([("LD_PRELOAD".to_owned(), "x".to_owned())]),
            stdin: Some("in.txt".to_owned()),
            image: None,
            inputs: Vec::new(),
            outputs: vec!["./a/*".to_owned()],
            limits: Limits::default(),
            saving: Saving {
                files: vec!["state".to_owned()],
                ..Saving::default()
            },
        }
    }

    fn ended(reason: Reason) -> Ending {
        let limit = |limit| LimitRecord {
            limit,
            value: 1.0,
            peak: 0.0,
            at: None,
            action: "none".to_owned(),
        };
        Ending {
            reason,
            started: Some(Time { ms: 1 }),
            ended: Time { ms: 9 },
            wall_seconds: 0.008,
            paused_seconds: 0.0,
            usage: Usage::default(),
            limits: [LimitKind::Memory, LimitKind::Time, LimitKind::Processes]
                .map(limit)
                .to_vec(),
            refused_calls: BTreeMap::new(),
            degraded: Vec::new(),
        }
    }

    #[test]
    fn what_is_the_programs_lies_in_its_directory() {
        let own = Own {
            module_bytes: 1000,
            leaves_code: true,
            ..Own::default()
        };
        let cage = cage(&spec(), own);
        assert_eq!(cage.command, ["/run/gleaner", "__wasm", "."]);
        assert_eq!(cage.stdin.as_deref(), Some("work/in.txt"));
        assert_eq!(cage.outputs, ["work/a/*"]);
        assert_eq!(cage.saving.files, ["work/state"]);
        assert!(cage.env.is_empty(), "nothing of the job is in the runner's");
        assert!(cage.limits.memory.0 > spec().limits.memory.0 + RUNNER_BYTES);
        assert!(cage.limits.disk.0 > spec().limits.disk.0);
        assert_eq!(of_the_program("work/a/1"), "a/1");
        assert_eq!(of_the_program("stdout"), "stdout");
        let task = runner_task(&spec());
        assert!(task.deterministic && task.env["LD_PRELOAD"] == "x");
        assert_eq!(task.env["TMPDIR"], "/tmp");
    }

    #[test]
    fn the_record_says_how_a_program_ended_and_the_cage_what_was_done_to_it() {
        let exit = Reason::Exit { code: 0 };
        let limit = |limit| Reason::Limit { limit };
        let program = "program.wasm".to_owned();
        let cases = [
            (exit.clone(), Some(End::Exit(7)), Reason::Exit { code: 7 }),
            (
                exit.clone(),
                Some(End::Trap { signal: 6 }),
                Reason::Signal { signal: 6 },
            ),
            (exit.clone(), Some(End::Memory), limit(LimitKind::Memory)),
            (exit.clone(), Some(End::Time), limit(LimitKind::Time)),
            (
                exit.clone(),
                Some(End::NoProgram),
                Reason::NoProgram { program },
            ),
            (Reason::Cancelled, Some(End::Exit(0)), Reason::Cancelled),
            (
                limit(LimitKind::Disk),
                Some(End::Exit(0)),
                limit(LimitKind::Disk),
            ),
        ];
        for (cage, end, reason) in cases {
            let record = end.map(Record::of);
            let told = ending(&spec(), &ended(cage), record.as_ref());
            assert_eq!(told.reason, reason);
            let ended_by = told.limits.iter().filter(|one| one.action == "ended");
            for one in ended_by {
                assert_eq!(told.reason, limit(one.limit));
                assert!(one.at.is_some() && one.peak >= one.value, "{one:?}");
            }
        }
        // A runner that fell over is nobody's program.
        for cage in [exit, Reason::Signal { signal: 11 }] {
            let told = ending(&spec(), &ended(cage), None);
            assert!(
                matches!(told.reason, Reason::Engine { .. }),
                "{:?}",
                told.reason
            );
        }
    }
}
