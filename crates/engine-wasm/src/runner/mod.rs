//! Runs one program to its end, on any operating system.
//!
//! In: a module, arguments, environment, two directories, three streams, bounds. Out: a
//! [`Record`]. Nothing else of the host is in the program's reach: no network, no threads, no
//! file outside the two directories (paths are resolved one component at a time, links
//! included, by `cap-primitives`). It must not know of cages, limits of the host, or attempts.
//!
//! Memory is bounded where it is asked for, by a limiter of the store: what would pass the bound
//! ends the program. Time is bounded by a thread that counts its own wake-ups, not a clock, so
//! time in which the whole process stood still is not the program's. Where the process is there
//! for one program alone, that thread ends it. Else it counts up an epoch, at which compiled code
//! looks at every loop and call; that makes tight loops two or three times as slow, and does not
//! reach a program asleep in a call of the host.

mod code;
mod limits;
mod steady;
#[cfg(test)]
mod tests;

use crate::record::{End, Origin, Record};
pub(crate) use code::{Code, Ready, believe, precompile};
use code::{compile, not_runnable};
use limits::{Full, Late, Meter};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use steady::{Chance, SteadyMonotonic, SteadyWall};
use wasmtime::{Engine, Linker, Module, Store, Trap, UpdateDeadline};
use wasmtime_wasi::cli::{InputFile, OutputFile};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder};

/// Largest module that is read, in bytes. The interpreters of whole languages have 30 MB.
const MODULE_BYTES_MAX: u64 = 256 << 20;

/// Time between two looks at the clock by compiled code: a program is late by this at most.
const TICK: Duration = Duration::from_millis(50);

/// Bytes that one call of the host may copy for a program: a write of 64 MiB is none too large.
const CALL_BYTES_MAX: usize = 256 << 20;

/// Where programs find their directory, besides `.`; where a native program finds its own.
const SCRATCH: &str = "/scratch";

/// A program and all it is given.
#[derive(Debug)]
pub struct Program<'p> {
    /// The module's file, relative to `scratch` or below `/scratch`, and the arguments.
    pub command: &'p [String],
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// What it sees as `.` and `/scratch`.
    pub scratch: &'p Path,
    /// What it sees as `/tmp`.
    pub temporary: &'p Path,
    /// Standard input, output and error.
    pub streams: [File; 3],
    /// Bounds.
    pub bounds: Bounds,
    /// Whether clocks, chance and the bits of NaNs are the same in every run.
    pub deterministic: bool,
    /// What happens when its time is over.
    pub late: AtEnd,
    /// Its code, where that was compiled before.
    pub compiled: Option<Compiled>,
}

/// Code that was compiled before, from the same module and with the same settings.
#[derive(Debug)]
pub struct Compiled {
    pub(crate) code: Ready,
    pub(crate) origin: Origin,
    /// How long it took to get it.
    pub(crate) took: Duration,
}

/// What happens to a program whose time is over.
pub enum AtEnd {
    /// It is interrupted, and its record comes back as any other. Its code looks at a counter.
    Interrupt,
    /// This is called with its record, from another thread, and must end the process. Its code
    /// is none the slower.
    Call(Box<dyn FnOnce(Record) + Send>),
}

impl fmt::Debug for AtEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "Interrupt",
            Self::Call(_) => "Call",
        })
    }
}

/// What a program may use.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Linear memory and tables, in bytes.
    pub memory: u64,
    /// Time to run, compilation apart.
    pub time: Duration,
}

/// What belongs to a running program.
struct State {
    wasi: WasiP1Ctx,
    meter: Meter,
}

/// Where an error comes from that is neither a trap nor a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The host, which could not make the instance.
    Making,
    /// The program, which called the host in a way that no program may.
    Running,
}

