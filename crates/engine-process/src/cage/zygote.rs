//! The process that all cages of a bundle are copied from.
//!
//! It owns the bundle's user, network and uts namespaces, a mount namespace with the prepared
//! root, and the ipc namespaces that cages get one after another (see [`super::ipc`]). It runs
//! under a user id of its own that no task has, holds capabilities over those namespaces only, and
//! does one thing: fork a cage when the shim asks. The cage's init is the shim's child, not its
//! own, so that a dead zygote takes nothing with it.

use super::etc::PROC_HIDDEN;
use super::ipc::Namespaces;
use super::root::{self, HOST_PROC, Parts, VIRTUALISATION};
use super::seccomp::bpf::{Allowed, Refusal, program};
use super::user::become_user;
use super::{INNER_UID_FIRST, SLOTS, Trouble, UIDS_OF_BUNDLE, init, landlock, sys};
use crate::bundle::{Bundle, GuestNeeds};
use crate::image::Root;
use crate::message::{FromZygote, Launch, ToZygote, buffer, receive, send};
use crate::priority::{Means, lower_session};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socket_with, socketpair,
};
use rustix::process::Signal;
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

const NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u64;

/// What a cage gets anew.
const CAGE_NAMESPACES: u64 = (libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_PARENT) as u64;

/// What it gets anew besides where [`Namespaces`] has none for it. System V objects and POSIX
/// message queues outlive their processes, so an ipc namespace is never shared.
const IPC_TOO: u64 = libc::CLONE_NEWIPC as u64;

/// The shim's hold on the zygote.
#[derive(Debug)]
pub(crate) struct Zygote {
    socket: OwnedFd,
    buffer: Vec<u8>,
    /// What every attempt of the bundle has to do without.
    pub(crate) degraded: Vec<String>,
}

impl Zygote {
    /// Starts it and waits until its root stands. To be called before any thread exists.
    pub(crate) fn start(
        bundle: &Bundle,
        image: Option<&Root>,
        means: Means,
    ) -> Result<Self, Trouble> {
        let pair = || {
            socketpair(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC,
                None,
            )
        };
        let (ours, theirs) = pair().map_err(Trouble::at("make a socket"))?;
        let forked = sys::fork(NAMESPACES, None)
            .map_err(Trouble::at("make user, mount, net, ipc and uts namespaces"))?;
        let Some(pid) = forked else {
            drop(ours);
            run(theirs, (bundle, image), means)
        };
        drop(theirs);
        let mut zygote = Self {
            socket: ours,
            buffer: buffer(),
            degraded: Vec::new(),
        };
        map_ids(pid, bundle).map_err(Trouble::at("map the user ids of the namespace"))?;
        match zygote.ask(&ToZygote::Go, &[])? {
            FromZygote::Ready { degraded } => {
                zygote.degraded = degraded;
                Ok(zygote)
            }
            other @ (FromZygote::Launched { .. } | FromZygote::Failed { .. }) => {
                Err(answer_trouble(other))
            }
        }
    }

