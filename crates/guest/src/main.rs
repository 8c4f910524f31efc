//! The program: which of its roles it plays follows from how it is called.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        _ if std::process::id() == 1 && args.len() < 3 => gleaner_guest::init::main(),
        Some("run") => gleaner_guest::run::main(),
        Some("start") => gleaner_guest::init::start::main(),
        _ => ExitCode::from(2),
    }
}
