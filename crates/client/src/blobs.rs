//! Blobs on the wire: small ones many to a request, large ones one by one and resumable.
//!
//! A frame is a length (`u64`, little endian) and that many bytes. What arrives is hashed before
//! it counts; what is sent is hashed by the server.

use crate::{Client, ClientError};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _};
use gleaner_api::DigestList;
use gleaner_model::{BlobRef, Digest};
use reqwest::Method;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

/// Blobs up to this many bytes travel many to a request: below it the request costs more than
/// the bytes.
pub(crate) const SMALL_BYTES_MAX: u64 = 256 << 10;
/// Most bytes of small blobs in one request; what a server holds in memory for one.
const BULK_BYTES_MAX: u64 = 8 << 20;
/// Most digests in one request.
const DIGESTS_MAX: usize = 1000;
/// Transfers at the same time: enough to hide a round trip, few enough for a small server.
const PARALLEL: usize = 4;
/// How often a broken upload of a large blob is taken up again before it is an error.
const RESUMES_MAX: u32 = 8;
/// Wait before taking up a broken upload, in milliseconds, times the number of the try.
const RESUME_WAIT_MS: u64 = 250;
/// Where a server says how much it has of a blob.
const OFFSET_HEADER: &str = "x-offset";

/// How far a transfer is. Shared with whoever draws it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    bytes_total: AtomicU64,
    bytes_moved: AtomicU64,
    files_moved: AtomicU64,
}

impl Progress {
    /// Bytes to move, as far as is known yet.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.0.bytes_total.load(Ordering::Relaxed)
    }

    /// Bytes moved.
    #[must_use]
    pub fn bytes_moved(&self) -> u64 {
        self.0.bytes_moved.load(Ordering::Relaxed)
    }

    /// Files moved.
    #[must_use]
    pub fn files_moved(&self) -> u64 {
        self.0.files_moved.load(Ordering::Relaxed)
    }

    pub(crate) fn expect_bytes(&self, bytes: u64) {
        self.0.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn moved(&self, bytes: u64, files: u64) {
        self.0.bytes_moved.fetch_add(bytes, Ordering::Relaxed);
        self.0.files_moved.fetch_add(files, Ordering::Relaxed);
    }
}

/// Where the bytes of a blob are on this PC.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// In a file.
    File(PathBuf),
    /// In memory.
    Memory(Bytes),
}

impl Source {
    fn read(&self) -> Result<Bytes, ClientError> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::File(path) => std::fs::read(path)
                .map(Bytes::from)
                .map_err(ClientError::local("read", path)),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Memory(_) => "a list of files".into(),
        }
    }
}

/// Uploads those of `blobs` that the server lacks.
pub(crate) async fn upload(
    client: &Client,
    blobs: &BTreeMap<BlobRef, Source>,
    progress: &Progress,
) -> Result<(), ClientError> {
    let lacking = missing(client, blobs).await?;
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for (blob, source) in blobs.iter().filter(|(b, _)| lacking.contains(&b.digest)) {
        progress.expect_bytes(blob.size);
        let list = if blob.size <= SMALL_BYTES_MAX {
            &mut small
        } else {
            &mut large
        };
        list.push((*blob, source));
    }
    let batches = batches(small, |(blob, _)| blob.size);
    futures_util::stream::iter(batches)
        .map(Ok)
        .try_for_each_concurrent(PARALLEL, |batch| upload_batch(client, batch, progress))
        .await?;
    futures_util::stream::iter(large)
        .map(Ok)
        .try_for_each_concurrent(PARALLEL, |(blob, source)| {
            upload_large(client, blob, source, progress)
        })
        .await
}

async fn missing(
    client: &Client,
    blobs: &BTreeMap<BlobRef, Source>,
) -> Result<BTreeSet<Digest>, ClientError> {
    let digests: Vec<Digest> = blobs.keys().map(|blob| blob.digest).collect();
    let mut lacking = BTreeSet::new();
    for digests in digests.chunks(DIGESTS_MAX) {
        let ask = DigestList {
            digests: digests.to_vec(),
        };
        let answer: DigestList = client.post("blobs/missing", &ask).await?;
        lacking.extend(answer.digests);
    }
    Ok(lacking)
}

