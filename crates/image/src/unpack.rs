//! An image as a directory, for where no kernel mounts it.

use crate::erofs::BLOCK;
use crate::{ImageError, Tree, What, io_at};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 << 10;

impl Tree {
    /// Makes `dir`, which must not be there, with everything of the tree in it. Names cannot lead
    /// out of it, and a directory that was made here is never a link.
    ///
    /// # Errors
    /// Where the disk does not take it; what was made is left behind.
    pub fn unpack(&self, dir: &Path) -> Result<(), ImageError> {
        let at = |path: &Path| io_at(format!("unpack {}", path.display()));
        fs::create_dir(dir).map_err(at(dir))?;
        fs::set_permissions(dir, Permissions::from_mode(0o755)).map_err(at(dir))?;
        let mut written: BTreeMap<usize, PathBuf> = BTreeMap::new();
        for (name, id) in self.walk() {
            let path = dir.join(OsStr::from_bytes(&name));
            let Some(node) = self.node(id) else {
                continue;
            };
            match &node.what {
                What::Dir(_) => {
                    fs::create_dir(&path).map_err(at(&path))?;
                    fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(at(&path))?;
                }
                What::Link(target) => {
                    symlink(OsStr::from_bytes(target), &path).map_err(at(&path))?;
                }
                What::File { content, program } => {
                    if let Some(known) = written.get(&id) {
                        fs::hard_link(known, &path).map_err(at(&path))?;
                        continue;
                    }
                    let new = OpenOptions::new()
                        .write(true)
                        .create_new(true)
                        .mode(0o600)
                        .open(&path);
                    let mut out = BufWriter::with_capacity(BUFFER_BYTES, new.map_err(at(&path))?);
                    content.copy((0, content.len()), BLOCK, &mut out)?;
                    out.flush().map_err(at(&path))?;
                    finish(out.get_ref(), *program, node.mtime).map_err(at(&path))?;
                    written.insert(id, path);
                }
            }
        }
        Ok(())
    }
}

fn finish(file: &File, program: bool, mtime: u64) -> std::io::Result<()> {
    let mode = if program { 0o755 } else { 0o644 };
    file.set_permissions(Permissions::from_mode(mode))?;
    match UNIX_EPOCH.checked_add(Duration::from_secs(mtime)) {
        Some(time) => file.set_modified(time),
        None => Ok(()),
    }
}
