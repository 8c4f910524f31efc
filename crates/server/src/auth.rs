//! Who asks, and whether they may: what a handler takes to be reached by some and not by others.

use crate::error::ApiError;
use crate::shared::Shared;
use crate::tokens::Principal;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use gleaner_model::UserId;
use gleaner_store::TokenKind;
use std::sync::Arc;

/// Any good token: users and nodes get and put blobs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Anyone;

/// A user's token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) admin: bool,
}

/// An admin's token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admin;

fn principal(parts: &Parts, shared: &Shared) -> Result<Principal, ApiError> {
    shared.tokens.of(&parts.headers).ok_or_else(|| {
        let sentence = "the token is missing, wrong or revoked; ask the pool's admin for one";
        ApiError::new(StatusCode::UNAUTHORIZED, sentence)
    })
}

pub(crate) fn forbidden(sentence: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, sentence)
}

impl FromRequestParts<Arc<Shared>> for Anyone {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        principal(parts, shared).map(|_| Self)
    }
}

impl FromRequestParts<Arc<Shared>> for User {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        let who = principal(parts, shared)?;
        match who.user {
            Some(id) => Ok(Self {
                id,
                admin: who.kind == TokenKind::Admin,
            }),
            None => Err(forbidden(
                "this is a node's token; users need a user's token",
            )),
        }
    }
}

impl FromRequestParts<Arc<Shared>> for Admin {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        match User::from_request_parts(parts, shared).await?.admin {
            true => Ok(Self),
            false => Err(forbidden("only the pool's admin may do this; ask them")),
        }
    }
}
