//! Reading what clients send: JSON bodies, query strings, and ids in paths, with sentences for what
//! is wrong.

use crate::error::ApiError;
use crate::silence;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use gleaner_model::ParseIdError;
use serde::de::DeserializeOwned;
use std::str::FromStr;

/// A JSON body.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let WholeBody(bytes) = WholeBody::from_request(request, state).await?;
        let read = serde_json::from_slice(&bytes);
        read.map(Self)
            .map_err(|error| ApiError::bad(format!("the body cannot be read: {error}")))
    }
}

/// All bytes of a body, where they are not too many.
pub(crate) struct WholeBody(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for WholeBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let read = Bytes::from_request(request, state).await;
        read.map(Self).map_err(|rejection| {
            if let Some(given_up) = silence::given_up(&rejection) {
                return given_up;
            }
            let sentence = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => "the body is too long; send less at once".into(),
                _ => rejection.body_text(),
            };
            ApiError::new(rejection.status(), sentence)
        })
    }
}

/// What stands behind the question mark of an address.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        query
            .map(|Query(asked)| Self(asked))
            .map_err(|rejection| ApiError::bad(rejection.body_text()))
    }
}

/// The parts of an address that name something.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let named = axum::extract::Path::from_request_parts(parts, state).await;
        named
            .map(|axum::extract::Path(named)| Self(named))
            .map_err(|rejection| ApiError::bad(rejection.body_text()))
    }
}

/// An id in a path.
pub(crate) fn id<T: FromStr<Err = ParseIdError>>(text: &str) -> Result<T, ApiError> {
    text.parse()
        .map_err(|error: ParseIdError| ApiError::not_found(error.to_string()))
}