/// Runs the program. Must not be called from a thread of an asynchronous runtime.
#[must_use]
pub fn run(mut program: Program<'_>) -> Record {
    let Some(name) = program.command.first().cloned() else {
        return Record::of(End::Failed("the command is empty".to_owned()));
    };
    let code = match program.compiled.take() {
        Some(compiled) => Ok(compiled),
        None => compile_here(&name, &program),
    };
    let Compiled { code, origin, took } = match code {
        Ok(code) => code,
        Err(end) => return Record::of(end),
    };
    let record = Record {
        compile_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        code: origin,
        ..Record::of(End::NoProgram)
    };
    let (end, memory_peak) = match start(&name, &code.0, (program, record.clone())) {
        Ok(ended) => ended,
        Err(why) => (End::Failed(why), 0),
    };
    Record {
        end,
        memory_peak,
        ..record
    }
}

/// The program's code, from its file.
fn compile_here(name: &str, program: &Program<'_>) -> Result<Compiled, End> {
    let bytes = match read(name, program.scratch) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(End::NoProgram),
        Err(error) => return Err(End::Failed(format!("{name} cannot be read: {error}"))),
    };
    let begun = Instant::now();
    let code = Code {
        deterministic: program.deterministic,
        interruptible: matches!(program.late, AtEnd::Interrupt),
    };
    let module = compile(name, &bytes, code).map_err(End::Failed)?;
    Ok(Compiled {
        code: Ready(module),
        origin: Origin::Compiled,
        took: begun.elapsed(),
    })
}

/// The module's file; none where there is no such file.
pub(crate) fn read(name: &str, scratch: &Path) -> io::Result<Option<Vec<u8>>> {
    let Some(path) = inside(name, scratch) else {
        return Ok(None);
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MODULE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MODULE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 256 MiB"));
    }
    Ok(Some(bytes))
}

/// A file of the scratch directory by its name there; none for a name that leads elsewhere.
fn inside(name: &str, scratch: &Path) -> Option<PathBuf> {
    let name = Path::new(name);
    let name = name.strip_prefix(SCRATCH).unwrap_or(name);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    name.components().all(plain).then(|| scratch.join(name))
}

/// From a module to its end and the peak of its memory.
fn start(
    name: &str,
    module: &Module,
    (mut program, record): (Program<'_>, Record),
) -> Result<(End, u64), String> {
    let engine = module.engine();
    let bounds = program.bounds;
    let late = std::mem::replace(&mut program.late, AtEnd::Interrupt);
    let mut stderr = program.streams[2]
        .try_clone()
        .map_err(|error| format!("the streams cannot be shared: {error}"))?;
    let linker = linker(engine).map_err(|error| format!("WASI is not to be had: {error:#}"))?;
    let ready = linker
        .instantiate_pre(module)
        .map_err(|error| not_runnable(name, module, &error))?;
    let wasi = wasi(program).map_err(|error| format!("{name} could not be started: {error:#}"))?;
    let meter = Meter::new(bounds.memory);
    let peak = meter.shared_peak();
    let mut store = Store::new(engine, State { wasi, meter });
    store.limiter(|state| &mut state.meter);
    store.set_hostcall_fuel(CALL_BYTES_MAX);
    let watched = match late {
        AtEnd::Interrupt => {
            interrupt(&mut store, ticks(bounds.time));
            None
        }
        AtEnd::Call(call) => Some(watch(ticks(bounds.time), move || {
            call(Record {
                end: End::Time,
                memory_peak: peak.load(Ordering::Relaxed),
                ..record
            });
        })),
    };
    // Timers of the program run on a thread of this; without it one would be made with a thread
    // for each processor.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .map_err(|error| format!("no thread for timers is to be had: {error}"))?;
    let _timers = runtime.enter();
    let instance = ready.instantiate(&mut store);
    let mut during = Phase::Making;
    let ended = instance.and_then(|instance| {
        let main = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
        during = Phase::Running;
        main.call(&mut store, ())
    });
    if watched.is_some_and(|over| over.swap(true, Ordering::SeqCst)) {
        // The watch was quicker, and ends the process.
        loop {
            std::thread::park();
        }
    }
    let meter = &store.data().meter;
    let end = match &ended {
        Ok(()) => End::Exit(0),
        Err(error) => end_of(error, during, meter, &mut stderr),
    };
    Ok((end, meter.peak()))
}

/// A bound of time in ticks, rounded up.
fn ticks(time: Duration) -> u64 {
    let ticks = time.as_millis().div_ceil(TICK.as_millis());
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// Ends the program by its own code when that many ticks are over.
fn interrupt(store: &mut Store<State>, mut ticks_left: u64) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| match ticks_left {
        0 => Err(Late.into()),
        _ => {
            ticks_left -= 1;
            Ok(UpdateDeadline::Continue(1))
        }
    });
    // For as long as anybody needs the engine.
    let engine = store.engine().weak();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(TICK);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => break,
            }
        }
    });
}

