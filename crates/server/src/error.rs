//! What can go wrong: for who starts the server, and for who asks it something.

use crate::split::plan::PlanError;
use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use gleaner_api::ErrorBody;
use gleaner_blob::BlobError;
use gleaner_core::Refusal;
use gleaner_model::SpecError;
use gleaner_store::StoreError;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the server says how much it has of a blob whose upload broke off.
pub(crate) const OFFSET_HEADER: HeaderName = HeaderName::from_static("x-offset");

/// The server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be used.
    #[error("cannot listen on {addr}: {source}; choose another with --listen")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Plain HTTP was asked for where others can hear it.
    #[error("plain http is for loopback addresses only, not {0}; leave it out to get TLS")]
    PlainHttp(SocketAddr),
    /// A file of the data directory cannot be used.
    #[error("cannot {what} {path}: {source}")]
    Data {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// One half of the authority is missing.
    #[error(
        "{0} is missing: put it back from a copy; or remove both ca.pem and ca.key to make a new \
         authority, which every node and user has to join anew"
    )]
    KeyLost(PathBuf),
    /// The store of a pool that has run holds nothing.
    #[error(
        "{store} holds nothing, but this pool has run before: put it back from a copy, with its \
         -wal file where it had one; or remove {welcome} to begin a new pool without its jobs"
    )]
    StoreLost {
        /// The store.
        store: PathBuf,
        /// What says that it has run.
        welcome: PathBuf,
    },
    /// Another server uses the data directory.
    #[error("another server runs with {0}; stop it first or choose another --data")]
    Busy(PathBuf),
    /// A URL names no known back end.
    #[error("{url} is not supported by this server; {expected}")]
    Url {
        /// What was given.
        url: String,
        /// What would do.
        expected: &'static str,
    },
    /// A certificate could not be made or read.
    #[error("cannot set up TLS: {0}; remove ca.pem and ca.key to make a new authority")]
    Tls(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blobs failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A thread of the server panicked.
    #[error("a part of the server crashed; its log says where. Please report it")]
    Panicked,
}

/// Why the driver refuses work just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// A sentence for users.
    pub(crate) sentence: String,
    /// Whether the disk is full.
    pub(crate) full: bool,
}

impl Trouble {
    pub(crate) fn stopping() -> Self {
        Self {
            sentence: "the server is shutting down; try again in a moment".into(),
            full: false,
        }
    }
}

/// Why something for a job could not be done.
#[derive(Debug)]
pub(crate) enum Setback {
    /// It never will be: the sentence is for the user.
    Final(String),
    /// The server's disk or store failed; later it may.
    Later(String),
}

impl From<StoreError> for Setback {
    fn from(error: StoreError) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<BlobError> for Setback {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Missing(digest) => Self::Final(format!(
                "{digest} is lost on the server; retry the task that made it, or submit the job \
                 again"
            )),
            // Nobody has to send anything again.
            BlobError::Full => {
                Self::Later("the disk that holds the server's blobs is full".to_owned())
            }
            BlobError::Mismatch { .. }
            | BlobError::Offset { .. }
            | BlobError::TooLarge { .. }
            | BlobError::Disk { .. } => Self::Later(error.to_string()),
        }
    }
}

impl From<PlanError> for Setback {
    fn from(error: PlanError) -> Self {
        let text = error.to_string();
        match error {
            PlanError::Axis(read) if read.kind() != std::io::ErrorKind::InvalidData => {
                Self::Later(text)
            }
            PlanError::Axis(_) | PlanError::Input(_) => Self::Final(text),
        }
    }
}

impl From<ApiError> for Setback {
    fn from(error: ApiError) -> Self {
        Self::Final(error.body.error)
    }
}

/// An answer that is no success.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
    /// Bytes of a broken upload that are here.
    offset: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            body: ErrorBody {
                error: error.into(),
                key: None,
            },
            offset: None,
        }
    }

    pub(crate) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(crate) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    pub(crate) const fn with_offset(mut self, have: u64) -> Self {
        self.offset = Some(have);
        self
    }

    /// For a task that panicked or was dropped with the runtime.
    pub(crate) fn crashed() -> Self {
        let sentence = "the server failed to answer; its log says why. Please try again";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, sentence)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut answer = (self.status, Json(self.body)).into_response();
        if let Some(have) = self.offset {
            answer
                .headers_mut()
                .insert(OFFSET_HEADER, HeaderValue::from(have));
        }
        answer
    }
}

impl From<Trouble> for ApiError {
    fn from(trouble: Trouble) -> Self {
        let status = match trouble.full {
            true => StatusCode::INSUFFICIENT_STORAGE,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, trouble.sentence)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store cannot be read");
        match error {
            StoreError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string()),
            StoreError::Newer { .. } | StoreError::Damaged(_) | StoreError::Database(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        let text = error.to_string();
        match error {
            BlobError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, text),
            BlobError::Missing(_) => Self::not_found(text),
            BlobError::Mismatch { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, text),
            BlobError::Offset { have } => Self::new(StatusCode::CONFLICT, text).with_offset(have),
            BlobError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, text),
            BlobError::Disk { .. } => {
                tracing::error!(error = %text, "a blob cannot be stored or read");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::NoJob(_) | Refusal::NoTask(..) | Refusal::NoNode(_) => Self::not_found(text),
            Refusal::State(_) => Self::new(StatusCode::CONFLICT, text),
        }
    }
}

impl From<SpecError> for ApiError {
    fn from(error: SpecError) -> Self {
        let mut answer = Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
        answer.body.key = Some(error.key);
        answer
    }
}
