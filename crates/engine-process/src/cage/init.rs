//! Process 1 of a cage: confines itself, starts the program, and outlives it just long enough
//! to end all it left behind and to say what it used.
//!
//! It comes as a copy of the zygote with a pid and a mount namespace of its own, and an ipc
//! namespace that nobody else has meanwhile. Before the
//! program runs it has the cage's user id, no capability, no way to any, a Landlock domain and
//! the system call filter; whatever breaks it can do no more than the program itself.

use super::root::{CAGES, EMPTY, OUTSIDE, STAT};
use super::seccomp::bpf::{Allowed, Refusal, program};
use super::sys::Instruction;
use super::user::become_user;
use super::{Trouble, landlock, sys};
use crate::message::{BRIEF, Exited, GoOn, Launch, Status, buffer, receive, send};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MountFlags, mount, mount_bind};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// What holds for every cage of the bundle.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Landlock's version; 0 for none.
    pub(crate) landlock: i32,
    /// Whether each cage has a user id of its own.
    pub(crate) uid_given: bool,
    /// The system call filter, made once.
    pub(crate) filter: Vec<Instruction>,
    /// What the filter allows here.
    pub(crate) allowed: Allowed,
    /// Whether the programs are guests' kernels.
    pub(crate) guest: bool,
    /// Whether what lies in shared memory may be run: a guest's memory may lie there, and with
    /// it the programs that it runs.
    pub(crate) shared_programs: bool,
    /// Devices that the program may write to, for Landlock.
    pub(crate) devices: Vec<OwnedFd>,
    /// Files of /proc that it must not read.
    pub(crate) hidden: Vec<&'static str>,
}

/// Most open files of one process: the kernel's usual soft and hard bounds.
const FILES_SOFT: u64 = 1024;
const FILES_HARD: u64 = 65_536;

/// Signals that wait and timers (which reserve one each), and bytes of message queues, of one
/// attempt: the kernel counts them for whoever made the user namespace as well, and gives each user
/// some 30,000 and 800,000. Enough for a timer a thread and for one queue of the usual size. Source:
/// getrlimit(2).
const SIGNALS_MAX: u64 = 1024;
const QUEUES_MAX_BYTES: u64 = 128 << 10;

/// Where programs without a slash are looked for.
pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Runs the cage. Never returns: the process ends here.
pub(crate) fn run(launch: Launch, descriptors: Vec<OwnedFd>, setting: &Setting) -> ! {
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next();
    let (Some(status), Some(stdout), Some(stderr)) = (next(), next(), next()) else {
        sys::exit_now(1)
    };
    let groups: Vec<OwnedFd> = descriptors.collect();
    if launch.waits {
        let go = receive::<GoOn>(&status, &mut buffer(), RecvFlags::empty());
        if !matches!(go, Ok(Some(_))) {
            sys::exit_now(1);
        }
    }
    let report = match cage(&launch, setting, &status, [stdout, stderr], groups) {
        Ok(report) => report,
        Err(trouble) => Some(Status::Failed {
            detail: trouble.to_string(),
        }),
    };
    if let Some(report) = report {
        let _shim_gone = tell(&status, &report);
    }
    sys::exit_now(0)
}

fn tell(status: impl AsFd, what: &Status) -> io::Result<()> {
    send(status, what, &[], SendFlags::empty())
}

