//! The tasks: programs that never end, each bound by something else, which count what they do.
//!
//! A task tells its progress, its CPU time and the time by overwriting one record at the start of
//! its standard output, so that the benchmark reads all three without a word to the sandbox. The
//! same program runs in our sandbox and as the peers' daemons would run it.

use super::plan::{Chance, Kind};
use super::proc;
use crate::{BenchError, Doing as _};
use gleaner_engine_process::priority::{Means, lower_self};
use rustix::thread::ClockId;
use std::ffi::OsString;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::process::ExitCode;

/// The hidden first argument that makes the `gleaner` program a task.
const CALL: &str = "__task";
/// What the program is called when it is one: traces show it.
pub(crate) const NAME: &str = "gleaner-task";
/// Time between two records, in nanoseconds of CPU time.
const RECORD_NS: u64 = 1_000_000;
/// Bytes of a record: three numbers and their sum.
const RECORD: usize = 32;
/// Arithmetic of one unit of progress: about a fifth of a millisecond.
const CPU_STEPS: u32 = 200_000;
/// What a cache-bound task has in the last cache level, and what it streams.
const HOT_BYTES: usize = 4 << 20;
const STREAM_BYTES: usize = 64 << 20;
/// What a memory-touching task touches: NDDE's figure.
pub(crate) const TOUCHED_BYTES: usize = 100 << 20;
const PAGE_BYTES: usize = 4096;
/// What a disk-bound task overwrites, and how much of it at a time.
const FILE_BYTES: u64 = 64 << 20;
const WRITE_BYTES: usize = 1 << 20;

/// How a task lowers itself: as a peer's daemon does. In our sandbox the engine did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lowered {
    /// Not at all.
    No,
    /// Nice 19.
    Nice19,
    /// SCHED_IDLE.
    SchedIdle,
}

impl Lowered {
    const fn word(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Nice19 => "nice19",
            Self::SchedIdle => "sched-idle",
        }
    }
}

/// Whether the program was started to be a task.
#[must_use]
pub fn is_task_call(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|word| word == CALL)
}

/// The arguments that make it one.
pub(crate) fn task_args(kind: Kind, lowered: Lowered) -> [String; 3] {
    [CALL, kind.word(), lowered.word()].map(str::to_owned)
}

