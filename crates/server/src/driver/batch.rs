//! One batch: its rows until the commit, and what leaves after it.

use super::handle::{Connected, Outgoing};
use super::side::{Touched, View};
use crate::error::Trouble;
use gleaner_core::{Action, AttemptEnd, Reply, Row};
use gleaner_model::{Digest, JobId, NodeId};
use gleaner_store::ServerRow;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::oneshot;

type Read = Box<dyn FnOnce(&View<'_>) + Send>;

/// Everything that a batch of messages led to, held back until it is durable.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) rows: Vec<Row>,
    pub(super) server: Vec<ServerRow>,
    pub(super) outgoing: BTreeMap<NodeId, Vec<Outgoing>>,
    pub(super) replies: Vec<(oneshot::Sender<Result<Reply, Trouble>>, Reply)>,
    pub(super) stored: Vec<oneshot::Sender<Result<(), Trouble>>>,
    pub(super) connected: Vec<(oneshot::Sender<Connected>, Connected)>,
    pub(super) changed: BTreeSet<JobId>,
    /// Jobs that were deleted.
    pub(super) gone: Vec<JobId>,
    pub(super) merges: Vec<JobId>,
    pub(super) reads: Vec<Read>,
    pub(super) touched: Touched,
    pub(super) events: u64,
    /// Of these, what agents reported.
    pub(super) reports: u64,
    pub(super) dispatched: u64,
    pub(super) done: u64,
}

/// What the server knows of an end beside the brain: its CPU and the blobs it brought.
pub(super) struct EndFacts {
    pub(super) attempt: gleaner_model::AttemptId,
    pub(super) cpu_seconds: f64,
    pub(super) blobs: Vec<Digest>,
}

impl EndFacts {
    pub(super) const fn new(end: &AttemptEnd, blobs: Vec<Digest>) -> Self {
        Self {
            attempt: end.attempt,
            cpu_seconds: end.cpu_seconds,
            blobs,
        }
    }
}

impl Batch {
    /// Sorts actions by what they wait for; gives back the reply, if one of them is one.
    pub(super) fn absorb(
        &mut self,
        actions: Vec<Action>,
        end: Option<&EndFacts>,
        side: &mut super::side::Side,
    ) -> Option<Reply> {
        let mut reply = None;
        for action in actions {
            match action {
                Action::Write(row) => {
                    if let Row::Attempt(attempt) = &row {
                        let own = end.filter(|end| end.attempt == attempt.attempt);
                        side.ended(
                            attempt,
                            own.map_or(0.0, |end| end.cpu_seconds),
                            &mut self.touched,
                        );
                        let job = attempt.attempt.task.job;
                        let blobs = own.map(|end| end.blobs.iter()).into_iter().flatten();
                        self.server
                            .extend(blobs.map(|blob| ServerRow::Ref(job, *blob)));
                        self.done += u64::from(attempt.task_over.is_some());
                    }
                    if let Row::JobGone(job) = &row {
                        side.forget(*job, &mut self.touched);
                        self.server.retain(|row| row.job() != Some(*job));
                        self.gone.push(*job);
                    }
                    self.rows.push(row);
                }
                Action::Reply(answer) => reply = Some(answer),
                Action::Dispatch(bundle) => {
                    self.dispatched += bundle.tasks.len() as u64;
                    self.to(bundle.node, Outgoing::Bundle(bundle));
                }
                Action::Revoke { node, attempts } => self.to(node, Outgoing::Revoke(attempts)),
                Action::Acknowledge { node, attempts } => self.acknowledge(node, attempts),
                Action::Kept {
                    node,
                    attempt,
                    taken,
                    kept,
                } => self.to(
                    node,
                    Outgoing::Kept {
                        attempt,
                        taken,
                        kept,
                    },
                ),
                Action::Wish { node, wish } => self.to(node, Outgoing::Wish(wish)),
                Action::Merge { job } => self.merges.push(job),
                Action::Changed { job } => {
                    self.changed.insert(job);
                }
            }
        }
        reply
    }

    fn to(&mut self, node: NodeId, message: Outgoing) {
        self.outgoing.entry(node).or_default().push(message);
    }

    /// Neighbouring acknowledgements become one: they come one a task.
    fn acknowledge(&mut self, node: NodeId, attempts: Vec<gleaner_model::AttemptId>) {
        let queue = self.outgoing.entry(node).or_default();
        if let Some(Outgoing::Acknowledge(known)) = queue.last_mut() {
            known.extend(attempts);
        } else {
            queue.push(Outgoing::Acknowledge(attempts));
        }
    }
}
