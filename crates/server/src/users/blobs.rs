//! Blobs: streamed both ways, resumable up and by ranges down; small ones many to a request.
//!
//! A frame is a length (`u64`, little-endian) and that many bytes. Ranges: RFC 9110, one range.

use super::body::{Asked, JsonBody, Path, WholeBody};
use crate::auth::Anyone;
use crate::contents::{self, Content};
use crate::error::{ApiError, OFFSET_HEADER};
use crate::shared::{Shared, blocking};
use crate::silence;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use gleaner_api::DigestList;
use gleaner_blob::{BlobError, Upload};
use gleaner_model::{BlobRef, Digest};
use serde::Deserialize;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

/// Most digests in one request.
const DIGESTS_MAX: usize = 10_000;

/// Most bytes of small blobs in one answer: what the server holds in memory for one.
const BULK_BYTES_MAX: u64 = 64 << 20;

/// Most bytes of one blob.
const BLOB_BYTES_MAX: u64 = 1 << 40;

/// Bytes gathered before they are handed to the disk.
const WRITE_BYTES: usize = 1 << 20;

/// Bytes read from the disk at a time.
const READ_BYTES: usize = 256 << 10;

#[derive(Debug, Deserialize)]
pub(super) struct PutQuery {
    #[serde(default)]
    offset: u64,
}

fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse()
        .map_err(|error: gleaner_model::ParseDigestError| ApiError::bad(error.to_string()))
}

/// Looks again at a blob that was not what its name says, and removes it if so.
fn distrust(shared: &Shared, digest: &Digest) {
    match shared.blobs.check(digest) {
        Ok(true) => {}
        Ok(false) => tracing::error!(%digest, "a blob was damaged on the disk and is removed"),
        Err(error) => tracing::error!(%digest, %error, "a damaged blob cannot be removed"),
    }
}

/// The content of a whole blob, hashed on its way: who gets it sees whether it is damaged, and so
/// do we.
fn watched(
    shared: Arc<Shared>,
    digest: Digest,
    (file, size): (std::fs::File, u64),
) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    let parts = ReaderStream::with_capacity(tokio::fs::File::from_std(file), READ_BYTES);
    let (mut hasher, mut left) = (blake3::Hasher::new(), size);
    parts.inspect_ok(move |part| {
        hasher.update(part);
        left = left.saturating_sub(part.len() as u64);
        if left == 0 && hasher.finalize().as_bytes() != &digest.0 {
            let shared = Arc::clone(&shared);
            drop(tokio::task::spawn_blocking(move || {
                distrust(&shared, &digest);
            }));
        }
    })
}

async fn find(shared: &Arc<Shared>, digest: Digest) -> Result<Content, ApiError> {
    let worker = Arc::clone(shared);
    let found = blocking(move || contents::find(worker.store.as_ref(), &worker.blobs, &digest));
    Ok(found.await??)
}

/// Whether a blob is here, or how much of it (`x-offset`).
#[utoipa::path(head, path = "/api/v1/blobs/{digest}", responses((status = 200), (status = 404)))]
pub(super) async fn head(
    State(shared): State<Arc<Shared>>,
    _anyone: Anyone,
    Path(text): Path<String>,
) -> Result<Response, ApiError> {
    let wanted = digest(&text)?;
    match find(&shared, wanted).await {
        Ok(content) => {
            let size = content.len();
            Ok(([(header::CONTENT_LENGTH, size), (OFFSET_HEADER, size)], ()).into_response())
        }
        Err(error) => Err(error.with_offset(shared.blobs.partial(&wanted))),
    }
}

