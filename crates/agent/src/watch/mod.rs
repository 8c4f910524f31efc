//! Whether and how much this node works beside its owner: senses, judges, acts.
//!
//! Three loops by speed. The kernel has the fast one: all tasks lie in one group at idle priority.
//! `events` acts on the owner's input within milliseconds, by the group as a whole; `slow` looks
//! at every sensor and at what tasks use. Both only see engines from outside: attempts follow in
//! the dispatch loop, which is told the decision and whose beats depend on the life of `events`.
//!
//! In: sensors (`sensing`), orders of the owner and settings of the admin. Out: the engines'
//! groups, decisions for the dispatch loop, [`status::Status`] for whoever shows it. This must
//! not know the server, nor what an attempt is for.

pub(crate) mod capacity;
pub(crate) mod disk;
mod events;
pub(crate) mod keep;
mod pulse;
pub(crate) mod roster;
pub(crate) mod sensing;
mod slow;
pub(crate) mod status;

pub(crate) use pulse::Pulse;

use crate::AgentError;
use crate::clock::Clock;
use crate::dispatch::Inputs;
use capacity::Offer;
use events::Rules;
use gleaner_attempt::Verdict;
use gleaner_engine::Engine;
use gleaner_harvest::{Brain, OwnerSettings, OwnerWish, Sample, Settings};
use gleaner_model::{Cpus, NodeState};
use keep::Keep;
use roster::Roster;
use sensing::{Begin, Sensed, SensedSink};
use status::{Allowance, Order, Orders, Shares, Status, Window};
use std::path::Path;
use std::sync::{Arc, mpsc};
use tokio::sync::watch;

/// Everything the event loop hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A sensor will not wait.
    Sensed(Sensed),
    /// The slow loop looked.
    Looked(Box<Sample>),
    /// The owner wants something.
    Order(Order),
    /// The owner's wish is durable.
    Kept(OwnerWish),
    /// What the admin set.
    Pool(Settings),
    /// Engines hold attempts, or none any more.
    Holding(bool),
    /// The agent stops.
    Stop,
}

/// What the watch needs to begin.
pub(crate) struct Setup<'a> {
    pub(crate) engines: Vec<Arc<dyn Engine>>,
    pub(crate) sensing: Begin,
    pub(crate) inputs: Inputs,
    pub(crate) clock: Clock,
    pub(crate) home: &'a Path,
    pub(crate) offer: Offer,
    /// What whoever started the agent set.
    pub(crate) settings: OwnerSettings,
    /// Whether this is a pool for trying out.
    pub(crate) lenient: bool,
    /// Processors of the whole PC.
    pub(crate) processors: Cpus,
}

/// The running watch, as the rest of the agent sees it.
#[derive(Debug, Clone)]
pub(crate) struct Watching {
    /// For the owner.
    pub(crate) window: Window,
    /// Where the dispatch loop lists what engines hold.
    pub(crate) roster: Roster,
    /// The event loop's sign of life.
    pub(crate) pulse: Arc<Pulse>,
    /// Where the dispatch loop shows the node's state.
    pub(crate) shown: Arc<watch::Sender<Status>>,
    heard: mpsc::Sender<Heard>,
}

impl Watching {
    /// What the admin of the pool set.
    pub(crate) fn settings(&self, settings: Settings) {
        self.tell(Heard::Pool(settings));
    }

    /// Ends both loops. Tasks stay as they are.
    pub(crate) fn stop(&self) {
        self.tell(Heard::Stop);
    }

    fn tell(&self, heard: Heard) {
        if self.heard.send(heard).is_err() {
            tracing::debug!(target: "gleaner::watch", "the watch has stopped");
        }
    }
}

/// Starts both loops on threads of their own.
///
/// # Errors
/// Where the owner's settings cannot be read, or no thread can be had.
pub(crate) fn start(setup: Setup<'_>) -> Result<Watching, AgentError> {
    let keep = Keep::new(setup.home);
    let own = keep.settings().map_err(|error| AgentError::Setting {
        setting: "the owner's settings",
        problem: format!("{error}; mend or remove the file"),
    })?;
    let (heard, queue) = mpsc::channel();
    let (slow, wakes) = mpsc::channel();
    let now = setup.clock.now();
    let rules = Rules {
        pool: Settings::default(),
        local: setup.settings.clone(),
        owner: own.unwrap_or_default(),
        lenient: setup.lenient,
    };
    let brain = Brain::new(setup.processors, rules.together(), now);
    let (shown, status) = watch::channel(first_status(&setup, &brain, &rules));
    let shown = Arc::new(shown);
    let roster = Roster::new(heard.clone());
    let pulse = Arc::new(Pulse::new());
    let sensing = (setup.sensing)(SensedSink(heard.clone()));
    let events = events::Watch::new(
        events::Parts {
            engines: setup.engines.clone(),
            inputs: setup.inputs,
            clock: setup.clock,
            keep,
            rules,
            sensing: Arc::clone(&sensing),
            pulse: Arc::clone(&pulse),
            status: Arc::clone(&shown),
            slow,
            heard: heard.clone(),
        },
        brain,
    )?;
    let looks = slow::Slow::new(slow::Parts {
        sensing,
        engines: setup.engines,
        roster: roster.clone(),
        heard: heard.clone(),
        status: Arc::clone(&shown),
        clock: setup.clock,
        offer: setup.offer,
        lenient: setup.lenient,
        processors: setup.processors,
    });
    thread("gleaner-watch", move || events.run(&queue))?;
    thread("gleaner-look", move || looks.run(&wakes))?;
    let window = Window {
        status,
        orders: Orders(heard.clone()),
    };
    Ok(Watching {
        window,
        roster,
        pulse,
        shown,
        heard,
    })
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), AgentError> {
    let started = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work);
    started.map(drop).map_err(|source| AgentError::Io {
        doing: format!("start the thread {name}"),
        source,
    })
}

/// What is known before the first look.
fn first_status(setup: &Setup<'_>, brain: &Brain, rules: &Rules) -> Status {
    let decision = brain.decision().clone();
    Status {
        at: setup.clock.now(),
        state: NodeState::Online,
        reason: String::new(),
        allowance: Allowance {
            cpus: decision.allowance,
            memory: setup.offer.memory,
            io_permille: decision.io,
            transfers: decision.transfers,
        },
        decision,
        sample: Sample::default(),
        sources: Vec::new(),
        running: Vec::new(),
        shares: Shares::default(),
        settings: brain.settings().clone(),
        owner_settings: rules.owner.clone(),
        wish: None,
    }
}

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
