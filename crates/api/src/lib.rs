//! The REST interface as types: what `/api/v1` takes and gives, and what `--json` prints.
//!
//! Times are RFC 3339 texts in UTC, sizes bytes, durations seconds. Fields are only ever added.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod patterns;

pub use patterns::check_patterns;

use gleaner_model::{
    AttemptRecord, BlobRef, Digest, JobId, JobState, NodeState, TaskId, TaskState,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An error as every endpoint gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// What is wrong and what to do, one or two sentences.
    pub error: String,
    /// The dotted key of the job file at fault, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// `GET /api/v1/pool`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoolView {
    /// Version of the server.
    pub version: String,
    /// The user whose token asked.
    pub user: String,
    /// Nodes that are connected.
    pub nodes_online: u32,
    /// Why new work is refused just now (a full disk, say); absent when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// How many tasks are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaskCounts {
    /// Held by a dependency or a pause.
    pub waiting: u64,
    /// Could be matched.
    pub ready: u64,
    /// On a node.
    pub running: u64,
    /// Result stored.
    pub done: u64,
    /// No attempt left.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
}

/// A job in listings and alone. `GET /api/v1/jobs`, `GET /api/v1/jobs/{id}`.
///
/// `?after=REVISION` holds the answer (at most 25 s) until the job's revision differs: where the
/// job is over no longer, else at least `pace_ms=N` milliseconds (100 where absent).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobView {
    /// Its id.
    #[schema(value_type = u64)]
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// Its state.
    #[schema(value_type = String)]
    pub state: JobState,
    /// Why it is in that state, where there is something to say.
    pub reason: String,
    /// Who submitted it.
    pub user: String,
    /// Its priority.
    pub priority: i32,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// The root of its tasks, where it names one.
    #[serde(default)]
    pub image: Option<JobImage>,
    /// How many tasks it has, a merge command included.
    pub task_count: u64,
    /// How many in each state.
    pub tasks: TaskCounts,
    /// When it was submitted.
    pub submitted: String,
    /// When its first attempt started.
    pub started: Option<String>,
    /// When it was over.
    pub ended: Option<String>,
    /// CPU seconds of all its attempts.
    pub cpu_seconds: f64,
    /// How often its tasks that are not over were saved.
    #[serde(default)]
    pub checkpoints: u64,
    /// Changes whenever anything above does.
    pub revision: u64,
}

/// The image of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobImage {
    /// As the job file has it.
    pub name: String,
    /// The file that the name stood for when the job was submitted.
    #[schema(value_type = String)]
    pub digest: Digest,
}

/// `POST /api/v1/images`: gives an uploaded image a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NewImage {
    /// What jobs will call it.
    pub name: String,
    /// The uploaded file.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// What it was made of, in words.
    #[serde(default)]
    pub note: String,
}

/// An image in a listing. `GET /api/v1/images`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageView {
    /// Its name: there is one image of a name.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `ready`
    pub state: String,
    /// The file.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Bytes of the file.
    pub size: u64,
    /// When the name came to stand for this file.
    pub created: String,
    /// Who made it so.
    pub user: String,
    /// What it was made of, in words.
    pub note: String,
}

/// A task in a listing. `GET /api/v1/jobs/{id}/tasks?state=&after=INDEX&limit=N`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaskView {
    /// Its id, `J.INDEX`.
    #[schema(value_type = String)]
    pub id: TaskId,
    /// The values of its axes, `name=value` joined by spaces.
    pub name: String,
    /// Its state.
    #[schema(value_type = String)]
    pub state: TaskState,
    /// Why, where there is something to say.
    pub reason: String,
    /// The node of its running or last attempt.
    pub node: Option<String>,
    /// How many attempts it had.
    pub attempts: u32,
    /// Exit code of its last attempt, if it had one.
    pub exit_code: Option<i32>,
    /// CPU seconds of its last attempt.
    pub cpu_seconds: f64,
    /// Wall seconds of its last attempt.
    pub wall_seconds: f64,
    /// How often it was saved.
    #[serde(default)]
    pub checkpoints: u32,
    /// The attempt that was saved last, from which the next goes on; absent where none would: the
    /// task is over, or was never saved.
    #[serde(default)]
    pub checkpoint: Option<String>,
    /// The attempt from which its last ended attempt went on, where it did not begin anew.
    #[serde(default)]
    pub went_on_from: Option<String>,
}

