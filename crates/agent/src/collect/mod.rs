//! From an ended attempt to its report: outputs are hashed, small ones travel in the report,
//! others are uploaded before it is sent.
//!
//! Nothing is spooled here and nothing synced: the engine keeps an ending and its files until
//! [`gleaner_engine::Engine::discard`], which comes only after the server has acknowledged the
//! report. An agent that is killed in between adopts the ended attempt and makes the same report
//! again.

use crate::blobs::{Blobs, SMALL_BYTES_MAX, TransferError};
use crate::link::backoff::wait;
use gleaner_attempt::Saving;
use gleaner_engine::{CollectedFile, Ending, Engine, EngineError};
use gleaner_model::{
    AttemptId, AttemptRecord, AttemptState, BlobRef, CHECKPOINT_BYTES_MAX, CHECKPOINT_FILES_MAX,
    Checkpoint, CheckpointKind, Digest, FileEntry, Limits, OutputFile, Reason, Time,
};
use gleaner_wire::{INLINE_BYTES_MAX, pack_record, v1};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Most files that one attempt brings home; a hash and a row each.
const OUTPUTS_MAX: usize = 50_000;

/// Longest record in bytes, half of what a server takes: the names of 10,000 files fit.
const RECORD_BYTES_MAX: usize = 4 << 20;

/// Bytes of small outputs read into memory before they are sent.
const SMALL_HELD_BYTES: u64 = 8 << 20;

/// Bytes hashed at once.
const HASH_BYTES: usize = 128 << 10;

/// Bytes of each stream that come home from an attempt which saved itself: enough to see why, if
/// it does so for ever. The task's own streams are those of its last attempt.
const SAVED_STREAM_BYTES: u64 = 16 << 10;

/// A report in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    record: AttemptRecord,
    inline: Vec<Vec<u8>>,
    /// Outputs that are uploaded.
    blobs: Vec<Digest>,
    checkpoint: Option<Checkpoint>,
    /// What must be at the server before the report goes there.
    pub(crate) uploads: Vec<Upload>,
}

/// A file on its way to the server.
#[derive(Debug)]
pub(crate) struct Upload {
    blob: BlobRef,
    file: File,
}

impl Upload {
    /// Its size in bytes.
    pub(crate) const fn size(&self) -> u64 {
        self.blob.size
    }
}

/// What an ended attempt leaves to go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// Nothing.
    Nothing,
    /// This; without it the attempt has not done what it said.
    Must(CheckpointKind),
    /// This, where it can be had.
    May(CheckpointKind),
}

impl Leaves {
    /// By how it ended, what its last save made, and how it is saved.
    pub(crate) fn of(reason: &Reason, left: Option<CheckpointKind>, how: &Saving) -> Self {
        match (reason.state(), left) {
            (AttemptState::Checkpointed, _) => Self::Must(CheckpointKind::Files),
            (AttemptState::Evicted, Some(guest)) => Self::May(guest),
            // Files that may be copied at any moment may be so at this one.
            (AttemptState::Evicted, None) if how.itself && how.every.is_some() && !how.whole => {
                Self::May(CheckpointKind::Files)
            }
            _ => Self::Nothing,
        }
    }
}

/// One output after hashing.
struct Hashed {
    blob: BlobRef,
    file: File,
    /// Its content, where it is small enough to travel in the report.
    content: Option<Vec<u8>>,
}

impl Draft {
    /// A report without outputs: of an attempt that never ran, or whose outputs are of no use.
    pub(crate) fn bare(
        attempt: AttemptId,
        reason: Reason,
        ending: Option<&Ending>,
        now: Time,
    ) -> Self {
        let none = Ending::bare(reason.clone(), now);
        let ending = ending.unwrap_or(&none);
        Self {
            record: AttemptRecord {
                attempt,
                reason,
                engine: None,
                started: ending.started,
                ended: ending.ended,
                wall_seconds: ending.wall_seconds,
                paused_seconds: ending.paused_seconds,
                usage: ending.usage,
                limits: ending.limits.clone(),
                refused_calls: ending.refused_calls.clone(),
                degraded: ending.degraded.clone(),
                outputs: Vec::new(),
                went_on_from: None,
                checkpoints: 0,
            },
            inline: Vec::new(),
            blobs: Vec::new(),
            checkpoint: None,
            uploads: Vec::new(),
        }
    }

