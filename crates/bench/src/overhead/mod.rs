//! `gleaner bench overhead`: what engines cost a program, against the same program native.
//!
//! It repeats Figures 2 to 6 of NDDE (Novaes, Roisenberg, Scheer, Northfleet, Jornada and Cirne,
//! "Non-Dedicated Distributed Environment: A Solution for Safe and Continuous Exploitation of Idle
//! Cycles"): processor, memory by size, files; and adds what a guest's kernel is asked for, starts,
//! and the bytes that gleaner itself moves. In every round each engine does the same fixed work as
//! native, in alternating order, and is compared with native of that round.
//!
//! The work reads its own clock of CPU time. Native and in a process sandbox that counts nobody
//! else's time. A guest's may be coarse (user-mode Linux counts in hundredths of a second) and does
//! not know what the host took away, so there the clock is that of the time that passes, and the
//! fastest slice of an item counts, on both sides; and the whole guest's CPU time by the host's
//! count, less that of an idle guest, stands beside it as a check of that clock. The host's count
//! alone will not do: booting costs a second, with a spread larger than what is looked for.
//! WebAssembly runs the same source compiled to a module, and knows no clock but that of the time
//! that passes; what a run computes must be what native computes.

mod markdown;
mod numpy;
mod plan;
mod rounds;
mod sides;
mod start;
mod svg;

pub use markdown::{markdown, named};
pub use plan::{Group, Length};
pub use svg::picture;

use crate::burn::Work;
use crate::proc;
use crate::progress::{Pace, Progress, Stop};
use crate::stats::Interval;
use crate::{BenchError, Doing as _, Row};
use gleaner_engine::{Engine, EngineEvent};
use plan::{NARROW, PATIENCE, Plan, Program, goal, plan, starts};
use rounds::{Estimate, Rounds, Run};
use serde::Serialize;
use sides::Inputs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

/// What to measure, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `gleaner` program: it is also the work.
    pub program: PathBuf,
    /// A directory of this run on the disk whose files are measured.
    pub dir: PathBuf,
    /// The parts to run; all where there are none.
    pub only: Vec<Group>,
    /// How thorough.
    pub length: Length,
    /// Rounds of each part, instead of as many as are usual.
    pub rounds: Option<u32>,
    /// Ends the benchmark early when it is told to.
    pub stop: Stop,
}

/// What an engine is, as far as its promises go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A sandbox of processes.
    Process,
    /// A guest whose kernel is a program.
    UserModeLinux,
    /// A guest on virtualisation hardware.
    Kvm,
    /// A guest on a translated processor.
    Tcg,
    /// A WebAssembly runtime.
    Wasm,
}

impl Kind {
    /// Whether it has a kernel, and so a clock, of its own.
    #[must_use]
    pub const fn is_guest(self) -> bool {
        matches!(self, Self::UserModeLinux | Self::Kvm | Self::Tcg)
    }

    /// Whether programs in it can be told their CPU time alone, by the host's clock.
    #[must_use]
    pub const fn counts_cpu(self) -> bool {
        matches!(self, Self::Process)
    }
}

/// An engine under the clock.
#[derive(Debug)]
pub struct Side {
    /// Its name in tables.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// Where its events arrive.
    pub events: Receiver<EngineEvent>,
    /// The engine's directory, which its shims name in their command line.
    pub home: PathBuf,
    /// Tasks so far; starts at 0.
    pub next: u32,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverheadReport {
    /// Always `overhead`.
    pub bench: &'static str,
    /// Version of the program.
    pub version: &'static str,
    /// The PC and how it was measured.
    pub setting: Setting,
    /// What each part found, item by item.
    pub tables: Vec<Table>,
    /// The promises.
    pub rows: Vec<Row>,
}

/// The PC and how it was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// CPUs.
    pub cpus: usize,
    /// Load average over the last minute, before the run.
    pub load: f64,
    /// Whether others used the PC so much that the figures say little.
    pub busy: bool,
    /// Seconds that it took.
    pub seconds: f64,
    /// The engines, in the order of every line.
    pub engines: Vec<String>,
    /// What they are.
    pub kinds: Vec<Kind>,
    /// The BLAS that numpy uses here, where there is one.
    pub blas: Option<String>,
    /// What could not be measured, and why.
    pub missing: Vec<String>,
}

/// What one part found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// Which part.
    pub group: Group,
    /// Its items.
    pub lines: Vec<Line>,
}

/// An item of work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// What was done.
    pub item: String,
    /// Over how many bytes, where there are several sizes.
    pub size: Option<u64>,
    /// Unit of the figures.
    pub unit: &'static str,
    /// Native: the median over rounds of the fastest slice.
    pub native: f64,
    /// Each engine; none where it did not run this.
    pub engines: Vec<Option<Versus>>,
}