/// A blob, or one range of it.
#[utoipa::path(get, path = "/api/v1/blobs/{digest}", responses((status = 200), (status = 206)))]
pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    _anyone: Anyone,
    Path(text): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wanted = digest(&text)?;
    let content = find(&shared, wanted).await?;
    let size = content.len();
    let asked = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let (from, to) = match asked {
        None => (0, size),
        Some(text) => range(text, size).ok_or_else(|| {
            let sentence = format!("{text:?} is no range of these {size} bytes");
            ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, sentence)
        })?,
    };
    let body = match content {
        Content::Bytes(bytes) => {
            let end = usize::try_from(to).unwrap_or(usize::MAX).min(bytes.len());
            let start = usize::try_from(from).unwrap_or(usize::MAX).min(end);
            Body::from(Bytes::from(bytes).slice(start..end))
        }
        Content::File(file, size) if (from, to) == (0, size) => {
            Body::from_stream(watched(Arc::clone(&shared), wanted, (file, size)))
        }
        Content::File(mut file, _) => {
            if from > 0 {
                file.seek(SeekFrom::Start(from))
                    .map_err(|_| ApiError::crashed())?;
            }
            let part = tokio::fs::File::from_std(file).take(to - from);
            Body::from_stream(ReaderStream::with_capacity(part, READ_BYTES))
        }
    };
    let mut answer = ([(header::CONTENT_LENGTH, to - from)], body).into_response();
    let plain = header::HeaderValue::from_static("application/octet-stream");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    if asked.is_some() {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {from}-{}/{size}", to.saturating_sub(1));
        if let Ok(range) = range.parse() {
            answer.headers_mut().insert(header::CONTENT_RANGE, range);
        }
    }
    Ok(answer)
}

/// `bytes=a-b`, `bytes=a-` or `bytes=-n` as start and end (exclusive).
fn range(text: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (from, to) = match (from, to) {
        ("", last) => (size.saturating_sub(last.parse().ok()?), size),
        (from, "") => (from.parse().ok()?, size),
        (from, to) => {
            let to: u64 = to.parse().ok()?;
            (from.parse().ok()?, to.saturating_add(1).min(size))
        }
    };
    (from < to).then_some((from, to))
}

/// Uploads a blob, from `offset` on.
#[utoipa::path(put, path = "/api/v1/blobs/{digest}", responses((status = 200), (status = 408), (status = 409), (status = 422)))]
pub(super) async fn put(
    State(shared): State<Arc<Shared>>,
    _anyone: Anyone,
    Path(text): Path<String>,
    Asked(query): Asked<PutQuery>,
    body: Body,
) -> Result<Json<BlobRef>, ApiError> {
    let wanted = digest(&text)?;
    let (blobs, offset) = (shared.blobs.clone(), query.offset);
    // Swept neither while it grows nor before its job is submitted.
    let _pin = blobs.pin(&wanted);
    let here = blobs.clone();
    if let Some(size) = blocking(move || here.renew(&wanted)).await?? {
        return drained(body, wanted, size).await;
    }
    let mut upload = blocking(move || blobs.upload(&wanted, offset)).await??;
    let mut waiting = Vec::new();
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        match part {
            Ok(part) => waiting.extend_from_slice(&part),
            Err(error) => {
                // What came is kept: the client resumes behind it.
                let have = write(upload, waiting).await?.size();
                let broke_off = || ApiError::bad(format!("the upload broke off: {error}"));
                let answer = silence::given_up(&error).unwrap_or_else(broke_off);
                return Err(answer.with_offset(have));
            }
        }
        if waiting.len() >= WRITE_BYTES {
            upload = write(upload, std::mem::take(&mut waiting)).await?;
        }
    }
    let upload = write(upload, waiting).await?;
    Ok(Json(blocking(move || upload.finish()).await??))
}

async fn write(mut upload: Upload, bytes: Vec<u8>) -> Result<Upload, ApiError> {
    if upload.size() + bytes.len() as u64 > BLOB_BYTES_MAX {
        return Err(BlobError::TooLarge {
            limit: BLOB_BYTES_MAX,
        }
        .into());
    }
    let written = blocking(move || upload.write(&bytes).map(|()| upload));
    Ok(written.await??)
}

/// The blob is here already. The rest is read and dropped: a client that still sends must not
/// find its connection reset.
async fn drained(body: Body, digest: Digest, size: u64) -> Result<Json<BlobRef>, ApiError> {
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        if part.is_err() {
            break;
        }
    }
    Ok(Json(BlobRef { digest, size }))
}

/// Which of these blobs are not here.
#[utoipa::path(post, path = "/api/v1/blobs/missing", responses((status = 200, body = DigestList)))]
pub(super) async fn missing(
    State(shared): State<Arc<Shared>>,
    _anyone: Anyone,
    JsonBody(asked): JsonBody<DigestList>,
) -> Result<Json<DigestList>, ApiError> {
    bounded(&asked)?;
    let blobs = shared.blobs.clone();
    let look = blocking(move || {
        let mut digests = Vec::new();
        for digest in asked.digests {
            if blobs.renew(&digest)?.is_none() {
                digests.push(digest);
            }
        }
        Ok::<_, BlobError>(DigestList { digests })
    });
    Ok(Json(look.await??))
}

