//! `gleaner doctor`: what this PC can do, and the fix for what it cannot.

use crate::form::Form;
use crate::out::{self, Outcome};
use crate::table::{self, Look, Tone};
use gleaner_engine::{Capability, Level};
use gleaner_engine_process::ProcessConfig;
use gleaner_engine_process::cgroup::{Backend, DetectOptions};
use gleaner_engine_process::priority::SelfTest;
use gleaner_engine_process::probe::{ProbeOptions, probe as probe_processes};
use gleaner_engine_vm::{VmConfig, image, machine, probe};
use gleaner_sense::{SenseConfig, Sensors, SourceReport, SourceState};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// How long the PC's sensors may take to say their first word.
const SENSORS_WAIT: Duration = Duration::from_secs(4);

/// Say what this PC can do, and the fix for what it cannot
///
/// Exits 0 if tasks can run here, else 4. Takes two seconds: idle priority is measured. Guests are
/// tried once after each start of the PC, which takes some seconds more.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out the measurement of idle priority and the trial of guests
    #[arg(long)]
    quick: bool,
    /// Where an agent would keep its data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

/// What `--json` prints of each capability.
#[derive(Debug, Serialize)]
struct Row<'c> {
    id: String,
    name: &'c str,
    state: Level,
    found: &'c str,
    fix: Option<&'c str>,
}

impl<'c> Row<'c> {
    fn of(capability: &'c Capability) -> Self {
        Self {
            id: id(capability),
            name: &capability.name,
            state: capability.level,
            found: &capability.found,
            fix: capability.fix.as_deref(),
        }
    }
}

fn id(capability: &Capability) -> String {
    capability.name.to_lowercase().replace(' ', "-")
}

impl Args {
    /// Runs before any thread exists, since trials fork.
    pub(crate) fn run(self) -> Outcome {
        // Before the groups are looked for: that may move us, and the owner's side of the
        // measurement has to stay where the owner is.
        let self_test = std::env::current_exe().ok().filter(|_| !self.quick);
        let self_test = self_test.map(|program| SelfTest::prepare(&program));
        let backend = Backend::detect(&DetectOptions::default());
        let options = ProbeOptions {
            scratch: self.data.clone().unwrap_or_else(std::env::temp_dir),
            uid_range: None,
            self_test: self_test.map(|test| test.run(&backend, None)),
        };
        let mut found = probe_processes(&backend, &options);
        found.extend(guests(self.quick));
        found.extend(web_assembly());
        found.extend(sensors());
        self.print(&found)?;
        Ok(exit_code(&found))
    }

    fn print(&self, found: &[Capability]) -> Result<(), out::Failure> {
        if self.form.json {
            return out::json(&found.iter().map(Row::of).collect::<Vec<_>>());
        }
        if self.form.quiet {
            let weak = found.iter().filter(|row| row.level != Level::Good);
            return out::print(&weak.map(|row| format!("{}\n", id(row))).collect::<String>());
        }
        out::print(&text(found, Look::of_stdout()))
    }
}

/// What there is of guests. Tasks that ask for none run without.
fn guests(quick: bool) -> Vec<Capability> {
    let dir = image::default_dir();
    let has_groups = Backend::detect(&DetectOptions::default()).has_groups();
    let mut config = VmConfig::new(ProcessConfig::new(dir.with_extension("engine")), dir);
    let mut rows = match machine::asked() {
        _ if quick => probe::remembered(&config.image, has_groups),
        Ok(accelerator) => {
            config.accelerator = accelerator;
            probe::found(&config, has_groups)
        }
        Err(error) => vec![Capability {
            name: "guest trial".to_owned(),
            level: Level::Missing,
            found: error,
            fix: Some(format!("set {} otherwise, or not at all", machine::SETTING)),
        }],
    };
    for row in &mut rows {
        row.level = row.level.min(Level::Degraded);
    }
    rows
}

/// Whether programs of WebAssembly run. Tasks that ask for none run without.
#[cfg(feature = "wasm")]
fn web_assembly() -> Option<Capability> {
    use gleaner_engine_wasm::{WasmConfig, trial};
    let dir = tempfile::tempdir().ok()?;
    let mut row = trial(&WasmConfig {
        process: ProcessConfig::new(dir.path().join("wasm")),
        runner: std::env::current_exe().ok()?,
    });
    row.level = row.level.min(Level::Degraded);
    Some(row)
}

