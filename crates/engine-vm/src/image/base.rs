//! The base image: a userland without an owner, as one read-only file of the kind erofs.

use super::{ImageError, io_at, packages, run};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directories that are there for the guest to fill.
const PLACES: [&str; 8] = ["proc", "dev", "sys", "run", "scratch", "home", "etc", "var"];

/// Top-level names that many distributions have as links into `/usr`.
const TOP: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// The same for every image: it is found by its digest.
const NAME: &str = "00000000-0000-0000-0000-000000000000";

/// User ids that programs may have in the guest, as in the cages of processes.
const USERS: std::ops::Range<u32> = 1000..1064;

/// Builds the image, with a directory beside it for the work. Says what is in it.
pub(super) fn build(dir: &Path, image: &Path) -> Result<BTreeMap<String, String>, ImageError> {
    let packages = packages::closure()?;
    let stage = dir.join("stage");
    for place in PLACES {
        let made = fs::create_dir_all(stage.join(place));
        made.map_err(io_at("make the root of the base image"))?;
    }
    top(&stage).map_err(io_at("make the links of the base image"))?;
    etc(&stage).map_err(io_at("fill /etc of the base image"))?;
    copy(&packages::paths(&packages)?, &stage)?;
    run(
        Command::new("mkfs.erofs")
            .args(["-T0", "-x-1", "--all-root", &format!("-U{NAME}")])
            .args([image, &stage]),
        "erofs-utils",
    )?;
    fs::remove_dir_all(&stage).map_err(io_at("clean up after the base image"))?;
    Ok(packages)
}

fn top(stage: &Path) -> std::io::Result<()> {
    for name in TOP {
        if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
            symlink(target, stage.join(name))?;
        }
    }
    symlink("/scratch/.tmp", stage.join("tmp"))?;
    symlink("/scratch/.tmp", stage.join("var/tmp"))
}

/// Nothing of this PC's: the same on every one.
fn etc(stage: &Path) -> std::io::Result<()> {
    let users = USERS.map(|id| format!("task{id}:x:{id}:{id}::/scratch:/bin/sh\n"));
    let passwd = format!("root:x:0:0:root:/:/bin/sh\n{}", users.collect::<String>());
    let groups = USERS.map(|id| format!("task{id}:x:{id}:\n"));
    let group = format!("root:x:0:\n{}", groups.collect::<String>());
    for (name, text) in [
        ("passwd", passwd.as_str()),
        ("group", group.as_str()),
        ("hostname", "gleaner\n"),
        ("hosts", "127.0.0.1 localhost gleaner\n::1 localhost\n"),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files\n",
        ),
    ] {
        fs::write(stage.join("etc").join(name), text)?;
    }
    symlink("/proc/self/mounts", stage.join("etc/mtab"))
}

fn copy(paths: &BTreeSet<PathBuf>, stage: &Path) -> Result<(), ImageError> {
    for path in paths {
        let to = stage.join(path.strip_prefix("/").unwrap_or(path));
        let failed = || io_at(format!("copy {}", path.display()));
        let data = fs::symlink_metadata(path).map_err(failed())?;
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(failed())?;
        }
        if data.is_dir() {
            fs::create_dir_all(&to).map_err(failed())?;
        } else if data.is_symlink() {
            let target = fs::read_link(path).map_err(failed())?;
            symlink(target, &to).map_err(failed())?;
        } else if data.is_file() {
            match fs::copy(path, &to) {
                // What a plain user may not read no task may run.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => continue,
                done => done.map_err(failed())?,
            };
            // Without the bits that give somebody else's rights.
            let mode = data.permissions().mode() & 0o755;
            fs::set_permissions(&to, Permissions::from_mode(mode)).map_err(failed())?;
        }
    }
    Ok(())
}