/// From a bare process to the end of the program. Returns what is still to be said.
fn cage(
    launch: &Launch,
    setting: &Setting,
    status: &OwnedFd,
    streams: [OwnedFd; 2],
    groups: Vec<OwnedFd>,
) -> Result<Option<Status>, Trouble> {
    mounts(launch, setting)?;
    // For the shim to let go of: whoever is last waits for every processor, and that should be
    // neither the program's end nor anybody at idle priority.
    let mounts =
        File::open("/proc/self/ns/mnt").map_err(Trouble::at("hand the mounts to the shim"))?;
    // Our own files in /proc are ours only while we are readable; later this descriptor does.
    // Small kernels have no such file.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
        .map_err(Trouble::at("count what is read and written"))?;
    let counts = File::open("/proc/self/io").ok();
    bounds(launch).map_err(Trouble::at("set the limits of the process"))?;
    // Not sooner: who holds the kernel's locks on mounts should not be at idle priority.
    crate::cgroup::join(&groups).map_err(Trouble::at(
        "enter the group with the limits of the attempt",
    ))?;
    drop(groups);
    sys::become_idle().map_err(Trouble::at("go to idle priority"))?;
    if setting.uid_given {
        become_user(launch.uid)?;
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Trouble::at("die with the shim"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(Trouble::at("keep out of the program's reach"))?;
    let empty = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, empty).map_err(Trouble::at("drop capabilities"))?;
    let stdin = standard_input(launch)?;
    let [stdout, stderr] = streams;
    let writable = [stdout.as_fd(), stderr.as_fd()];
    let devices = setting.devices.iter().map(AsFd::as_fd);
    let writable: Vec<_> = devices.chain(writable).collect();
    landlock::confine(setting.landlock, &writable).map_err(Trouble::at("apply Landlock"))?;
    let handed = filter(mounts.into(), setting)?;
    let streams = [stdin, stdout, stderr];
    let main = match start(launch, streams)? {
        Ok(main) => main,
        Err(not_started) => return Ok(Some(not_started)),
    };
    let began = Instant::now();
    let counts = counts.as_ref();
    let brief = wait_for(main, setting.guest, Some(BRIEF)).map(|status| exited(status, counts));
    started(status, handed, (began, brief))?;
    if brief.is_some() {
        return Ok(None);
    }
    // Without a bound there is a status.
    let ended = wait_for(main, setting.guest, None);
    Ok(ended.map(|status| Status::Exited(exited(status, counts))))
}

/// Adds to the bundle's root what is this cage's own, and takes away what is not.
fn mounts(launch: &Launch, setting: &Setting) -> Result<(), Trouble> {
    let scratch = format!("{CAGES}/{}", launch.scratch);
    mount_bind(scratch.as_str(), "/scratch").map_err(Trouble::at("show the scratch directory"))?;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", quiet | MountFlags::RDONLY, None)
        .map_err(Trouble::at("mount a /proc of its own"))?;
    for path in &setting.hidden {
        match mount_bind("/dev/null", *path) {
            // Not every kernel has every one.
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(Trouble::at("hide parts of /proc")(error)),
        }
    }
    match mount_bind(STAT, "/proc/stat") {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(Trouble::at("hide counts of key strokes")(error)),
    }
    let shared = if setting.shared_programs {
        quiet - MountFlags::NOEXEC
    } else {
        quiet
    };
    let size = CString::new(format!("size={},mode=1777", launch.shared_memory_max));
    let size = size.map_err(Trouble::at("bound shared memory"))?;
    mount("tmpfs", "/dev/shm", "tmpfs", shared, size.as_c_str())
        .map_err(Trouble::at("mount a /dev/shm of its own"))?;
    mount_bind(EMPTY, OUTSIDE).map_err(Trouble::at("cover other cages"))?;
    rustix::process::chdir("/scratch").map_err(Trouble::at("go to the scratch directory"))?;
    Ok(())
}

fn bounds(launch: &Launch) -> io::Result<()> {
    let both = |value: u64| Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    let set = |resource: Resource, limit: Rlimit| rustix::process::setrlimit(resource, limit);
    set(Resource::Core, both(0))?;
    set(Resource::Nice, both(0))?;
    set(Resource::Rtprio, both(0))?;
    set(Resource::Fsize, both(launch.file_max))?;
    set(Resource::Sigpending, both(SIGNALS_MAX))?;
    set(Resource::Msgqueue, both(QUEUES_MAX_BYTES))?;
    let files = rustix::process::getrlimit(Resource::Nofile);
    let hard = files.maximum.unwrap_or(FILES_HARD).min(FILES_HARD);
    let limit = Rlimit {
        current: Some(FILES_SOFT.min(hard)),
        maximum: Some(hard),
    };
    set(Resource::Nofile, limit)?;
    for (number, value) in &launch.resources {
        if let Some(resource) = resource(*number) {
            set(resource, both(*value))?;
        }
    }
    Ok(())
}

/// The limits that stand in for a control group, by the kernel's numbers.
fn resource(number: i32) -> Option<Resource> {
    let number = u32::try_from(number).ok()?;
    [
        (libc::RLIMIT_AS, Resource::As),
        (libc::RLIMIT_DATA, Resource::Data),
        (libc::RLIMIT_NPROC, Resource::Nproc),
        (libc::RLIMIT_CPU, Resource::Cpu),
        (libc::RLIMIT_FSIZE, Resource::Fsize),
    ]
    .into_iter()
    .find_map(|(known, resource)| (known == number).then_some(resource))
}

/// Standard input from scratch, without following a link out of it.
fn standard_input(launch: &Launch) -> Result<OwnedFd, Trouble> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Some(name) = &launch.stdin else {
        return rustix::fs::openat(CWD, "/dev/null", flags, Mode::empty())
            .map_err(Trouble::at("open /dev/null"));
    };
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, name.as_str(), flags, Mode::empty(), within).map_err(Trouble::at(
        "open standard input; is its file among the inputs?",
    ))
}