    fn ask(&mut self, what: &ToZygote, with: &[BorrowedFd<'_>]) -> Result<FromZygote, Trouble> {
        let doing = "reach the process that cages are copied from";
        send(&self.socket, what, with, SendFlags::empty()).map_err(Trouble::at(doing))?;
        let answer = receive(&self.socket, &mut self.buffer, RecvFlags::empty());
        let (answer, _none) = answer
            .and_then(|answer| answer.ok_or_else(|| io::ErrorKind::ConnectionReset.into()))
            .map_err(Trouble::at(doing))?;
        Ok(answer)
    }

    /// Forks a cage, with its status socket, its streams and the files of its group. Returns
    /// the init's process id.
    pub(crate) fn launch(
        &mut self,
        launch: Launch,
        with: &[BorrowedFd<'_>],
    ) -> Result<i32, Trouble> {
        let ask = ToZygote::Launch(Box::new(launch));
        match self.ask(&ask, with)? {
            FromZygote::Launched { pid } => Ok(pid),
            other @ (FromZygote::Ready { .. } | FromZygote::Failed { .. }) => {
                Err(answer_trouble(other))
            }
        }
    }
}

fn answer_trouble(answer: FromZygote) -> Trouble {
    let detail = match answer {
        FromZygote::Failed { detail } => detail,
        FromZygote::Ready { .. } | FromZygote::Launched { .. } => "an answer out of turn".into(),
    };
    Trouble::at("build a cage")(io::Error::other(detail))
}

/// As root, a range of ids that belongs to nobody; as a plain user one's own id. Never 0, on
/// neither side: a process with the host's id 0 may open the kernel's settings for writing,
/// whatever capabilities it has lost.
fn map_ids(pid: i32, bundle: &Bundle) -> io::Result<()> {
    let (uids, gids) = match bundle.uid_first {
        Some(first) => {
            let map = format!("{INNER_UID_FIRST} {first} {UIDS_OF_BUNDLE}\n");
            (map.clone(), map)
        }
        None => {
            fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
            let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
            (
                format!("{INNER_UID_FIRST} {} 1\n", uid.as_raw()),
                format!("{INNER_UID_FIRST} {} 1\n", gid.as_raw()),
            )
        }
    };
    fs::write(format!("/proc/{pid}/uid_map"), uids)?;
    fs::write(format!("/proc/{pid}/gid_map"), gids)
}

fn run(socket: OwnedFd, (bundle, image): (&Bundle, Option<&Root>), means: Means) -> ! {
    let mut buffer = buffer();
    // Our ids are mapped when the first word comes.
    let go = receive::<ToZygote>(&socket, &mut buffer, RecvFlags::empty());
    if !matches!(go, Ok(Some((ToZygote::Go, _)))) {
        sys::exit_now(1);
    }
    let prepared =
        prepare(bundle, image, means).and_then(|degraded| Ok((degraded, setting(bundle, means)?)));
    let (answer, setting) = match prepared {
        Ok((degraded, setting)) => (FromZygote::Ready { degraded }, Some(setting)),
        Err(trouble) => {
            let detail = trouble.to_string();
            (FromZygote::Failed { detail }, None)
        }
    };
    let sent = send(&socket, &answer, &[], SendFlags::empty());
    let Some(setting) = setting.filter(|_| sent.is_ok()) else {
        sys::exit_now(1)
    };
    let mut ipc = Some(Namespaces::default());
    loop {
        let message = receive::<ToZygote>(&socket, &mut buffer, RecvFlags::empty());
        // The shim is gone, or out of its mind: nothing is left to do.
        let Ok(Some((ToZygote::Launch(launch), descriptors))) = message else {
            sys::exit_now(0)
        };
        // Where it failed once it would fail again.
        ipc = ipc.and_then(|mut all| all.enter(launch.place).is_ok().then_some(all));
        let more = if ipc.is_some() { 0 } else { IPC_TOO };
        let answer = match sys::fork(CAGE_NAMESPACES | more, None) {
            Ok(Some(pid)) => FromZygote::Launched { pid },
            Ok(None) => {
                drop((socket, ipc));
                init::run(*launch, descriptors, &setting)
            }
            Err(error) => FromZygote::Failed {
                detail: Trouble::at("make pid and mount namespaces")(error).to_string(),
            },
        };
        if send(&socket, &answer, &[], SendFlags::empty()).is_err() {
            sys::exit_now(1);
        }
    }
}

/// What would be the same in each cage is made here, once.
fn setting(bundle: &Bundle, means: Means) -> Result<init::Setting, Trouble> {
    let traced = bundle.guest.is_some() && bundle.guest_needs == GuestNeeds::Tracing;
    let allowed = Allowed {
        sessions: !means.new_session_escapes(),
        tracing: traced,
    };
    let mut devices = landlock::devices().map_err(Trouble::at("open the harmless devices"))?;
    if bundle.device.is_some() {
        let device = landlock::place(&format!("/{VIRTUALISATION}"));
        devices.push(device.map_err(Trouble::at("open the device of virtualisation"))?);
    }
    Ok(init::Setting {
        landlock: landlock::version(),
        uid_given: bundle.uid_first.is_some(),
        filter: program(Refusal::Counted, allowed),
        allowed,
        guest: bundle.guest.is_some(),
        shared_programs: traced,
        devices,
        hidden: hidden(),
    })
}

/// What there is to hide in a cage's /proc: to look for what this kernel does not have costs each
/// cage as much as to hide what it has.
fn hidden() -> Vec<&'static str> {
    let on_host = |path: &str| format!("{HOST_PROC}{}", path.trim_start_matches("/proc"));
    let exists = |path: &str| rustix::fs::stat(on_host(path)).is_ok();
    // A host's /proc that shows processes only says nothing about the one of a cage.
    let whole = exists("/proc/meminfo");
    let all = PROC_HIDDEN.into_iter();
    all.filter(|path| !whole || exists(path)).collect()
}

/// What the kernel counts for the one who made a user namespace, and so would take from the owner's
/// programs or the system's: all tasks of a bundle together have this much of it. The first bound
/// keeps nine in ten of the 128 that a user has by default; the second is a tenth of the least that
/// there is; the third is zero, since the call filter refuses what needs it. Source:
/// namespaces(7), inotify(7).
const NAMESPACE_BOUNDS: [(&str, &str); 3] = [
    ("max_inotify_instances", "12"),
    ("max_inotify_watches", "819"),
    ("max_user_namespaces", "0"),
];

/// Sets them, from within; returns what could not be, in words.
fn bound_namespace() -> Option<String> {
    let failed = |(name, value): (&str, &str)| {
        let written = fs::write(format!("/proc/sys/user/{name}"), value);
        let error = written.err()?;
        Some(format!("{name} ({error})"))
    };
    let failed: Vec<_> = NAMESPACE_BOUNDS.into_iter().filter_map(failed).collect();
    (!failed.is_empty()).then(|| {
        let failed = failed.join(", ");
        format!("tasks may use up what the kernel counts for us: {failed}")
    })
}

fn prepare(bundle: &Bundle, image: Option<&Root>, means: Means) -> Result<Vec<String>, Trouble> {
    // A session apart from the shim's, without a terminal, which every cage inherits: one of its
    // own would tell its processes nothing that their pid namespace does not hide.
    rustix::process::setsid().map_err(Trouble::at("begin a session"))?;
    if means == Means::Autogroup {
        // It is last as a whole.
        lower_session().map_err(Trouble::at("put the tasks' session behind all others"))?;
    }
    // A task is what the kernel should end first where memory runs out.
    fs::write("/proc/self/oom_score_adj", "1000")
        .map_err(Trouble::at("be the first to go when memory is short"))?;
    sys::be_modest_with_memory();
    // As long as the host's /proc is there.
    let unbounded = bound_namespace();
    let parts = Parts::open(bundle, image)?;
    if bundle.uid_first.is_some() {
        become_user(INNER_UID_FIRST + SLOTS)?;
    }
    // Cleared by a change of ids, hence here.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Trouble::at("die with the shim"))?;
    lock_privileges().map_err(Trouble::at("give up privileges"))?;
    let mut missing = root::enter(&parts)?;
    missing.extend(unbounded);
    drop(parts);
    let flags = SocketFlags::CLOEXEC;
    socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
        .map_err(io::Error::from)
        .and_then(|socket| sys::loopback_up(socket.as_fd()))
        .map_err(Trouble::at("bring loopback up"))?;
    rustix::system::sethostname(super::etc::HOST_NAME.as_bytes())
        .map_err(Trouble::at("set the host name of the cage"))?;
    // Standard descriptors of ours must not be the agent's.
    let null = fs::File::options().read(true).write(true).open("/dev/null");
    null.and_then(|null| {
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        Ok(rustix::stdio::dup2_stderr(&null)?)
    })
    .map_err(Trouble::at("let go of the agent's streams"))?;
    sys::set_signal(libc::SIGPIPE, false);
    // A file that grows past its bound gets an error instead of ending its writer.
    sys::set_signal(libc::SIGXFSZ, true);
    Ok(missing)
}

/// Nothing that is executed from here on can have any privilege.
fn lock_privileges() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(bits)?;
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        // The kernel knows about forty and says so at the first it does not know.
        if rustix::thread::remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
    Ok(())
}
