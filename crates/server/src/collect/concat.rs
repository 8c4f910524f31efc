//! `merge = { concat = …, from = … }`: the chosen output of every task, one after the other.

use super::outputs_of;
use crate::contents::{self, Content, ContentError};
use crate::shared::{Shared, blocking};
use gleaner_blob::{BlobError, Blobs, Writer};
use gleaner_core::Event;
use gleaner_model::{AttemptRecord, JobId, OutputFile, TaskId};
use gleaner_store::{ServerRow, Store, StoreError};
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

/// Attempts read from the store at a time.
const PAGE_ATTEMPTS: usize = 256;

/// Bytes copied at a time.
const COPY_BYTES: usize = 256 << 10;

/// Permission bits of a merged file.
const MERGED_MODE: u32 = 0o644;

/// How long to wait for space on a full disk, or for a store that is in trouble.
const AGAIN: Duration = Duration::from_secs(2);

/// A merge did not work.
enum MergeError {
    /// It never will: the sentence is for the user.
    Failed(String),
    /// It may, later.
    Later(String),
}

impl From<StoreError> for MergeError {
    fn from(error: StoreError) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<BlobError> for MergeError {
    fn from(error: BlobError) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<ContentError> for MergeError {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Blob(BlobError::Missing(digest)) => {
                Self::Failed(format!("{digest} is lost on the server; retry its task"))
            }
            ContentError::Blob(error) => error.into(),
            ContentError::Store(error) => error.into(),
        }
    }
}

/// Merges a job and tells the brain; waits where the disk is full.
pub(super) async fn merge(shared: &Arc<Shared>, job: JobId) {
    loop {
        let worker = Arc::clone(shared);
        let merged = blocking(move || concat(&worker, job)).await;
        let merged =
            merged.unwrap_or_else(|error| Err(MergeError::Failed(error.sentence().into())));
        let (rows, failed) = match merged {
            Ok(file) => {
                let needed = ServerRow::Ref(job, file.blob.digest);
                (vec![ServerRow::Merged(job, file), needed], None)
            }
            Err(MergeError::Failed(why)) => (Vec::new(), Some(why)),
            Err(MergeError::Later(why)) => {
                tracing::warn!(%job, why, "a merge waits");
                if !pause(shared).await {
                    return;
                }
                continue;
            }
        };
        let event = Event::Merged { job, failed };
        match shared.driver.rows(rows, Some(event)).await {
            Ok(()) => return,
            Err(trouble) => tracing::warn!(%job, why = trouble.sentence, "a merge waits"),
        }
        if !pause(shared).await {
            return;
        }
    }
}

/// False where the server stops.
async fn pause(shared: &Shared) -> bool {
    tokio::select! {
        () = tokio::time::sleep(AGAIN) => true,
        () = shared.stop.cancelled() => false,
    }
}

fn concat(shared: &Shared, job: JobId) -> Result<OutputFile, MergeError> {
    let plan = shared.plans.get(job);
    let plan = plan.map_err(|error| MergeError::Failed(error.to_string()))?;
    let wanted = plan
        .concat()
        .ok_or_else(|| MergeError::Failed("nothing to merge".into()))?;
    let mut writer = shared.blobs.writer()?;
    let mut next = 0;
    while next < plan.count() {
        let page = shared.store.results(job, next, PAGE_ATTEMPTS)?;
        for row in &page {
            let task = row.attempt.task;
            if task.index >= plan.count() {
                break;
            }
            if task.index != next {
                return Err(missing(TaskId::new(job, next)));
            }
            let from = plan.concat_from(next);
            let from = from.map_err(|error| MergeError::Failed(error.to_string()))?;
            let record = outputs_of(&row.record).map_err(MergeError::Failed)?;
            let output = find(&record, &from).ok_or_else(|| {
                MergeError::Failed(format!(
                    "task {task} made no file `{from}`, which the merge takes; is it in \
                     `task.outputs`?"
                ))
            })?;
            append(shared.store.as_ref(), &shared.blobs, &mut writer, output)?;
            next += 1;
        }
        if page.is_empty() {
            return Err(missing(TaskId::new(job, next)));
        }
    }
    Ok(OutputFile {
        name: wanted.concat.clone(),
        blob: writer.finish()?,
        mode: MERGED_MODE,
    })
}

fn missing(task: TaskId) -> MergeError {
    MergeError::Failed(format!("task {task} has no result"))
}

fn find<'a>(record: &'a AttemptRecord, name: &str) -> Option<&'a OutputFile> {
    record.outputs.iter().find(|output| output.name == name)
}

fn append(
    store: &dyn Store,
    blobs: &Blobs,
    writer: &mut Writer,
    output: &OutputFile,
) -> Result<(), MergeError> {
    match contents::find(store, blobs, &output.blob.digest)? {
        Content::Bytes(bytes) => Ok(writer.write(&bytes)?),
        Content::File(mut file, _) => {
            let mut part = vec![0; COPY_BYTES];
            loop {
                let read = file.read(&mut part).map_err(|source| BlobError::Disk {
                    what: "read",
                    path: output.blob.digest.hex().into(),
                    source,
                })?;
                if read == 0 {
                    return Ok(());
                }
                writer.write(&part[..read])?;
            }
        }
    }
}
