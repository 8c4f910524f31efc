//! One attempt inside its shim: from an empty scratch directory to a written result.

mod clock;
mod marks;
mod pace;
mod unlinked;
mod watch;

pub(crate) use watch::Found;

use crate::bundle::Bay;
use crate::cage::sys;
use crate::cgroup::{CPU_PERIOD, Group, GroupUsage};
use crate::message::{BRIEF, Exited, Status, receive};
use clock::RunClock;
use gleaner_engine::{AttemptSpec, Ending};
use gleaner_model::{CHECKPOINT_EXIT_CODE, LimitKind, Reason, Time, Usage};
use globset::GlobSet;
use marks::{Marks, number};
use pace::Pace;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};
use watch::Watch;

/// Refused system calls of one attempt that are answered in a window of time; the next one
/// waits for the window's end. The shim is not at idle priority, and a task that makes nothing
/// but refused calls must not take the owner's processor by way of it: 2,560 answers a second
/// are about one percent of it.
const NOTICES_IN_WINDOW: u32 = 128;
const NOTICE_WINDOW: Duration = Duration::from_millis(50);

/// Calls of one attempt whose refusals are counted by name; the rest is counted together.
const REFUSED_NAMES_MAX: usize = 256;

/// How often a freeze that is not complete is asked for again, where nobody but us keeps it in mind.
const PRESS_EVERY: Duration = Duration::from_millis(20);

/// Why an attempt is frozen. It runs when no cause is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The agent asked.
    Asked,
    /// Nobody watches: the agent's beats are missing.
    Unwatched,
    /// It faults more often than it may.
    Faults,
    /// All tasks of the agent are held at once, where no group does it.
    Held,
    /// The files by which it saves itself are being copied; for a moment only.
    Saved,
}

/// The processes of a started cage.
#[derive(Debug)]
pub(crate) struct Cage {
    pub(crate) pidfd: OwnedFd,
    /// None once the init has said its last word.
    pub(crate) status: Option<OwnedFd>,
    /// Where refused system calls wait.
    pub(crate) notices: Option<OwnedFd>,
}

/// An attempt that has not ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) spec: AttemptSpec,
    pub(crate) bay: Bay,
    pub(crate) slot: u32,
    /// Where its cage is; none before there is one.
    pub(crate) place: Option<u32>,
    pub(crate) group: Option<Group>,
    /// Whether the kernel holds the group to its limits, or only we do.
    pub(crate) grouped: bool,
    /// Whether the kernel holds it to its processors.
    pub(crate) cpus_held: bool,
    pub(crate) cage: Option<Cage>,
    pub(crate) scratch: Option<OwnedFd>,
    pub(crate) streams: Option<[File; 2]>,
    pub(crate) outputs: Option<GlobSet>,
    /// Disk space that its inputs take, in bytes.
    pub(crate) input_bytes: u64,
    pub(crate) started: Option<Time>,
    pub(crate) clock: Option<RunClock>,
    pub(crate) frozen: BTreeSet<Cause>,
    /// The processor that it is held to, where the agent asked for one.
    pub(crate) placed: Option<u32>,
    /// Until when it may take to stand still for a save; none where no save waits for that.
    pub(crate) still_by: Option<Instant>,
    /// When to ask again for a freeze that is not complete; none where nothing is to be asked.
    pub(crate) press_at: Option<Instant>,
    /// When everything still alive is killed.
    pub(crate) kill_at: Option<Instant>,
    /// Why it is being ended from outside.
    pub(crate) forced: Option<Reason>,
    /// Why it never ran.
    pub(crate) not_run: Option<Reason>,
    pub(crate) exited: Option<Exited>,
    /// Whether its start is told with its end.
    pub(crate) brief: bool,
    /// Holds the cage's mounts until somebody has time to let go of them.
    pub(crate) mounts: Option<OwnedFd>,
    pub(crate) marks: Marks,
    pub(crate) refused: BTreeMap<String, u64>,
    /// When the window of answers began, and how many were given in it.
    window: (Instant, u32),
    pub(crate) degraded: Vec<String>,
    pub(crate) watch: Watch,
    pub(crate) pace: Pace,
}

/// What a status message means to the shim's main loop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Nothing,
    Started,
}