/// An engine against native.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Versus {
    /// The engine's figure, as native's.
    pub figure: f64,
    /// How many times as long it takes: the median over pairs.
    pub ratio: f64,
    /// 95 % confidence interval of that.
    pub interval: Interval,
    /// Pairs.
    pub pairs: usize,
}

/// From this load a processor on, somebody else uses the PC.
const BUSY_LOAD: f64 = 0.25;

/// Largest region of the sweep in MiB, where there is memory for several of them.
const LARGEST_MIB: [u32; 3] = [256, 64, 16];

/// Where Debian's alternatives put the BLAS.
const BLAS: &str = "/etc/alternatives/libblas.so.3-x86_64-linux-gnu";

/// A run of the benchmark.
pub(crate) struct Bench<'b> {
    options: &'b Options,
    sides: &'b mut [Side],
    pace: Pace,
    say: &'b mut dyn FnMut(Progress),
    rows: Vec<Row>,
    tables: Vec<Table>,
    missing: Vec<String>,
}

/// Runs it all; `say` hears how far it is.
///
/// # Errors
/// Where a run does not end well, and when it was told to stop.
pub fn run(
    sides: &mut [Side],
    options: &Options,
    say: &mut dyn FnMut(Progress),
) -> Result<OverheadReport, BenchError> {
    let (started, load) = (Instant::now(), load_average());
    let cpus = proc::cpus();
    let groups = groups(options);
    let kinds: Vec<Kind> = sides.iter().map(|side| side.kind).collect();
    let engines = sides.iter().map(|side| side.name.clone()).collect();
    let mut bench = Bench {
        pace: Pace::new(expected_s(&groups, &kinds, options)),
        options,
        sides,
        say,
        rows: Vec::new(),
        tables: Vec::new(),
        missing: Vec::new(),
    };
    for group in &groups {
        bench.group(*group)?;
    }
    let has_blas = bench.tables.iter().any(|table| table.group == Group::Blas);
    #[expect(clippy::cast_precision_loss, reason = "a number of CPUs")]
    let a_cpu = load / cpus as f64;
    Ok(OverheadReport {
        bench: "overhead",
        version: env!("CARGO_PKG_VERSION"),
        setting: Setting {
            cpus,
            load,
            busy: a_cpu > BUSY_LOAD,
            seconds: started.elapsed().as_secs_f64(),
            engines,
            kinds,
            blas: has_blas.then(blas).flatten(),
            missing: bench.missing,
        },
        tables: bench.tables,
        rows: bench.rows,
    })
}

