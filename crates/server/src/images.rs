//! Which names stand for which images. The rows are the store's; here they are for whoever splits
//! a job or lists them.

use gleaner_model::{BlobRef, Digest};
use gleaner_store::ImageRow;
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The images of the pool by name.
#[derive(Debug)]
pub(crate) struct Images(RwLock<BTreeMap<String, ImageRow>>);

impl Images {
    pub(crate) fn new(rows: &[ImageRow]) -> Self {
        let rows = rows.iter().map(|row| (row.name.clone(), row.clone()));
        Self(RwLock::new(rows.collect()))
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, ImageRow>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, ImageRow>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a row that is durable.
    pub(crate) fn learn(&self, row: ImageRow) {
        self.write().insert(row.name.clone(), row);
    }

    /// Forgets a name whose row is gone.
    pub(crate) fn forget(&self, name: &str) {
        self.write().remove(name);
    }

    pub(crate) fn get(&self, name: &str) -> Option<ImageRow> {
        self.read().get(name).cloned()
    }

    /// All of them, by name.
    pub(crate) fn rows(&self) -> Vec<ImageRow> {
        self.read().values().cloned().collect()
    }

    /// The name that is nearest to one that nobody has, however far.
    pub(crate) fn nearest(&self, name: &str) -> Option<String> {
        let rows = self.read();
        let known = rows.keys();
        let nearest = known.min_by_key(|known| strsim::damerau_levenshtein(name, known));
        nearest.cloned()
    }

    /// The image that a job names: by its name, or by the digest of one that has a name. A blob
    /// that is no image of ours has none.
    pub(crate) fn find(&self, text: &str) -> Option<BlobRef> {
        let rows = self.read();
        if let Some(row) = rows.get(text) {
            return Some(row.blob);
        }
        let digest: Digest = text.strip_prefix("blake3:")?.parse().ok()?;
        let mut all = rows.values().map(|row| row.blob);
        all.find(|blob| blob.digest == digest)
    }
}
