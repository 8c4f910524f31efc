//! Hashes local files, several at a time.

use crate::Progress;
use gleaner_model::{BlobRef, Digest};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
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

/// A file as it is read, counted for whoever watches.
struct Counted<'p> {
    file: std::fs::File,
    progress: &'p Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.progress.moved(read as u64, 0);
        Ok(read)
    }
}

/// Hashes every file once.
pub(super) async fn all(paths: Vec<PathBuf>, progress: &Progress) -> Hashed {
    let paths: Vec<PathBuf> = paths
        .into_iter()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    if paths.is_empty() {
        return Hashed::new();
    }
    // Reading blocks; the caller's loop may have a progress line to draw.
    let progress = progress.clone();
    tokio::task::spawn_blocking(move || hash_in_threads(&paths, &progress))
        .await
        .unwrap_or_default()
}

fn hash_in_threads(paths: &[PathBuf], progress: &Progress) -> Hashed {
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |about| about.len());
    progress.expect_bytes(paths.iter().map(size).sum());
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
                    own.push((
                        path.clone(),
                        hash(path, progress).map_err(|e| e.to_string()),
                    ));
                }
                if let Ok(mut all) = hashed.lock() {
                    all.extend(own);
                }
            });
        }
    });
    hashed.into_inner().unwrap_or_default()
}

fn hash(path: &Path, progress: &Progress) -> std::io::Result<Found> {
    let file = std::fs::File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(Counted { file, progress })?;
    progress.moved(0, 1);
    Ok(Found {
        blob: BlobRef {
            digest: Digest(*hasher.finalize().as_bytes()),
            // What was hashed, not what the directory said before.
            size: hasher.count(),
        },
        mode,
    })
}
