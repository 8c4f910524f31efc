//! What the server counts and names beside the brain: users, nodes' identities, sums.

use gleaner_core::{AttemptRow, State};
use gleaner_model::{AttemptState, JobId, NodeId, TaskState, UserId};
use gleaner_store::{Loaded, ServerRow};
use std::collections::{BTreeMap, BTreeSet};

/// A node as the server knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeSide {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) done: u64,
}

/// Beside the brain's state; rebuilt with it.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) users: BTreeMap<UserId, String>,
    pub(crate) nodes: BTreeMap<NodeId, NodeSide>,
    pub(crate) job_cpu: BTreeMap<JobId, f64>,
    identities: BTreeMap<String, NodeId>,
}

/// What a batch changed here; becomes rows once, at its end.
#[derive(Debug, Default)]
pub(super) struct Touched {
    jobs: BTreeSet<JobId>,
    nodes: BTreeSet<NodeId>,
}

/// The durable state, for whoever reads.
pub(crate) struct View<'a> {
    pub(crate) state: &'a State,
    pub(crate) side: &'a Side,
}

impl View<'_> {
    pub(crate) fn user(&self, user: UserId) -> String {
        let name = self.side.users.get(&user);
        name.map_or_else(|| user.to_string(), Clone::clone)
    }

    pub(crate) fn node(&self, node: NodeId) -> String {
        let known = self.side.nodes.get(&node);
        known.map_or_else(|| node.to_string(), |known| known.name.clone())
    }

    /// The nodes that `text` names: by name first, else by number. A PC that was set up anew has the
    /// name of the node that it was before.
    pub(crate) fn find_nodes(&self, text: &str) -> Vec<NodeId> {
        let known = self.side.nodes.iter();
        let named = known.filter(|(_, node)| node.name == text);
        let named: Vec<NodeId> = named.map(|(id, _)| *id).collect();
        if !named.is_empty() {
            return named;
        }
        let number = text.parse().ok();
        let number = number.filter(|id| self.side.nodes.contains_key(id));
        number.into_iter().collect()
    }
}

impl Side {
    pub(super) fn new(loaded: &mut Loaded) -> Self {
        let records = std::mem::take(&mut loaded.nodes);
        Self {
            users: std::mem::take(&mut loaded.users).into_iter().collect(),
            identities: records
                .iter()
                .map(|r| (r.identity.clone(), r.node))
                .collect(),
            nodes: records
                .into_iter()
                .map(|record| {
                    let side = NodeSide {
                        name: record.name,
                        version: String::new(),
                        done: record.done,
                    };
                    (record.node, side)
                })
                .collect(),
            job_cpu: std::mem::take(&mut loaded.job_cpu).into_iter().collect(),
        }
    }

    /// The number of an identity; a row where it, or its name, is new.
    pub(super) fn identify(
        &mut self,
        identity: &str,
        name: &str,
        version: &str,
    ) -> (NodeId, Option<ServerRow>) {
        let next = NodeId(self.nodes.last_key_value().map_or(0, |(node, _)| node.0) + 1);
        let node = *self.identities.entry(identity.to_owned()).or_insert(next);
        let side = self.nodes.entry(node).or_default();
        version.clone_into(&mut side.version);
        if side.name == name {
            return (node, None);
        }
        name.clone_into(&mut side.name);
        let row = ServerRow::Node {
            node,
            identity: identity.to_owned(),
            name: name.to_owned(),
        };
        (node, Some(row))
    }

    /// Takes over rows of the server's own that others wrote.
    pub(super) fn learn(&mut self, row: &ServerRow) {
        if let ServerRow::User(user, name) = row {
            self.users.insert(*user, name.clone());
        }
    }

    /// Sums up an attempt's end.
    pub(super) fn ended(&mut self, row: &AttemptRow, cpu_seconds: f64, touched: &mut Touched) {
        if row.state == AttemptState::Leased {
            return;
        }
        let job = row.attempt.task.job;
        if cpu_seconds > 0.0 {
            *self.job_cpu.entry(job).or_insert(0.0) += cpu_seconds;
            touched.jobs.insert(job);
        }
        if row.task_over == Some(TaskState::Done) {
            self.nodes.entry(row.node).or_default().done += 1;
            touched.nodes.insert(row.node);
        }
    }

    /// A job is deleted: no row names it from here on.
    pub(super) fn forget(&mut self, job: JobId, touched: &mut Touched) {
        self.job_cpu.remove(&job);
        touched.jobs.remove(&job);
    }

    pub(super) fn rows(&self, touched: Touched, rows: &mut Vec<ServerRow>) {
        for job in touched.jobs {
            let cpu = self.job_cpu.get(&job).copied().unwrap_or(0.0);
            rows.push(ServerRow::JobCpu(job, cpu));
        }
        for node in touched.nodes {
            let done = self.nodes.get(&node).map_or(0, |side| side.done);
            rows.push(ServerRow::NodeDone(node, done));
        }
    }
}
