//! Blobs to and from the server over HTTPS. It knows addresses, ranges and status codes; not
//! why a blob is wanted, nor where it is kept.

use crate::AgentError;
use crate::config::AgentConfig;
use crate::error::causes;
use crate::link::tls::nobody;
use bytes::Bytes;
use gleaner_model::{BlobRef, Digest};
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE,
};
use reqwest::{Body, Client, Response, StatusCode};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom};
use tokio_util::io::ReaderStream;

/// Wait for a connection, in seconds.
const CONNECT_S: u64 = 10;

/// A transfer that brings no byte for this long is broken, in seconds.
const SILENT_S: u64 = 30;

/// Bytes read at once from a file on its way out: large enough to be cheap, small against the
/// memory of a PC.
const READ_BYTES: usize = 256 << 10;

/// Most digests in one request, as the server bounds them.
const DIGESTS_MAX: usize = 1000;

/// Blobs up to this many bytes travel many to a request: below it the request costs more than
/// the bytes.
pub(crate) const SMALL_BYTES_MAX: u64 = 256 << 10;

/// Most bytes of small blobs in one request; what a server holds in memory for one.
const BULK_BYTES_MAX: usize = 8 << 20;

/// Where a server says how much it has of a blob.
const OFFSET_HEADER: &str = "x-offset";

/// A transfer did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct TransferError {
    /// Whether it may succeed when tried again later.
    pub(crate) again: bool,
    /// What went wrong.
    pub(crate) detail: String,
}

/// The body of `POST /api/v1/blobs/missing`, both ways.
#[derive(Debug, Serialize, Deserialize)]
struct DigestList {
    digests: Vec<Digest>,
}

/// The server's error body.
#[derive(Debug, Deserialize)]
struct ErrorBody {
    error: String,
}

/// A client for the blobs of one server.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    client: Client,
    base: String,
}

impl Blobs {
    pub(crate) fn new(
        config: &AgentConfig,
        tls: Option<&ClientConfig>,
    ) -> Result<Self, AgentError> {
        let unusable = |problem: String| AgentError::Setting {
            setting: "token",
            problem,
        };
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", config.token.reveal()))
            .map_err(|_| unusable("it has characters that no token has; copy it again".into()))?;
        bearer.set_sensitive(true);
        let mut tls = match tls {
            Some(tls) => tls.clone(),
            None => nobody()?,
        };
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = Client::builder()
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]))
            .connect_timeout(Duration::from_secs(CONNECT_S))
            .read_timeout(Duration::from_secs(SILENT_S))
            .user_agent(concat!("gleaner-agent/", env!("CARGO_PKG_VERSION")))
            // The stream to the server takes no proxy either, and a proxy would see the token.
            .no_proxy()
            // One connection each: large transfers must not block small ones.
            .http1_only()
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(|error| AgentError::Tls(causes(&error)))?;
        let base = format!("{}/api/v1/blobs", config.server.trim_end_matches('/'));
        Ok(Self { client, base })
    }

    /// Asks for a blob from byte `from` on. Says where the answer starts: at `from`, or at 0.
    pub(crate) async fn get(
        &self,
        digest: Digest,
        from: u64,
    ) -> Result<(u64, Response), TransferError> {
        let mut request = self.client.get(format!("{}/{digest}", self.base));
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let response = request.send().await.map_err(broken)?;
        match response.status() {
            StatusCode::OK => Ok((0, response)),
            StatusCode::PARTIAL_CONTENT if starts_at(&response) == Some(from) => {
                Ok((from, response))
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => Err(TransferError {
                again: true,
                detail: "the server sent another range than the one asked for".to_owned(),
            }),
            _ => Err(refused(response).await),
        }
    }

    /// Which of these the server lacks.
    pub(crate) async fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, TransferError> {
        let mut missing = Vec::new();
        for digests in digests.chunks(DIGESTS_MAX) {
            let response = self
                .client
                .post(format!("{}/missing", self.base))
                .json(&DigestList {
                    digests: digests.to_vec(),
                })
                .send()
                .await
                .map_err(broken)?;
            if !response.status().is_success() {
                return Err(refused(response).await);
            }
            missing.extend(response.json::<DigestList>().await.map_err(broken)?.digests);
        }
        Ok(missing)
    }

    /// Sends small blobs, many to a request; each goes as its length and its bytes.
    pub(crate) async fn put_small(&self, blobs: &[Vec<u8>]) -> Result<(), TransferError> {
        let mut blobs = blobs.iter().peekable();
        while blobs.peek().is_some() {
            let (mut body, mut count) = (Vec::new(), 0);
            while let Some(blob) = blobs.next_if(|blob| {
                count < DIGESTS_MAX && (count == 0 || body.len() + blob.len() <= BULK_BYTES_MAX)
            }) {
                body.extend_from_slice(&(blob.len() as u64).to_le_bytes());
                body.extend_from_slice(blob);
                count += 1;
            }
            let request = self.client.post(format!("{}/bulk", self.base));
            accepted(request.body(body).send().await).await?;
        }
        Ok(())
    }

    /// How much of a blob the server has from a transfer that broke off.
    pub(crate) async fn offset(&self, blob: BlobRef) -> Result<u64, TransferError> {
        let request = self.client.head(format!("{}/{}", self.base, blob.digest));
        let response = request.send().await.map_err(broken)?;
        let header = response.headers().get(OFFSET_HEADER);
        let offset = header.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(offset.unwrap_or(0).min(blob.size))
    }

    /// Sends a blob from byte `offset` on.
    pub(crate) async fn put(
        &self,
        blob: BlobRef,
        file: &File,
        offset: u64,
    ) -> Result<(), TransferError> {
        let unreadable = |error: std::io::Error| TransferError {
            again: false,
            detail: format!("cannot read an output: {error}"),
        };
        let mut file = tokio::fs::File::from_std(file.try_clone().map_err(unreadable)?);
        let start = SeekFrom::Start(offset);
        file.seek(start).await.map_err(unreadable)?;
        let rest = blob.size.saturating_sub(offset);
        let body = ReaderStream::with_capacity(file.take(rest), READ_BYTES);
        let request = self
            .client
            .put(format!("{}/{}?offset={offset}", self.base, blob.digest))
            .header(CONTENT_LENGTH, rest)
            .body(Body::wrap_stream(body));
        accepted(request.send().await).await
    }
}

async fn accepted(answer: reqwest::Result<Response>) -> Result<(), TransferError> {
    let response = answer.map_err(broken)?;
    match response.status().is_success() {
        true => Ok(()),
        false => Err(refused(response).await),
    }
}

/// The next piece of an answer's body.
pub(crate) async fn piece(response: &mut Response) -> Result<Option<Bytes>, TransferError> {
    response.chunk().await.map_err(broken)
}

/// The first byte that a partial answer holds.
fn starts_at(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (first, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    first.parse().ok()
}

fn broken(error: reqwest::Error) -> TransferError {
    TransferError {
        again: true,
        detail: causes(&error.without_url()),
    }
}

/// The server's own words, and whether asking again makes sense.
async fn refused(response: Response) -> TransferError {
    let status = response.status();
    let text = response.text().await.unwrap_or_default();
    let words = serde_json::from_str::<ErrorBody>(&text)
        .map_or_else(|_| status.to_string(), |body| body.error);
    // A full disk at the server is reported as 507 and passes, like all that is the server's.
    let again = status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT
        );
    TransferError {
        again,
        detail: format!("the server answered: {words}"),
    }
}