/// This build runs none.
#[cfg(not(feature = "wasm"))]
fn web_assembly() -> Option<Capability> {
    None
}

/// How each source that tells what the owner does is read. What this PC does not have is no lack.
fn sensors() -> Vec<Capability> {
    let sources = Sensors::look_once(SenseConfig::this_pc(), SENSORS_WAIT);
    let looked_at = |source: &SourceReport| !source.is_off();
    sources.into_iter().filter(looked_at).map(sensor).collect()
}

fn sensor(source: SourceReport) -> Capability {
    let (level, found) = match source.state {
        SourceState::Seen => (Level::Good, source.detail),
        SourceState::Absent => (Level::Good, format!("none here: {}", source.detail)),
        SourceState::Failed => (Level::Degraded, source.detail),
    };
    Capability {
        name: format!("sense {}", source.name),
        level,
        found,
        fix: source.fix,
    }
}

/// 0 where the engine would take work.
fn exit_code(found: &[Capability]) -> u8 {
    match found.iter().all(|row| row.level != Level::Missing) {
        true => 0,
        false => out::REFUSED,
    }
}

fn text(found: &[Capability], look: Look) -> String {
    let mut rows = table::table(look, &["CAPABILITY", "LEVEL", "FOUND"]);
    for row in found {
        let (word, tone) = match row.level {
            Level::Good => ("good", Tone::Good),
            Level::Degraded => ("degraded", Tone::Held),
            Level::Missing => ("missing", Tone::Bad),
        };
        rows.add_row(vec![
            (&row.name).into(),
            table::toned(word, tone),
            comfy_table::Cell::new(&row.found),
        ]);
    }
    let mut text = table::text(rows);
    // Under the table, whole: commands are copied from here.
    for row in found {
        if let Some(fix) = &row.fix {
            text.push_str("\nto get ");
            text.push_str(&row.name);
            text.push_str(":\n  ");
            text.push_str(fix);
            text.push('\n');
        }
    }
    text.push_str(match exit_code(found) {
        0 => "\nTasks can run here.\n",
        _ => "\nTasks cannot run here until what is missing is there.\n",
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, level: Level, fix: Option<&str>) -> Capability {
        Capability {
            name: name.into(),
            level,
            found: "found".into(),
            fix: fix.map(str::to_owned),
        }
    }

    #[test]
    fn a_sensor_that_fails_is_no_reason_to_refuse() {
        let source = |state| SourceReport {
            name: "input",
            state,
            age: None,
            detail: "denied".to_owned(),
            fix: Some("sudo this".to_owned()),
        };
        let failed = sensor(source(SourceState::Failed));
        assert_eq!(
            (failed.level, failed.fix.as_deref()),
            (Level::Degraded, Some("sudo this"))
        );
        assert_eq!(exit_code(&[failed]), 0);
        let absent = sensor(source(SourceState::Absent));
        assert_eq!(
            (absent.level, absent.found.as_str()),
            (Level::Good, "none here: denied")
        );
        assert_eq!(sensor(source(SourceState::Seen)).level, Level::Good);
    }

    #[test]
    fn fixes_stand_under_the_table_and_the_end_says_what_holds() {
        let look = Look {
            colour: false,
            width: None,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        let mut found = vec![
            row("groups", Level::Good, None),
            row("Landlock", Level::Degraded, Some("sudo this")),
        ];
        expect_test::expect![[r#"
            CAPABILITY  LEVEL     FOUND
            groups      good      found
            Landlock    degraded  found

            to get Landlock:
              sudo this

            Tasks can run here.
        "#]]
        .assert_eq(&text(&found, look));
        assert_eq!(exit_code(&found), 0);
        found.push(row("user namespaces", Level::Missing, Some("sudo that")));
        assert!(text(&found, look).contains("cannot run here"));
        assert_eq!(exit_code(&found), 4);
        let json = serde_json::to_value(Row::of(&found[2])).unwrap();
        assert_eq!(json["id"], "user-namespaces");
        assert_eq!(json["state"], "missing");
    }
}
