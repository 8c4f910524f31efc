//! Trials in throw-away children: what a trial changes dies with it.
//!
//! A child is forked from a program that may have threads, so until it exits it makes system
//! calls only: no allocation, no lock, nothing of the standard library that could take one.

use std::io;
use std::time::{Duration, Instant};

/// A trial is a handful of system calls; one that takes longer hangs in a broken driver or
/// security module, and counts as failed.
const TRIAL_MAX: Duration = Duration::from_secs(2);

/// Runs a trial in a child. The trial returns 0 or the error number of what failed.
///
/// # Errors
/// The trial's own, or that the child could not be had or did not end in time.
pub(super) fn trial(run: fn() -> i32) -> io::Result<()> {
    // SAFETY: the child makes async-signal-safe system calls only and leaves with _exit.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = run();
            // SAFETY: _exit(2) takes one integer and does not return.
            unsafe { libc::_exit(code.clamp(0, 255)) }
        }
        pid => wait(pid),
    }
}

fn wait(pid: i32) -> io::Result<()> {
    let end = Instant::now() + TRIAL_MAX;
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live integer that the call fills in.
        let got = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
        if got == pid {
            break;
        }
        if got < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return Err(io::Error::last_os_error());
        }
        if Instant::now() >= end {
            // SAFETY: kill(2) takes two integers; the child is ours and not yet reaped.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            // Not waited for in place: one that hangs in the kernel would hang us too.
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(()),
        (true, code) => Err(io::Error::from_raw_os_error(code)),
        (false, _) => Err(io::Error::other(format!(
            "killed by signal {}",
            libc::WTERMSIG(status)
        ))),
    }
}

/// The last error number; reads a thread-local integer, nothing more.
fn errno() -> i32 {
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

/// All namespaces of the sandbox, and that the rights in them are real: Ubuntu's AppArmor lets
/// a plain user make a user namespace and takes every right in it away.
pub(super) fn namespaces() -> i32 {
    const ALL: libc::c_int = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    // SAFETY: unshare(2) takes one integer.
    if unsafe { libc::unshare(ALL) } != 0 {
        return errno();
    }
    private_mounts()
}

fn private_mounts() -> i32 {
    let none = std::ptr::null();
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the target is a constant with its final zero; the other pointers may be null.
    match unsafe { libc::mount(none, c"/".as_ptr(), none, flags, none.cast()) } {
        0 => 0,
        _ => errno(),
    }
}

/// A tmpfs with a size, as the sandbox's scratch.
pub(super) fn sized_tmpfs() -> i32 {
    // SAFETY: unshare(2) takes one integer.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) } != 0 {
        return errno();
    }
    let failed = private_mounts();
    if failed != 0 {
        return failed;
    }
    let (kind, target) = (c"tmpfs".as_ptr(), c"/tmp".as_ptr());
    let options = c"size=65536,nr_inodes=64".as_ptr().cast();
    // SAFETY: all strings are constants with their final zero; the mount is this child's only.
    match unsafe { libc::mount(kind, target, kind, 0, options) } {
        0 => 0,
        _ => errno(),
    }
}

const ALLOW_ALL: [libc::sock_filter; 1] = [libc::sock_filter {
    code: 0x06, // BPF_RET | BPF_K
    jt: 0,
    jf: 0,
    k: libc::SECCOMP_RET_ALLOW,
}];

/// A filter with a listener, which the sandbox counts refused calls by.
pub(super) fn filter_with_listener() -> i32 {
    filter(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)
}

/// A plain filter.
pub(super) fn plain_filter() -> i32 {
    filter(0)
}

fn filter(flags: libc::c_ulong) -> i32 {
    // SAFETY: prctl with these arguments takes integers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return errno();
    }
    let program = libc::sock_fprog {
        len: 1,
        filter: ALLOW_ALL.as_ptr().cast_mut(),
    };
    let (call, mode) = (libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER);
    // SAFETY: the program is live and its length right; the kernel copies it.
    match unsafe { libc::syscall(call, mode, flags, &raw const program) } {
        -1 => errno(),
        _ => 0,
    }
}

/// The version of Landlock in the kernel, if any.
pub(super) fn landlock_version() -> Option<i64> {
    const VERSION: libc::c_uint = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the call takes a null pointer and size 0 and makes nothing.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0usize, VERSION) };
    (version > 0).then_some(version)
}

/// A child that sleeps until it is killed, for trying a group on.
#[derive(Debug)]
pub(super) struct Sleeper {
    pid: i32,
}

impl Sleeper {
    pub(super) fn start() -> io::Result<Self> {
        // SAFETY: the child makes async-signal-safe system calls only and never returns.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => loop {
                // SAFETY: prctl with these arguments takes integers only.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
                // SAFETY: pause(2) takes nothing.
                unsafe { libc::pause() };
            },
            pid => Ok(Self { pid }),
        }
    }

    pub(super) const fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // SAFETY: kill(2) takes two integers; the child is ours and not yet reaped.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        let _ended = wait(self.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_tells_its_error_and_never_hangs() {
        trial(|| 0).unwrap();
        let refused = trial(|| libc::EPERM).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        let hangs = trial(|| {
            // SAFETY: sleep(3) takes one integer and is async-signal-safe.
            unsafe { libc::sleep(60) };
            0
        });
        assert_eq!(hangs.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let dies = trial(|| {
            // SAFETY: raise(3) takes one integer and is async-signal-safe.
            unsafe { libc::raise(libc::SIGKILL) };
            0
        });
        assert!(dies.unwrap_err().to_string().contains("signal 9"));
    }
}
