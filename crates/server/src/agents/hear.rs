//! What agents say, as events for the driver.

use crate::driver::{Connected, FromNode, Message, Outgoing};
use crate::shared::{Shared, blocking};
use crate::split::names;
use gleaner_core::{AskedBy, AttemptEnd, Event, Held, KernelUse, NodeReport, Saved};
use gleaner_model::{
    AttemptId, AttemptState, CHECKPOINT_BYTES_MAX, CHECKPOINT_FILES_MAX, Checkpoint, Digest,
    Engine, FileEntry, NodeId, NodeState, Reason, Time,
};
use gleaner_store::Envelope;
use gleaner_wire::v1::agent_message::Kind;
use gleaner_wire::{RECORD_BYTES_MAX, v1};
use serde::Deserialize;
use std::sync::Once;
use tonic::Status;

/// Most bytes of small contents that an end may carry: the protocol's bound, and room for agents
/// of a later version.
const INLINE_BYTES_MAX: usize = 16 * gleaner_wire::INLINE_BYTES_MAX;

/// Most seconds that one report is believed, a thousand years: sums of them stay numbers.
const SECONDS_MAX: f64 = 3.2e10;

/// How nearly every report ends; read without a parser.
const EXIT_ZERO: &[u8] = br#"{"kind":"exit","code":0}"#;

/// Says, once, that an agent is of a later version than this server.
fn later(what: &str) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            what,
            "an agent of a later version is passed over; upgrade the server"
        );
    });
}

/// What a node holds. A state of a later version is one of an attempt that the node has, and must
/// not be taken from it.
pub(super) fn held(held: v1::Held) -> Option<Held> {
    let state = AttemptState::from_word(&held.state).unwrap_or_else(|| {
        later("a state of an attempt");
        AttemptState::Running
    });
    Some(Held {
        attempt: held.attempt?.into(),
        state,
    })
}

