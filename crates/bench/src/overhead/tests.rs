//! The whole benchmark with an engine that runs nothing: a script and the engine print readings
//! that were made up. What a report holds is looked at, not any time.

use super::*;
use crate::burn::Reading;
use crate::{Goal, Verdict};
use gleaner_engine::{
    Adopted, AttemptSpec, Capability, CollectedFile, Control, Ending, EngineError,
};
use gleaner_model::{AttemptId, Reason, Time, Usage};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

/// Ends every attempt at once, with the readings of native times `times`.
#[derive(Debug)]
struct Pretended {
    kind: gleaner_model::Engine,
    events: Mutex<Sender<EngineEvent>>,
    times: f64,
    printed: Mutex<BTreeMap<AttemptId, PathBuf>>,
    dir: PathBuf,
}

/// What the work prints: 10 ms a slice of each item, two slices.
fn printed(work: &str, times: f64) -> String {
    let items: &[&str] = match work {
        "cpu" => &["sieve", "dgemm", "integer", "float"],
        "memory" => &["read@4096", "write@4096", "touch@1048576"],
        "files" => &["write", "read", "small"],
        "calls" => &["getppid", "fork"],
        _ => &[],
    };
    let line = |item: &&str| {
        let reading = Reading {
            item: (*item).to_owned(),
            total_s: 0.02 * times,
            best_s: 0.01 * times,
            slices: 2,
            amount: 1000.0,
            sum: 5,
        };
        format!("{reading}\n")
    };
    items.iter().map(line).collect()
}

impl Engine for Pretended {
    fn kind(&self) -> gleaner_model::Engine {
        self.kind
    }

    fn probe(&self) -> Vec<Capability> {
        Vec::new()
    }

    fn start(&self, spec: AttemptSpec) -> Result<(), EngineError> {
        let work = spec.command.get(2).map_or("", String::as_str);
        // There is no numpy here.
        let reason = match spec.command[0].contains("python3") {
            true => Reason::Exit { code: 1 },
            false => Reason::Exit { code: 0 },
        };
        let file = self.dir.join(spec.attempt.to_string());
        fs::write(&file, printed(work, self.times)).unwrap();
        self.printed.lock().unwrap().insert(spec.attempt, file);
        let ending = Ending {
            reason,
            started: Some(Time { ms: 1 }),
            ended: Time { ms: 2 },
            wall_seconds: 1.0,
            paused_seconds: 0.0,
            usage: Usage {
                cpu_seconds: 1.0,
                ..Usage::default()
            },
            limits: Vec::new(),
            refused_calls: BTreeMap::new(),
            degraded: Vec::new(),
        };
        let event = EngineEvent::Ended {
            attempt: spec.attempt,
            ending: Box::new(ending),
        };
        self.events.lock().unwrap().send(event).unwrap();
        Ok(())
    }

    fn control(&self, _attempt: AttemptId, _control: Control) -> Result<(), EngineError> {
        Ok(())
    }

    fn beat(&self, _lease_left_ms: u64) {}

    fn usage(&self, attempt: AttemptId) -> Result<Usage, EngineError> {
        Err(EngineError::Unknown(attempt))
    }

    fn streams(&self, attempt: AttemptId) -> Result<[File; 2], EngineError> {
        Err(EngineError::Unknown(attempt))
    }

