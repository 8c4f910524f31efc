//! A directory of this PC.

use super::{DEVICE, LeftOut};
use crate::content::From;
use crate::tree::{Node, Tree, What};
use crate::{Content, ImageError, entry, io_at, root};
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// Puts all below `top` into the tree. Names are taken in the order of their bytes, so that the
/// same directory is the same tree.
pub(super) fn read(top: &Path, tree: &mut Tree, left_out: &mut LeftOut) -> Result<(), ImageError> {
    // The first name of each file that has several, by device and number.
    let mut shared: BTreeMap<(u64, u64), Vec<u8>> = BTreeMap::new();
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let here = top.join(std::ffi::OsStr::from_bytes(&path));
        let mut names = Vec::new();
        for found in fs::read_dir(&here).map_err(io_at(format!("read {}", here.display())))? {
            let found = found.map_err(io_at(format!("read {}", here.display())))?;
            names.push(found.file_name().into_vec());
        }
        names.sort_unstable();
        for name in names {
            if path.is_empty() && root::is_filled(&name) {
                continue;
            }
            let mut below = path.clone();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend(&name);
            let file = here.join(std::ffi::OsStr::from_bytes(&name));
            let meta = fs::symlink_metadata(&file)
                .map_err(io_at(format!("look at {}", file.display())))?;
            if meta.is_dir() {
                tree.put_dir(&below).map_err(entry(&below))?;
                todo.push(below);
                continue;
            }
            let key = (meta.dev(), meta.ino());
            if meta.is_file()
                && meta.nlink() > 1
                && let Some(first) = shared.get(&key)
            {
                tree.put_hard_link(&below, first).map_err(entry(&below))?;
                continue;
            }
            let Some(what) = what(&file, &meta, &below, left_out)? else {
                continue;
            };
            let mtime = u64::try_from(meta.mtime()).unwrap_or(0);
            tree.put(&below, Node { mtime, what })
                .map_err(entry(&below))?;
            if meta.is_file() && meta.nlink() > 1 {
                shared.insert(key, below);
            }
        }
    }
    Ok(())
}

fn what(
    file: &Path,
    meta: &Metadata,
    below: &[u8],
    left_out: &mut LeftOut,
) -> Result<Option<What>, ImageError> {
    let kind = meta.file_type();
    if kind.is_symlink() {
        let target = fs::read_link(file).map_err(io_at(format!("read {}", file.display())))?;
        Ok(Some(What::Link(target.into_os_string().into_vec())))
    } else if kind.is_file() {
        // Sooner than in the middle of the image.
        fs::File::open(file).map_err(io_at(format!("read {}", file.display())))?;
        Ok(Some(What::File {
            content: Content::new(meta.len(), From::Path(file.to_owned())),
            program: meta.mode() & 0o111 != 0,
        }))
    } else if kind.is_char_device() || kind.is_block_device() {
        Err(entry(below)(DEVICE.to_owned()))
    } else {
        left_out.pipes += 1;
        Ok(None)
    }
}
