//! The reading side: the whole state at a restart, and pages for users.

use super::write::{int, prefix};
use crate::codec::{
    attempt_state, damaged, engine, job_state, merge_kind, take_chunk, take_flags, take_pairs,
    take_set,
};
use crate::{ImageRow, Loaded, NodeRecord, StoreError, TokenKind, TokenRow, inline_of};
use gleaner_core::{
    AttemptRow, CheckpointRow, EndedRow, JobCost, JobRow, LeaseRow, Need, NewJob, NodeRow, Saved,
    Snapshot, UserRow,
};
use gleaner_model::{
    BlobRef, Bytes, Cpus, Digest, JobId, LeaseId, NodeId, OutputFile, Retry, TaskId, TaskState,
    Time, UserId,
};
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params};
use std::collections::{BTreeMap, BTreeSet};

/// Reads back what [`int`] wrote.
#[expect(
    clippy::cast_sign_loss,
    reason = "the opposite of the cast that wrote it"
)]
const fn uint(number: i64) -> u64 {
    number as u64
}

fn big(row: &Row<'_>, column: usize) -> Result<u64, StoreError> {
    Ok(uint(row.get(column)?))
}

fn time(row: &Row<'_>, column: usize) -> Result<Time, StoreError> {
    Ok(Time {
        ms: big(row, column)?,
    })
}

fn maybe_time(row: &Row<'_>, column: usize) -> Result<Option<Time>, StoreError> {
    let ms: Option<i64> = row.get(column)?;
    Ok(ms.map(|ms| Time { ms: uint(ms) }))
}

/// All rows of a query, each through `take`.
fn all<T>(
    db: &Connection,
    sql: &str,
    values: impl Params,
    mut take: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(take(row)?);
    }
    Ok(found)
}

pub(super) fn load(db: &Connection) -> Result<Loaded, StoreError> {
    // One transaction: all tables as of the same commit.
    let still = db.unchecked_transaction()?;
    let jobs = jobs(&still)?;
    let ended = ended(&still, &jobs)?;
    let checkpoints = checkpoints(&still, &jobs)?;
    let (last_job, last_lease, latest) = still.query_row(
        "SELECT last_job, last_lease, latest FROM clock",
        [],
        |row| Ok((uint(row.get(0)?), uint(row.get(1)?), uint(row.get(2)?))),
    )?;
    let snapshot = Snapshot {
        jobs,
        leases: all(&still, "SELECT * FROM lease ORDER BY id", [], lease)?,
        ended,
        checkpoints,
        nodes: all(&still, "SELECT * FROM node_wish ORDER BY id", [], |row| {
            Ok(NodeRow {
                node: NodeId(row.get(0)?),
                paused: row.get(1)?,
                draining: row.get(2)?,
            })
        })?,
        users: all(&still, "SELECT * FROM user_use ORDER BY id", [], |row| {
            Ok(UserRow {
                user: UserId(row.get(0)?),
                used: row.get(1)?,
                at: time(row, 2)?,
            })
        })?,
        last_job,
        last_lease,
        latest: Time { ms: latest },
    };
    Ok(Loaded {
        snapshot,
        users: all(&still, "SELECT * FROM user ORDER BY id", [], |row| {
            Ok((UserId(row.get(0)?), row.get(1)?))
        })?,
        tokens: all(&still, "SELECT * FROM token ORDER BY id", [], token)?,
        nodes: all(
            &still,
            "SELECT id, identity, name, coalesce(tasks, 0) FROM node
             LEFT JOIN node_done USING (id) ORDER BY id",
            [],
            |row| {
                Ok(NodeRecord {
                    node: NodeId(row.get(0)?),
                    identity: row.get(1)?,
                    name: row.get(2)?,
                    done: big(row, 3)?,
                })
            },
        )?,
        job_cpu: all(&still, "SELECT * FROM job_cpu ORDER BY id", [], |row| {
            Ok((JobId(big(row, 0)?), row.get(1)?))
        })?,
        images: all(&still, "SELECT * FROM image ORDER BY name", [], image)?,
    })
}

fn image(row: &Row<'_>) -> Result<ImageRow, StoreError> {
    Ok(ImageRow {
        name: row.get(0)?,
        blob: BlobRef {
            digest: digest(row, 1)?,
            size: big(row, 2)?,
        },
        created: time(row, 3)?,
        user: UserId(row.get(4)?),
        note: row.get(5)?,
    })
}

fn digest(row: &Row<'_>, column: usize) -> Result<Digest, StoreError> {
    let bytes: Vec<u8> = row.get(column)?;
    let bytes = bytes.try_into().map_err(|_| damaged("a digest"))?;
    Ok(Digest(bytes))
}

type JobTuple = (JobId, Time, NewJob, JobRow);

