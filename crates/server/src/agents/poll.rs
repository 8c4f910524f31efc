//! Agents that call now and then instead of holding a stream: one server carries many more.

use super::dispatch::say;
use super::polls::Session;
use super::{SILENCE_MAX, connect, hear};
use crate::driver::{Connected, Link};
use crate::shared::Shared;
use gleaner_model::NodeId;
use gleaner_wire::v1;
use gleaner_wire::v1::agent_message::Kind;
use gleaner_wire::v1::server_message::Kind as Answer;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Batches that may wait for the next call.
const WAITING_BATCHES: usize = 256;

/// How long a call that reports something waits for what that sets off: its acknowledgements, the
/// next tasks. A commit of a loaded pool is within it; without it the node would hear only with its
/// next call. A call that brings a beat alone sets nothing off and is answered at once.
const ANSWER_WAIT: Duration = Duration::from_millis(500);

/// When an agent with work calls again, and one without, in a pool of up to two thousand nodes. One
/// whose task's output somebody reads calls as soon in every pool.
const CALL_AGAIN_MS: (u32, u32) = (1000, 5000);

/// Calls a second that all nodes together are asked for. One that ends a task and brings the next
/// costs some 80 µs, so together they cost a fifth of a processor. More nodes are told to call less
/// often.
const CALLS_A_SECOND: u64 = 2500;

/// The longest wait that a node is told: two calls fit into a lease, so that one may be lost.
const CALL_AGAIN_MAX_MS: u32 = 12_000;

/// By how much of a wait nodes differ, each by its number: those that said hello in one moment,
/// after a restart of the server say, do not go on calling in one moment.
const SPREAD: u32 = 4;

/// Milliseconds until a node calls again, in a pool where so many poll.
fn call_again_ms(nodes: usize, busy: bool, node: NodeId) -> u32 {
    let wanted = if busy {
        CALL_AGAIN_MS.0
    } else {
        CALL_AGAIN_MS.1
    };
    let fair = (nodes as u64).saturating_mul(1000) / CALLS_A_SECOND;
    let most = u32::try_from(fair)
        .unwrap_or(u32::MAX)
        .clamp(wanted, CALL_AGAIN_MAX_MS);
    // Fibonacci hashing (Knuth): numbers that follow each other lie far apart.
    let part = node.0.wrapping_mul(2_654_435_769) >> 16;
    most - ((most / SPREAD * part) >> 16)
}

pub(super) async fn answer(
    shared: &Arc<Shared>,
    batch: v1::AgentBatch,
) -> Result<v1::ServerBatch, Status> {
    let mut messages = batch.messages;
    let hello = messages
        .iter()
        .position(|message| matches!(message.kind, Some(Kind::Hello(_))));
    // What is more than a beat is answered by something.
    let asks = messages.iter().any(|message| {
        let kind = message.kind.as_ref();
        kind.is_some_and(|kind| !matches!(kind, Kind::Beat(_) | Kind::LogChunk(_)))
    });
    let mut watched = messages
        .iter()
        .any(|message| matches!(message.kind, Some(Kind::LogChunk(_))));
    let node = match hello.map(|at| messages.remove(at).kind) {
        Some(Some(Kind::Hello(hello))) => begin(shared, hello).await?.node,
        _ => NodeId(batch.node),
    };
    let say_hello = || Status::failed_precondition("say hello first; this node is not known");
    let found = shared.polls.called(node, Instant::now());
    let (connected, session, nodes) = found.ok_or_else(say_hello)?;
    let reports = hear::hear(shared, connected, messages).await?;
    if !reports.is_empty() {
        shared.driver.report(reports).await;
    }
    let mut session = session.lock().await;
    if session.cut.is_cancelled() {
        shared.polls.remove(connected);
        return Err(say_hello());
    }
    let mut said = v1::ServerBatch::default();
    let mut next = session.answers.try_recv().ok();
    if asks && next.is_none() {
        let first = tokio::time::timeout(ANSWER_WAIT, session.answers.recv()).await;
        next = first.ok().flatten();
    }
    while let Some(batch) = next {
        for part in say(shared, &mut session.carried, batch).await {
            said.messages.extend(part?.messages);
        }
        next = session.answers.try_recv().ok();
    }
    watched |= said
        .messages
        .iter()
        .any(|message| matches!(message.kind, Some(Answer::LogRequest(_))));
    // Where an answer is due it comes with the next call.
    let busy = asks || !said.messages.is_empty();
    said.call_again_ms = match watched {
        true => CALL_AGAIN_MS.0,
        false => call_again_ms(nodes, busy, node),
    };
    Ok(said)
}

async fn begin(shared: &Arc<Shared>, hello: v1::Hello) -> Result<Connected, Status> {
    let (sender, answers) = mpsc::channel(WAITING_BATCHES);
    let cut = CancellationToken::new();
    let link = Link {
        sender,
        _cut: cut.clone().drop_guard(),
    };
    let connected = connect(shared, hello, link).await?;
    let session = Session::new(answers, cut);
    shared.polls.insert(connected, session, Instant::now());
    Ok(connected)
}

/// Lets nodes go that have not called for long, as a stream that fell silent is let go.
pub(super) async fn let_go(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SILENCE_MAX / 3) => {}
            () = shared.stop.cancelled() => return,
        }
        for gone in shared.polls.silent(Instant::now(), SILENCE_MAX) {
            tracing::info!(node = %gone.node, "an agent calls no more");
            shared.driver.disconnect(gone).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gleaner_core::LEASE;

    #[test]
    fn more_nodes_call_less_often_and_two_calls_fit_into_a_lease() {
        for (nodes, busy, longest) in [
            (0, true, 1000),
            (1, false, 5000),
            (2_500, true, 1000),
            (5_000, true, 2000),
            (5_000, false, 5000),
            (20_000, true, 8000),
            (20_000, false, 8000),
            (30_000, true, CALL_AGAIN_MAX_MS),
            (100_000, true, CALL_AGAIN_MAX_MS),
            (usize::MAX, false, CALL_AGAIN_MAX_MS),
        ] {
            let waits = (0..1000).map(|node| call_again_ms(nodes, busy, NodeId(node)));
            let (mut low, mut high) = (u32::MAX, 0);
            for wait in waits {
                (low, high) = (low.min(wait), high.max(wait));
            }
            assert!(high <= longest && high > longest - longest / 100, "{high}");
            let least = longest - longest / SPREAD;
            assert!(low >= least && low < least + longest / 100, "{low}");
        }
        assert!(u64::from(2 * CALL_AGAIN_MAX_MS) < LEASE.ms);
    }

    #[test]
    fn neighbours_drift_apart() {
        let wait = |node| call_again_ms(100_000, true, NodeId(node));
        for node in 1..1000 {
            assert!(wait(node).abs_diff(wait(node + 1)) > 500, "{node}");
        }
    }
}
