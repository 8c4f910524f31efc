//! `gleaner bench dispatch|overhead|impact|scale`: measures promises on this PC. Figures, not feelings: the
//! measuring is `gleaner-bench`'s; here are the arguments, the progress line and the table.

use crate::out::{self, Failure, Outcome};
use crate::table::{self, Look};
use gleaner_bench::{Report, Stop, Verdict, dispatch};
use std::path::PathBuf;

mod impact;
mod overhead;
mod scale;
mod shown;

/// Measure what gleaner promises, on this PC
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    /// How fast tasks go through a pool, and what the server spends on them
    Dispatch(DispatchArgs),
    /// What engines cost a program, against the same program without
    Overhead(overhead::OverheadArgs),
    /// What the owner of this PC feels of tasks, and how much of the idle CPU they get
    Impact(Box<impact::ImpactArgs>),
    /// How many queued tasks and nodes one server carries
    Scale(scale::ScaleArgs),
}

#[derive(Debug, clap::Args)]
struct DispatchArgs {
    /// Rounds of interleaved rates
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// No-op tasks a round
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(10..))]
    tasks: u32,
    /// Tasks with output over which the server's CPU time is taken; 100,000 tell the most
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(10..))]
    bulk: u32,
    /// Single tasks by the command line
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    singles: u32,
    /// Peers to run beside, where they are installed: ray, hq
    #[arg(long, value_delimiter = ',', value_name = "NAMES", value_parser = dispatch::PEERS)]
    beside: Vec<String>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let program = std::env::current_exe()
            .map_err(|problem| Failure::usage(format!("cannot find this program: {problem}")))?;
        match self.bench {
            Bench::Dispatch(args) => args.run(program),
            Bench::Overhead(args) => args.run(program),
            Bench::Impact(args) => args.run(program),
            Bench::Scale(args) => args.run(program),
        }
    }
}

impl DispatchArgs {
    fn run(self, program: PathBuf) -> Outcome {
        let (stop, json) = (Stop::default(), self.json);
        let options = dispatch::Options {
            program,
            rounds: self.rounds,
            tasks: self.tasks,
            bulk: self.bulk,
            singles: self.singles,
            beside: self.beside,
            stop: stop.clone(),
        };
        match shown::watched(stop, move |say| dispatch::run(&options, say))? {
            Some(report) => show(&report, json),
            None => Ok(out::INTERRUPTED),
        }
    }
}

/// Shows a report; exit code 1 where a promise is missed.
fn show(report: &Report, json: bool) -> Outcome {
    match json {
        true => out::json(report)?,
        false => out::print(&table::bench::report(report, Look::of_stdout()))?,
    }
    let missed = report.rows.iter().any(|row| row.verdict == Verdict::Missed);
    Ok(if missed { out::TASK_FAILED } else { 0 })
}
