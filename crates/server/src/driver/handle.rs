//! How the rest of the server talks to the driver.

use super::side::View;
use super::{Board, Counters};
use crate::driver::changes::Changes;
use crate::error::Trouble;
use gleaner_core::{Bundle, Event, NewJob, NodeHello, NodeOffer, NodeWish, Reply};
use gleaner_model::{AttemptId, Digest, JobId, NodeId, Time};
use gleaner_store::ServerRow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::DropGuard;

/// Reports that are worth a commit at once: its price is shared by so many that it no longer
/// shows beside what each of them costs.
const ENOUGH_EVENTS: u64 = 256;

/// What leaves for an agent.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// The answer to its hello; first on every connection.
    Welcome(NodeId),
    /// Its hello was refused; last on the connection.
    Refuse(tonic::Status),
    /// Tasks to run.
    Bundle(Bundle),
    /// Attempts to forget.
    Revoke(Vec<AttemptId>),
    /// Ends that are durable.
    Acknowledge(Vec<AttemptId>),
    /// Whether what it saved of a running attempt is durable.
    Kept {
        attempt: AttemptId,
        taken: Time,
        kept: bool,
    },
    /// What its admin wants.
    Wish(NodeWish),
    /// A piece of a running task's output is asked for, or no longer.
    Log(gleaner_wire::v1::LogRequest),
}

/// Where an agent's messages go: a bounded queue, because an agent that does not read must not
/// fill the server's memory.
///
/// Dropping it cuts the connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) sender: mpsc::Sender<Vec<Outgoing>>,
    /// Held, never read: its drop ends reader and answers.
    pub(crate) _cut: DropGuard,
}

/// An agent connects.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) identity: String,
    pub(crate) version: String,
    /// Its `node` is filled in by the driver.
    pub(crate) hello: NodeHello,
    pub(crate) link: Link,
    pub(crate) reply: oneshot::Sender<Connected>,
}

/// The connection that a hello got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connected {
    pub(crate) node: NodeId,
    /// Tells this connection from later ones of the same node.
    pub(crate) generation: u64,
}

/// What an agent reported: the event, and the blobs that it makes the job need.
#[derive(Debug)]
pub(crate) struct FromNode {
    pub(crate) event: Event,
    pub(crate) blobs: Vec<Digest>,
}

type Answer = oneshot::Sender<Result<Reply, Trouble>>;

/// Everything the driver can be told.
pub(crate) enum Message {
    /// A user submits: the job, and the blobs that it needs.
    Submit(NewJob, Vec<Digest>, Answer),
    /// A user wants something else.
    User(Event, Answer),
    /// Rows of the server's own; with an event where both must be durable together.
    Rows(
        Vec<ServerRow>,
        Option<Event>,
        oneshot::Sender<Result<(), Trouble>>,
    ),
    /// An agent connects.
    Connect(Box<Connect>),
    /// An agent reports.
    Node(Vec<FromNode>),
    /// What an agent offers changed.
    Offer(Connected, NodeOffer),
    /// An agent's connection ended.
    Disconnect(Connected),
    /// Something for an agent that the brain need not know.
    Tell(NodeId, Outgoing),
    /// Somebody looks at the state as it is durable.
    Read(Box<dyn FnOnce(&View<'_>) + Send>),
    /// Commit what is here and end.
    Stop,
}

/// What agents report: it may wait a little where it comes thick, so it has a queue of its own.
#[derive(Debug, Clone)]
pub(super) struct Reports {
    sender: mpsc::Sender<Message>,
    /// Events in the queue.
    waiting: Arc<AtomicU64>,
    /// Told when a batch is worth its commit.
    enough: Arc<Notify>,
}

/// The driver's end of [`Reports`].
pub(super) struct ReportQueue {
    pub(super) messages: mpsc::Receiver<Message>,
    pub(super) waiting: Arc<AtomicU64>,
    pub(super) enough: Arc<Notify>,
}

pub(super) fn reports(messages: usize) -> (Reports, ReportQueue) {
    let (sender, queue) = mpsc::channel(messages);
    let (waiting, enough) = (Arc::<AtomicU64>::default(), Arc::<Notify>::default());
    let reports = Reports {
        sender,
        waiting: Arc::clone(&waiting),
        enough: Arc::clone(&enough),
    };
    let queue = ReportQueue {
        messages: queue,
        waiting,
        enough,
    };
    (reports, queue)
}

/// The door to the driver. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    sender: mpsc::Sender<Message>,
    reports: Reports,
    board: Arc<Board>,
}

impl Handle {
    pub(super) fn new(sender: mpsc::Sender<Message>, reports: Reports, board: Arc<Board>) -> Self {
        Self {
            sender,
            reports,
            board,
        }
    }

