//! The root that a bundle's tasks bring: a file that was checked, as something that cages can be
//! built on.
//!
//! Where we are root and the kernel can, the file is mounted, read-only and without a place in
//! the host's tree: cages get the mount, nobody else ever sees it. Else it is unpacked below the
//! engine's directory, once for all bundles. The kernel only gets a file of which
//! [`gleaner_image::open`] found that it is the one file of its tree. It must not know attempts,
//! or why they bring a root.

mod mount;
mod unpacked;

use crate::bundle::Bundle;
use crate::cage::sys;
use gleaner_engine::ImageFile;
use gleaner_image::ImageError;
use gleaner_model::{Digest, Reason};
pub(crate) use mount::try_mount;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use unpacked::Unpacked;

/// What cages are built on.
#[derive(Debug)]
pub(crate) enum Root {
    /// A mount without a place.
    Mounted(OwnedFd),
    /// A directory, kept while this is.
    Directory(Unpacked),
    /// The file itself, for a guest's kernel.
    Disk(PathBuf),
}

/// Checks the image of a bundle and makes a root of it. May take as long as the file is large, so
/// it is done at idle priority, by a thread that has ended when this returns.
pub(crate) fn prepare(bundle: &Bundle) -> Result<Option<Root>, Reason> {
    let Some(image) = &bundle.image else {
        return Ok(None);
    };
    let guest = bundle.guest.is_some();
    let work = || {
        let _like_others = sys::become_idle();
        root_of(image, &bundle.images, guest).map(Some)
    };
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|_| {
        Err(Reason::Engine {
            detail: "the image could not be prepared: a fault of ours, see shim.log".to_owned(),
        })
    })
}

fn integrity(image: &ImageFile, found: &str) -> Reason {
    Reason::Integrity {
        detail: format!(
            "the image should be {} but its file on this PC {found}",
            image.digest
        ),
    }
}

fn root_of(image: &ImageFile, store: &std::path::Path, guest: bool) -> Result<Root, Reason> {
    let unreadable = |error: io::Error| integrity(image, &format!("cannot be read: {error}"));
    let file = File::open(&image.source).map_err(unreadable)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&file).map_err(unreadable)?;
    let found = Digest(*hasher.finalize().as_bytes());
    if found != image.digest {
        return Err(integrity(
            image,
            &format!("is {found}: it was altered or cut short"),
        ));
    }
    if guest {
        // The guest's kernel runs as somebody else; what a task may read is no secret from it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.set_permissions(open).map_err(unreadable)?;
        return Ok(Root::Disk(image.source.clone()));
    }
    let failed = |error: &ImageError| Reason::Engine {
        detail: format!("image {}: {error}", image.digest),
    };
    let copy = file.try_clone().map_err(unreadable)?;
    let tree = gleaner_image::open(copy).map_err(|error| failed(&error))?;
    if rustix::process::geteuid().is_root() {
        match try_mount(&file) {
            Ok(mount) => return Ok(Root::Mounted(mount)),
            Err(error) => crate::log::log(&format!("the image is unpacked, not mounted: {error}")),
        }
    }
    let unpacked = Unpacked::of(&tree, &image.digest, store);
    unpacked
        .map(Root::Directory)
        .map_err(|error| failed(&error))
}
