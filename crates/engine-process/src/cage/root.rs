//! The root directory that all cages of a bundle start from.
//!
//! Built once, in the bundle's own mount namespace: a small read-only memory file system with
//! the host's userland on it. A cage copies the namespace and adds what is its own (see
//! [`super::init`]). Only descriptors are used until the new root is the root, so no name of the
//! host's can lead astray.

use super::etc::{
    DEVICE_LINKS, DEVICES, ETC, HOST_NAME, HOSTS, NSSWITCH, Place, SYS, Show, USERLAND, group,
    passwd,
};
use super::sys;
use super::{INNER_UID_FIRST, Trouble};
use crate::bundle::Bundle;
use crate::image::Root;
use crate::{GUEST_DIR, PROGRAM_PATH};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{fchdir, pivot_root};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where a bundle's scratch directories and the host's /proc lie. A cage covers the whole with
/// an empty directory once it has taken its own: to unmount it would cost a wait for every
/// processor (an RCU grace period), at every start, and nobody in a cage can uncover it.
pub(crate) const OUTSIDE: &str = "/.outside";
pub(crate) const CAGES: &str = "/.outside/cages";

/// The host's own, for as long as it is not covered.
pub(crate) const HOST_PROC: &str = "/.outside/proc";

/// An empty directory to cover others with.
pub(crate) const EMPTY: &str = "/.outside/empty";

/// What a cage's `/proc/stat` shows instead of the kernel's own.
pub(crate) const STAT: &str = "/.outside/stat";

/// What lies there.
const OUTSIDE_PLACES: [&str; 3] = [".outside/proc", ".outside/cages", ".outside/empty"];

/// Where a guest's kernel finds its root.
const GUEST_ROOT: &str = "base.img";

/// Bound of the memory file system that the root is made of. Copied files take under 2 MiB.
const ROOT_BYTES: &str = "16m";

/// The device of the processor's own virtualisation, where a guest needs it.
pub(crate) const VIRTUALISATION: &str = "dev/kvm";

/// Larger files of /etc are not copied, in bytes: only `ld.so.cache` comes near.
const COPY_MAX_BYTES: u64 = 4 << 20;

/// `MOUNT_ATTR_*`: read-only, no set-user-id, no devices.
const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;
const NOEXEC: u64 = 8;

/// What the root is built from, opened before the zygote gives up its user id.
#[derive(Debug)]
pub(crate) struct Parts {
    /// A directory that the new root may lie on until it is the root.
    place: OwnedFd,
    cages: OwnedFd,
    proc: OwnedFd,
    extra: Vec<(PathBuf, OwnedFd)>,
    device: Option<OwnedFd>,
    /// The root that the tasks bring.
    image: Option<OwnedFd>,
}

