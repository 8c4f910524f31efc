//! What leaves for one agent, in the protocol's words: tasks are computed here, at the last
//! moment, from the job's plan.

use super::BEAT_MS;
use super::carried::Carried;
use crate::collect;
use crate::driver::{FromNode, Outgoing, View};
use crate::error::Setback;
use crate::shared::{Shared, blocking};
use crate::split::JobPlan;
use gleaner_core::{AttemptEnd, Bundle, CheckpointRow, Event, LEASE, NodeWish};
use gleaner_model::{AttemptId, JobId, Reason, TaskId};
use gleaner_wire::v1::server_message::Kind;
use gleaner_wire::{PROTOCOL, v1};
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// From this many bytes on a batch is sent and another begun: far below what either side takes.
const BATCH_BYTES: usize = 1 << 20;

/// How long tasks that cannot be sent now stay away from their turn.
const AGAIN: Duration = Duration::from_secs(1);

/// Messages in the protocol's words, for an agent that was sent these templates before.
pub(super) async fn say(
    shared: &Arc<Shared>,
    carried: &mut Carried,
    messages: Vec<Outgoing>,
) -> Vec<Result<v1::ServerBatch, Status>> {
    Speaker { shared, carried }.say(messages).await
}

/// Speaks to one agent.
#[derive(Debug)]
struct Speaker<'a> {
    shared: &'a Arc<Shared>,
    carried: &'a mut Carried,
}

/// A batch while it is filled.
#[derive(Default)]
struct Filling {
    whole: Vec<Result<v1::ServerBatch, Status>>,
    current: v1::ServerBatch,
    bytes: usize,
}

impl Filling {
    fn push(&mut self, kind: Kind) {
        let message = v1::ServerMessage { kind: Some(kind) };
        self.bytes += message.encoded_len();
        self.current.messages.push(message);
        if self.bytes >= BATCH_BYTES {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if !self.current.messages.is_empty() {
            self.whole.push(Ok(std::mem::take(&mut self.current)));
            self.bytes = 0;
        }
    }
}

fn attempts(ids: Vec<AttemptId>) -> Vec<v1::Attempt> {
    ids.into_iter().map(Into::into).collect()
}

const fn word(wish: NodeWish) -> &'static str {
    match wish {
        NodeWish::Pause => "pause",
        NodeWish::Resume => "resume",
        NodeWish::Drain => "drain",
        NodeWish::Evict => "evict",
    }
}

