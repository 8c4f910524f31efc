//! What is measured, how often, and what its figures are called. Values only.

use super::Kind;
use crate::Goal;
use crate::burn::Work;
use serde::Serialize;
use std::str::FromStr;

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Prime sieve, matrix product, arithmetic in the first cache.
    Cpu,
    /// The matrix product of the BLAS that this PC's numpy uses.
    Blas,
    /// Reading, writing and changing memory by size, and touching it first.
    Memory,
    /// Files: written and synced, read back, made and removed.
    Files,
    /// System calls, page faults, forks.
    Calls,
    /// From the start of an engine to the end of a program that does nothing.
    Start,
    /// Bytes that gleaner itself reads and writes for a task.
    Io,
}

impl Group {
    /// All, in the order of the report.
    pub const ALL: [Self; 7] = [
        Self::Cpu,
        Self::Blas,
        Self::Memory,
        Self::Files,
        Self::Calls,
        Self::Start,
        Self::Io,
    ];

    /// As it is written on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Blas => "blas",
            Self::Memory => "memory",
            Self::Files => "files",
            Self::Calls => "calls",
            Self::Start => "start",
            Self::Io => "io",
        }
    }

    /// The heading of its table.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Cpu => "Processor",
            Self::Blas => "dgemm through a BLAS",
            Self::Memory => "Memory",
            Self::Files => "Files",
            Self::Calls => "The kernel's services",
            Self::Start => "Start",
            Self::Io => "Bytes of gleaner's own for a task",
        }
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|group| group.word() == text);
        known.ok_or_else(|| {
            let words: Vec<&str> = Self::ALL.iter().map(|group| group.word()).collect();
            format!("write one of {}", words.join(", "))
        })
    }
}

/// How thorough it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// A first look in about a minute.
    Quick,
    /// All of it, in up to ten minutes.
    Full,
}

/// What is run in the rounds of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// This program, burning.
    Burn(Work),
    /// A Python script with numpy.
    Numpy,
}

/// The rounds of a group. Engines take turns with native in every round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plan {
    pub(crate) program: Program,
    /// Rounds at least.
    pub(crate) least: u32,
    /// Rounds at most; between the two it goes on until the interval is narrow enough.
    pub(crate) most: u32,
    /// Rounds in which guests take part: each boots one.
    pub(crate) guests: u32,
    /// Seconds that a run takes native on a usual PC, and in a guest with its boot.
    pub(crate) native_s: f64,
    pub(crate) guest_s: f64,
    /// The same work in less time, and its seconds, for the rounds without guests: the closer the
    /// two of a pair are in time, the less of a PC's moods comes between them.
    pub(crate) brief: Option<(Program, f64)>,
    /// Memory of an attempt in MiB.
    pub(crate) memory_mib: u32,
}

impl Plan {
    /// What is run in a round, and the seconds that it takes native.
    pub(crate) fn at(&self, round: u32) -> (Program, f64) {
        let whole = (self.program, self.native_s);
        match self.brief {
            Some(brief) if round >= self.guests => brief,
            _ => whole,
        }
    }

    /// Seconds of the rounds from `first` on for one side that is no guest.
    pub(crate) fn rest_s(&self, first: u32) -> f64 {
        let rounds = first..self.most;
        rounds.map(|round| self.at(round).1).sum()
    }
}

/// The interval of a headline is narrow enough when its ends are so far apart, as a share. The
/// rule looks at the width alone: one that also looked where the interval lies would stop when
/// chance is kind.
pub(crate) const NARROW: f64 = 0.008;

/// A part is over when it took so many times as long as it takes on a usual PC, whatever rounds
/// are left: a guest on a slow or busy PC is no reason to wait for hours.
pub(crate) const PATIENCE: f64 = 2.0;

/// Starts of an empty program, and in guests; tasks over which bytes are counted, and in guests.
pub(crate) const fn starts(length: Length) -> [u32; 4] {
    match length {
        Length::Quick => [10, 2, 5, 1],
        Length::Full => [200, 8, 50, 3],
    }
}