fn bounded(asked: &DigestList) -> Result<(), ApiError> {
    match asked.digests.len() > DIGESTS_MAX {
        true => Err(ApiError::bad(format!(
            "at most {DIGESTS_MAX} digests in one request"
        ))),
        false => Ok(()),
    }
}

/// Stores many small blobs, one frame each; answers their digests in that order.
#[utoipa::path(post, path = "/api/v1/blobs/bulk", request_body = Vec<u8>, responses((status = 200, body = DigestList)))]
pub(super) async fn put_bulk(
    State(shared): State<Arc<Shared>>,
    _anyone: Anyone,
    WholeBody(body): WholeBody,
) -> Result<Json<DigestList>, ApiError> {
    let frames = frames(&body).ok_or_else(|| ApiError::bad("the frames are cut off"))?;
    if frames.len() > DIGESTS_MAX {
        return Err(ApiError::bad(format!(
            "at most {DIGESTS_MAX} blobs in one request"
        )));
    }
    let blobs = shared.blobs.clone();
    let stored = blocking(move || blobs.put_many(&frames)).await??;
    Ok(Json(DigestList {
        digests: stored.into_iter().map(|blob| blob.digest).collect(),
    }))
}

fn frames(body: &Bytes) -> Option<Vec<Bytes>> {
    let (mut frames, mut rest) = (Vec::new(), body.clone());
    while !rest.is_empty() {
        let head: [u8; 8] = rest.get(..8)?.try_into().ok()?;
        let length = usize::try_from(u64::from_le_bytes(head)).ok()?;
        let frame = rest.slice(8..).get(..length)?.len();
        frames.push(rest.slice(8..8 + frame));
        rest = rest.slice(8 + frame..);
    }
    Some(frames)
}

/// Many small blobs, one frame each, in the order asked.
#[utoipa::path(post, path = "/api/v1/blobs/get", responses((status = 200)))]
pub(super) async fn get_bulk(
    State(shared): State<Arc<Shared>>,
    _anyone: Anyone,
    JsonBody(asked): JsonBody<DigestList>,
) -> Result<Response, ApiError> {
    bounded(&asked)?;
    let worker = Arc::clone(&shared);
    let read = blocking(move || {
        let mut answer = Vec::new();
        for digest in asked.digests {
            let content = contents::find(worker.store.as_ref(), &worker.blobs, &digest)?;
            if answer.len() as u64 + content.len() > BULK_BYTES_MAX {
                return Err(ApiError::bad(
                    "these blobs are too large to come together; get them one by one",
                ));
            }
            answer.extend_from_slice(&content.len().to_le_bytes());
            match content {
                Content::Bytes(bytes) => answer.extend_from_slice(&bytes),
                Content::File(mut file, _) => {
                    let start = answer.len();
                    file.read_to_end(&mut answer).map_err(|error| {
                        tracing::error!(%error, %digest, "a blob cannot be read");
                        ApiError::crashed()
                    })?;
                    let found = blake3::hash(answer.get(start..).unwrap_or_default());
                    if found.as_bytes() != &digest.0 {
                        distrust(&worker, &digest);
                        return Err(BlobError::Missing(digest).into());
                    }
                }
            }
        }
        Ok(answer)
    });
    let bytes = read.await??;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_standard() {
        for (text, expected) in [
            ("bytes=0-0", Some((0, 1))),
            ("bytes=5-", Some((5, 10))),
            ("bytes=-3", Some((7, 10))),
            ("bytes=-30", Some((0, 10))),
            ("bytes=2-100", Some((2, 10))),
            ("bytes=10-", None),
            ("bytes=5-4", None),
            ("lines=1-2", None),
            ("bytes=a-b", None),
        ] {
            assert_eq!(range(text, 10), expected, "{text}");
        }
    }

    #[test]
    fn frames_are_cut_or_refused() {
        let body = Bytes::from_static(b"\x02\0\0\0\0\0\0\0ab\0\0\0\0\0\0\0\0");
        assert_eq!(frames(&body).unwrap(), [&b"ab"[..], b""]);
        assert_eq!(frames(&body.slice(..9)), None);
        assert_eq!(frames(&body.slice(..12)), None);
        let huge = Bytes::from_static(b"\xff\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(frames(&huge), None);
    }
}