impl Run {
    pub(crate) fn new(spec: AttemptSpec, bay: Bay, slot: u32, now: Instant) -> Self {
        Self {
            outputs: match spec.outputs.is_empty() {
                true => None,
                false => crate::collect::globs(&spec.outputs).ok(),
            },
            spec,
            bay,
            slot,
            place: None,
            group: None,
            grouped: true,
            cpus_held: false,
            cage: None,
            scratch: None,
            streams: None,
            input_bytes: 0,
            started: None,
            clock: None,
            frozen: BTreeSet::new(),
            placed: None,
            still_by: None,
            press_at: None,
            kill_at: None,
            forced: None,
            not_run: None,
            exited: None,
            brief: false,
            mounts: None,
            marks: Marks::default(),
            refused: BTreeMap::new(),
            window: (now, 0),
            degraded: Vec::new(),
            watch: Watch::new(now),
            pace: Pace::new(now),
        }
    }

    /// The cage exists; its init waits.
    pub(crate) fn launched(&mut self, pid: i32, status: OwnedFd) -> io::Result<()> {
        let raw = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        self.cage = Some(Cage {
            pidfd: pidfd_open(raw, PidfdFlags::empty())?,
            status: Some(status),
            notices: None,
        });
        Ok(())
    }

    /// Takes the next word of the cage's init; none when there is none yet.
    pub(crate) fn hear(&mut self, buffer: &mut [u8], now: Instant, at: Time) -> Option<Said> {
        let cage = self.cage.as_mut()?;
        let socket = cage.status.as_ref()?;
        let (message, mut descriptors) = match receive(socket, buffer, RecvFlags::DONTWAIT) {
            Ok(Some(message)) => message,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            // Its end, or words that are not our init's: what it is worth is seen at its end.
            Ok(None) | Err(_) => {
                cage.status = None;
                return None;
            }
        };
        match message {
            Status::Started {
                degraded,
                ran_us,
                exited,
            } => {
                self.degraded.extend(degraded);
                // The mounts come first, and the listener where there is one.
                cage.notices = (descriptors.len() > 1).then(|| descriptors.pop()).flatten();
                self.mounts = descriptors.pop();
                // One that was frozen meanwhile ran no longer than this.
                let ran = Duration::from_micros(ran_us).min(BRIEF);
                let ran_ms = u64::try_from(ran.as_millis()).unwrap_or(0);
                self.started = Some(Time {
                    ms: at.ms.saturating_sub(ran_ms),
                });
                let mut clock = RunClock::new(now.checked_sub(ran).unwrap_or(now));
                if !self.frozen.is_empty() {
                    clock.freeze(now);
                }
                self.clock = Some(clock);
                self.watch = Watch::new(now);
                if exited.is_none() {
                    return Some(Said::Started);
                }
                (self.exited, self.brief) = (exited, true);
            }
            Status::NoProgram { program } => self.not_run = Some(Reason::NoProgram { program }),
            Status::Failed { detail } => self.not_run = Some(Reason::Engine { detail }),
            Status::Exited(exited) => self.exited = Some(exited),
        }
        // It was the last word, and nothing is left that could be refused a call: only the
        // init's own end is still to come.
        (cage.status, cage.notices) = (None, None);
        Some(Said::Nothing)
    }

