//! The hidden call of `gleaner` that runs one program: what lies in the cage around the runner.
//!
//! In: a directory that holds the task and the program's own directory. Out: a record beside
//! them. The call's own exit code says only whether that record was written.

use crate::record::{End, RECORD_FILE, Record, RunnerTask, TASK_FILE, WORK};
use crate::runner::{AtEnd, Bounds, Program, run};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// The first argument of the call.
pub(crate) const WASM_COMMAND: &str = "__wasm";

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
    }))
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
