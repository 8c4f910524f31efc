//! The self-test's two loads: single-threaded children that only burn CPU time.
//!
//! They are this same program, executed again, because a thread of the agent would stay in the
//! agent's own group. A spinner waits for a line on its standard input before it starts, so that
//! it can be put where it belongs first; it dies with its parent, and by itself after a while.

use super::{Means, lower_self};
use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// First argument of a spinner's command line.
pub const SPIN_WORD: &str = "__spin";

/// Environment variable that says what the spinner is to be: `ROLE CPU`.
const SPIN_VARIABLE: &str = "GLEANER_SPIN";

/// A spinner that nobody ended ends itself.
const SPIN_MAX: Duration = Duration::from_secs(20);

/// What a spinner stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A program of the owner: normal priority, a session of its own.
    Owner,
    /// A task, lowered as tasks are.
    Task(Means),
}

impl Role {
    const fn word(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Task(Means::Autogroup) => "task-autogroup",
            Self::Task(Means::GroupIdle | Means::GroupWeight | Means::Process) => "task",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        match word {
            "owner" => Some(Self::Owner),
            "task" => Some(Self::Task(Means::Process)),
            "task-autogroup" => Some(Self::Task(Means::Autogroup)),
            _ => None,
        }
    }
}

/// Whether this process was started as a spinner. To be asked first thing in `main`, before any
/// thread starts; [`spin_main`] is the rest of the process then.
#[must_use]
pub fn is_spin_call(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|word| word == SPIN_WORD) && env::var_os(SPIN_VARIABLE).is_some()
}

/// The life of a spinner.
#[must_use]
pub fn spin_main() -> ExitCode {
    let words = env::var(SPIN_VARIABLE).unwrap_or_default();
    let mut words = words.split_whitespace();
    let role = words.next().and_then(Role::parse);
    let cpu = words.next().and_then(|word| word.parse().ok());
    let (Some(role), Some(cpu)) = (role, cpu) else {
        return ExitCode::from(2);
    };
    match prepare(role, cpu) {
        Ok(()) => {
            spin();
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _nobody = writeln!(io::stdout(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn prepare(role: Role, cpu: usize) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // A session of its own, as a program started from another terminal or service has.
    rustix::process::setsid()?;
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(cpu);
    rustix::thread::sched_setaffinity(None, &cpus)?;
    if let Role::Task(means) = role {
        lower_self(means)?;
    }
    writeln!(io::stdout(), "ready")?;
    io::stdout().flush()?;
    let mut line = String::new();
    // An end of file is the parent's end: nothing to do then.
    match io::stdin().lock().read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn spin() {
    let end = Instant::now() + SPIN_MAX;
    let mut x: u64 = 1;
    while Instant::now() < end {
        for _ in 0..100_000 {
            x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

/// A spinner as its parent sees it; dropping it ends it.
#[derive(Debug)]
pub(super) struct Spinner {
    child: Child,
}

impl Spinner {
    /// Starts one and waits until it is ready to be placed.
    pub(super) fn start(exe: &Path, args: &[String], role: Role, cpu: usize) -> io::Result<Self> {
        let child = Command::new(exe)
            .args(args)
            .env(SPIN_VARIABLE, format!("{} {cpu}", role.word()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut spinner = Self { child };
        let out = spinner.child.stdout.take().ok_or_else(closed)?;
        let end = Instant::now() + SPIN_MAX;
        let mut said = String::new();
        for line in io::BufReader::new(out).lines() {
            let line = line?;
            if line.ends_with("ready") {
                return Ok(spinner);
            }
            said.push_str(&line);
            if Instant::now() > end || said.len() > 4096 {
                break;
            }
        }
        Err(io::Error::other(format!("no spinner: {}", said.trim())))
    }

    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Lets it run.
    pub(super) fn go(&mut self) -> io::Result<()> {
        self.child
            .stdin
            .as_mut()
            .ok_or_else(closed)?
            .write_all(b"go\n")
    }

    /// CPU time that it has had, to the nanosecond (`clock_getcpuclockid(3)`).
    pub(super) fn cpu_time(&self) -> io::Result<Duration> {
        let mut clock: libc::clockid_t = 0;
        // SAFETY: the pointer is to a live clockid_t that the call fills in.
        let code = unsafe { libc::clock_getcpuclockid(self.pid(), &raw mut clock) };
        if code != 0 {
            return Err(io::Error::from_raw_os_error(code));
        }
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the pointer is to a live timespec that the call fills in.
        if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Ok(Duration::new(
            seconds,
            u32::try_from(time.tv_nsec).unwrap_or(0),
        ))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn closed() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_word_makes_a_spinner() {
        let args = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(!is_spin_call(&args(&["gleaner"])));
        assert!(!is_spin_call(&args(&["gleaner", "run", SPIN_WORD])));
        for role in [
            Role::Owner,
            Role::Task(Means::Autogroup),
            Role::Task(Means::Process),
        ] {
            assert_eq!(Role::parse(role.word()), Some(role));
        }
        assert_eq!(Role::parse("guest"), None);
    }
}
