//! `gleaner bench impact`: what the owner of this PC feels of tasks, and how much of the idle CPU
//! they get. Any owner can run it.
//!
//! An owner's process does fixed work at fixed times ([`plan`] says which); beside it run tasks of
//! several kinds, in our engine and as the rules of other systems would run them. Conditions are
//! short segments in shuffled order, the one without tasks twice a round, so that a change of the
//! PC's mood hits all alike and the noise is known. Figures are ratios within one run. The module
//! must not know terminals: it reports progress as words and the result as data, and draws.

mod cost;
pub mod figures;
mod gates;
mod guests;
mod leftovers;
mod owner;
pub mod plan;
pub mod plot;
mod react;
pub mod rules;
mod session;
mod spare;
pub mod svg;
mod trace;
mod work;

pub use owner::{is_owner_call, owner_main};
pub use session::Segment;
pub use spare::Spare;
pub use trace::Waits;
pub use work::{is_task_call, task_main};

use crate::proc;
use crate::{BenchError, Doing as _, Row};
pub use crate::{Progress, Stop};
use figures::Cell;
use plan::{Beside, Choice, Kind, Mix, Step};
use serde::Serialize;
use session::Session;
use std::path::PathBuf;
use std::time::Instant;

/// What to measure, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `gleaner` program: it is owner, task and engine.
    pub program: PathBuf,
    /// Where files are made; what the owner saves and tasks write goes to this disk.
    pub dir: PathBuf,
    /// Owners, tasks and rules.
    pub choice: Choice,
    /// Rounds of all conditions.
    pub rounds: u32,
    /// Length of a segment in milliseconds.
    pub segment_ms: u64,
    /// How often the way from an input to frozen tasks is measured.
    pub inputs: u32,
    /// Seconds that an agent is watched, idle and with tasks; 0 leaves that out.
    pub agent_seconds: u32,
    /// Ends the benchmark early when it is told to.
    pub stop: Stop,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImpactReport {
    /// Always `impact`.
    pub bench: &'static str,
    /// Version of the program.
    pub version: &'static str,
    /// The PC and how it was measured.
    pub setting: Setting,
    /// Every owner beside every kind of tasks under every rule.
    pub cells: Vec<Cell>,
    /// The promises.
    pub rows: Vec<Row>,
    /// Every segment.
    pub segments: Vec<Segment>,
}

/// The PC and how it was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// CPUs that were used.
    pub cpus: usize,
    /// How tasks are grouped here.
    pub groups: &'static str,
    /// What keeps them behind the owner's programs.
    pub priority: &'static str,
    /// How delay was attributed: `sched events`, or `run delay` and why.
    pub attribution: String,
    /// Segments run.
    pub segments: usize,
    /// Of them, not counted because others used the PC.
    pub dropped: usize,
    /// Load average over the last minute, before the run.
    pub load: f64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Runs it all; `say` hears how far it is.
///
/// # Errors
/// Where a part cannot be started or does not answer, and when it was told to stop. Everything
/// that was started is gone then.
pub fn run(options: &Options, say: &mut dyn FnMut(Progress)) -> Result<ImpactReport, BenchError> {
    let started = Instant::now();
    let load = load_average();
    leftovers::sweep_files(&options.dir);
    let dir = tempfile::Builder::new()
        .prefix(&format!("{}-", leftovers::own_name()))
        .tempdir_in(&options.dir)
        .doing(format!("make a directory in {}", options.dir.display()))?;
    let words = |what: &str| Progress {
        done: 0,
        total: 0,
        left: None,
        what: what.to_owned(),
    };
    let mut session = Session::start(options, dir.path(), &mut |what| say(words(what)))?;
    let mut pace = Pace::new(options);
    warm_up(&mut session, options, &mut |what| say(words(what)))?;
    let mut segments = Vec::new();
    for round in 0..options.rounds {
        for step in options.choice.round(round) {
            say(pace.next(round, options.rounds, &step));
            segments.push(session.segment(round, &step)?);
        }
    }
    let cells = figures::cells(&segments);
    let mut rows = gates::rows(&cells);
    let mut kinds = options.choice.all_kinds();
    // Kinds that want a CPU all the time, and two of them where there are.
    kinds.retain(|kind| *kind != Kind::Disk);
    kinds.truncate(2);
    if options.inputs > 0 && !kinds.is_empty() {
        say(words("from input to frozen tasks"));
        rows.extend(react::measure(&session, &kinds, options.inputs)?);
    }
    let setting = setting(&session, &segments, load);
    say(words("putting everything away"));
    drop(session);
    if options.agent_seconds > 0 {
        say(words("watching an agent"));
        rows.extend(cost::measure(
            &options.program,
            options.agent_seconds,
            &options.stop,
        )?);
    }
    Ok(ImpactReport {
        bench: "impact",
        version: env!("CARGO_PKG_VERSION"),
        setting: Setting {
            seconds: started.elapsed().as_secs_f64(),
            ..setting
        },
        cells,
        rows,
        segments,
    })
}

/// A segment of each owner that is not counted: the owner calibrates its work before the first,
/// and rules that look back have something to look at.
fn warm_up(
    session: &mut Session,
    options: &Options,
    say: &mut dyn FnMut(&str),
) -> Result<(), BenchError> {
    say("the owner measures how fast this PC is");
    for mix in &options.choice.mixes {
        let step = Step {
            mix: *mix,
            beside: Beside::None,
            seed: 1,
        };
        session.segment(0, &step)?;
    }
    Ok(())
}

fn setting(session: &Session, segments: &[Segment], load: f64) -> Setting {
    let backend = session.backend();
    Setting {
        cpus: proc::cpus(),
        groups: backend.name(),
        priority: gleaner_engine_process::priority::Means::of(backend).words(),
        attribution: match session.deaf() {
            None => "sched events".to_owned(),
            Some(why) => format!("run delay ({why})"),
        },
        segments: segments.len(),
        dropped: segments.iter().filter(|segment| !segment.quiet).count(),
        load,
        seconds: 0.0,
    }
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// Knows how long the rest takes.
struct Pace {
    done: u32,
    total: u32,
    started: Option<Instant>,
}

impl Pace {
    fn new(options: &Options) -> Self {
        let a_round = u32::try_from(options.choice.round(0).len()).unwrap_or(u32::MAX);
        Self {
            done: 0,
            total: options.rounds.saturating_mul(a_round),
            started: None,
        }
    }

    /// The segment that comes now.
    fn next(&mut self, round: u32, rounds: u32, step: &Step) -> Progress {
        let started = *self.started.get_or_insert_with(Instant::now);
        let left = (self.done > 0)
            .then(|| started.elapsed() / self.done * (self.total - self.done.min(self.total)));
        let beside = match step.beside {
            Beside::None | Beside::NoneAgain => "no task".to_owned(),
            Beside::Tasks(kind, rule) => format!("{kind} tasks, {rule}"),
        };
        let owner = match step.mix {
            Mix::Away => "nobody there",
            Mix::Desk | Mix::Work | Mix::Save => step.mix.word(),
        };
        let progress = Progress {
            done: self.done,
            total: self.total,
            left,
            what: format!("round {} of {rounds}: {owner}, {beside}", round + 1),
        };
        self.done += 1;
        progress
    }
}
