//! Jobs: submit, list, look, wait, steer.

use super::body::{Asked, JsonBody, Path, id};
use super::views;
use crate::auth::{User, forbidden};
use crate::driver::View;
use crate::error::ApiError;
use crate::shared::{Shared, blocking};
use crate::split;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use gleaner_api::{Accepted, ExplainView, JobView, RuleView};
use gleaner_core::{Event, Reply, Rule, Target};
use gleaner_model::{JobId, Submission, UserId};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Longest that an answer is held; below what clients and proxies wait for.
const HOLD: Duration = Duration::from_secs(25);

/// A job that changes all the time is told at most this often; that it is over, at once.
const QUIET: Duration = Duration::from_millis(100);

/// Jobs in one answer: as asked, at most.
const LIST: (u32, u32) = (100, 1000);

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    before: Option<u64>,
    limit: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WaitQuery {
    after: Option<u64>,
    pace_ms: Option<u64>,
}

/// Fills in what only the body knows, and what a merge waits for.
async fn tagged(shared: &Arc<Shared>, mut jobs: Vec<JobView>) -> Result<Vec<JobView>, ApiError> {
    let shared = Arc::clone(shared);
    blocking(move || {
        for job in &mut jobs {
            let shown = shared.plans.shown(job.id)?;
            job.tags.clone_from(&shown.tags);
            job.image.clone_from(&shown.image);
            shared.merge_waits.tell(job);
        }
        Ok(jobs)
    })
    .await?
}

async fn tagged_one(shared: &Arc<Shared>, job: JobView) -> Result<Json<JobView>, ApiError> {
    let mut jobs = tagged(shared, vec![job]).await?;
    jobs.pop().map(Json).ok_or_else(ApiError::crashed)
}

pub(super) fn no_job(job: JobId) -> ApiError {
    ApiError::not_found(format!("no job {job}; `gleaner jobs` lists them"))
}

async fn look(shared: &Shared, job: JobId) -> Result<JobView, ApiError> {
    // Before the look: a change in between makes the next wait short, never endless.
    let revision = shared.driver.changes().revision(job);
    let seen = shared
        .driver
        .read(move |view| {
            let found = view.state.job(job);
            found.map(|job| views::job(view, job, revision))
        })
        .await?;
    seen.ok_or_else(|| no_job(job))
}

/// Submits a job whose files are uploaded. Durable when it answers.
#[utoipa::path(post, path = "/api/v1/jobs", responses((status = 201, body = JobView)))]
pub(super) async fn submit(
    State(shared): State<Arc<Shared>>,
    user: User,
    JsonBody(mut submission): JsonBody<Submission>,
) -> Result<(StatusCode, Json<JobView>), ApiError> {
    if let Some(trouble) = shared.driver.trouble() {
        return Err(trouble.into());
    }
    // A later default changes no job that was submitted before.
    let engine = &mut submission.spec.task.engine;
    *engine = engine.or(Some(shared.default_engine));
    let worker = Arc::clone(&shared);
    let split = blocking(move || {
        let asked = (user.id, submission);
        split::split(worker.store.as_ref(), &worker.blobs, &worker.images, asked)
    });
    let split = split.await??;
    let job = match shared.driver.submit(split.job, split.needs).await? {
        Reply::Submitted(job) => job,
        Reply::Refused(refusal) => return Err(refusal.into()),
        Reply::Accepted(_) => return Err(ApiError::crashed()),
    };
    shared.plans.insert(job, &split.plan);
    let mut seen = look(&shared, job).await?;
    seen.tags = split.plan.spec().job.tags.clone();
    seen.image = split.plan.image();
    Ok((StatusCode::CREATED, Json(seen)))
}

/// Jobs, newest first.
#[utoipa::path(get, path = "/api/v1/jobs", responses((status = 200, body = Vec<JobView>)))]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    _user: User,
    Asked(query): Asked<ListQuery>,
) -> Result<Json<Vec<JobView>>, ApiError> {
    let limit = query.limit.unwrap_or(LIST.0).min(LIST.1) as usize;
    let before = query.before.unwrap_or(u64::MAX);
    let find = move |view: &View<'_>| {
        let jobs = view.state.jobs_before(JobId(before));
        jobs.take(limit)
            .map(|job| views::job(view, job, 0))
            .collect::<Vec<_>>()
    };
    let mut jobs = shared.driver.read(find).await?;
    for job in &mut jobs {
        job.revision = shared.driver.changes().revision(job.id);
    }
    tagged(&shared, jobs).await.map(Json)
}

