//! Compiled code of modules that ran here before, in a directory that the agent alone writes.
//!
//! In: what a cage made of a module, with the mark that shows that it was made before the
//! module's own code could run (see [`crate::call`]). Out: a link to it for the next attempt. It
//! must not know what is in the code, nor ever run a compiler: modules are hostile to compilers too.
//!
//! An entry's name is a digest over the module's digest, the settings it was compiled with, the
//! runner's program and what the processor can do, so nothing is found that was made otherwise.
//! An entry's own digest stands in the index, not in its file, and is compared before each use.
//!
//! ```text
//! code/KEY         one entry
//! code/index.json  their digests and sizes, in the order of their last use
//! ```

use gleaner_engine::{EngineError, InputFile};
use gleaner_model::Digest;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All entries together, in bytes. A module of 100 KiB makes about 700 KiB of code.
const CACHE_BYTES_MAX: u64 = 256 << 20;

/// Largest entry, in bytes: the interpreter of a language makes some tens of millions.
const ENTRY_BYTES_MAX: u64 = 128 << 20;

const INDEX: &str = "index.json";

/// What an entry is; another number where entries of before mean something else.
const FORMAT: &str = "gleaner wasm code 1";

/// What a key or a seal is made of, in bytes.
pub(crate) const SECRET_BYTES: usize = 32;

/// The name of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(String);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    key: String,
    digest: Digest,
    bytes: u64,
}

/// The entries, the one used last at the end, and what they were made for.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Index {
    here: String,
    entries: Vec<Entry>,
}

/// The directory.
#[derive(Debug)]
pub(crate) struct CodeCache {
    dir: PathBuf,
    /// What code is made by and for: other entries are of no use.
    here: String,
    bytes_max: u64,
    index: Mutex<Index>,
}

impl CodeCache {
    /// The entries of this directory that may be of use to this runner on this processor.
    pub(crate) fn open(dir: &Path, runner: &Path) -> io::Result<Self> {
        Self::of(dir, here(runner)?, CACHE_BYTES_MAX)
    }

    fn of(dir: &Path, here: String, bytes_max: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let text = fs::read(dir.join(INDEX)).unwrap_or_default();
        let mut index: Index = serde_json::from_slice(&text).unwrap_or_default();
        if index.here != here {
            index.entries.clear();
        }
        index.here.clone_from(&here);
        for file in fs::read_dir(dir)?.flatten() {
            let name = file.file_name();
            let known = |entry: &Entry| name.to_str() == Some(entry.key.as_str());
            if !index.entries.iter().any(known) {
                fs::remove_file(file.path())?;
            }
        }
        let cache = Self {
            dir: dir.to_owned(),
            here,
            bytes_max,
            index: Mutex::new(index),
        };
        cache.write(&cache.lock())?;
        Ok(cache)
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of a module.
    pub(crate) fn key(&self, module: &Digest, deterministic: bool) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key(FORMAT);
        hasher.update(&module.0);
        hasher.update(&[u8::from(deterministic)]);
        hasher.update(self.here.as_bytes());
        Key(hasher.finalize().to_hex().to_string())
    }

    /// Links an entry to `place`, where it stays whatever becomes of it here. None where there is
    /// none or where it is not what was kept, which is then forgotten.
    pub(crate) fn link(&self, key: &Key, place: &Path) -> Option<Digest> {
        let mut index = self.lock();
        let at = index.entries.iter().position(|entry| entry.key == key.0)?;
        let entry = index.entries.remove(at);
        let file = self.dir.join(&key.0);
        let _none_left = fs::remove_file(place);
        let same = fs::hard_link(&file, place).is_ok()
            && digest_of(place).is_ok_and(|found| found == entry.digest);
        if !same {
            tracing::warn!(entry = key.0, "compiled code was altered; it is made anew");
            for gone in [file.as_path(), place] {
                let _gone_already = fs::remove_file(gone);
            }
            let _told_again_later = self.write(&index);
            return None;
        }
        let digest = entry.digest;
        index.entries.push(entry);
        Some(digest)
    }