    /// The report of an attempt that an engine holds. Blocks on the disk.
    pub(crate) fn collect(
        engine: &dyn Engine,
        attempt: AttemptId,
        reason: Reason,
        ending: &Ending,
        limits: &Limits,
    ) -> Self {
        let wanted = matches!(
            reason.state(),
            AttemptState::Finished | AttemptState::Failed
        );
        let saved_itself = reason.state() == AttemptState::Checkpointed;
        let mut draft = Self::bare(attempt, reason, Some(ending), ending.ended);
        draft.record.engine = Some(engine.kind());
        if saved_itself {
            let max = limits.output.0.min(SAVED_STREAM_BYTES);
            // Nothing depends on them.
            let _unread = draft.take(streams(engine, attempt, max));
        }
        if !wanted {
            return draft;
        }
        let files = engine.collect(attempt).and_then(|files| match files.len() {
            0..=OUTPUTS_MAX => Ok(files),
            count => Err(EngineError::Output {
                name: format!("{count} files"),
                problem: format!("are more than {OUTPUTS_MAX}; pack them into an archive"),
            }),
        });
        let files = files.unwrap_or_else(|error| {
            draft.spoil(&error);
            streams(engine, attempt, limits.output.0)
        });
        if let Err(error) = draft.take(files) {
            draft.spoil(&EngineError::io("read an output", error));
        }
        draft
    }

    /// Outputs that cannot be had turn a success into a failure; a failure keeps its own reason.
    fn spoil(&mut self, error: &EngineError) {
        if self.record.reason.is_success() {
            let detail = error.to_string();
            self.record.reason = match error {
                // The reason begins with that word already.
                EngineError::Output { name, problem } => Reason::Output {
                    detail: format!("{name:?} {problem}"),
                },
                EngineError::Unknown(_) | EngineError::Unsupported(_) | EngineError::Io { .. } => {
                    Reason::Engine { detail }
                }
            };
        }
    }

    /// What the attempt went on from, and how often its task was saved before its end.
    pub(crate) const fn went_on(&mut self, from: Option<AttemptId>, checkpoints: u32) {
        self.record.went_on_from = from;
        self.record.checkpoints = checkpoints;
    }

    /// Adds what the attempt leaves to go on from. Where it must leave something and does not, it
    /// has failed.
    pub(crate) fn take_saved(
        &mut self,
        engine: &dyn Engine,
        leaves: Leaves,
        limits: &Limits,
        now: Time,
    ) {
        let (kind, must) = match leaves {
            Leaves::Nothing => return,
            Leaves::Must(kind) => (kind, true),
            Leaves::May(kind) => (kind, false),
        };
        match saved(engine, (self.record.attempt, kind), limits, now) {
            Ok((checkpoint, files)) => {
                self.record.checkpoints += 1;
                self.checkpoint = Some(checkpoint);
                self.uploads.extend(files);
            }
            Err(error) if must => {
                self.record.reason = Reason::Output {
                    detail: format!("of what the program saved, {error}"),
                };
            }
            Err(error) => self
                .record
                .degraded
                .push(format!("checkpoint: not saved at its end: {error}")),
        }
    }

    fn take(&mut self, files: Vec<CollectedFile>) -> std::io::Result<()> {
        let mut hashed = Vec::with_capacity(files.len());
        for output in files {
            let (name, mode) = (output.name.clone(), output.mode);
            let one = hash(output)?;
            self.record.outputs.push(OutputFile {
                name,
                blob: one.blob,
                mode,
            });
            hashed.push(one);
        }
        // The smallest first: most files avoid a transfer of their own.
        hashed.sort_by_key(|one| one.blob.size);
        let (mut known, mut room) = (BTreeSet::new(), INLINE_BYTES_MAX);
        for one in hashed {
            if !known.insert(one.blob.digest) {
                continue;
            }
            match one.content.filter(|content| content.len() <= room) {
                Some(content) => {
                    room -= content.len();
                    self.inline.push(content);
                }
                None => {
                    self.blobs.push(one.blob.digest);
                    self.uploads.push(Upload {
                        blob: one.blob,
                        file: one.file,
                    });
                }
            }
        }
        Ok(())
    }

    /// The server will not take an output: the report goes without any.
    pub(crate) fn refuse(&mut self, reason: Reason) {
        let saved_itself = self.record.reason.state() == AttemptState::Checkpointed;
        if self.record.reason.is_success() || saved_itself {
            self.record.reason = reason;
        }
        self.record.outputs.clear();
        self.checkpoint = None;
        self.inline.clear();
        self.blobs.clear();
        self.uploads.clear();
    }

