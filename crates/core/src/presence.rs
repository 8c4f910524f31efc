//! Nodes come, beat, fall silent and go, and admins have wishes for them.
//!
//! A node is known from its first hello, or from a row that names it.

use crate::event::{Held, NodeHello, NodeOffer, NodeReport, NodeWish};
use crate::lease::Way;
use crate::matching::would_do;
use crate::node::Node;
use crate::row::{NodeRow, Row};
use crate::state::{LEASE, State};
use crate::{Action, Refusal, Reply};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use gleaner_model::{AttemptId, AttemptState, JobId, NodeId, NodeState};

impl State {
    /// Makes a node known, with a lease's length to be heard of.
    pub(crate) fn meet_node(&mut self, id: NodeId) {
        let deadline = self.now + LEASE;
        self.nodes
            .entry(id)
            .or_insert_with(|| Node::new(id, deadline));
    }

    /// Sets a node's alarm, where none is set. Beats only move the deadline; an alarm that goes
    /// off too early is set again.
    pub(crate) fn arm(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id);
        if let Some(node) = node.filter(|node| node.alarm.is_none()) {
            node.alarm = Some(node.deadline);
            self.alarms.insert((node.deadline, id));
        }
    }

    /// Works out again whether a node takes work, after anything about it changed.
    pub(crate) fn refresh_node(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let takes = node.would_take();
        let was = core::mem::replace(&mut node.takes, takes);
        let room = node.room().cpus > 0;
        if takes && room {
            self.idle.insert(id);
        } else {
            self.idle.remove(&id);
        }
        if takes == was {
            return;
        }
        for entry in self.needs.entries.values_mut() {
            if entry.matching.contains(&id) {
                if takes {
                    entry.taking += 1;
                } else {
                    entry.taking -= 1;
                }
            }
        }
        if !takes {
            // Tasks that shunned another node for this one may have to go back there.
            let stuck: Vec<JobId> = self.troubled.keys().copied().collect();
            self.wake.extend(stuck);
        }
    }

    pub(crate) fn on_hello(&mut self, mut hello: NodeHello) {
        let (id, now) = (hello.node, self.now);
        let held = core::mem::take(&mut hello.held);
        self.meet_node(id);
        self.rematch(&hello);
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.report = NodeState::Online;
        node.report_reason.clear();
        node.hello = Some(hello);
        node.connected = true;
        node.offline = false;
        node.heard = Some(now);
        node.deadline = now + LEASE;
        node.seen = 0;
        node.lost.clear();
        let lacks = core::mem::take(&mut node.lacks);
        let wish = node.wish;
        self.arm(id);
        for job in lacks {
            if let Some(job) = self.jobs.get_mut(&job) {
                job.excluded.remove(&id);
            }
        }
        self.refresh_node(id);
        // Also where there is nothing to wish: the node may have missed the end of an earlier one.
        let wish = wish.unwrap_or(NodeWish::Resume);
        self.out.push(Action::Wish { node: id, wish });
        self.reconcile(id, &held, true);
        self.fill.insert(id);
    }

    /// What it runs goes on, even where it offers less now: only new grants go by it.
    pub(crate) fn on_offer(&mut self, offer: NodeOffer) {
        let id = offer.node;
        // Before its hello nothing is known of it: the hello says the same.
        let known = self.nodes.get(&id).and_then(|node| node.hello.clone());
        let Some(mut hello) = known else { return };
        hello.take(offer);
        self.rematch(&hello);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.hello = Some(hello);
            node.seen = 0;
        }
        self.refresh_node(id);
        self.fill.insert(id);
    }

    /// Works out which needs a node fits now that it says what it is.
    fn rematch(&mut self, hello: &NodeHello) {
        let id = hello.node;
        let takes = self.nodes.get(&id).is_some_and(|node| node.takes);
        for entry in self.needs.entries.values_mut() {
            let was = entry.matching.contains(&id);
            let fits = would_do(&entry.need, hello);
            if fits && !was {
                entry.matching.insert(id);
                entry.taking += u32::from(takes);
            } else if was && !fits {
                entry.matching.remove(&id);
                entry.taking -= u32::from(takes);
            }
        }
    }

    /// Brings what the server believes and what the node holds together. `complete` says that
    /// what is not held was never received.
    fn reconcile(&mut self, id: NodeId, held: &[Held], complete: bool) {
        let here: BTreeMap<AttemptId, AttemptState> =
            held.iter().map(|held| (held.attempt, held.state)).collect();
        if complete {
            for attempt in self.leased_to(id) {
                if !here.contains_key(&attempt) {
                    self.leave(attempt, id, Way::TakenBack);
                    self.settle(attempt.task.job);
                }
            }
        }
        let mut strange = Vec::new();
        let mut back = BTreeMap::new();
        for (attempt, state) in here {
            if self.runs(attempt, id) {
                self.set_progress(attempt, state);
            } else if state.is_over() {
                // Its report is on the way and is acknowledged whatever became of the task.
            } else if self.could_return(attempt, id) {
                let tasks: &mut Vec<_> = back.entry(attempt.task.job).or_default();
                tasks.push((attempt.task.index, attempt.number, state));
            } else {
                strange.push(attempt);
            }
        }
        for (job, tasks) in back {
            self.adopt(id, job, &tasks);
        }
        if !strange.is_empty() {
            let attempts = strange;
            self.out.push(Action::Revoke { node: id, attempts });
        }
    }

    pub(crate) fn on_beat(&mut self, report: NodeReport) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&report.node) else {
            return;
        };
        if node.hello.is_none() {
            // Before its hello nothing is known of it: the hello renews.
            return;
        }
        node.connected = true;
        node.heard = Some(now);
        node.deadline = now + LEASE;
        let changed = node.report != report.state || !node.takes;
        node.report = report.state;
        node.report_reason = report.reason;
        let returned = core::mem::take(&mut node.offline);
        let lost = core::mem::take(&mut node.lost);
        if let Some(hello) = node
            .hello
            .as_mut()
            .filter(|_| node.report == NodeState::Online)
        {
            // Its self-test passes now.
            hello.refused = None;
        }
        self.arm(report.node);
        if returned {
            // It was silent, but its connection held: it still has what it had.
            let held: Vec<Held> = lost
                .into_iter()
                .map(|attempt| Held {
                    attempt,
                    state: AttemptState::Running,
                })
                .collect();
            self.refresh_node(report.node);
            self.reconcile(report.node, &held, false);
        }
        if changed || returned {
            self.refresh_node(report.node);
            self.freed(report.node);
            if report.state == NodeState::Paused {
                self.unqueue(report.node);
            }
        }
    }

    /// Takes back what only queues on a node that froze: others can run it meanwhile. If one of
    /// them ran after all, its success still counts.
    fn unqueue(&mut self, id: NodeId) {
        let queued: Vec<AttemptId> = self
            .leased_to(id)
            .into_iter()
            .filter(|attempt| {
                self.run_of(attempt.task)
                    .is_some_and(|(run, _)| run.state == AttemptState::Leased)
            })
            .collect();
        for attempt in &queued {
            self.leave(*attempt, id, Way::TakenBack);
            self.settle(attempt.task.job);
        }
        if !queued.is_empty() {
            let attempts = queued;
            self.out.push(Action::Revoke { node: id, attempts });
        }
    }

    pub(crate) fn on_gone(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.connected = false;
            self.refresh_node(id);
        }
    }

    pub(crate) fn on_wish(&mut self, id: NodeId, wish: NodeWish) {
        let Some(node) = self.nodes.get_mut(&id) else {
            self.reply(Reply::Refused(Refusal::NoNode(id)));
            return;
        };
        node.wish = match wish {
            NodeWish::Resume => None,
            NodeWish::Pause => Some(NodeWish::Pause),
            NodeWish::Drain | NodeWish::Evict => Some(NodeWish::Drain),
        };
        let row = NodeRow {
            node: id,
            paused: node.wish == Some(NodeWish::Pause),
            draining: node.wish == Some(NodeWish::Drain),
        };
        if node.connected {
            self.out.push(Action::Wish { node: id, wish });
        }
        self.rows.push(Row::Node(row));
        self.refresh_node(id);
        self.freed(id);
        self.reply(Reply::Accepted(1));
    }

    pub(crate) fn on_progress(&mut self, id: NodeId, attempt: AttemptId, state: AttemptState) {
        if self.runs(attempt, id) {
            self.set_progress(attempt, state);
        } else if !state.is_over() && !self.could_return(attempt, id) {
            let attempts = [attempt].into();
            self.out.push(Action::Revoke { node: id, attempts });
        }
    }

    fn set_progress(&mut self, attempt: AttemptId, state: AttemptState) {
        let run = self
            .jobs
            .get_mut(&attempt.task.job)
            .and_then(|job| job.running.get_mut(&attempt.task.index));
        if let Some(run) = run.filter(|_| !state.is_over()) {
            run.state = state;
        }
    }

    /// Ends the leases of nodes that were silent for too long.
    pub(crate) fn expire(&mut self) {
        while let Some((due, id)) = self.alarms.first().copied().filter(|a| a.0 <= self.now) {
            self.alarms.remove(&(due, id));
            let Some(node) = self.nodes.get_mut(&id) else {
                continue;
            };
            if node.deadline > self.now {
                node.alarm = Some(node.deadline);
                self.alarms.insert((node.deadline, id));
                continue;
            }
            // Its next hello or beat sets the alarm again.
            node.alarm = None;
            node.offline = true;
            self.refresh_node(id);
            for attempt in self.leased_to(id) {
                self.leave(attempt, id, Way::Lost);
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.lost.insert(attempt);
                }
                self.settle(attempt.task.job);
            }
        }
    }
}
