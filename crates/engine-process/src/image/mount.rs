//! Mounts an image: straight from its file (Linux 6.12 and later), else by way of a loop device.

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

/// The mount, which has no place and can be given one in any cage.
pub(crate) fn try_mount(image: &File) -> io::Result<OwnedFd> {
    // The file that was checked, whatever has its name by now.
    let straight = mounted(&format!("/proc/self/fd/{}", image.as_raw_fd()));
    match straight {
        Ok(mount) => Ok(mount),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        Err(_) => by_loop(image),
    }
}

fn mounted(source: &str) -> io::Result<OwnedFd> {
    // The kernel loads the module where it is one.
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", source)?;
    fsconfig_set_flag(context.as_fd(), "ro")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// `LOOP_CTL_GET_FREE` and `LOOP_CONFIGURE` of loop(4).
const GET_FREE: libc::c_ulong = 0x4C82;
const CONFIGURE: libc::c_ulong = 0x4C0A;

/// `LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR`: the device goes with its last user, the mount.
const FLAGS: u32 = 1 | 4;

/// `struct loop_config` with nothing but the file, the size of blocks and the flags.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    /// `struct loop_info64` up to its flags.
    before_flags: [u64; 6],
    encrypt_key_size: u32,
    flags: u32,
    /// Names, key and numbers that are not used, and what is reserved.
    rest: [u64; 30],
}

/// Others take the device that was free between two calls.
const TRIES: u32 = 8;

fn by_loop(image: &File) -> io::Result<OwnedFd> {
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/loop-control")?;
    let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
    for _ in 0..TRIES {
        // SAFETY: takes no pointer.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = format!("/dev/loop{number}");
        let device = File::options().read(true).write(true).open(&path)?;
        let config = Config {
            fd: u32::try_from(image.as_raw_fd()).unwrap_or(u32::MAX),
            block_size: 0,
            before_flags: [0; 6],
            encrypt_key_size: 0,
            flags: FLAGS,
            rest: [0; 30],
        };
        // SAFETY: the structure is the kernel's `loop_config`, read during the call only.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &raw const config) };
        if done == 0 {
            return mounted(&path);
        }
        last = io::Error::last_os_error();
        if last.kind() != io::ErrorKind::ResourceBusy {
            break;
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_configuration_has_the_kernels_form() {
        assert_eq!(size_of::<Config>(), 304);
        assert_eq!(std::mem::offset_of!(Config, flags), 8 + 52);
    }

    #[test]
    fn both_ways_give_a_mount_where_the_kernel_has_them() {
        if !rustix::process::geteuid().is_root() || !std::fs::exists("/dev/loop-control").unwrap() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "content").unwrap();
        let tree = gleaner_image::import(dir.path(), 1 << 20).unwrap().tree;
        let mut image = tempfile::tempfile().unwrap();
        tree.write(&mut image).unwrap();
        image.flush().unwrap();
        let straight = mounted(&format!("/proc/self/fd/{}", image.as_raw_fd()));
        for mount in [straight, by_loop(&image)].into_iter().flatten() {
            let name = format!("/proc/self/fd/{}/file", mount.as_raw_fd());
            assert_eq!(std::fs::read_to_string(&name).unwrap(), "content");
            let refused = std::fs::write(&name, "other").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
        }
    }
}
