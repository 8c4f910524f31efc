//! The `gleaner` binary: the command line of users and admins, and the entry of every daemon.
//!
//! It owns arguments, tables, progress and exit codes, and wires server and agent together. It must
//! not know how any of them works inside. Data comes from arguments and goes to the pool through
//! `gleaner-client`; results and tables come back. When the agent starts this binary as a launcher
//! of sandboxes it does nothing else, before any thread exists.
#![forbid(unsafe_code)]

mod args;
mod cmd;
mod daemon;
mod form;
mod out;
mod progress;
mod session;
mod table;
mod watch;

use args::{Cli, ClientCommand, Command};
use clap::{CommandFactory as _, Parser as _};
use out::Outcome;
use session::{Session, block_on};
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if gleaner_engine_process::is_shim_call(&arguments) {
        return gleaner_engine_process::shim_main(&arguments);
    }
    #[cfg(feature = "wasm")]
    if gleaner_engine_wasm::is_wasm_call(&arguments) {
        return gleaner_engine_wasm::wasm_main(&arguments);
    }
    if gleaner_engine_process::priority::is_spin_call(&arguments) {
        return gleaner_engine_process::priority::spin_main();
    }
    if gleaner_bench::is_burn_call(&arguments) {
        return gleaner_bench::burn_main(&arguments);
    }
    if gleaner_bench::impact::is_owner_call(&arguments) {
        return gleaner_bench::impact::owner_main(&arguments);
    }
    if gleaner_bench::impact::is_task_call(&arguments) {
        return gleaner_bench::impact::task_main(&arguments);
    }
    if gleaner_sense::user_session::is_session_call(&arguments) {
        return gleaner_sense::user_session::session_main(&arguments);
    }
    let cli = Cli::parse_from(arguments);
    out::choose_colour(cli.color);
    let code = match dispatch(cli) {
        Ok(code) => code,
        Err(failure) => {
            if !failure.message.is_empty() {
                out::say(format!("gleaner: {}", failure.message));
            }
            failure.code
        }
    };
    ExitCode::from(code)
}

fn dispatch(cli: Cli) -> Outcome {
    match cli.command {
        Command::Client(command) => client_command(cli.config, *command),
        Command::Doctor(args) => args.run(),
        Command::Dev(args) => args.run(),
        Command::Server(args) => args.run(),
        Command::Agent(args) => args.run(),
        Command::Owner(args) => args.run(),
        Command::Image(args) => args.run(cli.config),
        Command::Bench(args) => args.run(),
        Command::Sim(args) => args.run(),
        Command::Completions(args) => args.run(Cli::command()),
        Command::Man(args) => args.run(Cli::command()),
    }
}

/// Commands that talk to a pool.
fn client_command(config: Option<PathBuf>, command: ClientCommand) -> Outcome {
    block_on(async move {
        let session = match (&command, Session::open(config)) {
            (_, Ok(session)) => session,
            // Every failure of `run` that is not the task's has one code.
            (ClientCommand::Run(_), Err(failure)) => {
                return Err(out::Failure::new(125, failure.message));
            }
            (_, Err(failure)) => return Err(failure),
        };
        let session = &session;
        match command {
            ClientCommand::Run(args) => args.run(session).await.map_err(cmd::in_options),
            ClientCommand::Map(args) => args.run(session).await.map_err(cmd::in_options),
            ClientCommand::Submit(args) => args.run(session).await,
            ClientCommand::Jobs(args) => args.run(session).await,
            ClientCommand::Job(args) => args.run(session).await,
            ClientCommand::Tasks(args) => args.run(session).await,
            ClientCommand::Wait(args) => args.run(session).await,
            ClientCommand::Logs(args) => args.run(session).await,
            ClientCommand::Fetch(args) => args.run(session).await,
            ClientCommand::Cancel(args) => args.run(session).await,
            ClientCommand::Pause(args) => args.run(session).await,
            ClientCommand::Resume(args) => args.run(session).await,
            ClientCommand::Retry(args) => args.run(session).await,
            ClientCommand::Delete(args) => args.run(session).await,
            ClientCommand::Explain(args) => args.run(session).await,
            ClientCommand::Nodes(args) => args.run(session).await,
            ClientCommand::Node(args) => args.run(session).await,
            ClientCommand::Token(args) => args.run(session).await,
        }
    })
}
