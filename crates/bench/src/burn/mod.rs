//! The fixed work that `gleaner bench overhead` compares: this program once more, native and in
//! each engine. It reads the clocks itself and prints what it read, so that starting up is measured
//! apart. It must not know who compares, nor where it runs.
//!
//! Each item of work is done in a few equal slices. Both the sum of their times and the shortest
//! is printed: a clock that counts no more than this program's own time makes the sum the better
//! figure; where the clock also counts what others took, as in a guest, the shortest slice is the
//! one that nobody disturbed (as in McVoy and Staelin, "lmbench: Portable Tools for Performance
//! Analysis").
//!
//! It is also a WebAssembly program: the same files with the other `main` of
//! `crates/bench/wasm/main.rs`. There the clock is the time that passes, and there are neither
//! files nor calls.

#[cfg(not(target_os = "wasi"))]
mod calls;
mod cpu;
#[cfg(not(target_os = "wasi"))]
mod files;
mod memory;
mod reading;

pub(crate) use reading::{BY_WALL, Reading};
use reading::{Clock, timed};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::ExitCode;
use std::str::FromStr;

/// The hidden first argument that makes the `gleaner` program burn.
const CALL: &str = "__burn";

/// Most slices of an item: more take longer and tell nothing.
const SLICES_MAX: u32 = 100_000;

/// Whether the program was started to burn.
#[must_use]
pub fn is_burn_call(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|word| word == CALL)
}

/// A piece of work; as text, what the program is called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// None: what a start and an end cost.
    Nothing,
    /// Prime sieve, matrix product, integer and float arithmetic.
    Cpu {
        /// Slices of each, about 15 ms.
        slices: u32,
    },
    /// Reading, writing and changing memory, and touching it first.
    Memory {
        /// Largest size in MiB.
        largest_mib: u32,
        /// Slices of each.
        slices: u32,
    },
    /// Writing, reading, making and removing files in the current directory.
    Files {
        /// Slices of each.
        slices: u32,
    },
    /// What a program asks of the kernel.
    Calls {
        /// Slices of each.
        slices: u32,
    },
}

impl Work {
    /// The arguments that make the program do it.
    pub(crate) fn args(self) -> Vec<String> {
        let text = format!("{CALL} {self}");
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn run(self) -> io::Result<Vec<Reading>> {
        match self {
            Self::Nothing => Ok(Vec::new()),
            Self::Cpu { slices } => cpu::run(slices),
            Self::Memory {
                largest_mib,
                slices,
            } => memory::run(largest_mib, slices),
            #[cfg(not(target_os = "wasi"))]
            Self::Files { slices } => files::run(slices),
            #[cfg(not(target_os = "wasi"))]
            Self::Calls { slices } => calls::run(slices),
            #[cfg(target_os = "wasi")]
            Self::Files { .. } | Self::Calls { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "nothing"),
            Self::Cpu { slices } => write!(f, "cpu {slices}"),
            Self::Memory {
                largest_mib,
                slices,
            } => write!(f, "memory {slices} {largest_mib}"),
            Self::Files { slices } => write!(f, "files {slices}"),
            Self::Calls { slices } => write!(f, "calls {slices}"),
        }
    }
}

impl FromStr for Work {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let count = |word: &str| {
            let count: Option<u32> = word.parse().ok();
            count
                .filter(|count| (1..=SLICES_MAX).contains(count))
                .ok_or_else(|| format!("{word:?} is no count"))
        };
        match words[..] {
            ["nothing"] => Ok(Self::Nothing),
            ["cpu", slices] => Ok(Self::Cpu {
                slices: count(slices)?,
            }),
            ["memory", slices, mib] => Ok(Self::Memory {
                largest_mib: count(mib)?,
                slices: count(slices)?,
            }),
            ["files", slices] => Ok(Self::Files {
                slices: count(slices)?,
            }),
            ["calls", slices] => Ok(Self::Calls {
                slices: count(slices)?,
            }),
            _ => Err(format!("no work is called {text:?}")),
        }
    }
}

/// Burns and prints a line for each item.
#[must_use]
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "standard output is this program's result, and somebody must hear why there is none"
)]
pub fn burn_main(args: &[OsString]) -> ExitCode {
    let words: Vec<&str> = args.iter().skip(2).filter_map(|arg| arg.to_str()).collect();
    let work: Result<Work, String> = words.join(" ").parse();
    let done = work.and_then(|work| work.run().map_err(|error| format!("{work}: {error}")));
    match done {
        Ok(readings) => {
            for reading in readings {
                println!("{reading}");
            }
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{CALL}: {problem}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_readings_survive_as_text() {
        for work in [
            Work::Nothing,
            Work::Cpu { slices: 3 },
            Work::Memory {
                largest_mib: 16,
                slices: 2,
            },
            Work::Files { slices: 1 },
            Work::Calls { slices: 9 },
        ] {
            let words = work.args();
            assert_eq!(words[0], CALL);
            assert_eq!(words[1..].join(" ").parse(), Ok(work));
        }
        let reading = Reading {
            item: "read@4096".to_owned(),
            total_s: 0.25,
            best_s: 0.125,
            slices: 2,
            amount: 1e6,
            sum: u64::MAX,
        };
        assert_eq!(reading.to_string().parse(), Ok(reading));
    }

    #[test]
    fn what_is_no_work_or_no_reading_is_refused() {
        for text in [
            "",
            "cpu",
            "cpu 0",
            "cpu x",
            "memory 1",
            "nothing 1",
            "sing 3",
        ] {
            assert!(text.parse::<Work>().is_err(), "{text}");
        }
        for text in [
            "",
            "x 1 1 1",
            "x 1 1 1 1",
            "x nan 1 1 1 0",
            "x 0 1 1 1 0",
            "x 1 1 -1 1 0",
            "x 1 1 1 inf 0",
            "x 1 1 1 1 g",
        ] {
            assert!(text.parse::<Reading>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_work_reads_something_of_each_item() {
        let dir = tempfile::tempdir().unwrap();
        let names = |readings: Vec<Reading>| -> Vec<String> {
            for reading in &readings {
                assert!(reading.best_s <= reading.total_s + 1e-12, "{reading}");
                assert!(reading.amount > 0.0, "{reading}");
                let parsed: Reading = reading.to_string().parse().unwrap();
                assert_eq!(parsed.item, reading.item);
            }
            readings.into_iter().map(|reading| reading.item).collect()
        };
        assert_eq!(
            names(cpu::run(1).unwrap()),
            ["sieve", "dgemm", "integer", "float"]
        );
        let memory = names(memory::run(1, 1).unwrap());
        assert_eq!(memory.len(), memory::sizes(1).len() * 3 + 1, "{memory:?}");
        assert!(memory.contains(&"change@65536".to_owned()));
        assert_eq!(
            names(files::run_in(dir.path(), 1).unwrap()),
            ["write", "read", "small"]
        );
        assert_eq!(
            names(calls::run_in(dir.path(), 1).unwrap()),
            ["getppid", "clock", "open", "fault", "fork", "spawn"]
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
