//! What the watch knows now, for the owner's page and commands, and the way in for what the
//! owner wants. It must not know who reads it or how an order came.

use gleaner_harvest::{Decision, OwnerSettings, OwnerWish, Sample, Settings};
use gleaner_model::{AttemptId, AttemptState, Bytes, Cpus, JobId, NodeState, Rate, Time};
use serde::Serialize;
use std::sync::mpsc;
use tokio::sync::watch;

/// This PC at one moment, as the owner may see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Status {
    /// When it was put together.
    pub(crate) at: Time,
    /// The node's state, as the server is told.
    pub(crate) state: NodeState,
    /// Why, as a sentence; empty where nothing speaks against work.
    pub(crate) reason: String,
    /// What the harvest brain says.
    pub(crate) decision: Decision,
    /// What it says it from.
    pub(crate) sample: Sample,
    /// Every sensor and how it does.
    pub(crate) sources: Vec<Source>,
    /// Attempts that an engine holds, oldest first.
    pub(crate) running: Vec<Running>,
    /// What all tasks together may use now.
    pub(crate) allowance: Allowance,
    /// Who uses the processors now.
    pub(crate) shares: Shares,
    /// The settings in force, of admin and owner together.
    pub(crate) settings: Settings,
    /// What of that the owner asked for.
    pub(crate) owner_settings: OwnerSettings,
    /// The owner's pause, while there is one and it is durable.
    pub(crate) wish: Option<OwnerWish>,
}

/// One sensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Source {
    /// A short name: `input devices`, `sessions`.
    pub(crate) name: String,
    /// `seen`, `absent` or `failed`.
    pub(crate) state: String,
    /// What it reads, or what is wrong with it, in words.
    pub(crate) found: String,
    /// When it was last read.
    pub(crate) at: Option<Time>,
}

/// One attempt that an engine holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Running {
    /// Which attempt.
    pub(crate) attempt: AttemptId,
    /// Of which job.
    pub(crate) job: JobId,
    /// What the job is called; empty where an earlier agent started it.
    pub(crate) name: String,
    /// For whom it runs; empty likewise.
    pub(crate) user: String,
    /// `fetching` until its program runs, then `running` or `paused`.
    pub(crate) state: AttemptState,
    /// Since when an engine holds it.
    pub(crate) since: Time,
    /// Processors in use since the last look.
    pub(crate) cpus: f64,
    /// CPU time so far, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Most memory so far.
    pub(crate) memory: Bytes,
    /// Bytes read from and written to disks so far.
    pub(crate) disk: Bytes,
    /// Bytes sent and received so far.
    pub(crate) network: Bytes,
    /// What it may use.
    pub(crate) allowed: Allowed,
}

/// What one attempt may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Allowed {
    /// Processors.
    pub(crate) cpus: Cpus,
    /// Memory.
    pub(crate) memory: Bytes,
    /// Disk space.
    pub(crate) disk: Bytes,
    /// Bytes a second to and from disks, where limited.
    pub(crate) disk_io: Option<Rate>,
    /// Bytes a second over networks, where limited.
    pub(crate) net_io: Option<Rate>,
}

/// What all tasks together may use now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Allowance {
    /// Processors; zero while nothing runs by verdict.
    pub(crate) cpus: Cpus,
    /// Memory.
    pub(crate) memory: Bytes,
    /// Share of the disk and network rates, in thousandths.
    pub(crate) io_permille: u16,
    /// Whether blobs may travel.
    pub(crate) transfers: bool,
}

/// Who used the processors since the last look, in thousandths of all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Shares {
    /// Everything that is not ours.
    pub(crate) owner: u16,
    /// Tasks: what was harvested.
    pub(crate) harvested: u16,
    /// Nobody.
    pub(crate) idle: u16,
}

/// What the owner wants of the watch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Order {
    /// Pause or resume. Kept on disk before it is obeyed, so that it outlives agent and PC.
    Wish(OwnerWish),
    /// All of the owner's settings, which can only be stricter than the admin's. Kept likewise.
    Settings(OwnerSettings),
}

/// The way in for the owner's orders. Cheap to clone; never blocks.
#[derive(Debug, Clone)]
pub(crate) struct Orders(pub(super) mpsc::Sender<super::Heard>);

impl Orders {
    /// Gives an order. The answer is the next [`Status`] that shows it.
    pub(crate) fn give(&self, order: Order) {
        if self.0.send(super::Heard::Order(order)).is_err() {
            tracing::debug!(target: "gleaner::watch", "stopped; an order came too late");
        }
    }
}

/// What the owner's side of the agent works with.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// The newest status; it changes at least every ten seconds, and at once with the verdict.
    pub(crate) status: watch::Receiver<Status>,
    /// What the owner wants goes here.
    pub(crate) orders: Orders,
}

impl Window {
    /// Waits until blobs may travel. Returns where nobody is left to say so, too: the agent
    /// stops then.
    pub(crate) async fn may_transfer(&self) {
        let mut status = self.status.clone();
        let allowed = status.wait_for(|status| status.decision.transfers).await;
        drop(allowed);
    }
}
