//! What a guest is made of: a kernel, a first file system with our process 1, and the base image
//! that programs see, each one read-only file.
//!
//! Built from packages that are installed here, without rights and without the network; the
//! same packages and the same program give the same bytes. [`Image::open`] believes a file only
//! while it is what was hashed. Nothing here runs a guest.

mod base;
mod cpio;
pub(crate) mod kernels;
mod packages;
mod program;
mod sealed;

pub use program::{Program, find_program};
pub(crate) use sealed::Sealed;

use gleaner_guest::task::Accelerator;
use kernels::{KIND_QEMU, KIND_UML, Kernel};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Of what is written to disk here; another version is built anew.
const FORMAT: u32 = 2;

/// Names of the files in an image's directory. The guest's host end knows them too.
const MANIFEST: &str = "guest.json";
const PROGRAM: &str = "gleaner-guest";
const BASE: &str = "base.img";

/// Digits of its digest that tell it from all others.
const BASE_DIGITS: usize = 16;

/// No guest can be had here: what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A package is missing.
    #[error("{what} is missing; install {package}")]
    Missing {
        /// The program or file.
        what: String,
        /// The package of Debian and Ubuntu that has it.
        package: &'static str,
    },
    /// Nobody has built it.
    #[error("no guest image was built yet in {}; build it with `gleaner image guest`", .0.display())]
    NotBuilt(PathBuf),
    /// There is no program for guests.
    #[error("{0}; use gleaner's release build, which has it, or build it with `cargo xtask guest`")]
    NoProgram(&'static str),
    /// Our own program for the guest.
    #[error("{path} {problem}; build it with `cargo xtask guest`")]
    Program {
        /// Where it was looked for.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A file is not what was built.
    #[error("{0} is not what was built; remove its directory and it is built anew")]
    Altered(String),
    /// A program that builds failed.
    #[error("{program} failed: {said}")]
    Build {
        /// Which.
        program: String,
        /// Its last line.
        said: String,
    },
    /// The disk.
    #[error("failed to {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the PC said.
        source: io::Error,
    },
}

fn io_at(doing: impl Into<String>) -> impl FnOnce(io::Error) -> ImageError {
    let doing = doing.into();
    move |source| ImageError::Io { doing, source }
}

/// What an image consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of this file.
    format: u32,
    /// Releases of the kernels by what they run on, `uml` or `qemu`; one at least.
    pub kernels: BTreeMap<String, String>,
    /// Packages in the base image, with their versions.
    pub packages: BTreeMap<String, String>,
    /// Each file's BLAKE3 digest, in hexadecimal digits.
    pub files: BTreeMap<String, String>,
}

impl Manifest {
    /// What the image in `dir` says of itself; its files are not looked at.
    ///
    /// # Errors
    /// Where there is none, or another version of us wrote it.
    pub fn read(dir: &Path) -> Result<Self, ImageError> {
        let text = fs::read(dir.join(MANIFEST)).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                return ImageError::NotBuilt(dir.to_owned());
            }
            io_at("read the image's manifest")(error)
        })?;
        serde_json::from_slice(&text)
            .ok()
            .filter(|manifest: &Self| manifest.format == FORMAT)
            .ok_or_else(|| ImageError::Altered(dir.join(MANIFEST).display().to_string()))
    }

    /// The release of the kernel for this accelerator, if there is one.
    #[must_use]
    pub fn kernel(&self, accelerator: Accelerator) -> Option<&str> {
        let kind = match accelerator {
            Accelerator::Uml => KIND_UML,
            Accelerator::Kvm | Accelerator::Tcg => KIND_QEMU,
        };
        self.kernels.get(kind).map(String::as_str)
    }

    /// What tells the base image from all others.
    pub(crate) fn base(&self) -> String {
        let digest = self.files.get(BASE).map_or("", String::as_str);
        digest.chars().take(BASE_DIGITS).collect()
    }

    /// The kernels, in words.
    #[must_use]
    pub fn kernels_text(&self) -> String {
        let text = |(kind, release): (&String, &String)| match kind.as_str() {
            KIND_UML => format!("user-mode Linux {release}"),
            _ => format!("Linux {release} for QEMU"),
        };
        let all: Vec<String> = self.kernels.iter().rev().map(text).collect();
        all.join(", ")
    }

    /// Files that an image with these kernels must have.
    fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let kernels = self.kernels.keys();
        let kernels: Vec<_> = kernels.flat_map(|kind| Kernel::names(kind)).collect();
        [BASE, PROGRAM].into_iter().chain(kernels)
    }

    /// One digest over all of it.
    #[must_use]
    pub fn digest(&self) -> String {
        let all: String = self
            .files
            .iter()
            .map(|(name, digest)| format!("{name} {digest}\n"))
            .collect();
        blake3::hash(all.as_bytes()).to_hex().to_string()
    }
}

