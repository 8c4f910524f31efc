//! The last step before the task's program: enters its group and root, gives up all rights, and
//! becomes it.

use super::program::{GATE, STATUS};
use super::{CGROUP, DISK, ROOT};
use crate::task::{End, GuestTask, TASK_FILE};
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Most open files of one process: the kernel's usual soft and hard bounds.
const FILES_SOFT: u64 = 1024;
const FILES_HARD: u64 = 65_536;

/// Where programs without a slash are looked for.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// What nearly every program of a distribution needs before its own first instruction; where a
/// root has none of these, nothing is lost.
const LOADED_FIRST: [&str; 4] = [
    "/bin/sh",
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib64/libc.so.6",
];

/// Becomes the program, or says why not.
#[must_use]
pub fn main() -> ExitCode {
    let Ok(mut status) = File::options().append(true).open(STATUS) else {
        return ExitCode::FAILURE;
    };
    let end = match task() {
        Ok((task, gate)) => match gate.map(|gate| wait(&task, gate)).transpose() {
            Ok(_) => become_program(&task),
            Err(error) => End::Failed(format!("the guest was not let go on: {error}")),
        },
        Err(error) => End::Failed(format!("the guest could not be prepared: {error}")),
    };
    let said = serde_json::to_vec(&end).map(|text| status.write_all(&text));
    drop(said);
    ExitCode::FAILURE
}

/// Does what can be done for the program ahead, and waits until its task begins.
fn wait(task: &GuestTask, mut gate: File) -> io::Result<()> {
    let programs = candidates(task).into_iter();
    let likely = programs.chain(LOADED_FIRST.map(PathBuf::from));
    for file in likely.filter_map(|path| File::open(path).ok()) {
        // Into the guest's memory, so that the first instruction waits for no disk. Whatever comes
        // of it, this only saves time.
        let _slow = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::WillNeed);
    }
    gate.read_exact(&mut [0])
}

/// The task, with our rights given up, and where it has to wait.
fn task() -> io::Result<(GuestTask, Option<File>)> {
    let text = fs::read(Path::new(DISK).join(TASK_FILE))?;
    let task: GuestTask = serde_json::from_slice(&text)?;
    let gate = task.waits.then(|| File::open(GATE)).transpose()?;
    let owner = super::program::scratch_owner()?;
    let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
    fs::write(Path::new(CGROUP).join("task/cgroup.procs"), "0")?;
    rustix::process::setsid()?;
    let bound = |resource, current: u64, maximum: u64| {
        let limit = Rlimit {
            current: Some(current),
            maximum: Some(maximum),
        };
        rustix::process::setrlimit(resource, limit)
    };
    bound(Resource::Core, 0, 0)?;
    bound(Resource::Nofile, FILES_SOFT, FILES_HARD)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::chroot(ROOT)?;
    rustix::process::chdir("/scratch")?;
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    // The capabilities go with the last user id that is 0.
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok((task, gate))
}

/// Where the program may be.
fn candidates(task: &GuestTask) -> Vec<PathBuf> {
    let name = task.command.first().map_or("", String::as_str);
    let path = task.env.get("PATH").map_or(PATH, String::as_str);
    if name.contains('/') {
        return vec![name.into()];
    }
    path.split(':')
        .map(|dir| Path::new(dir).join(name))
        .collect()
}

/// Only returns where the program could not be started.
fn become_program(task: &GuestTask) -> End {
    let name = task.command.first().map_or("", String::as_str);
    let candidates = candidates(task);
    let mut worst = Errno::NOENT;
    for candidate in &candidates {
        let error = execute(candidate, task);
        if error == Errno::NOEXEC {
            let mut shell = vec!["/bin/sh".into(), candidate.to_string_lossy().into_owned()];
            shell.extend(task.command.iter().skip(1).cloned());
            let by_shell = GuestTask {
                command: shell,
                ..task.clone()
            };
            worst = execute(Path::new("/bin/sh"), &by_shell);
        } else if !matches!(error, Errno::NOENT | Errno::NOTDIR) {
            worst = error;
        }
    }
    let there = candidates.iter().any(|path| path.exists());
    not_started(name, worst, there)
}

fn execute(program: &Path, task: &GuestTask) -> Errno {
    let error = Command::new(program)
        .arg0(task.command.first().map_or("", String::as_str))
        .args(task.command.iter().skip(1))
        .env_clear()
        .envs(&task.env)
        .exec();
    Errno::from_io_error(&error).unwrap_or(Errno::INVAL)
}

fn not_started(name: &str, error: Errno, there: bool) -> End {
    End::Failed(match error {
        Errno::NOENT if !there => return End::NoProgram(name.to_owned()),
        Errno::NOENT => format!(
            "{name} is there but its interpreter is not; look at its first line, or at \
             `readelf -l` for a program"
        ),
        Errno::ACCESS => format!("{name} is not executable; set its x bit where it is submitted"),
        Errno::TOOBIG => format!("the arguments and environment of {name} are too long"),
        other => format!("{name} could not be started: {}", io::Error::from(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_program_did_not_start_is_a_sentence() {
        assert_eq!(
            not_started("x", Errno::NOENT, false),
            End::NoProgram("x".to_owned())
        );
        for (error, says) in [
            (Errno::NOENT, "interpreter"),
            (Errno::ACCESS, "not executable"),
            (Errno::TOOBIG, "too long"),
            (Errno::IO, "could not be started"),
        ] {
            let End::Failed(detail) = not_started("x", error, true) else {
                panic!("{error}");
            };
            assert!(detail.contains(says), "{detail}");
        }
    }
}
