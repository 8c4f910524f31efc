//! Contents by digest, wherever they lie: a blob of its own, or inside an attempt's row.

use crate::error::{ApiError, Setback};
use gleaner_blob::{BlobError, Blobs};
use gleaner_model::Digest;
use gleaner_store::{Store, StoreError};
use std::fs::File;

/// BLAKE3 of nothing: empty outputs are many and need no place.
const EMPTY: [u8; 32] = [
    0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9, 0x49,
    0x9b, 0xcb, 0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f, 0x32, 0x62,
];

/// A content.
pub(crate) enum Content {
    Bytes(Vec<u8>),
    File(File, u64),
}

impl Content {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, size) => *size,
        }
    }
}

/// A content could not be found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ContentError> for ApiError {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Blob(error) => error.into(),
            ContentError::Store(error) => error.into(),
        }
    }
}

impl From<ContentError> for Setback {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Blob(error) => error.into(),
            ContentError::Store(error) => error.into(),
        }
    }
}

/// Finds a content; blocks on the disk.
pub(crate) fn find(
    store: &dyn Store,
    blobs: &Blobs,
    digest: &Digest,
) -> Result<Content, ContentError> {
    if digest.0 == EMPTY {
        return Ok(Content::Bytes(Vec::new()));
    }
    match blobs.open_blob(digest) {
        Ok((file, size)) => Ok(Content::File(file, size)),
        Err(BlobError::Missing(_)) => match store.inline(digest)? {
            Some(bytes) => Ok(Content::Bytes(bytes)),
            None => Err(BlobError::Missing(*digest).into()),
        },
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_digest_of_nothing_is_known() {
        assert_eq!(blake3::hash(b"").as_bytes(), &super::EMPTY);
    }
}