/// One job; with `after` the answer waits for another revision.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", responses((status = 200, body = JobView)))]
pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    _user: User,
    Path(job): Path<String>,
    Asked(query): Asked<WaitQuery>,
) -> Result<Json<JobView>, ApiError> {
    let job: JobId = id(&job)?;
    let seen = match query.after {
        None => look(&shared, job).await?,
        Some(after) => {
            let pace = query.pace_ms.map_or(QUIET, Duration::from_millis);
            wait(&shared, job, after, pace.min(HOLD)).await?
        }
    };
    tagged_one(&shared, seen).await
}

async fn wait(
    shared: &Shared,
    job: JobId,
    after: u64,
    pace: Duration,
) -> Result<JobView, ApiError> {
    let asked = tokio::time::Instant::now();
    let first = look(shared, job).await?;
    if first.revision != after && first.state.is_over() {
        return Ok(first);
    }
    // Only now, that the job is known to exist: a watch on anything else would stay for good.
    let mut changes = shared.driver.changes().watch(job);
    let changed = async {
        changes.differs(after).await;
        tokio::select! {
            () = changes.over() => {}
            () = tokio::time::sleep_until(asked + pace) => {}
        }
    };
    tokio::select! {
        () = changed => {}
        () = tokio::time::sleep_until(asked + HOLD) => {}
        () = shared.stop.cancelled() => {}
    }
    look(shared, job).await
}

/// Why a job's tasks wait.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/explain", responses((status = 200, body = ExplainView)))]
pub(super) async fn explain(
    State(shared): State<Arc<Shared>>,
    _user: User,
    Path(job): Path<String>,
) -> Result<Json<ExplainView>, ApiError> {
    let job: JobId = id(&job)?;
    let found = shared
        .driver
        .read(move |view| view.state.explain(job))
        .await?;
    let found = found.ok_or_else(|| no_job(job))?;
    let merge = shared.merge_waits.why(job);
    let merge = merge.filter(|_| found.rule == Some(Rule::Dependency));
    let rules = found.counts.iter().map(|(rule, failing)| RuleView {
        rule: rule.as_str().to_owned(),
        nodes_failing: *failing,
    });
    Ok(Json(ExplainView {
        id: job,
        rule: found.rule.map(|rule| rule.as_str().to_owned()),
        nodes_failing: found.failing,
        nodes: found.nodes,
        rules: rules.collect(),
        sentence: merge.unwrap_or(found.text),
        engine: found.engine,
    }))
}

/// Deletes a job that is over: its rows, results and whatever else only it needs. Durable when it
/// answers.
#[utoipa::path(delete, path = "/api/v1/jobs/{id}", responses((status = 200, body = Accepted)))]
pub(super) async fn remove(
    State(shared): State<Arc<Shared>>,
    user: User,
    Path(job): Path<String>,
) -> Result<Json<Accepted>, ApiError> {
    let job: JobId = id(&job)?;
    may_steer(&shared, user, job).await?;
    let done = accepted(&shared, Event::Delete(job)).await?;
    shared.forget(job);
    Ok(done)
}

/// Only who submitted a job, or an admin, may steer it.
pub(super) async fn may_steer(shared: &Shared, user: User, job: JobId) -> Result<(), ApiError> {
    let owner: Option<UserId> = shared.driver.job(job).await?.map(|job| job.user);
    match owner {
        None => Err(no_job(job)),
        Some(owner) if owner == user.id || user.admin => Ok(()),
        Some(_) => Err(forbidden(
            "this job is another user's; ask them or the pool's admin",
        )),
    }
}

pub(super) async fn accepted(shared: &Shared, event: Event) -> Result<Json<Accepted>, ApiError> {
    match shared.driver.user(event).await? {
        Reply::Accepted(touched) => Ok(Json(Accepted { touched })),
        Reply::Submitted(_) => Ok(Json(Accepted { touched: 1 })),
        Reply::Refused(refusal) => Err(refusal.into()),
    }
}

/// `cancel`, `pause`, `resume` or `retry` of a job.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/{verb}", responses((status = 200, body = Accepted)))]
pub(super) async fn control(
    State(shared): State<Arc<Shared>>,
    user: User,
    Path((job, verb)): Path<(String, String)>,
) -> Result<Json<Accepted>, ApiError> {
    let job: JobId = id(&job)?;
    let event = match verb.as_str() {
        "cancel" => Event::Cancel(Target::Job(job)),
        "pause" => Event::PauseJob(job),
        "resume" => Event::ResumeJob(job),
        "retry" => Event::Retry(Target::Job(job)),
        _ => {
            let sentence = format!("a job cannot {verb}; it can cancel, pause, resume and retry");
            return Err(ApiError::not_found(sentence));
        }
    };
    may_steer(&shared, user, job).await?;
    accepted(&shared, event).await
}
