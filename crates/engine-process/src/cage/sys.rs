//! The system calls that no safe wrapper offers, one function each.
//!
//! It owns the raw calls and their structures as the kernel defines them. It must not know what
//! they are used for. Every other module of the cage is built from these and `rustix`.

use rustix::io::Errno;
use std::ffi::{c_int, c_long, c_ulong, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

/// Stack of the process that becomes the program. It makes a dozen calls and then `execve`s.
const LAUNCH_STACK_BYTES: usize = 64 * 1024;

/// `KCMP_FILES` of kcmp(2).
const KCMP_FILES: c_int = 2;

/// SCHED_IDLE of sched(7).
const SCHED_IDLE: c_int = 5;

/// `IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0)` of ioprio_set(2).
const IOPRIO_IDLE: c_int = 3 << 13;

/// `IOPRIO_WHO_PROCESS` of ioprio_set(2).
const IOPRIO_WHO_PROCESS: c_int = 1;

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// `struct clone_args` of clone3(2), version 0 up to the cgroup field.
#[repr(C)]
#[derive(Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks with the given namespace flags. Returns the child's process id, or none in the child.
///
/// Must be called where this process has one thread only: the child is a copy of the calling
/// thread alone, and a lock that another thread held would stay locked in it.
pub(crate) fn fork(flags: u64, into: Option<BorrowedFd<'_>>) -> io::Result<Option<i32>> {
    let same_parent = flags & libc::CLONE_PARENT as u64 != 0;
    let mut args = CloneArgs {
        flags,
        // With CLONE_PARENT the kernel takes the signal of our own exit and wants none here.
        exit_signal: if same_parent { 0 } else { libc::SIGCHLD as u64 },
        ..CloneArgs::default()
    };
    if let Some(fd) = into {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = u64::try_from(fd.as_raw_fd()).map_err(io::Error::other)?;
    }
    // SAFETY: no CLONE_VM, so the child has its own copy of all memory and returns from here
    // like after fork(2); `args` is a whole clone_args and outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    let pid = check(result)?;
    Ok((pid != 0).then_some(i32::try_from(pid).map_err(io::Error::other)?))
}

/// Forks as fork(2) does. Returns the copy's process id, or none in the copy. To be called with one
/// thread only.
pub(crate) fn copy_self() -> io::Result<Option<i32>> {
    // SAFETY: with one thread nothing can be left locked in the copy.
    let pid = unsafe { libc::fork() };
    check(c_long::from(pid))?;
    Ok((pid != 0).then_some(pid))
}

/// Writes over the arguments that this process was executed with, so that listings of processes
/// tell it from others. The old ones must be longer. See proc(5), `/proc/PID/stat`, fields 48 and 49.
pub(crate) fn set_arguments(words: &[u8]) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    // The first field behind the name is the third.
    let mut places = fields.split_whitespace().skip(48 - 3);
    let mut place = || places.next()?.parse::<usize>().ok();
    let (Some(start), Some(end)) = (place(), place()) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let room = end.saturating_sub(start);
    if start == 0 || words.len() >= room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let at = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel says that our arguments lie from `start` to `end`, on our own stack, and
    // the standard library has copied what it has given out of them.
    unsafe { std::ptr::write_bytes(at, 0, room) };
    // SAFETY: as above; `words` is shorter and lies elsewhere.
    unsafe { std::ptr::copy_nonoverlapping(words.as_ptr(), at, words.len()) };
    Ok(())
}

