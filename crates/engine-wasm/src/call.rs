//! The hidden call of `gleaner` that runs one program: what lies in the cage around the runner.
//!
//! In: a directory that holds the task and the program's own directory. Out: a record beside
//! them. The call's own exit code says only whether that record was written.
//!
//! Code is compiled by another process, which runs nothing else and is over before the program
//! begins. What it leaves for later attempts carries a mark that takes the attempt's seal to make,
//! and the seal goes with it: so a program that broke out of its runner can change that code but
//! not mark it. Who breaks the compiler can leave any code for its own module, which it could
//! also do by being another module.

use crate::cache::{SECRET_BYTES, mark_of};
use crate::record::{
    CODE_FILE, End, MARK_FILE, Origin, RECORD_FILE, Record, RunnerTask, SEAL_FILE, TASK_FILE, WORK,
};
use crate::runner::{AtEnd, Bounds, Code, Compiled, Program, believe, precompile, read, run};
use gleaner_engine_process::PROGRAM_PATH;
use gleaner_model::Digest;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The first argument of the call.
pub(crate) const WASM_COMMAND: &str = "__wasm";

/// The word behind the directory that asks for code alone.
const COMPILE: &str = "compile";

/// Directory of scratch for temporary files; cages make it.
const TEMPORARY: &str = ".tmp";

/// Whether these arguments (the program's own name first) ask for a runner.
#[must_use]
pub fn is_wasm_call(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|word| word == WASM_COMMAND)
}

/// Runs the program that the directory in the arguments describes.
#[must_use]
pub fn wasm_main(args: &[OsString]) -> ExitCode {
    let Some(dir) = args.get(2) else {
        return ExitCode::from(2);
    };
    let dir = Path::new(dir);
    if args.get(3).is_some_and(|word| word == COMPILE) {
        return match compile(dir) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_the_runner_finds_out_why) => ExitCode::FAILURE,
        };
    }
    let record = task(dir).unwrap_or_else(|error| {
        let why = format!("the runner cannot work in its cage: {error}");
        Record::of(End::Failed(why))
    });
    match write(dir, &record) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn task(dir: &Path) -> io::Result<Record> {
    let task: RunnerTask = serde_json::from_slice(&fs::read(dir.join(TASK_FILE))?)?;
    let (scratch, temporary) = (dir.join(WORK), dir.join(TEMPORARY));
    // Without a single input there is none yet.
    for place in [&scratch, &temporary] {
        fs::create_dir_all(place)?;
    }
    let compiled = compiled(dir, &task)?;
    let record_at = dir.to_owned();
    let ends = Box::new(move |record: Record| {
        let _nobody_could_be_told = write(&record_at, &record);
        end();
    });
    Ok(run(Program {
        command: &task.command,
        env: task.env.into_iter().collect(),
        scratch: &scratch,
        temporary: &temporary,
        streams: streams()?,
        bounds: Bounds {
            memory: task.memory_bytes,
            time: Duration::from_millis(task.time_ms),
        },
        deterministic: task.deterministic,
        late: AtEnd::Call(ends),
        compiled,
    }))
}

/// What code is for programs in cages: a thread beside them ends them.
const fn code(task: &RunnerTask) -> Code {
    Code {
        deterministic: task.deterministic,
        interruptible: false,
    }
}

/// The program's code, given or made by a process of its own. None where neither is to be had:
/// the program's own process then compiles, and says what is wrong.
///
/// # Errors
/// Where the seal cannot be removed. Nothing may run beside it.
fn compiled(dir: &Path, task: &RunnerTask) -> io::Result<Option<Compiled>> {
    if task.module.is_none() {
        return Ok(None);
    }
    let begun = Instant::now();
    let load = |origin| {
        let bytes = fs::read(dir.join(CODE_FILE)).ok()?;
        let code = believe(&bytes, code(task))?;
        let took = begun.elapsed();
        Some(Compiled { code, origin, took })
    };
    let ready = load(Origin::Kept).or_else(|| {
        let _not_given = fs::remove_file(dir.join(CODE_FILE));
        let mut call = Command::new(PROGRAM_PATH);
        call.args([WASM_COMMAND, ".", COMPILE]).current_dir(dir);
        call.stdin(Stdio::null());
        let status = call.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let made = status.is_ok_and(|status| status.success());
        made.then(|| load(Origin::Left)).flatten()
    });
    if ready.is_none() {
        let _none_left = fs::remove_file(dir.join(CODE_FILE));
    }
    match fs::remove_file(dir.join(SEAL_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(ready),
    }
}

/// Compiles the program and leaves its code beside it, marked by the seal, which is removed.
fn compile(dir: &Path) -> io::Result<()> {
    let task: RunnerTask = serde_json::from_slice(&fs::read(dir.join(TASK_FILE))?)?;
    let seal: [u8; SECRET_BYTES] = fs::read(dir.join(SEAL_FILE))?
        .try_into()
        .map_err(|_| io::Error::other("this is no seal"))?;
    fs::remove_file(dir.join(SEAL_FILE))?;
    let name = task.command.first().map_or("", String::as_str);
    let bytes = read(name, &dir.join(WORK))?.ok_or(io::ErrorKind::NotFound)?;
    // The agent and we may not read the command's first word alike, and its digest names the code.
    if task.module != Some(Digest(*blake3::hash(&bytes).as_bytes())) {
        return Err(io::Error::other("another file is the program"));
    }
    let made = precompile(name, &bytes, code(&task)).map_err(io::Error::other)?;
    File::create_new(dir.join(CODE_FILE))?.write_all(&made)?;
    File::create_new(dir.join(MARK_FILE))?.write_all(mark_of(&seal, &made).as_bytes())
}

/// Ends this process from a thread beside the program's.
#[expect(clippy::exit, reason = "the program's thread cannot be made to return")]
fn end() -> ! {
    std::process::exit(0)
}

/// Our own streams as files: a write is one write, and nothing waits in a buffer when we end.
#[cfg(unix)]
fn streams() -> io::Result<[File; 3]> {
    use std::os::fd::AsFd as _;
    Ok([
        io::stdin().as_fd().try_clone_to_owned()?.into(),
        io::stdout().as_fd().try_clone_to_owned()?.into(),
        io::stderr().as_fd().try_clone_to_owned()?.into(),
    ])
}

/// Our own streams as files: a write is one write, and nothing waits in a buffer when we end.
#[cfg(windows)]
fn streams() -> io::Result<[File; 3]> {
    use std::os::windows::io::AsHandle as _;
    Ok([
        io::stdin().as_handle().try_clone_to_owned()?.into(),
        io::stdout().as_handle().try_clone_to_owned()?.into(),
        io::stderr().as_handle().try_clone_to_owned()?.into(),
    ])
}

/// The record under a name that nobody has used.
fn write(dir: &Path, record: &Record) -> io::Result<()> {
    let text = serde_json::to_vec(record)?;
    File::create_new(dir.join(RECORD_FILE))?.write_all(&text)
}