    /// Keeps what a cage made, if its mark is that of the seal.
    ///
    /// # Errors
    /// Where it is too large, not marked so, or cannot be written.
    pub(crate) fn keep(
        &self,
        key: &Key,
        seal: &[u8; SECRET_BYTES],
        [code, mark]: [File; 2],
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        code.take(ENTRY_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        let mut told = Vec::new();
        let length = u64::try_from(SECRET_BYTES).unwrap_or(u64::MAX);
        mark.take(length + 1).read_to_end(&mut told)?;
        let told: [u8; SECRET_BYTES] = told.try_into().map_err(|_| wrong())?;
        // Hashes of this library compare in constant time.
        if bytes.len() as u64 > ENTRY_BYTES_MAX || mark_of(seal, &bytes) != told {
            return Err(wrong());
        }
        self.put(key, &bytes)
    }

    fn put(&self, key: &Key, bytes: &[u8]) -> io::Result<()> {
        let mut index = self.lock();
        let entry = Entry {
            key: key.0.clone(),
            digest: Digest(*blake3::hash(bytes).as_bytes()),
            bytes: bytes.len() as u64,
        };
        let part = self.dir.join("part");
        let _none_left = fs::remove_file(&part);
        private(&part)?.write_all(bytes)?;
        fs::rename(&part, self.dir.join(&key.0))?;
        index.entries.retain(|other| other.key != key.0);
        index.entries.push(entry);
        while index.entries.iter().map(|entry| entry.bytes).sum::<u64>() > self.bytes_max {
            let oldest = index.entries.remove(0);
            fs::remove_file(self.dir.join(&oldest.key))?;
        }
        self.write(&index)
    }

    fn write(&self, index: &Index) -> io::Result<()> {
        let part = self.dir.join("index.part");
        let _none_left = fs::remove_file(&part);
        private(&part)?.write_all(&serde_json::to_vec(index)?)?;
        fs::rename(part, self.dir.join(INDEX))
    }
}

fn wrong() -> io::Error {
    io::Error::other("it is not what the cage's compiler made")
}

/// What shows that code was made by who had the seal.
pub(crate) fn mark_of(seal: &[u8; SECRET_BYTES], code: &[u8]) -> blake3::Hash {
    blake3::keyed_hash(seal, code)
}

/// Writes bytes that nobody can guess: the seal of an attempt.
pub(crate) fn seal(place: &Path) -> Result<InputFile, EngineError> {
    let make = || -> io::Result<[u8; SECRET_BYTES]> {
        let mut seal = [0; SECRET_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut seal)?;
        let _none_left = fs::remove_file(place);
        private(place)?.write_all(&seal)?;
        Ok(seal)
    };
    let seal = make().map_err(|error| EngineError::io("make a seal for compiled code", error))?;
    Ok(InputFile {
        name: crate::record::SEAL_FILE.to_owned(),
        source: place.to_owned(),
        digest: Digest(*blake3::hash(&seal).as_bytes()),
        mode: 0o400,
    })
}

/// The seal that was written.
pub(crate) fn sealed(place: &Path) -> Option<[u8; SECRET_BYTES]> {
    fs::read(place).ok()?.try_into().ok()
}

/// A new file for nobody else.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}

/// The program that compiles, by its file (with it the compiler's version and settings), and what
/// the processor can do, by the kernel's list. The runner's own check of both remains.
fn here(runner: &Path) -> io::Result<String> {
    let file = fs::metadata(runner)?;
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let can = ["flags", "Features"];
    let line = processor
        .lines()
        .find(|line| can.iter().any(|word| line.starts_with(word)));
    let text = format!(
        "{} {} {}.{} {} {} {}",
        file.dev(),
        file.ino(),
        file.mtime(),
        file.mtime_nsec(),
        file.len(),
        std::env::consts::ARCH,
        line.unwrap_or_default()
    );
    Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(number: u8) -> Digest {
        Digest([number; 32])
    }

    fn marked(dir: &Path, seal: &[u8; SECRET_BYTES], code: &[u8]) -> [File; 2] {
        let (at, mark) = (dir.join("c"), dir.join("m"));
        fs::write(&at, code).unwrap();
        fs::write(&mark, mark_of(seal, code).as_bytes()).unwrap();
        [File::open(at).unwrap(), File::open(mark).unwrap()]
    }

    #[test]
    fn an_entry_is_found_by_its_module_settings_and_makers_alone() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("place");
        let cache = CodeCache::of(&dir.path().join("code"), "a".into(), 1000).unwrap();
        let key = cache.key(&module(1), false);
        assert_eq!(cache.link(&key, &place), None);
        cache
            .keep(&key, &[7; 32], marked(dir.path(), &[7; 32], b"code"))
            .unwrap();
        let digest = cache.link(&key, &place).unwrap();
        assert_eq!(digest.0, *blake3::hash(b"code").as_bytes());
        assert_eq!(fs::read(&place).unwrap(), b"code");
        for other in [cache.key(&module(1), true), cache.key(&module(2), false)] {
            assert_eq!(cache.link(&other, &place), None);
        }
        // The next agent finds it, one of another version or on another processor does not.
        drop(cache);
        let cache = CodeCache::of(&dir.path().join("code"), "a".into(), 1000).unwrap();
        assert_eq!(cache.link(&key, &place), Some(digest));
        let cache = CodeCache::of(&dir.path().join("code"), "b".into(), 1000).unwrap();
        assert_ne!(cache.key(&module(1), false), key);
        assert_eq!(cache.link(&key, &place), None);
        assert!(!dir.path().join("code").join(&key.0).exists());
    }

