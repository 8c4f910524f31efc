//! Durable state: what the brain writes ([`gleaner_core::Row`]) and what the server keeps beside
//! it ([`ServerRow`]), committed together or not at all.
//!
//! Owns the schema and the encodings. Knows nothing of HTTP, of blobs' contents or of why a row
//! was written. Rows come from the server's driver; snapshots go back to it after a restart;
//! pages of attempts go to whoever answers users.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod codec;
mod envelope;
mod memory;
mod sqlite;
#[cfg(test)]
mod tests;

pub use envelope::Envelope;
pub use memory::MemoryStore;
pub use sqlite::SqliteStore;

use gleaner_core::{AttemptRow, CheckpointRow, Row, Snapshot};
use gleaner_model::{BlobRef, Digest, JobId, NodeId, OutputFile, TaskId, Time, UserId};

/// Something could not be stored or read back.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full. Nothing of the batch is stored; try again when there is space.
    #[error("the disk that holds the server's data is full; free some space, it goes on by itself")]
    Full,
    /// The file was written by a newer version.
    #[error(
        "the store has schema {found}, this program knows up to {known}; start the newer version"
    )]
    Newer {
        /// Version in the file.
        found: u32,
        /// Newest version this build reads.
        known: u32,
    },
    /// A row does not read back as it was written.
    #[error("the store is damaged: {0}; restore the data directory from a backup")]
    Damaged(String),
    /// The database failed otherwise.
    #[error("the store failed: {0}")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What a token lets its bearer be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A user who may also make tokens and steer nodes.
    Admin,
    /// A user.
    User,
    /// An agent.
    Node,
}

impl TokenKind {
    /// The word in the store and in listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Node => "node",
        }
    }

    /// The kind that `word` names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Admin, Self::User, Self::Node]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Counts from 1.
    pub id: u64,
    /// BLAKE3 of the whole token text.
    pub hash: [u8; 32],
    /// What it lets its bearer be.
    pub kind: TokenKind,
    /// Whom it stands for.
    pub name: String,
    /// The user it stands for; none for a node's token.
    pub user: Option<UserId>,
    /// When it was made.
    pub created: Time,
    /// No longer good.
    pub revoked: bool,
}

/// A node as the server knows it for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its number.
    pub node: NodeId,
    /// What it calls itself by, over restarts.
    pub identity: String,
    /// Its name at the last hello.
    pub name: String,
    /// Tasks it has done.
    pub done: u64,
}

/// A name for an image. Jobs have its digest from when they were submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// What users call it.
    pub name: String,
    /// The file.
    pub blob: BlobRef,
    /// When the name came to stand for this file.
    pub created: Time,
    /// Who made it so.
    pub user: UserId,
    /// What it was made of, in the words of who made it.
    pub note: String,
}

/// One change to what the server keeps beside the brain's rows: insert or replace by key.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerRow {
    /// A user's name.
    User(UserId, String),
    /// A token.
    Token(TokenRow),
    /// Which node an identity is, and its name.
    Node {
        /// Its number.
        node: NodeId,
        /// Its identity.
        identity: String,
        /// Its name.
        name: String,
    },
    /// How many tasks a node has done.
    NodeDone(NodeId, u64),
    /// CPU seconds of all ended attempts of a job.
    JobCpu(JobId, f64),
    /// A merged file of a job.
    Merged(JobId, OutputFile),
    /// A job needs a blob: it is not swept.
    Ref(JobId, Digest),
    /// A name stands for an image: its blob is not swept.
    Image(ImageRow),
    /// No image has this name any more.
    ImageGone(String),
}

impl ServerRow {
    /// The job that the row is about, if it is about one.
    #[must_use]
    pub const fn job(&self) -> Option<JobId> {
        match self {
            Self::JobCpu(job, _) | Self::Merged(job, _) | Self::Ref(job, _) => Some(*job),
            Self::User(..)
            | Self::Token(_)
            | Self::Node { .. }
            | Self::NodeDone(..)
            | Self::Image(_)
            | Self::ImageGone(_) => None,
        }
    }
}

/// Everything that the server needs at a start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// For the brain.
    pub snapshot: Snapshot,
    /// Users by number.
    pub users: Vec<(UserId, String)>,
    /// Tokens by number.
    pub tokens: Vec<TokenRow>,
    /// Nodes by number.
    pub nodes: Vec<NodeRecord>,
    /// CPU seconds by job.
    pub job_cpu: Vec<(JobId, f64)>,
    /// Images by name.
    pub images: Vec<ImageRow>,
}

/// A place that keeps rows. One writer (the driver); any number of readers beside it.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Everything durable.
    ///
    /// # Errors
    /// The database cannot be read, or holds what does not decode.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Makes all rows durable in one transaction, or none. Synced when it returns.
    ///
    /// # Errors
    /// Nothing of the batch is stored.
    fn commit(&self, rows: &[Row], server: &[ServerRow]) -> Result<(), StoreError>;

    /// Whether a commit works just now: writes what is there already, synced.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn probe(&self) -> Result<(), StoreError>;

    /// A job's body as it was submitted.
    ///
    /// # Errors
    /// The database cannot be read.
    fn job_body(&self, job: JobId) -> Result<Option<Vec<u8>>, StoreError>;

    /// Ended attempts of a task, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRow>, StoreError>;

    /// The last ended attempt of each task in `from..to` that has one, and the one that made it
    /// done where that is another; by task and number.
    ///
    /// # Errors
    /// The database cannot be read.
    fn last_attempts(&self, job: JobId, from: u32, to: u32) -> Result<Vec<AttemptRow>, StoreError>;

    /// The attempts that made a job's done tasks done, by index, from `from` on, at most `limit`.
    ///
    /// # Errors
    /// The database cannot be read.
    fn results(&self, job: JobId, from: u32, limit: usize) -> Result<Vec<AttemptRow>, StoreError>;

    /// What a task goes on from, without its list of blobs; none where it begins.
    ///
    /// # Errors
    /// The database cannot be read.
    fn checkpoint(&self, task: TaskId) -> Result<Option<CheckpointRow>, StoreError>;

    /// The merged files of a job.
    ///
    /// # Errors
    /// The database cannot be read.
    fn merged(&self, job: JobId) -> Result<Vec<OutputFile>, StoreError>;

    /// The content with this digest that some attempt carried in its record.
    ///
    /// # Errors
    /// The database cannot be read.
    fn inline(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError>;

    /// Removes some of what deleted jobs left; says whether more is left. Each call is a short
    /// turn of the writer, so that commits get in between. Call it until it says no before blobs
    /// are swept.
    ///
    /// # Errors
    /// The database cannot be written. What was removed before stays removed.
    fn purge(&self) -> Result<bool, StoreError>;

    /// Whether some job needs this blob, a task may go on from it, or a name stands for it.
    ///
    /// # Errors
    /// The database cannot be read.
    fn is_referenced(&self, digest: &Digest) -> Result<bool, StoreError>;
}

/// The content among those that `row` carries whose digest this is.
pub(crate) fn inline_of(row: &[u8], digest: &Digest) -> Option<Vec<u8>> {
    Envelope::decode(row)?
        .inline
        .iter()
        .find(|content| blake3::hash(content).as_bytes() == &digest.0)
        .map(|content| content.to_vec())
}
