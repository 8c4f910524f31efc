//! What an agent is told at its start. Nothing here reads anything.

use gleaner_model::{Bytes, Cpus, Policy};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// A node token. It never shows itself in logs or debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps a token as it stands in its file or environment variable.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The token itself, for the authorization header only.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Settings of an agent.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Address of the server: `https://HOST:PORT`; `http://` only for loopback.
    pub server: String,
    /// Who this node is to the server; carries the fingerprint of the server's CA.
    pub token: Token,
    /// Where the agent keeps what is its own. One agent a directory.
    pub data: PathBuf,
    /// The node's name in listings; the host's name where absent.
    pub name: Option<String>,
    /// Labels that jobs can require.
    pub labels: BTreeMap<String, String>,
    /// Processors offered; all where absent.
    pub cpus: Option<Cpus>,
    /// Memory offered; all minus a reserve where absent.
    pub memory: Option<Bytes>,
    /// Disk offered; what is free minus a reserve where absent.
    pub disk: Option<Bytes>,
    /// Most bytes that cached blobs may take; a share of the disk where absent.
    pub cache: Option<Bytes>,
    /// Host uids for attempts, one each; the engine's default where absent. Only as root.
    pub uid_range: Option<RangeInclusive<u32>>,
    /// Name of the group that holds all tasks; the engine's default where absent.
    pub group: Option<String>,
    /// The `gleaner` binary that launches attempts; the running one where absent.
    pub launcher: Option<PathBuf>,
    /// A PEM file with the CA to trust, in place of the token's fingerprint.
    pub ca: Option<PathBuf>,
    /// Whether to call now and then instead of keeping a stream.
    pub poll: bool,
    /// What to do with running attempts when the agent is told to stop.
    pub at_stop: AtStop,
    /// Whether to measure at start that tasks yield to the owner, and refuse work if not.
    pub self_test: bool,
    /// When this node works; its owner may only be stricter.
    pub policy: Policy,
    /// Whether schedule, battery, heat and want of memory do not keep it from work: a pool for
    /// trying out.
    pub lenient: bool,
    /// Port of loopback on which the owner's page is open from the start; where absent it opens
    /// when its owner asks for it.
    pub page: Option<u16>,
    /// Whether no two tasks ever share a namespace, at several times the price of a start.
    pub fresh_cages: bool,
    /// Set where several agents share one PC.
    pub dev: Option<DevShare>,
}

impl AgentConfig {
    /// Settings with every default.
    #[must_use]
    pub fn new(server: &str, token: Token, data: PathBuf) -> Self {
        Self {
            server: server.to_owned(),
            token,
            data,
            name: None,
            labels: BTreeMap::new(),
            cpus: None,
            memory: None,
            disk: None,
            cache: None,
            uid_range: None,
            group: None,
            launcher: None,
            ca: None,
            poll: false,
            at_stop: AtStop::Leave,
            self_test: true,
            policy: Policy::Continuous,
            lenient: false,
            page: None,
            fresh_cages: false,
            dev: None,
        }
    }
}

/// What happens to running attempts when the agent stops in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtStop {
    /// They stay under their shims, which freeze them after three beats, and the next agent
    /// adopts them: an upgrade loses nothing.
    Leave,
    /// They are ended, and everything of them is removed.
    End,
}

/// What the agents of `gleaner dev` share: one PC, its processors and memory, one parent group
/// and one self-test.
#[derive(Debug, Clone)]
pub struct DevShare {
    /// How many agents share the PC; at least 1.
    pub nodes: u32,
    /// The outcome of the self-test, made by whoever comes first: why work is refused, or none.
    pub self_test: Arc<OnceLock<Option<String>>>,
}

impl DevShare {
    /// A share for each of `nodes` agents; clone it for each.
    #[must_use]
    pub fn new(nodes: u32) -> Self {
        Self {
            nodes: nodes.max(1),
            self_test: Arc::new(OnceLock::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_does_not_show_itself() {
        let config = AgentConfig::new(
            "https://pool",
            Token::new(" gln-node-secret-00\n"),
            PathBuf::from("/nowhere"),
        );
        assert_eq!(config.token.reveal(), "gln-node-secret-00");
        assert!(!format!("{config:?}").contains("secret"));
    }
}