/// A directory with everything that a guest needs.
#[derive(Debug, Clone)]
pub struct Image {
    /// The directory.
    pub dir: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
}

impl Image {
    /// The image in `dir`, built there where it is missing or was made of another `program` or
    /// of other kernels than are installed now.
    /// Building takes some ten seconds; whoever else wants it meanwhile waits.
    ///
    /// # Errors
    /// Where something is missing, or a file is not what was built.
    pub fn open_or_build(dir: &Path, program: &Program) -> Result<Self, ImageError> {
        let parent = dir.parent().unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(parent).map_err(io_at("make the directory of images"))?;
        let lock = File::create(dir.with_extension("lock")).map_err(io_at("lock the image"))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| io_at("lock the image")(error.into()))?;
        let program = program.read()?;
        let wanted = blake3::hash(&program).to_hex().to_string();
        let kernels = kernels::installed()?;
        let releases = releases(&kernels);
        if let Ok(image) = Self::open(dir)
            && image.manifest.files.get(PROGRAM) == Some(&wanted)
            && image.manifest.kernels == releases
        {
            return Ok(image);
        }
        let part = dir.with_extension("part");
        remove(&part)?;
        let image = build(&part, &program, &kernels)?;
        remove(dir)?;
        fs::rename(&part, dir).map_err(io_at("put the image in its place"))?;
        Ok(Self {
            dir: dir.to_owned(),
            ..image
        })
    }

    /// The image in `dir`, if it is whole.
    ///
    /// # Errors
    /// Where there is none, or a file is not what was built.
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        let manifest = Manifest::read(dir)?;
        for name in manifest.names() {
            let path = dir.join(name);
            let found = hash(&path).map_err(io_at(format!("read {}", path.display())))?;
            if manifest.files.get(name) != Some(&found) {
                return Err(ImageError::Altered(path.display().to_string()));
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            manifest,
        })
    }
}

/// Where the image lies that all agents of this user share.
#[must_use]
pub fn default_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("GLEANER_GUEST_DIR") {
        return dir.into();
    }
    if rustix::process::geteuid().is_root() {
        return "/var/lib/gleaner/guest".into();
    }
    let below_home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    cache.unwrap_or_else(below_home).join("gleaner/guest")
}

fn remove(dir: &Path) -> Result<(), ImageError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_at("remove an older image")(error))
        }
        _ => Ok(()),
    }
}

fn releases(kernels: &[Kernel]) -> BTreeMap<String, String> {
    let pair = |kernel: &Kernel| (kernel.kind.to_owned(), kernel.release.clone());
    kernels.iter().map(pair).collect()
}

/// A kernel and its first file system.
fn add_kernel(dir: &Path, program: &[u8], kernel: &Kernel) -> Result<(), ImageError> {
    let [file, first] = Kernel::names(kernel.kind).map(|name| dir.join(name));
    install(&kernel.file, &file, 0o755)?;
    let drivers = kernel.drivers.iter().map(|path| kernels::driver(path));
    let drivers = drivers.collect::<Result<Vec<_>, _>>()?;
    fs::write(&first, cpio::initramfs(program, &drivers))
        .map_err(io_at("write the first file system"))?;
    readable(&first, 0o644)
}

