//! Bodies of requests that end: one whose sender falls silent in its middle is given up, with a
//! sentence. How long a body is altogether is not asked here; who reads it bounds that.

use crate::error::ApiError;
use crate::shared::Shared;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{Stream, StreamExt as _, stream};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// Nothing came for so long.
#[derive(Debug, thiserror::Error)]
#[error("nothing came for {} s, so this request was given up; send it again", .0.as_secs_f64())]
struct Silent(Duration);

/// Gives each request a body that ends.
pub(crate) async fn bound(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let silence = shared.body_silence;
    let bounded = request.map(|body| Body::from_stream(bounded(body, silence)));
    next.run(bounded).await
}

fn bounded(body: Body, silence: Duration) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    stream::unfold(Some(body.into_data_stream()), move |parts| async move {
        let mut parts = parts?;
        match tokio::time::timeout(silence, parts.next()).await {
            Ok(Some(part)) => Some((part, Some(parts))),
            Ok(None) => None,
            Err(_) => Some((Err(axum::Error::new(Silent(silence))), None)),
        }
    })
}

/// The answer to a request whose body was given up, if that is what is wrong.
pub(crate) fn given_up(error: &(dyn Error + 'static)) -> Option<ApiError> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(silent) = cause.downcast_ref::<Silent>() {
            let status = StatusCode::REQUEST_TIMEOUT;
            return Some(ApiError::new(status, silent.to_string()));
        }
        next = cause.source();
    }
    None
}