/// The rounds of a group, where it has some.
pub(crate) fn plan(group: Group, length: Length, largest_mib: u32) -> Option<Plan> {
    let quick = length == Length::Quick;
    let few = if quick { 2 } else { 3 };
    let of = |program, [least, most, guests]: [u32; 3], [native_s, guest_s]: [f64; 2]| Plan {
        program,
        least,
        most,
        guests,
        native_s,
        guest_s,
        brief: None,
        memory_mib: 256,
    };
    let rounds = |full: [u32; 3]| if quick { [2, 2, 1] } else { full };
    Some(match group {
        Group::Cpu => {
            let rounds = if quick { [4, 6, 2] } else { [40, 300, 8] };
            let burn = |slices| Program::Burn(Work::Cpu { slices });
            let whole = of(burn(if quick { 3 } else { 10 }), rounds, [0.7, 3.0]);
            Plan {
                brief: (!quick).then(|| (burn(2), 0.16)),
                ..whole
            }
        }
        Group::Blas => of(Program::Numpy, rounds([6, 6, 6]), [0.6, 4.0]),
        Group::Memory => {
            let (seconds, slices) = if quick {
                ([0.7, 4.0], 4)
            } else {
                ([1.2, 8.0], 12)
            };
            let program = Program::Burn(Work::Memory {
                largest_mib,
                slices,
            });
            let most = if quick { [2, 4, 1] } else { [12, 60, 6] };
            Plan {
                memory_mib: largest_mib + largest_mib / 4 + 128,
                ..of(program, most, seconds)
            }
        }
        Group::Files => {
            let work = Work::Files { slices: few };
            of(Program::Burn(work), rounds([6, 6, 6]), [0.4, 4.0])
        }
        Group::Calls => {
            let work = Work::Calls { slices: few };
            of(Program::Burn(work), rounds([8, 8, 5]), [0.3, 6.0])
        }
        Group::Start | Group::Io => return None,
    })
}

/// Which statistic of the slices is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// CPU time of the program.
    Cpu,
    /// CPU time of the fastest slice: how fast memory is depends on what everybody else does with
    /// it, and who is fast once was not in the way (McCalpin, "STREAM", counts so too).
    Fastest,
    /// The time that passes: what others do meanwhile is in it.
    Wall,
}

/// What an item of work is called and how it is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    pub(crate) words: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) by: By,
    scale: Scale,
}

#[derive(Debug, Clone, Copy)]
enum Scale {
    /// So many of the amount a second, divided by this.
    Rate(f64),
    /// Seconds for one of the amount, times this.
    Each(f64),
}

impl Item {
    /// The figure for so much in so many seconds.
    pub(crate) fn figure(&self, amount: f64, seconds: f64) -> f64 {
        match self.scale {
            Scale::Rate(by) => amount / seconds / by,
            Scale::Each(by) => seconds / amount * by,
        }
    }
}