/// Cuts a list into requests that keep both bounds.
pub(crate) fn batches<T>(items: Vec<T>, size: impl Fn(&T) -> u64) -> Vec<Vec<T>> {
    let (mut batches, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let more = size(&item);
        if batch.len() == DIGESTS_MAX || (bytes + more > BULK_BYTES_MAX && !batch.is_empty()) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += more;
        batch.push(item);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

async fn upload_batch(
    client: &Client,
    batch: Vec<(BlobRef, &Source)>,
    progress: &Progress,
) -> Result<(), ClientError> {
    let mut body = BytesMut::new();
    for (_, source) in &batch {
        let bytes = source.read()?;
        body.put_u64_le(bytes.len() as u64);
        body.put_slice(&bytes);
    }
    let request = client
        .request(Method::POST, "blobs/bulk")
        .header("content-type", "application/octet-stream")
        .body(body.freeze());
    let answer = client.send(request).await?;
    let text = answer.bytes().await.map_err(|e| client.unreachable(&e))?;
    let stored: DigestList = serde_json::from_slice(&text).map_err(|e| {
        ClientError::Transfer(format!("the answer to an upload makes no sense: {e}"))
    })?;
    let stored: BTreeSet<Digest> = stored.digests.into_iter().collect();
    for (blob, source) in batch {
        if !stored.contains(&blob.digest) {
            return Err(changed(source));
        }
        progress.moved(blob.size, 1);
    }
    Ok(())
}

fn changed(source: &Source) -> ClientError {
    ClientError::Transfer(format!(
        "{} changed while it was being sent; submit again when nothing writes to it",
        source.shown()
    ))
}

async fn upload_large(
    client: &Client,
    blob: BlobRef,
    source: &Source,
    progress: &Progress,
) -> Result<(), ClientError> {
    let (mut tries, mut counted) = (0, 0);
    loop {
        let offset = if tries == 0 {
            0
        } else {
            offset(client, blob).await.unwrap_or(0)
        };
        let sent = upload_from(client, blob, source, offset).await;
        match sent {
            Ok(()) => {
                progress.moved(blob.size - counted, 1);
                return Ok(());
            }
            Err(problem) if problem.is_passing() && tries < RESUMES_MAX => {
                tries += 1;
                if offset > counted {
                    progress.moved(offset - counted, 0);
                    counted = offset;
                }
                tokio::time::sleep(Duration::from_millis(RESUME_WAIT_MS * u64::from(tries))).await;
            }
            Err(ClientError::Refused {
                status: 408 | 409 | 416,
                ..
            }) if tries < RESUMES_MAX => tries += 1,
            Err(problem) => return Err(problem),
        }
    }
}

/// How much of a blob the server has already.
async fn offset(client: &Client, blob: BlobRef) -> Result<u64, ClientError> {
    let path = format!("blobs/{}", blob.digest);
    let answer = client
        .request(Method::HEAD, &path)
        .send()
        .await
        .map_err(|e| client.unreachable(&e))?;
    let header = answer.headers().get(OFFSET_HEADER);
    let offset = header.and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(offset.unwrap_or(0).min(blob.size))
}

async fn upload_from(
    client: &Client,
    blob: BlobRef,
    source: &Source,
    offset: u64,
) -> Result<(), ClientError> {
    let path = format!("blobs/{}?offset={offset}", blob.digest);
    let rest = blob.size - offset;
    let request = client
        .request(Method::PUT, &path)
        .header("content-type", "application/octet-stream")
        .header("content-length", rest);
    let body = match source {
        Source::Memory(bytes) => {
            let from = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            reqwest::Body::from(bytes.slice(from..))
        }
        Source::File(path) => {
            let opened = tokio::fs::File::open(path).await;
            let mut file = opened.map_err(ClientError::local("read", path))?;
            file.seek(std::io::SeekFrom::Start(offset))
                .await
                .map_err(ClientError::local("read", path))?;
            // A file that grows meanwhile must not send more than was announced.
            let bounded = tokio::io::AsyncReadExt::take(file, rest);
            reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::with_capacity(
                bounded,
                256 << 10,
            ))
        }
    };
    match client.send(request.body(body)).await {
        Err(ClientError::Refused {
            status: 422,
            key: None,
            ..
        }) => Err(changed(source)),
        other => other.map(drop),
    }
}

/// Gets small blobs, in the order asked.
pub(crate) async fn get_small(
    client: &Client,
    blobs: &[BlobRef],
) -> Result<Vec<Bytes>, ClientError> {
    let ask = DigestList {
        digests: blobs.iter().map(|blob| blob.digest).collect(),
    };
    let request = client.request(Method::POST, "blobs/get").json(&ask);
    let answer = client.send(request).await?;
    let mut body = answer.bytes().await.map_err(|e| client.unreachable(&e))?;
    let mut parts = Vec::with_capacity(blobs.len());
    for blob in blobs {
        let size = take_length(&mut body).filter(|size| *size == blob.size);
        let size = size.and_then(|size| usize::try_from(size).ok());
        let Some(size) = size.filter(|size| *size <= body.len()) else {
            return Err(damaged(blob));
        };
        let part = body.split_to(size);
        if blake3::hash(&part).as_bytes() != &blob.digest.0 {
            return Err(damaged(blob));
        }
        parts.push(part);
    }
    Ok(parts)
}

fn take_length(body: &mut Bytes) -> Option<u64> {
    let head: [u8; 8] = body.get(..8)?.try_into().ok()?;
    bytes::Buf::advance(body, 8);
    Some(u64::from_le_bytes(head))
}

fn damaged(blob: &BlobRef) -> ClientError {
    ClientError::Transfer(format!(
        "{} did not arrive as it was stored; try again, and if it stays so tell the pool's admin \
         that a stored blob is damaged",
        blob.digest
    ))
}

/// Streams one blob into a file and checks it. The file is left as it is on an error.
pub(crate) async fn get_large(
    client: &Client,
    blob: BlobRef,
    path: &Path,
    progress: &Progress,
) -> Result<(), ClientError> {
    let request = client.request(Method::GET, &format!("blobs/{}", blob.digest));
    let answer = client.send(request).await?;
    let mut stream = answer.bytes_stream();
    let opened = tokio::fs::OpenOptions::new().write(true).open(path).await;
    let mut file = opened.map_err(ClientError::local("write", path))?;
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    while let Some(part) = stream
        .try_next()
        .await
        .map_err(|e| client.unreachable(&e))?
    {
        size += part.len() as u64;
        if size > blob.size {
            return Err(damaged(&blob));
        }
        hasher.update(&part);
        file.write_all(&part)
            .await
            .map_err(ClientError::local("write", path))?;
        progress.moved(part.len() as u64, 0);
    }
    file.flush()
        .await
        .map_err(ClientError::local("write", path))?;
    if size != blob.size || hasher.finalize().as_bytes() != &blob.digest.0 {
        return Err(damaged(&blob));
    }
    progress.moved(0, 1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_both_bounds_and_lose_nothing() {
        let sizes: Vec<u64> = vec![1; 2500];
        let cut = batches(sizes, |size| *size);
        assert_eq!(
            cut.iter().map(Vec::len).collect::<Vec<_>>(),
            [1000, 1000, 500]
        );
        let cut = batches(vec![BULK_BYTES_MAX, 1, BULK_BYTES_MAX - 1, 5], |size| *size);
        assert_eq!(cut.len(), 3);
        assert!(batches(Vec::<u64>::new(), |size| *size).is_empty());
    }
}
