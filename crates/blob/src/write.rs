//! How bytes become blobs: written beside, hashed, synced, and only then named.

use crate::{BlobError, Folder, GROUP_SYNC_FILES, disk};
use gleaner_model::{BlobRef, Digest};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Blobs never change once they have their name.
const BLOB_MODE_READ_ONLY: bool = true;

/// Bytes that a resumed upload reads at a time to catch up with its hash.
const CATCH_UP_BYTES: usize = 1 << 20;

/// A file on its way to be a blob: hashed as it grows.
#[derive(Debug)]
struct Growing {
    folder: Arc<Folder>,
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    size: u64,
}

impl Growing {
    fn create(folder: &Arc<Folder>, path: PathBuf) -> Result<Self, BlobError> {
        let mut options = OpenOptions::new();
        let opened = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path);
        Ok(Self {
            folder: Arc::clone(folder),
            file: opened.map_err(disk("make", &path))?,
            path,
            hasher: blake3::Hasher::new(),
            size: 0,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.file
            .write_all(bytes)
            .map_err(disk("write", &self.path))?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn blob(&self) -> BlobRef {
        BlobRef {
            digest: Digest(*self.hasher.finalize().as_bytes()),
            size: self.size,
        }
    }

    /// Syncs the file and gives it its name.
    fn name(&self) -> Result<BlobRef, BlobError> {
        let blob = self.blob();
        self.file.sync_all().map_err(disk("sync", &self.path))?;
        let folder = name(&self.folder, &self.path, &blob.digest)?;
        sync_folder(&folder)?;
        Ok(blob)
    }
}

/// An upload under a digest that is known before.
#[derive(Debug)]
pub struct Upload {
    growing: Growing,
    digest: Digest,
    /// Whether this one holds the resumable part.
    resumable: bool,
}

impl Upload {
    pub(crate) fn start(
        folder: &Arc<Folder>,
        digest: &Digest,
        offset: u64,
    ) -> Result<Self, BlobError> {
        let resumable = folder.uploading().insert(*digest);
        let started = Self::open(folder, digest, offset, resumable);
        if started.is_err() && resumable {
            folder.uploading().remove(digest);
        }
        started
    }

    fn open(
        folder: &Arc<Folder>,
        digest: &Digest,
        offset: u64,
        resumable: bool,
    ) -> Result<Self, BlobError> {
        let growing = if !resumable {
            if offset > 0 {
                return Err(BlobError::Offset { have: 0 });
            }
            Growing::create(folder, folder.unnamed())?
        } else if offset == 0 {
            Growing::create(folder, folder.partial.join(digest.hex()))?
        } else {
            resume(folder, folder.partial.join(digest.hex()), offset)?
        };
        Ok(Self {
            growing,
            digest: *digest,
            resumable,
        })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// The disk is full or fails; what was written before can be resumed.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.growing.write(bytes)
    }

    /// How many bytes are here.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.growing.size
    }

    /// Checks the digest and names the blob; on the disk when it returns.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`], and the part is forgotten; or the disk fails.
    pub fn finish(self) -> Result<BlobRef, BlobError> {
        let found = self.growing.blob().digest;
        if found != self.digest {
            let path = &self.growing.path;
            fs::remove_file(path).map_err(disk("remove", path))?;
            return Err(BlobError::Mismatch {
                expected: self.digest,
                found,
            });
        }
        self.growing.name()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.resumable {
            self.growing.folder.uploading().remove(&self.digest);
        } else {
            // Gone already where the upload was finished.
            let _gone = fs::remove_file(&self.growing.path);
        }
    }
}

fn resume(folder: &Arc<Folder>, path: PathBuf, offset: u64) -> Result<Growing, BlobError> {
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BlobError::Offset { have: 0 });
        }
        Err(error) => return Err(disk("open", &path)(error)),
    };
    let have = file.metadata().map_err(disk("look at", &path))?.len();
    if offset > have {
        return Err(BlobError::Offset { have });
    }
    file.set_len(offset).map_err(disk("cut", &path))?;
    let mut hasher = blake3::Hasher::new();
    let reader = io::BufReader::with_capacity(CATCH_UP_BYTES, &file);
    hasher.update_reader(reader).map_err(disk("read", &path))?;
    file.seek(SeekFrom::Start(offset))
        .map_err(disk("read", &path))?;
    Ok(Growing {
        folder: Arc::clone(folder),
        path,
        file,
        hasher,
        size: offset,
    })
}