impl Parts {
    /// Opens what a lesser user could not reach.
    pub(crate) fn open(bundle: &Bundle, image: Option<&Root>) -> Result<Self, Trouble> {
        let cages = &bundle.cages();
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .map_err(Trouble::at("cut the mounts off from the host's"))?;
        let guest = bundle.guest.iter().map(|path| (path, Path::new(GUEST_DIR)));
        let program = bundle.program.iter();
        let program = program.map(|path| (path, Path::new(PROGRAM_PATH)));
        let places = bundle.read_only.iter().map(|path| (path, path.as_path()));
        let extra = places
            .chain(program)
            .chain(guest)
            .filter_map(|(path, shown_at)| {
                let tree = tree_at(CWD, path, true).ok()?;
                Some((shown_at.to_owned(), tree))
            });
        let mut extra: Vec<(PathBuf, OwnedFd)> = extra.collect();
        let at = Trouble::at("take the image of the tasks");
        let image = match image {
            None => None,
            Some(Root::Mounted(mount)) => Some(
                mount
                    .try_clone()
                    .map_err(Trouble::at("keep the image of the tasks"))?,
            ),
            Some(Root::Directory(unpacked)) => {
                Some(tree_at(CWD, &unpacked.dir, false).map_err(at)?)
            }
            Some(Root::Disk(path)) => {
                // In place of the base image, which lies there by now.
                let tree = tree_at(CWD, path, false).map_err(at)?;
                extra.push((Path::new(GUEST_DIR).join(GUEST_ROOT), tree));
                None
            }
        };
        let place = openat(CWD, cages, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(Trouble::at("open the scratch directories"))?;
        let device = bundle.device.as_ref();
        let device = device.map(|path| tree_at(CWD, path, false)).transpose();
        Ok(Self {
            place,
            device: device.map_err(Trouble::at("take the device of virtualisation"))?,
            extra,
            image,
            proc: tree_at(CWD, Path::new("/proc"), true)
                .map_err(Trouble::at("take the host's /proc"))?,
            cages: tree_at(CWD, cages, false)
                .map_err(Trouble::at("take the scratch directories"))?,
        })
    }
}

/// A detached copy of the mount at `path`.
fn tree_at(at: impl AsFd, path: &Path, below_too: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if below_too {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(at, path, flags)
}

fn attach(tree: BorrowedFd<'_>, root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<()> {
    move_mount(
        tree,
        "",
        root,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// Builds the root and enters it. Returns what had to be left out, in words.
pub(crate) fn enter(parts: &Parts) -> Result<Vec<String>, Trouble> {
    let memory = || memory_root().map_err(Trouble::at("make the private root"));
    let root = match &parts.image {
        Some(image) => image
            .try_clone()
            .map_err(Trouble::at("keep the image of the tasks"))?,
        None => memory()?,
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&root, "", &parts.place, "", flags)
        .map_err(Trouble::at("mount the private root"))?;
    let root_fd = root.as_fd();
    let mut missing = Vec::new();

    // Memory on an image, where a cage has more than the image.
    let mut covers = Vec::new();
    if parts.image.is_some() {
        for place in IMAGE_PLACES {
            let cover = memory()?;
            attach(cover.as_fd(), root_fd, place)
                .map_err(Trouble::at("cover a place of the image; import it anew"))?;
            covers.push(cover);
        }
        device_links(root_fd).map_err(Trouble::at("fill the private root"))?;
    } else {
        of_host(root_fd, parts, &mut missing)?;
    }
    for place in OUTSIDE_PLACES {
        directory(root_fd, Path::new(place)).map_err(Trouble::at("fill the private root"))?;
    }
    // Small kernels have none.
    if let Ok(text) = std::fs::read_to_string("/proc/stat") {
        file(root_fd, Path::new(STAT.trim_start_matches('/')))
            .and_then(|mut stat| stat.write_all(without_interrupts(&text).as_bytes()))
            .map_err(Trouble::at("fill the private root"))?;
    }
    devices(root_fd)?;
    if let Some(device) = &parts.device {
        show_device(root_fd, device, VIRTUALISATION)
            .map_err(Trouble::at("show the device of virtualisation"))?;
    }
    for place in SYS {
        // Containers and small kernels lack some of it; programs then use defaults.
        let _absent = bind(root_fd, Path::new("/").join(place.path), place.path);
    }
    attach(parts.proc.as_fd(), root_fd, ".outside/proc")
        .map_err(Trouble::at("keep the host's /proc"))?;
    sys::mount_setattr(&parts.cages, false, NOSUID | NODEV)
        .map_err(Trouble::at("bound the scratch directories"))?;
    attach(parts.cages.as_fd(), root_fd, ".outside/cages")
        .map_err(Trouble::at("bring the scratch directories in"))?;
    for tree in covers.iter().chain([&root]) {
        sys::mount_setattr(tree, false, RDONLY | NOSUID | NODEV)
            .map_err(Trouble::at("make the private root read-only"))?;
    }
    fchdir(&root).map_err(Trouble::at("go to the private root"))?;
    pivot_root(".", ".").map_err(Trouble::at("enter the private root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(Trouble::at("let go of the host's root"))?;
    rustix::process::chdir("/").map_err(Trouble::at("go to the private root"))?;
    Ok(missing)
}

/// The host's userland, without anything of its owner's.
fn of_host(root: BorrowedFd<'_>, parts: &Parts, missing: &mut Vec<String>) -> Result<(), Trouble> {
    skeleton(root).map_err(Trouble::at("fill the private root"))?;
    for place in USERLAND {
        userland(root, place)?;
    }
    for (path, tree) in &parts.extra {
        extra(root, path, tree.as_fd(), missing);
    }
    for place in ETC {
        etc(root, place).map_err(Trouble::at(place.path))?;
    }
    Ok(())
}

/// Counts of interrupts are counts of key strokes and mouse moves. The rest is as it was when the
/// first cage of the bundle was made: programs look there for processors and for the time of the boot.
fn without_interrupts(stat: &str) -> String {
    let lines = stat.lines().map(|line| match line.split(' ').next() {
        Some("intr") => "intr 0",
        _ => line,
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Places of an image that every cage fills.
const IMAGE_PLACES: [&str; 3] = ["dev", "sys", ".outside"];

/// What programs expect in `/dev` besides devices.
fn device_links(root: BorrowedFd<'_>) -> io::Result<()> {
    directory(root, Path::new("dev/shm"))?;
    for (name, target) in DEVICE_LINKS {
        rustix::fs::symlinkat(target, root, format!("dev/{name}"))?;
    }
    Ok(())
}

fn memory_root() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "size", ROOT_BYTES)?;
    fsconfig_set_string(context.as_fd(), "mode", "755")?;
    fsconfig_create(context.as_fd())?;
    let attr = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attr,
    )?)
}

/// Directories, links and files of our own.
fn skeleton(root: BorrowedFd<'_>) -> io::Result<()> {
    for path in ["scratch", "proc", "etc", "sys", "run", "var", "home"] {
        directory(root, Path::new(path))?;
    }
    // One bounded place for everything temporary: it lies in scratch and counts with it.
    rustix::fs::symlinkat("/scratch/.tmp", root, "tmp")?;
    rustix::fs::symlinkat("/scratch/.tmp", root, "var/tmp")?;
    device_links(root)?;
    rustix::fs::symlinkat("/proc/self/mounts", root, "etc/mtab")?;
    let accounts = super::SLOTS;
    for (path, text) in [
        ("etc/passwd", passwd(INNER_UID_FIRST, accounts)),
        ("etc/group", group(INNER_UID_FIRST, accounts)),
        ("etc/nsswitch.conf", NSSWITCH.to_owned()),
        ("etc/hosts", HOSTS.to_owned()),
        ("etc/hostname", format!("{HOST_NAME}\n")),
    ] {
        file(root, Path::new(path))?.write_all(text.as_bytes())?;
    }
    Ok(())
}

fn directory(root: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let mut so_far = PathBuf::new();
    for part in path.components() {
        so_far.push(part);
        match rustix::fs::mkdirat(root, &so_far, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn file(root: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        directory(root, parent)?;
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::TRUNC;
    Ok(openat(root, path, flags, Mode::from_raw_mode(0o644))?.into())
}

/// Shows the host's directory at `to`, read-only with all below it.
fn bind(root: BorrowedFd<'_>, from: impl AsRef<Path>, to: &str) -> io::Result<()> {
    let tree = tree_at(CWD, from.as_ref(), true)?;
    sys::mount_setattr(&tree, true, RDONLY | NOSUID | NODEV)?;
    directory(root, Path::new(to))?;
    Ok(attach(tree.as_fd(), root, to)?)
}

fn userland(root: BorrowedFd<'_>, place: &Place) -> Result<(), Trouble> {
    let host = Path::new("/").join(place.path);
    if let Ok(target) = std::fs::read_link(&host) {
        return rustix::fs::symlinkat(target, root, place.path).map_err(Trouble::at(place.path));
    }
    if !host.is_dir() {
        return Ok(());
    }
    bind(root, &host, place.path).map_err(Trouble::at("show the host's programs"))
}

/// A directory or file that was added for these tasks.
fn extra(root: BorrowedFd<'_>, path: &Path, tree: BorrowedFd<'_>, missing: &mut Vec<String>) {
    let inside = path.strip_prefix("/").unwrap_or(path);
    let shown = sys::mount_setattr(tree, true, RDONLY | NOSUID | NODEV)
        .and_then(|()| {
            let mode = rustix::fs::fstat(tree)?.st_mode;
            let is_file = FileType::from_raw_mode(mode) == FileType::RegularFile;
            // One that lies in a directory shown before has a place there.
            if is_file && rustix::fs::statat(root, inside, AtFlags::SYMLINK_NOFOLLOW).is_err() {
                return file(root, inside).map(drop);
            }
            if is_file {
                Ok(())
            } else {
                directory(root, inside)
            }
        })
        .and_then(|()| {
            Ok(move_mount(
                tree,
                "",
                root,
                inside,
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
            )?)
        });
    if let Err(error) = shown {
        missing.push(format!("{} is not shown: {error}", path.display()));
    }
}

fn etc(root: BorrowedFd<'_>, place: &Place) -> io::Result<()> {
    let host = Path::new("/etc").join(place.path);
    let inside = format!("etc/{}", place.path);
    // What a plain user may not read is left out, as is what is absent.
    match (place.show, std::fs::metadata(&host)) {
        (Show::Bind, Ok(found)) if found.is_dir() => bind(root, &host, &inside),
        (Show::Bind | Show::Copy, Ok(found))
            if found.is_file() && found.len() <= COPY_MAX_BYTES =>
        {
            let mut text = Vec::new();
            if File::open(&host)
                .and_then(|mut from| from.read_to_end(&mut text))
                .is_ok()
            {
                file(root, Path::new(&inside))?.write_all(&text)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Devices cannot be made in a user namespace, so the host's are shown.
fn devices(root: BorrowedFd<'_>) -> Result<(), Trouble> {
    for name in DEVICES {
        let at = Trouble::at("show the harmless devices");
        let host = Path::new("/dev").join(name);
        let inside = format!("dev/{name}");
        let shown = || -> io::Result<()> {
            let found = rustix::fs::stat(&host)?;
            if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice {
                return Err(io::Error::other("not a device"));
            }
            show_device(root, &tree_at(CWD, &host, false)?, &inside)
        };
        shown().map_err(at)?;
    }
    Ok(())
}

fn show_device(root: BorrowedFd<'_>, tree: &OwnedFd, inside: &str) -> io::Result<()> {
    file(root, Path::new(inside)).map(drop)?;
    sys::mount_setattr(tree, false, NOSUID | NOEXEC)?;
    Ok(attach(tree.as_fd(), root, inside)?)
}
