//! Live logs: a request of the server becomes chunks of a stream file, as far as it has grown.
//!
//! A request that follows looks for more every [`LOOK_MS`]; there is none unless a user asked,
//! so an idle node does nothing.

use crate::link::message;
use gleaner_wire::v1;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

/// Bytes in one chunk.
const CHUNK_BYTES: usize = 64 << 10;

/// Chunks sent without a rest, so that a long log does not fill the link's queue.
const BURST: u32 = 16;

/// The rest, in milliseconds.
const REST_MS: u64 = 20;

/// Wait before looking for more of a stream that has none, in milliseconds.
const LOOK_MS: u64 = 200;

/// One request that is being answered.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) file: File,
    pub(crate) request: v1::LogRequest,
    /// Set when the attempt has ended: what is there then is all.
    pub(crate) ended: CancellationToken,
    pub(crate) outgoing: UnboundedSender<v1::AgentMessage>,
}

impl Relay {
    /// Sends chunks until the end, or until the link is gone.
    pub(crate) async fn run(self) {
        let mut offset = self.request.offset;
        let mut burst = 0;
        loop {
            // Asked before reading: whatever is written before the end is still read.
            let ended = self.ended.is_cancelled();
            let mut data = vec![0; CHUNK_BYTES];
            let count = self.file.read_at(&mut data, offset).unwrap_or(0);
            data.truncate(count);
            let last = count == 0 && (ended || !self.request.follow);
            if count > 0 || last {
                let chunk = chunk(self.request.request, offset, data, last);
                if self.outgoing.send(chunk).is_err() || last {
                    return;
                }
                offset += count as u64;
                burst += 1;
            }
            if count == 0 {
                // The end is told at once: whoever waits for a short task waits for this.
                let look = tokio::time::sleep(Duration::from_millis(LOOK_MS));
                tokio::select! {
                    () = look => {}
                    () = self.ended.cancelled() => {}
                }
            } else if burst % BURST == 0 {
                tokio::time::sleep(Duration::from_millis(REST_MS)).await;
            }
        }
    }
}

/// A piece of a log.
pub(crate) const fn chunk(
    request: u64,
    offset: u64,
    data: Vec<u8>,
    last: bool,
) -> v1::AgentMessage {
    message(v1::agent_message::Kind::LogChunk(v1::LogChunk {
        request,
        offset,
        data,
        last,
    }))
}