/// Runs `entry(argument)` in a new process that shares our memory until it executes a program
/// or exits; waits for that. Returns its process id.
///
/// This is vfork(2) with a stack of its own: no page table is copied, and what `entry` writes
/// through `argument` is seen here afterwards.
pub(crate) fn spawn_sharing_memory<T>(
    entry: extern "C" fn(*mut c_void) -> c_int,
    argument: &mut T,
) -> io::Result<i32> {
    // Not cleared: the pages that are never reached cost nothing so.
    let mut stack = Vec::<u128>::with_capacity(LAUNCH_STACK_BYTES / size_of::<u128>());
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let argument: *mut T = argument;
    // SAFETY: the stack is aligned and large enough, and both it and `argument` outlive the
    // child's use of them, because CLONE_VFORK suspends us until it has executed or exited.
    let pid = unsafe {
        libc::clone(
            entry,
            top.cast::<c_void>(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            argument.cast::<c_void>(),
        )
    };
    check(c_long::from(pid))?;
    Ok(pid)
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Debug, Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets attributes (`MOUNT_ATTR_*`) of the mount that `fd` is the root of, and of those below.
pub(crate) fn mount_setattr(fd: impl AsFd, below_too: bool, set: u64) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: set,
        ..MountAttr::default()
    };
    let flags = libc::AT_EMPTY_PATH | if below_too { 0x8000 } else { 0 }; // AT_RECURSIVE
    // SAFETY: the path is an empty C string and `attr` is a whole mount_attr.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// What can be set on a file or directory besides its content, mode and extended attributes.
/// Each is 0 where the file system does not have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    flags: u64,
    generation: u64,
    /// `struct fsxattr`: flags, allocation hints, project.
    extended: [u32; 7],
}

/// `FS_IOC_GETFLAGS`, `FS_IOC_GETVERSION` and `FS_IOC_FSGETXATTR`, see ioctl_fs(2).
const GET_FLAGS: c_ulong = 0x8008_6601;
const GET_VERSION: c_ulong = 0x8008_7601;
const GET_EXTENDED: c_ulong = 0x801c_581f;

/// Reads them.
pub(crate) fn attributes(fd: BorrowedFd<'_>) -> Attributes {
    let mut found = Attributes::default();
    let fd = fd.as_raw_fd();
    // SAFETY: the kernel writes at most a long.
    let _absent = unsafe { libc::ioctl(fd, GET_FLAGS, &raw mut found.flags) };
    // SAFETY: as above.
    let _absent = unsafe { libc::ioctl(fd, GET_VERSION, &raw mut found.generation) };
    // SAFETY: the kernel writes a struct fsxattr, which has 28 bytes.
    let _absent = unsafe { libc::ioctl(fd, GET_EXTENDED, &raw mut found.extended) };
    found
}

/// Puts this thread behind everything else on its CPU and its disk.
pub(crate) fn become_idle() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: `parameter` is a whole sched_param; 0 is this thread.
    let result = unsafe { libc::sched_setscheduler(0, SCHED_IDLE, &raw const parameter) };
    check(c_long::from(result))?;
    // SAFETY: takes numbers only; 0 is this thread.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE) })
        .map(drop)
}

/// Memory habits of this process and all after it, best effort. Huge pages only where a program
/// asks for them: making one copies and clears 2 MiB in the kernel, with the owner's programs
/// waiting (kernels before 6.18 cannot tell the two apart and are left as the PC has them). And
/// no merging of equal pages: it costs processor time and tells one program of another's.
pub(crate) fn be_modest_with_memory() {
    /// `PR_THP_DISABLE_EXCEPT_ADVISED` of prctl(2).
    const EXCEPT_ADVISED: c_ulong = 1 << 1;
    /// `PR_SET_MEMORY_MERGE` of prctl(2).
    const MEMORY_MERGE: c_int = 67;
    const NO: c_ulong = 0;
    const YES: c_ulong = 1;
    // SAFETY: takes numbers only.
    let _older = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, YES, EXCEPT_ADVISED, NO, NO) };
    // SAFETY: takes numbers only.
    let _older = unsafe { libc::prctl(MEMORY_MERGE, NO, NO, NO, NO) };
}

/// What a signal does: its default, or nothing.
pub(crate) fn set_signal(signal: c_int, ignore: bool) {
    let action = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: neither disposition runs code of ours.
    let _before = unsafe { libc::signal(signal, action) };
}

/// Every signal at its default but SIGPIPE, which is ignored: writes say EPIPE instead.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        set_signal(signal, signal == libc::SIGPIPE);
    }
    let _kept = block_signals(&[]);
}

/// Blocks exactly these signals in this thread.
pub(crate) fn block_signals(signals: &[c_int]) -> io::Result<()> {
    let set = signal_set(signals);
    // SAFETY: `set` is an initialised signal set; the old one is not asked for.
    let result =
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
    check(c_long::from(result)).map(drop)
}

