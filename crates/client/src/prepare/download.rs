//! Inputs from the web: fetched once by the user's PC and pinned by digest, so that every task
//! sees the same bytes and no node needs the network.

use crate::Progress;
use futures_util::TryStreamExt as _;
use gleaner_model::{BlobRef, Digest};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// Largest download, in bytes; more is better placed beside the job and named as a path.
const DOWNLOAD_BYTES_MAX: u64 = 16 << 30;
/// Longest silence of the other side.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Gets `url` into a temporary file.
pub(super) async fn download(
    url: &str,
    progress: &Progress,
) -> Result<(BlobRef, tempfile::TempPath), String> {
    let failed = |what: String| {
        format!("{url}: {what}; check the address, or download the file and name its path")
    };
    crate::http::install_crypto();
    let http = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .https_only(url.starts_with("https:"))
        .build()
        .map_err(|e| failed(e.to_string()))?;
    let answer = http
        .get(url)
        .send()
        .await
        .map_err(|e| failed(e.to_string()))?;
    if !answer.status().is_success() {
        return Err(failed(format!("the server answered {}", answer.status())));
    }
    progress.expect_bytes(answer.content_length().unwrap_or(0));
    let path = tempfile::NamedTempFile::new()
        .map_err(|e| failed(e.to_string()))?
        .into_temp_path();
    let opened = tokio::fs::OpenOptions::new().write(true).open(&path).await;
    let mut file = opened.map_err(|e| failed(e.to_string()))?;
    let mut hasher = blake3::Hasher::new();
    let mut stream = answer.bytes_stream();
    while let Some(part) = stream.try_next().await.map_err(|e| failed(e.to_string()))? {
        hasher.update(&part);
        if hasher.count() > DOWNLOAD_BYTES_MAX {
            return Err(failed("is larger than 16 GiB".into()));
        }
        file.write_all(&part)
            .await
            .map_err(|e| failed(e.to_string()))?;
        progress.moved(part.len() as u64, 0);
    }
    progress.moved(0, 1);
    file.flush().await.map_err(|e| failed(e.to_string()))?;
    let blob = BlobRef {
        digest: Digest(*hasher.finalize().as_bytes()),
        size: hasher.count(),
    };
    Ok((blob, path))
}
