//! Output of running tasks, passed on from the agent to whoever asked, never stored.

use gleaner_model::NodeId;
use gleaner_wire::v1::LogChunk;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Chunks that may wait for a reader; one that is slower loses its request and asks again from
/// where it is.
const CHUNKS_WAITING: usize = 64;

/// Requests that wait for chunks.
#[derive(Debug, Default)]
pub(crate) struct LogRelay {
    last: AtomicU64,
    open: Mutex<BTreeMap<u64, Asked>>,
}

/// Who was asked, and who waits for the answer.
#[derive(Debug)]
struct Asked {
    node: NodeId,
    chunks: mpsc::Sender<LogChunk>,
}

/// One request; forgotten when it is dropped.
#[derive(Debug)]
pub(crate) struct LogWait<'a> {
    relay: &'a LogRelay,
    pub(crate) request: u64,
    pub(crate) chunks: mpsc::Receiver<LogChunk>,
}

impl Drop for LogWait<'_> {
    fn drop(&mut self) {
        self.relay.open().remove(&self.request);
    }
}

impl LogRelay {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Asked>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node will be asked for.
    pub(crate) fn wait(&self, node: NodeId) -> LogWait<'_> {
        let request = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
        let asked = Asked {
            node,
            chunks: sender,
        };
        self.open().insert(request, asked);
        LogWait {
            relay: self,
            request,
            chunks,
        }
    }

    /// Passes a chunk on; one that nobody waits for is dropped, and so is one of a node that was not
    /// asked: no PC puts words into another's mouth.
    pub(super) fn deliver(&self, node: NodeId, chunk: LogChunk) {
        let (request, last) = (chunk.request, chunk.last);
        let mut open = self.open();
        let Some(asked) = open.get(&request).filter(|asked| asked.node == node) else {
            return;
        };
        let delivered = asked.chunks.try_send(chunk);
        if last || delivered.is_err() {
            open.remove(&request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_node_that_was_asked_answers() {
        let relay = LogRelay::default();
        let mut wait = relay.wait(NodeId(1));
        let chunk = |data: &[u8], last| LogChunk {
            request: wait.request,
            offset: 0,
            data: data.to_vec(),
            last,
        };
        let (lie, words, end) = (
            chunk(b"lie", true),
            chunk(b"words", false),
            chunk(b"", true),
        );
        relay.deliver(NodeId(2), lie);
        relay.deliver(NodeId(1), words);
        assert_eq!(wait.chunks.try_recv().unwrap().data, b"words");
        wait.chunks.try_recv().unwrap_err();
        relay.deliver(NodeId(1), end.clone());
        assert!(wait.chunks.try_recv().unwrap().last);
        // It is through: nothing comes behind the end.
        relay.deliver(NodeId(1), end);
        wait.chunks.try_recv().unwrap_err();
    }
}
