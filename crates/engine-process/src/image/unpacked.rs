//! Images as directories, for plain users and kernels without erofs: each unpacked once, shared
//! by all bundles, and the ones that were used longest ago removed when there are too many bytes.
//!
//! ```text
//! STORE/HEX/         the tree
//!       HEX.seal     a digest over names, sizes and times of change, made when it was unpacked
//!       HEX.lock     held shared while cages are built on it
//! ```

use gleaner_image::{ImageError, Tree};
use gleaner_model::Digest;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Most bytes of all unpacked images that no cage is built on.
const BYTES_MAX: u64 = 20 << 30;

/// A directory that stays while this is kept.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) dir: PathBuf,
    /// Its lock goes with the last descriptor.
    _lock: File,
}

fn io_at(doing: &str) -> impl FnOnce(io::Error) -> ImageError + use<> {
    let doing = doing.to_owned();
    move |source| ImageError::Io { doing, source }
}

fn lock(path: &Path, how: FlockOperation) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    flock(&file, how)?;
    Ok(file)
}

impl Unpacked {
    /// The directory of a tree, made where it is missing or was changed.
    pub(super) fn of(tree: &Tree, digest: &Digest, store: &Path) -> Result<Self, ImageError> {
        crate::bundle::private_dir(store).map_err(io_at("make the directory of images"))?;
        let hex = digest.hex();
        let (dir, seal) = (store.join(&hex), store.join(format!("{hex}.seal")));
        let held = lock(
            &store.join(format!("{hex}.lock")),
            FlockOperation::LockExclusive,
        );
        let held = held.map_err(io_at("lock an image"))?;
        let sealed = fs::read_to_string(&seal).ok();
        let whole = sealed.is_some_and(|sealed| fingerprint(&dir).is_ok_and(|now| now == sealed));
        if !whole {
            sweep(store, &hex);
            remove(&dir).map_err(io_at("remove an image that was changed"))?;
            tree.unpack(&dir)?;
            let now = fingerprint(&dir).map_err(io_at("look at an unpacked image"))?;
            fs::write(&seal, now).map_err(io_at("seal an unpacked image"))?;
        }
        // By this the one that was used longest ago is known.
        let used = File::options().append(true).open(&seal);
        let _not_known = used.and_then(|file| file.set_modified(SystemTime::now()));
        // From here on others may build on it too, and nobody may remove it. Between the two
        // locks somebody may: then the next bundle unpacks it again, and this one finds no root.
        flock(&held, FlockOperation::LockShared)
            .map_err(|error| io_at("share an image")(error.into()))?;
        Ok(Self { dir, _lock: held })
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A digest over everything that changes when somebody writes into the tree.
fn fingerprint(dir: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path)?;
        hasher.update(path.as_os_str().as_bytes());
        let numbers = [
            meta.ino(),
            meta.size(),
            u64::from(meta.mode()),
            meta.ctime().cast_unsigned(),
            meta.ctime_nsec().cast_unsigned(),
        ];
        for number in numbers {
            hasher.update(&number.to_le_bytes());
        }
        if meta.is_dir() {
            let mut below = Vec::new();
            for entry in fs::read_dir(&path)? {
                below.push(entry?.path());
            }
            below.sort_unstable();
            todo.extend(below);
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Removes trees that were used longest ago, until the others are few enough.
fn sweep(store: &Path, but: &str) {
    let mut kept = Vec::new();
    for entry in fs::read_dir(store).into_iter().flatten().flatten() {
        let path = entry.path();
        let hex = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && hex != but {
            let seal = fs::metadata(store.join(format!("{hex}.seal")));
            let used = seal
                .and_then(|meta| meta.modified())
                .unwrap_or(SystemTime::UNIX_EPOCH);
            kept.push((used, hex, size(&path)));
        }
    }
    kept.sort_unstable();
    let mut bytes: u64 = kept.iter().map(|(_, _, size)| size).sum();
    for (_, hex, size) in kept {
        if bytes <= BYTES_MAX {
            return;
        }
        let path = store.join(format!("{hex}.lock"));
        // One that cages are built on stays.
        if let Ok(_held) = lock(&path, FlockOperation::NonBlockingLockExclusive)
            && fs::remove_file(store.join(format!("{hex}.seal"))).is_ok()
            && remove(&store.join(&hex)).is_ok()
        {
            bytes -= size;
        }
    }
}

fn size(dir: &Path) -> u64 {
    let (mut bytes, mut todo) = (0, vec![dir.to_owned()]);
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => todo.push(entry.path()),
                Ok(meta) => bytes += meta.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_unpacked_once_and_again_when_it_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "content").unwrap();
        let tree = gleaner_image::import(&source, 1 << 20).unwrap().tree;
        let (store, digest) = (dir.path().join("store"), Digest([7; 32]));
        let number = |unpacked: &Unpacked| fs::metadata(unpacked.dir.join("file")).unwrap().ino();
        let first = Unpacked::of(&tree, &digest, &store).unwrap();
        let file = first.dir.join("file");
        let before = number(&first);
        drop(first);
        let second = Unpacked::of(&tree, &digest, &store).unwrap();
        assert_eq!(number(&second), before);
        drop(second);
        // A kernel's clock for files may stand still for some milliseconds.
        let written =
            |file: &Path| fs::metadata(file).map(|meta| (meta.ctime(), meta.ctime_nsec()));
        let unpacked = written(&file).unwrap();
        while written(&file).unwrap() == unpacked {
            fs::write(&file, "changed").unwrap();
        }
        let third = Unpacked::of(&tree, &digest, &store).unwrap();
        assert_eq!(
            fs::read_to_string(third.dir.join("file")).unwrap(),
            "content"
        );
        // While it is used nobody removes it.
        lock(
            &store.join(format!("{}.lock", digest.hex())),
            FlockOperation::NonBlockingLockExclusive,
        )
        .unwrap_err();
    }
}
