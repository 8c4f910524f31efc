//! `cargo xtask test`: the suites one after the other, each with a budget and a deadline.

use crate::Failure;
use crate::again;
use crate::apparmor;
use crate::check::{self, Extent};
use crate::debian::{self, Need};
use crate::guest;
use crate::needs::{BUSYBOX, EROFS, GUEST, MKFS, PEERS, PERL, PROGRAMS, PYTHON};
use crate::process::{self, Counts, End};
use crate::uml;
use crate::workspace::{Workspace, cargo_command};
use std::time::{Duration, Instant};

/// A suite that takes this many times its budget is killed and has failed; one that only passes
/// its budget is named.
const DEADLINE_BUDGETS: u32 = 2;

/// With `--long` suites do more rounds and seeds; the deadline grows by this.
const LONG_FACTOR: u32 = 10;

/// One suite: what it needs from the distribution and how long it may take, cold.
struct Suite {
    name: &'static str,
    budget_minutes: u64,
    needs: &'static [Need],
    work: Work,
}

/// What a suite does.
enum Work {
    /// The checks of `cargo xtask check`.
    Check,
    /// Calls of cargo, one after the other.
    Cargo(&'static [&'static [&'static str]]),
    /// The sandbox's tests in a guest.
    Uml,
    /// The tests of the engine that runs guests.
    Guest,
}

/// In the order of running: what fails fastest goes first.
const SUITES: &[Suite] = &[
    Suite {
        name: "check",
        budget_minutes: 5,
        needs: &[],
        work: Work::Check,
    },
    Suite {
        name: "unit",
        budget_minutes: 7,
        needs: &[],
        work: Work::Cargo(&[&[
            "test",
            "--locked",
            "--no-fail-fast",
            "--workspace",
            "--exclude=gleaner-tests",
            "--exclude=gleaner-engine-process",
            "--exclude=gleaner-engine-vm",
            "--exclude=gleaner-engine-wasm",
            "--exclude=gleaner-sim",
            "--exclude=gleaner-sense",
        ]]),
    },
    Suite {
        name: "sense",
        budget_minutes: 2,
        needs: PEERS,
        work: Work::Cargo(&[&["test", "--locked", "--no-fail-fast", "-p", "gleaner-sense"]]),
    },
    Suite {
        name: "conformance",
        budget_minutes: 5,
        needs: PROGRAMS,
        work: Work::Cargo(&[&[
            "test",
            "--locked",
            "--no-fail-fast",
            "-p",
            "gleaner-engine-process",
            "-p",
            "gleaner-engine-wasm",
        ]]),
    },
    Suite {
        name: "sim",
        budget_minutes: 1,
        needs: &[],
        work: Work::Cargo(&[&["test", "--locked", "--no-fail-fast", "-p", "gleaner-sim"]]),
    },
    Suite {
        name: "e2e",
        budget_minutes: 6,
        needs: &[PERL, PYTHON, BUSYBOX],
        work: Work::Cargo(&[
            &["build", "--locked", "--bin", "gleaner"],
            &["test", "--locked", "--no-fail-fast", "-p", "gleaner-tests"],
        ]),
    },
    Suite {
        name: "uml",
        budget_minutes: 10,
        needs: &[GUEST, MKFS],
        work: Work::Uml,
    },
    Suite {
        name: "vm",
        budget_minutes: 9,
        needs: &[GUEST, MKFS, EROFS, PERL, BUSYBOX],
        work: Work::Guest,
    },
];

/// What came of a suite.
struct Report {
    name: &'static str,
    budget: Duration,
    took: Duration,
    counts: Counts,
    result: &'static str,
}

/// Runs the named suites, or all.
///
/// # Errors
/// A suite failed, was stuck, or something has to be installed by hand.
pub(crate) fn run(arguments: &[&str]) -> Result<(), Failure> {
    let long = arguments.contains(&"--long");
    let names: Vec<&str> = arguments
        .iter()
        .copied()
        .filter(|word| *word != "--long")
        .collect();
    let chosen = choose(&names)?;
    let needs: Vec<Need> = chosen
        .iter()
        .flat_map(|suite| suite.needs)
        .copied()
        .collect();
    debian::ensure(&unique(needs))?;
    apparmor::ensure(&Workspace::load()?.target)?;
    let mut reports = Vec::new();
    for suite in chosen {
        println!("== {} (budget {} min)", suite.name, suite.budget_minutes);
        reports.push(one(suite, long)?);
    }
    summary(&reports)
}

fn choose(names: &[&str]) -> Result<Vec<&'static Suite>, Failure> {
    if let Some(unknown) = names
        .iter()
        .find(|name| SUITES.iter().all(|s| s.name != **name))
    {
        let known: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
        return Err(Failure::Usage(format!(
            "no suite {unknown}; there are {}",
            known.join(" ")
        )));
    }
    Ok(SUITES
        .iter()
        .filter(|s| names.is_empty() || names.contains(&s.name))
        .collect())
}

fn unique(needs: Vec<Need>) -> Vec<Need> {
    let mut kept: Vec<Need> = Vec::new();
    for need in needs {
        if kept.iter().all(|other| other.package != need.package) {
            kept.push(need);
        }
    }
    kept
}

fn one(suite: &Suite, long: bool) -> Result<Report, Failure> {
    let start = Instant::now();
    let budget = Duration::from_secs(suite.budget_minutes * 60);
    let factor = if long { LONG_FACTOR } else { 1 };
    let deadline = budget * DEADLINE_BUDGETS * factor;
    let (end, counts) = match suite.work {
        Work::Check => (End::Success, check::checks(Extent::Whole)?),
        Work::Cargo(steps) => calls(steps, long, start + deadline)?,
        Work::Uml => uml::run(&Workspace::load()?, deadline)?,
        Work::Guest => guest::test(&Workspace::load()?, long, start + deadline)?,
    };
    let took = start.elapsed();
    let result = match end {
        End::Stuck => "STUCK",
        End::Failure(_) => "FAILED",
        End::Success if counts.failed > 0 => "FAILED",
        End::Success if counts.unsteady > 0 => "ok, unsteady",
        End::Success if took > budget * factor => "ok, over budget",
        End::Success => "ok",
    };
    Ok(Report {
        name: suite.name,
        budget,
        took,
        counts,
        result,
    })
}

/// Calls of cargo one after the other, up to the first that fails.
fn calls(steps: &[&[&str]], long: bool, deadline: Instant) -> Result<(End, Counts), Failure> {
    let mut counts = Counts::default();
    for step in steps {
        let outcome = again::run(|names| {
            let mut command = cargo_command();
            command.args(*step).args(again::only(names));
            if long {
                command.env(process::LONG, "1");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            process::run(&mut command, left)
        });
        let outcome = outcome.map_err(|e| format!("cargo: {e}"))?;
        counts += outcome.counts;
        if outcome.end != End::Success {
            // A suite that does not even compile has failed once.
            counts.failed = counts.failed.max(1);
            return Ok((outcome.end, counts));
        }
    }
    Ok((End::Success, counts))
}

fn summary(reports: &[Report]) -> Result<(), Failure> {
    println!();
    println!(
        "{:<12} {:>8} {:>9} {:>7} {:>7}  result",
        "suite", "budget", "took", "passed", "failed"
    );
    let mut total = Counts::default();
    for report in reports {
        println!(
            "{:<12} {:>6} s {:>7.1} s {:>7} {:>7}  {}",
            report.name,
            report.budget.as_secs(),
            report.took.as_secs_f64(),
            report.counts.passed,
            report.counts.failed,
            report.result
        );
        total += report.counts;
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.unsteady > 0 {
        println!(
            "{} of them only alone: look for \"unsteady\" above",
            total.unsteady
        );
    }
    if total.failed == 0 {
        return Ok(());
    }
    let bad: Vec<&str> = reports
        .iter()
        .filter(|r| r.counts.failed > 0)
        .map(|r| r.name)
        .collect();
    Err(Failure::Failed(format!("failed: {}", bad.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_chosen_by_name() {
        let names = |chosen: Result<Vec<&'static Suite>, Failure>| -> Vec<&'static str> {
            chosen
                .unwrap_or_default()
                .iter()
                .map(|suite| suite.name)
                .collect()
        };
        assert_eq!(names(choose(&[])).len(), SUITES.len());
        assert_eq!(names(choose(&["sim", "check"])), ["check", "sim"]);
        assert!(matches!(choose(&["no-such-suite"]), Err(Failure::Usage(_))));
    }

    #[test]
    fn all_budgets_fit_the_whole() {
        let minutes: u64 = SUITES.iter().map(|suite| suite.budget_minutes).sum();
        assert!(minutes <= 45, "{minutes}");
    }

    #[test]
    fn a_failed_suite_fails_the_run() {
        let report = |failed| Report {
            name: "unit",
            budget: Duration::from_secs(1),
            took: Duration::from_secs(1),
            counts: Counts {
                passed: 1,
                failed,
                unsteady: 0,
            },
            result: "",
        };
        summary(&[report(0)]).unwrap();
        assert!(summary(&[report(0), report(1)]).is_err());
    }

    #[test]
    fn packages_are_asked_for_once() {
        assert_eq!(unique(vec![PERL, PERL]).len(), 1);
    }
}
