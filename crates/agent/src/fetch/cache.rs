//! Blobs on this PC, each a file named by its digest; the least recently used go first.
//!
//! A blob is whole before it has its name, so what is in the directory at start is taken as it
//! is; the engine checks digests before every start, and [`Cache::recheck`] throws out what
//! rotted. Nothing here is worth an fsync: a blob lost in a power cut is fetched again.

use crate::AgentError;
use gleaner_model::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The blobs of one agent.
#[derive(Debug)]
pub(crate) struct Cache {
    blobs: PathBuf,
    partial: PathBuf,
    /// Most bytes that blobs may take; pinned ones may go beyond.
    bytes_max: u64,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    kept: BTreeMap<Digest, Kept>,
    /// Unpinned blobs by when they were last used.
    idle: BTreeSet<(u64, Digest)>,
    bytes: u64,
    clock: u64,
}

#[derive(Debug)]
struct Kept {
    size: u64,
    used: u64,
    pins: u32,
}

impl Cache {
    /// Takes over what lies in `home` from before.
    pub(crate) fn open(home: &Path, bytes_max: u64) -> Result<Self, AgentError> {
        let (blobs, partial) = (home.join("blobs"), home.join("partial"));
        let mut found = Vec::new();
        for entry in fs::read_dir(&blobs).map_err(AgentError::io("read", &blobs))? {
            let entry = entry.map_err(AgentError::io("read", &blobs))?;
            let digest = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let meta = entry.metadata().map_err(AgentError::io("read", &blobs))?;
            match digest.filter(|_| meta.is_file()) {
                Some(digest) => {
                    let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    found.push((used, digest, meta.len()));
                }
                None => tracing::warn!(
                    target: "gleaner::fetch", path = %entry.path().display(),
                    "not a blob; left alone"
                ),
            }
        }
        found.sort_unstable();
        let cache = Self {
            blobs,
            partial,
            bytes_max,
            index: Mutex::new(Index::default()),
        };
        let mut index = cache.lock();
        for (_, digest, size) in found {
            index.add(digest, size);
        }
        cache.sweep(&mut index);
        drop(index);
        cache.forget_old_pieces();
        Ok(cache)
    }

    /// Where a blob lies once it is here.
    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Where a blob grows while it is fetched.
    pub(crate) fn partial(&self, digest: Digest) -> PathBuf {
        self.partial.join(digest.hex())
    }

    /// Keeps a blob from being swept until [`Cache::unpin`]; none where it is not here.
    pub(crate) fn pin(&self, digest: Digest) -> bool {
        self.lock().pin(digest)
    }

    /// Whether a blob is here; it may be gone in the next moment unless it is pinned.
    pub(crate) fn has(&self, digest: Digest) -> bool {
        self.lock().kept.contains_key(&digest)
    }

    /// One pin less.
    pub(crate) fn unpin(&self, digest: Digest) {
        let mut index = self.lock();
        index.unpin(digest);
        if index.bytes > self.bytes_max {
            self.sweep(&mut index);
        }
    }

    /// Gives a whole partial file its name. Its digest has been checked.
    pub(crate) fn admit(&self, digest: Digest, size: u64) -> std::io::Result<()> {
        fs::rename(self.partial(digest), self.path(digest))?;
        let mut index = self.lock();
        index.add(digest, size);
        // Pinned for a moment, or a full cache would throw out what it was asked for.
        index.pin(digest);
        self.sweep(&mut index);
        index.unpin(digest);
        Ok(())
    }

    /// Throws a blob out whose content is not what its name says.
    pub(crate) fn recheck(&self, digest: Digest) {
        let path = self.path(digest);
        let good = File::open(&path)
            .and_then(|file| {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(file)?;
                Ok(*hasher.finalize().as_bytes() == digest.0)
            })
            .unwrap_or(false);
        if !good {
            tracing::warn!(target: "gleaner::fetch", %digest, "a cached blob rotted; removed");
            self.lock().remove(digest);
            remove(&path);
        }
    }

