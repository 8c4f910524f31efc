//! The guest's file systems, devices and groups.

use super::{CGROUP, DISK, ROOT};
use crate::task::{GuestTask, WORK};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, open, symlinkat};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::net::{AddressFamily, SendFlags, SocketType, send, socket};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Names in `/dev` of the program's root: harmless, and what every program expects.
const DEVICES: [(&str, u32); 5] = [
    ("null", 3),
    ("zero", 5),
    ("full", 7),
    ("random", 8),
    ("urandom", 9),
];
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Parts of `/proc` that say or do more than a task needs.
const HIDDEN: [&str; 8] = [
    "kcore",
    "keys",
    "key-users",
    "sysrq-trigger",
    "timer_list",
    "sched_debug",
    "kallsyms",
    "modules",
];

/// Where the drivers lie, and the list of them beside them.
const MODULES: &str = "/modules";
const ORDER: &str = "order";

/// The number of memory devices such as `/dev/null`.
const MEMORY_DEVICES: u32 = 1;

/// What the kernel's command line asks for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) channel: PathBuf,
    root: (PathBuf, String),
    scratch: PathBuf,
}

impl Wanted {
    pub(super) fn read() -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/cmdline")?)
    }

    fn parse(line: &str) -> io::Result<Self> {
        let find = |name: &str| {
            let found = line
                .split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found
                .map(str::to_owned)
                .ok_or_else(|| io::Error::other(format!("the kernel's command line lacks {name}")))
        };
        Ok(Self {
            channel: find("gl.channel")?.into(),
            root: (find("gl.root")?.into(), find("gl.rootfs")?),
            scratch: find("gl.scratch")?.into(),
        })
    }
}

const QUIET: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Says what failed.
fn at(doing: &str) -> impl Fn(rustix::io::Errno) -> io::Error {
    move |error| io::Error::other(format!("{doing}: {}", io::Error::from(error)))
}

/// What the kernel shows of itself.
pub(super) fn kernel() -> io::Result<()> {
    mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, None).map_err(at("mount /dev"))?;
    mount("proc", "/proc", "proc", QUIET, None).map_err(at("mount /proc"))?;
    mount("cgroup2", CGROUP, "cgroup2", QUIET, None).map_err(at("mount the control groups"))
}

/// Loads the drivers that were packed for this kernel, in the order that the list says.
pub(super) fn modules() -> io::Result<()> {
    let names = fs::read_to_string(Path::new(MODULES).join(ORDER))?;
    for name in names.lines() {
        let file = File::open(Path::new(MODULES).join(format!("{name}.ko")))?;
        match rustix::system::finit_module(&file, c"", 0) {
            // Built in, or loaded by another one.
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(at(name)(error)),
        }
    }
    Ok(())
}

