//! The nodes' side: as many pretended nodes as asked for, on a few shared connections, each calling
//! when the server told it to.
//!
//! A connection's task owns its nodes and a queue of who is due when. What is counted goes to
//! [`Seen`]. Reply times run from the moment at which a call was due, not from when it left: a
//! server that answers late would otherwise be asked, and measured, less often while it is slow
//! (Tene, "How NOT to Measure Latency").

use super::node::Node;
use super::tally::Tally;
use super::times::Times;
use crate::BenchError;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use gleaner_wire::v1;
use gleaner_wire::v1::pool_client::PoolClient;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

/// Calls on their way on one connection: below the 200 streams that servers usually allow, so that
/// a node that is due waits in our queue, where it is counted, and memory has a bound.
const CALLS_MAX: usize = 160;
/// Of these, for nodes that say hello while the pool fills.
const HELLOS_MAX: usize = 24;
/// After this long a call counts as not answered, as with agents.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// A node that was not answered, or is not known any more, says hello after this long.
const AGAIN: Duration = Duration::from_secs(1);
/// The shortest and the longest wait between two calls, as agents keep them, in milliseconds.
const CALL_MS: (u32, u32) = (100, 20_000);

/// How to reach the server.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) server: String,
    pub(super) ca_pem: Vec<u8>,
    pub(super) token: String,
}

/// How large the swarm is, and what its tasks are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) nodes: u32,
    pub(super) connections: u32,
    pub(super) task_ms: u64,
}

/// What the swarm saw. Times count only while [`Seen::measuring`].
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) started: Instant,
    pub(super) measuring: AtomicBool,
    pub(super) enrolled: AtomicU64,
    /// Replies, from when they were due.
    pub(super) replies: Times,
    /// How late the swarm itself was.
    pub(super) late: Times,
    /// Hellos, from when they left.
    pub(super) hellos: Times,
    /// Waits that the server asked for.
    pub(super) waits: Times,
    /// Calls without an answer in time, or with an error, in all of the run.
    pub(super) failed: AtomicU64,
    /// Ends that were acknowledged while measuring.
    pub(super) ended: AtomicU64,
    pub(super) tally: Tally,
}

impl Seen {
    pub(super) fn new(tasks: u32) -> Self {
        Self {
            started: Instant::now(),
            measuring: AtomicBool::new(false),
            enrolled: AtomicU64::new(0),
            replies: Times::default(),
            late: Times::default(),
            hellos: Times::default(),
            waits: Times::default(),
            failed: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            tally: Tally::new(tasks),
        }
    }

    pub(super) fn is_measuring(&self) -> bool {
        self.measuring.load(Ordering::Relaxed)
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}

/// The running swarm; ends with [`Swarm::stop`].
#[derive(Debug)]
pub(super) struct Swarm {
    connections: JoinSet<()>,
    stop: CancellationToken,
}

impl Swarm {
    /// Connects, and lets all nodes say hello as fast as the server takes them.
    pub(super) async fn start(
        door: &Door,
        size: Size,
        seen: &Arc<Seen>,
    ) -> Result<Self, BenchError> {
        let broken = |what: String| BenchError::Broken(what);
        let token: MetadataValue<Ascii> = format!("Bearer {}", door.token.trim())
            .parse()
            .map_err(|_| broken("the node token has characters that no token has".into()))?;
        let stop = CancellationToken::new();
        let mut all = JoinSet::new();
        let Size { nodes, task_ms, .. } = size;
        let connections = size.connections.min(nodes).max(1);
        for connection in 0..connections {
            let channel = connect(door).await?;
            let own = (connection..nodes).step_by(usize::try_from(connections).unwrap_or(1));
            let line = Line {
                client: PoolClient::new(channel)
                    .max_decoding_message_size(gleaner_wire::MESSAGE_BYTES_MAX),
                token: token.clone(),
                seen: Arc::clone(seen),
                due: BinaryHeap::new(),
                fresh: own.map(|number| Node::new(number, task_ms)).collect(),
                nodes: Vec::new(),
                hellos: 0,
            };
            all.spawn(line.run(stop.clone()));
        }
        Ok(Self {
            connections: all,
            stop,
        })
    }

    /// Lets calls that are on their way end, and no other begin.
    pub(super) async fn stop(mut self) -> Result<(), BenchError> {
        self.stop.cancel();
        while let Some(ended) = self.connections.join_next().await {
            ended.map_err(|problem| BenchError::Broken(format!("the swarm failed: {problem}")))?;
        }
        Ok(())
    }
}

async fn connect(door: &Door) -> Result<Channel, BenchError> {
    let refused = |problem: tonic::transport::Error| {
        BenchError::Broken(format!("cannot connect to the server: {problem:?}"))
    };
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&door.ca_pem));
    let endpoint = Endpoint::from_shared(door.server.clone()).map_err(refused)?;
    let endpoint = endpoint.tls_config(tls).map_err(refused)?;
    endpoint
        .tcp_nodelay(true)
        .connect_timeout(ANSWER_WITHIN)
        .connect()
        .await
        .map_err(refused)
}

