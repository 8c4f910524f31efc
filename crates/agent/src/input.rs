//! What the agent's one loop hears, and the way into its queue.

use crate::condition::Condition;
use crate::fetch::Inputs as InputFiles;
use gleaner_engine::EngineEvent;
use gleaner_harvest::Decision;
use gleaner_model::{AttemptId, Bytes, Reason};
use gleaner_wire::v1;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, mpsc};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// A saved attempt, uploaded: when it was taken, and what the server is told. Or why not.
pub(crate) type Saved = Result<(u64, v1::Saved), String>;

/// Everything that can happen to the agent.
#[derive(Debug)]
pub(crate) enum Input {
    /// The link asks for a hello.
    Connecting(oneshot::Sender<v1::Hello>),
    /// The server welcomed the node; messages go here from now on.
    LinkUp {
        lease_ms: u32,
        /// What the admin set for nodes, as JSON; empty where nothing is.
        settings: Vec<u8>,
        outgoing: UnboundedSender<v1::AgentMessage>,
    },
    /// The connection is gone.
    LinkDown,
    /// A beat is on its way; what counts those of which nobody took note begins anew.
    Beaten(Arc<AtomicU32>),
    /// Messages of the server; the permit bounds how many batches wait.
    FromServer(v1::ServerBatch, OwnedSemaphorePermit),
    /// An engine reports.
    Engine(EngineEvent),
    /// The blobs of an attempt are here, or not to be had.
    Fetched(AttemptId, Result<InputFiles, Reason>),
    /// The report of an attempt is made.
    Collected(AttemptId, Reason, Box<v1::Ended>),
    /// What was saved of a running attempt is at the server, or why not.
    Saved(AttemptId, Saved),
    /// These engines work.
    Introduced(Vec<String>),
    /// The self-test lets the node work, or not.
    Condition(Condition),
    /// What the harvest brain decided; the engines' groups obey it already.
    Judged(Box<Decision>),
    /// The owner needs memory: the youngest attempt goes back.
    Shed,
    /// The PC is about to sleep, as soon as what can be moved is saved.
    Sleeping,
    /// Owner and admin let the pool have so much at most.
    Capped { memory: Bytes, disk: Bytes },
    /// The agent shall stop.
    Stop,
}

/// The way into the loop's queue. Never blocks.
#[derive(Debug, Clone)]
pub(crate) struct Inputs(mpsc::Sender<Input>);

impl Inputs {
    pub(crate) fn queue() -> (Self, mpsc::Receiver<Input>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }

    /// Nobody listens only when the agent has stopped; then nothing matters any more.
    pub(crate) fn send(&self, input: Input) {
        if self.0.send(input).is_err() {
            tracing::debug!(target: "gleaner::agent", "stopped; an input came too late");
        }
    }
}
