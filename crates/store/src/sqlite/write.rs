//! The writing side: a batch of rows in one transaction.

use crate::codec::{
    attempt_code, engine_code, flags, job_code, merge_code, put_ended, put_forgiven, put_pairs,
    put_set, start_ended,
};
use crate::{Envelope, ServerRow, StoreError};
use gleaner_core::{AttemptRow, CheckpointRow, JobRow, LeaseRow, NewJob, Row};
use gleaner_model::{Digest, JobId, TaskId, Time};
use rusqlite::{CachedStatement, Connection, Transaction, params};
use std::collections::BTreeMap;

/// Attempts whose contents are indexed in one turn of the writer: a few milliseconds.
const INDEX_TURN: u32 = 2000;

/// Integers are signed in SQLite; ids and times stay far below 2^63, sizes are kept bit by bit.
#[expect(clippy::cast_possible_wrap, reason = "read back by the opposite cast")]
pub(super) const fn int(number: u64) -> i64 {
    number as i64
}

/// What a digest is indexed by: enough to be all but unique, small enough for an integer key.
pub(super) fn prefix(digest: &Digest) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest.0[..8]);
    i64::from_le_bytes(first)
}

fn ms(time: Option<Time>) -> Option<i64> {
    time.map(|time| int(time.ms))
}

/// The one connection that writes.
#[derive(Debug)]
pub(super) struct Writer {
    db: Connection,
    next_chunk: u64,
    last_job: u64,
    last_lease: u64,
    latest: Time,
}

/// What a batch adds up while its rows are written.
struct Sums {
    /// Chunks still growing, and those that are whole, in the order to write them.
    open: BTreeMap<JobId, Vec<u8>>,
    sealed: Vec<(JobId, Vec<u8>)>,
    last_job: u64,
    last_lease: u64,
    latest: Time,
}

impl Writer {
    pub(super) fn new(db: Connection) -> Result<Self, StoreError> {
        let last: Option<i64> = db.query_row("SELECT max(seq) FROM chunk", [], |row| row.get(0))?;
        let (last_job, last_lease, latest): (i64, i64, i64) = db.query_row(
            "SELECT last_job, last_lease, latest FROM clock",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        Ok(Self {
            db,
            next_chunk: last.unwrap_or(0).unsigned_abs() + 1,
            last_job: last_job.unsigned_abs(),
            last_lease: last_lease.unsigned_abs(),
            latest: Time {
                ms: latest.unsigned_abs(),
            },
        })
    }

    pub(super) fn commit(&mut self, rows: &[Row], server: &[ServerRow]) -> Result<(), StoreError> {
        let mut sums = Sums {
            open: BTreeMap::new(),
            sealed: Vec::new(),
            last_job: self.last_job,
            last_lease: self.last_lease,
            latest: self.latest,
        };
        let mut next_chunk = self.next_chunk;
        // Dropped on an error, and with it everything the batch wrote.
        let change = self.db.transaction()?;
        write_rows(&change, rows, &mut sums)?;
        for row in server {
            write_server(&change, row)?;
        }
        let Sums { open, sealed, .. } = &mut sums;
        sealed.extend(std::mem::take(open));
        for (job, bytes) in sealed {
            put_chunk(&change, *job, next_chunk, bytes)?;
            next_chunk += 1;
        }
        let clock = (sums.last_job, sums.last_lease, sums.latest);
        if clock != (self.last_job, self.last_lease, self.latest) {
            change
                .prepare_cached("UPDATE clock SET last_job = ?1, last_lease = ?2, latest = ?3")?
                .execute(params![int(clock.0), int(clock.1), int(clock.2.ms)])?;
        }
        change.commit()?;
        self.next_chunk = next_chunk;
        self.last_job = sums.last_job;
        self.last_lease = sums.last_lease;
        self.latest = sums.latest;
        Ok(())
    }

    /// A change of its own, dropped where it is not committed.
    pub(super) fn change(&mut self) -> Result<Transaction<'_>, StoreError> {
        Ok(self.db.transaction()?)
    }

