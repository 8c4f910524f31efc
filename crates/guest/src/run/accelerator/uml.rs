//! User-mode Linux. Its memory is a file in shared memory, the channel is its terminal.

use super::{Call, GUEST_DIR, devices};
use crate::task::GuestTask;
use std::path::Path;

/// User-mode Linux has a file system that shows the host's files to root in the guest, from here on
/// down. A directory that is not there has nothing below it, nor a way up.
const NO_HOST_FILES: &str = "hostfs=/nowhere";

/// The kernel, with our end of the channel's other end by number.
pub(super) fn call(task: &GuestTask, scratch: &Path, channel: i32) -> Call {
    let mut arguments = vec![
        format!("mem={}M", task.guest_mib),
        format!("initrd={GUEST_DIR}/initramfs"),
        format!("ubd0r={GUEST_DIR}/base.img"),
        format!("ubd1={}", scratch.display()),
        "con=null".to_owned(),
        "con0=null,fd:1".to_owned(),
        "ssl=null".to_owned(),
        format!("ssl0=fd:{channel}"),
        "uml_dir=/scratch/.tmp/".to_owned(),
        NO_HOST_FILES.to_owned(),
        "quiet".to_owned(),
        "noreboot".to_owned(),
        "panic=-1".to_owned(),
    ];
    arguments.extend(devices("ubd", "/dev/ttyS0"));
    Call {
        program: format!("{GUEST_DIR}/kernel"),
        arguments,
    }
}
