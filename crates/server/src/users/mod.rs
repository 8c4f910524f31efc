//! The users' side: REST under `/api/v1`. Each handler checks who asks, asks the driver or the
//! store, and gives types of `gleaner-api`; refusals are sentences.

mod blobs;
mod body;
mod images;
mod jobs;
mod logs;
mod nodes;
mod openapi;
mod pool;
mod results;
mod tasks;
mod tokens;
mod views;

use crate::error::ApiError;
use crate::shared::Shared;
use crate::silence;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};
use std::sync::Arc;

/// Most bytes of a JSON body: a submission that names a hundred thousand files.
const JSON_BYTES_MAX: usize = 64 << 20;

pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let api = Router::new()
        .route("/pool", get(pool::pool))
        .route("/openapi.json", get(openapi::document))
        .route("/jobs", get(jobs::list).post(jobs::submit))
        .route("/jobs/{id}", get(jobs::one).delete(jobs::remove))
        .route("/jobs/{id}/tasks", get(tasks::list))
        .route("/jobs/{id}/results", get(results::page))
        .route("/jobs/{id}/explain", get(jobs::explain))
        .route("/jobs/{id}/{verb}", post(jobs::control))
        .route("/tasks/{id}", get(tasks::one))
        .route("/tasks/{id}/logs", get(logs::logs))
        .route("/tasks/{id}/{verb}", post(tasks::control))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{id}", get(nodes::one))
        .route("/nodes/{id}/{verb}", post(nodes::control))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{id}", delete(tokens::revoke))
        .route("/images", get(images::list).post(images::create))
        .route("/images/{name}", delete(images::remove))
        .route("/blobs/missing", post(blobs::missing))
        .route("/blobs/bulk", post(blobs::put_bulk))
        .route("/blobs/get", post(blobs::get_bulk))
        .route(
            "/blobs/{digest}",
            get(blobs::get).head(blobs::head).put(blobs::put),
        )
        .layer(DefaultBodyLimit::max(JSON_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(shared), silence::bound));
    Router::new()
        .route("/", get(pool::front))
        .route("/metrics", get(pool::metrics))
        .nest("/api/v1", api)
        .fallback(|| async {
            ApiError::not_found("there is nothing here; /api/v1/openapi.json lists what is")
        })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this address does not take that method",
            )
        })
        .with_state(Arc::clone(shared))
}