    pub(super) fn probe(&mut self) -> Result<(), StoreError> {
        self.db.execute("UPDATE clock SET latest = latest", [])?;
        Ok(())
    }

    /// Indexes the contents of some attempts that are not yet; says whether more are left.
    pub(super) fn index_contents(&mut self) -> Result<bool, StoreError> {
        let change = self.db.transaction()?;
        let mark: i64 = change.query_row("SELECT seq FROM inline_mark", [], |row| row.get(0))?;
        let (mut found, mut last, mut seen) = (Vec::new(), mark, 0);
        {
            let mut select = change.prepare_cached(
                "SELECT seq, record FROM attempt WHERE seq > ?1 ORDER BY seq LIMIT ?2",
            )?;
            let mut rows = select.query(params![mark, INDEX_TURN])?;
            while let Some(row) = rows.next()? {
                last = row.get(0)?;
                seen += 1;
                let record = row.get_ref(1)?.as_blob().unwrap_or_default();
                let contents = Envelope::decode(record)
                    .map(|e| e.inline)
                    .unwrap_or_default();
                for content in contents.iter().filter(|content| !content.is_empty()) {
                    let digest = Digest(*blake3::hash(content).as_bytes());
                    found.push((prefix(&digest), last));
                }
            }
        }
        if seen == 0 {
            return Ok(false);
        }
        // In key order: neighbours go to the same page.
        found.sort_unstable();
        {
            let mut insert =
                change.prepare_cached("INSERT OR IGNORE INTO inline_index VALUES (?1, ?2)")?;
            for (prefix, seq) in found {
                insert.execute(params![prefix, seq])?;
            }
        }
        change.execute("UPDATE inline_mark SET seq = ?1", [last])?;
        change.commit()?;
        Ok(seen == INDEX_TURN)
    }
}

/// A deleted job's own rows. From here on nobody can ask for what is left of it, which is purged a
/// few rows a turn.
fn job_gone(db: &Transaction<'_>, job: JobId) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM job WHERE id = ?1",
        "DELETE FROM job_body WHERE id = ?1",
        "DELETE FROM job_cpu WHERE id = ?1",
        "DELETE FROM merged WHERE job = ?1",
        "DELETE FROM lease WHERE job = ?1",
        "DELETE FROM checkpoint WHERE job = ?1",
        "INSERT OR IGNORE INTO gone VALUES (?1)",
    ] {
        db.prepare_cached(sql)?.execute([int(job.0)])?;
    }
    Ok(())
}

fn put_chunk(db: &Connection, job: JobId, seq: u64, bytes: &[u8]) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO chunk VALUES (?1, ?2, ?3)")?
        .execute(params![int(job.0), int(seq), bytes])?;
    Ok(())
}

