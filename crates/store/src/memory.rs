//! A store that forgets with its process: for tests and for fault runs of the simulator.
//!
//! It answers as the SQLite back end does; one suite of tests holds both to it. What the brain
//! reads back is kept by [`Book`], the brain's own reference of what rows mean.

use crate::{ImageRow, Loaded, NodeRecord, ServerRow, Store, StoreError, TokenRow, inline_of};
use gleaner_core::{AttemptRow, Book, CheckpointRow, Row};
use gleaner_model::{Digest, JobId, NodeId, OutputFile, TaskId, TaskState, UserId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Tables {
    book: Book,
    bodies: BTreeMap<JobId, Vec<u8>>,
    attempts: BTreeMap<(JobId, u32, u32), AttemptRow>,
    users: BTreeMap<UserId, String>,
    tokens: BTreeMap<u64, TokenRow>,
    nodes: BTreeMap<NodeId, (String, String)>,
    nodes_done: BTreeMap<NodeId, u64>,
    job_cpu: BTreeMap<JobId, f64>,
    merged: BTreeMap<(JobId, String), OutputFile>,
    refs: BTreeSet<(Digest, JobId)>,
    checkpoints: BTreeMap<TaskId, CheckpointRow>,
    images: BTreeMap<String, ImageRow>,
}

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
}

impl MemoryStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn row(&mut self, row: &Row) {
        self.book.apply(row);
        if let Row::NewJob(id, _, new) = row {
            self.bodies.insert(*id, new.body.clone());
        }
        if let Row::Attempt(row) = row {
            let TaskId { job, index } = row.attempt.task;
            let key = (job, index, row.attempt.number);
            self.attempts.insert(key, row.clone());
        }
        if let Row::Checkpoint(row) = row {
            self.checkpoints.insert(row.attempt.task, row.clone());
        }
        if let Row::CheckpointOver(task) = row {
            self.checkpoints.remove(task);
        }
        if let Row::JobGone(job) = row {
            self.job_gone(*job);
        }
    }

    fn job_gone(&mut self, job: JobId) {
        self.bodies.remove(&job);
        self.job_cpu.remove(&job);
        self.attempts.retain(|key, _| key.0 != job);
        self.merged.retain(|key, _| key.0 != job);
        self.refs.retain(|key| key.1 != job);
        self.checkpoints.retain(|task, _| task.job != job);
    }

    fn server_row(&mut self, row: &ServerRow) {
        match row {
            ServerRow::User(id, name) => drop(self.users.insert(*id, name.clone())),
            ServerRow::Token(token) => drop(self.tokens.insert(token.id, token.clone())),
            ServerRow::Node {
                node,
                identity,
                name,
            } => drop(self.nodes.insert(*node, (identity.clone(), name.clone()))),
            ServerRow::NodeDone(node, tasks) => drop(self.nodes_done.insert(*node, *tasks)),
            ServerRow::JobCpu(job, seconds) => drop(self.job_cpu.insert(*job, *seconds)),
            ServerRow::Merged(job, file) => {
                self.merged.insert((*job, file.name.clone()), file.clone());
            }
            ServerRow::Ref(job, digest) => drop(self.refs.insert((*digest, *job))),
            ServerRow::Image(image) => {
                drop(self.images.insert(image.name.clone(), image.clone()));
            }
            ServerRow::ImageGone(name) => drop(self.images.remove(name)),
        }
    }

    fn attempts(&self, job: JobId, from: u32, to: u32) -> impl Iterator<Item = &AttemptRow> {
        let keys = (job, from, 0)..(job, to.max(from), 0);
        self.attempts.range(keys).map(|(_, row)| row)
    }
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        let tables = self.tables();
        let done = |node| tables.nodes_done.get(node).copied().unwrap_or(0);
        Ok(Loaded {
            snapshot: tables.book.snapshot(),
            users: tables
                .users
                .iter()
                .map(|(id, name)| (*id, name.clone()))
                .collect(),
            tokens: tables.tokens.values().cloned().collect(),
            nodes: tables
                .nodes
                .iter()
                .map(|(node, (identity, name))| NodeRecord {
                    node: *node,
                    identity: identity.clone(),
                    name: name.clone(),
                    done: done(node),
                })
                .collect(),
            job_cpu: tables
                .job_cpu
                .iter()
                .map(|(job, cpu)| (*job, *cpu))
                .collect(),
            images: tables.images.values().cloned().collect(),
        })
    }

    fn commit(&self, rows: &[Row], server: &[ServerRow]) -> Result<(), StoreError> {
        let mut tables = self.tables();
        rows.iter().for_each(|row| tables.row(row));
        server.iter().for_each(|row| tables.server_row(row));
        Ok(())
    }

    fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn job_body(&self, job: JobId) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables().bodies.get(&job).cloned())
    }

    fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRow>, StoreError> {
        let tables = self.tables();
        let rows = tables.attempts(task.job, task.index, task.index + 1);
        Ok(rows.cloned().collect())
    }

    fn last_attempts(&self, job: JobId, from: u32, to: u32) -> Result<Vec<AttemptRow>, StoreError> {
        let tables = self.tables();
        let mut found: Vec<AttemptRow> = Vec::new();
        for row in tables.attempts(job, from, to) {
            let done = Some(TaskState::Done);
            match found.last_mut() {
                Some(last) if last.attempt.task == row.attempt.task && last.task_over != done => {
                    *last = row.clone();
                }
                _ => found.push(row.clone()),
            }
        }
        Ok(found)
    }

    fn results(&self, job: JobId, from: u32, limit: usize) -> Result<Vec<AttemptRow>, StoreError> {
        let tables = self.tables();
        let done = |row: &&AttemptRow| row.task_over == Some(TaskState::Done);
        let rows = tables.attempts(job, from, u32::MAX).filter(done);
        let mut found: Vec<_> = rows.take(limit).cloned().collect();
        found.dedup_by_key(|row| row.attempt.task);
        Ok(found)
    }

    fn checkpoint(&self, task: TaskId) -> Result<Option<CheckpointRow>, StoreError> {
        let found = self.tables().checkpoints.get(&task).cloned();
        Ok(found.map(|mut row| {
            row.saved.blobs = Vec::new();
            row
        }))
    }

    fn merged(&self, job: JobId) -> Result<Vec<OutputFile>, StoreError> {
        let tables = self.tables();
        let from = (job, String::new());
        let files = tables
            .merged
            .range(from..)
            .take_while(|(key, _)| key.0 == job);
        Ok(files.map(|(_, file)| file.clone()).collect())
    }

    fn inline(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let tables = self.tables();
        Ok(tables
            .attempts
            .values()
            .find_map(|row| inline_of(&row.record, digest)))
    }

    fn purge(&self) -> Result<bool, StoreError> {
        // Nothing is ever left.
        Ok(false)
    }

    fn is_referenced(&self, digest: &Digest) -> Result<bool, StoreError> {
        let tables = self.tables();
        let refs = tables
            .refs
            .range((*digest, JobId(0))..=(*digest, JobId(u64::MAX)));
        let mut saved = tables.checkpoints.values();
        let mut named = tables.images.values();
        Ok(refs.count() > 0
            || saved.any(|row| row.saved.blobs.contains(digest))
            || named.any(|image| image.blob.digest == *digest))
    }
}
