//! The default back end: one SQLite file, written by one connection, read by a few others.
//!
//! WAL with `synchronous = FULL`: a commit returns after its sync. (`NORMAL` does not sync at
//! commit in WAL mode, so a power cut could take back what was acknowledged.)

mod purge;
mod read;
mod schema;
mod write;

use crate::{Loaded, ServerRow, Store, StoreError};
use gleaner_core::{AttemptRow, CheckpointRow, Row};
use gleaner_model::{Digest, JobId, OutputFile, TaskId};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Connections kept for readers. More may be open for a moment; those are closed after use.
const READERS_KEPT: usize = 4;

/// Pages in the log before it is written back into the file: 16 MiB, so that a burst of small
/// batches rewrites each page of the file once and not once a batch.
const CHECKPOINT_PAGES: u32 = 4000;

/// Prepared statements kept by a connection; there are about forty.
const STATEMENTS_KEPT: usize = 64;

/// How long a connection waits for another process (a backup, say) that holds the file.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// Permission bits of the file: jobs may carry what is not for everybody.
const FILE_MODE: u32 = 0o600;

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    /// Closed before the writer: the last connection writes the log back into the file and removes
    /// it, which one that only reads cannot do.
    readers: Mutex<Vec<Connection>>,
    writer: Mutex<write::Writer>,
}

impl SqliteStore {
    /// Opens the file, made for its owner alone where it does not exist, and brings it to the newest schema.
    ///
    /// # Errors
    /// The file cannot be opened or was written by a newer version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        make(path).map_err(|error| StoreError::Database(Box::new(error)))?;
        let mut db = Connection::open(path)?;
        prepare(&db)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        schema::migrate(&mut db)?;
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(write::Writer::new(db)?),
            readers: Mutex::new(Vec::new()),
        })
    }

    fn writer(&self) -> MutexGuard<'_, write::Writer> {
        // A panic inside a commit rolled the transaction back: the connection is still good.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `query` on a connection of its own: never waits for the writer.
    fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let pool = || self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let pooled = pool().pop();
        let db = match pooled {
            Some(db) => db,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let db = Connection::open_with_flags(&self.path, flags)?;
                prepare(&db)?;
                db
            }
        };
        let answer = query(&db);
        let mut pool = pool();
        if pool.len() < READERS_KEPT {
            pool.push(db);
        }
        answer
    }
}

/// Makes the file where there is none: SQLite would make it readable for whoever else has an account.
/// The files that it keeps beside take over the permissions of this one.
fn make(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    options.mode(FILE_MODE).open(path).map(drop)
}

fn prepare(db: &Connection) -> Result<(), StoreError> {
    db.busy_timeout(BUSY_WAIT)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(())
}

impl Store for SqliteStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.read(read::load)
    }

    fn commit(&self, rows: &[Row], server: &[ServerRow]) -> Result<(), StoreError> {
        self.writer().commit(rows, server)
    }

    fn probe(&self) -> Result<(), StoreError> {
        self.writer().probe()
    }

    fn job_body(&self, job: JobId) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|db| read::job_body(db, job))
    }

    fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRow>, StoreError> {
        self.read(|db| read::attempts(db, task))
    }

    fn last_attempts(&self, job: JobId, from: u32, to: u32) -> Result<Vec<AttemptRow>, StoreError> {
        self.read(|db| read::last_attempts(db, job, from, to))
    }

    fn results(&self, job: JobId, from: u32, limit: usize) -> Result<Vec<AttemptRow>, StoreError> {
        self.read(|db| read::results(db, job, from, limit))
    }

    fn checkpoint(&self, task: TaskId) -> Result<Option<CheckpointRow>, StoreError> {
        self.read(|db| read::checkpoint(db, task))
    }

    fn merged(&self, job: JobId) -> Result<Vec<OutputFile>, StoreError> {
        self.read(|db| read::merged(db, job))
    }

    fn inline(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(found) = self.read(|db| read::inline(db, digest))? {
            return Ok(Some(found));
        }
        // Each turn of the writer indexes a bounded part, so that commits get in between.
        while self.writer().index_contents()? {}
        self.read(|db| read::inline(db, digest))
    }

    fn purge(&self) -> Result<bool, StoreError> {
        self.writer().purge()
    }

    fn is_referenced(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.read(|db| read::is_referenced(db, digest))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Database(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an answer of the server rests on. No test can cut the power, so the setting is looked at.
    #[test]
    fn a_commit_returns_after_its_sync() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("store.sqlite")).unwrap();
        let mut writer = store.writer();
        let change = writer.change().unwrap();
        let setting = |name: &str| {
            change.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
        };
        assert_eq!(setting("journal_mode").unwrap(), "wal".to_owned().into());
        // 2 is FULL; with NORMAL, 1, a power cut may take back what was committed.
        assert_eq!(setting("synchronous").unwrap(), 2_i64.into());
    }
}
