//! From a task to the attempt that holds its guest, and from that attempt's ending to the
//! task's. Values only.

use crate::machine::Moves;
use gleaner_engine::{AttemptSpec, Ending, InputFile, Saving};
use gleaner_engine_process::{GUEST_DIR, GuestNeeds};
use gleaner_guest::task::{
    Accelerator, DISK_DIR, End, GuestTask, Machine, NO_ROOM, RESTORE_FILE, Record, TASK_FILE, WORK,
};
use gleaner_model::{
    Bytes, CHECKPOINT_EXIT_CODE, Digest, LimitKind, LimitRecord, Limits, Reason, Span, Time, Usage,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// What a guest's kernel and process 1 need for themselves, in bytes.
const GUEST_OWN_BYTES: u64 = 64 << 20;

/// The kernel's list of pages: its share of all memory.
const PAGE_LIST_SHARE: u64 = 32;

/// What a guest costs the host besides its memory, in bytes: page tables, the program that is
/// its kernel or its machine with the code that it translated, the host end.
const HOST_OWN_BYTES: u64 = 192 << 20;

/// Each page of the guest is mapped by its processes; share of memory for the tables.
const PAGE_TABLE_SHARE: u64 = 32;

/// Disk on the host besides inputs, scratch and outputs, in bytes.
const HOST_DISK_BYTES: u64 = 256 << 20;

/// Processes of the host that belong to the kernel and to the host end.
const HOST_PROCESSES: u32 = 64;

/// Longest boot that is not the task's, and its CPU time, in milliseconds: its clocks begin
/// with the cage.
const BOOT_MS: (u64, u64) = (5_000, 3_000);

/// The same where every instruction is translated.
const BOOT_TRANSLATED_MS: (u64, u64) = (60_000, 30_000);

/// Calls that QEMU tries at its start and does without: whether the kernel has rings, and what
/// its library for filters may ask of the kernel. Refused like any other, but no news.
const TRIED_BY_QEMU: [&str; 2] = ["io_uring_setup", "seccomp"];

/// More than any guest does, and a number that every reader of records has exactly: who has taken a
/// guest over may say anything, and it is added up.
const SAID_MAX: u64 = 1 << 53;

/// Longest text that is taken from there, in characters.
const WORDS_MAX: usize = 1000;

/// What is said where a job asks for saves and its guest cannot be saved.
const NOT_WHILE_IT_RUNS: &str = "checkpoint: a guest on user-mode Linux is not saved while it runs; \
                                 what its program saves itself by counts when it ends";

/// What every attempt in a cage is told, and what is different here: the disk holds.
const WATCHED_DISK: &str = "disk: ";

/// What the guest is asked to do.
pub(crate) fn guest_task(spec: &AttemptSpec, machine: &Machine, silence: Duration) -> GuestTask {
    let mut env = spec.env.clone();
    for (name, value) in [
        (
            "PATH",
            "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        ),
        ("HOME", "/scratch"),
        ("TMPDIR", "/scratch/.tmp"),
        ("LANG", "C.UTF-8"),
    ] {
        env.entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    GuestTask {
        command: spec.command.clone(),
        env,
        stdin: spec.stdin.clone(),
        // Which of them come home depends on how the program ends, so both are brought out.
        outputs: [&spec.outputs[..], &spec.saving.files].concat(),
        output_bytes: spec.limits.output.0,
        memory_bytes: spec.limits.memory.0,
        disk_bytes: spec.limits.disk.0,
        processes: spec.limits.processes,
        inputs: spec.inputs.len() as u64,
        machine: machine.clone(),
        base: String::new(),
        guest_mib: guest_bytes(&spec.limits) >> 20,
        silence_seconds: u32::try_from(silence.as_secs()).unwrap_or(u32::MAX),
        waits: false,
    }
}

/// Memory of the whole guest.
fn guest_bytes(limits: &Limits) -> u64 {
    let memory = limits.memory.0;
    (memory + memory / PAGE_LIST_SHARE + GUEST_OWN_BYTES).next_multiple_of(1 << 20)
}

/// What its machine needs of a cage.
pub(crate) const fn needs(accelerator: Accelerator) -> GuestNeeds {
    match accelerator {
        Accelerator::Kvm => GuestNeeds::Device,
        Accelerator::Uml => GuestNeeds::Tracing,
        Accelerator::Tcg => GuestNeeds::Nothing,
    }
}

/// The attempt that holds the guest. `text` is the content of `guest_file`, the guest's task.
pub(crate) fn cage(
    spec: &AttemptSpec,
    accelerator: Accelerator,
    guest_file: &Path,
    text: &[u8],
) -> AttemptSpec {
    let on_disk = |input: &InputFile| InputFile {
        name: format!("{DISK_DIR}/{WORK}/{}", input.name),
        ..input.clone()
    };
    let saved = spec.saving.restore.as_ref();
    // A saved guest has its disk, and its inputs on it.
    let inputs = saved.is_none().then_some(&spec.inputs);
    let mut inputs: Vec<InputFile> = inputs.into_iter().flatten().map(on_disk).collect();
    let saved = saved.and_then(|restore| restore.files.first());
    inputs.extend(saved.map(|file| InputFile {
        name: RESTORE_FILE.to_owned(),
        ..file.clone()
    }));
    inputs.push(InputFile {
        name: format!("{DISK_DIR}/{TASK_FILE}"),
        source: guest_file.to_owned(),
        digest: Digest(*blake3::hash(text).as_bytes()),
        mode: 0o644,
    });
    let guest = guest_bytes(&spec.limits);
    let (disk, output) = (spec.limits.disk.0, spec.limits.output.0);
    // One saved guest, and the next in the making.
    let saves = match Moves::of(spec) {
        Moves::Never => 0,
        Moves::Perhaps => (disk + output + guest).saturating_mul(2),
    };
    let (boot, boot_cpu) = match accelerator {
        Accelerator::Tcg => BOOT_TRANSLATED_MS,
        Accelerator::Kvm | Accelerator::Uml => BOOT_MS,
    };
    let longer = |span: Span, by: u64| Span {
        ms: span.ms.saturating_add(by),
    };
    AttemptSpec {
        attempt: spec.attempt,
        bundle: spec.bundle,
        command: [&format!("{GUEST_DIR}/gleaner-guest"), "run"]
            .map(str::to_owned)
            .to_vec(),
        deterministic: false,
        env: BTreeMap::new(),
        stdin: None,
        image: spec.image.clone(),
        inputs,
        outputs: Vec::new(),
        limits: Limits {
            memory: Bytes(guest + guest / PAGE_TABLE_SHARE + HOST_OWN_BYTES),
            // Inputs twice for a moment; the guest's memory is a file too.
            disk: Bytes(
                disk.saturating_mul(2) + disk / 8 + output + guest + HOST_DISK_BYTES + saves,
            ),
            processes: spec.limits.processes.saturating_add(HOST_PROCESSES),
            time: longer(spec.limits.time, boot),
            cpu_time: spec.limits.cpu_time.map(|span| longer(span, boot_cpu)),
            ..spec.limits.clone()
        },
        saving: Saving::default(),
    }
}

/// A guest that was booted ahead may have been frozen until its task began: that is no pause of
/// the task, and part of what is taken for its boot.
pub(crate) fn without_waiting(cage: &Ending, frozen_ms: u64) -> Ending {
    let frozen = seconds(frozen_ms);
    let mut ending = cage.clone();
    ending.paused_seconds = (ending.paused_seconds - frozen).max(0.0);
    for record in &mut ending.limits {
        // Its clock stood still meanwhile.
        if record.limit == LimitKind::Time {
            record.peak += frozen;
        }
    }
    ending
}

/// What is known from within the guest.
#[derive(Debug)]
pub(crate) enum Said {
    /// Its last word.
    Last(Record),
    /// What it had said by then of one that was saved, stopped or ended by a limit: what it used, not
    /// how it ended.
    Noted(Record),
}

/// The task's ending.
pub(crate) fn ending(
    spec: &AttemptSpec,
    machine: Option<Accelerator>,
    cage: &Ending,
    said: Option<&Said>,
) -> Ending {
    let (record, said) = match said {
        Some(Said::Last(record)) => (Some(record), bounded(record, cage.ended)),
        Some(Said::Noted(record)) => (None, bounded(record, cage.ended)),
        None => (None, Record::default()),
    };
    let said = &said;
    let boot_s = seconds(said.boot_ms);
    let wall_seconds = (cage.wall_seconds - boot_s).max(cage.paused_seconds);
    let reason = reason(spec, &cage.reason, record);
    let mut degraded: Vec<String> = cage
        .degraded
        .iter()
        .filter(|text| !text.starts_with(WATCHED_DISK))
        .cloned()
        .collect();
    degraded.extend(said.degraded.iter().cloned());
    if machine == Some(Accelerator::Uml) && spec.saving.every.is_some() {
        degraded.push(NOT_WHILE_IT_RUNS.to_owned());
    }
    let records = cage.limits.iter();
    Ending {
        started: cage.started.map(|at| Time {
            ms: at.ms.saturating_add(said.boot_ms).min(cage.ended.ms),
        }),
        ended: cage.ended,
        wall_seconds,
        paused_seconds: cage.paused_seconds,
        usage: Usage {
            cpu_seconds: cage.usage.cpu_seconds,
            memory_peak: said.memory_peak,
            read_bytes: said.read_bytes,
            written_bytes: said.written_bytes,
            processes_peak: said.processes_peak,
            page_faults: said.page_faults,
            // The guest's kernel and its processes, as the host sees them: what a call or a
            // fault in the guest costs is in here.
            system_seconds: cage.usage.system_seconds,
            minor_faults: cage.usage.minor_faults,
            waits: cage.usage.waits,
        },
        limits: records.map(|one| limit(spec, one, said, &reason)).collect(),
        refused_calls: refused_calls(cage, machine),
        degraded,
        reason,
    }
}

/// The figures of a record, as far as they can be.
fn bounded(record: &Record, ended: Time) -> Record {
    let figure = |said: u64| said.min(SAID_MAX);
    let at = |said: Option<u64>| said.map(|ms| ms.min(ended.ms));
    Record {
        end: record.end.clone(),
        boot_ms: figure(record.boot_ms),
        memory_peak: figure(record.memory_peak),
        processes_peak: record.processes_peak,
        disk_peak: figure(record.disk_peak),
        outputs_bytes: figure(record.outputs_bytes),
        read_bytes: figure(record.read_bytes),
        written_bytes: figure(record.written_bytes),
        page_faults: figure(record.page_faults),
        processes_at: at(record.processes_at),
        disk_at: at(record.disk_at),
        memory_at: at(record.memory_at),
        output_at: at(record.output_at),
        degraded: record
            .degraded
            .iter()
            .take(16)
            .map(|said| words(said))
            .collect(),
    }
}

/// A text of a record, on one line.
fn words(said: &str) -> String {
    let plain = said.chars().filter(|c| !c.is_control());
    plain.take(WORDS_MAX).collect()
}

/// Without those of every start.
fn refused_calls(cage: &Ending, machine: Option<Accelerator>) -> BTreeMap<String, u64> {
    let mut calls = cage.refused_calls.clone();
    if matches!(machine, Some(Accelerator::Kvm | Accelerator::Tcg)) {
        calls.retain(|name, _| !TRIED_BY_QEMU.contains(&name.as_str()));
    }
    calls
}

/// Whether an ending says what the guest did, and not what was done to it.
pub(crate) const fn is_the_guests(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::Exit { .. }
            | Reason::Signal { .. }
            | Reason::NoProgram { .. }
            | Reason::Limit { .. }
            | Reason::Engine { .. }
    )
}

/// What was done to the cage comes first; what the program did, the guest knows. One that was told to
/// end may have used its time to save itself, which the cage cannot see.
fn reason(spec: &AttemptSpec, cage: &Reason, record: Option<&Record>) -> Reason {
    let engine = |detail: &str| Reason::Engine {
        detail: detail.to_owned(),
    };
    let itself = record.is_some_and(|record| record.end == End::Exit(CHECKPOINT_EXIT_CODE));
    if itself && *cage == Reason::Cancelled && !spec.saving.files.is_empty() {
        return Reason::Exit {
            code: CHECKPOINT_EXIT_CODE,
        };
    }
    let lost = "the guest's host end ended without a word; see the agent's log";
    if matches!(cage, Reason::Signal { .. } | Reason::NoProgram { .. }) {
        return engine(lost);
    }
    let Reason::Exit { code } = cage else {
        return cage.clone();
    };
    if record.is_none() && *code == i32::from(NO_ROOM) {
        return engine("the disk of this PC is full: there was no room to say how the guest ended");
    }
    match record.map(|record| &record.end) {
        Some(End::Exit(code)) => Reason::Exit { code: *code },
        Some(End::Signal(signal)) => Reason::Signal { signal: *signal },
        Some(End::Memory) => Reason::Limit {
            limit: LimitKind::Memory,
        },
        Some(End::Output) => Reason::Limit {
            limit: LimitKind::Output,
        },
        Some(End::NoProgram(program)) => Reason::NoProgram {
            program: words(program),
        },
        Some(End::Failed(detail)) => engine(&words(detail)),
        Some(End::Unrestored(detail)) => Reason::Unrestored {
            detail: words(detail),
        },
        Some(End::Unknown) | None => engine(lost),
    }
}

/// One limit's record: the task's value instead of the cage's, and what the guest saw of it.
fn limit(spec: &AttemptSpec, cage: &LimitRecord, said: &Record, reason: &Reason) -> LimitRecord {
    let limits = &spec.limits;
    let mut record = cage.clone();
    let ended = *reason
        == Reason::Limit {
            limit: record.limit,
        };
    let mut seen = |value: f64, peak: f64, at: Option<u64>, action: &str| {
        record.value = value;
        record.peak = peak;
        record.at = at
            .map(|ms| Time { ms })
            .or_else(|| record.at.filter(|_| ended));
        let done = if ended { "ended" } else { action };
        let done = if record.at.is_some() { done } else { "none" };
        done.clone_into(&mut record.action);
    };
    match cage.limit {
        LimitKind::Memory => {
            let peak =
                count(said.memory_peak).max(if ended { count(limits.memory.0) } else { 0.0 });
            seen(count(limits.memory.0), peak, said.memory_at, "none");
        }
        LimitKind::Disk => {
            let (value, peak) = (count(limits.disk.0), count(said.disk_peak));
            seen(value, peak, said.disk_at, "enospc");
        }
        LimitKind::Processes => {
            let (value, peak) = (limits.processes.into(), said.processes_peak.into());
            seen(value, peak, said.processes_at, "fork failed");
        }
        LimitKind::Output => {
            let peak = cage.peak.max(count(said.outputs_bytes));
            seen(count(limits.output.0), peak, said.output_at, "none");
        }
        LimitKind::Time => {
            record.value = seconds(limits.time.ms);
            record.peak = (record.peak - seconds(said.boot_ms)).max(0.0);
        }
        LimitKind::CpuTime => {
            record.value = limits
                .cpu_time
                .map_or(record.value, |span| seconds(span.ms));
        }
        LimitKind::Cpus
        | LimitKind::DiskIo
        | LimitKind::PageFaults
        | LimitKind::Network
        | LimitKind::NetIo => {}
    }
    record
}

#[expect(
    clippy::cast_precision_loss,
    reason = "records are floating point; 2^53 bytes are enough"
)]
const fn count(number: u64) -> f64 {
    number as f64
}

