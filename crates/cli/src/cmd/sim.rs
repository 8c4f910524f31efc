//! `gleaner sim`: fleets on virtual time, with the real brains.

use crate::out::{self, Failure, Outcome};
use crate::table::{self, Look};
use gleaner_sim::{Options, Regime, Report, Trace};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Most nodes of a simulated fleet: what one server carries, ten times over.
const NODES_MAX: u32 = 1_000_000;
/// Nodes of a simulated fleet that replays nothing.
const NODES: u32 = 1000;
/// Most bytes of a recording: decades of a large pool; more is not a recording.
const TRACE_MAX: u64 = 1 << 30;
/// Most virtual days.
const DAYS_MAX: f64 = 3650.0;

/// Simulate a fleet: the real brains of server and nodes on virtual time
///
/// The same options give the same hash on any machine. A broken invariant ends it with exit code 1
/// and the command that shows it again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// PCs: 1000, or as many as the recording has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    nodes: Option<u32>,
    /// Virtual days
    #[arg(long, value_name = "D", default_value = "1", allow_negative_numbers = true, value_parser = days)]
    days: f64,
    /// Everything left to chance follows from it
    #[arg(long, value_name = "S", default_value = "1")]
    seed: u64,
    /// When a PC works: continuous, screensaver, idle-after or night; or by the rules of others,
    /// peer-condor or peer-boinc
    #[arg(long, value_name = "P", default_value = "continuous", value_parser = regime)]
    policy: Regime,
    /// Owners out of a recording instead of fits: what `gleaner owner record export` prints, or a
    /// table of samples or of changes
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
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

fn regime(word: &str) -> Result<Regime, String> {
    Regime::from_word(word).ok_or_else(|| {
        let words = Regime::ALL.map(Regime::as_str);
        format!("write one of {}", words.join(", "))
    })
}

/// Reads a recording.
fn trace(path: &Path) -> Result<Trace, Failure> {
    let wrong = |what: String| Failure::usage(format!("{}: {what}", path.display()));
    let size = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
    if size.len() > TRACE_MAX {
        return Err(wrong("more than 1 GiB; cut it into parts".into()));
    }
    let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| wrong("not a text; unpack it first (gunzip, unxz)".into()))?;
    let name = path.display().to_string();
    Trace::parse(&name, &text).map_err(|e| wrong(e.to_string()))
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let recorded = self.trace.as_deref().map(trace).transpose()?;
        let machines = recorded.as_ref().map(Trace::machines);
        let machines = machines.map_or(NODES, |n| u32::try_from(n).unwrap_or(NODES_MAX));
        let options = Options {
            nodes: self.nodes.unwrap_or(machines),
            days: self.days,
            seed: self.seed,
            faults: self.faults,
            regime: self.policy,
            trace: recorded.map(Arc::new),
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
        ("policy", report.policy.to_owned()),
        ("idle CPU time harvested", percent(report.harvested_share)),
        ("idle CPU time offered", percent(report.offered_share)),
        ("changes of a verdict", report.verdict_changes.to_string()),
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
        ("PCs switched off", report.power_offs.to_string()),
        ("PCs without power", report.power_losses.to_string()),
        ("agents killed", report.agent_kills.to_string()),
        ("offers changed", report.offers.to_string()),
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
            width: None,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        assert!(text(&report, look).contains(&report.hash));
    }

    #[test]
    fn days_and_policies_are_checked() {
        assert!(days("0").unwrap_err().contains("above 0"));
        assert!(days("NaN").is_err_and(|said| said.contains("number of days")));
        assert!(regime("never").unwrap_err().contains("idle-after"));
        assert!(regime("never").unwrap_err().contains("peer-boinc"));
    }

    #[test]
    fn a_recording_is_read_or_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("usage.csv");
        std::fs::write(&path, "machine,dt_s,state\n1,700000000,U\n1,9000000,O\n").unwrap();
        assert_eq!(trace(&path).ok().map(|trace| trace.machines()), Some(1));
        std::fs::write(&path, [0xfd, b'7', b'z']).unwrap();
        let said = trace(&path).err().map(|failure| failure.message);
        assert!(said.is_some_and(|said| said.contains("usage.csv: not a text; unpack it")));
        let none = trace(&dir.path().join("none")).err();
        assert!(none.is_some_and(|failure| failure.message.contains("none")));
    }
}
