//! What deleted jobs left: attempts, their contents in the index, chunks, references to blobs.
//!
//! A job's own rows go in the commit that deletes it, and its number stays in `gone` until the
//! rest has followed, a few rows a turn: a job of a million tasks must not hold up the pool.

use super::write::{Writer, prefix};
use crate::{Envelope, StoreError};
use gleaner_model::Digest;
use rusqlite::{Connection, OptionalExtension as _, params};

/// Rows removed in one turn of the writer: some ten milliseconds.
const PURGE_TURN: u32 = 1000;

impl Writer {
    /// See [`crate::Store::purge`].
    pub(super) fn purge(&mut self) -> Result<bool, StoreError> {
        let change = self.change()?;
        let next = change
            .prepare_cached("SELECT job FROM gone ORDER BY job LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()?;
        let Some(job) = next else {
            return Ok(false);
        };
        if !attempts(&change, job)? && !others(&change, job)? {
            change.execute("DELETE FROM gone WHERE job = ?1", [job])?;
        }
        change.commit()?;
        Ok(true)
    }
}

/// Removes a turn's worth of attempts; false where none was left.
fn attempts(db: &Connection, job: i64) -> Result<bool, StoreError> {
    let mut found: Vec<(i64, Vec<i64>)> = Vec::new();
    {
        let mut select =
            db.prepare_cached("SELECT seq, record FROM attempt WHERE job = ?1 LIMIT ?2")?;
        let mut rows = select.query(params![job, PURGE_TURN])?;
        while let Some(row) = rows.next()? {
            let record = row.get_ref(1)?.as_blob().unwrap_or_default();
            let contents = Envelope::decode(record).map(|read| read.inline);
            let keys = contents.unwrap_or_default().into_iter().map(|content| {
                let digest = Digest(*blake3::hash(content).as_bytes());
                prefix(&digest)
            });
            found.push((row.get(0)?, keys.collect()));
        }
    }
    {
        let mut index =
            db.prepare_cached("DELETE FROM inline_index WHERE prefix = ?1 AND seq = ?2")?;
        let mut attempt = db.prepare_cached("DELETE FROM attempt WHERE seq = ?1")?;
        for (seq, keys) in &found {
            for key in keys {
                index.execute([key, seq])?;
            }
            attempt.execute([seq])?;
        }
    }
    // Numbers above the last attempt are given again, and must not count as indexed.
    db.execute(
        "UPDATE inline_mark SET seq = min(seq, (SELECT coalesce(max(seq), 0) FROM attempt))",
        [],
    )?;
    Ok(!found.is_empty())
}

/// Removes chunks and a turn's worth of references; false where none was left.
fn others(db: &Connection, job: i64) -> Result<bool, StoreError> {
    db.prepare_cached("DELETE FROM chunk WHERE job = ?1")?
        .execute([job])?;
    let mut removed = 0;
    for sql in [
        "DELETE FROM ref WHERE job = ?1 AND digest IN
         (SELECT digest FROM ref WHERE job = ?1 LIMIT ?2)",
        "DELETE FROM checkpoint_ref WHERE job = ?1 AND digest IN
         (SELECT digest FROM checkpoint_ref WHERE job = ?1 LIMIT ?2)",
    ] {
        removed += db.prepare_cached(sql)?.execute(params![job, PURGE_TURN])?;
    }
    Ok(removed > 0)
}
