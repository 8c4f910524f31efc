//! Tokens: made, listed and revoked by admins. A secret leaves once, in the answer that made it.

use super::body::{JsonBody, Path};
use super::views;
use crate::auth::Admin;
use crate::error::ApiError;
use crate::shared::Shared;
use crate::tokens;
use crate::wall;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use gleaner_api::{NewToken, TokenView};
use gleaner_model::UserId;
use gleaner_store::{ServerRow, TokenKind, TokenRow};
use std::sync::Arc;

/// Longest name in bytes.
const NAME_BYTES_MAX: usize = 128;

fn view(row: &TokenRow, secret: Option<String>) -> TokenView {
    TokenView {
        id: row.id.to_string(),
        kind: row.kind.as_str().to_owned(),
        name: row.name.clone(),
        state: if row.revoked { "revoked" } else { "valid" }.to_owned(),
        created: views::time(row.created),
        secret,
    }
}

/// All tokens, without their secrets.
#[utoipa::path(get, path = "/api/v1/tokens", responses((status = 200, body = Vec<TokenView>)))]
pub(super) async fn list(State(shared): State<Arc<Shared>>, _admin: Admin) -> Json<Vec<TokenView>> {
    Json(
        shared
            .tokens
            .rows()
            .iter()
            .map(|row| view(row, None))
            .collect(),
    )
}

/// Makes a token, and its user where there is none of that name.
#[utoipa::path(post, path = "/api/v1/tokens", responses((status = 201, body = TokenView)))]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    _admin: Admin,
    JsonBody(wanted): JsonBody<NewToken>,
) -> Result<(StatusCode, Json<TokenView>), ApiError> {
    let kind = TokenKind::from_word(&wanted.kind).ok_or_else(|| {
        ApiError::bad(format!(
            "{:?} is no kind of token; there are user, node and admin",
            wanted.kind
        ))
    })?;
    let plain = |c: char| !c.is_control();
    if wanted.name.is_empty()
        || wanted.name.len() > NAME_BYTES_MAX
        || !wanted.name.chars().all(plain)
    {
        return Err(ApiError::bad(
            "a token needs a name of at most 128 plain characters",
        ));
    }
    let _one = shared.token_numbers.lock().await;
    let mut rows = Vec::new();
    let user = match kind {
        TokenKind::Node => None,
        TokenKind::Admin | TokenKind::User => Some(user(&shared, &wanted.name, &mut rows).await?),
    };
    let secret = shared.tokens.new_token(kind).map_err(|error| {
        tracing::error!(%error, "no token could be made");
        ApiError::crashed()
    })?;
    let row = TokenRow {
        id: shared.tokens.rows().last().map_or(0, |row| row.id) + 1,
        hash: tokens::hash(&secret),
        kind,
        name: wanted.name,
        user,
        created: wall::now(),
        revoked: false,
    };
    rows.push(ServerRow::Token(row.clone()));
    shared.driver.rows(rows, None).await?;
    shared.tokens.learn(&row);
    Ok((StatusCode::CREATED, Json(view(&row, Some(secret)))))
}

/// The user of this name; a new row where there is none.
async fn user(shared: &Shared, name: &str, rows: &mut Vec<ServerRow>) -> Result<UserId, ApiError> {
    let wanted = name.to_owned();
    let found = shared.driver.read(move |view| {
        let users = &view.side.users;
        let known = users
            .iter()
            .find(|(_, name)| **name == wanted)
            .map(|(id, _)| *id);
        (known, users.last_key_value().map_or(0, |(id, _)| id.0))
    });
    let (known, last) = found.await?;
    if let Some(known) = known {
        return Ok(known);
    }
    let new = UserId(last + 1);
    rows.push(ServerRow::User(new, name.to_owned()));
    Ok(new)
}

/// Revokes a token. It is refused from now on; connections that it opened stay.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", responses((status = 204)))]
pub(super) async fn revoke(
    State(shared): State<Arc<Shared>>,
    _admin: Admin,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let _one = shared.token_numbers.lock().await;
    let rows = shared.tokens.rows();
    let known = rows.iter().find(|row| row.id.to_string() == id).cloned();
    let known = known.ok_or_else(|| {
        ApiError::not_found(format!("no token {id}; `gleaner token list` lists them"))
    })?;
    let rules = |row: &TokenRow| row.kind == TokenKind::Admin && !row.revoked;
    if rules(&known) && rows.iter().filter(|row| rules(row)).count() == 1 {
        let sentence = "this is the only admin's token that is left: without it nobody could make \
                        another; make one first";
        return Err(ApiError::new(StatusCode::CONFLICT, sentence));
    }
    let row = TokenRow {
        revoked: true,
        ..known
    };
    shared
        .driver
        .rows(vec![ServerRow::Token(row.clone())], None)
        .await?;
    shared.tokens.learn(&row);
    Ok(StatusCode::NO_CONTENT)
}