fn write_rows(db: &Transaction<'_>, rows: &[Row], sums: &mut Sums) -> Result<(), StoreError> {
    // The three that come once a task or once a bundle are looked up once a batch.
    let mut attempt = db.prepare_cached(
        "INSERT OR REPLACE INTO attempt (job, idx, number, node, state, at, flags, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let mut lease =
        db.prepare_cached("INSERT OR REPLACE INTO lease VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    let mut lease_over = db.prepare_cached("DELETE FROM lease WHERE id = ?1")?;
    // A job or user that changed often in the batch is written once, as it was last.
    let (mut jobs, mut users) = (BTreeMap::new(), BTreeMap::new());
    for row in rows {
        match row {
            Row::NewJob(job, at, new) => new_job(db, *job, *at, new, sums)?,
            Row::Job(row) => drop(jobs.insert(row.job, row)),
            Row::JobGone(job) => {
                jobs.remove(job);
                job_gone(db, *job)?;
            }
            Row::Lease(row) => grant(&mut lease, row, sums)?,
            Row::LeaseOver(id) => drop(lease_over.execute([int(id.0)])?),
            Row::Attempt(row) => ended(&mut attempt, row, sums)?,
            Row::Forgiven(job, tasks) => {
                // What ended before is forgiven, what ends after is not.
                sums.sealed.extend(sums.open.remove_entry(job));
                sums.sealed.push((*job, put_forgiven(tasks)));
            }
            Row::Checkpoint(row) => checkpoint(db, row)?,
            Row::CheckpointOver(task) => checkpoint_over(db, *task)?,
            Row::Node(row) => {
                db.prepare_cached("INSERT OR REPLACE INTO node_wish VALUES (?1, ?2, ?3)")?
                    .execute(params![row.node.0, row.paused, row.draining])?;
            }
            Row::User(row) => drop(users.insert(row.user, row)),
        }
    }
    for row in jobs.into_values() {
        change_job(db, row, sums)?;
    }
    for row in users.into_values() {
        sums.latest = sums.latest.max(row.at);
        db.prepare_cached("INSERT OR REPLACE INTO user_use VALUES (?1, ?2, ?3)")?
            .execute(params![row.user.0, row.used, int(row.at.ms)])?;
    }
    Ok(())
}

fn new_job(
    db: &Transaction<'_>,
    job: JobId,
    at: Time,
    new: &NewJob,
    sums: &mut Sums,
) -> Result<(), StoreError> {
    sums.last_job = sums.last_job.max(job.0);
    sums.latest = sums.latest.max(at);
    let labels = serde_json::to_string(&new.need.labels)
        .map_err(|error| StoreError::Database(Box::new(error)))?;
    db.prepare_cached(
        "INSERT OR REPLACE INTO job (id, submitted, user, name, priority, count, cpus, memory,
         disk, engine, arch, labels, attempts, max_evictions, merge, saves,
         image)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
    )?
    .execute(params![
        int(job.0),
        int(at.ms),
        new.user.0,
        new.name,
        new.priority,
        new.count,
        new.need.cpus.milli,
        int(new.need.memory.0),
        int(new.need.disk.0),
        engine_code(new.need.engine),
        new.need.arch,
        labels,
        new.retry.attempts,
        new.retry.max_evictions,
        merge_code(new.merge),
        new.need.saves,
        new.need.image,
    ])?;
    db.prepare_cached("INSERT OR REPLACE INTO job_body VALUES (?1, ?2)")?
        .execute(params![int(job.0), new.body])?;
    Ok(())
}

fn change_job(db: &Transaction<'_>, row: &JobRow, sums: &mut Sums) -> Result<(), StoreError> {
    sums.latest = sums.latest.max(row.started.unwrap_or_default());
    sums.latest = sums.latest.max(row.ended.unwrap_or_default());
    db.prepare_cached(
        "UPDATE job SET state = ?2, reason = ?3, paused = ?4, started = ?5, ended = ?6,
         failed = ?7, cancelled = ?8, merged = ?9, base = ?10, cost_ends = ?11, cost_cpu = ?12,
         cost_system = ?13, cost_faults = ?14, cost_busy = ?15, cost_guest = ?16,
         cost_guest_system = ?17 WHERE id = ?1",
    )?
    .execute(params![
        int(row.job.0),
        job_code(row.state),
        row.reason,
        row.paused,
        ms(row.started),
        ms(row.ended),
        put_set(&row.failed),
        put_set(&row.cancelled),
        row.merged,
        row.base,
        row.cost.ends,
        row.cost.cpu_seconds,
        row.cost.system_seconds,
        row.cost.faults,
        row.cost.busy_seconds,
        row.cost.guest_seconds,
        row.cost.guest_system_seconds,
    ])?;
    Ok(())
}

fn grant(
    insert: &mut CachedStatement<'_>,
    row: &LeaseRow,
    sums: &mut Sums,
) -> Result<(), StoreError> {
    sums.last_lease = sums.last_lease.max(row.lease.0);
    insert.execute(params![
        int(row.lease.0),
        row.node.0,
        int(row.job.0),
        row.width,
        put_set(&row.tasks),
        put_pairs(row.numbers.iter()),
    ])?;
    Ok(())
}

fn ended(
    insert: &mut CachedStatement<'_>,
    row: &AttemptRow,
    sums: &mut Sums,
) -> Result<(), StoreError> {
    sums.latest = sums.latest.max(row.at);
    let job = row.attempt.task.job;
    insert.execute(params![
        int(job.0),
        row.attempt.task.index,
        row.attempt.number,
        row.node.0,
        attempt_code(row.state),
        int(row.at.ms),
        flags(row.counts, row.no_program, row.task_over),
        row.record,
    ])?;
    put_ended(sums.open.entry(job).or_insert_with(start_ended), row);
    Ok(())
}

/// In place of what was saved of the task before, and of what that needed.
fn checkpoint(db: &Transaction<'_>, row: &CheckpointRow) -> Result<(), StoreError> {
    let (task, saved) = (row.attempt.task, &row.saved);
    checkpoint_over(db, task)?;
    db.prepare_cached("INSERT INTO checkpoint VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
        .execute(params![
            int(task.job.0),
            task.index,
            row.attempt.number,
            int(saved.taken.ms),
            saved.content.0.as_slice(),
            saved.machine,
            row.count,
            row.stalls,
            saved.record,
            row.progress,
        ])?;
    let mut add = db.prepare_cached("INSERT OR IGNORE INTO checkpoint_ref VALUES (?1, ?2, ?3)")?;
    for blob in &saved.blobs {
        add.execute(params![blob.0.as_slice(), int(task.job.0), task.index])?;
    }
    Ok(())
}

fn checkpoint_over(db: &Transaction<'_>, task: TaskId) -> Result<(), StoreError> {
    for delete in [
        "DELETE FROM checkpoint WHERE job = ?1 AND idx = ?2",
        "DELETE FROM checkpoint_ref WHERE job = ?1 AND idx = ?2",
    ] {
        db.prepare_cached(delete)?
            .execute(params![int(task.job.0), task.index])?;
    }
    Ok(())
}

fn write_server(db: &Transaction<'_>, row: &ServerRow) -> Result<(), StoreError> {
    match row {
        ServerRow::User(id, name) => db
            .prepare_cached("INSERT OR REPLACE INTO user VALUES (?1, ?2)")?
            .execute(params![id.0, name])?,
        ServerRow::Token(token) => db
            .prepare_cached("INSERT OR REPLACE INTO token VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![
                int(token.id),
                token.hash.as_slice(),
                token.kind.as_str(),
                token.name,
                token.user.map(|user| user.0),
                int(token.created.ms),
                token.revoked,
            ])?,
        ServerRow::Node {
            node,
            identity,
            name,
        } => db
            .prepare_cached("INSERT OR REPLACE INTO node VALUES (?1, ?2, ?3)")?
            .execute(params![node.0, identity, name])?,
        ServerRow::NodeDone(node, tasks) => db
            .prepare_cached("INSERT OR REPLACE INTO node_done VALUES (?1, ?2)")?
            .execute(params![node.0, int(*tasks)])?,
        ServerRow::JobCpu(job, seconds) => db
            .prepare_cached("INSERT OR REPLACE INTO job_cpu VALUES (?1, ?2)")?
            .execute(params![int(job.0), seconds])?,
        ServerRow::Merged(job, file) => db
            .prepare_cached("INSERT OR REPLACE INTO merged VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                int(job.0),
                file.name,
                file.blob.digest.0.as_slice(),
                int(file.blob.size),
                file.mode,
            ])?,
        ServerRow::Image(image) => db
            .prepare_cached("INSERT OR REPLACE INTO image VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![
                image.name,
                image.blob.digest.0.as_slice(),
                int(image.blob.size),
                int(image.created.ms),
                image.user.0,
                image.note,
            ])?,
        ServerRow::ImageGone(name) => db
            .prepare_cached("DELETE FROM image WHERE name = ?1")?
            .execute([name])?,
        ServerRow::Ref(job, digest) => db
            .prepare_cached("INSERT OR IGNORE INTO ref VALUES (?1, ?2)")?
            .execute(params![digest.0.as_slice(), int(job.0)])?,
    };
    Ok(())
}