    #[test]
    fn what_the_seal_did_not_mark_and_what_was_altered_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("place");
        let cache = CodeCache::of(&dir.path().join("code"), "a".into(), 1000).unwrap();
        let key = cache.key(&module(1), false);
        let other_seal = marked(dir.path(), &[8; 32], b"code");
        assert!(cache.keep(&key, &[7; 32], other_seal).is_err());
        let files = marked(dir.path(), &[7; 32], b"code");
        fs::write(dir.path().join("c"), b"evil").unwrap();
        assert!(cache.keep(&key, &[7; 32], files).is_err());
        let files = marked(dir.path(), &[7; 32], b"code");
        fs::write(dir.path().join("m"), b"").unwrap();
        assert!(cache.keep(&key, &[7; 32], files).is_err());
        assert_eq!(cache.link(&key, &place), None);

        let good = marked(dir.path(), &[7; 32], b"code");
        cache.keep(&key, &[7; 32], good).unwrap();
        fs::write(dir.path().join("code").join(&key.0), b"evil").unwrap();
        assert_eq!(cache.link(&key, &place), None);
        assert!(!place.exists());
        let good = marked(dir.path(), &[7; 32], b"code");
        cache.keep(&key, &[7; 32], good).unwrap();
        assert!(cache.link(&key, &place).is_some(), "it is kept anew");
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("place");
        let cache = CodeCache::of(&dir.path().join("code"), "a".into(), 25).unwrap();
        let keys: Vec<Key> = (1..=3).map(|at| cache.key(&module(at), false)).collect();
        cache.put(&keys[0], &[1; 10]).unwrap();
        cache.put(&keys[1], &[2; 10]).unwrap();
        assert!(cache.link(&keys[0], &place).is_some());
        cache.put(&keys[2], &[3; 10]).unwrap();
        assert!(cache.link(&keys[1], &place).is_none());
        assert!(cache.link(&keys[0], &place).is_some());
        assert!(cache.link(&keys[2], &place).is_some());
        let files = fs::read_dir(dir.path().join("code")).unwrap().count();
        assert_eq!(files, 3, "two entries and the index");
    }
}
