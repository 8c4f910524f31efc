//! Agents that call now and then instead of holding a stream: one server carries many more.

use super::dispatch::Speaker;
use super::{connect, hear};
use crate::driver::{Connected, Link, Outgoing};
use crate::shared::Shared;
use gleaner_model::NodeId;
use gleaner_wire::v1;
use gleaner_wire::v1::agent_message::Kind;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Batches that may wait for the next call.
const WAITING_BATCHES: usize = 256;

/// How long a call waits for what it may have set off: its own acknowledgements, the next tasks.
const ANSWER_WAIT: Duration = Duration::from_millis(100);

/// When an agent with work calls again, and one without; both within a beat.
const CALL_AGAIN_MS: (u32, u32) = (1000, 5000);

/// The nodes that poll.
#[derive(Debug, Default)]
pub(crate) struct Polls {
    sessions: Mutex<BTreeMap<NodeId, (Connected, Kept)>>,
}

type Kept = Arc<tokio::sync::Mutex<Session>>;

#[derive(Debug)]
struct Session {
    answers: mpsc::Receiver<Vec<Outgoing>>,
    speaker: Speaker,
    cut: CancellationToken,
}

impl Polls {
    fn sessions(&self) -> MutexGuard<'_, BTreeMap<NodeId, (Connected, Kept)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn answer(
    shared: &Arc<Shared>,
    batch: v1::AgentBatch,
) -> Result<v1::ServerBatch, Status> {
    let mut messages = batch.messages;
    let hello = messages
        .iter()
        .position(|message| matches!(message.kind, Some(Kind::Hello(_))));
    let node = match hello.map(|at| messages.remove(at).kind) {
        Some(Some(Kind::Hello(hello))) => begin(shared, hello).await?.node,
        _ => NodeId(batch.node),
    };
    let session = shared.polls.sessions().get(&node).cloned();
    let say_hello = || Status::failed_precondition("say hello first; the server restarted");
    let (connected, session) = session.ok_or_else(say_hello)?;
    let reports = hear::hear(shared, connected, messages).await?;
    if !reports.is_empty() {
        shared.driver.report(reports).await;
    }
    let mut session = session.lock().await;
    if session.cut.is_cancelled() {
        shared.polls.sessions().remove(&node);
        return Err(say_hello());
    }
    let mut said = v1::ServerBatch {
        call_again_ms: CALL_AGAIN_MS.1,
        ..v1::ServerBatch::default()
    };
    let first = tokio::time::timeout(ANSWER_WAIT, session.answers.recv()).await;
    let mut next = first.ok().flatten();
    while let Some(batch) = next {
        for part in session.speaker.say(batch).await {
            said.messages.extend(part?.messages);
        }
        next = session.answers.try_recv().ok();
    }
    if !said.messages.is_empty() {
        said.call_again_ms = CALL_AGAIN_MS.0;
    }
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
    let session = Session {
        answers,
        speaker: Speaker::new(Arc::clone(shared)),
        cut,
    };
    let session = Arc::new(tokio::sync::Mutex::new(session));
    let kept = (connected, session);
    shared.polls.sessions().insert(connected.node, kept);
    Ok(connected)
}