impl Speaker<'_> {
    async fn say(&mut self, messages: Vec<Outgoing>) -> Vec<Result<v1::ServerBatch, Status>> {
        let mut filling = Filling::default();
        for message in messages {
            match message {
                Outgoing::Welcome(node) => filling.push(Kind::Welcome(v1::Welcome {
                    node: node.0,
                    lease_ms: u32::try_from(LEASE.ms).unwrap_or(u32::MAX),
                    beat_ms: BEAT_MS,
                    protocol: PROTOCOL,
                    settings: self.shared.node_settings.clone(),
                })),
                Outgoing::Refuse(status) => {
                    filling.cut();
                    filling.whole.push(Err(status));
                }
                Outgoing::Bundle(bundle) => {
                    if let Some(bundle) = self.bundle(bundle).await {
                        filling.push(Kind::Bundle(bundle));
                    }
                }
                Outgoing::Revoke(ids) => filling.push(Kind::Revoke(v1::Revoke {
                    attempts: attempts(ids),
                })),
                Outgoing::Acknowledge(ids) => filling.push(Kind::Acknowledge(v1::Acknowledge {
                    attempts: attempts(ids),
                })),
                Outgoing::Kept {
                    attempt,
                    taken,
                    kept,
                } => filling.push(Kind::Kept(v1::Kept {
                    attempt: Some(attempt.into()),
                    taken: taken.ms,
                    kept,
                })),
                Outgoing::Wish(wish) => filling.push(Kind::Wish(v1::Wish {
                    wish: word(wish).to_owned(),
                })),
                Outgoing::Log(request) => filling.push(Kind::LogRequest(request)),
            }
        }
        filling.cut();
        filling.whole
    }

    async fn plan(&self, job: JobId) -> Result<Arc<JobPlan>, Setback> {
        if let Some(plan) = self.shared.plans.cached(job) {
            return Ok(plan);
        }
        let shared = Arc::clone(self.shared);
        Ok(blocking(move || shared.plans.get(job)).await??)
    }

    /// None where no task of it can be computed; the driver hears why.
    async fn bundle(&mut self, bundle: Bundle) -> Option<v1::Bundle> {
        let plan = match self.plan(bundle.job).await {
            Ok(plan) => plan,
            Err(why) => {
                self.give_back(&bundle, bundle.tasks.clone(), why).await;
                return None;
            }
        };
        let saved = match self.saved(&bundle).await {
            Ok(saved) => saved,
            Err(why) => {
                // They would begin anew and lose what was done.
                self.give_back(&bundle, bundle.tasks.clone(), why).await;
                return None;
            }
        };
        let merge = bundle.tasks.iter().any(|(index, _)| *index >= plan.count());
        let (mut tasks, mut failed) = (Vec::with_capacity(bundle.tasks.len()), Vec::new());
        let mut why = None;
        for (index, number) in &bundle.tasks {
            let task = match *index >= plan.count() {
                true => collect::merge_task(self.shared, bundle.job, &plan, *number).await,
                false => plan.task(*index, *number).map_err(Setback::from),
            };
            match task {
                Ok(mut task) => {
                    if let Some(row) = saved.get(index) {
                        task.checkpoint.clone_from(&row.saved.record);
                        task.checkpoints = row.count;
                    }
                    tasks.push(task);
                }
                Err(error) => {
                    failed.push((*index, *number));
                    why = Some(error);
                }
            }
        }
        if let Some(why) = why {
            self.give_back(&bundle, failed, why).await;
        }
        if tasks.is_empty() {
            return None;
        }
        let template = self.template(bundle.job, &plan, merge);
        let template = match template {
            Some(template) => Some(self.named(bundle.job, template).await),
            None => None,
        };
        Some(v1::Bundle {
            lease: bundle.lease.0,
            job: bundle.job.0,
            width: bundle.width,
            engine: bundle.engine.map(|e| e.to_string()).unwrap_or_default(),
            template,
            tasks,
        })
    }

    /// What the bundle's tasks go on from.
    async fn saved(&self, bundle: &Bundle) -> Result<BTreeMap<u32, CheckpointRow>, Setback> {
        if bundle.saved.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (shared, job) = (Arc::clone(self.shared), bundle.job);
        let wanted: Vec<u32> = bundle.saved.keys().copied().collect();
        let read = blocking(move || {
            let mut found = BTreeMap::new();
            for index in wanted {
                // None where the task ended meanwhile: it is revoked next.
                if let Some(row) = shared.store.checkpoint(TaskId::new(job, index))? {
                    found.insert(index, row);
                }
            }
            Ok::<_, gleaner_store::StoreError>(found)
        });
        Ok(read.await??)
    }

    /// The job's template, where this connection has not carried it. The merge command has one of
    /// its own, which takes the place of the other at the agent.
    fn template(&mut self, job: JobId, plan: &JobPlan, merge: bool) -> Option<v1::Template> {
        if merge {
            self.carried.forget(job);
            return plan.merge_template().cloned();
        }
        self.carried.is_new(job).then(|| plan.template().clone())
    }

    /// Adds what the owner of the node is told: the job's name, and for whom it runs.
    async fn named(&self, job: JobId, template: v1::Template) -> v1::Template {
        let look = move |view: &View<'_>| {
            let job = view.state.job(job)?;
            Some((job.name.clone(), view.user(job.user)))
        };
        // A driver in trouble names nobody; the task itself is none the worse for it.
        let (job_name, user) = self
            .shared
            .driver
            .read(look)
            .await
            .ok()
            .flatten()
            .unwrap_or_default();
        v1::Template {
            job_name,
            user,
            ..template
        }
    }

    /// Attempts that cannot be sent end here, so that their user hears why. Where the server's disk
    /// or store failed it is not the task's fault, and it is tried again.
    async fn give_back(&self, bundle: &Bundle, tasks: Vec<(u32, u32)>, why: Setback) {
        tracing::error!(job = %bundle.job, ?why, "tasks cannot be dispatched");
        let reason = match why {
            Setback::Final(detail) => Reason::Engine { detail },
            Setback::Later(why) => {
                tokio::time::sleep(AGAIN).await;
                let detail = format!("the server could not send the task: {why}");
                Reason::Evicted { detail }
            }
        };
        let reports = tasks.into_iter().map(|(index, number)| FromNode {
            event: Event::Ended(AttemptEnd {
                node: bundle.node,
                attempt: TaskId::new(bundle.job, index).attempt(number),
                reason: reason.clone(),
                cpu_seconds: 0.0,
                busy_seconds: 0.0,
                kernel: None,
                record: Vec::new(),
                saved: None,
            }),
            blobs: Vec::new(),
        });
        self.shared.driver.report(reports.collect()).await;
    }
}
