//! Files by content: a local folder in which each blob is one read-only file named by its BLAKE3
//! digest (`ab/<64 hex digits>`).
//!
//! Owns the folder. Knows nothing of jobs: who still needs a blob is asked of the caller when the
//! folder is swept. Bytes come from uploads (resumable, checked against the digest before they
//! count) and from the server's own merges; they go out as plain open files. Every call blocks on
//! the disk: callers on an async runtime use a blocking thread. What a call acknowledges is on
//! the disk: the file is synced, and the folder that names it.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod sweep;
#[cfg(test)]
mod tests;
mod write;

pub use sweep::Swept;
pub use write::{Upload, Writer};

use gleaner_model::{BlobRef, Digest};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// From this many new files in one call the whole file system is synced at once: each sync of a
/// single file would wait for its own journal commit.
const GROUP_SYNC_FILES: usize = 8;

/// Permission bits of the folder: what users send and get is not for whoever else has an account.
const FOLDER_MODE: u32 = 0o700;

/// Most bytes of the disk that are left to what cannot wait; on a small disk a part of it.
const KEPT_BYTES: u64 = 256 << 20;

/// That part of a small disk.
const KEPT_PART: u64 = 16;

/// Something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The disk is full; the part that fitted is kept for a resumed upload.
    #[error("the disk that holds the server's blobs is full; free some space and send again")]
    Full,
    /// No such blob.
    #[error("the server has no blob {0}; upload it first")]
    Missing(Digest),
    /// The content does not have the digest under which it was sent.
    #[error("what arrived has digest {found}, not {expected}; the file changed while it was sent")]
    Mismatch {
        /// The digest it was sent under.
        expected: Digest,
        /// The digest it has.
        found: Digest,
    },
    /// An upload was resumed beyond what is here.
    #[error("{have} bytes of this blob are here; resume from there")]
    Offset {
        /// How many bytes are here.
        have: u64,
    },
    /// More bytes than the caller allows.
    #[error("a blob has at most {limit} bytes here")]
    TooLarge {
        /// The most that is allowed.
        limit: u64,
    },
    /// The disk failed otherwise.
    #[error("cannot {what} {path}: {source}")]
    Disk {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

pub(crate) fn disk(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        if full.contains(&source.kind()) {
            return BlobError::Full;
        }
        BlobError::Disk { what, path, source }
    }
}

/// The folder. Cheap to clone; all clones are the same folder.
#[derive(Debug, Clone)]
pub struct Blobs(Arc<Folder>);

#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    partial: PathBuf,
    /// Numbers files that have no name yet.
    unnamed: AtomicU64,
    /// Held for moments: blobs in use, and the only door through which the sweep removes.
    pins: Mutex<BTreeMap<Digest, u32>>,
    /// Digests whose resumable part is being written.
    uploading: Mutex<std::collections::BTreeSet<Digest>>,
}

/// Keeps one blob from being swept while it lives.
#[derive(Debug)]
pub struct Pin {
    folder: Arc<Folder>,
    digest: Digest,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.folder.pins();
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

impl Folder {
    fn pins(&self) -> MutexGuard<'_, BTreeMap<Digest, u32>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uploading(&self) -> MutexGuard<'_, std::collections::BTreeSet<Digest>> {
        self.uploading
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join(&hex[..2]).join(&hex)
    }

    fn unnamed(&self) -> PathBuf {
        let number = self.unnamed.fetch_add(1, Ordering::Relaxed);
        self.partial.join(format!("new.{number}"))
    }
}

impl Blobs {
    /// Opens the folder, made for its owner alone where it does not exist. Parts of uploads stay
    /// resumable; other left-overs of a crash are removed.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        let partial = root.join("partial");
        let mut own = fs::DirBuilder::new();
        let made = own.recursive(true).mode(FOLDER_MODE).create(&partial);
        made.map_err(disk("make", &partial))?;
        for entry in fs::read_dir(&partial).map_err(disk("list", &partial))? {
            let path = entry.map_err(disk("list", &partial))?.path();
            if path.extension().is_some() {
                fs::remove_file(&path).map_err(disk("remove", &path))?;
            }
        }
        Ok(Self(Arc::new(Folder {
            root: root.to_owned(),
            partial,
            unnamed: AtomicU64::new(0),
            pins: Mutex::default(),
            uploading: Mutex::default(),
        })))
    }

