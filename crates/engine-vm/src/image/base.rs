//! The base image: a userland without an owner, as one read-only file of the kind erofs.

use super::{ImageError, io_at, packages, readable, run};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
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
    same_modes(&stage)?;
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

/// What everybody may read, whoever we are: else root's image would be another than a plain user's.
/// What others may not read no task could.
fn copy(paths: &BTreeSet<PathBuf>, stage: &Path) -> Result<(), ImageError> {
    let mut hidden: Option<&Path> = None;
    // A directory comes before what is in it.
    for path in paths {
        if hidden.is_some_and(|dir| path.starts_with(dir)) {
            continue;
        }
        let to = stage.join(path.strip_prefix("/").unwrap_or(path));
        let failed = || io_at(format!("copy {}", path.display()));
        let data = fs::symlink_metadata(path).map_err(failed())?;
        let mode = data.permissions().mode();
        if data.is_dir() && mode & 0o005 != 0o005 {
            hidden = Some(path);
            continue;
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(failed())?;
        }
        if data.is_dir() {
            fs::create_dir_all(&to).map_err(failed())?;
        } else if data.is_symlink() {
            let target = fs::read_link(path).map_err(failed())?;
            symlink(target, &to).map_err(failed())?;
        } else if data.is_file() && mode & 0o004 != 0 {
            fs::copy(path, &to).map_err(failed())?;
        }
    }
    Ok(())
}

/// Modes that follow from whether a file is a program, not from the mask of who builds; and none
/// with the bits that give somebody else's rights.
fn same_modes(stage: &Path) -> Result<(), ImageError> {
    let mut left = vec![stage.to_owned()];
    while let Some(path) = left.pop() {
        let failed = || io_at(format!("open {} to tasks", path.display()));
        let data = fs::symlink_metadata(&path).map_err(failed())?;
        let program = data.permissions().mode() & 0o111 != 0;
        match (data.is_dir(), data.is_file()) {
            (true, _) => {
                readable(&path, 0o755)?;
                for below in fs::read_dir(&path).map_err(failed())? {
                    left.push(below.map_err(failed())?.path());
                }
            }
            (_, true) => readable(&path, if program { 0o755 } else { 0o644 })?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    #[test]
    fn what_not_everybody_may_read_is_left_out_and_modes_are_the_same_for_all_who_build() {
        let dir = tempfile::tempdir().unwrap();
        let (from, stage) = (dir.path().join("from"), dir.path().join("stage"));
        let made = [
            ("open/plain", 0o640, false),
            ("open/program", 0o4755, true),
            ("open/text", 0o604, true),
            ("shut/inside", 0o644, false),
        ];
        for (name, mode, _) in made {
            let path = from.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, name).unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(from.join("shut"), Permissions::from_mode(0o750)).unwrap();
        let dirs = ["open", "shut"].map(|name| from.join(name));
        let files = made.map(|(name, ..)| from.join(name));
        let paths = dirs.into_iter().chain(files).collect();
        fs::create_dir(&stage).unwrap();
        copy(&paths, &stage).unwrap();
        let to = |name: &str| stage.join(from.join(name).strip_prefix("/").unwrap());
        for (name, _, there) in made {
            assert_eq!(to(name).exists(), there, "{name}");
        }
        assert!(!to("shut").exists());
        // As under the strictest mask.
        fs::set_permissions(to("open"), Permissions::from_mode(0o700)).unwrap();
        same_modes(&stage).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let modes = ["open", "open/program", "open/text"].map(|name| mode(&to(name)));
        assert_eq!(modes, [0o755, 0o755, 0o644]);
        assert_eq!(mode(&stage), 0o755);
    }
}
