//! Hashes local files, several at a time.

use gleaner_model::{BlobRef, Digest};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most files that are read at the same time; more only makes a disk seek.
const THREADS_MAX: usize = 8;
/// Below this many files one thread is faster than starting others.
const FILES_A_THREAD: usize = 32;

/// What is known of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) blob: BlobRef,
    pub(super) mode: u32,
}

/// By path: what was found, or why not.
pub(super) type Hashed = BTreeMap<PathBuf, Result<Found, String>>;

/// Hashes every file once.
pub(super) async fn all(paths: Vec<PathBuf>) -> Hashed {
    let paths: Vec<PathBuf> = paths
        .into_iter()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    if paths.is_empty() {
        return Hashed::new();
    }
    // Reading blocks; the caller's loop may have a progress line to draw.
    tokio::task::spawn_blocking(move || hash_in_threads(&paths))
        .await
        .unwrap_or_default()
}

fn hash_in_threads(paths: &[PathBuf]) -> Hashed {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (paths.len() / FILES_A_THREAD + 1)
        .min(cores)
        .min(THREADS_MAX);
    let next = AtomicUsize::new(0);
    let hashed = Mutex::new(Hashed::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Vec::new();
                while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                    own.push((path.clone(), hash(path).map_err(|e| e.to_string())));
                }
                if let Ok(mut all) = hashed.lock() {
                    all.extend(own);
                }
            });
        }
    });
    hashed.into_inner().unwrap_or_default()
}

fn hash(path: &Path) -> std::io::Result<Found> {
    let file = std::fs::File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok(Found {
        blob: BlobRef {
            digest: Digest(*hasher.finalize().as_bytes()),
            // What was hashed, not what the directory said before.
            size: hasher.count(),
        },
        mode,
    })
}
