//! Tests that failed get one more chance, alone.
//!
//! Tests of processes, guests and clocks run on machines that do other work too. One that fails
//! beside others and passes alone is unsteady: a defect of the test or of what it tests, named at
//! the end of the run, but no reason to hold back everything else. Several at once are no
//! accident and have failed.

use crate::process::{Counts, End, Outcome};

/// Most tests of one call that are tried again.
const UNSTEADY_MAX: usize = 2;

/// Runs tests, all where no names are given, and those that failed once more by their names.
///
/// # Errors
/// Those of `run`.
pub(crate) fn run<E>(mut run: impl FnMut(&[String]) -> Result<Outcome, E>) -> Result<Outcome, E> {
    let first = run(&[])?;
    let names = &first.failed;
    // Where more failed than have names, something failed that cannot be tried alone.
    let all_named = u64::try_from(names.len()) == Ok(first.counts.failed);
    let failed = matches!(first.end, End::Failure(_));
    if !failed || names.is_empty() || names.len() > UNSTEADY_MAX || !all_named {
        return Ok(first);
    }
    println!("again, alone: {}", names.join(", "));
    let second = run(names)?;
    if second.end != End::Success || second.counts.passed < first.counts.failed {
        return Ok(first);
    }
    for name in names {
        println!("unsteady: {name} failed beside other tests and passed alone; mend it");
    }
    Ok(Outcome {
        end: End::Success,
        counts: Counts {
            passed: first.counts.passed + first.counts.failed,
            failed: 0,
            unsteady: first.counts.failed,
        },
        failed: Vec::new(),
    })
}

/// Arguments by which cargo's harness and ours run only these tests; none for all.
pub(crate) fn only(names: &[String]) -> Vec<&str> {
    let words = ["--", "--exact"].into_iter();
    match names {
        [] => Vec::new(),
        _ => words.chain(names.iter().map(String::as_str)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    fn outcome(passed: u64, failed: &[&str]) -> Outcome {
        Outcome {
            end: match failed {
                [] => End::Success,
                _ => End::Failure(ExitStatus::from_raw(101 << 8)),
            },
            counts: Counts {
                passed,
                failed: u64::try_from(failed.len()).unwrap(),
                unsteady: 0,
            },
            failed: failed.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    /// What comes of calls that end like these, and for which names they were made.
    fn after(outcomes: &[Outcome]) -> (Outcome, Vec<Vec<String>>) {
        let mut calls: Vec<Vec<String>> = Vec::new();
        let end = run(|names| {
            calls.push(names.to_vec());
            Ok::<_, ()>(outcomes[calls.len() - 1].clone())
        });
        (end.unwrap(), calls)
    }

    #[test]
    fn what_passes_alone_is_unsteady() {
        let (end, calls) = after(&[outcome(5, &["a", "b"]), outcome(2, &[])]);
        assert_eq!(end.end, End::Success);
        let counts = (end.counts.passed, end.counts.failed, end.counts.unsteady);
        assert_eq!(counts, (7, 0, 2));
        assert_eq!(calls, [vec![], vec!["a".to_owned(), "b".to_owned()]]);
    }

    #[test]
    fn what_fails_again_or_was_not_found_has_failed() {
        for second in [outcome(0, &["a"]), outcome(0, &[])] {
            let (end, _) = after(&[outcome(5, &["a"]), second]);
            assert_eq!((end.counts.passed, end.counts.failed), (5, 1));
            assert_ne!(end.end, End::Success);
        }
    }

    #[test]
    fn what_passes_and_what_fails_in_numbers_is_not_tried_again() {
        let mut nameless = outcome(1, &["a"]);
        nameless.counts.failed = 2;
        for first in [outcome(5, &[]), outcome(1, &["a", "b", "c"]), nameless] {
            let (end, calls) = after(std::slice::from_ref(&first));
            assert_eq!((end.end, calls.len()), (first.end, 1));
        }
    }
}
