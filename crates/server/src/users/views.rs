//! The brain's views and the store's rows as the types of the REST interface.

use crate::collect::outputs_of;
use crate::driver::{NodeSide, View};
use gleaner_api::{AttemptView, JobView, NodeView, TaskCounts, TaskView};
use gleaner_core::AttemptRow;
use gleaner_model::{AttemptRecord, Reason, TaskState, Time};
use std::collections::BTreeMap;

/// RFC 3339 in UTC.
pub(super) fn time(time: Time) -> String {
    let ms = i64::try_from(time.ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |t| t.to_string())
}

/// A job without its tags, which only its body knows.
pub(super) fn job(view: &View<'_>, job: gleaner_core::JobView, revision: u64) -> JobView {
    let counts = &job.counts;
    JobView {
        id: job.id,
        state: job.state,
        reason: job.reason,
        user: view.user(job.user),
        priority: job.priority,
        tags: BTreeMap::new(),
        image: None,
        task_count: counts.total(),
        tasks: TaskCounts {
            waiting: counts.waiting,
            ready: counts.ready,
            running: counts.running,
            done: counts.done,
            failed: counts.failed,
            cancelled: counts.cancelled,
        },
        submitted: time(job.created),
        started: job.started.map(time),
        ended: job.ended.map(time),
        checkpoints: job.checkpoints,
        cpu_seconds: view.side.job_cpu.get(&job.id).copied().unwrap_or(0.0),
        revision,
        name: job.name,
    }
}

/// A task as the brain has it, with the node's name.
pub(super) struct TaskNow {
    pub(super) task: gleaner_core::TaskView,
    pub(super) node: Option<String>,
}

pub(super) fn task_now(view: &View<'_>, task: gleaner_core::TaskView) -> TaskNow {
    TaskNow {
        node: task.running.map(|(_, node, _)| view.node(node)),
        task,
    }
}

/// A task, from what runs of it and what ended of it, oldest first.
pub(super) fn task(now: TaskNow, name: String, ended: &[EndedAttempt]) -> TaskView {
    let TaskNow { task, node } = now;
    let made = ended.last().map_or(0, |last| last.row.attempt.number);
    let last = telling(ended);
    let running = task
        .running
        .map(|(attempt, _, state)| (attempt.number, state));
    let record = last.and_then(|last| last.record.as_ref());
    let reason = match (&task.reason, last) {
        (Some(reason), _) => reason.to_string(),
        (None, Some(last)) if task.state != TaskState::Done => last.reason(),
        (None, _) => String::new(),
    };
    let exit_code = record.and_then(|record| {
        let Reason::Exit { code } = record.reason else {
            return None;
        };
        Some(code)
    });
    TaskView {
        id: task.id,
        name,
        state: task.state,
        reason,
        node: node.or_else(|| last.map(|last| last.node.clone())),
        attempts: running.map_or(made, |running| running.0),
        exit_code,
        cpu_seconds: record.map_or(0.0, |record| record.usage.cpu_seconds),
        wall_seconds: record.map_or(0.0, |record| record.wall_seconds),
        checkpoints: match &task.checkpoint {
            Some((count, _)) => *count,
            None => record.map_or(0, |record| record.checkpoints),
        },
        checkpoint: task.checkpoint.map(|(_, attempt)| attempt.to_string()),
        went_on_from: record
            .and_then(|record| record.went_on_from)
            .map(|attempt| attempt.to_string()),
    }
}

/// Of a task's ended attempts, oldest first, the one that tells how it stands: that which made it
/// done, else the last. A success may come home after its lease was over, when a later attempt has
/// begun and is taken back.
fn telling(ended: &[EndedAttempt]) -> Option<&EndedAttempt> {
    let done = |ended: &&EndedAttempt| ended.row.task_over == Some(TaskState::Done);
    ended.iter().find(done).or_else(|| ended.last())
}

/// An ended attempt with its record read.
pub(super) struct EndedAttempt {
    pub(super) row: AttemptRow,
    pub(super) record: Option<AttemptRecord>,
    pub(super) node: String,
}

impl EndedAttempt {
    pub(super) fn new(row: AttemptRow, node: String) -> Self {
        let record = outputs_of(&row.record).ok();
        Self { row, record, node }
    }

    fn reason(&self) -> String {
        match &self.record {
            Some(record) => record.reason.to_string(),
            None => self.row.state.to_string(),
        }
    }

    pub(super) fn view(self) -> AttemptView {
        AttemptView {
            id: self.row.attempt.to_string(),
            state: self.row.state.to_string(),
            reason: self.reason(),
            node: self.node,
            record: self.record.map(|record| record.map_times(time)),
        }
    }
}

pub(super) fn node(node: gleaner_core::NodeView, side: Option<&NodeSide>) -> NodeView {
    let known = side.cloned().unwrap_or_default();
    NodeView {
        id: node.id.0,
        name: if node.name.is_empty() {
            known.name
        } else {
            node.name
        },
        state: node.state,
        reason: node.reason,
        arch: node.arch,
        engines: node.engines.iter().map(ToString::to_string).collect(),
        labels: node.labels,
        cpus: f64::from(node.cpus.milli) / 1000.0,
        cpus_used: f64::from(node.cpus_used.milli) / 1000.0,
        memory: node.memory.0,
        memory_used: node.memory_used.0,
        disk: node.disk.0,
        running: node.running,
        tasks_done: known.done,
        seen: node.heard.map(time),
        version: known.version,
    }
}
