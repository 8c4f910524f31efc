//! What agents say, as events for the driver.

use crate::driver::FromNode;
use crate::shared::{Shared, blocking};
use gleaner_core::{AttemptEnd, Event, Held, NodeReport};
use gleaner_model::{AttemptId, AttemptState, Digest, NodeId, NodeState, Reason};
use gleaner_store::Envelope;
use gleaner_wire::v1;
use gleaner_wire::v1::agent_message::Kind;
use tonic::Status;

/// Most bytes of an attempt's record: ten thousand output files fit.
const RECORD_BYTES_MAX: usize = 8 << 20;

/// Most bytes of small contents that an end may carry: the protocol's bound, and room for agents
/// of a later version.
const INLINE_BYTES_MAX: usize = 16 * gleaner_wire::INLINE_BYTES_MAX;

/// How nearly every report ends; read without a parser.
const EXIT_ZERO: &[u8] = br#"{"kind":"exit","code":0}"#;

pub(super) fn held(held: v1::Held) -> Option<Held> {
    Some(Held {
        attempt: held.attempt?.into(),
        state: AttemptState::from_word(&held.state)?,
    })
}

/// All of a batch but a hello. Chunks of logs go straight to who waits for them.
pub(super) async fn hear(
    shared: &Shared,
    node: NodeId,
    messages: Vec<v1::AgentMessage>,
) -> Result<Vec<FromNode>, Status> {
    let mut reports = Vec::with_capacity(messages.len());
    for message in messages {
        let event = match message.kind {
            Some(Kind::Ended(ended)) => {
                reports.push(end(shared, node, ended).await?);
                continue;
            }
            Some(Kind::Beat(beat)) => Event::Beat(NodeReport {
                node,
                state: NodeState::from_word(&beat.state)
                    .ok_or_else(|| Status::invalid_argument("a beat with an unknown state"))?,
                reason: beat.reason,
            }),
            Some(Kind::Progress(progress)) => {
                let attempt = progress.attempt.map(AttemptId::from);
                let state = AttemptState::from_word(&progress.state);
                let (Some(attempt), Some(state)) = (attempt, state) else {
                    return Err(Status::invalid_argument("a progress that makes no sense"));
                };
                Event::Progress(node, attempt, state)
            }
            Some(Kind::LogChunk(chunk)) => {
                shared.logs.deliver(chunk);
                continue;
            }
            Some(Kind::Hello(_)) => {
                return Err(Status::invalid_argument("a second hello on one connection"));
            }
            // A message of a later version: nothing here depends on it.
            None => continue,
        };
        reports.push(FromNode {
            event,
            blobs: Vec::new(),
        });
    }
    Ok(reports)
}

async fn end(shared: &Shared, node: NodeId, ended: v1::Ended) -> Result<FromNode, Status> {
    let inline: usize = ended.inline.iter().map(Vec::len).sum();
    if ended.record.len() > RECORD_BYTES_MAX || inline > INLINE_BYTES_MAX {
        return Err(Status::invalid_argument("a report that is too long"));
    }
    let attempt = ended.attempt.map(AttemptId::from);
    let attempt = attempt.ok_or_else(|| Status::invalid_argument("a report of no attempt"))?;
    let mut reason = reason(&ended.reason);
    let digests = ended
        .blobs
        .iter()
        .map(|bytes| Some(Digest(bytes.as_slice().try_into().ok()?)));
    let digests: Option<Vec<Digest>> = digests.collect();
    let blobs = digests.ok_or_else(|| Status::invalid_argument("a digest of no 32 bytes"))?;
    if let Some(detail) = lacking(shared, &blobs).await? {
        reason = Reason::Fetch { detail };
    }
    let seconds = |value: f64| {
        if value.is_finite() {
            value.max(0.0)
        } else {
            0.0
        }
    };
    Ok(FromNode {
        event: Event::Ended(AttemptEnd {
            node,
            attempt,
            reason,
            cpu_seconds: seconds(ended.cpu_seconds),
            busy_seconds: seconds(ended.busy_seconds),
            record: Envelope::encode(&ended.record, &ended.inline),
        }),
        blobs,
    })
}

fn reason(json: &[u8]) -> Reason {
    if json == EXIT_ZERO {
        return Reason::Exit { code: 0 };
    }
    serde_json::from_slice(json).unwrap_or_else(|error| Reason::Engine {
        detail: format!("the agent's report makes no sense ({error}); is it of this version?"),
    })
}

/// What is wrong with the outputs that were to be uploaded before the report, if anything.
async fn lacking(shared: &Shared, digests: &[Digest]) -> Result<Option<String>, Status> {
    if digests.is_empty() {
        return Ok(None);
    }
    let (blobs, digests) = (shared.blobs.clone(), digests.to_vec());
    let look = blocking(move || {
        for digest in digests {
            if blobs.renew(&digest)?.is_none() {
                return Ok(Some(format!("output {digest} never reached the server")));
            }
        }
        Ok::<_, gleaner_blob::BlobError>(None)
    });
    let looked = look
        .await
        .map_err(|_| Status::internal("the server failed; its log says why"))?;
    looked.map_err(|error| Status::unavailable(error.to_string()))
}
