//! Nodes: list, look, and an admin's wishes.

use super::body::{Asked, Path};
use super::jobs::accepted;
use super::views;
use crate::auth::{Admin, User};
use crate::driver::View;
use crate::error::ApiError;
use crate::shared::Shared;
use axum::Json;
use axum::extract::State;
use gleaner_api::{Accepted, NodeView};
use gleaner_core::{Event, NodeWish};
use gleaner_model::NodeId;
use serde::Deserialize;
use std::sync::Arc;

fn no_node(text: &str) -> ApiError {
    ApiError::not_found(format!("no node {text}; `gleaner nodes` lists them"))
}

/// The one node of those that a text names.
fn the_one(text: &str, found: &[NodeId]) -> Result<NodeId, ApiError> {
    match found {
        [node] => Ok(*node),
        [] => Err(no_node(text)),
        several => {
            let numbers: Vec<String> = several.iter().map(NodeId::to_string).collect();
            Err(ApiError::bad(format!(
                "several nodes are called {text}: {}; say which by its number, `gleaner nodes` \
                 tells them apart",
                numbers.join(", ")
            )))
        }
    }
}

/// Nodes that are looked at in one go: the driver, which copies them, is held for less than a
/// millisecond.
const PAGE: u32 = 1000;

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    after: Option<u32>,
    limit: Option<u32>,
}

/// Nodes by number: all, or with `after` those with a higher one, at most `limit`.
#[utoipa::path(get, path = "/api/v1/nodes", responses((status = 200, body = Vec<NodeView>)))]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    _user: User,
    Asked(query): Asked<ListQuery>,
) -> Result<Json<Vec<NodeView>>, ApiError> {
    let mut after = NodeId(query.after.unwrap_or(0));
    let mut left = query.limit.unwrap_or(u32::MAX);
    let mut all = Vec::new();
    // Node by node as it is when its page is looked at: between two pages others are served.
    loop {
        let most = left.min(PAGE);
        let page = shared.driver.read(move |view| page(view, after, most));
        let page = page.await?;
        let count = u32::try_from(page.len()).unwrap_or(u32::MAX);
        after = page.last().map_or(after, |node| NodeId(node.id));
        left -= count;
        all.extend(page);
        if count < most || left == 0 {
            return Ok(Json(all));
        }
    }
}

fn page(view: &View<'_>, after: NodeId, most: u32) -> Vec<NodeView> {
    let nodes = view.state.nodes_after(after);
    let nodes = nodes.take(usize::try_from(most).unwrap_or(usize::MAX));
    nodes
        .map(|node| {
            let side = view.side.nodes.get(&node.id);
            views::node(node, side)
        })
        .collect()
}

/// One node, by name or number.
#[utoipa::path(get, path = "/api/v1/nodes/{id}", responses((status = 200, body = NodeView)))]
pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    _user: User,
    Path(text): Path<String>,
) -> Result<Json<NodeView>, ApiError> {
    let look = move |view: &View<'_>| {
        let node = the_one(&text, &view.find_nodes(&text))?;
        let found = view.state.node(node);
        let found = found.map(|found| views::node(found, view.side.nodes.get(&node)));
        found.ok_or_else(|| no_node(&text))
    };
    shared.driver.read(look).await?.map(Json)
}

/// `pause`, `resume`, `drain` or `evict` of a node.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/{verb}", responses((status = 200, body = Accepted)))]
pub(super) async fn control(
    State(shared): State<Arc<Shared>>,
    _admin: Admin,
    Path((text, verb)): Path<(String, String)>,
) -> Result<Json<Accepted>, ApiError> {
    let wish = match verb.as_str() {
        "pause" => NodeWish::Pause,
        "resume" => NodeWish::Resume,
        "drain" => NodeWish::Drain,
        "evict" => NodeWish::Evict,
        _ => {
            let sentence = format!("a node cannot {verb}; it can pause, resume, drain and evict");
            return Err(ApiError::not_found(sentence));
        }
    };
    let wanted = text.clone();
    let found = shared
        .driver
        .read(move |view| view.find_nodes(&wanted))
        .await?;
    let node = the_one(&text, &found)?;
    accepted(&shared, Event::Wish(node, wish)).await
}