fn signal_set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: a signal set is plain data, and all zero bytes are the empty one on Linux.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in signals {
        // SAFETY: `set` is an initialised signal set.
        let _added = unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

/// Waits for one of these (blocked) signals, at most so long. Returns it, and whether it came from
/// outside our PID namespace; none where the time is over.
pub(crate) fn wait_signal(signals: &[c_int], most: Option<Duration>) -> Option<(c_int, bool)> {
    let set = signal_set(signals);
    // SAFETY: siginfo_t is plain data.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let most = most.map(|most| libc::timespec {
        tv_sec: libc::time_t::try_from(most.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: c_long::from(most.subsec_nanos()),
    });
    let most = most.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the structures are initialised and live through the call; no time is no bound.
    let signal = unsafe { libc::sigtimedwait(&raw const set, &raw mut info, most) };
    if signal < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN) {
        return None;
    }
    // SAFETY: the kernel fills in the sender for every signal that kill(2) and its like send.
    let sender = unsafe { info.si_pid() };
    Some((signal, sender == 0))
}

/// One ended child, taken off the kernel: process id and wait status.
pub(crate) fn reap() -> io::Result<Option<(i32, c_int)>> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    check(c_long::from(pid))?;
    Ok((pid > 0).then_some((pid, status)))
}

/// Sends `signal` to every process that we can see but ourselves.
pub(crate) fn signal_all(signal: c_int) {
    // SAFETY: takes numbers only.
    let _none_left = unsafe { libc::kill(-1, signal) };
}

/// Sends `signal` to a child that has not been waited for.
pub(crate) fn signal(child: i32, signal: c_int) {
    // SAFETY: takes numbers only.
    let _ended = unsafe { libc::kill(child, signal) };
}

/// Waits until a child ends and takes it off the kernel; an error when there is none.
pub(crate) fn reap_one() -> io::Result<(i32, c_int)> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
    check(c_long::from(pid))?;
    Ok((pid, status))
}

/// Whether two threads have the same table of open files; none where the kernel does not say.
pub(crate) fn same_files(one: i32, other: i32) -> Option<bool> {
    // SAFETY: takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) };
    check(result).ok().map(|order| order == 0)
}

/// What all our ended children used, their own ended children included.
pub(crate) fn children_usage() -> libc::rusage {
    // SAFETY: rusage is plain data.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid place for the result.
    let _never_fails = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    usage
}

/// Leaves this process at once, without running anything on the way out.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(code) }
}

/// Puts this process, which must have one thread, into a new ipc namespace.
pub(crate) fn new_ipc_namespace() -> io::Result<()> {
    // SAFETY: takes a number only; memory and descriptors stay as they are.
    check(c_long::from(unsafe { libc::unshare(libc::CLONE_NEWIPC) })).map(drop)
}

/// How many shared memories, sets of semaphores and queues of System V are in our ipc namespace.
/// See shmctl(2), semctl(2) and msgctl(2): `SHM_INFO`, `SEM_INFO`, `MSG_INFO`.
pub(crate) fn system_v_objects() -> io::Result<[c_int; 3]> {
    /// Larger than any of the three structures, all of which begin with numbers of this size.
    type Info = [c_int; 32];
    let (mut memory, mut semaphores, mut messages): (Info, Info, Info) = Default::default();
    // SAFETY: the kernel writes a `struct shm_info` of 48 bytes.
    let done = unsafe { libc::syscall(libc::SYS_shmctl, 0, 14, memory.as_mut_ptr()) };
    check(done)?;
    // SAFETY: the kernel writes a `struct seminfo` of 40 bytes.
    let done = unsafe { libc::syscall(libc::SYS_semctl, 0, 0, 19, semaphores.as_mut_ptr()) };
    check(done)?;
    // SAFETY: the kernel writes a `struct msginfo` of 32 bytes.
    let done = unsafe { libc::syscall(libc::SYS_msgctl, 0, 12, messages.as_mut_ptr()) };
    check(done)?;
    // `used_ids`, `semusz` and `msgpool`.
    let ([memory, ..], [_, _, _, _, _, _, _, semaphores, ..], [messages, ..]) =
        (memory, semaphores, messages);
    Ok([memory, semaphores, messages])
}

