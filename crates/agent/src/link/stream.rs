//! The usual way: both sides stream batches as long as the connection lives.

use super::{ANSWER_S, BATCH_MAX, Link, Over, Packer};
use gleaner_wire::v1;
use gleaner_wire::v1::pool_client::PoolClient;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep_until;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Batches on their way out; more wait in the queue, where they become larger batches.
const OUTBOUND_MAX: usize = 4;

/// How long messages are counted before they are taken to come thick.
const WINDOW: Duration = Duration::from_millis(100);

/// Messages in a window from which on they wait for each other: some tens of tasks a second. Whoever
/// runs one small task after the other does not feel it: each is the last of its job.
const THICK: u32 = 8;

/// Messages in a window from which on they wait as long as they ever do; fewer wait less, so that
/// a batch has more than ten of them.
const THICKEST: u32 = 50;

/// How far apart batches leave then, at most. Each costs both sides wake-ups, a TLS record and, at
/// the server, a commit of its own where no other node is as busy, all of it with caches that tasks
/// have filled meanwhile: of 200 tasks a batch that is two thirds of what the server spends on a
/// task. The next tasks are here already, so nothing runs later for it. What a user or the next
/// grant waits for goes at once; see [`hurries`] and `dispatch/due.rs`.
const PACE: Duration = Duration::from_secs(1);

/// Messages that leave together though the pace would let them wait: more would keep both sides
/// busy for long.
const FULL: usize = 512;

/// News of the node's condition go at once, but not closer than this: an owner whose load comes
/// and goes costs the server no more than four messages a second.
pub(super) const NEWS_APART: Duration = Duration::from_millis(250);

/// Lets messages go at once while they are few, and in batches when they come thick.
struct Pace {
    since: Instant,
    sent: usize,
    /// How long what comes next may wait.
    wait: Duration,
}

impl Pace {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            sent: 0,
            wait: Duration::ZERO,
        }
    }

    fn count(&mut self, messages: usize) {
        self.sent += messages;
        let window = self.since.elapsed();
        if window >= WINDOW {
            self.wait = wait(self.sent, window);
            self.sent = 0;
            self.since = Instant::now();
        }
    }
}

/// How long messages wait for each other where so many came in a window. A quiet time makes a
/// window long: what counts is the rate.
fn wait(messages: usize, window: Duration) -> Duration {
    let rate = messages as u128 * WINDOW.as_micros() / window.as_micros().max(1);
    let rate = u32::try_from(rate).unwrap_or(THICKEST).min(THICKEST);
    match rate >= THICK {
        true => PACE * rate / THICKEST,
        false => Duration::ZERO,
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
            // What was gathered leaves before anything else is waited for.
            tokio::select! {
                biased;
                () = std::future::ready(()), if !packer.waiting.is_empty() => {}
                _ = beats.tick() => packer.waiting.extend(self.beat()),
                // Who pauses the PC sees it in the pool's listing now, not at the next beat.
                Ok(()) = condition.changed(), if news.is_none() => news = Some(told + NEWS_APART),
                () = sleep_until(news.unwrap_or(told)), if news.is_some() => {
                    news = None;
                    told = tokio::time::Instant::now();
                    condition.mark_unchanged();
                    packer.waiting.extend(self.beat());
                }
                count = queue.recv_many(&mut fresh, BATCH_MAX) => {
                    if count == 0 {
                        return Ok(Over::Broken(Status::aborted("the agent wants a new link")));
                    }
                    packer.waiting.extend(fresh.drain(..));
                }
            }
            pace.count(packer.waiting.len());
            packer.drop_outrun();
            while let Some(batch) = packer.next() {
                batches.send(batch).await.map_err(closed)?;
            }
            if !pace.wait.is_zero() {
                gather((&mut queue, &self.ends_due), &mut packer, pace.wait).await;
            }
        }
    }
}

/// Waits for the pace, or for what should not wait.
async fn gather(
    (queue, ends_due): (&mut mpsc::UnboundedReceiver<v1::AgentMessage>, &Notify),
    packer: &mut Packer,
    pace: Duration,
) {
    let until = tokio::time::Instant::now() + pace;
    let mut fresh = Vec::new();
    while packer.waiting.len() < FULL {
        let room = FULL - packer.waiting.len();
        tokio::select! {
            () = sleep_until(until) => return,
            () = ends_due.notified() => {
                // The reports are in the queue already.
                packer.waiting.extend(std::iter::from_fn(|| queue.try_recv().ok()).take(BATCH_MAX));
                return;
            }
            count = queue.recv_many(&mut fresh, room) => {
                let hurry = count == 0 || fresh.iter().any(hurries);
                packer.waiting.extend(fresh.drain(..));
                if hurry {
                    return;
                }
            }
        }
    }
}

