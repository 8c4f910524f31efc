//! Keeps tasks behind the owner's programs: by the group first, by the process on top of that.
//!
//! A nice value or SCHED_IDLE on a process counts only inside its scheduling group. With the
//! kernel's autogroup, or in a group of default weight, a background daemon still takes half of
//! a contended CPU. So the group itself is made idle ([`crate::cgroup`] does that); where there
//! is no cpu controller, the nice value of the task's autogroup (sched(7)) stands in. What holds
//! in the end is measured by [`SelfTest`], not believed.
//!
//! It must not know attempts or limits. The sandbox calls [`lower_self`] in each task's first
//! process, the agent runs the self-test before it takes work.

mod place;
mod selftest;
mod spin;

pub use place::{Place, Stand};
pub(crate) use selftest::percent;
pub use selftest::{Outcome, Sample, SelfTest, Verdict, verdict};
pub use spin::{SPIN_WORD, is_spin_call, spin_main};

use crate::cgroup::{Backend, IdleMeans};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// What keeps tasks behind the owner's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// The group's `cpu.idle`.
    GroupIdle,
    /// The group's smallest weight.
    GroupWeight,
    /// The nice value of the session's autogroup.
    Autogroup,
    /// SCHED_IDLE on each process: enough only where there is no autogroup.
    Process,
}

impl Means {
    /// What this back end and kernel offer.
    #[must_use]
    pub fn of(backend: &Backend) -> Self {
        match backend.idle() {
            IdleMeans::CpuIdle => Self::GroupIdle,
            IdleMeans::Weight => Self::GroupWeight,
            IdleMeans::None if autogroup_on() => Self::Autogroup,
            IdleMeans::None => Self::Process,
        }
    }

    /// Whether a new session would leave idle priority, so that the sandbox must refuse
    /// `setsid` to the program: a session gets an autogroup of its own, at nice 0.
    #[must_use]
    pub const fn new_session_escapes(self) -> bool {
        matches!(self, Self::Autogroup)
    }

    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::GroupIdle => "cpu.idle on the group of all tasks",
            Self::GroupWeight => "the smallest weight on the group of all tasks",
            Self::Autogroup => "nice 19 on the session's autogroup",
            Self::Process => "SCHED_IDLE on each process",
        }
    }
}

/// Whether the kernel groups processes by session where no cpu controller does.
#[must_use]
pub fn autogroup_on() -> bool {
    fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled")
        .is_ok_and(|text| text.trim() == "1")
}

/// The kernel takes an autogroup's nice value from a plain user once in 100 ms for the whole PC
/// and says "try again" else; this is enough for thirty at once.
const AUTOGROUP_WAIT: Duration = Duration::from_secs(3);

/// Puts the calling process last: SCHED_IDLE, the idle I/O class, first choice of the
/// out-of-memory killer, and, where no group does it, nice 19 for the session's autogroup.
///
/// To be called in a single-threaded process that leads its own session, before the program
/// starts; children inherit all of it.
///
/// # Errors
/// Where the CPU priority could not be set. The rest is tried and not reported: the idle I/O
/// class acts only with some I/O schedulers anyway.
pub fn lower_self(means: Means) -> io::Result<()> {
    idle_io();
    let _best_effort = fs::write("/proc/self/oom_score_adj", "1000");
    if means == Means::Autogroup {
        lower_session()?;
    }
    idle_cpu()
}

fn idle_cpu() -> io::Result<()> {
    // SAFETY: a zeroed sched_param is valid: all its fields are integers.
    let param: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live sched_param; 0 means the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn idle_io() {
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_IDLE: libc::c_int = 3 << 13;
    // SAFETY: ioprio_set(2) takes three integers and touches no memory of ours.
    let _best_effort = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE) };
}

/// Gives the calling process' session nice 19 against other sessions.
pub(crate) fn lower_session() -> io::Result<()> {
    let end = Instant::now() + AUTOGROUP_WAIT;
    loop {
        match fs::write("/proc/self/autogroup", "19") {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::DetectOptions;

    #[test]
    fn without_groups_the_session_or_the_process_is_lowered() {
        let root = tempfile::tempdir().unwrap();
        let options = DetectOptions {
            root: root.path().to_path_buf(),
            ask_systemd: false,
            ..DetectOptions::default()
        };
        let means = Means::of(&Backend::detect(&options));
        let wanted = if autogroup_on() {
            Means::Autogroup
        } else {
            Means::Process
        };
        assert_eq!(means, wanted);
        assert_eq!(means.new_session_escapes(), autogroup_on());
        assert!(!Means::GroupIdle.new_session_escapes());
    }
}