    /// Answers refused system calls and counts them.
    pub(crate) fn refuse(&mut self, now: Instant) {
        if now >= self.window.0 + NOTICE_WINDOW {
            self.window = (now, 0);
        }
        let Some(cage) = &mut self.cage else { return };
        let Some(listener) = &cage.notices else {
            return;
        };
        while self.window.1 < NOTICES_IN_WINDOW {
            self.window.1 += 1;
            let state = state(listener);
            if !state.contains(PollFlags::IN) {
                // When the last process is gone the listener hangs up, which would wake us
                // without end until its init has said how it ended.
                if state.contains(PollFlags::HUP) {
                    cage.notices = None;
                }
                return;
            }
            match sys::receive_notice(listener.as_fd()) {
                Ok(notice) => {
                    let name = crate::cage::seccomp::table::name(i64::from(notice.number));
                    let name = name.unwrap_or("other");
                    let known = self.refused.contains_key(name);
                    let room = known || self.refused.len() < REFUSED_NAMES_MAX;
                    let name = if room { name } else { "other" };
                    *self.refused.entry(name.to_owned()).or_default() += 1;
                    // Fails where the caller was killed meanwhile.
                    let _gone = sys::refuse_notice(listener.as_fd(), notice.id, Errno::PERM);
                }
                // The caller was killed before we looked.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(_) => {
                    cage.notices = None;
                    return;
                }
            }
        }
    }

    /// When refused calls are answered again; none where they are now.
    pub(crate) fn answers_at(&self, now: Instant) -> Option<Instant> {
        let end = self.window.0 + NOTICE_WINDOW;
        (self.window.1 >= NOTICES_IN_WINDOW && now < end).then_some(end)
    }

    /// Freezes for one more cause. Says whether it ran until now.
    pub(crate) fn freeze(&mut self, cause: Cause, now: Instant) -> bool {
        let ran = self.frozen.is_empty();
        self.frozen.insert(cause);
        if ran
            && let Some(group) = &self.group
            && self.cage.is_some()
        {
            // Where it is not frozen yet the request stays, with the kernel or with us.
            let still = matches!(group.freeze(true), Ok(true));
            self.press_at = (!still).then(|| Instant::now() + PRESS_EVERY);
        }
        if let Some(clock) = &mut self.clock {
            clock.freeze(now);
        }
        ran
    }

    /// Takes a cause away. Says whether it runs again.
    pub(crate) fn thaw(&mut self, cause: Cause, now: Instant) -> bool {
        if !self.frozen.remove(&cause) || !self.frozen.is_empty() {
            return false;
        }
        self.press_at = None;
        if let Some(group) = &self.group
            && !self.pace.stands
        {
            let _slow = group.freeze(false);
        }
        if let Some(clock) = &mut self.clock {
            clock.thaw(now);
        }
        true
    }

    /// Asks again for a freeze that was not complete, if that is due.
    pub(crate) fn press(&mut self, now: Instant) {
        if self.press_at.is_none_or(|at| now < at) {
            return;
        }
        let still = self.group.as_ref().is_none_or(Group::press);
        self.press_at = (!still).then_some(now + PRESS_EVERY);
    }

    /// Ends it for `reason`: at once, or after the program had `grace` to end itself.
    pub(crate) fn end(&mut self, reason: Reason, grace: Duration, now: Instant) {
        self.forced.get_or_insert(reason);
        let Some(cage) = &self.cage else { return };
        // What is frozen stays so: the owner needs the PC, and a farewell takes time.
        if grace.is_zero() || self.frozen.iter().any(|cause| *cause != Cause::Saved) {
            return self.kill();
        }
        // Asked again, the program is not told again: it may be saving itself, and many take a second
        // signal for impatience.
        if self.kill_at.is_none() {
            let _ended = pidfd_send_signal(&cage.pidfd, Signal::TERM);
        }
        let at = now + grace;
        self.kill_at = Some(self.kill_at.map_or(at, |before| before.min(at)));
    }

    /// Kills the init, and with it everything in its pid namespace.
    pub(crate) fn kill(&mut self) {
        self.kill_at = None;
        let Some(cage) = &self.cage else { return };
        let _ended = pidfd_send_signal(&cage.pidfd, Signal::KILL);
        if (!self.frozen.is_empty() || self.pace.stands)
            && let Some(group) = &self.group
        {
            // The freezer of version 1 keeps even SIGKILL waiting.
            let _slow = group.let_die();
        }
    }

    /// Takes the ended init off the kernel. Says whether it had ended.
    pub(crate) fn reap(&self) -> bool {
        let Some(cage) = &self.cage else { return true };
        let id = WaitId::PidFd(cage.pidfd.as_fd());
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        !matches!(waitid(id, options), Ok(None))
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Usage {
        let group = self.group.as_ref().map(Group::usage).unwrap_or_default();
        self.usage_of(&group)
    }

    /// The group's figures, and where they know less, what the init counted at the end.
    fn usage_of(&self, group: &GroupUsage) -> Usage {
        let exited = self.exited.unwrap_or_default();
        #[expect(
            clippy::cast_precision_loss,
            reason = "2^53 microseconds are 285 years"
        )]
        let (cpu_seconds, system_seconds) = (
            group.cpu_us.max(exited.cpu_us) as f64 / 1e6,
            exited.system_us as f64 / 1e6,
        );
        // The init is in the group, and no process of the task.
        let processes = group.processes_peak.saturating_sub(1);
        Usage {
            cpu_seconds,
            memory_peak: group
                .memory_peak
                .max(exited.resident_peak.min(self.spec.limits.memory.0)),
            read_bytes: group.read_bytes.max(exited.read_bytes),
            written_bytes: group.written_bytes.max(exited.written_bytes),
            processes_peak: processes.max(u32::from(self.started.is_some())),
            page_faults: group.page_faults.max(exited.page_faults),
            system_seconds,
            minor_faults: exited.minor_faults,
            waits: exited.waits,
        }
    }

    /// Nothing of it runs any more: the record of how it ended.
    pub(crate) fn ending(&mut self, now: Instant, at: Time) -> Ending {
        let (watched, used) = self.watch_at_end();
        let usage = self.usage_of(&used);
        let reason = self.reason(watched);
        let seconds = |of: fn(&RunClock, Instant) -> Duration| {
            self.clock
                .as_ref()
                .map_or(0.0, |clock| of(clock, now).as_secs_f64())
        };
        let (wall_seconds, paused_seconds) = (seconds(RunClock::wall), seconds(RunClock::paused));
        let active = wall_seconds - paused_seconds;
        let marks = &mut self.marks;
        marks.see(LimitKind::Time, active);
        marks.see(LimitKind::CpuTime, usage.cpu_seconds);
        marks.see(LimitKind::Memory, number(usage.memory_peak));
        marks.see(LimitKind::Processes, f64::from(usage.processes_peak));
        let cpus = f64::from(self.spec.limits.cpus.milli) / 1000.0;
        let held = self.cpus_held.then_some(cpus);
        marks.see(
            LimitKind::Cpus,
            processors_used(usage.cpu_seconds, active, held),
        );
        Ending {
            reason,
            started: self.started,
            ended: at,
            wall_seconds,
            paused_seconds,
            usage,
            limits: self.marks.records(&self.spec.limits),
            refused_calls: std::mem::take(&mut self.refused),
            degraded: std::mem::take(&mut self.degraded),
        }
    }

    /// Why it ended. What was asked comes first; then what the kernel or the watch did about a
    /// limit, whatever the program made of that; then the program's own word.
    fn reason(&mut self, watched: Option<Reason>) -> Reason {
        if let Some(reason) = self.forced.take() {
            let code = self.exited.map(|exited| libc::WEXITSTATUS(exited.status));
            let itself = code == Some(CHECKPOINT_EXIT_CODE) && !self.spec.saving.files.is_empty();
            // Told to end, it has used its time to save itself.
            return match itself && reason == Reason::Cancelled {
                true => Reason::Exit {
                    code: CHECKPOINT_EXIT_CODE,
                },
                false => reason,
            };
        }
        if let Some(reason) = self.not_run.take().or(watched) {
            return reason;
        }
        let Some(exited) = self.exited else {
            return Reason::Lost {
                detail: "the cage's first process was killed from outside".to_owned(),
            };
        };
        if libc::WIFSIGNALED(exited.status) {
            return Reason::Signal {
                signal: libc::WTERMSIG(exited.status),
            };
        }
        Reason::Exit {
            code: libc::WEXITSTATUS(exited.status),
        }
    }
}