    /// The report as it is sent, and the reason in it.
    pub(crate) fn seal(mut self) -> (Reason, v1::Ended) {
        let mut record_json = json(&self.record);
        if record_json.len() > RECORD_BYTES_MAX {
            let count = self.record.outputs.len();
            self.refuse(Reason::Output {
                detail: format!(
                    "the names of {count} files are too long; pack them into an archive"
                ),
            });
            record_json = json(&self.record);
        }
        let record = &self.record;
        let ended = v1::Ended {
            attempt: Some(record.attempt.into()),
            reason: json(&record.reason),
            cpu_seconds: record.usage.cpu_seconds,
            busy_seconds: (record.wall_seconds - record.paused_seconds).max(0.0),
            system_seconds: record.usage.system_seconds,
            faults: record
                .usage
                .minor_faults
                .saturating_add(record.usage.page_faults),
            engine: record
                .engine
                .map(|kind| kind.as_str().to_owned())
                .unwrap_or_default(),
            record: pack_record(&record_json),
            inline: self.inline,
            blobs: self.blobs.iter().map(|blob| blob.0.to_vec()).collect(),
            checkpoint: self.checkpoint.as_ref().map(json).unwrap_or_default(),
        };
        (self.record.reason, ended)
    }
}

/// What is sent of our own types; none of them can fail to be written.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// What an engine has saved of an attempt, and the files to send. Blocks on the disk.
pub(crate) fn saved(
    engine: &dyn Engine,
    (attempt, kind): (AttemptId, CheckpointKind),
    limits: &Limits,
    now: Time,
) -> Result<(Checkpoint, Vec<Upload>), EngineError> {
    let wrong = |name: String, problem: String| EngineError::Output { name, problem };
    let found = engine.saved(attempt)?;
    if found.len() > CHECKPOINT_FILES_MAX {
        let problem = format!("are more than {CHECKPOINT_FILES_MAX}; pack them into an archive");
        return Err(wrong(format!("{} files", found.len()), problem));
    }
    let bytes = found
        .iter()
        .fold(0_u64, |sum, file| sum.saturating_add(file.size));
    if kind == CheckpointKind::Files && bytes > limits.output.0 {
        let problem = "are larger than limits.output; raise it or save less".to_owned();
        return Err(wrong("the saved files".to_owned(), problem));
    }
    let (mut files, mut uploads) = (Vec::new(), Vec::new());
    for file in found {
        let (name, mode) = (file.name.clone(), file.mode);
        let one = hash(file)
            .map_err(|error| EngineError::io(format!("read the saved file {name:?}"), error))?;
        let blob = one.blob;
        files.push(FileEntry { name, blob, mode });
        uploads.push(Upload {
            blob,
            file: one.file,
        });
    }
    let checkpoint = Checkpoint {
        attempt,
        taken: now,
        kind,
        files,
    };
    if json(&checkpoint).len() > CHECKPOINT_BYTES_MAX {
        let problem = "have too long names; pack them into an archive".to_owned();
        return Err(wrong("the saved files".to_owned(), problem));
    }
    Ok((checkpoint, uploads))
}

/// What the program printed, where its outputs cannot be had; cut where it printed too much.
fn streams(engine: &dyn Engine, attempt: AttemptId, max_bytes: u64) -> Vec<CollectedFile> {
    let Ok(streams) = engine.streams(attempt) else {
        return Vec::new();
    };
    ["stdout", "stderr"]
        .into_iter()
        .zip(streams)
        .filter_map(|(name, file)| {
            let size = file.metadata().ok()?.len().min(max_bytes);
            Some(CollectedFile {
                name: name.to_owned(),
                file,
                size,
                mode: 0o644,
            })
        })
        .collect()
}

/// Nothing of the attempt runs any more, so its files do not change while they are read.
fn hash(output: CollectedFile) -> std::io::Result<Hashed> {
    let (mut file, size) = (output.file, output.size);
    let small = usize::try_from(size).is_ok_and(|size| size <= INLINE_BYTES_MAX);
    let mut hasher = blake3::Hasher::new();
    let (size, content) = if small {
        let mut content = Vec::new();
        (&mut file).take(size).read_to_end(&mut content)?;
        hasher.update(&content);
        (content.len() as u64, Some(content))
    } else {
        let mut reader = std::io::BufReader::with_capacity(HASH_BYTES, (&mut file).take(size));
        (std::io::copy(&mut reader, &mut hasher)?, None)
    };
    Ok(Hashed {
        blob: BlobRef {
            digest: Digest(*hasher.finalize().as_bytes()),
            size,
        },
        file,
        content,
    })
}