    fn sweep(&self, index: &mut Index) {
        while index.bytes > self.bytes_max {
            let Some((_, digest)) = index.idle.first().copied() else {
                break;
            };
            index.remove(digest);
            remove(&self.path(digest));
        }
    }

    /// A piece that no fetch of this agent has begun is a day's work lost at most; it would lie
    /// there for ever otherwise.
    fn forget_old_pieces(&self) {
        const OLD_S: u64 = 24 * 3600;
        let Ok(entries) = fs::read_dir(&self.partial) else {
            return;
        };
        for entry in entries.flatten() {
            let age = entry.metadata().and_then(|meta| meta.modified());
            let age = age.ok().and_then(|time| time.elapsed().ok());
            if age.is_none_or(|age| age.as_secs() > OLD_S) {
                remove(&entry.path());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn add(&mut self, digest: Digest, size: u64) {
        if self.kept.contains_key(&digest) {
            return;
        }
        self.clock += 1;
        let used = self.clock;
        let kept = Kept {
            size,
            used,
            pins: 0,
        };
        self.kept.insert(digest, kept);
        self.idle.insert((used, digest));
        self.bytes += size;
    }

    fn pin(&mut self, digest: Digest) -> bool {
        let Some(kept) = self.kept.get_mut(&digest) else {
            return false;
        };
        self.idle.remove(&(kept.used, digest));
        kept.pins += 1;
        true
    }

    fn unpin(&mut self, digest: Digest) {
        self.clock += 1;
        if let Some(kept) = self.kept.get_mut(&digest) {
            kept.pins = kept.pins.saturating_sub(1);
            if kept.pins == 0 {
                kept.used = self.clock;
                self.idle.insert((kept.used, digest));
            }
        }
    }

    fn remove(&mut self, digest: Digest) {
        if let Some(kept) = self.kept.remove(&digest) {
            self.idle.remove(&(kept.used, digest));
            self.bytes -= kept.size;
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(target: "gleaner::fetch", path = %path.display(), %error, "cannot remove");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &Cache, content: &[u8]) -> Digest {
        let digest = Digest(*blake3::hash(content).as_bytes());
        fs::write(cache.partial(digest), content).unwrap();
        cache.admit(digest, content.len() as u64).unwrap();
        digest
    }

    fn home() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("blobs")).unwrap();
        fs::create_dir(dir.path().join("partial")).unwrap();
        dir
    }

    #[test]
    fn the_least_recently_used_goes_first_and_pinned_ones_stay() {
        let home = home();
        let cache = Cache::open(home.path(), 10).unwrap();
        let (a, b, c) = (
            put(&cache, b"aaaa"),
            put(&cache, b"bbbb"),
            put(&cache, b"cc"),
        );
        assert!(cache.pin(a));
        cache.unpin(a);
        let d = put(&cache, b"dddd");
        assert!(!cache.pin(b), "b was used longest ago");
        assert!([a, c, d].iter().all(|digest| cache.pin(*digest)));
        // All are in use: the bound gives way until they are let go.
        let e = put(&cache, b"eeee");
        assert!(cache.path(e).exists() && cache.path(a).exists());
        cache.unpin(a);
        assert!(!cache.path(e).exists(), "{:?}", fs::read_dir(home.path()));
        assert!(cache.path(a).exists());
    }

    #[test]
    fn blobs_outlive_the_agent_and_rotten_ones_are_thrown_out() {
        let home = home();
        let good = put(&Cache::open(home.path(), 100).unwrap(), b"good");
        let bad = put(&Cache::open(home.path(), 100).unwrap(), b"fine");
        let cache = Cache::open(home.path(), 100).unwrap();
        fs::write(cache.path(bad), b"rott").unwrap();
        cache.recheck(good);
        cache.recheck(bad);
        assert!(cache.pin(good));
        assert!(!cache.pin(bad) && !cache.path(bad).exists());
        // A smaller bound takes effect at once.
        cache.unpin(good);
        let cache = Cache::open(home.path(), 3).unwrap();
        assert!(!cache.pin(good));
    }
}
