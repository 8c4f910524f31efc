//! The form of an image on disk: the part of Linux' EROFS (`fs/erofs/erofs_fs.h`, "Enhanced
//! Read-Only File System" in the kernel's documentation) that has no compression, no extended
//! attributes and no devices, with one way only to lay out a tree.
//!
//! ```text
//! 0      nothing            1024   superblock          1152   inodes, each with the rest of its
//! content that fills no block, then whole blocks of content in the order of the inodes
//! ```

mod layout;
mod read;
mod write;

pub use read::open;

/// Size of a block, which no page of a supported processor is smaller than.
pub(crate) const BLOCK: u64 = 4096;

/// Where the superblock lies, and its size.
const SUPER_AT: u64 = 1024;
const SUPER_BYTES: u64 = 128;

/// `EROFS_SUPER_MAGIC_V1`
const MAGIC: u32 = 0xE0F5_E1E2;

/// Size of an inode of the extended form, which alone has a time of its own.
const INODE: u64 = 64;

/// An inode's number is its place in units of this many bytes.
const SLOT: u64 = 32;

/// `i_format` of an extended inode whose content is whole blocks, and of one whose rest lies
/// behind the inode.
const FORMAT_PLAIN: u16 = 1;
const FORMAT_INLINE: u16 = 1 | 2 << 1;

/// A directory entry without its name.
const ENTRY: u64 = 12;

/// File types in `i_mode`.
const IS_DIR: u16 = 0o040_000;
const IS_FILE: u16 = 0o100_000;
const IS_LINK: u16 = 0o120_000;

/// File types in directories.
const TYPE_FILE: u8 = 1;
const TYPE_DIR: u8 = 2;
const TYPE_LINK: u8 = 7;