/// One connection and its nodes.
struct Line {
    client: PoolClient<Channel>,
    token: MetadataValue<Ascii>,
    seen: Arc<Seen>,
    /// Who calls when, by place in `nodes`.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Nodes that have not said hello, last first.
    fresh: Vec<Node>,
    nodes: Vec<Node>,
    /// First hellos on their way.
    hellos: usize,
}

/// A call that came back.
struct Back {
    place: usize,
    due: Instant,
    sent: Instant,
    hello: bool,
    answer: Result<v1::ServerBatch, Status>,
}

impl Line {
    async fn run(mut self, stop: CancellationToken) {
        let mut calls = FuturesUnordered::new();
        loop {
            let now = Instant::now();
            let open = !stop.is_cancelled();
            while open && calls.len() < CALLS_MAX {
                let Some(next) = self.next(now) else { break };
                calls.push(self.call(next, now));
            }
            if !open && calls.is_empty() {
                return;
            }
            let until = self.due.peek().map(|Reverse((at, _))| (*at).into());
            let wake = until.filter(|_| open && calls.len() < CALLS_MAX);
            tokio::select! {
                Some(back) = calls.next(), if !calls.is_empty() => self.back(back),
                () = tokio::time::sleep_until(wake.unwrap_or_else(|| now.into())), if wake.is_some() => {}
                () = stop.cancelled(), if open => {}
            }
        }
    }

    /// Who calls now: whoever is due, else somebody new. Gives the place and when it was due.
    fn next(&mut self, now: Instant) -> Option<(usize, Instant)> {
        if let Some(Reverse((at, place))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            return Some((place, at));
        }
        if self.hellos >= HELLOS_MAX {
            return None;
        }
        let node = self.fresh.pop()?;
        self.hellos += 1;
        self.nodes.push(node);
        Some((self.nodes.len() - 1, now))
    }

    fn call(
        &mut self,
        (place, due): (usize, Instant),
        sent: Instant,
    ) -> impl Future<Output = Back> + use<> {
        let now_ms = self.seen.ms(sent);
        let node = self.nodes.get_mut(place);
        let hello = node.as_ref().is_some_and(|node| !node.is_enrolled());
        let (batch, told) = node.map(|node| node.call(now_ms)).unwrap_or_default();
        for attempt in told {
            self.seen.tally.tell(attempt.task.index);
        }
        let (mut client, token) = (self.client.clone(), self.token.clone());
        async move {
            let mut request = Request::new(batch);
            request.metadata_mut().insert("authorization", token);
            let answer = tokio::time::timeout(ANSWER_WITHIN, client.poll(request)).await;
            let answer = answer
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))
                .map(tonic::Response::into_inner);
            Back {
                place,
                due,
                sent,
                hello,
                answer,
            }
        }
    }

    fn back(&mut self, back: Back) {
        let now = Instant::now();
        let Some(node) = self.nodes.get_mut(back.place) else {
            return;
        };
        let seen = &self.seen;
        let measuring = seen.is_measuring();
        match (back.hello, measuring) {
            (true, _) => seen.hellos.count(now - back.sent),
            (false, true) => {
                seen.replies.count(now - back.due);
                seen.late.count(back.sent - back.due);
            }
            (false, false) => {}
        }
        let again = match back.answer {
            Ok(answer) => {
                let wait_ms = answer.call_again_ms.clamp(CALL_MS.0, CALL_MS.1);
                let wait = Duration::from_millis(wait_ms.into());
                if measuring {
                    seen.waits.count(wait);
                }
                let heard = node.hear(answer, seen.ms(now));
                for attempt in heard.granted {
                    seen.tally.grant(attempt.task.index);
                }
                if measuring {
                    let ended = heard.acknowledged.len() as u64;
                    seen.ended.fetch_add(ended, Ordering::Relaxed);
                }
                for attempt in heard.acknowledged {
                    seen.tally.acknowledge(attempt.task.index);
                }
                if back.hello {
                    self.hellos = self.hellos.saturating_sub(1);
                    seen.enrolled.fetch_add(1, Ordering::Relaxed);
                }
                wait
            }
            Err(status) => {
                tracing::debug!(%status, "a call failed");
                seen.failed.fetch_add(1, Ordering::Relaxed);
                if !back.hello {
                    // Its next hello is counted when it is answered.
                    seen.enrolled.fetch_sub(1, Ordering::Relaxed);
                    self.hellos += 1;
                    node.part();
                }
                AGAIN
            }
        };
        self.due.push(Reverse((now + again, back.place)));
    }
}