/// Calls when that many ticks are over, unless the program was quicker: whoever sets the mark
/// first was.
fn watch(ticks: u64, call: impl FnOnce() + Send + 'static) -> Arc<AtomicBool> {
    let over = Arc::new(AtomicBool::new(false));
    let mark = Arc::clone(&over);
    std::thread::spawn(move || {
        for _ in 0..ticks {
            std::thread::sleep(TICK);
            if mark.load(Ordering::Relaxed) {
                return;
            }
        }
        if !mark.swap(true, Ordering::SeqCst) {
            call();
        }
    });
    over
}

/// Preview 1, and an end with any of the codes that other programs may end with: the library
/// takes a code of 126 or more for a mistake.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_sync(&mut linker, |state: &mut State| &mut state.wasi)?;
    linker.allow_shadowing(true);
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |code: i32| -> wasmtime::Result<()> { Err(I32Exit(code & 0xff).into()) },
    )?;
    linker.allow_shadowing(false);
    Ok(linker)
}

fn wasi(program: Program<'_>) -> wasmtime::Result<WasiP1Ctx> {
    let mut builder = WasiCtxBuilder::new();
    let [stdin, stdout, stderr] = program.streams;
    builder
        .allow_blocking_current_thread(true)
        .args(program.command)
        .envs(&program.env)
        .stdin(InputFile::new(stdin))
        .stdout(OutputFile::new(stdout))
        .stderr(OutputFile::new(stderr))
        .preopened_dir(program.scratch, ".", FsPerms::ReadWrite)?
        .preopened_dir(program.scratch, SCRATCH, FsPerms::ReadWrite)?
        .preopened_dir(program.temporary, "/tmp", FsPerms::ReadWrite)?;
    if program.deterministic {
        builder
            .wall_clock(SteadyWall::default())
            .monotonic_clock(SteadyMonotonic::default())
            .secure_random(Chance::of(program.command, &program.env))
            .insecure_random(Chance::of(program.command, &program.env))
            .insecure_random_seed(0);
    }
    Ok(builder.build_p1())
}

/// What an error of the program means. A trap is told on its standard error, with the functions
/// it came through where the module has their names.
fn end_of(error: &wasmtime::Error, during: Phase, meter: &Meter, stderr: &mut File) -> End {
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return End::Exit(*code);
    }
    if error.is::<Late>() {
        return End::Time;
    }
    if error.is::<Full>() || meter.is_full() {
        return End::Memory;
    }
    let trap = error.downcast_ref::<Trap>();
    if trap.is_none() && during == Phase::Making {
        return End::Failed(format!("the program could not be started: {error:#}"));
    }
    let text = format!("gleaner: the program was ended: {error:?}\n");
    let _nobody_reads = stderr.write_all(text.as_bytes());
    End::Trap {
        signal: trap.map_or(SYS, |trap| signal_of(*trap)),
    }
}

/// The signal of a call that nobody may make.
const SYS: i32 = 31;

/// The signals that native programs get for the same.
const SIGNALS: [(Trap, i32); 5] = [
    (Trap::UnreachableCodeReached, 6),
    (Trap::IntegerDivisionByZero, 8),
    (Trap::IntegerOverflow, 8),
    (Trap::MemoryOutOfBounds, 11),
    (Trap::StackOverflow, 11),
];

/// The signal that a native program would have got; that of an illegal instruction for what none
/// can do.
fn signal_of(trap: Trap) -> i32 {
    const ILL: i32 = 4;
    let known = SIGNALS.iter().find(|(of, _)| *of == trap);
    known.map_or(ILL, |(_, signal)| *signal)
}
