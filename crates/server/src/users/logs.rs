//! stdout and stderr of a task: relayed from its node while it runs, from the store afterwards.

use super::body::{Asked, Path, id};
use super::tasks::now;
use crate::auth::User;
use crate::collect::outputs_of;
use crate::contents::{self, Content};
use crate::driver::{Message, Outgoing, Watch};
use crate::error::ApiError;
use crate::shared::{Shared, blocking};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use gleaner_core::{AttemptRow, TaskView};
use gleaner_model::{AttemptId, NodeId, TaskId, TaskState};
use gleaner_wire::v1::LogRequest;
use serde::Deserialize;
use std::convert::Infallible;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

/// Parts that wait for a client that reads slowly.
const PARTS_WAITING: usize = 16;

/// Bytes of stored output sent at a time.
const PART_BYTES: usize = 256 << 10;

/// How long a node may take to answer before it is asked again or given up.
const NODE_WAIT: Duration = Duration::from_secs(5);

/// The same of a node that polls: the request goes with one call and the answer comes with another.
const POLL_WAIT: Duration = Duration::from_secs(30);

/// How long a node may have nothing for who follows before it is asked again: it may not have been
/// connected when it was asked. Longer than two calls of a node that polls.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// How often a followed task is looked at when nothing says that it changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize)]
pub(super) struct LogQuery {
    stream: Option<String>,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    follow: bool,
}

/// A reader that may have gone.
struct Reader {
    shared: Arc<Shared>,
    task: TaskId,
    stream: &'static str,
    follow: bool,
    parts: mpsc::Sender<Result<Bytes, Infallible>>,
    /// Bytes sent of the attempt that is read.
    at: u64,
    attempt: Option<AttemptId>,
}

/// Nothing more can be sent: the client is gone, or the server stops.
struct Over;

/// Bytes of a task's stdout or stderr from `offset` on.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/logs", responses((status = 200)))]
pub(super) async fn logs(
    State(shared): State<Arc<Shared>>,
    _user: User,
    Path(task): Path<String>,
    Asked(query): Asked<LogQuery>,
) -> Result<Response, ApiError> {
    let task: TaskId = id(&task)?;
    let streams: &[&'static str] = match query.stream.as_deref() {
        None => &["stdout", "stderr"],
        Some("stdout") => &["stdout"],
        Some("stderr") => &["stderr"],
        Some(other) => {
            return Err(ApiError::bad(format!(
                "no stream {other:?}; there are stdout and stderr"
            )));
        }
    };
    now(&shared, task).await?;
    let (parts, body) = mpsc::channel(PARTS_WAITING);
    let worker = Arc::clone(&shared);
    shared.tasks.spawn(async move {
        for stream in streams {
            let reader = Reader {
                shared: Arc::clone(&worker),
                task,
                stream,
                follow: query.follow,
                parts: parts.clone(),
                at: query.offset,
                attempt: None,
            };
            let stopped = tokio::select! {
                read = reader.read() => read.is_err(),
                () = worker.stop.cancelled() => true,
            };
            if stopped {
                return;
            }
        }
    });
    let body = Body::from_stream(ReceiverStream::new(body));
    let plain = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((plain, body).into_response())
}

async fn look(shared: &Shared, task: TaskId) -> Result<Option<TaskView>, ApiError> {
    Ok(shared
        .driver
        .read(move |view| view.state.task(task))
        .await?)
}

impl Reader {
    async fn read(mut self) -> Result<(), Over> {
        loop {
            let mut changes = self.shared.driver.changes().watch(self.task.job);
            let seen = look(&self.shared, self.task).await.ok().flatten();
            let Some(now) = seen else { return Ok(()) };
            match now.running {
                Some((attempt, node, _)) => {
                    self.turn_to(attempt);
                    if self.relay((attempt, node), &mut changes).await? {
                        continue;
                    }
                }
                None if now.state.is_over() || !self.follow => return self.stored().await,
                None => {}
            }
            if !self.follow {
                return Ok(());
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.parts.closed() => return Err(Over),
            }
        }
    }

    /// A new attempt starts its output anew.
    fn turn_to(&mut self, attempt: AttemptId) {
        if self.attempt.is_some_and(|before| before != attempt) {
            self.at = 0;
        }
        self.attempt = Some(attempt);
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), Over> {
        self.at += bytes.len() as u64;
        self.parts.send(Ok(bytes)).await.map_err(|_| Over)
    }

