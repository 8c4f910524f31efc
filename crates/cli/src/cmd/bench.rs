//! `gleaner bench dispatch|overhead|impact`: measures promises on this PC. Figures, not feelings: the
//! measuring is `gleaner-bench`'s; here are the arguments, the progress line and the table.

use crate::out::{self, Failure, Outcome};
use crate::table::{self, Look};
use gleaner_bench::{BenchError, Report, Verdict, dispatch, overhead};
use gleaner_engine_process::{ProcessConfig, ProcessEngine};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

mod impact;

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
    /// What the sandbox costs a program, against the same program without
    Overhead(OverheadArgs),
    /// What the owner of this PC feels of tasks, and how much of the idle CPU they get
    Impact(Box<impact::ImpactArgs>),
}

#[derive(Debug, clap::Args)]
struct DispatchArgs {
    /// Rounds of interleaved rates
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// No-op tasks a round
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(10..))]
    tasks: u32,
    /// Tasks with output over which the server's CPU time is taken
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(10..))]
    bulk: u32,
    /// Single tasks by the command line
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    singles: u32,
    /// Peers to run beside, where they are installed: ray, hq
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    beside: Vec<String>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct OverheadArgs {
    /// Pairs of a native and a contained run
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    rounds: u32,
    /// Length of a run: sieves of 200,000 numbers
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    work: u32,
    /// Starts of a program that ends at once
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    starts: u32,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let program = std::env::current_exe()
            .map_err(|problem| Failure::usage(format!("cannot find this program: {problem}")))?;
        let mut say = |what: &str| out::say(format!("bench: {what}"));
        let (report, json) = match self.bench {
            Bench::Dispatch(args) => {
                let options = dispatch::Options {
                    program,
                    rounds: args.rounds,
                    tasks: args.tasks,
                    bulk: args.bulk,
                    singles: args.singles,
                    beside: args.beside,
                };
                (dispatch::run(&options, &mut say), args.json)
            }
            Bench::Overhead(args) => (args.measure(program, &mut say), args.json),
            Bench::Impact(args) => return args.run(program),
        };
        show(
            &report.map_err(|problem| Failure::new(out::REFUSED, problem.to_string()))?,
            json,
        )
    }
}

impl OverheadArgs {
    fn measure(&self, program: PathBuf, say: &mut dyn FnMut(&str)) -> Result<Report, BenchError> {
        let dir = tempfile::tempdir().map_err(|source| BenchError::Io {
            doing: "make a directory for the engine".to_owned(),
            source,
        })?;
        let (sender, events) = mpsc::channel();
        let sink = Arc::new(move |event| {
            // The benchmark may have ended before its last shim.
            let _ended = sender.send(event);
        });
        let config = ProcessConfig::new(dir.path().join("engine"));
        let engine = ProcessEngine::new(config, sink)
            .map_err(|problem| BenchError::Broken(problem.to_string()))?;
        let options = overhead::Options {
            program,
            rounds: self.rounds,
            work: self.work,
            starts: self.starts,
        };
        overhead::run(&engine, &events, &options, say)
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
