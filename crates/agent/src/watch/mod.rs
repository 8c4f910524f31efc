//! What this node can offer and whether it may work now. Here the owner's load, the policy and
//! the self-test come together; the dispatch loop and the beats read the outcome.

pub(crate) mod capacity;
pub(crate) mod disk;

use gleaner_attempt::Verdict;
use gleaner_model::NodeState;

/// The node as it sees itself; each beat carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) state: NodeState,
    pub(crate) reason: String,
}

impl Condition {
    /// How a node begins, given what its self-test forbids.
    pub(crate) fn at_start(refused: Option<&str>) -> Self {
        match refused {
            None => Self {
                state: NodeState::Online,
                reason: String::new(),
            },
            Some(reason) => Self {
                state: NodeState::Refused,
                reason: reason.to_owned(),
            },
        }
    }

    /// A node that would work but has no room; a refused one stays refused.
    pub(crate) fn with_trouble(&self, trouble: Option<String>) -> Self {
        match trouble {
            Some(reason) if self.state == NodeState::Online => Self {
                state: NodeState::Paused,
                reason,
            },
            _ => self.clone(),
        }
    }

    /// What the condition means for the attempts that are here.
    pub(crate) const fn verdict(&self) -> Verdict {
        match self.state {
            NodeState::Online => Verdict::Run,
            NodeState::Paused => Verdict::Pause,
            // A node that would disturb its owner gives back what an earlier agent left.
            NodeState::Refused
            | NodeState::Draining
            | NodeState::Offline
            | NodeState::Quarantined => Verdict::Evict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_node_takes_nothing_and_says_why() {
        let fine = Condition::at_start(None);
        assert_eq!(
            (fine.state, fine.verdict()),
            (NodeState::Online, Verdict::Run)
        );
        let full = fine.with_trouble(Some("disk full".to_owned()));
        assert_eq!(
            (full.verdict(), full.reason.as_str()),
            (Verdict::Pause, "disk full")
        );
        let refused = Condition::at_start(Some("tasks take 12 % of a busy core"));
        assert_eq!(refused.with_trouble(Some(String::new())), refused);
        assert_eq!(refused.verdict(), Verdict::Evict);
        assert!(refused.reason.contains("12 %"));
    }
}