/// All of a batch but a hello. Chunks of logs go straight to who waits for them.
pub(super) async fn hear(
    shared: &Shared,
    connected: Connected,
    messages: Vec<v1::AgentMessage>,
) -> Result<Vec<FromNode>, Status> {
    let node = connected.node;
    let mut reports = Vec::with_capacity(messages.len());
    for message in messages {
        let event = match message.kind {
            Some(Kind::Ended(ended)) => {
                reports.push(end(shared, node, ended).await?);
                continue;
            }
            Some(Kind::Beat(beat)) => Event::Beat(NodeReport {
                node,
                // It lives, but what it means is not known: its leases hold, and nothing is added.
                state: NodeState::from_word(&beat.state).unwrap_or_else(|| {
                    later("a state of a node");
                    NodeState::Paused
                }),
                reason: beat.reason,
            }),
            Some(Kind::Offer(offer)) => {
                let offer = super::offer(node, offer)?;
                shared.driver.offer(connected, offer).await;
                continue;
            }
            Some(Kind::Progress(progress)) => {
                let attempt = progress.attempt.map(AttemptId::from);
                let attempt =
                    attempt.ok_or_else(|| Status::invalid_argument("a progress of nothing"))?;
                let Some(state) = AttemptState::from_word(&progress.state) else {
                    later("a state of an attempt");
                    continue;
                };
                Event::Progress(node, attempt, state)
            }
            Some(Kind::Saved(saved)) => {
                let attempt = saved.attempt.map(AttemptId::from);
                let attempt =
                    attempt.ok_or_else(|| Status::invalid_argument("saved, but what?"))?;
                match checkpoint(shared, attempt, &saved.checkpoint).await? {
                    Ok(saved) => Event::Saved(node, attempt, saved),
                    Err((taken, detail)) => {
                        tracing::warn!(%attempt, detail, "a checkpoint is of no use");
                        let kept = false;
                        let refused = Outgoing::Kept {
                            attempt,
                            taken,
                            kept,
                        };
                        shared.driver.send(Message::Tell(node, refused)).await;
                        continue;
                    }
                }
            }
            Some(Kind::LogChunk(chunk)) => {
                shared.logs.deliver(node, chunk);
                continue;
            }
            Some(Kind::Hello(_)) => {
                return Err(Status::invalid_argument("a second hello on one connection"));
            }
            // Nothing here depends on it.
            None => {
                later("a message");
                continue;
            }
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
    let mut saved = None;
    if !ended.checkpoint.is_empty() {
        match checkpoint(shared, attempt, &ended.checkpoint).await? {
            Ok(whole) => saved = Some(whole),
            Err((_, detail)) if matches!(reason, Reason::Checkpointed { .. }) => {
                reason = Reason::Fetch { detail };
            }
            // Given back, and no worse than without it.
            Err((_, detail)) => tracing::warn!(%attempt, detail, "a checkpoint is of no use"),
        }
    }
    let seconds = |value: f64| match value.is_finite() {
        true => value.clamp(0.0, SECONDS_MAX),
        false => 0.0,
    };
    Ok(FromNode {
        event: Event::Ended(AttemptEnd {
            node,
            attempt,
            reason,
            cpu_seconds: seconds(ended.cpu_seconds),
            busy_seconds: seconds(ended.busy_seconds),
            kernel: asked_by(&ended.engine).map(|asked_by| KernelUse {
                asked_by,
                system_seconds: seconds(ended.system_seconds),
                faults: ended.faults,
            }),
            record: Envelope::encode(&ended.record, &ended.inline),
            saved,
        }),
        blobs,
    })
}

/// What every checkpoint says, whatever its version.
#[derive(Debug, Deserialize)]
struct Taken {
    taken: Time,
}

/// Who asked the kernel in attempts on this engine. A module's calls are its runner's, which says
/// nothing of what they would be elsewhere.
fn asked_by(engine: &str) -> Option<AskedBy> {
    let is = |known: Engine| engine == known.as_str();
    if is(Engine::Process) {
        Some(AskedBy::Program)
    } else {
        is(Engine::Vm).then_some(AskedBy::Guest)
    }
}

/// What an attempt was saved as; or when, and what is wrong with it.
async fn checkpoint(
    shared: &Shared,
    attempt: AttemptId,
    json: &[u8],
) -> Result<Result<Saved, (Time, String)>, Status> {
    if json.len() > CHECKPOINT_BYTES_MAX {
        return Err(Status::invalid_argument("a checkpoint that is too long"));
    }
    let read: Result<Checkpoint, _> = serde_json::from_slice(json);
    let checkpoint = match read {
        Ok(checkpoint) => checkpoint,
        // Of another version: refused, or it would be sent again for ever.
        Err(error) => {
            let nonsense = |_| Status::invalid_argument("a checkpoint that makes no sense");
            let taken: Taken = serde_json::from_slice(json).map_err(nonsense)?;
            let detail = format!("this server does not understand it: {error}");
            return Ok(Err((taken.taken, detail)));
        }
    };
    if checkpoint.attempt != attempt || checkpoint.files.len() > CHECKPOINT_FILES_MAX {
        return Err(Status::invalid_argument("a checkpoint of something else"));
    }
    let wrong = |file: &&FileEntry| names::problem(&file.name).is_some();
    if let Some(file) = checkpoint.files.iter().find(wrong) {
        let detail = format!("{:?} cannot be the name of a file", file.name);
        return Ok(Err((checkpoint.taken, detail)));
    }
    let blobs = checkpoint.files.iter().map(|file| file.blob.digest);
    let blobs: Vec<Digest> = blobs.collect();
    if let Some(detail) = lacking(shared, &blobs).await? {
        return Ok(Err((checkpoint.taken, detail)));
    }
    // Without who and when: the same content has the same digest.
    let content = serde_json::to_vec(&(&checkpoint.kind, &checkpoint.files)).unwrap_or_default();
    Ok(Ok(Saved {
        taken: checkpoint.taken,
        content: Digest(*blake3::hash(&content).as_bytes()),
        machine: checkpoint.machine().map(str::to_owned),
        blobs,
        record: json.to_vec(),
    }))
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