fn groups(options: &Options) -> Vec<Group> {
    let wanted = |group: &Group| options.only.is_empty() || options.only.contains(group);
    Group::ALL.into_iter().filter(wanted).collect()
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// The package of the BLAS, told by the file that Debian's alternatives choose.
fn blas() -> Option<String> {
    let file = std::fs::read_link(BLAS).ok()?;
    let names = file.iter().filter_map(|part| part.to_str());
    let known = ["openblas", "atlas", "blis", "mkl"];
    let name = names
        .map(str::to_owned)
        .find(|part| known.iter().any(|name| part.contains(name)));
    Some(name.unwrap_or_else(|| "reference BLAS".to_owned()))
}

fn largest_mib(length: Length) -> u32 {
    let room_mib = proc::available_bytes() >> 20;
    let usual = if length == Length::Quick { 16 } else { 256 };
    let fits = |mib: &u32| *mib <= usual && u64::from(*mib) * 4 + 256 <= room_mib;
    LARGEST_MIB.into_iter().find(fits).unwrap_or(1)
}

fn plan_of(group: Group, options: &Options) -> Option<Plan> {
    let plan = plan(group, options.length, largest_mib(options.length))?;
    Some(match options.rounds {
        Some(rounds) => Plan {
            least: rounds,
            most: rounds,
            guests: rounds,
            ..plan
        },
        None => plan,
    })
}

/// Seconds that the rounds of a group take on a small quiet PC, if all of them are needed.
fn rounds_s(group: Group, plan: &Plan, kinds: &[Kind]) -> f64 {
    let of = |kind: &Kind| match (kind.is_guest(), runs_on(*kind, plan.program)) {
        (_, false) => 0.0,
        (true, true) => f64::from(plan.guests) * plan.guest_s,
        (false, true) => plan.rest_s(0),
    };
    // The idle guests that the processor's clock is checked by.
    let checked = kinds.iter().filter(|kind| kind.is_guest());
    let checks = if group == Group::Cpu {
        checked.count()
    } else {
        0
    };
    let checks_s = start::USUAL_S[2] * 3.0 * f64::from(u32::try_from(checks).unwrap_or(0));
    let engines: f64 = kinds.iter().map(of).sum();
    plan.rest_s(0) + engines + checks_s
}

/// Seconds that all of it takes on a small quiet PC.
fn expected_s(groups: &[Group], kinds: &[Kind], options: &Options) -> f64 {
    let [tasks, in_guests, io, io_in_guests] = starts(options.length);
    let fixed = |native_s: f64, [process, guest]: [f64; 2]| {
        let each = kinds.iter().map(|kind| match kind.is_guest() {
            true => guest * start::USUAL_S[2],
            false => process * start::USUAL_S[1],
        });
        native_s + each.sum::<f64>()
    };
    let group_s = |group: &Group| match plan_of(*group, options) {
        Some(plan) => rounds_s(*group, &plan, kinds),
        None if *group == Group::Start => fixed(
            f64::from(tasks) * start::USUAL_S[0],
            // Half of a guest's starts are the next ones.
            [f64::from(tasks), f64::from(in_guests * 2)],
        ),
        None => fixed(0.0, [f64::from(io), f64::from(io_in_guests + 1)]),
    };
    groups.iter().map(group_s).sum()
}

impl Bench<'_> {
    fn begin(&mut self, expected_s: f64, what: &str) {
        self.pace.begin(expected_s);
        (self.say)(self.pace.now(what));
    }

    fn group(&mut self, group: Group) -> Result<(), BenchError> {
        let [tasks, in_guests, io, io_in_guests] = starts(self.options.length);
        match group {
            Group::Start => self.starts(tasks, in_guests),
            Group::Io => self.extra_io(io, io_in_guests),
            Group::Cpu | Group::Blas | Group::Memory | Group::Files | Group::Calls => {
                match plan_of(group, self.options) {
                    Some(plan) => self.rounds(group, &plan),
                    None => Ok(()),
                }
            }
        }
    }

    /// Rounds of one group, and what they say.
    fn rounds(&mut self, group: Group, plan: &Plan) -> Result<(), BenchError> {
        let inputs = Inputs::new(self.options)?;
        let native_dir = tempfile::tempdir_in(&self.options.dir).doing("make a directory")?;
        let mut rounds = Rounds {
            native: Vec::new(),
            engines: vec![Vec::new(); self.sides.len()],
        };
        // CPU seconds of whole guests by the host's count, and by the guest's clock.
        let mut clocks = vec![Vec::new(); self.sides.len()];
        let mut able = vec![true; self.sides.len()];
        let begun = Instant::now();
        for round in 0..plan.most {
            let late = self.is_late(group, plan, (round, begun));
            if late || (round >= plan.least && self.narrow(group, &rounds)) {
                let engines = self
                    .sides
                    .iter()
                    .filter(|side| !side.kind.is_guest())
                    .count();
                self.leave_out(plan.rest_s(round), engines);
                break;
            }
            let what = format!("{}, round {}", group.word(), round + 1);
            let turns = self.turns(round, plan, &able);
            let (program, native_s) = plan.at(round);
            rounds.engines.iter_mut().for_each(|runs| runs.push(None));
            for turn in turns {
                let Some(at) = turn else {
                    self.begin(native_s, &what);
                    match sides::native(program, self.options, &native_dir.path().into()) {
                        Err(BenchError::Broken(_)) if plan.program == Program::Numpy => {
                            self.missing.push("no numpy for python3 here".to_owned());
                            return Ok(());
                        }
                        run => rounds.native.push(run?),
                    }
                    continue;
                };
                let (run, host_s) = match self.engine_run(at, &what, (plan, round), &inputs) {
                    Err(BenchError::Broken(why)) if plan.program == Program::Numpy => {
                        self.missing.push(why);
                        able[at] = false;
                        continue;
                    }
                    run => run?,
                };
                let guest_s = run.iter().map(|reading| reading.total_s).sum::<f64>();
                clocks[at].push((host_s, guest_s));
                if let Some(slot) = rounds.engines[at].last_mut() {
                    *slot = Some(run);
                }
            }
        }
        if group == Group::Cpu {
            self.clock_rows(&inputs, &clocks, plan.memory_mib)?;
        }
        if let Some(item) = rounds.differs() {
            return Err(BenchError::Broken(format!(
                "{item} came to something else in an engine than native; do not trust that engine"
            )));
        }
        self.conclude(group, &rounds);
        Ok(())
    }

    /// Whether the rounds of a group have taken too long, and that is noted. Rounds that somebody
    /// asked for are done however long they take, and one is always.
    fn is_late(&mut self, group: Group, plan: &Plan, (round, begun): (u32, Instant)) -> bool {
        let kinds: Vec<Kind> = self.sides.iter().map(|side| side.kind).collect();
        let patience_s = PATIENCE * rounds_s(group, plan, &kinds);
        let late = self.options.rounds.is_none()
            && round > 0
            && begun.elapsed().as_secs_f64() > patience_s;
        if late {
            self.missing.push(format!(
                "{} of {} rounds of {}: this PC is slow or busy; --rounds insists",
                plan.most - round,
                plan.most,
                group.word()
            ));
        }
        late
    }

    /// Who runs in a round, in which order: none is native.
    fn turns(&self, round: u32, plan: &Plan, able: &[bool]) -> Vec<Option<usize>> {
        let engines = self.sides.iter().enumerate().filter(|(at, side)| {
            let guest = side.kind.is_guest();
            able[*at] && runs_on(side.kind, plan.program) && (!guest || round < plan.guests)
        });
        let mut turns: Vec<Option<usize>> = [None]
            .into_iter()
            .chain(engines.map(|(at, _)| Some(at)))
            .collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        turns
    }

    fn engine_run(
        &mut self,
        at: usize,
        what: &str,
        (plan, round): (&Plan, u32),
        inputs: &Inputs,
    ) -> Result<(Run, f64), BenchError> {
        let (program, native_s) = plan.at(round);
        let expected_s = match self.sides[at].kind.is_guest() {
            true => plan.guest_s,
            false => native_s,
        };
        let what = format!("{what}, {}", self.sides[at].name);
        self.begin(expected_s, &what);
        let room = (plan.memory_mib, self.options.dir.as_path());
        let asked = sides::asked(program, inputs, self.sides[at].kind, room)?;
        let done = self.sides[at].run(asked, self.options)?;
        Ok((
            sides::readings(&done.stdout)?,
            done.ending.usage.cpu_seconds,
        ))
    }

    /// Whether the interval of each engine whose CPU time is known is narrow: the others' goals are
    /// wider, and guests have their rounds.
    fn narrow(&self, group: Group, rounds: &Rounds) -> bool {
        let mut engines = self.sides.iter().enumerate();
        engines.all(|(at, side)| {
            !side.kind.counts_cpu()
                || rounds
                    .headline(group, at, side.kind)
                    .is_none_or(|(_, interval)| interval.high - interval.low <= NARROW)
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "a number of engines")]
    fn leave_out(&mut self, side_s: f64, engines: usize) {
        self.pace.leave_out(side_s * (1.0 + engines as f64));
    }

    /// The table and the promise of a group.
    fn conclude(&mut self, group: Group, rounds: &Rounds) {
        let kinds: Vec<Kind> = self.sides.iter().map(|side| side.kind).collect();
        for (at, side) in self.sides.iter().enumerate() {
            if let Some(estimate) = rounds.headline(group, at, side.kind) {
                let pairs = rounds.count(at);
                self.rows.push(promise(group, side, estimate, pairs));
            }
        }
        self.tables.push(Table {
            group,
            lines: rounds.lines(group, &kinds),
        });
    }
}

/// The module has what needs neither files nor a kernel.
const fn runs_on(kind: Kind, program: Program) -> bool {
    let computes = matches!(
        program,
        Program::Burn(Work::Nothing | Work::Cpu { .. } | Work::Memory { .. })
    );
    !matches!(kind, Kind::Wasm) || computes
}

fn promise(group: Group, side: &Side, (ratio, interval): Estimate, pairs: usize) -> Row {
    let percent = |ratio: f64| (ratio - 1.0) * 100.0;
    let what = match (group, side.kind) {
        (Group::Memory, _) => "memory that was touched",
        (_, Kind::UserModeLinux | Kind::Tcg) => "cache-resident arithmetic",
        (_, Kind::Process | Kind::Kvm | Kind::Wasm) => "CPU-bound program",
    };
    let row = Row::new(
        &format!("{what}, {} over native", side.name),
        percent(ratio),
        "%",
    )
    .interval(Interval {
        low: percent(interval.low),
        high: percent(interval.high),
    })
    .note(format!(
        "{}, {pairs} pairs, median",
        match (side.kind.counts_cpu(), group) {
            (true, Group::Memory) => "CPU seconds of the fastest slices",
            (true, _) => "CPU seconds",
            (false, _) => "seconds of the fastest slices",
        }
    ));
    match goal(side.kind) {
        Some(goal) => row.goal(goal),
        None => row,
    }
}

/// Makes the directory of a run in `parent`, on the disk that is measured.
///
/// # Errors
/// Where it cannot be made.
pub fn directory(parent: &Path) -> Result<tempfile::TempDir, BenchError> {
    tempfile::Builder::new()
        .prefix("gleaner-overhead-")
        .tempdir_in(parent)
        .doing(format!("make a directory in {}", parent.display()))
}

#[cfg(test)]
mod tests;
