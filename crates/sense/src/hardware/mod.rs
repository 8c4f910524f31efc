//! Power and heat. Their files are answered by firmware, which can take seconds or hang, so each
//! has a thread of its own.

pub(crate) mod heat;
pub(crate) mod power;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Most entries of a directory of devices that are looked at.
const DEVICES_MAX: usize = 256;

/// Entries of a directory of devices in the order of their names; none where it does not exist.
fn devices(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut paths: Vec<PathBuf> = entries
        .take(DEVICES_MAX)
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    Ok(paths)
}

/// A file of one word or number.
fn word(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

fn number(path: &Path) -> Option<i64> {
    word(path)?.parse().ok()
}
