//! The pool as a whole: who asks, the front page, the metrics.

use crate::auth::User;
use crate::driver::View;
use crate::error::ApiError;
use crate::metrics;
use crate::shared::Shared;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use gleaner_api::PoolView;
use std::sync::Arc;

const FRONT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>gleaner</title>\
<h1>gleaner</h1><p>This is the server of a gleaner pool. It takes jobs by the command line \
(<code>gleaner --help</code>) and by REST under <code>/api/v1</code>; \
<a href=\"/api/v1/openapi.json\">/api/v1/openapi.json</a> describes it. \
<a href=\"/metrics\">/metrics</a> counts what it does.</p></html>";

pub(super) async fn front() -> Html<&'static str> {
    Html(FRONT)
}

/// The pool, and who asks.
#[utoipa::path(get, path = "/api/v1/pool", responses((status = 200, body = PoolView)))]
pub(super) async fn pool(
    State(shared): State<Arc<Shared>>,
    user: User,
) -> Result<Json<PoolView>, ApiError> {
    let look = move |view: &View<'_>| {
        let (_, connected) = view.state.count_nodes();
        (
            view.user(user.id),
            u32::try_from(connected).unwrap_or(u32::MAX),
        )
    };
    let trouble = shared.driver.trouble().map(|trouble| trouble.sentence);
    // In trouble there may be nothing to look at; that it is so must be said all the same.
    let (user, nodes_online) = match shared.driver.read(look).await {
        Ok(seen) => seen,
        Err(_) => (user.id.to_string(), 0),
    };
    Ok(Json(PoolView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        user,
        nodes_online,
        trouble,
    }))
}

/// Counts in the Prometheus text format. Needs no token: it names nobody.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let gauges = shared.driver.read(metrics::gauges).await.ok();
    let page = metrics::page(&shared, gauges.as_ref());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page)
}
