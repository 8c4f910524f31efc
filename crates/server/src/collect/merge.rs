//! `merge = { command = … }`: what its task gets: every output of every task, named
//! `INDEX/NAME`, and `{outputs}` as all of them in task order.

use crate::driver::Message;
use crate::error::Setback;
use crate::shared::{Shared, blocking};
use crate::split::JobPlan;
use crate::split::plan::wire_input;
use gleaner_model::{AttemptRecord, Digest, FileEntry, JobId, JobSpec, OutputFile};
use gleaner_store::{Envelope, ServerRow};
use gleaner_wire::{unpack_record, v1};
use std::sync::Arc;

/// Attempts read from the store at a time.
const PAGE_ATTEMPTS: usize = 256;

/// Inputs that travel with the task; more of them come as a listing.
const INPUTS_WITH_TASK: usize = 256;

/// Most bytes of `{outputs}` as arguments: Linux takes 2 MiB of arguments and environment.
const ARGUMENT_BYTES_MAX: usize = 1 << 20;

/// The record in an attempt's row, or what is wrong with it.
pub(crate) fn outputs_of(row: &[u8]) -> Result<AttemptRecord, String> {
    let envelope = Envelope::decode(row).ok_or("an attempt came home without its record")?;
    let nonsense = |why: String| format!("an attempt's record makes no sense: {why}");
    let json = unpack_record(envelope.record).map_err(nonsense)?;
    serde_json::from_slice(&json).map_err(|error| nonsense(error.to_string()))
}

/// Whether an output is one that the job asked for: the declared ones, or stdout where there are
/// none.
pub(crate) fn declared(outputs: &[String], file: &OutputFile) -> bool {
    let stream = file.name == "stdout" || file.name == "stderr";
    match outputs.is_empty() {
        true => file.name == "stdout",
        false => !stream || outputs.contains(&file.name),
    }
}

/// The merge command's task.
pub(crate) async fn merge_task(
    shared: &Arc<Shared>,
    job: JobId,
    plan: &Arc<JobPlan>,
    number: u32,
) -> Result<v1::Task, Setback> {
    let (worker, worker_plan) = (Arc::clone(shared), Arc::clone(plan));
    let built = blocking(move || build(&worker, job, &worker_plan, number)).await;
    let (task, listing) = built??;
    if let Some(digest) = listing {
        let (reply, stored) = tokio::sync::oneshot::channel();
        let rows = vec![ServerRow::Ref(job, digest)];
        shared.driver.send(Message::Rows(rows, None, reply)).await;
        // In trouble the task is given back anyway, and comes again.
        let _trouble = stored.await;
    }
    Ok(task)
}

fn build(
    shared: &Shared,
    job: JobId,
    plan: &JobPlan,
    number: u32,
) -> Result<(v1::Task, Option<Digest>), Setback> {
    let files = gather(shared, job, plan)?;
    let template = plan
        .merge_template()
        .ok_or_else(|| Setback::Final("the job has no merge command".to_owned()))?;
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let mut task = v1::Task {
        index: plan.count(),
        number,
        command: fill(&template.command, &names).map_err(Setback::Final)?,
        ..v1::Task::default()
    };
    if files.len() <= INPUTS_WITH_TASK {
        let inputs = files.into_iter();
        task.inputs = inputs
            .map(|file| wire_input(file.name, &file.blob, file.mode))
            .collect();
        return Ok((task, None));
    }
    let mut listing = Vec::new();
    for file in &files {
        let written = serde_json::to_writer(&mut listing, file);
        written.map_err(|error| Setback::Final(error.to_string()))?;
        listing.push(b'\n');
    }
    let stored = shared.blobs.put_many(&[listing])?;
    let digest = stored
        .first()
        .map(|blob| blob.digest)
        .ok_or_else(|| Setback::Final("nothing was stored".to_owned()))?;
    task.listing = digest.0.to_vec();
    Ok((task, Some(digest)))
}

/// Every output of every done task, in task order.
fn gather(shared: &Shared, job: JobId, plan: &JobPlan) -> Result<Vec<FileEntry>, Setback> {
    let spec: &JobSpec = plan.spec();
    let (mut files, mut next) = (Vec::new(), 0);
    while next < plan.count() {
        let page = shared.store.results(job, next, PAGE_ATTEMPTS)?;
        let Some(last) = page.last() else { break };
        next = last.attempt.task.index + 1;
        for row in page
            .iter()
            .filter(|row| row.attempt.task.index < plan.count())
        {
            let record = outputs_of(&row.record).map_err(Setback::Final)?;
            let wanted = record.outputs.into_iter();
            let wanted = wanted.filter(|file| declared(&spec.task.outputs, file));
            files.extend(wanted.map(|file| FileEntry {
                name: format!("{}/{}", row.attempt.task.index, file.name),
                blob: file.blob,
                mode: file.mode,
            }));
        }
    }
    Ok(files)
}

/// `{outputs}` as an argument of its own becomes many; inside another argument, one text.
fn fill(command: &[String], names: &[&str]) -> Result<Vec<String>, String> {
    let mut filled = Vec::new();
    for argument in command {
        match argument.as_str() {
            "{outputs}" => filled.extend(names.iter().map(|name| (*name).to_owned())),
            text if text.contains("{outputs}") => {
                filled.push(text.replace("{outputs}", &names.join(" ")));
            }
            text => filled.push(text.to_owned()),
        }
    }
    let bytes: usize = filled.iter().map(|argument| argument.len() + 1).sum();
    if bytes > ARGUMENT_BYTES_MAX {
        return Err(format!(
            "`{{outputs}}` of {} files is {bytes} bytes long, more than a program can be given; \
             let the merge command look into its directory instead",
            names.len()
        ));
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_become_arguments_in_task_order() {
        let command = ["sort", "-m", "{outputs}", "all={outputs}", "{other}"].map(String::from);
        let filled = fill(&command, &["0/stdout", "1/stdout"]).unwrap();
        let expected = [
            "sort",
            "-m",
            "0/stdout",
            "1/stdout",
            "all=0/stdout 1/stdout",
            "{other}",
        ];
        assert_eq!(filled, expected);
        let long = "x".repeat(1000);
        let many = vec![long.as_str(); 2000];
        assert!(
            fill(&command, &many)
                .unwrap_err()
                .contains("look into its directory")
        );
    }
}
