//! `gleaner bench scale`: arguments, the progress line, and the figures.

use super::shown::watched;
use crate::out::{self, Outcome};
use gleaner_bench::Stop;
use gleaner_bench::scale::{Options, run};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct ScaleArgs {
    /// Pretended nodes, which this process plays
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    nodes: u32,
    /// Tasks in the queue at the start
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tasks: u32,
    /// How long a task takes; 0: it is done when its node calls next
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(0..=86_400), value_name = "S")]
    task_seconds: u32,
    /// How long to measure once all nodes are in
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400), value_name = "S")]
    seconds: u32,
    /// Connections that the nodes share
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl ScaleArgs {
    pub(super) fn run(self, program: PathBuf) -> Outcome {
        let (stop, json) = (Stop::default(), self.json);
        let options = Options {
            program,
            tasks: self.tasks,
            task_seconds: self.task_seconds,
            nodes: self.nodes,
            seconds: self.seconds,
            connections: self.connections,
            stop: stop.clone(),
        };
        match watched(stop, move |say| run(&options, say))? {
            Some(report) => super::show(&report, json),
            None => Ok(out::INTERRUPTED),
        }
    }
}
