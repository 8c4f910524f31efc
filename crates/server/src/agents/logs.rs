//! Output of running tasks, passed on from the agent to whoever asked, never stored.

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
    open: Mutex<BTreeMap<u64, mpsc::Sender<LogChunk>>>,
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
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, mpsc::Sender<LogChunk>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait(&self) -> LogWait<'_> {
        let request = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
        self.open().insert(request, sender);
        LogWait {
            relay: self,
            request,
            chunks,
        }
    }

    /// Passes a chunk on; one that nobody waits for is dropped.
    pub(super) fn deliver(&self, chunk: LogChunk) {
        let (request, last) = (chunk.request, chunk.last);
        let mut open = self.open();
        let delivered = open.get(&request).map(|sender| sender.try_send(chunk));
        if last || delivered.is_some_and(|sent| sent.is_err()) {
            open.remove(&request);
        }
    }
}
