//! The kernels that guests may run on: user-mode Linux, and one of the distribution's own for
//! QEMU, each with the drivers that it has as modules. Either may be missing.

use super::{ImageError, io_at};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// User-mode Linux, where Debian and Ubuntu install it.
const UML: &str = "/usr/bin/linux.uml";
const UML_MODULES: &str = "/usr/lib/uml/modules";
const UML_DRIVERS: [&str; 1] = ["kernel/fs/erofs/erofs.ko"];

/// Kernels of the distribution, and their modules.
const BOOT: &str = "/boot";
const MODULES: &str = "/lib/modules";
const FILE: &str = "vmlinuz";

/// The machine that such a kernel runs on.
const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// A kernel made for machines like ours has this in its name: it boots sooner.
const SMALL: &str = "-cloud-";

/// Drivers that a guest under QEMU needs, by their names; any of them may be built in.
const NEEDED: [&str; 5] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "erofs",
    "ext4",
];

/// Drivers that it can do without. The first is one that others ask for by what it does, which
/// no list of needs tells.
const FIRST: &str = "crc32c_generic";
const LAST: &str = "virtio_balloon";

/// One kernel that is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kernel {
    /// What it runs on, as in [`super::Manifest::kernels`].
    pub(super) kind: &'static str,
    pub(super) release: String,
    pub(super) file: PathBuf,
    /// In the order of loading.
    pub(super) drivers: Vec<PathBuf>,
}

/// Names of the kinds.
pub(super) const KIND_UML: &str = "uml";
pub(super) const KIND_QEMU: &str = "qemu";

impl Kernel {
    /// Names in the image: of the kernel, and of its first file system.
    pub(super) fn names(kind: &str) -> [&'static str; 2] {
        if kind == KIND_UML {
            ["kernel", "initramfs"]
        } else {
            ["kernel-qemu", "initramfs-qemu"]
        }
    }
}

/// What is installed here; why nothing is, where that is so.
pub(super) fn installed() -> Result<Vec<Kernel>, ImageError> {
    let (uml, qemu) = (uml(), qemu());
    match (uml, qemu) {
        (Err(uml), Err(_)) => Err(uml),
        (uml, qemu) => Ok([uml, qemu].into_iter().flatten().collect()),
    }
}

fn missing(what: impl Into<String>, package: &'static str) -> ImageError {
    let what = what.into();
    ImageError::Missing { what, package }
}

/// Kernel and modules come in one package, so there is one release.
fn uml() -> Result<Kernel, ImageError> {
    const PACKAGE: &str = "user-mode-linux";
    if !Path::new(UML).exists() {
        return Err(missing(UML, PACKAGE));
    }
    let found = fs::read_dir(UML_MODULES).map_err(|_| missing(UML_MODULES, PACKAGE))?;
    let mut releases: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).collect();
    releases.sort();
    let newest = releases
        .pop()
        .ok_or_else(|| missing(UML_MODULES, PACKAGE))?;
    let name = newest.file_name().unwrap_or_default();
    Ok(Kernel {
        kind: KIND_UML,
        release: name.to_string_lossy().into_owned(),
        file: UML.into(),
        drivers: UML_DRIVERS.iter().map(|name| newest.join(name)).collect(),
    })
}

/// Why there is no kernel for QEMU here; none where there is one.
pub(crate) fn no_qemu() -> Option<ImageError> {
    qemu().err()
}

fn qemu() -> Result<Kernel, ImageError> {
    if !Path::new(QEMU).exists() {
        return Err(missing(QEMU, "qemu-system-x86"));
    }
    let mut releases: Vec<String> = fs::read_dir(MODULES)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    releases.sort_by_key(|release| (release.contains(SMALL), version(release)));
    let mut why = None;
    for release in releases.into_iter().rev() {
        match of_release(&release) {
            Ok(kernel) => return Ok(kernel),
            Err(error) => why = why.or(error),
        }
    }
    let none = || {
        // A PC has its own. One that gets this besides might boot it next time.
        missing(
            "a kernel that this user can read, in /boot or /lib/modules,",
            "linux-image-cloud-amd64 if this is a container that has none",
        )
    };
    Err(why.unwrap_or_else(none))
}

