//! The agent's own directory: its lock, its identity, and where its parts keep their files.
//!
//! ```text
//! DATA/lock        held while an agent works here
//! DATA/identity    16 random bytes as hex, made once: who this node is to the server
//! DATA/blobs/      cached blobs, each named by its digest; DATA/partial/ those on their way
//! DATA/process/    the process engine: shims, scratch directories, spooled endings
//! ```

use crate::AgentError;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// An agent's directory, locked as long as this lives.
#[derive(Debug)]
pub(crate) struct Home {
    root: PathBuf,
    identity: String,
    /// Closing it lets the next agent in.
    _lock: File,
}

impl Home {
    /// Makes what is missing, takes the lock and reads or makes the identity.
    pub(crate) fn open(root: &Path) -> Result<Self, AgentError> {
        private_directory(root)?;
        let root = root.canonicalize().map_err(AgentError::io("find", root))?;
        let path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(AgentError::io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AgentError::InUse(root)),
            Err(TryLockError::Error(source)) => return Err(AgentError::io("lock", &path)(source)),
        }
        for name in ["blobs", "partial", "process"] {
            private_directory(&root.join(name))?;
        }
        Ok(Self {
            identity: identity(&root)?,
            root,
            _lock: lock,
        })
    }

    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    pub(crate) fn path(&self) -> &Path {
        &self.root
    }
}

/// Nobody but the agent's user may look into it: blobs are other people's data.
fn private_directory(path: &Path) -> Result<(), AgentError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(AgentError::io("make the directory", path))
}

/// An agent that dies between making and writing leaves an empty file; it is made again then.
fn identity(root: &Path) -> Result<String, AgentError> {
    let path = root.join("identity");
    if let Ok(text) = fs::read_to_string(&path) {
        let text = text.trim();
        if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(text.to_owned());
        }
    }
    let text: String = random::<16>()?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let fresh = root.join("identity.new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(AgentError::io("write", &fresh))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&fresh, &path))
        .map_err(AgentError::io("write", &path))?;
    Ok(text)
}

/// Bytes nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], AgentError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; N];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(AgentError::io("read", path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_never_share_a_directory_and_the_identity_stays() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        assert_eq!(home.identity().len(), 32);
        let second = Home::open(dir.path()).unwrap_err();
        assert!(matches!(second, AgentError::InUse(_)), "{second}");
        let identity = home.identity().to_owned();
        drop(home);
        assert_eq!(Home::open(dir.path()).unwrap().identity(), identity);
        // What a crash in the middle of its making leaves is replaced.
        fs::write(dir.path().join("identity"), "").unwrap();
        assert_eq!(Home::open(dir.path()).unwrap().identity().len(), 32);
    }
}
