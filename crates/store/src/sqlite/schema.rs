//! The tables, and how an older file becomes a newer one.

use crate::StoreError;
use rusqlite::Connection;

/// Steps from each version to the next; the file's `user_version` counts those that are done.
/// A released step is never edited: a change is a new step at the end.
const STEPS: &[&str] = &[V1, V2, V3, V4, V5];

/// Newest version this build reads and writes.
pub(super) fn known() -> u32 {
    u32::try_from(STEPS.len()).unwrap_or(u32::MAX)
}

const V1: &str = "
-- One row: what must never run backwards, whatever else is deleted.
CREATE TABLE clock (
    id INTEGER PRIMARY KEY CHECK (id = 1), last_lease INTEGER NOT NULL, latest INTEGER NOT NULL
);
INSERT INTO clock VALUES (1, 0, 0);
CREATE TABLE job (
    id INTEGER PRIMARY KEY, submitted INTEGER NOT NULL, user INTEGER NOT NULL,
    name TEXT NOT NULL, priority INTEGER NOT NULL, count INTEGER NOT NULL,
    cpus INTEGER NOT NULL, memory INTEGER NOT NULL, disk INTEGER NOT NULL,
    engine INTEGER NOT NULL, arch TEXT, labels TEXT NOT NULL,
    attempts INTEGER NOT NULL, max_evictions INTEGER NOT NULL, merge INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 1, reason TEXT NOT NULL DEFAULT '',
    paused INTEGER NOT NULL DEFAULT 0, started INTEGER, ended INTEGER,
    failed BLOB NOT NULL DEFAULT x'', cancelled BLOB NOT NULL DEFAULT x'',
    merged INTEGER NOT NULL DEFAULT 0, base INTEGER NOT NULL DEFAULT 0
);
-- Apart from the job: a restart reads every job but no body.
CREATE TABLE job_body (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE job_cpu (id INTEGER PRIMARY KEY, seconds REAL NOT NULL);
CREATE TABLE lease (
    id INTEGER PRIMARY KEY, node INTEGER NOT NULL, job INTEGER NOT NULL, width INTEGER NOT NULL,
    tasks BLOB NOT NULL, numbers BLOB NOT NULL
);
-- `seq` grows with time, so that the index of small contents knows how far it has come.
CREATE TABLE attempt (
    seq INTEGER PRIMARY KEY, job INTEGER NOT NULL, idx INTEGER NOT NULL, number INTEGER NOT NULL,
    node INTEGER NOT NULL, state INTEGER NOT NULL, at INTEGER NOT NULL, flags INTEGER NOT NULL,
    record BLOB NOT NULL
);
CREATE UNIQUE INDEX attempt_key ON attempt (job, idx, number);
-- What a restart needs of ended and forgiven attempts: one row a batch and job.
CREATE TABLE chunk (
    job INTEGER NOT NULL, seq INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (job, seq)
) WITHOUT ROWID;
-- First eight bytes of a digest -> attempts that carry such a content; filled when first asked.
CREATE TABLE inline_index (
    prefix INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (prefix, seq)
) WITHOUT ROWID;
CREATE TABLE inline_mark (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL);
INSERT INTO inline_mark VALUES (1, 0);
CREATE TABLE user (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE user_use (id INTEGER PRIMARY KEY, used REAL NOT NULL, at INTEGER NOT NULL);
CREATE TABLE token (
    id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, kind TEXT NOT NULL, name TEXT NOT NULL,
    user INTEGER, created INTEGER NOT NULL, revoked INTEGER NOT NULL
);
CREATE TABLE node (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE, name TEXT NOT NULL);
CREATE TABLE node_wish (
    id INTEGER PRIMARY KEY, paused INTEGER NOT NULL, draining INTEGER NOT NULL
);
CREATE TABLE node_done (id INTEGER PRIMARY KEY, tasks INTEGER NOT NULL);
CREATE TABLE merged (
    job INTEGER NOT NULL, name TEXT NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL,
    mode INTEGER NOT NULL, PRIMARY KEY (job, name)
) WITHOUT ROWID;
CREATE TABLE ref (
    digest BLOB NOT NULL, job INTEGER NOT NULL, PRIMARY KEY (digest, job)
) WITHOUT ROWID;
";

/// What was saved of tasks.
const V2: &str = "
ALTER TABLE job ADD COLUMN saves INTEGER NOT NULL DEFAULT 0;
CREATE TABLE checkpoint (
    job INTEGER NOT NULL, idx INTEGER NOT NULL, number INTEGER NOT NULL, taken INTEGER NOT NULL,
    content BLOB NOT NULL, machine TEXT, count INTEGER NOT NULL, stalls INTEGER NOT NULL,
    record BLOB NOT NULL, PRIMARY KEY (job, idx)
) WITHOUT ROWID;
-- Apart from `ref`, since these go with their row.
CREATE TABLE checkpoint_ref (
    digest BLOB NOT NULL, job INTEGER NOT NULL, idx INTEGER NOT NULL,
    PRIMARY KEY (digest, job, idx)
) WITHOUT ROWID;
CREATE INDEX checkpoint_ref_task ON checkpoint_ref (job, idx);
";

/// Images, and jobs that run in one.
const V3: &str = "
-- Whether the tasks of a job bring a root of their own.
ALTER TABLE job ADD COLUMN image INTEGER NOT NULL DEFAULT 0;
CREATE TABLE image (
    name TEXT PRIMARY KEY, digest BLOB NOT NULL, size INTEGER NOT NULL, created INTEGER NOT NULL,
    user INTEGER NOT NULL, note TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX image_digest ON image (digest);
";

/// Jobs that are deleted, what was seen of jobs' attempts, and saves that made progress.
const V4: &str = "
-- The sums behind the choice of an engine.
ALTER TABLE job ADD COLUMN cost_ends REAL NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN cost_cpu REAL NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN cost_system REAL NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN cost_faults REAL NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN cost_busy REAL NOT NULL DEFAULT 0;
ALTER TABLE checkpoint ADD COLUMN progress INTEGER NOT NULL DEFAULT 0;
-- No id is used twice, whatever is deleted.
ALTER TABLE clock ADD COLUMN last_job INTEGER NOT NULL DEFAULT 0;
UPDATE clock SET last_job = (SELECT coalesce(max(id), 0) FROM job);
-- Jobs of which rows are left to remove, a few at a time.
CREATE TABLE gone (job INTEGER PRIMARY KEY);
CREATE INDEX ref_job ON ref (job);
";

/// What guests of jobs that leave their engine open were seen to ask of their nodes.
const V5: &str = "
ALTER TABLE job ADD COLUMN cost_guest REAL NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN cost_guest_system REAL NOT NULL DEFAULT 0;
";

/// Brings the file to the newest version, each step in a transaction of its own.
pub(super) fn migrate(db: &mut Connection) -> Result<(), StoreError> {
    let found: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known() {
        return Err(StoreError::Newer {
            found,
            known: known(),
        });
    }
    for (done, step) in (1_u32..).zip(STEPS).skip(found as usize) {
        let change = db.transaction()?;
        change.execute_batch(step)?;
        change.pragma_update(None, "user_version", done)?;
        change.commit()?;
    }
    Ok(())
}
