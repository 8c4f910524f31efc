//! One pretended node: what it says at its next call, and what it makes of the answer.
//!
//! Pure: times come in as milliseconds since the benchmark began. It runs nothing: a task that it
//! was granted is done once its time has passed, and told with the call after that.

use gleaner_model::{AttemptId, AttemptRecord, Engine, Reason, Time, Usage};
use gleaner_wire::v1::agent_message::Kind as Say;
use gleaner_wire::v1::server_message::Kind as Hear;
use gleaner_wire::{PROTOCOL, v1};
use std::collections::BTreeMap;

/// What a pretended node has for tasks: one of them at once.
const CPUS_MILLI: u32 = 1000;
const MEMORY_BYTES: u64 = 4 << 30;
const DISK_BYTES: u64 = 64 << 30;

/// An end without an answer is told again after this many milliseconds, as agents do.
const RESEND_MS: u64 = 30_000;

/// CPU seconds that a task tells of itself.
const CPU_SECONDS: f64 = 0.001;

/// A task that the node was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Granted {
    attempt: AttemptId,
    since_ms: u64,
    /// When its end was last told.
    told_ms: Option<u64>,
}

/// A pretended node.
#[derive(Debug)]
pub(super) struct Node {
    identity: u32,
    /// How long its tasks take.
    task_ms: u64,
    /// Its number in the pool; none before the welcome.
    number: Option<u32>,
    granted: Vec<Granted>,
}

/// What an answer brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) granted: Vec<AttemptId>,
    pub(super) acknowledged: Vec<AttemptId>,
}

fn message(kind: Say) -> v1::AgentMessage {
    v1::AgentMessage { kind: Some(kind) }
}

impl Node {
    pub(super) const fn new(identity: u32, task_ms: u64) -> Self {
        Self {
            identity,
            task_ms,
            number: None,
            granted: Vec::new(),
        }
    }

    /// Whether the pool knows it.
    pub(super) const fn is_enrolled(&self) -> bool {
        self.number.is_some()
    }

    /// What it says now, and the attempts whose end it tells.
    pub(super) fn call(&mut self, now_ms: u64) -> (v1::AgentBatch, Vec<AttemptId>) {
        let beat = v1::Beat {
            state: "online".to_owned(),
            reason: String::new(),
        };
        let Some(number) = self.number else {
            let batch = v1::AgentBatch {
                messages: vec![message(Say::Hello(self.hello()))],
                node: 0,
            };
            return (batch, Vec::new());
        };
        let mut messages = vec![message(Say::Beat(beat))];
        let mut told = Vec::new();
        for granted in &mut self.granted {
            let done_ms = granted.since_ms + self.task_ms;
            let tell_ms = granted.told_ms.map_or(done_ms, |at| at + RESEND_MS);
            if now_ms >= tell_ms {
                granted.told_ms = Some(now_ms);
                told.push(granted.attempt);
                messages.push(message(Say::Ended(ended(granted, now_ms))));
            }
        }
        let batch = v1::AgentBatch {
            messages,
            node: number,
        };
        (batch, told)
    }

    fn hello(&self) -> v1::Hello {
        let held = self.granted.iter().map(|granted| v1::Held {
            attempt: Some(granted.attempt.into()),
            state: "running".to_owned(),
        });
        v1::Hello {
            identity: format!("{:032x}", self.identity),
            name: format!("pc-{:06}", self.identity),
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cpus_milli: CPUS_MILLI,
            memory_bytes: MEMORY_BYTES,
            disk_bytes: DISK_BYTES,
            arch: "x86_64".to_owned(),
            engines: vec![Engine::Process.to_string()],
            labels: [("room".to_owned(), format!("r{}", self.identity % 100))].into(),
            held: held.collect(),
            ..v1::Hello::default()
        }
    }

    pub(super) fn hear(&mut self, answer: v1::ServerBatch, now_ms: u64) -> Heard {
        let mut heard = Heard::default();
        for kind in answer.messages.into_iter().filter_map(|m| m.kind) {
            match kind {
                Hear::Welcome(welcome) => self.number = Some(welcome.node),
                Hear::Bundle(bundle) => {
                    for task in bundle.tasks {
                        let attempt = AttemptId::from(v1::Attempt {
                            job: bundle.job,
                            index: task.index,
                            number: task.number,
                        });
                        heard.granted.push(attempt);
                        self.granted.push(Granted {
                            attempt,
                            since_ms: now_ms,
                            told_ms: None,
                        });
                    }
                }
                Hear::Revoke(revoke) => self.forget(&revoke.attempts),
                Hear::Acknowledge(acknowledge) => {
                    self.forget(&acknowledge.attempts);
                    let attempts = acknowledge.attempts.into_iter().map(AttemptId::from);
                    heard.acknowledged.extend(attempts);
                }
                // Nothing runs that could be paused, saved or read.
                Hear::Wish(_) | Hear::Kept(_) | Hear::LogRequest(_) => {}
            }
        }
        heard
    }

    fn forget(&mut self, attempts: &[v1::Attempt]) {
        let gone = |granted: &Granted| attempts.contains(&granted.attempt.into());
        self.granted.retain(|granted| !gone(granted));
    }

