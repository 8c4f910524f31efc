//! `gleaner bench overhead`: arguments, the engines of this PC, and the report as tables, JSON,
//! Markdown or a picture.

use super::shown::watched;
use crate::out::{self, Failure, Outcome};
use crate::table::{self, Look};
use gleaner_bench::overhead::{
    Group, Kind, Length, Options, OverheadReport, Side, directory, markdown, picture, run,
};
use gleaner_bench::{BenchError, Progress, Stop, Verdict};
use gleaner_engine::{Engine, EngineError, Events};
use gleaner_engine_process::{ProcessConfig, ProcessEngine};
use gleaner_engine_vm::image::{Image, default_dir, find_program};
use gleaner_engine_vm::probe::{self, Remembered};
use gleaner_engine_vm::{Accelerator, VmConfig, VmEngine, machine};
use gleaner_model::Engine as Name;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

/// Where files go by default: a directory on a disk, where the temporary one may be in memory.
const DIR: &str = "/var/tmp";

#[derive(Debug, clap::Args)]
pub(crate) struct OverheadArgs {
    /// A first look in about a minute
    #[arg(long)]
    quick: bool,
    /// Engines to compare with native: process, vm, wasm [default: those that run here]
    #[arg(long, value_delimiter = ',', value_name = "NAMES", value_parser = engine)]
    engines: Vec<Name>,
    /// Parts to run: cpu, blas, memory, files, calls, start, io [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<Group>,
    /// Rounds of each part [default: until the interval is narrow, within bounds]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: Option<u32>,
    /// Directory on the disk whose files are measured
    #[arg(long, default_value = DIR)]
    dir: PathBuf,
    /// Write the picture to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print the report as Markdown tables
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

fn engine(text: &str) -> Result<Name, String> {
    match text {
        "process" => Ok(Name::Process),
        "vm" => Ok(Name::Vm),
        "wasm" if cfg!(feature = "wasm") => Ok(Name::Wasm),
        "wasm" => Err("this build has no engine for WebAssembly".to_owned()),
        _ => Err("write process, vm or wasm".to_owned()),
    }
}

impl OverheadArgs {
    pub(super) fn run(self, program: PathBuf) -> Outcome {
        let stop = Stop::default();
        let (told, shown) = (stop.clone(), (self.json, self.markdown, self.svg.clone()));
        let report = watched(stop, move |say| self.measure(program, told, say))?;
        match report {
            Some(report) => show(&report, shown),
            None => Ok(out::INTERRUPTED),
        }
    }

