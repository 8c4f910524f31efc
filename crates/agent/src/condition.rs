//! How the node sees itself.

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

    /// A node that would work, but whose owner needs it.
    pub(crate) fn with_decision(&self, decision: &gleaner_harvest::Decision) -> Self {
        match decision.verdict {
            Verdict::Pause | Verdict::Evict if self.state == NodeState::Online => Self {
                state: NodeState::Paused,
                reason: decision.cause.to_string(),
            },
            Verdict::Run | Verdict::Pause | Verdict::Evict => self.clone(),
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
