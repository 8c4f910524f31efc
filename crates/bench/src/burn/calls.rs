//! What a program asks of the kernel, call by call. A guest whose kernel is a program answers at
//! many times the price.

use super::memory::touch_new;
use super::{Clock, Reading, timed};
use std::fs::{self, File};
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Calls a slice: some milliseconds native, and less than a second in any guest.
const GETPPIDS: u32 = 20_000;
const CLOCKS: u32 = 20_000;
const OPENS: u32 = 2_000;
const FORKS: u32 = 100;
const SPAWNS: u32 = 10;
/// Memory that is new each time, below the size of which kernels make one page; and how often.
const NEW_BYTES: usize = 1 << 20;
const NEW: u32 = 4;
const PAGES: u32 = NEW * 256;

pub(super) fn run(slices: u32) -> io::Result<Vec<Reading>> {
    run_in(Path::new("."), slices)
}

pub(super) fn run_in(dir: &Path, slices: u32) -> io::Result<Vec<Reading>> {
    let (own, passing) = ((Clock::Cpu, slices), (Clock::Wall, slices));
    let path = dir.join("opened");
    File::create(&path)?;
    let readings = vec![
        timed("getppid", own, f64::from(GETPPIDS), || {
            for _ in 0..GETPPIDS {
                black_box(rustix::process::getppid());
            }
            Ok(())
        })?,
        timed("clock", own, f64::from(CLOCKS), || {
            for _ in 0..CLOCKS {
                black_box(rustix::time::clock_gettime(
                    rustix::time::ClockId::Monotonic,
                ));
            }
            Ok(())
        })?,
        timed("open", own, f64::from(OPENS), || {
            for _ in 0..OPENS {
                black_box(File::open(&path)?);
            }
            Ok(())
        })?,
        timed("fault", own, f64::from(PAGES), || {
            for _ in 0..NEW {
                touch_new(NEW_BYTES);
            }
            Ok(())
        })?,
        timed("fork", passing, f64::from(FORKS), forks)?,
        timed("spawn", passing, f64::from(SPAWNS), || {
            (0..SPAWNS).try_for_each(|_| ended_well(Command::new("/bin/true")))
        })?,
    ];
    fs::remove_file(&path)?;
    Ok(readings)
}

/// A shell that forks a child for each of many empty commands; its own start is shared by all.
fn forks() -> io::Result<()> {
    let mut shell = Command::new("/bin/sh");
    let script = "n=0; while [ $n -lt $1 ]; do ( : ); n=$((n+1)); done";
    shell.args(["-c", script, "forks", &FORKS.to_string()]);
    ended_well(shell)
}

fn ended_well(mut command: Command) -> io::Result<()> {
    let status = command.stdin(Stdio::null()).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{command:?} ended: {status}"))),
    }
}