    fn measure(
        self,
        program: PathBuf,
        stop: Stop,
        say: &mut dyn FnMut(Progress),
    ) -> Result<OverheadReport, BenchError> {
        let dir = directory(&self.dir)?;
        let mut sides = sides(&self.engines, dir.path(), &program, say)?;
        let options = Options {
            program,
            dir: dir.path().to_owned(),
            only: self.only,
            length: if self.quick {
                Length::Quick
            } else {
                Length::Full
            },
            rounds: self.rounds,
            stop,
        };
        run(&mut sides, &options, say)
    }
}

/// The engines that were asked for, else those that run here.
fn sides(
    asked: &[Name],
    dir: &Path,
    program: &Path,
    say: &mut dyn FnMut(Progress),
) -> Result<Vec<Side>, BenchError> {
    let mut sides = Vec::new();
    if asked.is_empty() || asked.contains(&Name::Process) {
        let home = dir.join("process");
        let make = |home, events| {
            let engine = ProcessEngine::new(ProcessConfig::new(home), events)?;
            Ok(Arc::new(engine) as Arc<dyn Engine>)
        };
        sides.push(side("process", Kind::Process, home, make)?);
    }
    #[cfg(feature = "wasm")]
    if asked.is_empty() || asked.contains(&Name::Wasm) {
        sides.push(web_assembly(dir, program)?);
    }
    if asked.is_empty() || asked.contains(&Name::Vm) {
        say(Progress {
            done: 0,
            total: 0,
            left: None,
            what: "looking whether guests run here".to_owned(),
        });
        match guests(dir, program) {
            Ok(guests) => sides.push(guests),
            Err(why) if asked.is_empty() => out::say(format!("bench: no guests: {why}")),
            Err(why) => return Err(why),
        }
    }
    Ok(sides)
}

fn side(
    name: &str,
    kind: Kind,
    home: PathBuf,
    make: impl FnOnce(PathBuf, Events) -> Result<Arc<dyn Engine>, EngineError>,
) -> Result<Side, BenchError> {
    let (sender, events) = mpsc::channel();
    let sink = Arc::new(move |event| {
        // The benchmark may have ended before its last shim.
        let _ended = sender.send(event);
    });
    let engine =
        make(home.clone(), sink).map_err(|problem| BenchError::Broken(problem.to_string()))?;
    Ok(Side {
        name: name.to_owned(),
        kind,
        engine,
        events,
        home,
        next: 0,
    })
}

#[cfg(feature = "wasm")]
fn web_assembly(dir: &Path, program: &Path) -> Result<Side, BenchError> {
    use gleaner_engine_wasm::{WasmConfig, WasmEngine};
    let runner = program.to_owned();
    side("wasm", Kind::Wasm, dir.join("wasm"), |home, events| {
        let process = ProcessConfig::new(home);
        let engine = WasmEngine::new(WasmConfig { process, runner }, events)?;
        Ok(Arc::new(engine) as Arc<dyn Engine>)
    })
}

/// The engine for guests, once one has booted.
fn guests(dir: &Path, program: &Path) -> Result<Side, BenchError> {
    let broken = |text: String| BenchError::Broken(text);
    let image_dir = default_dir();
    let guest = find_program(program);
    let image = match &guest {
        Ok(guest) => Image::open_or_build(&image_dir, guest),
        // One that is there already will do.
        Err(_) => Image::open(&image_dir),
    };
    let image = image.map_err(|problem| match &guest {
        Ok(_) => broken(problem.to_string()),
        Err(why) => broken(format!("{problem}, which takes this first: {why}")),
    })?;
    let home = dir.join("vm");
    let mut config = VmConfig::new(ProcessConfig::new(home.clone()), image_dir);
    config.program = guest.ok();
    config.accelerator = machine::asked().map_err(broken)?;
    let trials = probe::trials(&config, &image, Remembered::Believed);
    let Some(accelerator) = probe::chosen(&trials) else {
        let rows = probe::trial_rows(&trials).into_iter();
        let why: Vec<String> = rows.map(|row| row.found).collect();
        return Err(broken(format!("no guest runs here: {}", why.join("; "))));
    };
    config.accelerator = Some(accelerator);
    let kind = match accelerator {
        Accelerator::Kvm => Kind::Kvm,
        Accelerator::Uml => Kind::UserModeLinux,
        Accelerator::Tcg => Kind::Tcg,
    };
    let name = format!("vm ({})", accelerator.name());
    side(&name, kind, home, |_, events| {
        Ok(Arc::new(VmEngine::new(config, events)?) as Arc<dyn Engine>)
    })
}

fn show(
    report: &OverheadReport,
    (json, as_markdown, svg): (bool, bool, Option<PathBuf>),
) -> Outcome {
    if let Some(file) = svg {
        std::fs::write(&file, picture(report)).map_err(|problem| {
            Failure::usage(format!("cannot write {}: {problem}", file.display()))
        })?;
    }
    match () {
        () if json => out::json(report)?,
        () if as_markdown => out::print(&markdown(report))?,
        () => out::print(&table::overhead::report(report, Look::of_stdout()))?,
    }
    let missed = report.rows.iter().any(|row| row.verdict == Verdict::Missed);
    Ok(if missed { out::TASK_FAILED } else { 0 })
}
