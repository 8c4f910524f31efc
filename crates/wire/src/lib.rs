//! The protocol between agents and the server: generated gRPC types, and their conversions from
//! and to the words of `gleaner-model`. No I/O and no policy here.
#![forbid(unsafe_code)]

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
