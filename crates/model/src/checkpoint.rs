//! A saved attempt: what another attempt of the same task goes on from.
//!
//! Only the words and their bounds. Who saves is the engine's business, who carries is the
//! agent's, and which of several counts is the server's.

use crate::{AttemptId, FileEntry, Span, Time};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A program that ends with this exit code has saved itself and wants to go on elsewhere. It is
/// the code that `HTCondor` documents for self-checkpointing programs, so theirs run unchanged.
pub const CHECKPOINT_EXIT_CODE: i32 = 85;

/// Shortest time between two saves of a running attempt: each is a copy and an upload.
pub const CHECKPOINT_EVERY_MIN: Span = Span::seconds(1);

/// Most files of one checkpoint. They are named in a message to the next node, 256 tasks at a
/// time; a program with more packs them into an archive.
pub const CHECKPOINT_FILES_MAX: usize = 200;

/// Longest [`Checkpoint`] as JSON, in bytes: 256 of them fit into one message.
pub const CHECKPOINT_BYTES_MAX: usize = 32 << 10;

/// What a checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum CheckpointKind {
    /// The files by which the program saves itself. They go into scratch before the next start,
    /// in place of inputs of the same name, on any node and any engine.
    Files,
    /// A whole guest, memory included.
    Guest {
        /// Type of machine and of processor; a node restores only what was saved on an equal one.
        machine: String,
    },
}

/// A saved attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Which attempt was saved.
    pub attempt: AttemptId,
    /// When. No two of one attempt have the same.
    pub taken: Time,
    /// What it holds.
    #[serde(flatten)]
    pub kind: CheckpointKind,
    /// Its files: their names in scratch, or as the engine knows them.
    pub files: Vec<FileEntry>,
}

impl Checkpoint {
    /// The machine that it needs; none where any will do.
    #[must_use]
    pub fn machine(&self) -> Option<&str> {
        match &self.kind {
            CheckpointKind::Files => None,
            CheckpointKind::Guest { machine } => Some(machine),
        }
    }
}