    fn collect(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError> {
        let file = File::open(&self.printed.lock().unwrap()[&attempt]).unwrap();
        Ok(vec![CollectedFile {
            name: "stdout".to_owned(),
            size: file.metadata().unwrap().len(),
            file,
            mode: 0o644,
        }])
    }

    fn discard(&self, attempt: AttemptId) {
        self.printed.lock().unwrap().remove(&attempt);
    }

    fn adopt(&self) -> Result<Vec<Adopted>, EngineError> {
        Ok(Vec::new())
    }
}

fn side(name: &str, kind: Kind, times: f64, dir: &Path) -> Side {
    let (sender, events) = channel();
    let home = dir.join(name);
    fs::create_dir(&home).unwrap();
    Side {
        name: name.to_owned(),
        kind,
        engine: Arc::new(Pretended {
            kind: gleaner_model::Engine::Process,
            events: Mutex::new(sender),
            times,
            printed: Mutex::default(),
            dir: home.clone(),
        }),
        events,
        home,
        next: 0,
    }
}

/// A run with a sandbox that costs nothing and a guest that costs 3 %.
fn report(only: &[Group], rounds: Option<u32>) -> (OverheadReport, Vec<Progress>) {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    let works = ["cpu", "memory", "files", "calls"];
    let cases: String = works
        .iter()
        .map(|work| {
            format!(
                "{work}) printf '{}' ;;\n",
                printed(work, 1.0).replace('\n', "\\n")
            )
        })
        .collect();
    fs::write(&program, format!("#!/bin/sh\ncase $2 in\n{cases}esac\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut sides = vec![
        side("process", Kind::Process, 1.0, dir.path()),
        side("vm", Kind::UserModeLinux, 1.03, dir.path()),
    ];
    let options = Options {
        program,
        dir: dir.path().to_owned(),
        only: only.to_vec(),
        length: Length::Quick,
        rounds,
        stop: Stop::default(),
    };
    let mut said = Vec::new();
    let report = run(&mut sides, &options, &mut |progress| said.push(progress)).unwrap();
    (report, said)
}

#[test]
fn a_report_has_a_table_for_each_part_and_its_promises() {
    let parts = [Group::Cpu, Group::Memory, Group::Files, Group::Calls];
    let (report, said) = report(&parts, Some(3));
    assert_eq!(report.setting.engines, ["process", "vm"]);
    let groups: Vec<Group> = report.tables.iter().map(|table| table.group).collect();
    assert_eq!(groups, parts);
    for line in report.tables.iter().flat_map(|table| &table.lines) {
        let [Some(process), Some(vm)] = line.engines[..] else {
            panic!("{line:?}");
        };
        assert_eq!((process.pairs, vm.pairs), (3, 3), "{line:?}");
        assert!((process.ratio - 1.0).abs() < 1e-6, "{line:?}");
        assert!((vm.ratio - 1.03).abs() < 1e-6, "{line:?}");
    }
    for (name, percent, goal) in [
        ("CPU-bound program, process over native", 0.0, 1.0),
        ("cache-resident arithmetic, vm over native", 3.0, 5.0),
        ("memory that was touched, process over native", 0.0, 1.0),
        ("memory that was touched, vm over native", 3.0, 5.0),
    ] {
        let row = report.rows.iter().find(|row| row.name == name).unwrap();
        assert!((row.figure - percent).abs() < 1e-4, "{row:?}");
        assert_eq!(row.goal, Some(Goal::AtMost(goal)));
        assert_eq!(row.verdict, Verdict::Met, "{row:?}");
    }
    // The guest's clock said 4 × 0.0206 s, and a whole guest took 1 s, working or not.
    let check = report
        .rows
        .iter()
        .find(|row| row.name.starts_with("host's count"));
    assert!(check.unwrap().figure.abs() < 1e-9);
    assert!(
        said.iter()
            .any(|progress| progress.what == "cpu, round 1, vm")
    );
    assert!(said.windows(2).all(|pair| pair[0].done <= pair[1].done));
    let text = markdown(&report);
    assert!(text.contains("| prime sieve of 200,000 |"), "{text}");
}

#[test]
fn rounds_end_when_the_interval_is_narrow_and_guests_have_fewer() {
    let (report, _) = report(&[Group::Cpu], None);
    let line = &report.tables[0].lines[0];
    let plan = plan(Group::Cpu, Length::Quick, 16).unwrap();
    let pairs = |engine: usize| line.engines[engine].unwrap().pairs;
    assert_eq!(pairs(0), plan.least as usize, "no spread at all");
    assert_eq!(pairs(1), plan.guests as usize);
    assert!(plan.least < plan.most);
}

#[test]
fn what_does_not_run_here_is_told() {
    let (report, _) = report(&[Group::Blas], Some(1));
    // Either python3 has no numpy, or the engines do not have it.
    assert!(!report.setting.missing.is_empty());
    for table in &report.tables {
        assert!(table.lines.iter().all(|line| line.engines == [None, None]));
    }
}

#[test]
fn starts_and_bytes_are_rows() {
    let (report, _) = report(&[Group::Start, Group::Io], None);
    assert!(report.tables.is_empty());
    for name in [
        "start to end of /bin/true, native, p50",
        "start to end of /bin/true, contained, p50",
        "start to end of /bin/true, vm, p50",
        "read and written for a task, process",
        "read and written for a task, vm",
    ] {
        assert!(report.rows.iter().any(|row| row.name == name), "{name}");
    }
}

#[test]
fn work_is_called_as_it_is_read() {
    // The pretended engine looks at the third word of the command.
    assert_eq!(Work::Cpu { slices: 3 }.args()[1], "cpu");
}