/// A kernel with its drivers; no reason where there are modules without a kernel.
fn of_release(release: &str) -> Result<Kernel, Option<ImageError>> {
    let modules = Path::new(MODULES).join(release);
    let places = [
        Path::new(BOOT).join(format!("{FILE}-{release}")),
        modules.join(FILE),
    ];
    let file = places.into_iter().find(|path| path.exists()).ok_or(None)?;
    fs::File::open(&file).map_err(io_at(format!("read {}", file.display())))?;
    let read = |name: &str| fs::read_to_string(modules.join(name)).unwrap_or_default();
    let (needs, built_in) = (read("modules.dep"), read("modules.builtin"));
    let drivers = drivers(&needs, &built_in).map_err(|driver| {
        missing(
            format!("driver {driver} of kernel {release}"),
            "a kernel with it",
        )
    })?;
    Ok(Kernel {
        kind: KIND_QEMU,
        release: release.to_owned(),
        file,
        drivers: drivers.iter().map(|path| modules.join(path)).collect(),
    })
}

/// Numbers count as numbers: 6.10 comes after 6.9.
fn version(release: &str) -> Vec<u64> {
    let parts = release.split(|c: char| !c.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

/// A driver's name, from its path: hyphens and underscores are one there.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// Paths of the drivers, each after what it needs, by the list that `depmod` makes. An error is
/// the name of one that is neither there nor built in.
fn drivers(needs: &str, built_in: &str) -> Result<Vec<String>, &'static str> {
    let lines: Vec<(&str, Vec<&str>)> = needs
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (path, needs.split_whitespace().collect()))
        .collect();
    let find = |wanted: &str| lines.iter().find(|(path, _)| name(path) == wanted);
    let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
    let mut add = |path: &str, needs: &[&str]| {
        // What is needed by what is needed comes last in a line.
        for path in needs.iter().rev().copied().chain([path]) {
            if seen.insert(path.to_owned()) {
                order.push(path.to_owned());
            }
        }
    };
    for wanted in [FIRST].iter().chain(&NEEDED).chain(&[LAST]) {
        match find(wanted) {
            Some((path, needs)) => add(path, needs),
            None if !NEEDED.contains(wanted) => {}
            None if built_in.lines().any(|path| name(path) == *wanted) => {}
            None => return Err(wanted),
        }
    }
    Ok(order)
}

/// A driver's name and content, unpacked where the distribution has packed it.
pub(super) fn driver(path: &Path) -> Result<(String, Vec<u8>), ImageError> {
    let text = path.to_string_lossy();
    let by = match path.extension().and_then(|ending| ending.to_str()) {
        Some("xz") => Some("xz"),
        Some("zst") => Some("zstd"),
        Some("gz") => Some("gzip"),
        _ => None,
    };
    let failed = io_at(format!("read {text}"));
    let content = match by {
        None => fs::read(path),
        Some(program) => unpacked(program, path),
    };
    Ok((name(&text), content.map_err(failed)?))
}

fn unpacked(program: &str, path: &Path) -> io::Result<Vec<u8>> {
    let mut command = Command::new(program);
    let done = command.arg("-dc").arg(path).stdin(Stdio::null()).output()?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    Err(io::Error::other(format!("{program}: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: &str = "kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio.ko \
                         kernel/drivers/virtio/virtio_ring.ko\n\
                         kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n\
                         kernel/drivers/virtio/virtio.ko:\n\
                         kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio.ko\n\
                         kernel/drivers/char/virtio-console.ko: kernel/drivers/virtio/virtio.ko\n\
                         kernel/fs/erofs/erofs.ko:\n";

    #[test]
    fn drivers_come_after_what_they_need() {
        let order = drivers(NEEDS, "kernel/fs/ext4/ext4.ko\n").unwrap();
        let names: Vec<String> = order.iter().map(|path| name(path)).collect();
        assert_eq!(
            names,
            [
                "virtio_ring",
                "virtio",
                "virtio_pci",
                "virtio_blk",
                "virtio_console",
                "erofs"
            ]
        );
        assert_eq!(drivers(NEEDS, ""), Err("ext4"));
        assert_eq!(drivers("", "kernel/fs/ext4/ext4.ko\n"), Err("virtio_pci"));
    }

    #[test]
    fn the_newest_is_chosen_by_number() {
        let mut all = ["6.9.1-generic", "6.10.0-1-amd64", "5.15.0-101-generic"];
        all.sort_by_key(|release| version(release));
        assert_eq!(all[2], "6.10.0-1-amd64");
    }
}
