//! The pool's tokens.
//!
//! A token text is `gln-user-<secret>` or `gln-node-<secret>-<fingerprint of the CA>`. Only its
//! BLAKE3 hash is kept; looking up a hash of the whole text tells nothing about the secret by its
//! time. Tokens are never logged.

use crate::ServerError;
use axum::http::{HeaderMap, header};
use gleaner_model::UserId;
use gleaner_store::{TokenKind, TokenRow};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::sync::{PoisonError, RwLock};

/// Random bytes in a token: 256 bits cannot be guessed.
const SECRET_BYTES: usize = 32;

/// Whom a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Principal {
    pub(crate) kind: TokenKind,
    pub(crate) user: Option<UserId>,
}

/// The tokens that are good.
#[derive(Debug)]
pub(crate) struct Tokens {
    known: RwLock<BTreeMap<[u8; 32], Principal>>,
    rows: RwLock<BTreeMap<u64, TokenRow>>,
    fingerprint: String,
}

pub(crate) fn hash(token: &str) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}

/// A new secret text.
pub(crate) fn new_token(kind: TokenKind, fingerprint: &str) -> Result<String, ServerError> {
    let mut secret = [0; SECRET_BYTES];
    // The kernel's generator: the one source of randomness the standard library reaches.
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut secret))
        .map_err(|source| ServerError::Data {
            what: "read",
            path: "/dev/urandom".into(),
            source,
        })?;
    let hex = gleaner_model::Digest(secret).hex();
    Ok(match kind {
        TokenKind::Admin | TokenKind::User => format!("gln-user-{hex}"),
        TokenKind::Node => format!("gln-node-{hex}-{fingerprint}"),
    })
}

impl Tokens {
    pub(crate) fn new(tokens: &[TokenRow], fingerprint: &str) -> Self {
        let all = Self {
            known: RwLock::default(),
            rows: RwLock::default(),
            fingerprint: fingerprint.to_owned(),
        };
        tokens.iter().for_each(|row| all.learn(row));
        all
    }

    /// Takes over a token's row: good from now on, or no longer.
    pub(crate) fn learn(&self, row: &TokenRow) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let principal = Principal {
            kind: row.kind,
            user: row.user,
        };
        match row.revoked {
            true => known.remove(&row.hash),
            false => known.insert(row.hash, principal),
        };
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.insert(row.id, row.clone());
    }

    /// Every token ever made, by number.
    pub(crate) fn rows(&self) -> Vec<TokenRow> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        rows.values().cloned().collect()
    }

    pub(crate) fn new_token(&self, kind: TokenKind) -> Result<String, ServerError> {
        new_token(kind, &self.fingerprint)
    }

    /// Whom the `authorization` header names.
    pub(crate) fn of(&self, headers: &HeaderMap) -> Option<Principal> {
        let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let token = text
            .strip_prefix("Bearer ")
            .or_else(|| text.strip_prefix("bearer "))?;
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&hash(token.trim())).copied()
    }
}
