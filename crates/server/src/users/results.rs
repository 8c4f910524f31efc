//! What a job made: files of its tasks in their order, then the merged ones.

use super::body::{Asked, Path, id};
use super::jobs::no_job;
use crate::auth::User;
use crate::collect::{declared, outputs_of};
use crate::error::ApiError;
use crate::shared::{Shared, blocking};
use axum::Json;
use axum::extract::State;
use gleaner_api::{ResultFile, ResultPage};
use gleaner_model::{JobId, Merge, OutputFile};
use serde::Deserialize;
use std::sync::Arc;

/// Files in one answer: as asked, at most. A task's files are never cut in two.
const LIST: (usize, usize) = (1000, 10_000);

/// Attempts read from the store at a time.
const PAGE_ATTEMPTS: usize = 256;

#[derive(Debug, Deserialize)]
pub(super) struct PageQuery {
    after: Option<String>,
    limit: Option<usize>,
}

/// A page of a job's result files.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/results", responses((status = 200, body = ResultPage)))]
pub(super) async fn page(
    State(shared): State<Arc<Shared>>,
    _user: User,
    Path(job): Path<String>,
    Asked(query): Asked<PageQuery>,
) -> Result<Json<ResultPage>, ApiError> {
    let job: JobId = id(&job)?;
    shared.driver.job(job).await?.ok_or_else(|| no_job(job))?;
    let next = match query.after.as_deref().map(str::parse) {
        None => 0,
        Some(Ok(next)) => next,
        Some(Err(_)) => {
            return Err(ApiError::bad(
                "`after` must be the `next` of the page before",
            ));
        }
    };
    let limit = query.limit.unwrap_or(LIST.0).clamp(1, LIST.1);
    let worker = Arc::clone(&shared);
    blocking(move || read(&worker, job, next, limit))
        .await?
        .map(Json)
}

fn read(shared: &Shared, job: JobId, from: u32, limit: usize) -> Result<ResultPage, ApiError> {
    let plan = shared.plans.get(job)?;
    let (mut files, mut next) = (Vec::new(), from);
    loop {
        let rows = shared.store.results(job, next, PAGE_ATTEMPTS)?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            if files.len() >= limit {
                return Ok(ResultPage {
                    files,
                    next: Some(next.to_string()),
                });
            }
            let index = row.attempt.task.index;
            let outputs = outputs_of(&row.record).map(|record| record.outputs);
            let outputs = outputs.unwrap_or_default();
            match index < plan.count() {
                true => files.extend(outputs.into_iter().map(|file| result(Some(index), file))),
                false => {
                    let merge = match &plan.spec().collect.merge {
                        Some(Merge::Command(merge)) => merge.outputs.as_slice(),
                        Some(Merge::Concat(_)) | None => &[],
                    };
                    let wanted = outputs.into_iter().filter(|file| declared(merge, file));
                    files.extend(wanted.map(|file| result(None, file)));
                }
            }
            next = index + 1;
        }
    }
    let merged = shared.store.merged(job)?;
    files.extend(merged.into_iter().map(|file| result(None, file)));
    Ok(ResultPage { files, next: None })
}

fn result(index: Option<u32>, file: OutputFile) -> ResultFile {
    ResultFile {
        index,
        name: file.name,
        blob: file.blob,
        mode: file.mode,
    }
}