    /// What the node has, until the attempt ends or the node falls silent; says whether the
    /// attempt is over, so that the rest is in the store.
    async fn relay(
        &mut self,
        (attempt, node): (AttemptId, NodeId),
        changes: &mut Watch,
    ) -> Result<bool, Over> {
        let shared = Arc::clone(&self.shared);
        let mut wait = shared.logs.wait(node);
        let ask = LogRequest {
            request: wait.request,
            attempt: Some(attempt.into()),
            stream: self.stream.to_owned(),
            offset: self.at,
            follow: self.follow,
            stop: false,
        };
        let tell = |ask| shared.driver.send(Message::Tell(node, Outgoing::Log(ask)));
        tell(ask.clone()).await;
        let stop = LogRequest { stop: true, ..ask };
        let patience = match shared.polls.has(node) {
            true => POLL_WAIT,
            false => NODE_WAIT,
        };
        let mut heard = Instant::now();
        let mut silent_until = heard + patience;
        loop {
            let next = tokio::select! {
                next = wait.chunks.recv() => Some(next),
                // The node looks at the file now and then; that the attempt is over is known here
                // at once. A silent node may also have lost it.
                Ok(()) = changes.changed() => None,
                () = tokio::time::sleep_until(silent_until) => None,
                () = self.parts.closed() => {
                    tell(stop).await;
                    return Err(Over);
                }
            };
            match next {
                Some(Some(chunk)) => {
                    heard = Instant::now();
                    silent_until = heard + patience;
                    // A chunk from further on would leave a hole: ask again from here.
                    if chunk.offset != self.at && !chunk.data.is_empty() {
                        tell(stop).await;
                        return Ok(false);
                    }
                    if !chunk.data.is_empty() && self.send(chunk.data.into()).await.is_err() {
                        tell(stop).await;
                        return Err(Over);
                    }
                    if chunk.last {
                        return Ok(false);
                    }
                }
                Some(None) => return Ok(false),
                None => {
                    let seen = look(&shared, self.task).await.ok().flatten();
                    let same = seen.and_then(|now| now.running).map(|r| r.0) == Some(attempt);
                    if !same {
                        tell(stop).await;
                        return Ok(true);
                    }
                    if Instant::now() >= silent_until {
                        // A followed program may be silent for hours; who wants what is there
                        // now need not wait for a node that does not answer.
                        if !self.follow || heard.elapsed() >= ASK_AGAIN {
                            tell(stop).await;
                            return Ok(false);
                        }
                        silent_until = Instant::now() + patience;
                    }
                }
            }
        }
    }

    /// The rest of what the attempt left that made the task done, or else the last of which a node
    /// told: one that was lost or taken back left nothing.
    async fn stored(&mut self) -> Result<(), Over> {
        let (shared, task, stream) = (Arc::clone(&self.shared), self.task, self.stream);
        let found = blocking(move || {
            let ended = shared.store.attempts(task).ok()?;
            let done = |row: &&AttemptRow| row.task_over == Some(TaskState::Done);
            let done = ended.iter().filter(done);
            let told = |row: &AttemptRow| Some((row.attempt, outputs_of(&row.record).ok()?));
            let (attempt, record) = done.chain(ended.iter().rev()).find_map(told)?;
            let file = record
                .outputs
                .into_iter()
                .find(|file| file.name == stream)?;
            let digest = file.blob.digest;
            let content = contents::find(shared.store.as_ref(), &shared.blobs, &digest).ok()?;
            Some((attempt, content))
        });
        let Ok(Some((attempt, content))) = found.await else {
            return Ok(());
        };
        self.turn_to(attempt);
        match content {
            Content::Bytes(bytes) => {
                let at = usize::try_from(self.at)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                self.send(Bytes::from(bytes).slice(at..)).await
            }
            Content::File(mut file, _) => {
                let sought = file.seek(SeekFrom::Start(self.at));
                while sought.is_ok() {
                    let handle = file.try_clone();
                    let part = blocking(move || {
                        let mut part = vec![0; PART_BYTES];
                        let read = handle
                            .and_then(|mut file| file.read(&mut part))
                            .unwrap_or(0);
                        part.truncate(read);
                        part
                    });
                    let part = part.await.unwrap_or_default();
                    if part.is_empty() {
                        break;
                    }
                    self.send(part.into()).await?;
                }
                Ok(())
            }
        }
    }
}