/// The life of a task.
#[must_use]
pub fn task_main(args: &[OsString]) -> ExitCode {
    let word = |at: usize| args.get(at).and_then(|word| word.to_str());
    let kind = word(2).and_then(|word| word.parse::<Kind>().ok());
    let lowered = [Lowered::No, Lowered::Nice19, Lowered::SchedIdle]
        .into_iter()
        .find(|lowered| word(3) == Some(lowered.word()));
    let (Some(kind), Some(lowered)) = (kind, lowered) else {
        return ExitCode::from(2);
    };
    match lower(lowered).and_then(|()| toil(kind)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A daemon is in a session of its own.
fn lower(lowered: Lowered) -> Result<(), BenchError> {
    if lowered == Lowered::No {
        return Ok(());
    }
    proc::die_with_parent()?;
    rustix::process::setsid().doing("start a session")?;
    match lowered {
        Lowered::Nice19 => rustix::process::nice(19).map(|_| ()).doing("take nice 19"),
        Lowered::SchedIdle => lower_self(Means::Process).doing("take SCHED_IDLE"),
        Lowered::No => Ok(()),
    }
}

/// Works for ever.
fn toil(kind: Kind) -> Result<(), BenchError> {
    let mut work = Work::new(kind)?;
    let (mut progress, mut told_ns) = (0_u64, 0_u64);
    loop {
        work.unit()?;
        progress += 1;
        let cpu_ns = proc::nanos(rustix::time::clock_gettime(ClockId::ProcessCPUTime));
        if cpu_ns >= told_ns + RECORD_NS || kind == Kind::Disk {
            told_ns = cpu_ns;
            let record = Record {
                progress,
                cpu_ns,
                at_ns: proc::now_ns(),
            };
            rustix::io::pwrite(std::io::stdout(), &record.bytes(), 0).doing("tell progress")?;
        }
    }
}

/// What a task works with.
enum Work {
    Cpu(u64),
    Cache {
        hot: Vec<u64>,
        stream: Vec<u64>,
        at: usize,
        chance: Chance,
    },
    Memory {
        pages: Vec<u8>,
        at: usize,
    },
    Disk {
        file: File,
        text: Vec<u8>,
        at: u64,
    },
}

impl Work {
    fn new(kind: Kind) -> Result<Self, BenchError> {
        Ok(match kind {
            Kind::Cpu => Self::Cpu(1),
            Kind::Cache => Self::Cache {
                hot: vec![1; HOT_BYTES / 8],
                stream: vec![1; STREAM_BYTES / 8],
                at: 0,
                chance: Chance::new(9),
            },
            Kind::Memory => Self::Memory {
                pages: vec![1; TOUCHED_BYTES],
                at: 0,
            },
            Kind::Disk => Self::Disk {
                file: tempfile::tempfile_in(".").doing("make a file to write")?,
                text: vec![b'x'; WRITE_BYTES],
                at: 0,
            },
        })
    }

    /// One unit of progress.
    fn unit(&mut self) -> Result<(), BenchError> {
        match self {
            Self::Cpu(x) => {
                for _ in 0..CPU_STEPS {
                    *x = black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                }
            }
            Self::Cache {
                hot,
                stream,
                at,
                chance,
            } => {
                for _ in 0..4096 {
                    let word = chance.index(hot.len());
                    hot[word] = hot[word].wrapping_add(1);
                }
                for word in &mut stream[*at..*at + (256 << 10) / 8] {
                    *word = word.wrapping_mul(3);
                }
                *at = (*at + (256 << 10) / 8) % (STREAM_BYTES / 8);
            }
            Self::Memory { pages, at } => {
                for _ in 0..2560 {
                    pages[*at] = pages[*at].wrapping_add(1);
                    *at = (*at + PAGE_BYTES) % TOUCHED_BYTES;
                }
            }
            Self::Disk { file, text, at } => {
                file.write_all_at(text, *at).doing("write")?;
                file.sync_data().doing("sync")?;
                *at = (*at + WRITE_BYTES as u64) % FILE_BYTES;
            }
        }
        Ok(())
    }
}

/// What a task says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Record {
    /// Units done.
    pub(crate) progress: u64,
    /// CPU time used.
    pub(crate) cpu_ns: u64,
    /// The monotonic clock when it was written.
    pub(crate) at_ns: u64,
}

impl Record {
    fn sum(self) -> u64 {
        !(self.progress ^ self.cpu_ns.rotate_left(21) ^ self.at_ns.rotate_left(42))
    }

    fn bytes(self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        let numbers = [self.progress, self.cpu_ns, self.at_ns, self.sum()];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8; RECORD]) -> Option<Self> {
        let mut numbers = [0; 4];
        for (number, place) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
            *number = u64::from_le_bytes(place.try_into().ok()?);
        }
        let record = Self {
            progress: numbers[0],
            cpu_ns: numbers[1],
            at_ns: numbers[2],
        };
        (record.sum() == numbers[3]).then_some(record)
    }

    /// The latest record in a task's output; none before the first. The last bytes are taken, as
    /// an output that is only appended to has it there.
    pub(crate) fn read(output: &mut File) -> Option<Self> {
        // A record may be overwritten while it is read; the next look finds it whole.
        (0..100).find_map(|_| {
            let length = output.metadata().ok()?.len();
            let at = length.checked_sub(RECORD as u64)?;
            let mut bytes = [0; RECORD];
            output.seek(SeekFrom::Start(at)).ok()?;
            output.read_exact(&mut bytes).ok()?;
            Self::parse(&bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_a_torn_one_is_not() {
        let record = Record {
            progress: 3,
            cpu_ns: 1 << 40,
            at_ns: 77,
        };
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(Record::read(&mut file), None);
        file.write_all_at(&record.bytes(), 0).unwrap();
        assert_eq!(Record::read(&mut file), Some(record));
        file.write_all_at(&[9], 3).unwrap();
        assert_eq!(Record::read(&mut file), None);
    }

    #[test]
    fn every_kind_gets_on() {
        for kind in Kind::ALL {
            let mut work = Work::new(*kind).unwrap();
            for _ in 0..3 {
                work.unit().unwrap();
            }
        }
    }

    #[test]
    fn only_our_words_make_a_task() {
        let args = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(is_task_call(&args(&["gleaner", CALL, "cpu", "no"])));
        assert!(!is_task_call(&args(&["gleaner", "run", CALL])));
        assert_eq!(
            task_main(&args(&["gleaner", CALL, "cpu"])),
            ExitCode::from(2)
        );
    }
}
