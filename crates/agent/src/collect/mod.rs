//! From an ended attempt to its report: outputs are hashed, small ones travel in the report,
//! others are uploaded before it is sent.
//!
//! Nothing is spooled here and nothing synced: the engine keeps an ending and its files until
//! [`gleaner_engine::Engine::discard`], which comes only after the server has acknowledged the
//! report. An agent that is killed in between adopts the ended attempt and makes the same report
//! again.

use crate::blobs::{Blobs, SMALL_BYTES_MAX, TransferError};
use crate::link::wait;
use gleaner_engine::{CollectedFile, Ending, Engine, EngineError};
use gleaner_model::{
    AttemptId, AttemptRecord, AttemptState, BlobRef, Digest, Limits, OutputFile, Reason, Time,
    Usage,
};
use gleaner_wire::{INLINE_BYTES_MAX, v1};
use std::collections::{BTreeMap, BTreeSet};
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

/// A report in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    record: AttemptRecord,
    inline: Vec<Vec<u8>>,
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
        let none = Ending {
            reason: reason.clone(),
            started: None,
            ended: now,
            wall_seconds: 0.0,
            paused_seconds: 0.0,
            usage: Usage::default(),
            limits: Vec::new(),
            refused_calls: BTreeMap::new(),
            degraded: Vec::new(),
        };
        let ending = ending.unwrap_or(&none);
        Self {
            record: AttemptRecord {
                attempt,
                reason,
                started: ending.started,
                ended: ending.ended,
                wall_seconds: ending.wall_seconds,
                paused_seconds: ending.paused_seconds,
                usage: ending.usage,
                limits: ending.limits.clone(),
                refused_calls: ending.refused_calls.clone(),
                degraded: ending.degraded.clone(),
                outputs: Vec::new(),
            },
            inline: Vec::new(),
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
        let mut draft = Self::bare(attempt, reason, Some(ending), ending.ended);
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
            streams(engine, attempt, limits)
        });
        if let Err(error) = draft.take(files) {
            draft.spoil(&EngineError::Io {
                doing: "read an output".to_owned(),
                source: error,
            });
        }
        draft
    }

    /// Outputs that cannot be had turn a success into a failure; a failure keeps its own reason.
    fn spoil(&mut self, error: &EngineError) {
        if self.record.reason.is_success() {
            let detail = error.to_string();
            self.record.reason = match error {
                EngineError::Output { .. } => Reason::Output { detail },
                EngineError::Unknown(_) | EngineError::Io { .. } => Reason::Engine { detail },
            };
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
                None => self.uploads.push(Upload {
                    blob: one.blob,
                    file: one.file,
                }),
            }
        }
        Ok(())
    }

    /// The server will not take an output: the report goes without any.
    pub(crate) fn refuse(&mut self, reason: Reason) {
        if self.record.reason.is_success() {
            self.record.reason = reason;
        }
        self.record.outputs.clear();
        self.inline.clear();
        self.uploads.clear();
    }

    /// The report as it is sent, and the reason in it.
    pub(crate) fn seal(mut self) -> (Reason, v1::Ended) {
        // None of these types can fail to be written.
        let json = |value: serde_json::Result<Vec<u8>>| value.unwrap_or_default();
        let mut record_json = json(serde_json::to_vec(&self.record));
        if record_json.len() > RECORD_BYTES_MAX {
            let count = self.record.outputs.len();
            self.refuse(Reason::Output {
                detail: format!(
                    "the names of {count} files are too long; pack them into an archive"
                ),
            });
            record_json = json(serde_json::to_vec(&self.record));
        }
        let record = &self.record;
        let ended = v1::Ended {
            attempt: Some(record.attempt.into()),
            reason: json(serde_json::to_vec(&record.reason)),
            cpu_seconds: record.usage.cpu_seconds,
            busy_seconds: (record.wall_seconds - record.paused_seconds).max(0.0),
            record: record_json,
            inline: self.inline,
            blobs: self
                .uploads
                .iter()
                .map(|upload| upload.blob.digest.0.to_vec())
                .collect(),
        };
        (self.record.reason, ended)
    }
}

/// What the program printed, where its outputs cannot be had; cut where it printed too much.
fn streams(engine: &dyn Engine, attempt: AttemptId, limits: &Limits) -> Vec<CollectedFile> {
    let Ok(streams) = engine.streams(attempt) else {
        return Vec::new();
    };
    ["stdout", "stderr"]
        .into_iter()
        .zip(streams)
        .filter_map(|(name, file)| {
            let size = file.metadata().ok()?.len().min(limits.output.0);
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
        let record: AttemptRecord = serde_json::from_slice(&ended.record).unwrap();
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