/// A blob that the server makes itself; forgotten if it is dropped before it is finished.
#[derive(Debug)]
pub struct Writer(Growing);

impl Writer {
    pub(crate) fn create(folder: &Arc<Folder>) -> Result<Self, BlobError> {
        Growing::create(folder, folder.unnamed()).map(Self)
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.0.write(bytes)
    }

    /// What the blob will be called if nothing more is added.
    #[must_use]
    pub fn blob(&self) -> BlobRef {
        self.0.blob()
    }

    /// Names the blob by its digest; on the disk when it returns.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn finish(self) -> Result<BlobRef, BlobError> {
        self.0.name()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Gone already where it was finished.
        let _gone = fs::remove_file(&self.0.path);
    }
}

pub(crate) fn put_many<C: AsRef<[u8]>>(
    folder: &Arc<Folder>,
    contents: &[C],
) -> Result<Vec<BlobRef>, BlobError> {
    let mut blobs = Vec::with_capacity(contents.len());
    let mut fresh: Vec<Writer> = Vec::new();
    let mut seen = BTreeSet::new();
    let known = crate::Blobs(Arc::clone(folder));
    for content in contents {
        let content = content.as_ref();
        let blob = BlobRef {
            digest: Digest(*blake3::hash(content).as_bytes()),
            size: content.len() as u64,
        };
        blobs.push(blob);
        if seen.insert(blob.digest) && known.renew(&blob.digest)?.is_none() {
            let mut writer = Writer::create(folder)?;
            writer.write(content)?;
            fresh.push(writer);
        }
    }
    finish_many(folder, &fresh)?;
    Ok(blobs)
}

/// Names many files with as few syncs as there can be.
pub(crate) fn finish_many(folder: &Folder, fresh: &[Writer]) -> Result<(), BlobError> {
    let group = fresh.len() >= GROUP_SYNC_FILES;
    if group {
        sync_all(&folder.root)?;
    }
    let mut folders = BTreeSet::new();
    for Writer(growing) in fresh {
        if !group {
            growing
                .file
                .sync_all()
                .map_err(disk("sync", &growing.path))?;
        }
        folders.insert(name(folder, &growing.path, &growing.blob().digest)?);
    }
    if group {
        sync_all(&folder.root)?;
    } else {
        folders.iter().try_for_each(|path| sync_folder(path))?;
    }
    Ok(())
}

/// Gives a synced file its name; returns the folder that must be synced for the name to last.
fn name(folder: &Folder, from: &Path, digest: &Digest) -> Result<PathBuf, BlobError> {
    let to = folder.path(digest);
    let parent = to.parent().unwrap_or(&folder.root).to_owned();
    match fs::create_dir(&parent) {
        Ok(()) => sync_folder(&folder.root)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(disk("make", &parent)(error)),
    }
    let mut permissions = fs::metadata(from)
        .map_err(disk("look at", from))?
        .permissions();
    permissions.set_readonly(BLOB_MODE_READ_ONLY);
    fs::set_permissions(from, permissions).map_err(disk("mark", from))?;
    fs::rename(from, &to).map_err(disk("name", &to))?;
    Ok(parent)
}

fn sync_folder(path: &Path) -> Result<(), BlobError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(disk("sync", path))
}

/// Syncs everything that was written to the file system of `root`.
#[cfg(target_os = "linux")]
fn sync_all(root: &Path) -> Result<(), BlobError> {
    let folder = File::open(root).map_err(disk("open", root))?;
    rustix::fs::syncfs(&folder).map_err(|error| disk("sync", root)(error.into()))
}

/// Without a call for one file system, all of them are synced one file at a time: slow, not wrong.
#[cfg(not(target_os = "linux"))]
fn sync_all(root: &Path) -> Result<(), BlobError> {
    for entry in fs::read_dir(root.join("partial")).map_err(disk("list", root))? {
        let path = entry.map_err(disk("list", root))?.path();
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(disk("sync", &path))?;
    }
    sync_folder(root)
}
