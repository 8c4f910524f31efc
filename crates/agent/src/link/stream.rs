//! The usual way: both sides stream batches as long as the connection lives.

use super::{ANSWER_S, BATCH_MAX, Link, Over, Packer};
use gleaner_wire::v1;
use gleaner_wire::v1::pool_client::PoolClient;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Batches on their way out; more wait in the queue, where they become larger batches.
const OUTBOUND_MAX: usize = 4;

/// How long messages are counted before they are taken to come thick.
const WINDOW: Duration = Duration::from_millis(100);

/// Messages in a window from which on they wait for each other: some hundred tasks a second, which
/// is more than somebody who runs one small task after the other makes.
const THICK: usize = 32;

/// How far apart batches leave then. Each costs both sides a wake-up, a TLS record and, at the
/// server, a share of a commit; the next tasks are here already, so nothing runs later for it.
const PACE: Duration = Duration::from_millis(100);

/// News of the node's condition go at once, but not closer than this: an owner whose load comes
/// and goes costs the server no more than four messages a second.
pub(super) const NEWS_APART: Duration = Duration::from_millis(250);

/// Lets messages go at once while they are few, and in batches when they come thick.
struct Pace {
    since: Instant,
    sent: usize,
    thick: bool,
}

impl Pace {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            sent: 0,
            thick: false,
        }
    }

    fn count(&mut self, messages: usize) {
        self.sent += messages;
        let window = self.since.elapsed();
        if window >= WINDOW {
            // A quiet time makes a window long: what counts is the rate.
            let needed = THICK as u128 * window.as_millis();
            self.thick = self.sent as u128 * WINDOW.as_millis() >= needed;
            self.sent = 0;
            self.since = Instant::now();
        }
    }
}

impl Link {
    pub(super) async fn stream(
        &self,
        mut client: PoolClient<Channel>,
        met: &mut bool,
    ) -> Result<Over, Status> {
        let (batches, outbound) = mpsc::channel(OUTBOUND_MAX);
        let hello = v1::AgentBatch {
            messages: vec![self.hello().await?],
            node: 0,
        };
        let closed = |_| Status::unavailable("the connection closed");
        batches.send(hello).await.map_err(closed)?;
        let opening = async {
            let request = self.request(ReceiverStream::new(outbound));
            let mut inbound = client.link(request).await?.into_inner();
            let first = inbound.message().await?;
            Ok::<_, Status>((inbound, first))
        };
        let opened = tokio::time::timeout(Duration::from_secs(ANSWER_S), opening)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the server gave no welcome")));
        let (inbound, first) = match opened {
            // A server that cannot carry another stream says so in this way.
            Err(status) if status.code() == Code::Unimplemented => return Ok(Over::WantsPoll),
            Err(status) => return Err(status),
            Ok((inbound, first)) => {
                let nothing = || Status::unavailable("the server gave no welcome");
                (inbound, first.ok_or_else(nothing)?)
            }
        };
        if first.call_again_ms > 0 {
            return Ok(Over::WantsPoll);
        }
        let welcome = welcome_of(&first)?;
        *met = true;
        let queue = self.welcomed(&welcome);
        self.deliver(first).await?;
        tokio::select! {
            over = self.read(inbound) => over,
            over = self.write(queue, batches, welcome.beat_ms) => over,
        }
    }

    async fn read(&self, mut inbound: Streaming<v1::ServerBatch>) -> Result<Over, Status> {
        while let Some(batch) = inbound.message().await? {
            let poll = batch.call_again_ms > 0;
            self.deliver(batch).await?;
            if poll {
                return Ok(Over::WantsPoll);
            }
        }
        Err(Status::unavailable("the server ended the stream"))
    }

    async fn write(
        &self,
        mut queue: mpsc::UnboundedReceiver<v1::AgentMessage>,
        batches: mpsc::Sender<v1::AgentBatch>,
        beat_ms: u32,
    ) -> Result<Over, Status> {
        let closed = |_| Status::unavailable("the connection closed");
        let mut beats = tokio::time::interval(Duration::from_millis(beat_ms.max(100).into()));
        let mut packer = Packer::default();
        let mut fresh = Vec::new();
        let mut pace = Pace::new();
        let mut condition = self.condition.clone();
        let mut told = tokio::time::Instant::now();
        let mut news = None;
        loop {
            tokio::select! {
                _ = beats.tick() => packer.waiting.push_back(self.beat()),
                // Who pauses the PC sees it in the pool's listing now, not at the next beat.
                Ok(()) = condition.changed(), if news.is_none() => news = Some(told + NEWS_APART),
                () = sleep_until(news.unwrap_or(told)), if news.is_some() => {
                    news = None;
                    told = tokio::time::Instant::now();
                    condition.mark_unchanged();
                    packer.waiting.push_back(self.beat());
                }
                count = queue.recv_many(&mut fresh, BATCH_MAX) => {
                    if count == 0 {
                        return Ok(Over::Broken(Status::aborted("the agent wants a new link")));
                    }
                    packer.waiting.extend(fresh.drain(..));
                }
            }
            while let Some(batch) = packer.next() {
                pace.count(batch.messages.len());
                batches.send(batch).await.map_err(closed)?;
            }
            if pace.thick {
                tokio::time::sleep(PACE).await;
            }
        }
    }
}

/// The first message of a server must be its welcome.
pub(super) fn welcome_of(batch: &v1::ServerBatch) -> Result<v1::Welcome, Status> {
    let welcome = batch
        .messages
        .iter()
        .find_map(|message| match &message.kind {
            Some(v1::server_message::Kind::Welcome(welcome)) => Some(welcome.clone()),
            _ => None,
        });
    let welcome =
        welcome.ok_or_else(|| Status::internal("the server's first message is no welcome"))?;
    if welcome.protocol != gleaner_wire::PROTOCOL {
        return Err(Status::failed_precondition(format!(
            "the server speaks protocol {}, this agent {}; install the same version of gleaner",
            welcome.protocol,
            gleaner_wire::PROTOCOL
        )));
    }
    Ok(welcome)
}