/// Sends outputs that the server lacks; goes on trying while the server is away.
///
/// # Errors
/// Where the server will never take one of them.
pub(crate) async fn upload(
    blobs: &Blobs,
    gate: &Arc<Semaphore>,
    uploads: &[Upload],
) -> Result<(), Reason> {
    let _permit = gate.acquire().await;
    let mut failures = 0;
    loop {
        match send_missing(blobs, uploads, failures == 0).await {
            Ok(()) => return Ok(()),
            Err(error) if error.again => {
                failures += 1;
                let chance = crate::home::random::<8>().map_or(0, u64::from_le_bytes);
                tracing::debug!(target: "gleaner::collect", %error, "will try again");
                tokio::time::sleep(wait(failures, chance)).await;
            }
            Err(error) => {
                return Err(Reason::Fetch {
                    detail: format!("an output cannot be sent: {error}"),
                });
            }
        }
    }
}

async fn send_missing(blobs: &Blobs, uploads: &[Upload], first: bool) -> Result<(), TransferError> {
    let digests: Vec<_> = uploads.iter().map(|upload| upload.blob.digest).collect();
    let missing: BTreeSet<_> = blobs.missing(&digests).await?.into_iter().collect();
    let (mut small, mut bytes) = (Vec::new(), 0);
    for upload in uploads {
        let blob = upload.blob;
        if !missing.contains(&blob.digest) {
            continue;
        }
        if blob.size <= SMALL_BYTES_MAX {
            small.push(upload.read()?);
            bytes += blob.size;
            // Ten thousand small outputs are not all in memory at once.
            if bytes > SMALL_HELD_BYTES {
                blobs.put_small(&std::mem::take(&mut small)).await?;
                bytes = 0;
            }
            continue;
        }
        let offset = match first {
            true => 0,
            false => blobs.offset(blob).await?,
        };
        blobs.put(blob, &upload.file, offset).await?;
    }
    blobs.put_small(&small).await
}

impl Upload {
    fn read(&self) -> Result<Vec<u8>, TransferError> {
        let size = usize::try_from(self.blob.size).unwrap_or(usize::MAX);
        let mut content = vec![0; size];
        self.file
            .read_exact_at(&mut content, 0)
            .map_err(|error| TransferError {
                again: false,
                detail: format!("cannot read an output: {error}"),
            })?;
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gleaner_model::{JobId, TaskId};
    use std::io::Write as _;

    fn draft() -> Draft {
        let attempt = TaskId::new(JobId(1), 0).attempt(1);
        Draft::bare(attempt, Reason::Exit { code: 0 }, None, Time { ms: 5 })
    }

    fn output(name: &str, content: &[u8]) -> CollectedFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        CollectedFile {
            name: name.to_owned(),
            file,
            size: content.len() as u64,
            mode: 0o644,
        }
    }

    #[test]
    fn small_contents_fill_the_report_the_smallest_first_and_each_once() {
        let big = vec![b'b'; INLINE_BYTES_MAX - 10];
        let mut draft = draft();
        let files = vec![
            output("big", &big),
            output("six", b"sixsix"),
            output("stdout", b""),
            output("stderr", b""),
            output("seven", b"7777777"),
        ];
        draft.take(files).unwrap();
        let (_, ended) = draft.seal();
        assert_eq!(
            ended.inline,
            [b"".to_vec(), b"sixsix".to_vec(), b"7777777".to_vec()]
        );
        assert_eq!(ended.blobs, [blake3::hash(&big).as_bytes().to_vec()]);
        let record = gleaner_wire::unpack_record(&ended.record).unwrap();
        let record: AttemptRecord = serde_json::from_slice(&record).unwrap();
        let names: Vec<_> = record
            .outputs
            .iter()
            .map(|output| output.name.as_str())
            .collect();
        assert_eq!(names, ["big", "six", "stdout", "stderr", "seven"]);
    }

    #[test]
    fn a_record_that_no_server_takes_becomes_a_reason() {
        let mut draft = draft();
        draft.record.outputs = (0..30_000)
            .map(|at| OutputFile {
                name: format!("{at:0>100}"),
                blob: BlobRef {
                    digest: Digest([0; 32]),
                    size: 0,
                },
                mode: 0o644,
            })
            .collect();
        let (reason, ended) = draft.seal();
        assert!(matches!(&reason, Reason::Output { detail } if detail.contains("30000")));
        assert!(ended.record.len() < RECORD_BYTES_MAX);
        assert_eq!(
            serde_json::from_slice::<Reason>(&ended.reason).unwrap(),
            reason
        );
    }
}
