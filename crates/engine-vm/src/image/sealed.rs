//! Whether an image is still what it was when its files were hashed, told by how they look from
//! outside. Hashing them for each task would cost more than the task's boot.

use super::{Image, ImageError, Manifest};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Number, length, and times of the last change of content and of the rest, of each file.
type Looks = BTreeMap<OsString, [i64; 6]>;

/// What the files looked like when they were hashed last.
#[derive(Debug, Default)]
pub(crate) struct Sealed(Mutex<Option<Looks>>);

impl Sealed {
    /// The manifest of the image in `dir`, whose files are hashed again where one looks otherwise
    /// than it did.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub(crate) fn whole(&self, dir: &Path) -> Result<Manifest, ImageError> {
        // Before they are read: what changes meanwhile is seen the next time.
        let looks = looks(dir);
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.is_some() && *known() == looks {
            return Manifest::read(dir);
        }
        let manifest = Image::open(dir)?.manifest;
        *known() = looks;
        Ok(manifest)
    }
}

/// None where they cannot be looked at.
fn looks(dir: &Path) -> Option<Looks> {
    let look = |file: fs::DirEntry| {
        let data = file.metadata().ok()?;
        let looks = [
            i64::try_from(data.ino()).ok()?,
            i64::try_from(data.len()).ok()?,
            data.mtime(),
            data.mtime_nsec(),
            data.ctime(),
            data.ctime_nsec(),
        ];
        Some((file.file_name(), looks))
    };
    fs::read_dir(dir)
        .ok()?
        .map(|file| look(file.ok()?))
        .collect()
}
