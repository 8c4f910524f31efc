//! The project's own commands: `cargo xtask check`, `cargo xtask test`, `cargo xtask demo`.
//!
//! Owns everything that is not plain cargo. Knows the product only by its command line, never by
//! its crates, so it compiles in seconds and works while the product does not.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a command line tool; printing is its work"
)]

mod again;
mod apparmor;
mod arrows;
mod check;
mod debian;
mod demo;
mod deps;
mod documents;
mod guest;
mod needs;
mod process;
mod sources;
mod suites;
mod tidy;
mod uml;
mod workspace;

use std::process::ExitCode;

/// Wrong usage, or something is missing that a person has to install.
const EXIT_USAGE: u8 = 2;

const USAGE: &str = "\
usage: cargo xtask check [--fast]           format, lints, arrows, tidiness, documents, licences
       cargo xtask test [--long] [SUITE…]   check unit sense conformance sim e2e uml vm; all without SUITE
       cargo xtask guest                    the program that is process 1 of guests; prints its path
       cargo xtask demo                     render a picture on a small pool on this machine";

/// Why a command ended without success.
#[derive(Debug)]
enum Failure {
    /// Something was checked or run and is not as it should be; printed already or here.
    Failed(String),
    /// The person at the keyboard has to do something first.
    Usage(String),
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

fn guest() -> Result<(), Failure> {
    let workspace = workspace::Workspace::load()?;
    let program = guest::build(&workspace, guest::BUILD_MAX)?;
    println!("{}", program.display());
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["check"] => check::run(check::Extent::Whole),
        ["check", "--fast"] => check::run(check::Extent::Fast),
        ["test", rest @ ..] => suites::run(rest),
        ["demo"] => demo::run(),
        ["guest"] => guest(),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(Failure::Usage(USAGE.to_owned())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(text)) => {
            eprintln!("xtask: {text}");
            ExitCode::FAILURE
        }
        Err(Failure::Usage(text)) => {
            eprintln!("{text}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}
