//! The command line as data. What a command takes is declared beside the command.

use crate::cmd;
use crate::out::Colour;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Runs your programs on PCs while their owners are not using them.
#[derive(Debug, Parser)]
#[command(name = "gleaner", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Client settings; else $GLEANER_CONFIG, else ~/.config/gleaner/client.toml
    #[arg(long, global = true, value_name = "FILE", help_heading = EVERYWHERE)]
    pub(crate) config: Option<PathBuf>,
    /// Colours in tables and logs: auto (on a terminal, unless $NO_COLOR is set), always or never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value = "auto",
        hide_possible_values = true,
        help_heading = EVERYWHERE
    )]
    pub(crate) color: Colour,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Over the options that every command takes, so that they stand apart from its own.
const EVERYWHERE: &str = "Options of every command";

const EXIT_CODES: &str = "Exit codes: 0 done, 1 a task failed, 2 wrong usage or job file, 3 server not \
    reachable, 4 refused, 130 Ctrl-C. `run` gives the task's own code, 128+n for signal n, 124 for \
    a limit, 125 for gleaner's own failures, 2 where no task could be made of the command.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Client(Box<ClientCommand>),
    Doctor(cmd::doctor::Args),
    Dev(cmd::dev::Args),
    Server(cmd::server::Args),
    Agent(Box<cmd::agent::Args>),
    Owner(Box<cmd::owner::Args>),
    Image(cmd::image::Args),
    Bench(cmd::bench::Args),
    Sim(cmd::sim::Args),
    Completions(cmd::shell::CompletionsArgs),
    Man(cmd::shell::ManArgs),
}

/// Commands that talk to a pool.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    Run(cmd::run::Args),
    Map(cmd::map::Args),
    Submit(cmd::submit::Args),
    Jobs(cmd::jobs::JobsArgs),
    Job(cmd::jobs::JobArgs),
    Tasks(cmd::tasks::Args),
    Wait(cmd::wait::Args),
    Logs(cmd::logs::Args),
    Fetch(cmd::fetch::Args),
    Cancel(cmd::control::CancelArgs),
    Pause(cmd::control::PauseArgs),
    Resume(cmd::control::ResumeArgs),
    Retry(cmd::control::RetryArgs),
    Delete(cmd::control::DeleteArgs),
    Explain(cmd::explain::Args),
    Nodes(cmd::nodes::NodesArgs),
    Node(cmd::nodes::NodeArgs),
    Token(cmd::token::Args),
}

#[cfg(test)]
mod tests;