/// Brings the loopback interface of our network namespace up.
pub(crate) fn loopback_up(socket: impl AsFd) -> io::Result<()> {
    // SAFETY: ifreq is plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `request` is a whole ifreq with a name and flags.
    let result = unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request) };
    check(c_long::from(result)).map(drop)
}

/// One instruction of the classic BPF machine, as the kernel has it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jump_true: u8,
    pub(crate) jump_false: u8,
    pub(crate) constant: u32,
}

#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Puts a system call filter on this process. Returns the listener where one is asked for.
pub(crate) fn install_filter(
    program: &[Instruction],
    listener: bool,
) -> io::Result<Option<OwnedFd>> {
    let program = Program {
        length: u16::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr(),
    };
    let flags: c_long = if listener { 1 << 3 } else { 0 }; // SECCOMP_FILTER_FLAG_NEW_LISTENER
    // SAFETY: `program` points at its instructions, which outlive the call; the kernel copies.
    let fd = check(unsafe { libc::syscall(libc::SYS_seccomp, 1, flags, &raw const program) })?;
    if !listener {
        return Ok(None);
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// A system call that waits for our answer: `struct seccomp_notif`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notice {
    pub(crate) id: u64,
    pub(crate) pid: u32,
    pub(crate) flags: u32,
    pub(crate) number: i32,
    pub(crate) arch: u32,
    pub(crate) instruction_pointer: u64,
    pub(crate) args: [u64; 6],
}

#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const NOTICE_RECEIVE: c_ulong = 0xc050_2100;
const NOTICE_SEND: c_ulong = 0xc018_2101;

/// Takes the next waiting system call off a listener.
pub(crate) fn receive_notice(listener: BorrowedFd<'_>) -> io::Result<Notice> {
    // SAFETY: the structure is plain data; the kernel wants it zeroed.
    let mut notice: Notice = unsafe { std::mem::zeroed() };
    let fd = listener.as_raw_fd();
    // SAFETY: `notice` is a whole seccomp_notif.
    let result = unsafe { libc::ioctl(fd, NOTICE_RECEIVE, &raw mut notice) };
    check(c_long::from(result))?;
    Ok(notice)
}

/// Lets a waiting system call return with this error.
pub(crate) fn refuse_notice(listener: BorrowedFd<'_>, id: u64, error: Errno) -> io::Result<()> {
    let answer = Answer {
        id,
        value: 0,
        error: -error.raw_os_error(),
        flags: 0,
    };
    let fd = listener.as_raw_fd();
    // SAFETY: `answer` is a whole seccomp_notif_resp.
    let result = unsafe { libc::ioctl(fd, NOTICE_SEND, &raw const answer) };
    check(c_long::from(result)).map(drop)
}

/// `landlock_create_ruleset(2)`; with `attributes` empty it returns the version instead.
pub(crate) fn landlock_ruleset(attributes: &[u64]) -> io::Result<c_int> {
    let (pointer, size, flags) = if attributes.is_empty() {
        (std::ptr::null(), 0, 1)
    } else {
        (attributes.as_ptr(), size_of_val(attributes), 0)
    };
    // SAFETY: the pointer and size describe `attributes`, or are null and 0 as for a version.
    let fd =
        check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, pointer, size, flags) })?;
    c_int::try_from(fd).map_err(io::Error::other)
}

/// Turns the number that [`landlock_ruleset`] returned into a descriptor.
pub(crate) fn own_descriptor(fd: c_int) -> OwnedFd {
    // SAFETY: only called with a descriptor that the kernel has just made for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// `landlock_add_rule(2)`: allows `access` at and below `parent`.
pub(crate) fn landlock_allow(
    ruleset: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    access: u64,
) -> io::Result<()> {
    let rule = PathBeneath {
        allowed: access,
        parent: parent.as_raw_fd(),
    };
    let fd = ruleset.as_raw_fd();
    // SAFETY: `rule` is a whole landlock_path_beneath_attr; 1 is its type.
    check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, fd, 1, &raw const rule, 0) })
        .map(drop)
}

/// `landlock_restrict_self(2)`.
pub(crate) fn landlock_restrict(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
        .map(drop)
}