fn build(dir: &Path, program: &[u8], kernels: &[Kernel]) -> Result<Image, ImageError> {
    let begun = std::time::Instant::now();
    fs::create_dir_all(dir).map_err(io_at("make the image's directory"))?;
    let own = dir.join(PROGRAM);
    fs::write(&own, program).map_err(io_at("write the guest's program"))?;
    readable(&own, 0o755)?;
    for kernel in kernels {
        add_kernel(dir, program, kernel)?;
    }
    let packages = base::build(dir, &dir.join(BASE))?;
    readable(&dir.join(BASE), 0o644)?;
    let mut manifest = Manifest {
        format: FORMAT,
        kernels: releases(kernels),
        packages,
        files: BTreeMap::new(),
    };
    for name in manifest.names() {
        let digest = hash(&dir.join(name)).map_err(io_at(format!("read {name}")))?;
        manifest.files.insert(name.to_owned(), digest);
    }
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| io_at("write the manifest")(error.into()))?;
    fs::write(dir.join(MANIFEST), text).map_err(io_at("write the manifest"))?;
    // Tasks of other users see it, read-only, by way of their cages.
    readable(dir, 0o755)?;
    tracing::info!(
        digest = manifest.digest(),
        seconds = begun.elapsed().as_secs(),
        "guest image built"
    );
    Ok(Image {
        dir: dir.to_owned(),
        manifest,
    })
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<(), ImageError> {
    fs::copy(from, to).map_err(io_at(format!("copy {}", from.display())))?;
    readable(to, mode)
}

fn readable(path: &Path, mode: u32) -> Result<(), ImageError> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(io_at(format!("open {} to tasks", path.display())))
}

fn hash(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Runs a program that builds; what it wrote.
fn run(command: &mut Command, package: &'static str) -> Result<String, ImageError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output().map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            let what = program.clone();
            ImageError::Missing { what, package }
        } else {
            io_at(format!("run {program}"))(error)
        }
    })?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let said = said.lines().last().unwrap_or("nothing").to_owned();
        return Err(ImageError::Build { program, said });
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_was_changed_or_cut_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Manifest {
            format: FORMAT,
            kernels: [(KIND_UML.to_owned(), "6.1".to_owned())].into(),
            packages: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        for name in manifest.names() {
            fs::write(dir.path().join(name), name).unwrap();
            let digest = hash(&dir.path().join(name)).unwrap();
            manifest.files.insert(name.to_owned(), digest);
        }
        let text = serde_json::to_vec(&manifest).unwrap();
        fs::write(dir.path().join(MANIFEST), &text).unwrap();
        assert_eq!(Image::open(dir.path()).unwrap().manifest, manifest);
        let sealed = Sealed::default();
        for _ in 0..2 {
            assert_eq!(sealed.whole(dir.path()).unwrap(), manifest);
        }
        for (name, content) in [
            ("base.img", "base.imG"),
            ("kernel", "kern"),
            (MANIFEST, "{"),
        ] {
            let before = fs::read(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name), content).unwrap();
            let error = Image::open(dir.path()).unwrap_err();
            assert!(matches!(error, ImageError::Altered(_)), "{name}: {error}");
            // Of the same length too, and after it was believed.
            let error = sealed.whole(dir.path()).unwrap_err();
            assert!(matches!(error, ImageError::Altered(_)), "{name}: {error}");
            fs::write(dir.path().join(name), before).unwrap();
            assert_eq!(sealed.whole(dir.path()).unwrap(), manifest);
        }
        fs::remove_file(dir.path().join("kernel")).unwrap();
        Image::open(dir.path()).unwrap_err();
        let error = Image::open(&dir.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("gleaner image guest"), "{error}");
    }
}
