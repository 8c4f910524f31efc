//! The device of the processor's own virtualisation, for cages that hold a guest which needs it.
//!
//! Its owner lets few open it, and tasks have user ids of their own. As root we make a node of
//! our own of the same device, in a directory that nobody else can reach; cages are shown that
//! one. A plain user's tasks have the user's own rights to the system's node.

use crate::bundle::GuestNeeds;
use gleaner_engine::EngineError;
use rustix::fs::{CWD, FileType, Mode, mknodat, stat};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The node of the system.
const KVM: &str = "/dev/kvm";

/// The name of ours, in the engine's directory.
const OURS: &str = "kvm";

/// The node that cages are shown, if their guests need one.
pub(super) fn shown(needs: GuestNeeds, dir: &Path) -> Result<Option<PathBuf>, EngineError> {
    let node = (needs == GuestNeeds::Device).then(|| for_tasks(dir));
    node.transpose()
        .map_err(|error| EngineError::io("show the device of virtualisation", error))
}

fn for_tasks(dir: &Path) -> io::Result<PathBuf> {
    let theirs = stat(KVM)?;
    if FileType::from_raw_mode(theirs.st_mode) != FileType::CharacterDevice {
        return Err(io::Error::other("/dev/kvm is not a device"));
    }
    if !rustix::process::geteuid().is_root() {
        return Ok(KVM.into());
    }
    let ours = dir.join(OURS);
    if stat(&ours).is_ok_and(|found| found.st_rdev == theirs.st_rdev) {
        return Ok(ours);
    }
    let all = Mode::from_raw_mode(0o666);
    mknodat(CWD, &ours, FileType::CharacterDevice, all, theirs.st_rdev)?;
    // Whatever the mask of this process takes away.
    fs::set_permissions(&ours, Permissions::from_mode(0o666))?;
    Ok(ours)
}
