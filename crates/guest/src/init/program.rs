//! The task's program in the guest: started, stopped, watched, and ended with all it began.

use super::{CGROUP, DISK, ROOT};
use crate::task::{End, GuestTask, Record, WORK};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, mknodat, openat2, statvfs};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::SystemTime;

/// Where the process that becomes the program says why it could not.
pub(super) const STATUS: &str = "/status";

/// Where a program that was started ahead of its task waits: a pipe with a name, since whoever
/// becomes the program inherits the task's three streams only.
pub(super) const GATE: &str = "/gate";

/// A scratch disk with fewer free bytes is full: what is left is the file system's own.
const FULL_BYTES: u64 = 256 << 10;

pub(super) struct Program {
    pid: Pid,
    /// Tells the wait status of the program, then that nothing is left.
    ended: PipeReader,
    status: Option<ExitStatus>,
    over: bool,
    /// What we have read and written ourselves, before.
    moved_before: (u64, u64),
    /// What it waits at; none where it does not.
    gate: Option<File>,
}

impl Program {
    /// Starts the process that becomes the program, and gives its two streams.
    pub(super) fn start(task: &GuestTask, record: &mut Record) -> io::Result<(Self, [File; 2])> {
        File::create(STATUS)?;
        let gate = task.waits.then(gate).transpose()?;
        let owner = scratch_owner()?;
        let stream = || -> io::Result<(File, OwnedFd)> {
            let (reader, writer) = pipe()?;
            // So that the program may open it once more, as /dev/stdout.
            std::os::unix::fs::fchown(&writer, Some(owner), Some(owner))?;
            Ok((File::from(OwnedFd::from(reader)), writer.into()))
        };
        let ((out, out_end), (err, err_end)) = (stream()?, stream()?);
        let moved_before = moved("self");
        let child = Command::new("/proc/self/exe")
            .arg("start")
            .env_clear()
            .stdin(standard_input(task)?)
            .stdout(out_end)
            .stderr(err_end)
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        let (ended, writer) = pipe()?;
        thread::spawn(move || reap(pid, writer));
        record.processes_peak = 1;
        let program = Self {
            pid,
            ended,
            status: None,
            over: false,
            moved_before,
            gate,
        };
        Ok((program, [out, err]))
    }

    /// Lets it go on from the gate, whether it has come there or not: the gate stays, and so does
    /// what was written.
    pub(super) fn begin(&self) -> io::Result<()> {
        match &self.gate {
            Some(gate) => (&*gate).write_all(b"!"),
            None => Ok(()),
        }
    }

    /// Whether nothing of it runs any more.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// Asks it to end: each process once, since many take a second signal for impatience.
    pub(super) fn stop(&self) {
        if self.status.is_some() {
            return;
        }
        let mut all = members();
        // It enters its group a moment after its start.
        if !all.contains(&self.pid) {
            all.push(self.pid);
        }
        for pid in all {
            let _gone = kill_process(pid, Signal::TERM);
        }
    }

    /// Takes what the reaper has to say.
    pub(super) fn hear(&mut self) -> io::Result<()> {
        let mut raw = [0; 4];
        let length = self.ended.read(&mut raw)?;
        if length == 0 {
            self.over = true;
            return Ok(());
        }
        self.status = Some(ExitStatus::from_raw(i32::from_ne_bytes(raw)));
        // What it left behind ends with it.
        fs::write(group("cgroup.kill"), "1")
    }

    /// Looks at the limits.
    pub(super) fn look(&self, record: &mut Record) {
        let now = now_ms();
        if let Ok(disk) = statvfs(Path::new(DISK)) {
            let used = disk.f_blocks.saturating_sub(disk.f_bfree) * disk.f_frsize;
            record.disk_peak = record.disk_peak.max(used);
            if disk.f_bavail * disk.f_frsize < FULL_BYTES || disk.f_ffree == 0 {
                record.disk_at.get_or_insert(now);
            }
        }
        if event("pids.events", "max") > 0 {
            record.processes_at.get_or_insert(now);
        }
        if event("memory.events", "oom_kill") > 0 {
            record.memory_at.get_or_insert(now);
        }
        let processes = number("pids.peak").max(number("pids.current"));
        let processes = u32::try_from(processes).unwrap_or(u32::MAX);
        record.processes_peak = record.processes_peak.max(processes);
        let memory = number("memory.peak").max(number("memory.current"));
        record.memory_peak = record.memory_peak.max(memory);
    }

