//! Namespaces of System V objects and message queues that are used again.
//!
//! It owns one such namespace for each place that cages of a bundle run in, and knows whether
//! anything was left in it. A new one costs the kernel a file system of queues, tables of
//! settings, and at its end a wait for every processor: more than all else that a cage's
//! namespaces cost. The zygote enters a place's namespace before it makes a cage, and the cage
//! inherits it; no two cages that run at a time have one in common. What was left there makes an
//! end of it.
//!
//! It must not know what runs in a cage. A cage has no way to another's namespace: its calls for
//! that are refused, and its copy of our descriptors is closed before anything else.

use super::root::HOST_PROC;
use super::sys;
use crate::remove::holds_only;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

/// One namespace, and the list of its POSIX message queues.
#[derive(Debug)]
struct Namespace {
    fd: OwnedFd,
    /// None where the kernel has no such queues.
    queues: Option<OwnedFd>,
}

/// The namespaces of a bundle.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    of: BTreeMap<u32, Namespace>,
    /// The one that we are in.
    here: Option<u32>,
}

impl Namespaces {
    /// Enters the namespace of `place`, in which nothing is: an old one or a new one. To be called
    /// when no cage runs in that place.
    ///
    /// # Errors
    /// Where that cannot be told; the cage needs one of its own then.
    pub(crate) fn enter(&mut self, place: u32) -> io::Result<()> {
        if let Some(known) = self.of.get(&place) {
            if self.here != Some(place) {
                self.here = None;
                let kind = Some(LinkNameSpaceType::InterProcessCommunication);
                move_into_link_name_space(known.fd.as_fd(), kind)?;
                self.here = Some(place);
            }
            if known.is_empty()? {
                return Ok(());
            }
            self.of.remove(&place);
        }
        self.here = None;
        sys::new_ipc_namespace()?;
        self.of.insert(place, Namespace::here()?);
        self.here = Some(place);
        Ok(())
    }
}

impl Namespace {
    fn here() -> io::Result<Self> {
        let fd = File::open(format!("{HOST_PROC}/self/ns/ipc"))?.into();
        let queues = match queues() {
            Ok(queues) => Some(queues),
            Err(Errno::NODEV) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { fd, queues })
    }

    /// Whether nothing is in the namespace, which we must be in.
    fn is_empty(&self) -> io::Result<bool> {
        let [memory, semaphores, messages] = sys::system_v_objects()?;
        if memory + semaphores + messages > 0 {
            return Ok(false);
        }
        let Some(queues) = &self.queues else {
            return Ok(true);
        };
        // A new opening, since its position is at the start.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let list = openat(queues, c".", flags, Mode::empty())?;
        Ok(holds_only(&list, None))
    }
}

/// The root of the file system of queues of our namespace, mounted nowhere.
fn queues() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("mqueue", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_RDONLY;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, quiet)
}
