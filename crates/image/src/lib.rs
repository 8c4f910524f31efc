//! Images: the root file systems of tasks, each one read-only file of the kind erofs.
//!
//! This crate turns directories, archives and container images into such a file ([`import()`],
//! [`Tree::write`]), reads one back ([`open`]) and unpacks it without the kernel's help
//! ([`Tree::unpack`]). A tree has exactly one file: everything about its form follows from the
//! tree. So [`open`] can believe a file only where it is, byte for byte, what [`Tree::write`]
//! makes of what it holds, and no kernel is ever given a file system that somebody else wrote.
//!
//! It must not know pools, nodes or engines, nor how a file is mounted. Names and contents come
//! from archives that anybody may have made: nothing of them reaches this PC's file system
//! before [`Tree::unpack`], and there only as names that cannot lead anywhere.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod content;
mod erofs;
mod import;
mod root;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;

pub use content::Content;
pub use erofs::open;
pub use import::{BYTES_MAX, Imported, import};
pub use tree::{Node, Tree, What};

use std::io;

/// Most names in one image, over all layers: some ten times a full desktop's.
pub const ENTRIES_MAX: usize = 2_000_000;

/// An image could not be made, read or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// An archive or directory holds what no image may.
    #[error("{path}: {problem}")]
    Entry {
        /// Where, as the source names it.
        path: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The source as a whole.
    #[error("{0}")]
    Source(String),
    /// A file is no image of ours.
    #[error("this is not an image that `gleaner image import` built: {0}; import it anew")]
    Foreign(String),
    /// The disk.
    #[error("failed to {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the PC said.
        source: io::Error,
    },
}

/// For `map_err`: names what was being done.
pub(crate) fn io_at(doing: impl Into<String>) -> impl FnOnce(io::Error) -> ImageError {
    let doing = doing.into();
    move |source| ImageError::Io { doing, source }
}

/// For `map_err`: names the entry.
pub(crate) fn entry(path: &[u8]) -> impl FnOnce(String) -> ImageError + use<> {
    let path = String::from_utf8_lossy(path).into_owned();
    move |problem| ImageError::Entry { path, problem }
}