/// One attempt of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AttemptView {
    /// Its id, `J.INDEX.N`.
    pub id: String,
    /// Its state.
    pub state: String,
    /// Where.
    pub node: String,
    /// Why it ended, in words.
    pub reason: String,
    /// All that is known of it, once it ended.
    #[schema(value_type = Option<Object>)]
    pub record: Option<AttemptRecord<String>>,
}

/// A task alone. `GET /api/v1/tasks/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaskDetail {
    /// As in the listing.
    #[serde(flatten)]
    pub task: TaskView,
    /// Its attempts, oldest first.
    pub attempts_made: Vec<AttemptView>,
}

/// A file that a job made. `GET /api/v1/jobs/{id}/results?after=CURSOR&limit=N`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ResultFile {
    /// Which task made it; absent for merged files.
    pub index: Option<u32>,
    /// Its name.
    pub name: String,
    /// Digest and size.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub blob: BlobRef,
    /// Permission bits.
    pub mode: u32,
}

/// A page of results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ResultPage {
    /// The files, by task.
    pub files: Vec<ResultFile>,
    /// Pass as `after` for the next page; absent at the end.
    pub next: Option<String>,
}

/// Why a job waits. `GET /api/v1/jobs/{id}/explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExplainView {
    /// Which job.
    #[schema(value_type = u64)]
    pub id: JobId,
    /// The first rule that keeps a task waiting; absent where nothing does.
    pub rule: Option<String>,
    /// How many nodes fail that rule.
    pub nodes_failing: u32,
    /// How many nodes there are.
    pub nodes: u32,
    /// What holds and what to do, in words.
    pub sentence: String,
    /// Every rule and how many nodes fail it.
    pub rules: Vec<RuleView>,
    /// Why its tasks run as processes or as guests, where the job leaves that open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
}

/// One rule of matching.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RuleView {
    /// Its name.
    pub rule: String,
    /// How many nodes fail it.
    pub nodes_failing: u32,
}

/// A node. `GET /api/v1/nodes?after=NUMBER&limit=N`, `GET /api/v1/nodes/{id or name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeView {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its state.
    #[schema(value_type = String)]
    pub state: NodeState,
    /// Why, in words.
    pub reason: String,
    /// Architecture.
    pub arch: String,
    /// Engines.
    pub engines: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Processors that tasks may use.
    pub cpus: f64,
    /// Of these, given to attempts.
    pub cpus_used: f64,
    /// Memory that tasks may use, in bytes.
    pub memory: u64,
    /// Of that, given to attempts.
    pub memory_used: u64,
    /// Disk that tasks may use, in bytes.
    pub disk: u64,
    /// Attempts there now.
    pub running: u32,
    /// Tasks it has done.
    pub tasks_done: u64,
    /// When it was last heard of; none where that was before the server's start.
    #[serde(default)]
    pub seen: Option<String>,
    /// Version of its agent.
    pub version: String,
}

/// Body of the answer to cancel, pause, resume and retry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Accepted {
    /// How many tasks it touched.
    pub touched: u64,
}

/// `POST /api/v1/blobs/missing`: digests in, those that the server lacks out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DigestList {
    /// Digests.
    #[schema(value_type = Vec<String>)]
    pub digests: Vec<Digest>,
}

/// `POST /api/v1/tokens`: asks for a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NewToken {
    /// `user` or `node`.
    pub kind: String,
    /// The user it stands for (`user`), or a name to know it by (`node`).
    pub name: String,
}

/// A token in a listing, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenView {
    /// Its id, for `gleaner token revoke`.
    pub id: String,
    /// `user` or `node`.
    pub kind: String,
    /// Whom it stands for.
    pub name: String,
    /// `valid` or `revoked`.
    pub state: String,
    /// When it was made.
    pub created: String,
    /// The token itself; only in the answer that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}