fn seconds(ms: u64) -> f64 {
    count(ms) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use gleaner_model::{JobId, LeaseId, TaskId};

    fn spec(saves: &[&str]) -> AttemptSpec {
        let attempt = TaskId::new(JobId(1), 0).attempt(1);
        let mut spec = AttemptSpec::bare(attempt, LeaseId(1), vec!["true".to_owned()]);
        spec.saving.files = saves.iter().map(|&name| name.to_owned()).collect();
        spec
    }

    fn ended(saves: &[&str], cage: Reason, record: Record) -> Ending {
        let cage = Ending::bare(cage, Time { ms: 5000 });
        ending(&spec(saves), None, &cage, Some(&Said::Last(record)))
    }

    fn of(end: End) -> Record {
        Record {
            end,
            ..Record::default()
        }
    }

    #[test]
    fn who_was_told_to_end_may_have_saved_itself() {
        let saved = Reason::Exit {
            code: CHECKPOINT_EXIT_CODE,
        };
        let limit = Reason::Limit {
            limit: LimitKind::Time,
        };
        for (saves, cage, code, reason) in [
            (&["state"][..], Reason::Cancelled, 85, saved),
            (&["state"], Reason::Cancelled, 0, Reason::Cancelled),
            (&[], Reason::Cancelled, 85, Reason::Cancelled),
            (&["state"], limit.clone(), 85, limit),
        ] {
            let told = ended(saves, cage, of(End::Exit(code)));
            assert_eq!(told.reason, reason, "{saves:?} {code}");
        }
    }

    #[test]
    fn who_asks_for_saves_that_there_cannot_be_is_told() {
        let mut spec = spec(&["state"]);
        let cage = Ending::bare(Reason::Exit { code: 0 }, Time { ms: 5000 });
        let told = |spec: &AttemptSpec, machine| ending(spec, Some(machine), &cage, None).degraded;
        assert!(told(&spec, Accelerator::Uml).is_empty());
        spec.saving.every = Some(Span::seconds(60));
        assert!(told(&spec, Accelerator::Tcg).is_empty());
        assert_eq!(told(&spec, Accelerator::Uml), [NOT_WHILE_IT_RUNS]);
    }

    #[test]
    fn whatever_a_guest_says_stays_a_figure_and_a_sentence() {
        let loud = "\u{1b}[2J".repeat(10_000);
        let all = Record {
            end: End::Failed(loud.clone()),
            boot_ms: u64::MAX,
            memory_peak: u64::MAX,
            processes_peak: u32::MAX,
            disk_peak: u64::MAX,
            outputs_bytes: u64::MAX,
            read_bytes: u64::MAX,
            written_bytes: u64::MAX,
            page_faults: u64::MAX,
            processes_at: Some(u64::MAX),
            disk_at: Some(u64::MAX),
            memory_at: Some(u64::MAX),
            output_at: Some(u64::MAX),
            degraded: vec![loud; 20],
        };
        let mut cage = Ending::bare(Reason::Exit { code: 0 }, Time { ms: 5000 });
        cage.started = Some(Time { ms: 1000 });
        cage.limits = [LimitKind::Memory, LimitKind::Disk, LimitKind::Processes]
            .map(|limit| LimitRecord {
                limit,
                value: 1.0,
                peak: 0.0,
                at: None,
                action: "none".to_owned(),
            })
            .to_vec();
        let told = ending(&spec(&[]), None, &cage, Some(&Said::Last(all)));
        let used = &told.usage;
        let figures = [used.memory_peak, used.read_bytes, used.written_bytes];
        assert!(
            figures
                .into_iter()
                .chain([used.page_faults])
                .all(|one| one <= SAID_MAX)
        );
        assert!(
            told.limits.iter().all(|one| one.at == Some(cage.ended)),
            "{told:?}"
        );
        assert_eq!(told.started, Some(cage.ended));
        assert_eq!(told.degraded.len(), 16);
        let texts = told.degraded.into_iter().chain([told.reason.to_string()]);
        for text in texts {
            assert!(text.len() < 2000 && !text.contains('\u{1b}'), "{text}");
        }
    }
}