    /// The server does not know it any more, or did not answer: it says hello next, with what it
    /// holds. What it told and heard no answer to is told again then.
    pub(super) fn part(&mut self) {
        self.number = None;
        for granted in &mut self.granted {
            granted.told_ms = None;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a benchmark")]
fn ended(granted: &Granted, now_ms: u64) -> v1::Ended {
    let seconds = now_ms.saturating_sub(granted.since_ms) as f64 / 1000.0;
    let reason = Reason::Exit { code: 0 };
    let record = AttemptRecord {
        attempt: granted.attempt,
        reason: reason.clone(),
        engine: Some(Engine::Process),
        started: Some(Time {
            ms: granted.since_ms,
        }),
        ended: Time { ms: now_ms },
        wall_seconds: seconds,
        paused_seconds: 0.0,
        usage: Usage {
            cpu_seconds: CPU_SECONDS,
            ..Usage::default()
        },
        limits: Vec::new(),
        refused_calls: BTreeMap::new(),
        degraded: Vec::new(),
        outputs: Vec::new(),
        went_on_from: None,
        checkpoints: 0,
    };
    v1::Ended {
        attempt: Some(granted.attempt.into()),
        // Neither has a map with keys that are no text, so neither can fail.
        reason: serde_json::to_vec(&reason).unwrap_or_default(),
        record: serde_json::to_vec(&record).unwrap_or_default(),
        cpu_seconds: CPU_SECONDS,
        busy_seconds: seconds,
        engine: Engine::Process.to_string(),
        ..v1::Ended::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(kind: Hear) -> v1::ServerBatch {
        let messages = vec![v1::ServerMessage { kind: Some(kind) }];
        v1::ServerBatch {
            messages,
            call_again_ms: 1000,
        }
    }

    fn welcome(node: u32) -> v1::ServerBatch {
        batch(Hear::Welcome(v1::Welcome {
            node,
            ..v1::Welcome::default()
        }))
    }

    fn bundle(indices: &[u32]) -> v1::ServerBatch {
        let task = |index: &u32| v1::Task {
            index: *index,
            number: 1,
            ..v1::Task::default()
        };
        batch(Hear::Bundle(v1::Bundle {
            job: 1,
            tasks: indices.iter().map(task).collect(),
            ..v1::Bundle::default()
        }))
    }

    fn acknowledge(attempt: AttemptId) -> v1::ServerBatch {
        let attempts = vec![attempt.into()];
        batch(Hear::Acknowledge(v1::Acknowledge { attempts }))
    }

    /// What a batch is made of: hello, held ones, beats, ends.
    fn counts(batch: &v1::AgentBatch) -> (usize, usize, usize) {
        let (mut held, mut beats, mut ends) = (0, 0, 0);
        for kind in batch.messages.iter().filter_map(|m| m.kind.as_ref()) {
            match kind {
                Say::Hello(hello) => held += 1 + hello.held.len(),
                Say::Beat(_) => beats += 1,
                Say::Ended(_) => ends += 1,
                Say::Progress(_) | Say::LogChunk(_) | Say::Saved(_) | Say::Offer(_) => {
                    panic!("a pretended node says nothing else")
                }
            }
        }
        (held, beats, ends)
    }

    #[test]
    fn a_node_says_hello_then_beats_and_ends_each_task_once() {
        let mut node = Node::new(7, 0);
        assert_eq!(counts(&node.call(0).0), (1, 0, 0));
        node.hear(welcome(3), 0);
        let granted = node.hear(bundle(&[4, 5]), 1000).granted;
        assert_eq!(granted.len(), 2);
        let (batch, told) = node.call(3000);
        assert_eq!((batch.node, counts(&batch)), (3, (0, 1, 2)));
        assert_eq!(told, granted);
        // Told and not answered yet: not told again at once, but after a while.
        assert_eq!(counts(&node.call(4000).0), (0, 1, 0));
        let heard = node.hear(acknowledge(granted[0]), 4000);
        assert_eq!(heard.acknowledged, granted[..1]);
        assert_eq!(counts(&node.call(3000 + RESEND_MS).0), (0, 1, 1));
        node.hear(acknowledge(granted[1]), 4000);
        assert_eq!(counts(&node.call(9 * RESEND_MS).0), (0, 1, 0));
    }

    #[test]
    fn a_task_takes_its_time() {
        let mut node = Node::new(7, 60_000);
        node.hear(welcome(3), 0);
        node.hear(bundle(&[4]), 1000);
        assert_eq!(counts(&node.call(60_999).0), (0, 1, 0));
        assert_eq!(counts(&node.call(61_000).0), (0, 1, 1));
    }

    #[test]
    fn who_parts_says_what_it_holds_and_tells_its_ends_again() {
        let mut node = Node::new(7, 0);
        node.hear(welcome(3), 0);
        node.hear(bundle(&[4]), 0);
        node.call(1);
        node.part();
        assert!(!node.is_enrolled());
        assert_eq!(counts(&node.call(2).0), (2, 0, 0));
        node.hear(welcome(9), 3);
        let (batch, told) = node.call(4);
        assert_eq!((batch.node, told.len()), (9, 1));
        let attempts = vec![told[0].into()];
        node.hear(batch_of_revoke(attempts), 5);
        assert_eq!(counts(&node.call(9 * RESEND_MS).0), (0, 1, 0));
    }

    fn batch_of_revoke(attempts: Vec<v1::Attempt>) -> v1::ServerBatch {
        batch(Hear::Revoke(v1::Revoke { attempts }))
    }
}