/// The two disks.
pub(super) fn disks(wanted: &Wanted) -> io::Result<()> {
    let (device, kind) = &wanted.root;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount(device, ROOT, kind.as_str(), flags, None).map_err(at("mount the image"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    mount(&wanted.scratch, DISK, "ext4", flags, None).map_err(at("mount the scratch disk"))
}

/// A look at the scratch disk past all that is kept of it in memory.
pub(super) struct Disk(File);

/// What the kernel reads without keeping it begins at such a place in memory.
#[repr(align(4096))]
struct Page([u8; 4096]);

impl Disk {
    pub(super) fn open(wanted: &Wanted) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let file =
            open(&wanted.scratch, flags, Mode::empty()).map_err(at("look at the scratch disk"))?;
        Ok(Self(file.into()))
    }

    /// Comes back when the disk has answered: never where whoever serves it is gone.
    pub(super) fn answers(&self) -> io::Result<()> {
        self.0.read_exact_at(&mut Page([0; 4096]).0, 0)
    }
}

/// Completes the program's root and sets its limits. Says what could not be had.
pub(super) fn world(task: &GuestTask) -> io::Result<Vec<String>> {
    rustix::process::umask(Mode::empty());
    let root = Path::new(ROOT);
    let private = MountPropagationFlags::PRIVATE;
    mount_change(ROOT, private).map_err(at("keep the mounts apart"))?;
    mount_bind(Path::new(DISK).join(WORK), root.join("scratch"))
        .map_err(at("show the scratch directory"))?;
    mount("proc", root.join("proc"), "proc", QUIET, None).map_err(at("mount the root's /proc"))?;
    devices(root, task)?;
    for name in HIDDEN {
        // Not every kernel has every one.
        let _absent = mount_bind(root.join("dev/null"), root.join("proc").join(name));
    }
    let mut degraded = Vec::new();
    let shown = mount(
        "sysfs",
        root.join("sys"),
        "sysfs",
        QUIET | MountFlags::RDONLY,
        None,
    );
    if let Err(error) = shown {
        degraded.push(format!("/sys is empty in the guest: {error}"));
    }
    // Nobody in the guest needs namespaces, and they show parts of the kernel.
    let _small_kernel = fs::write("/proc/sys/user/max_user_namespaces", "0");
    let _same_name = rustix::system::sethostname(b"gleaner");
    if let Err(error) = loopback_up() {
        degraded.push(format!("the guest's loopback is down: {error}"));
    }
    groups(task)?;
    Ok(degraded)
}

fn devices(root: &Path, task: &GuestTask) -> io::Result<()> {
    let dev = root.join("dev");
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", &dev, "tmpfs", flags, c"size=64k,mode=755")
        .map_err(at("mount the root's /dev"))?;
    for (name, minor) in DEVICES {
        let all = Mode::from_raw_mode(0o666);
        let number = makedev(MEMORY_DEVICES, minor);
        mknodat(CWD, dev.join(name), FileType::CharacterDevice, all, number)
            .map_err(at("make the devices"))?;
    }
    for (name, target) in LINKS {
        symlinkat(target, CWD, dev.join(name)).map_err(at("make the devices"))?;
    }
    let shared = dev.join("shm");
    fs::create_dir(&shared)?;
    let size = CString::new(format!("size={},mode=1777", task.memory_bytes / 2))?;
    mount("tmpfs", shared, "tmpfs", QUIET, size.as_c_str()).map_err(at("mount shared memory"))
}

/// The program's group and its limits.
fn groups(task: &GuestTask) -> io::Result<()> {
    let top = Path::new(CGROUP);
    fs::write(top.join("cgroup.subtree_control"), "+memory +pids")?;
    let group = top.join("task");
    fs::create_dir(&group)?;
    for (file, value) in [
        ("memory.max", task.memory_bytes.to_string()),
        ("memory.oom.group", "1".to_owned()),
        // One more for the moment between our start of it and its own.
        ("pids.max", task.processes.to_string()),
    ] {
        fs::write(group.join(file), value)
            .map_err(|error| io::Error::other(format!("limit {file}: {error}")))?;
    }
    Ok(())
}

/// Brings loopback up: the one interface there is. The message is rtnetlink's `RTM_NEWLINK` with
/// the flag `IFF_UP` for interface 1; see rtnetlink(7).
fn loopback_up() -> io::Result<()> {
    const NEW_LINK: u16 = 16;
    const REQUEST: u16 = 1;
    const UP: u32 = 1;
    let mut message = Vec::new();
    message.extend(32_u32.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]);
    message.extend(1_i32.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    // Protocol 0 of this family is the routing tables'.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    send(&socket, &message, SendFlags::empty())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_everything_or_what_is_missing() {
        let line = "mem=1M gl.root=/dev/ubda gl.rootfs=erofs gl.scratch=/dev/ubdb \
                    gl.channel=/dev/ttyS0 quiet";
        let wanted = Wanted::parse(line).unwrap();
        assert_eq!(wanted.channel, Path::new("/dev/ttyS0"));
        assert_eq!(wanted.root.1, "erofs");
        let error = Wanted::parse("gl.channel=/x").unwrap_err();
        assert!(error.to_string().contains("gl.root"), "{error}");
    }
}
