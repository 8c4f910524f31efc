//! The description of the REST interface, made from the handlers themselves.

use super::{blobs, images, jobs, logs, nodes, pool, results, tasks, tokens};
use axum::Json;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "gleaner",
        description = "A pool of PCs that run tasks in their idle time."
    ),
    paths(
        pool::pool,
        jobs::list,
        jobs::submit,
        jobs::one,
        jobs::explain,
        jobs::control,
        jobs::remove,
        tasks::list,
        tasks::one,
        tasks::control,
        logs::logs,
        results::page,
        nodes::list,
        nodes::one,
        nodes::control,
        tokens::list,
        tokens::create,
        tokens::revoke,
        images::list,
        images::create,
        images::remove,
        blobs::missing,
        blobs::put_bulk,
        blobs::get_bulk,
        blobs::get,
        blobs::head,
        blobs::put
    ),
    components(schemas(gleaner_api::ErrorBody, gleaner_api::NewToken, gleaner_api::NewImage))
)]
struct Document;

/// Needs no token: it describes, and holds nothing of the pool.
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
