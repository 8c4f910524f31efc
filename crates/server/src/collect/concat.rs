//! `merge = { concat = …, from = … }`: the chosen output of every task, one after the other.

use super::outputs_of;
use crate::contents::{self, Content};
use crate::error::Setback;
use crate::shared::{Shared, blocking};
use crate::split::JobPlan;
use gleaner_blob::{BlobError, Blobs, Writer};
use gleaner_core::Event;
use gleaner_model::{AttemptRecord, Bytes, JobId, OutputFile, TaskId};
use gleaner_store::{ServerRow, Store};
use std::io::Read as _;
use std::sync::Arc;

/// Attempts read from the store at a time.
const PAGE_ATTEMPTS: usize = 256;

/// Bytes copied at a time.
const COPY_BYTES: usize = 256 << 10;

/// Permission bits of a merged file.
const MERGED_MODE: u32 = 0o644;

/// Bytes of outputs between two looks at the room on the disk.
const LOOK_BYTES: u64 = 64 << 10;

/// Merges a job and tells the brain. `tried` says that it could not be done before.
///
/// # Errors
/// Why it cannot be done now.
pub(super) async fn merge(shared: &Arc<Shared>, job: JobId, tried: bool) -> Result<(), String> {
    let worker = Arc::clone(shared);
    let merged = blocking(move || concat(&worker, job, tried)).await;
    let merged = merged.unwrap_or_else(|error| Err(error.into()));
    let (rows, failed) = match merged {
        Ok(file) => {
            let needed = ServerRow::Ref(job, file.blob.digest);
            (vec![ServerRow::Merged(job, file), needed], None)
        }
        Err(Setback::Final(why)) => (Vec::new(), Some(why)),
        Err(Setback::Later(why)) => return Err(why),
    };
    let stored = shared
        .driver
        .rows(rows, Some(Event::Merged { job, failed }));
    stored.await.map_err(|trouble| trouble.sentence)
}

fn concat(shared: &Shared, job: JobId, tried: bool) -> Result<OutputFile, Setback> {
    let plan = shared.plans.get(job)?;
    let wanted = plan
        .concat()
        .ok_or_else(|| Setback::Final("nothing to merge".into()))?;
    let (store, blobs) = (shared.store.as_ref(), &shared.blobs);
    if tried {
        // What fitted before is not written again to find that the rest still does not fit.
        let mut bytes = 0_u64;
        each(store, (job, &*plan), &mut |output| {
            bytes = bytes.saturating_add(output.blob.size);
            Ok(())
        })?;
        if bytes >= LOOK_BYTES {
            room(blobs, bytes)?;
        }
    }
    let mut writer = blobs.writer()?;
    let mut unseen = 0_u64;
    each(store, (job, &*plan), &mut |output| {
        unseen = unseen.saturating_add(output.blob.size);
        if unseen >= LOOK_BYTES {
            room(blobs, output.blob.size)?;
            unseen = 0;
        }
        append(store, blobs, &mut writer, output)
    })?;
    Ok(OutputFile {
        name: wanted.concat.clone(),
        blob: writer.finish()?,
        mode: MERGED_MODE,
    })
}

/// A merge can wait, and what comes in meanwhile cannot: it does not take the last of the disk.
fn room(blobs: &Blobs, bytes: u64) -> Result<(), Setback> {
    let room = blobs.room()?;
    match bytes <= room {
        true => Ok(()),
        false => Err(Setback::Later(format!(
            "the disk that holds the server's blobs is full: {} more are needed, and a merge may \
             take {} of what is free",
            Bytes(bytes),
            Bytes(room)
        ))),
    }
}

/// Shows the chosen output of every task, in task order.
fn each(
    store: &dyn Store,
    (job, plan): (JobId, &JobPlan),
    see: &mut dyn FnMut(&OutputFile) -> Result<(), Setback>,
) -> Result<(), Setback> {
    let mut next = 0;
    while next < plan.count() {
        let page = store.results(job, next, PAGE_ATTEMPTS)?;
        for row in &page {
            let task = row.attempt.task;
            if task.index >= plan.count() {
                break;
            }
            if task.index != next {
                return Err(missing(TaskId::new(job, next)));
            }
            let from = plan.concat_from(next)?;
            let record = outputs_of(&row.record).map_err(Setback::Final)?;
            let output = find(&record, &from).ok_or_else(|| {
                Setback::Final(format!(
                    "task {task} made no file `{from}`, which the merge takes; is it in \
                     `task.outputs`?"
                ))
            })?;
            see(output)?;
            next += 1;
        }
        if page.is_empty() {
            return Err(missing(TaskId::new(job, next)));
        }
    }
    Ok(())
}

fn missing(task: TaskId) -> Setback {
    Setback::Final(format!("task {task} has no result"))
}

fn find<'a>(record: &'a AttemptRecord, name: &str) -> Option<&'a OutputFile> {
    record.outputs.iter().find(|output| output.name == name)
}

fn append(
    store: &dyn Store,
    blobs: &Blobs,
    writer: &mut Writer,
    output: &OutputFile,
) -> Result<(), Setback> {
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
