//! `gleaner sim`: fleets on virtual time, with the real brains.

use crate::out::{self, Failure, Outcome};
use crate::table::{self, Look};
use gleaner_sim::{Options, Policy, Report};
use std::time::Instant;

/// Most nodes of a simulated fleet: what one server carries, ten times over.
const NODES_MAX: u32 = 1_000_000;
/// Most virtual days.
const DAYS_MAX: f64 = 3650.0;

/// Simulate a fleet: the real brains of server and nodes on virtual time
///
/// The same options give the same hash on any machine. A broken invariant ends it with exit code 1
/// and the command that shows it again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// PCs
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    nodes: u32,
    /// Virtual days
    #[arg(long, value_name = "D", default_value = "1", value_parser = days)]
    days: f64,
    /// Everything left to chance follows from it
    #[arg(long, value_name = "S", default_value = "1")]
    seed: u64,
    /// When a PC works: continuous, screensaver, idle-after or night
    #[arg(long, value_name = "P", default_value = "continuous", value_parser = policy)]
    policy: Policy,
    /// Links break, PCs lose power, agents and the server are killed, users change their minds
    #[arg(long)]
    faults: bool,
    /// Check every invariant after every step: slow
    #[arg(long)]
    check_all: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

fn days(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(days) if days > 0.0 && days <= DAYS_MAX => Ok(days),
        _ => Err(format!(
            "write a number of days above 0, at most {DAYS_MAX}"
        )),
    }
}

fn policy(word: &str) -> Result<Policy, String> {
    Policy::from_word(word).ok_or_else(|| {
        let words: Vec<&str> = Policy::ALL.iter().map(|policy| policy.as_str()).collect();
        format!("write one of {}", words.join(", "))
    })
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let options = Options {
            nodes: self.nodes,
            days: self.days,
            seed: self.seed,
            faults: self.faults,
            policy: self.policy,
            check_all: self.check_all,
        };
        let started = Instant::now();
        let mut report = gleaner_sim::run(&options)
            .map_err(|broken| Failure::new(out::TASK_FAILED, broken.to_string()))?;
        report.steps_per_second = Some(rate(report.steps, started.elapsed().as_secs_f64()));
        if self.json {
            out::json(&report)?;
        } else {
            out::print(&text(&report, Look::of_stdout()))?;
        }
        Ok(0)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate is shown with three digits"
)]
fn rate(steps: u64, seconds: f64) -> f64 {
    steps as f64 / seconds.max(1e-9)
}

fn text(report: &Report, look: Look) -> String {
    let mut rows = table::table(look, &["SIMULATED", ""]);
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    for (name, value) in [
        ("nodes", report.nodes.to_string()),
        ("virtual days", report.days.to_string()),
        ("seed", report.seed.to_string()),
        ("hash", report.hash.clone()),
        ("steps", report.steps.to_string()),
        (
            "steps a second",
            format!("{:.0}", report.steps_per_second.unwrap_or(0.0)),
        ),
        ("idle CPU time harvested", percent(report.harvested_share)),
        (
            "wasted CPU seconds",
            format!("{:.0}", report.wasted_cpu_seconds),
        ),
        ("difference of fair shares, mean", percent(report.share_gap)),
        ("jobs", report.jobs.to_string()),
        ("tasks", report.tasks.to_string()),
        ("tasks done", report.tasks_done.to_string()),
        ("tasks failed", report.tasks_failed.to_string()),
        ("tasks cancelled", report.tasks_cancelled.to_string()),
        ("attempts", report.attempts.to_string()),
        ("attempts lost", report.attempts_lost.to_string()),
        ("attempts evicted", report.attempts_evicted.to_string()),
        ("links broken", report.link_breaks.to_string()),
        ("PCs without power", report.power_losses.to_string()),
        ("agents killed", report.agent_kills.to_string()),
        ("server killed", report.server_kills.to_string()),
        ("checks of all invariants", report.checks.to_string()),
    ] {
        rows.add_row(vec![name.to_owned(), value]);
    }
    table::text(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_report_and_json_is_small() {
        let options = Options {
            nodes: 3,
            days: 0.01,
            ..Options::default()
        };
        let report = gleaner_sim::run(&options).unwrap();
        assert_eq!(gleaner_sim::run(&options).unwrap().hash, report.hash);
        let json = serde_json::to_string_pretty(&report).unwrap();
        assert!(json.len() < 64 << 10);
        for key in ["hash", "steps", "steps_per_second", "harvested_share"] {
            assert!(json.contains(&format!("\"{key}\"")), "{key}");
        }
        let look = Look {
            colour: false,
            fold: false,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        assert!(text(&report, look).contains(&report.hash));
    }

    #[test]
    fn days_and_policies_are_checked() {
        assert!(days("0").unwrap_err().contains("above 0"));
        assert!(days("NaN").is_err_and(|said| said.contains("number of days")));
        assert!(policy("never").unwrap_err().contains("idle-after"));
    }
}