/// Processors that a program used, over its life or the period in which the kernel counts, whichever
/// is longer: in less, that its cage was built counts for more than what it did. Where the kernel
/// holds it to `held`, what is above is the cage's, and the moment that its clock began later.
fn processors_used(cpu_seconds: f64, active_seconds: f64, held: Option<f64>) -> f64 {
    let used = cpu_seconds / active_seconds.max(CPU_PERIOD.as_secs_f64());
    held.map_or(used, |held| used.min(held))
}

fn state(fd: &OwnedFd) -> PollFlags {
    let mut poll = [PollFd::new(fd, PollFlags::IN)];
    let now = rustix::event::Timespec::default();
    match rustix::event::poll(&mut poll, Some(&now)) {
        Ok(_) => poll.first().map_or(PollFlags::empty(), PollFd::revents),
        Err(_) => PollFlags::empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_over_a_period_at_least_and_never_above_what_is_held() {
        for (cpu, active, held, used) in [
            // A few milliseconds, most of them the cage's.
            (0.007, 0.001, Some(1.0), 0.07),
            (0.0, 0.0, Some(1.0), 0.0),
            (0.007, 0.0, None, 0.07),
            // Its clock began a little late.
            (2.01, 2.0, Some(1.0), 1.0),
            (0.5, 2.0, Some(1.0), 0.25),
            // Nobody holds it: what was used is shown.
            (6.0, 2.0, None, 3.0),
        ] {
            let found = processors_used(cpu, active, held);
            assert!((found - used).abs() < 1e-9, "{cpu} {active}: {found}");
        }
    }
}
