//! The shape of a node token: `gln-node-<secret>-<fingerprint>`.
//!
//! The fingerprint is the BLAKE3 digest of the server's CA certificate (DER) as hex, so that a
//! node that has nothing but its token knows whom to trust.

use crate::config::Token;

/// The fingerprint in a token; none where it is not of this shape.
pub(crate) fn fingerprint(token: &Token) -> Option<[u8; 32]> {
    let rest = token.reveal().strip_prefix("gln-node-")?;
    let (secret, hex) = rest.rsplit_once('-')?;
    if secret.is_empty() {
        return None;
    }
    blake3::Hash::from_hex(hex)
        .ok()
        .map(|hash| *hash.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_token_has_a_fingerprint() {
        let hex = "0123456789abcdef".repeat(4);
        for (text, found) in [
            (format!("gln-node-s3cret-{hex}"), true),
            (format!("gln-node-s3-cret-{hex}"), true),
            (format!("gln-user-s3cret-{hex}"), false),
            (format!("gln-node--{hex}"), false),
            (format!("gln-node-s3cret-{}", &hex[1..]), false),
            (format!("gln-node-{hex}"), false),
            (String::new(), false),
        ] {
            assert_eq!(fingerprint(&Token::new(&text)).is_some(), found, "{text}");
        }
    }
}
