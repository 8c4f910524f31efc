//! The fixed work that `bench overhead` compares: the same program, native and contained.
//!
//! It prints the CPU seconds that its own process used for the work, so that starting up is
//! measured apart and both sides are read from the same clock.

use std::ffi::OsString;
use std::process::ExitCode;

/// The hidden first argument that makes the `gleaner` program burn.
const CALL: &str = "__burn";

/// Whether the program was started to burn.
#[must_use]
pub fn is_burn_call(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|word| word == CALL)
}

/// The arguments that make the program do `rounds` rounds of work.
pub(crate) fn burn_args(rounds: u32) -> [String; 2] {
    [CALL.to_owned(), rounds.to_string()]
}

/// Burns; prints CPU seconds and a checksum that proves the work was done.
#[must_use]
#[expect(
    clippy::print_stdout,
    reason = "standard output is this program's result"
)]
pub fn burn_main(args: &[OsString]) -> ExitCode {
    let Some(rounds) = args
        .get(2)
        .and_then(|n| n.to_str())
        .and_then(|n| n.parse::<u32>().ok())
    else {
        return ExitCode::from(2);
    };
    let before = cpu_seconds();
    let sum: u64 = (0..rounds).map(|round| sieve(200_000 + round % 7)).sum();
    println!("{:.6} {sum}", cpu_seconds() - before);
    ExitCode::SUCCESS
}

/// Counts the primes below `limit`: cache-resident integer work.
fn sieve(limit: u32) -> u64 {
    let mut composite = vec![false; limit as usize];
    let mut count = 0;
    for n in 2..limit as usize {
        if composite[n] {
            continue;
        }
        count += 1;
        for multiple in (n * n..limit as usize).step_by(n) {
            composite[multiple] = true;
        }
    }
    count
}

/// CPU seconds of this process, at nanosecond resolution.
#[expect(clippy::cast_precision_loss, reason = "a benchmark runs for seconds")]
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sieve_counts_primes() {
        assert_eq!(sieve(100), 25);
        assert_eq!(sieve(200_000), 17_984);
    }
}
