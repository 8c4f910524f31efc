//! Tasks of a job, a page at a time, and one task with its attempts.

use super::body::{Asked, Path, id};
use super::jobs::{accepted, may_steer, no_job};
use super::views::{self, EndedAttempt, TaskNow};
use crate::auth::User;
use crate::driver::View;
use crate::error::ApiError;
use crate::shared::{Shared, blocking};
use axum::Json;
use axum::extract::State;
use gleaner_api::{Accepted, AttemptView, TaskDetail, TaskView};
use gleaner_core::{AttemptRow, Event, Refusal, Target};
use gleaner_model::{JobId, NodeId, TaskId, TaskState};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tasks in one answer: as asked, at most.
const LIST: (u32, u32) = (100, 1000);

/// Tasks that one look at the state may pass over in search of a rare state: some milliseconds
/// of the driver.
const LOOK_TASKS: u32 = 10_000;

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    state: Option<String>,
    after: Option<u32>,
    limit: Option<u32>,
}

/// Names of nodes, as the driver knows them.
async fn node_names(
    shared: &Shared,
    nodes: Vec<NodeId>,
) -> Result<BTreeMap<NodeId, String>, ApiError> {
    let look = move |view: &View<'_>| {
        nodes
            .into_iter()
            .map(|node| (node, view.node(node)))
            .collect::<BTreeMap<_, _>>()
    };
    Ok(shared.driver.read(look).await?)
}

async fn ended(shared: &Shared, rows: Vec<AttemptRow>) -> Result<Vec<EndedAttempt>, ApiError> {
    let names = node_names(shared, rows.iter().map(|row| row.node).collect()).await?;
    let named = |row: AttemptRow| {
        let node = names.get(&row.node).cloned().unwrap_or_default();
        EndedAttempt::new(row, node)
    };
    Ok(rows.into_iter().map(named).collect())
}

/// The tasks of a page, as the brain has them.
async fn find(shared: &Shared, job: JobId, query: &ListQuery) -> Result<Vec<TaskNow>, ApiError> {
    let wanted = match &query.state {
        None => None,
        Some(word) => Some(TaskState::from_word(word).ok_or_else(|| {
            let words: Vec<&str> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
            ApiError::bad(format!(
                "{word:?} is no state of a task; there are {}",
                words.join(", ")
            ))
        })?),
    };
    let limit = query.limit.unwrap_or(LIST.0).min(LIST.1) as usize;
    let total = shared
        .driver
        .job(job)
        .await?
        .ok_or_else(|| no_job(job))?
        .counts
        .total();
    let total = u32::try_from(total).unwrap_or(u32::MAX);
    let mut next = query.after.map_or(0, |after| after.saturating_add(1));
    let mut found = Vec::new();
    while next < total && found.len() < limit {
        let (from, to, room) = (
            next,
            total.min(next.saturating_add(LOOK_TASKS)),
            limit - found.len(),
        );
        let look = move |view: &View<'_>| {
            let tasks = (from..to).filter_map(|index| view.state.task(TaskId::new(job, index)));
            let tasks = tasks.filter(|task| wanted.is_none_or(|wanted| task.state == wanted));
            tasks
                .take(room)
                .map(|task| views::task_now(view, task))
                .collect::<Vec<_>>()
        };
        found.extend(shared.driver.read(look).await?);
        next = to;
    }
    Ok(found)
}

/// What tells how each of these tasks stands, asked for in runs of neighbours.
fn last_attempts(
    shared: &Shared,
    job: JobId,
    tasks: &[TaskNow],
) -> Result<Vec<AttemptRow>, ApiError> {
    let mut rows = Vec::new();
    for run in tasks.chunk_by(|a, b| a.task.id.index + 1 == b.task.id.index) {
        if let (Some(first), Some(last)) = (run.first(), run.last()) {
            let (from, to) = (first.task.id.index, last.task.id.index + 1);
            rows.extend(shared.store.last_attempts(job, from, to)?);
        }
    }
    Ok(rows)
}