fn jobs(db: &Connection) -> Result<Vec<JobTuple>, StoreError> {
    let sql = "SELECT id, submitted, user, name, priority, count, cpus, memory, disk, engine, arch,
         labels, attempts, max_evictions, merge, state, reason, paused, started, ended, failed,
         cancelled, merged, base, saves, image, cost_ends, cost_cpu, cost_system, cost_faults,
         cost_busy, cost_guest, cost_guest_system FROM job ORDER BY id";
    all(db, sql, [], |row| {
        let job = JobId(big(row, 0)?);
        let labels: String = row.get(11)?;
        let new = NewJob {
            user: UserId(row.get(2)?),
            name: row.get(3)?,
            priority: row.get(4)?,
            count: row.get(5)?,
            need: Need {
                cpus: Cpus { milli: row.get(6)? },
                memory: Bytes(big(row, 7)?),
                disk: Bytes(big(row, 8)?),
                engine: engine(row.get(9)?)?,
                arch: row.get(10)?,
                labels: serde_json::from_str(&labels).map_err(|_| damaged("a job's labels"))?,
                saves: row.get(24)?,
                image: row.get(25)?,
            },
            retry: Retry {
                attempts: row.get(12)?,
                max_evictions: row.get(13)?,
            },
            merge: merge_kind(row.get(14)?)?,
            body: Vec::new(),
        };
        let (failed, cancelled): (Vec<u8>, Vec<u8>) = (row.get(20)?, row.get(21)?);
        let changing = JobRow {
            job,
            state: job_state(row.get(15)?)?,
            reason: row.get(16)?,
            paused: row.get(17)?,
            started: maybe_time(row, 18)?,
            ended: maybe_time(row, 19)?,
            failed: take_set(&failed)?,
            cancelled: take_set(&cancelled)?,
            merged: row.get(22)?,
            base: row.get(23)?,
            cost: JobCost {
                ends: row.get(26)?,
                cpu_seconds: row.get(27)?,
                system_seconds: row.get(28)?,
                faults: row.get(29)?,
                busy_seconds: row.get(30)?,
                guest_seconds: row.get(31)?,
                guest_system_seconds: row.get(32)?,
            },
        };
        Ok((job, time(row, 1)?, new, changing))
    })
}

/// Ended attempts of every job that is not over.
fn ended(db: &Connection, jobs: &[JobTuple]) -> Result<Vec<EndedRow>, StoreError> {
    let mut found = Vec::new();
    for (job, _, _, _) in jobs.iter().filter(|job| !job.3.state.is_over()) {
        let mut of_job = BTreeMap::new();
        let mut select =
            db.prepare_cached("SELECT bytes FROM chunk WHERE job = ?1 ORDER BY seq")?;
        let mut chunks = select.query([int(job.0)])?;
        while let Some(chunk) = chunks.next()? {
            let bytes = chunk
                .get_ref(0)?
                .as_blob()
                .map_err(|_| damaged("a chunk"))?;
            take_chunk(bytes, *job, &mut of_job)?;
        }
        found.extend(of_job.into_values());
    }
    Ok(found)
}

const CHECKPOINT: &str =
    "SELECT job, idx, number, taken, content, machine, count, stalls, record, progress
     FROM checkpoint";

/// What was saved of tasks of jobs that are not over; records stay where they are.
fn checkpoints(db: &Connection, jobs: &[JobTuple]) -> Result<Vec<CheckpointRow>, StoreError> {
    let open = jobs.iter().filter(|job| !job.3.state.is_over());
    let open: BTreeSet<JobId> = open.map(|job| job.0).collect();
    let sql = "SELECT job, idx, number, taken, content, machine, count, stalls, x'', progress
         FROM checkpoint ORDER BY job, idx";
    let mut found = all(db, sql, [], checkpoint_row)?;
    found.retain(|row| open.contains(&row.attempt.task.job));
    Ok(found)
}

fn checkpoint_row(row: &Row<'_>) -> Result<CheckpointRow, StoreError> {
    let content: Vec<u8> = row.get(4)?;
    Ok(CheckpointRow {
        attempt: TaskId::new(JobId(big(row, 0)?), row.get(1)?).attempt(row.get(2)?),
        saved: Saved {
            taken: time(row, 3)?,
            content: Digest(content.try_into().map_err(|_| damaged("a digest"))?),
            machine: row.get(5)?,
            blobs: Vec::new(),
            record: row.get(8)?,
        },
        count: row.get(6)?,
        stalls: row.get(7)?,
        progress: row.get(9)?,
    })
}

pub(super) fn checkpoint(
    db: &Connection,
    task: TaskId,
) -> Result<Option<CheckpointRow>, StoreError> {
    let sql = format!("{CHECKPOINT} WHERE job = ?1 AND idx = ?2");
    let found = all(
        db,
        &sql,
        params![int(task.job.0), task.index],
        checkpoint_row,
    )?;
    Ok(found.into_iter().next())
}