/// What the shim gets with the news that the program runs.
struct Handed {
    mounts: OwnedFd,
    /// Where refused system calls wait.
    listener: Option<OwnedFd>,
    degraded: Vec<String>,
}

/// Installs the filter. A kernel that has no listeners, or a container that has taken the only
/// one, refuses without counting.
fn filter(mounts: OwnedFd, setting: &Setting) -> Result<Handed, Trouble> {
    let at = Trouble::at("install the system call filter");
    let (listener, degraded) = match sys::install_filter(&setting.filter, true) {
        Ok(listener) => (listener, Vec::new()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EINVAL)) => {
            sys::install_filter(&program(Refusal::Silent, setting.allowed), false).map_err(at)?;
            let why = "refused system calls are not counted: this kernel gives no listener";
            (None, vec![why.to_owned()])
        }
        Err(error) => return Err(at(error)),
    };
    Ok(Handed {
        mounts,
        listener,
        degraded,
    })
}

/// Says that the program runs since then, or how it ended. The listener goes with it: the
/// program's own calls up to its start are none that wait there.
fn started(
    status: &OwnedFd,
    handed: Handed,
    (began, exited): (Instant, Option<Exited>),
) -> Result<(), Trouble> {
    let with: Vec<_> = [Some(&handed.mounts), handed.listener.as_ref()]
        .into_iter()
        .flatten()
        .map(AsFd::as_fd)
        .collect();
    let news = Status::Started {
        degraded: handed.degraded,
        ran_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        exited,
    };
    send(status, &news, &with, SendFlags::empty()).map_err(Trouble::at("reach the shim"))
}

/// What the program-to-be needs, made before it exists: it shares our memory and must not
/// allocate.
struct Exec {
    candidates: Vec<CString>,
    /// Pointers into the command's strings, null at the end.
    arguments: Vec<*const c_char>,
    /// The same for a script without an interpreter line: `/bin/sh`, place for its path, rest.
    shell: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    streams: [c_int; 3],
    /// Out: what `execve` said last that was worth saying.
    error: c_int,
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    let all = strings.iter().map(|text| text.as_ptr());
    all.chain([std::ptr::null()]).collect()
}

/// Starts the program and gives its process id, or says why there is none.
fn start(launch: &Launch, streams: [OwnedFd; 3]) -> Result<Result<i32, Status>, Trouble> {
    let text = |value: &str| CString::new(value).map_err(Trouble::at("pass the command"));
    let name = launch.command.first().map_or("", String::as_str);
    let command = launch.command.iter().map(|word| text(word));
    let command = command.collect::<Result<Vec<_>, _>>()?;
    let environment = launch
        .env
        .iter()
        .map(|(key, value)| text(&format!("{key}={value}")));
    let environment = environment.collect::<Result<Vec<_>, _>>()?;
    let path = launch.env.iter().find(|pair| pair.0 == "PATH");
    let candidates = if name.contains('/') {
        vec![text(name)?]
    } else {
        let path = path.map_or(PATH, |pair| pair.1.as_str()).split(':');
        let all = path.map(|dir| text(&format!("{dir}/{name}")));
        all.collect::<Result<Vec<_>, _>>()?
    };
    let arguments = pointers(&command);
    let mut shell = vec![c"/bin/sh".as_ptr(), std::ptr::null()];
    shell.extend(arguments.iter().skip(1));
    let mut exec = Exec {
        candidates,
        arguments,
        shell,
        environment: pointers(&environment),
        streams: streams.each_ref().map(|fd| fd.as_raw_fd()),
        error: 0,
    };
    let doing = "start the program";
    sys::block_signals(&[libc::SIGCHLD, libc::SIGTERM]).map_err(Trouble::at(doing))?;
    let main = sys::spawn_sharing_memory(become_program, &mut exec).map_err(Trouble::at(doing))?;
    if exec.error != 0 {
        return Ok(Err(not_started(name, &exec)));
    }
    Ok(Ok(main))
}