    /// Counts what is dearer to look at: faults, and bytes read and written.
    pub(super) fn count(&self, record: &mut Record) {
        let faults = event("memory.stat", "pgmajfault");
        record.page_faults = record.page_faults.max(faults);
        let (mut read, mut written) = moved("self");
        read = read.saturating_sub(self.moved_before.0);
        written = written.saturating_sub(self.moved_before.1);
        for pid in members() {
            let (its_read, its_written) = moved(&pid.as_raw_nonzero().to_string());
            read = read.saturating_add(its_read);
            written = written.saturating_add(its_written);
        }
        // One that ended between the two looks is in neither: it comes back with the next.
        record.read_bytes = record.read_bytes.max(read);
        record.written_bytes = record.written_bytes.max(written);
    }

    /// The last look, and how it ended.
    pub(super) fn finish(&self, record: &mut Record) {
        self.look(record);
        self.count(record);
        let not_started = fs::read(STATUS).unwrap_or_default();
        record.end = if let Ok(end) = serde_json::from_slice(&not_started) {
            end
        } else if record.memory_at.is_some() {
            End::Memory
        } else {
            self.end()
        };
    }

    fn end(&self) -> End {
        let Some(status) = self.status else {
            return End::Unknown;
        };
        match (status.code(), status.signal()) {
            (Some(code), _) => End::Exit(code),
            (None, Some(signal)) => End::Signal(signal),
            (None, None) => End::Unknown,
        }
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

/// The gate, closed. Open for both directions, it is there for whoever comes, and never at its end.
fn gate() -> io::Result<File> {
    mknodat(CWD, GATE, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    File::options().read(true).write(true).open(GATE)
}

/// Takes every ended process off the kernel until none is left. Processes that the program has
/// abandoned come to us, and count against its limit until they are taken.
fn reap(program: Pid, mut told: PipeWriter) {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => {
                let _guest_ends = told.write_all(&status.as_raw().to_ne_bytes());
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// The user that the scratch directory belongs to is the one who runs the program.
pub(super) fn scratch_owner() -> io::Result<u32> {
    let found = rustix::fs::stat(Path::new(ROOT).join("scratch"))?;
    Ok(found.st_uid)
}

/// Standard input from scratch, without following a link out of it.
fn standard_input(task: &GuestTask) -> io::Result<Stdio> {
    let Some(name) = &task.stdin else {
        return Ok(Stdio::null());
    };
    let work = File::open(Path::new(DISK).join(WORK))?;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let open = openat2(&work, name.as_str(), flags, Mode::empty(), within);
    let open = open.map_err(|error| {
        let error = io::Error::from(error);
        io::Error::other(format!(
            "standard input {name} could not be opened: {error}; is it among the inputs?"
        ))
    })?;
    Ok(open.into())
}

fn group(file: &str) -> std::path::PathBuf {
    Path::new(CGROUP).join("task").join(file)
}

fn members() -> Vec<Pid> {
    let text = fs::read_to_string(group("cgroup.procs")).unwrap_or_default();
    text.lines()
        .filter_map(|line| Pid::from_raw(line.parse().ok()?))
        .collect()
}

fn number(file: &str) -> u64 {
    let text = fs::read_to_string(group(file)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// One line of a file of counts.
fn event(file: &str, name: &str) -> u64 {
    count(&fs::read_to_string(group(file)).unwrap_or_default(), name)
}

fn count(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once([' ', ':'])?;
        (key == name).then(|| value.trim().parse().ok())?
    });
    value.unwrap_or(0)
}

/// Bytes that a process and all its ended ones have read and written: proc(5), `/proc/PID/io`.
fn moved(process: &str) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
    (count(&text, "rchar"), count(&text, "wchar"))
}

/// The clock of the guest, which is the host's.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_by_their_whole_name() {
        let text = "low 1\noom 2\noom_kill 3\nrchar: 44\n";
        assert_eq!(count(text, "oom"), 2);
        assert_eq!(count(text, "oom_kill"), 3);
        assert_eq!(count(text, "rchar"), 44);
        assert_eq!(count(text, "kill"), 0);
    }
}