/// Whether somebody waits for it: a user for the output of a task, a save for its answer, the pool
/// for what the node offers.
const fn hurries(message: &v1::AgentMessage) -> bool {
    use v1::agent_message::Kind;
    match &message.kind {
        Some(Kind::LogChunk(_) | Kind::Saved(_) | Kind::Offer(_) | Kind::Hello(_)) => true,
        Some(Kind::Beat(_) | Kind::Progress(_) | Kind::Ended(_)) | None => false,
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

#[cfg(test)]
mod tests {
    use super::super::message;
    use super::*;
    use gleaner_model::{AttemptId, JobId, TaskId};
    use v1::agent_message::Kind;

    /// Never, as far as a test goes.
    const NEVER: Duration = Duration::from_secs(3600);
    const DEADLINE: Duration = Duration::from_secs(30);

    fn id(index: u32) -> AttemptId {
        TaskId::new(JobId(1), index).attempt(1)
    }

    fn progress(index: u32) -> v1::AgentMessage {
        message(Kind::Progress(v1::Progress {
            attempt: Some(id(index).into()),
            state: "running".to_owned(),
        }))
    }

    fn end(index: u32) -> v1::AgentMessage {
        message(Kind::Ended(v1::Ended {
            attempt: Some(id(index).into()),
            ..v1::Ended::default()
        }))
    }

    #[tokio::test]
    async fn what_hurries_and_what_is_many_ends_the_pace() {
        let log = || message(Kind::LogChunk(v1::LogChunk::default()));
        let offer = || message(Kind::Offer(v1::Offer::default()));
        let many: Vec<_> = (0..600).map(end).collect();
        for (messages, gathered) in [
            (vec![end(1), log()], 2),
            (vec![offer(), end(1)], 2),
            (many, FULL),
        ] {
            let (send, mut queue) = mpsc::unbounded_channel();
            for message in messages {
                send.send(message).unwrap();
            }
            let (idle, mut packer) = (Notify::new(), Packer::default());
            let gathering = gather((&mut queue, &idle), &mut packer, NEVER);
            tokio::time::timeout(DEADLINE, gathering).await.unwrap();
            assert_eq!(packer.waiting.len(), gathered);
        }
    }

    #[test]
    fn the_thicker_messages_come_the_longer_they_wait() {
        let ms = Duration::from_millis;
        for (messages, window, waits) in [
            (7, WINDOW, Duration::ZERO),
            (8, WINDOW, ms(160)),
            (16, WINDOW, ms(320)),
            (64, ms(400), ms(320)),
            (1000, WINDOW, PACE),
            (30, ms(1000), Duration::ZERO),
        ] {
            assert_eq!(wait(messages, window), waits, "{messages} in {window:?}");
        }
    }

    #[tokio::test]
    async fn reports_that_are_due_end_the_pace_and_leave() {
        let (send, mut queue) = mpsc::unbounded_channel();
        let (idle, mut packer) = (Notify::new(), Packer::default());
        send.send(end(1)).unwrap();
        send.send(end(2)).unwrap();
        idle.notify_one();
        let gathering = gather((&mut queue, &idle), &mut packer, NEVER);
        tokio::time::timeout(DEADLINE, gathering).await.unwrap();
        assert_eq!(packer.waiting.len(), 2);
    }

    #[tokio::test]
    async fn the_pace_lets_go_of_what_came() {
        let (send, mut queue) = mpsc::unbounded_channel();
        send.send(end(1)).unwrap();
        let (idle, mut packer) = (Notify::new(), Packer::default());
        let pace = Duration::from_millis(50);
        gather((&mut queue, &idle), &mut packer, pace).await;
        assert_eq!(packer.waiting.len(), 1);
    }

    #[test]
    fn an_end_outruns_the_progress_of_its_attempt() {
        let mut packer = Packer::default();
        let all = [progress(1), progress(2), end(1), progress(3), end(3)];
        packer.waiting.extend(all);
        packer.drop_outrun();
        let left = packer.next().unwrap().messages;
        assert_eq!(left, [progress(2), end(1), end(3)]);
    }
}