    /// A blob's size in bytes; none where it is not here.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let path = self.0.path(digest);
        match fs::metadata(&path) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(disk("look at", &path)(error)),
        }
    }

    /// As [`Blobs::size`]; a blob that is here counts as just uploaded from now on, so that who
    /// was told that it is here finds it a grace period later.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn renew(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        // Under the lock of the sweep: it never removes between the look and the new time.
        let _no_sweep = self.0.pins();
        let size = self.size(digest)?;
        if size.is_some() {
            let path = self.0.path(digest);
            let file = File::open(&path).map_err(disk("open", &path))?;
            file.set_modified(SystemTime::now())
                .map_err(disk("mark", &path))?;
        }
        Ok(size)
    }

    /// Keeps a blob from being swept until the pin is dropped.
    #[must_use]
    pub fn pin(&self, digest: &Digest) -> Pin {
        *self.0.pins().entry(*digest).or_insert(0) += 1;
        Pin {
            folder: Arc::clone(&self.0),
            digest: *digest,
        }
    }

    /// Opens a blob for reading, and says how many bytes it has. A sweep does not disturb who
    /// has it open.
    ///
    /// # Errors
    /// [`BlobError::Missing`], or the disk cannot be read.
    pub fn open_blob(&self, digest: &Digest) -> Result<(File, u64), BlobError> {
        let path = self.0.path(digest);
        let file = File::open(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                return BlobError::Missing(*digest);
            }
            disk("open", &path)(error)
        })?;
        let size = file.metadata().map_err(disk("look at", &path))?.len();
        Ok((file, size))
    }

    /// A whole blob of at most `limit` bytes.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::TooLarge`], or the disk cannot be read.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, BlobError> {
        let (file, size) = self.open_blob(digest)?;
        if size > limit {
            return Err(BlobError::TooLarge { limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let path = self.0.path(digest);
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(disk("read", &path))?;
        Ok(bytes)
    }

    /// Reads a blob again and says whether it is what its name says. One that is not is removed:
    /// what is missing can be sent anew, what is damaged would be taken for there.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn check(&self, digest: &Digest) -> Result<bool, BlobError> {
        let file = match self.open_blob(digest) {
            Ok((file, _)) => file,
            Err(BlobError::Missing(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let path = self.0.path(digest);
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file).map_err(disk("read", &path))?;
        if hasher.finalize().as_bytes() == &digest.0 {
            return Ok(true);
        }
        // Under the lock of the sweep, and not where somebody has just put a good one there.
        let _no_sweep = self.0.pins();
        let read = file.metadata().map_err(disk("look at", &path))?;
        let same = |there: &fs::Metadata| (there.dev(), there.ino()) == (read.dev(), read.ino());
        if fs::metadata(&path).is_ok_and(|there| same(&there)) {
            fs::remove_file(&path).map_err(disk("remove", &path))?;
        }
        Ok(false)
    }

    /// Bytes of the disk that may be taken by what can wait. Some are kept for what cannot: uploads,
    /// and what the server has to write down.
    ///
    /// # Errors
    /// The disk cannot be asked.
    pub fn room(&self) -> Result<u64, BlobError> {
        let root = &self.0.root;
        let disk =
            rustix::fs::statvfs(root).map_err(|error| disk("look at", root)(error.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        let kept = KEPT_BYTES.min(bytes(disk.f_blocks) / KEPT_PART);
        Ok(bytes(disk.f_bavail).saturating_sub(kept))
    }

    /// Stores many small contents; when it returns, all are on the disk.
    ///
    /// # Errors
    /// The disk is full or fails; some of the contents may then be stored.
    pub fn put_many<C: AsRef<[u8]>>(&self, contents: &[C]) -> Result<Vec<BlobRef>, BlobError> {
        write::put_many(&self.0, contents)
    }

    /// Finishes many blobs together: as few syncs as there can be.
    ///
    /// # Errors
    /// The disk is full or fails; some of them may then be stored.
    pub fn finish_many(&self, writers: &[Writer]) -> Result<(), BlobError> {
        write::finish_many(&self.0, writers)
    }

    /// How many bytes of an unfinished upload are here.
    #[must_use]
    pub fn partial(&self, digest: &Digest) -> u64 {
        let path = self.0.partial.join(digest.hex());
        fs::metadata(path).map_or(0, |meta| meta.len())
    }

    /// Starts or resumes an upload at `offset`; what lies behind `offset` is forgotten.
    ///
    /// Two uploads of one blob at a time do not disturb each other, but only the first of them
    /// can be resumed.
    ///
    /// # Errors
    /// [`BlobError::Offset`] where less is here, or the disk fails.
    pub fn upload(&self, digest: &Digest, offset: u64) -> Result<Upload, BlobError> {
        Upload::start(&self.0, digest, offset)
    }

    /// Starts a blob whose digest is not known yet.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn writer(&self) -> Result<Writer, BlobError> {
        Writer::create(&self.0)
    }
}