fn lease(row: &Row<'_>) -> Result<LeaseRow, StoreError> {
    let (tasks, numbers): (Vec<u8>, Vec<u8>) = (row.get(4)?, row.get(5)?);
    Ok(LeaseRow {
        lease: LeaseId(big(row, 0)?),
        node: NodeId(row.get(1)?),
        job: JobId(big(row, 2)?),
        width: row.get(3)?,
        tasks: take_set(&tasks)?,
        numbers: take_pairs(&numbers)?,
    })
}

fn token(row: &Row<'_>) -> Result<TokenRow, StoreError> {
    let (hash, kind): (Vec<u8>, String) = (row.get(1)?, row.get(2)?);
    let user: Option<u32> = row.get(4)?;
    Ok(TokenRow {
        id: big(row, 0)?,
        hash: hash.try_into().map_err(|_| damaged("a token's hash"))?,
        kind: TokenKind::from_word(&kind).ok_or_else(|| damaged("a token's kind"))?,
        name: row.get(3)?,
        user: user.map(UserId),
        created: time(row, 5)?,
        revoked: row.get(6)?,
    })
}

pub(super) fn job_body(db: &Connection, job: JobId) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(db
        .prepare_cached("SELECT body FROM job_body WHERE id = ?1")?
        .query_row([int(job.0)], |row| row.get(0))
        .optional()?)
}

const ATTEMPT: &str = "SELECT job, idx, number, node, state, at, flags, record FROM attempt";

fn attempt(row: &Row<'_>) -> Result<AttemptRow, StoreError> {
    let (counts, no_program, task_over) = take_flags(row.get(6)?)?;
    Ok(AttemptRow {
        attempt: TaskId::new(JobId(big(row, 0)?), row.get(1)?).attempt(row.get(2)?),
        node: NodeId(row.get(3)?),
        state: attempt_state(row.get(4)?)?,
        at: time(row, 5)?,
        counts,
        no_program,
        task_over,
        record: row.get(7)?,
    })
}

pub(super) fn attempts(db: &Connection, task: TaskId) -> Result<Vec<AttemptRow>, StoreError> {
    let sql = format!("{ATTEMPT} WHERE job = ?1 AND idx = ?2 ORDER BY number");
    all(db, &sql, params![int(task.job.0), task.index], attempt)
}

pub(super) fn last_attempts(
    db: &Connection,
    job: JobId,
    from: u32,
    to: u32,
) -> Result<Vec<AttemptRow>, StoreError> {
    let sql = format!(
        "{ATTEMPT} AS a WHERE job = ?1 AND idx >= ?2 AND idx < ?3 AND (flags >> 2 = ?4 OR number =
         (SELECT max(number) FROM attempt AS b WHERE b.job = a.job AND b.idx = a.idx))
         ORDER BY idx, number"
    );
    let done = crate::codec::task_code(TaskState::Done);
    all(db, &sql, params![int(job.0), from, to, done], attempt)
}

pub(super) fn results(
    db: &Connection,
    job: JobId,
    from: u32,
    limit: usize,
) -> Result<Vec<AttemptRow>, StoreError> {
    // Where a task was done twice (it cannot be, but a page must not break) the first counts.
    let sql = format!(
        "{ATTEMPT} WHERE job = ?1 AND idx >= ?2 AND flags >> 2 = ?3 ORDER BY idx, number LIMIT ?4"
    );
    let done = crate::codec::task_code(TaskState::Done);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut found = all(db, &sql, params![int(job.0), from, done, limit], attempt)?;
    found.dedup_by_key(|row| row.attempt.task);
    Ok(found)
}

pub(super) fn merged(db: &Connection, job: JobId) -> Result<Vec<OutputFile>, StoreError> {
    let sql = "SELECT name, digest, size, mode FROM merged WHERE job = ?1 ORDER BY name";
    all(db, sql, [int(job.0)], |row| {
        Ok(OutputFile {
            name: row.get(0)?,
            blob: BlobRef {
                digest: digest(row, 1)?,
                size: big(row, 2)?,
            },
            mode: row.get(3)?,
        })
    })
}

pub(super) fn inline(db: &Connection, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
    let mut select = db.prepare_cached(
        "SELECT record FROM inline_index JOIN attempt USING (seq) WHERE prefix = ?1",
    )?;
    let mut rows = select.query([prefix(digest)])?;
    while let Some(row) = rows.next()? {
        let record = row.get_ref(0)?.as_blob().map_err(|_| damaged("a record"))?;
        if let Some(content) = inline_of(record, digest) {
            return Ok(Some(content));
        }
    }
    Ok(None)
}

pub(super) fn is_referenced(db: &Connection, digest: &Digest) -> Result<bool, StoreError> {
    for table in [
        "SELECT 1 FROM ref WHERE digest = ?1 LIMIT 1",
        "SELECT 1 FROM checkpoint_ref WHERE digest = ?1 LIMIT 1",
        "SELECT 1 FROM image WHERE digest = ?1 LIMIT 1",
    ] {
        if db.prepare_cached(table)?.exists([digest.0.as_slice()])? {
            return Ok(true);
        }
    }
    Ok(false)
}