    /// Hands over what an agent reported, in its order; waits for room.
    pub(crate) async fn report(&self, reports: Vec<FromNode>) {
        let count = reports.len() as u64;
        let before = self.reports.waiting.fetch_add(count, Ordering::Relaxed);
        // A driver that has ended needs no reports; agents keep them.
        let _ended = self.reports.sender.send(Message::Node(reports)).await;
        if before + count >= ENOUGH_EVENTS {
            self.reports.enough.notify_one();
        }
    }

    /// Hands over what a node offers from now on, behind all that its connection reported.
    pub(crate) async fn offer(&self, connected: Connected, offer: NodeOffer) {
        let message = Message::Offer(connected, offer);
        let _ended = self.reports.sender.send(message).await;
    }

    /// Says that a connection ended, behind all that it reported.
    pub(crate) async fn disconnect(&self, connected: Connected) {
        let _ended = self
            .reports
            .sender
            .send(Message::Disconnect(connected))
            .await;
    }

    pub(crate) fn changes(&self) -> &Changes {
        &self.board.changes
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.board.counters
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.board.trouble()
    }

    /// How many messages wait.
    pub(crate) fn queued(&self) -> usize {
        let in_queue = |sender: &mpsc::Sender<Message>| sender.max_capacity() - sender.capacity();
        in_queue(&self.sender) + in_queue(&self.reports.sender)
    }

    /// Waits for room and sends; false where the driver has ended.
    pub(crate) async fn send(&self, message: Message) -> bool {
        self.sender.send(message).await.is_ok()
    }

    /// Why an answer did not come.
    fn no_answer(&self) -> Trouble {
        self.trouble().unwrap_or_else(Trouble::stopping)
    }

    async fn ask<T>(
        &self,
        message: Message,
        answer: oneshot::Receiver<Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        self.send(message).await;
        answer.await.unwrap_or_else(|_| Err(self.no_answer()))
    }

    pub(crate) async fn submit(&self, job: NewJob, needs: Vec<Digest>) -> Result<Reply, Trouble> {
        let (reply, answer) = oneshot::channel();
        self.ask(Message::Submit(job, needs, reply), answer).await
    }

    pub(crate) async fn user(&self, event: Event) -> Result<Reply, Trouble> {
        let (reply, answer) = oneshot::channel();
        self.ask(Message::User(event, reply), answer).await
    }

    pub(crate) async fn rows(
        &self,
        rows: Vec<ServerRow>,
        event: Option<Event>,
    ) -> Result<(), Trouble> {
        let (reply, answer) = oneshot::channel();
        self.ask(Message::Rows(rows, event, reply), answer).await
    }

    /// What `look` makes of the durable state. `look` runs on the driver's thread: copies only.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, Trouble> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |view: &View<'_>| {
            // Nobody waits any more: nothing to tell.
            let _gone = reply.send(look(view));
        });
        self.send(Message::Read(look)).await;
        answer.await.map_err(|_| self.no_answer())
    }

    /// As [`Handle::read`], about one job.
    pub(crate) async fn job(&self, job: JobId) -> Result<Option<gleaner_core::JobView>, Trouble> {
        self.read(move |view| view.state.job(job)).await
    }
}
