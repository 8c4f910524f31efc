//! One agent's stream: a reader that feeds the driver, and the answers as they come.

use super::SILENCE_MAX;
use super::carried::Carried;
use super::dispatch::say;
use super::{connect, hear};
use crate::driver::{Connected, Link, Outgoing};
use crate::shared::Shared;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use gleaner_wire::v1;
use gleaner_wire::v1::agent_message::Kind;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// Batches that may wait for an agent which does not read. Each came out of one commit, so this
/// is many seconds of work.
const LINK_BATCHES: usize = 256;

/// How long an agent may take to say hello.
const HELLO_WAIT: Duration = Duration::from_secs(20);

/// How long an agent may take to read what was said before its connection was cut: why it was
/// refused, say. Without an end, one that reads nothing would hold its answers for ever.
const FAREWELL: Duration = Duration::from_secs(5);

/// Starts the reader and gives the stream of answers.
pub(super) fn open(
    shared: &Arc<Shared>,
    inbound: Streaming<v1::AgentBatch>,
) -> BoxStream<'static, Result<v1::ServerBatch, Status>> {
    let (sender, answers) = mpsc::channel(LINK_BATCHES);
    let cut = CancellationToken::new();
    let reader = Reader {
        shared: Arc::clone(shared),
        inbound,
        cut: cut.clone(),
    };
    let token = shared.tasks.token();
    shared.tasks.spawn(async move {
        // Held so that a shutdown waits for what the reader still hands over.
        let _token = token;
        reader.run(sender).await;
    });
    let shared = Arc::clone(shared);
    let state = (Carried::default(), answers, VecDeque::new());
    let said = stream::unfold(state, move |(mut carried, mut answers, mut ready)| {
        let shared = Arc::clone(&shared);
        async move {
            loop {
                if let Some(batch) = ready.pop_front() {
                    return Some((batch, (carried, answers, ready)));
                }
                let batch = answers.recv().await?;
                ready.extend(say(&shared, &mut carried, batch).await);
            }
        }
    });
    let over = async move {
        cut.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    said.take_until(over).boxed()
}

struct Reader {
    shared: Arc<Shared>,
    inbound: Streaming<v1::AgentBatch>,
    /// Ends with the driver's hold on the connection, whoever ends it.
    cut: CancellationToken,
}

impl Reader {
    async fn run(mut self, sender: mpsc::Sender<Vec<Outgoing>>) {
        let refuse = sender.clone();
        let connected = match self.hello(sender).await {
            Ok(connected) => connected,
            Err(status) => {
                tracing::info!(reason = status.message(), "an agent was not admitted");
                let answer = vec![Outgoing::Refuse(status)];
                // The agent may be gone already.
                let _gone = refuse.send(answer).await;
                return;
            }
        };
        let node = connected.node;
        tracing::info!(%node, "an agent connected");
        match self.listen(connected).await {
            Ok(()) => tracing::info!(%node, "an agent's connection ended"),
            Err(status) => {
                tracing::info!(%node, reason = status.message(), "an agent's connection broke");
                // Where the agent is still there it hears why; one that reads nothing does not.
                let _gone = refuse.try_send(vec![Outgoing::Refuse(status)]);
            }
        }
        self.shared.driver.disconnect(connected).await;
        self.cut.cancel();
    }

    /// Waits for the hello, and until the driver has it.
    async fn hello(&mut self, sender: mpsc::Sender<Vec<Outgoing>>) -> Result<Connected, Status> {
        let first = tokio::time::timeout(HELLO_WAIT, self.inbound.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let mut messages = first
            .map(|batch| batch.messages)
            .unwrap_or_default()
            .into_iter();
        let Some(Kind::Hello(hello)) = messages.next().and_then(|message| message.kind) else {
            return Err(Status::invalid_argument(
                "the first message must be a hello",
            ));
        };
        let link = Link {
            sender,
            _cut: self.cut.clone().drop_guard(),
        };
        let connected = connect(&self.shared, hello, link).await?;
        self.hand_over(connected, messages.collect()).await?;
        Ok(connected)
    }

    async fn hand_over(
        &self,
        connected: Connected,
        messages: Vec<v1::AgentMessage>,
    ) -> Result<(), Status> {
        let reports = hear::hear(&self.shared, connected, messages).await?;
        if !reports.is_empty() {
            self.shared.driver.report(reports).await;
        }
        Ok(())
    }

    async fn listen(&mut self, connected: Connected) -> Result<(), Status> {
        loop {
            let next = tokio::select! {
                next = tokio::time::timeout(SILENCE_MAX, self.inbound.message()) => next,
                () = self.cut.cancelled() => return Ok(()),
                () = self.shared.stop.cancelled() => return Ok(()),
            };
            let next = next.map_err(|_| Status::deadline_exceeded("no beat came"))?;
            let Some(batch) = next? else { return Ok(()) };
            self.hand_over(connected, batch.messages).await?;
        }
    }
}
