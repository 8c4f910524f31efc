//! Tokens, without their secrets.

use super::{Look, ago, state, table, text};
use gleaner_api::TokenView;

/// The listing.
pub(crate) fn list(tokens: &[TokenView], look: Look) -> String {
    let mut rows = table(look, &["TOKEN", "KIND", "NAME", "STATE", "AGE"]);
    for token in tokens {
        rows.add_row(vec![
            (&token.id).into(),
            (&token.kind).into(),
            (&token.name).into(),
            state(&token.state),
            comfy_table::Cell::new(ago(look, &token.created)),
        ]);
    }
    text(rows)
}
