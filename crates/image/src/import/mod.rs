//! From a source of whatever kind to a tree: a directory, an archive of one, an OCI image layout
//! (directory or archive), or what `docker save` writes.
//!
//! Owners, rights of single users, set-user-id bits, extended attributes and devices are left
//! behind; what could not be meant is an error that names the entry.

mod archive;
mod bundle;
mod directory;
mod plain;

use crate::content::Part;
use crate::{ImageError, Tree, io_at, root};
use bundle::Files;
use std::fs::File;
use std::path::Path;

/// Most bytes of all files of an image, unless its user asks for more: what small archives of
/// nothing but zeros become is larger.
pub const BYTES_MAX: u64 = 32 << 30;

/// What a source became.
#[derive(Debug)]
pub struct Imported {
    /// What to write.
    pub tree: Tree,
    /// What the source was, in words.
    pub kind: &'static str,
    /// What was left out or should be known, in words.
    pub notes: Vec<String>,
}

/// What could not be taken over, counted.
#[derive(Debug, Default)]
struct LeftOut {
    devices: u64,
    pipes: u64,
}

impl LeftOut {
    fn notes(&self) -> Vec<String> {
        let told = |count: u64, what: &str| {
            (count > 0).then(|| format!("{count} {what} left out: tasks have their own"))
        };
        let all = [
            told(self.devices, "devices of /dev are"),
            told(self.pipes, "pipes and sockets are"),
        ];
        all.into_iter().flatten().collect()
    }
}

/// Why a device is no entry of an image.
const DEVICE: &str = "is a device, which no image may have; make the archive without it";

/// Reads a source. `bytes_max` bounds the files of the tree, and each archive that is unpacked
/// on the way.
///
/// # Errors
/// Where the source is none of the kinds above, is damaged, too large or hostile.
pub fn import(source: &Path, bytes_max: u64) -> Result<Imported, ImageError> {
    let mut tree = Tree::new(bytes_max);
    let mut left_out = LeftOut::default();
    let mut notes = Vec::new();
    let shown = source.display();
    let meta = std::fs::metadata(source).map_err(io_at(format!("find {shown}")))?;
    let kind = if meta.is_dir() {
        if source.join("oci-layout").is_file() && source.join("index.json").is_file() {
            let files = Files::Directory(source.to_owned());
            notes.extend(bundle::oci(&files, &mut tree, &mut left_out)?);
            "OCI layout"
        } else {
            directory::read(source, &mut tree, &mut left_out)?;
            "directory"
        }
    } else {
        let file = File::open(source).map_err(io_at(format!("open {shown}")))?;
        let part = Part::whole(file).map_err(io_at(format!("open {shown}")))?;
        let part = plain::plain(part, bytes_max)?;
        let files = Files::Archive(archive::index(&part)?);
        if let Some(layers) = bundle::docker_layers(&files)? {
            notes.extend(bundle::docker(&files, &layers, &mut tree, &mut left_out)?);
            "docker-archive"
        } else if files.has(b"oci-layout") && files.has(b"index.json") {
            notes.extend(bundle::oci(&files, &mut tree, &mut left_out)?);
            "OCI layout"
        } else {
            archive::apply(&part, archive::Kind::Whole, &mut tree, &mut left_out)?;
            "archive"
        }
    };
    if tree.len() == 1 {
        return Err(ImageError::Source(format!("there are no files in {shown}")));
    }
    root::complete(&mut tree)?;
    notes.extend(left_out.notes());
    Ok(Imported { tree, kind, notes })
}
