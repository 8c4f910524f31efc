//! Removes what nobody needs.

use crate::{BlobError, Blobs, disk};
use gleaner_model::Digest;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs and parts that are still here.
    pub kept: u64,
    /// Blobs and parts that were removed.
    pub removed: u64,
    /// Bytes that these had.
    pub bytes: u64,
}

impl Blobs {
    /// Removes every blob and part that is older than `grace`, not pinned, and for which `needed`
    /// says no.
    ///
    /// # Errors
    /// The disk fails, or `needed` does.
    pub fn sweep<E: From<BlobError>>(
        &self,
        grace: Duration,
        mut needed: impl FnMut(&Digest) -> Result<bool, E>,
    ) -> Result<Swept, E> {
        let mut swept = Swept::default();
        let root = &self.0.root;
        for folder in fs::read_dir(root).map_err(disk("list", root))? {
            let folder = folder.map_err(disk("list", root))?.path();
            if !folder.is_dir() {
                continue;
            }
            let partial = folder == self.0.partial;
            for entry in fs::read_dir(&folder).map_err(disk("list", &folder))? {
                let path = entry.map_err(disk("list", &folder))?.path();
                let digest = path
                    .file_name()
                    .and_then(|name| name.to_str()?.parse().ok());
                // Whatever else lies here is not ours to remove.
                let Some(digest) = digest else { continue };
                let keep = match partial {
                    true => self.0.uploading().contains(&digest),
                    false => needed(&digest)?,
                };
                match keep {
                    true => swept.kept += 1,
                    false => self.remove_old(&path, &digest, grace, &mut swept)?,
                }
            }
        }
        Ok(swept)
    }

    fn remove_old(
        &self,
        path: &Path,
        digest: &Digest,
        grace: Duration,
        swept: &mut Swept,
    ) -> Result<(), BlobError> {
        // Held over look and removal: nobody pins or renews the blob in between.
        let pins = self.0.pins();
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(disk("look at", path)(error)),
        };
        let written = meta.modified().map_err(disk("look at", path))?;
        // A clock that was set back makes files of the future: they are young.
        let age = SystemTime::now()
            .duration_since(written)
            .unwrap_or_default();
        if pins.contains_key(digest) || age < grace {
            swept.kept += 1;
            return Ok(());
        }
        fs::remove_file(path).map_err(disk("remove", path))?;
        swept.removed += 1;
        swept.bytes += meta.len();
        Ok(())
    }
}
