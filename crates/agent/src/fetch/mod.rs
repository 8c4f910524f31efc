//! Brings the blobs of attempts to this PC: each once, whatever asks for it at the same time,
//! in pieces that survive a cut, and with its digest checked before it has its name.
//!
//! In: what an attempt needs. Out: its input files, pinned in the cache, or the [`Reason`] why
//! it cannot have them. It does not know what an attempt is for.

pub(crate) mod cache;

use crate::blobs::{Blobs, TransferError, piece};
use crate::link::backoff::wait;
use cache::Cache;
use futures_util::future::{BoxFuture, Shared};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use gleaner_engine::{ImageFile, InputFile};
use gleaner_model::{BlobRef, Digest, FileEntry, Reason};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Most blobs on their way at once: enough to hide the latency of small ones.
const TRANSFERS_MAX: usize = 4;

/// Most blobs of one attempt that are asked for at once; the others wait without a task.
const AHEAD_MAX: usize = 16;

/// Most files that one attempt may bring; ten times what a job is expected to have.
const INPUTS_MAX: usize = 100_000;

/// Longest line of a listing, in bytes: a path of 4 KiB with everything escaped, and its blob.
const LINE_MAX: u64 = 32 << 10;

/// How long a fetch outlasts a server that does not answer, in seconds. Short outages cost no
/// attempt; longer ones give the task to a node that may be nearer.
const PATIENCE_S: u64 = 600;

/// A blob is fetched again from its start this often when its content is wrong.
const WRONG_MAX: u32 = 1;

/// Bytes that wait in memory for the disk, for each blob on its way.
const BUFFER_BYTES: usize = 256 << 10;

/// Files that an attempt asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Named one by one.
    pub(crate) files: Vec<FileEntry>,
    /// A blob with more of them, one JSON [`FileEntry`] a line.
    pub(crate) listing: Option<Digest>,
    /// The root of its tasks.
    pub(crate) root: Option<BlobRef>,
}

/// The input files of an attempt; the cache keeps them as long as this lives.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) files: Vec<InputFile>,
    pub(crate) image: Option<ImageFile>,
    /// Bytes that came over the network for it.
    pub(crate) brought: u64,
    pins: Vec<Pin>,
}

/// Keeps one blob in the cache.
#[derive(Debug)]
struct Pin {
    cache: Arc<Cache>,
    digest: Digest,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.cache.unpin(self.digest);
    }
}

type Transfer = Shared<BoxFuture<'static, Result<(), Reason>>>;

/// Fetches blobs into the cache. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    blobs: Blobs,
    cache: Arc<Cache>,
    gate: Arc<Semaphore>,
    under_way: Arc<Mutex<BTreeMap<Digest, Transfer>>>,
}

impl Fetcher {
    pub(crate) fn new(blobs: Blobs, cache: Arc<Cache>) -> Self {
        Self {
            blobs,
            cache,
            gate: Arc::new(Semaphore::new(TRANSFERS_MAX)),
            under_way: Arc::default(),
        }
    }

    /// The input files, where everything is here already.
    pub(crate) fn at_hand(&self, wanted: &Wanted) -> Option<Inputs> {
        if wanted.listing.is_some() {
            return None;
        }
        let mut inputs = Inputs::default();
        if let Some(root) = wanted.root {
            inputs.pins.push(self.pin(root.digest)?);
            inputs.image = Some(self.image(root));
        }
        for file in &wanted.files {
            inputs.pins.push(self.pin(file.blob.digest)?);
            inputs.files.push(self.input(file));
        }
        Some(inputs)
    }

    /// The input files, fetched where needed.
    pub(crate) async fn fetch(&self, mut wanted: Wanted) -> Result<Inputs, Reason> {
        if let Some(listing) = wanted.listing {
            // Its size is told by its content alone.
            let blob = BlobRef {
                digest: listing,
                size: u64::MAX,
            };
            let _pin = self.hold(blob).await?;
            let entries = read_listing(&self.cache.path(listing)).await?;
            wanted.files.extend(entries);
        }
        let files = wanted.files.iter().map(|file| file.blob);
        let needed: Vec<_> = files.chain(wanted.root).collect();
        let missing = needed.iter().filter(|blob| !self.cache.has(blob.digest));
        let brought = missing.map(|blob| blob.size).sum();
        let pins = stream::iter(needed)
            .map(|blob| self.hold(blob))
            .buffered(AHEAD_MAX)
            .try_collect()
            .await?;
        Ok(Inputs {
            files: wanted.files.iter().map(|file| self.input(file)).collect(),
            image: wanted.root.map(|root| self.image(root)),
            brought,
            pins,
        })
    }

    /// Throws out what is not what it should be: an engine found a wrong digest.
    pub(crate) fn recheck(&self, inputs: &Inputs) {
        for pin in &inputs.pins {
            self.cache.recheck(pin.digest);
        }
    }

    fn input(&self, file: &FileEntry) -> InputFile {
        InputFile {
            name: file.name.clone(),
            source: self.cache.path(file.blob.digest),
            digest: file.blob.digest,
            mode: file.mode,
        }
    }

    fn image(&self, root: BlobRef) -> ImageFile {
        ImageFile {
            source: self.cache.path(root.digest),
            digest: root.digest,
        }
    }

    fn pin(&self, digest: Digest) -> Option<Pin> {
        self.cache.pin(digest).then(|| Pin {
            cache: Arc::clone(&self.cache),
            digest,
        })
    }

