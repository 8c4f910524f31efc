//! The nodes that poll, between two of their calls.

use super::carried::Carried;
use crate::driver::{Connected, Outgoing};
use gleaner_model::NodeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What is kept of a node for its next call.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) answers: mpsc::Receiver<Vec<Outgoing>>,
    pub(super) carried: Carried,
    /// The driver let go of it.
    pub(super) cut: CancellationToken,
}

impl Session {
    pub(super) fn new(answers: mpsc::Receiver<Vec<Outgoing>>, cut: CancellationToken) -> Self {
        Self {
            answers,
            carried: Carried::default(),
            cut,
        }
    }
}

/// Held by the one call of a node that is answered.
pub(super) type Kept = Arc<tokio::sync::Mutex<Session>>;

#[derive(Debug)]
struct Poller {
    connected: Connected,
    session: Kept,
    /// When it called last.
    called: Instant,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Polls(Mutex<BTreeMap<NodeId, Poller>>);

impl Polls {
    fn all(&self) -> MutexGuard<'_, BTreeMap<NodeId, Poller>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node said hello.
    pub(super) fn insert(&self, connected: Connected, session: Session, now: Instant) {
        let poller = Poller {
            connected,
            session: Arc::new(tokio::sync::Mutex::new(session)),
            called: now,
        };
        self.all().insert(connected.node, poller);
    }

    /// A node calls: what is kept of it, and how many nodes poll.
    pub(super) fn called(&self, node: NodeId, now: Instant) -> Option<(Connected, Kept, usize)> {
        let mut all = self.all();
        let nodes = all.len();
        let poller = all.get_mut(&node)?;
        poller.called = now;
        Some((poller.connected, Arc::clone(&poller.session), nodes))
    }

    /// Whether this node calls, so that a word reaches it with its next call.
    pub(crate) fn has(&self, node: NodeId) -> bool {
        self.all().contains_key(&node)
    }

    /// Forgets a node, unless it said hello again.
    pub(super) fn remove(&self, connected: Connected) {
        let mut all = self.all();
        let same = |poller: &Poller| poller.connected == connected;
        if all.get(&connected.node).is_some_and(same) {
            all.remove(&connected.node);
        }
    }

    /// Takes out the nodes that have not called for so long.
    pub(super) fn silent(&self, now: Instant, longest: Duration) -> Vec<Connected> {
        let silent = |poller: &mut Poller| now.duration_since(poller.called) > longest;
        let gone = self
            .all()
            .extract_if(.., |_, poller| silent(poller))
            .collect::<Vec<_>>();
        gone.into_iter()
            .map(|(_, poller)| poller.connected)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(node: u32, generation: u64, at: Instant, polls: &Polls) -> Connected {
        let connected = Connected {
            node: NodeId(node),
            generation,
        };
        let session = Session::new(mpsc::channel(1).1, CancellationToken::new());
        polls.insert(connected, session, at);
        connected
    }

    #[test]
    fn nodes_that_call_no_more_are_let_go_and_do_not_count() {
        let (polls, start) = (Polls::default(), Instant::now());
        let longest = Duration::from_secs(45);
        let gone = met(1, 1, start, &polls);
        let stays = met(2, 2, start, &polls);
        let later = start + longest;
        assert_eq!(polls.silent(later, longest), []);
        let (who, _, nodes) = polls.called(stays.node, later).unwrap();
        assert_eq!((who, nodes), (stays, 2));
        let after = later + Duration::from_secs(1);
        assert_eq!(polls.silent(after, longest), [gone]);
        assert!(polls.called(gone.node, after).is_none());
        assert_eq!(polls.called(stays.node, after).unwrap().2, 1);
    }

    #[test]
    fn a_node_that_said_hello_again_is_not_forgotten_for_its_older_self() {
        let (polls, start) = (Polls::default(), Instant::now());
        let older = met(1, 1, start, &polls);
        let newer = met(1, 2, start, &polls);
        polls.remove(older);
        assert_eq!(polls.called(newer.node, start).unwrap().0, newer);
        polls.remove(newer);
        assert!(polls.called(newer.node, start).is_none());
    }
}