/// In the new process: takes the streams, closes all else, and becomes the program.
extern "C" fn become_program(argument: *mut c_void) -> c_int {
    // SAFETY: the argument is the parent's `Exec`; the parent stands still until we are done.
    let exec = unsafe { &mut *argument.cast::<Exec>() };
    let _mask = sys::block_signals(&[]);
    let _group = rustix::process::setpgid(None, None);
    for (to, from) in (0..).zip(exec.streams) {
        // SAFETY: takes numbers only. The descriptors are above 2, so none is overwritten.
        let _same = unsafe { libc::dup2(from, to) };
    }
    // SAFETY: takes numbers only; we use none of these descriptors any more.
    let _closed = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    let mut worst = libc::ENOENT;
    for path in &exec.candidates {
        let environment = exec.environment.as_ptr();
        // SAFETY: a C string and two null-terminated arrays of C strings that live on.
        let _failed = unsafe { libc::execve(path.as_ptr(), exec.arguments.as_ptr(), environment) };
        let mut error = last_error();
        if error == libc::ENOEXEC {
            if let Some(place) = exec.shell.get_mut(1) {
                *place = path.as_ptr();
            }
            // SAFETY: as above.
            let _failed =
                unsafe { libc::execve(c"/bin/sh".as_ptr(), exec.shell.as_ptr(), environment) };
            error = last_error();
        }
        if !matches!(error, libc::ENOENT | libc::ENOTDIR) {
            worst = error;
        }
        if !matches!(error, libc::ENOENT | libc::ENOTDIR | libc::EACCES) {
            break;
        }
    }
    // Written only now: once a program runs, the parent must find the 0 it put there.
    exec.error = worst;
    127
}

fn last_error() -> c_int {
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

fn not_started(name: &str, exec: &Exec) -> Status {
    let detail = match exec.error {
        libc::ENOENT if !exec.candidates.iter().any(exists) => {
            return Status::NoProgram {
                program: name.to_owned(),
            };
        }
        libc::ENOENT => format!(
            "{name} is there but its interpreter is not; look at its first line, or at \
             `readelf -l` for a program"
        ),
        libc::EACCES => format!("{name} is not executable; set its x bit where it is submitted"),
        libc::ENOEXEC => format!("{name} is not a program that this PC can run"),
        libc::E2BIG => format!("the arguments and environment of {name} are too long"),
        other => format!(
            "{name} could not be started: {}",
            io::Error::from_raw_os_error(other)
        ),
    };
    Status::Failed { detail }
}

fn exists(path: &CString) -> bool {
    rustix::fs::stat(path.as_c_str()).is_ok()
}

/// Waits for the program's end, at most so long; gives its status. Of a guest only the program is
/// told to end: it tells the guest, whose kernel would take it for the end of all.
fn wait_for(main: i32, guest: bool, most: Option<Duration>) -> Option<c_int> {
    let until = most.map(|most| Instant::now() + most);
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let (signal, from_outside) = sys::wait_signal(&[libc::SIGCHLD, libc::SIGTERM], left)?;
        if signal == libc::SIGTERM && from_outside {
            if guest {
                sys::signal(main, libc::SIGTERM);
            } else {
                sys::signal_all(libc::SIGTERM);
            }
        }
        while let Ok(Some((pid, status))) = sys::reap() {
            if pid == main {
                return Some(status);
            }
        }
    }
}

/// Ends and counts everything that the program left behind.
fn exited(status: c_int, counts: Option<&File>) -> Exited {
    end_the_rest();
    let usage = sys::children_usage();
    let micros =
        |time: libc::timeval| u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0);
    let (read_bytes, written_bytes) = counts.map_or((0, 0), bytes_moved);
    Exited {
        status,
        cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
        resident_peak: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        page_faults: u64::try_from(usage.ru_majflt).unwrap_or(0),
        system_us: micros(usage.ru_stime),
        minor_faults: u64::try_from(usage.ru_minflt).unwrap_or(0),
        waits: u64::try_from(usage.ru_nvcsw).unwrap_or(0),
        read_bytes,
        written_bytes,
    }
}

/// Ends whatever the program left behind, and takes it off the kernel.
///
/// Every process of the namespace descends from a child of ours: orphans become ours, unless a
/// descendant wants them, which is itself one. So whoever has no child is alone, and need not ask
/// the kernel to look through all processes of the PC for others.
fn end_the_rest() {
    loop {
        match sys::reap() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => return,
        }
    }
    // A process with a pending SIGKILL cannot fork, so one round reaches all there will be.
    sys::signal_all(libc::SIGKILL);
    while sys::reap_one().is_ok() {}
}

/// Bytes read and written, by us and all that we have waited for: `rchar` and `wchar`, or the
/// bytes that went to disks where mapped files make them more. See proc(5), `/proc/PID/io`.
fn bytes_moved(counts: &File) -> (u64, u64) {
    let mut text = [0; 512];
    let length = counts.read_at(&mut text, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
    let field = |name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    (
        field("rchar").max(field("read_bytes")),
        field("wchar").max(field("write_bytes")),
    )
}