    /// Pins a blob, after fetching it where it is missing.
    async fn hold(&self, blob: BlobRef) -> Result<Pin, Reason> {
        // A blob that was just fetched may be swept before it is pinned, but hardly twice.
        for _ in 0..3 {
            if let Some(pin) = self.pin(blob.digest) {
                return Ok(pin);
            }
            self.transfer(blob).await?;
        }
        Err(Reason::Fetch {
            detail: format!("{}: the cache of the node is too small", blob.digest),
        })
    }

    /// The one transfer of a blob, joined by all who want it.
    fn transfer(&self, blob: BlobRef) -> Transfer {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(transfer) = under_way.get(&blob.digest) {
            return transfer.clone();
        }
        let this = self.clone();
        let work = tokio::spawn(async move {
            let outcome = this.bring(blob).await;
            this.under_way
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&blob.digest);
            outcome
        });
        let transfer = async move {
            work.await.unwrap_or_else(|error| {
                Err(Reason::Fetch {
                    detail: format!("the transfer broke off: {error}"),
                })
            })
        }
        .boxed()
        .shared();
        under_way.insert(blob.digest, transfer.clone());
        transfer
    }

    async fn bring(&self, blob: BlobRef) -> Result<(), Reason> {
        let _permit = self.gate.acquire().await;
        let digest = blob.digest;
        let patience = Instant::now() + Duration::from_secs(PATIENCE_S);
        let (mut failures, mut wrong) = (0, 0);
        loop {
            match self.try_once(blob).await {
                Ok(Some(size)) => {
                    return self
                        .cache
                        .admit(digest, size)
                        .map_err(|error| fetch(digest, &error));
                }
                Ok(None) if wrong < WRONG_MAX => wrong += 1,
                Ok(None) => {
                    return Err(Reason::Integrity {
                        detail: format!("the server sent other content than {digest}"),
                    });
                }
                Err(error) if error.again && Instant::now() < patience => {
                    failures += 1;
                    let chance = crate::home::random::<8>().map_or(0, u64::from_le_bytes);
                    tracing::debug!(target: "gleaner::fetch", %digest, %error, "will try again");
                    tokio::time::sleep(wait(failures, chance)).await;
                }
                Err(error) => return Err(fetch(digest, &error)),
            }
        }
    }

    /// Fetches what is missing of a blob: its size where the digest is right, none where it is
    /// wrong and the next try starts anew.
    async fn try_once(&self, blob: BlobRef) -> Result<Option<u64>, TransferError> {
        let path = self.cache.partial(blob.digest);
        let here = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .await
            .map_err(local)?;
        let (mut file, mut hasher, mut size) = rehash(here).await.map_err(local)?;
        // A last piece can be whole already; asking for nothing is an error in HTTP.
        if size == 0 || size != blob.size {
            let (from, mut response) = match self.blobs.get(blob.digest, size).await {
                Err(error) if error.again && size > 0 => {
                    // The server may not like the range; the next try has none.
                    tokio::fs::remove_file(&path).await.map_err(local)?;
                    return Err(error);
                }
                other => other?,
            };
            if from == 0 && size > 0 {
                file = File::create(&path).await.map_err(local)?;
                (hasher, size) = (blake3::Hasher::new(), 0);
            }
            let mut file = tokio::io::BufWriter::with_capacity(BUFFER_BYTES, file);
            while let Some(piece) = piece(&mut response).await? {
                size += piece.len() as u64;
                if size > blob.size {
                    break;
                }
                hasher.update(&piece);
                file.write_all(&piece).await.map_err(local)?;
            }
            file.flush().await.map_err(local)?;
        }
        if *hasher.finalize().as_bytes() == blob.digest.0 {
            return Ok(Some(size));
        }
        tokio::fs::remove_file(&path).await.map_err(local)?;
        Ok(None)
    }
}

/// Hashes the piece that an earlier try left.
async fn rehash(mut file: File) -> std::io::Result<(File, blake3::Hasher, u64)> {
    let (mut hasher, mut size) = (blake3::Hasher::new(), 0);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = file.read(&mut buffer).await?;
        if count == 0 {
            return Ok((file, hasher, size));
        }
        hasher.update(&buffer[..count]);
        size += count as u64;
    }
}

async fn read_listing(path: &Path) -> Result<Vec<FileEntry>, Reason> {
    let bad = |detail: String| Reason::Fetch {
        detail: format!("the listing of inputs: {detail}"),
    };
    let file = File::open(path).await.map_err(|e| bad(e.to_string()))?;
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    let (mut entries, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(LINE_MAX);
        let count = bounded.read_until(b'\n', &mut line).await;
        if count.map_err(|error| bad(error.to_string()))? == 0 {
            return Ok(entries);
        }
        if entries.len() == INPUTS_MAX {
            return Err(bad(format!("more than {INPUTS_MAX} files")));
        }
        let entry = serde_json::from_slice(&line)
            .map_err(|error| bad(format!("line {}: {error}", entries.len() + 1)))?;
        entries.push(entry);
    }
}

fn fetch(digest: Digest, why: &dyn std::fmt::Display) -> Reason {
    Reason::Fetch {
        detail: format!("{digest}: {why}"),
    }
}

/// The node's own disk failed it; a full one may have room later.
fn local(error: std::io::Error) -> TransferError {
    TransferError {
        again: error.kind() == std::io::ErrorKind::StorageFull,
        detail: format!("the node's disk: {error}"),
    }
}
