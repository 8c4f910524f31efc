//! `gleaner bench impact`: arguments, a progress bar that knows the time left, the picture, the
//! figures, and an end on Ctrl-C that leaves nothing behind.

use super::shown::watched;
use crate::out::{self, Failure, Outcome};
use crate::table::{self, Look};
use gleaner_bench::Verdict;
use gleaner_bench::impact::plan::{Choice, Kind, Mix, Rule};
use gleaner_bench::impact::{ImpactReport, Options, Stop, plot, run, svg};
use std::path::PathBuf;

/// Where files go by default: a directory on a disk, where the temporary one may be in memory.
const DIR: &str = "/var/tmp";

#[derive(Debug, clap::Args)]
pub(crate) struct ImpactArgs {
    /// Rounds of all conditions [default: 8, with --quick 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Length of a segment; its first 0.4 s are not counted [default: 3.5, with --quick 1.5]
    #[arg(long, value_parser = seconds, value_name = "S")]
    seconds: Option<u64>,
    /// A first look in a minute: typing and frames beside CPU-bound and memory-touching tasks
    #[arg(long)]
    quick: bool,
    /// What the owner does: desk, work, save [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES", value_parser = owner)]
    owners: Vec<Mix>,
    /// What tasks live on: cpu, cache, memory, disk [default: those that matter to each owner]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    tasks: Vec<Kind>,
    /// Who decides: gleaner, nice19, sched-idle, boinc, condor [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    rules: Vec<Rule>,
    /// Inputs after which tasks are frozen, to see how long that takes [default: 200]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    inputs: Option<u32>,
    /// Seconds that an agent is watched, idle and with tasks; 0 leaves it out [default: 60]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=86_400), value_name = "S")]
    agent: Option<u32>,
    /// Directory on the disk that owner and tasks use
    #[arg(long, default_value = DIR)]
    dir: PathBuf,
    /// Write the picture to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

/// Somebody who feels something.
fn owner(text: &str) -> Result<Mix, String> {
    match text.parse()? {
        Mix::Away => Err("nobody is there to feel anything; desk, work, save".to_owned()),
        mix @ (Mix::Desk | Mix::Work | Mix::Save) => Ok(mix),
    }
}

/// Seconds with a fraction, as milliseconds.
fn seconds(text: &str) -> Result<u64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    if !(0.8..=60.0).contains(&seconds) {
        return Err("a segment takes 0.8 to 60 seconds".to_owned());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked above"
    )]
    let millis = (seconds * 1000.0) as u64;
    Ok(millis)
}

impl ImpactArgs {
    pub(super) fn run(self, program: PathBuf) -> Outcome {
        let (stop, json, picture) = (Stop::default(), self.json, self.svg.clone());
        let options = self.options(program, stop.clone());
        let report = watched(stop, move |say| run(&options, say))?;
        match report {
            Some(report) => show(&report, json, picture),
            None => Ok(out::INTERRUPTED),
        }
    }

    fn options(self, program: PathBuf, stop: Stop) -> Options {
        let or = |value: Option<u32>, long: u32, quick: u32| {
            value.unwrap_or(if self.quick { quick } else { long })
        };
        let usual_mixes = match self.quick {
            true => vec![Mix::Desk],
            false => vec![Mix::Desk, Mix::Work, Mix::Save],
        };
        let usual_rules = match self.quick {
            true => vec![Rule::Gleaner, Rule::SchedIdle],
            false => Rule::ALL.to_vec(),
        };
        let usual_kinds = self.quick.then(|| vec![Kind::Cpu, Kind::Memory]);
        Options {
            program,
            dir: self.dir.clone(),
            rounds: or(self.rounds, 8, 2),
            segment_ms: self.seconds.unwrap_or(if self.quick { 1500 } else { 3500 }),
            inputs: or(self.inputs, 200, 20),
            agent_seconds: or(self.agent, 60, 5),
            choice: Choice {
                mixes: given(self.owners, usual_mixes),
                kinds: match self.tasks.is_empty() {
                    true => usual_kinds,
                    false => Some(self.tasks),
                },
                rules: given(self.rules, usual_rules),
            },
            stop,
        }
    }
}

/// What was asked for, else what is usual.
fn given<T>(asked: Vec<T>, usual: Vec<T>) -> Vec<T> {
    if asked.is_empty() { usual } else { asked }
}

fn show(report: &ImpactReport, json: bool, picture: Option<PathBuf>) -> Outcome {
    if let Some(file) = picture {
        std::fs::write(&file, svg::picture(report)).map_err(|problem| {
            Failure::usage(format!("cannot write {}: {problem}", file.display()))
        })?;
    }
    let look = Look::of_stdout();
    if json {
        out::json(report)?;
    } else {
        out::print(&plot::picture(report, look.colour))?;
        out::print(&plot::table(report))?;
        out::print(&table::impact::summary(report, look))?;
    }
    let missed = report.rows.iter().any(|row| row.verdict == Verdict::Missed);
    Ok(if missed { out::TASK_FAILED } else { 0 })
}