/// A page of a job's tasks.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/tasks", responses((status = 200, body = Vec<TaskView>)))]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    _user: User,
    Path(job): Path<String>,
    Asked(query): Asked<ListQuery>,
) -> Result<Json<Vec<TaskView>>, ApiError> {
    let job: JobId = id(&job)?;
    let tasks = find(&shared, job, &query).await?;
    let worker = Arc::clone(&shared);
    let read = blocking(move || {
        let rows = last_attempts(&worker, job, &tasks)?;
        let plan = worker.plans.get(job)?;
        let names: Vec<String> = tasks
            .iter()
            .map(|now| plan.task_name(now.task.id.index))
            .collect();
        Ok::<_, ApiError>((tasks, rows, names))
    });
    let (tasks, rows, names) = read.await??;
    let mut last: BTreeMap<u32, Vec<EndedAttempt>> = BTreeMap::new();
    for ended in ended(&shared, rows).await? {
        let of_task = last.entry(ended.row.attempt.task.index).or_default();
        of_task.push(ended);
    }
    let views = tasks.into_iter().zip(names).map(|(now, name)| {
        let its = last.get(&now.task.id.index).map_or(&[][..], Vec::as_slice);
        views::task(now, name, its)
    });
    Ok(Json(views.collect()))
}

/// A task as it is now; what is wrong with its id where there is none.
pub(super) async fn now(shared: &Shared, task: TaskId) -> Result<TaskNow, ApiError> {
    let look = move |view: &View<'_>| {
        let found = view
            .state
            .task(task)
            .map(|found| views::task_now(view, found));
        found.ok_or_else(|| match view.state.job(task.job) {
            None => no_job(task.job),
            Some(job) => {
                let last = u32::try_from(job.counts.total())
                    .unwrap_or(u32::MAX)
                    .saturating_sub(1);
                Refusal::NoTask(task.job, task.index, last).into()
            }
        })
    };
    shared.driver.read(look).await?
}

/// One task with its attempts.
#[utoipa::path(get, path = "/api/v1/tasks/{id}", responses((status = 200, body = TaskDetail)))]
pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    _user: User,
    Path(task): Path<String>,
) -> Result<Json<TaskDetail>, ApiError> {
    let task: TaskId = id(&task)?;
    let now = now(&shared, task).await?;
    let worker = Arc::clone(&shared);
    let read = blocking(move || {
        let rows = worker.store.attempts(task)?;
        let name = worker.plans.get(task.job)?.task_name(task.index);
        Ok::<_, ApiError>((rows, name))
    });
    let (rows, name) = read.await??;
    let mut ended = ended(&shared, rows).await?;
    let running = now.task.running;
    // An attempt that came back with its node runs again: its row is void.
    ended.retain(|ended| running.is_none_or(|running| running.0 != ended.row.attempt));
    let running = running.map(|(attempt, _, state)| AttemptView {
        id: attempt.to_string(),
        state: state.to_string(),
        node: now.node.clone().unwrap_or_default(),
        reason: String::new(),
        record: None,
    });
    let view = views::task(now, name, &ended);
    let attempts = ended.into_iter().map(EndedAttempt::view).chain(running);
    Ok(Json(TaskDetail {
        task: view,
        attempts_made: attempts.collect(),
    }))
}

/// `cancel` or `retry` of a task.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/{verb}", responses((status = 200, body = Accepted)))]
pub(super) async fn control(
    State(shared): State<Arc<Shared>>,
    user: User,
    Path((task, verb)): Path<(String, String)>,
) -> Result<Json<Accepted>, ApiError> {
    let task: TaskId = id(&task)?;
    let event = match verb.as_str() {
        "cancel" => Event::Cancel(Target::Task(task)),
        "retry" => Event::Retry(Target::Task(task)),
        _ => {
            let sentence = format!("a task cannot {verb}; it can cancel and retry");
            return Err(ApiError::not_found(sentence));
        }
    };
    may_steer(&shared, user, task.job).await?;
    accepted(&shared, event).await
}