/// The item that the work calls so, without the size behind its `@`.
pub(crate) fn item(group: Group, name: &str) -> Option<Item> {
    let of = |words, unit, by, scale| Item {
        words,
        unit,
        by,
        scale,
    };
    let (rate, each) = (Scale::Rate, Scale::Each);
    Some(match (group, name) {
        (Group::Cpu, "sieve") => of("prime sieve of 200,000", "µs", By::Cpu, each(1e6)),
        (Group::Cpu, "dgemm") => of("dgemm, own loop, n = 256", "GFlop/s", By::Cpu, rate(1e9)),
        (Group::Cpu, "integer") => of("integer steps, 16 KiB", "ns", By::Cpu, each(1e9)),
        (Group::Cpu, "float") => of("float steps, 16 KiB", "ns", By::Cpu, each(1e9)),
        (Group::Blas, "blas") => of("dgemm of numpy, n = 1000", "GFlop/s", By::Cpu, rate(1e9)),
        (Group::Memory, "read") => of("read", "GB/s", By::Fastest, rate(1e9)),
        (Group::Memory, "write") => of("write", "GB/s", By::Fastest, rate(1e9)),
        (Group::Memory, "change") => of("read-modify-write", "GB/s", By::Fastest, rate(1e9)),
        (Group::Memory, "touch") => of("first touch of a page", "µs", By::Cpu, each(1e6)),
        (Group::Files, "write") => of("write 16 MiB and sync", "MB/s", By::Wall, rate(1e6)),
        (Group::Files, "read") => of("read it back", "MB/s", By::Wall, rate(1e6)),
        (Group::Files, "small") => of("make and remove a file", "µs", By::Wall, each(1e6)),
        (Group::Calls, "getppid") => of("getppid", "µs", By::Cpu, each(1e6)),
        (Group::Calls, "clock") => of("clock_gettime", "µs", By::Cpu, each(1e6)),
        (Group::Calls, "open") => of("open and close", "µs", By::Cpu, each(1e6)),
        (Group::Calls, "fault") => of("page fault", "µs", By::Cpu, each(1e6)),
        (Group::Calls, "fork") => of("fork and exit", "µs", By::Wall, each(1e6)),
        (Group::Calls, "spawn") => of("start of a program", "µs", By::Wall, each(1e6)),
        _ => return None,
    })
}

/// What gleaner promises of an engine's headline: at most so much more, in percent.
pub(crate) const fn goal(kind: Kind) -> Option<Goal> {
    match kind {
        Kind::Process => Some(Goal::AtMost(1.0)),
        Kind::Kvm => Some(Goal::AtMost(2.0)),
        Kind::UserModeLinux => Some(Goal::AtMost(5.0)),
        Kind::Wasm => Some(Goal::AtMost(15.0)),
        Kind::Tcg => None,
    }
}

/// Items of the processor that the promise is about. In a guest whose kernel is a program, what
/// asks for new memory is dear and is shown without a promise.
pub(crate) const fn promised(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::UserModeLinux | Kind::Tcg => &["integer", "float"],
        Kind::Process | Kind::Kvm | Kind::Wasm => &["sieve", "dgemm", "integer", "float"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_as_they_are_written() {
        for group in Group::ALL {
            assert_eq!(group.word().parse(), Ok(group));
            assert!(!group.title().is_empty());
        }
        assert!("disk".parse::<Group>().unwrap_err().contains("memory"));
    }

    #[test]
    fn rounds_without_guests_are_brief() {
        let plan = plan(Group::Cpu, Length::Full, 256).unwrap();
        assert_eq!(plan.at(plan.guests - 1), (plan.program, plan.native_s));
        let (program, seconds) = plan.at(plan.guests);
        assert!(program != plan.program && seconds < plan.native_s / 2.0);
        let last = plan.rest_s(plan.most - 1);
        assert!((last - seconds).abs() < 1e-9 && plan.rest_s(plan.most) == 0.0);
    }

    #[test]
    fn figures_have_their_units() {
        let sieve = item(Group::Cpu, "sieve").unwrap();
        assert!((sieve.figure(30.0, 0.015) - 500.0).abs() < 1e-9);
        let read = item(Group::Memory, "read").unwrap();
        assert!((read.figure(1e9, 0.1) - 10.0).abs() < 1e-9);
        assert!(item(Group::Files, "getppid").is_none());
    }

    #[test]
    fn a_default_run_takes_ten_minutes_at_most_and_a_quick_one_one() {
        for (length, bound_s) in [(Length::Full, 600.0), (Length::Quick, 75.0)] {
            let mut all_s = 0.0;
            for group in Group::ALL {
                let Some(plan) = plan(group, length, 256) else {
                    continue;
                };
                assert!(plan.least <= plan.most && plan.guests <= plan.most);
                // Native and process, WebAssembly where it takes part, one kind of guest.
                let all = matches!(group, Group::Cpu | Group::Memory);
                let sides = if all { 3.0 } else { 2.0 };
                all_s += sides * plan.rest_s(0) + f64::from(plan.guests) * plan.guest_s;
            }
            assert!(all_s < bound_s, "{length:?}: {all_s} s");
        }
    }
}
