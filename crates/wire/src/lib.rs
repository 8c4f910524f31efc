//! The protocol between agents and the server: generated gRPC types, and their conversions from
//! and to the words of `gleaner-model`. No I/O and no policy here.
#![forbid(unsafe_code)]

mod bounded;
mod record;

pub use bounded::{AGENT_FIELDS_MAX, AGENT_MESSAGES_MAX, BoundedCodec};
pub use record::{RECORD_BYTES_MAX, pack_record, unpack_record};

use gleaner_model::{AttemptId, JobId, TaskId};

/// The generated types of `proto/pool.proto`.
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    clippy::large_enum_variant,
    unused_qualifications,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("gleaner.v1");
}

/// The protocol version that this build speaks. A server refuses an agent with another one.
pub const PROTOCOL: u32 = 1;

/// Most bytes of small outputs that one `Ended` carries; larger ones travel as blobs.
pub const INLINE_BYTES_MAX: usize = 4096;

/// Largest message either side accepts, in bytes: a bundle of 256 tasks with 10,000 inputs fits.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

impl From<AttemptId> for v1::Attempt {
    fn from(id: AttemptId) -> Self {
        Self {
            job: id.task.job.0,
            index: id.task.index,
            number: id.number,
        }
    }
}

impl From<v1::Attempt> for AttemptId {
    fn from(id: v1::Attempt) -> Self {
        Self {
            task: TaskId {
                job: JobId(id.job),
                index: id.index,
            },
            number: id.number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::v1;
    use prost::Message as _;

    #[test]
    fn a_kind_of_a_later_version_is_none_and_its_neighbours_are_read() {
        // Field 1 of the batch, 4 bytes: field 99 of the message, 1 byte of content.
        let later: &[u8] = &[0x0a, 0x04, 0x9a, 0x06, 0x01, 0x2a];
        let batch = |messages| v1::AgentBatch { messages, node: 0 };
        let known = v1::AgentMessage {
            kind: Some(v1::agent_message::Kind::Beat(v1::Beat::default())),
        };
        let known_bytes = batch(vec![known.clone()]).encode_to_vec();
        let bytes = [&known_bytes, later, &known_bytes].concat();
        let read = v1::AgentBatch::decode(bytes.as_slice()).unwrap();
        let none = v1::AgentMessage { kind: None };
        assert_eq!(read, batch(vec![known.clone(), none, known]));
        let bytes = [later, later].concat();
        let read = v1::ServerBatch::decode(bytes.as_slice()).unwrap();
        assert!(read.messages.iter().all(|message| message.kind.is_none()));
        assert_eq!(read.messages.len(), 2);
    }
}
