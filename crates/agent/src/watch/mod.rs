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
pub(crate) mod heard;
pub(crate) mod keep;
mod pulse;
pub(crate) mod roster;
pub(crate) mod sensing;
mod slow;
pub(crate) mod status;

pub(crate) use pulse::Pulse;

use crate::AgentError;
use crate::clock::Clock;
use crate::input::Inputs;
use capacity::Offer;
use events::Rules;
use gleaner_engine::Engine;
use gleaner_harvest::{Brain, OwnerSettings, Sample, Settings};
use gleaner_model::{Cpus, NodeState};
use heard::Heard;
use keep::Keep;
use roster::Roster;
use sensing::{Begin, SensedSink};
use status::{Allowance, Orders, Shares, Status, Window};
use std::path::Path;
use std::sync::{Arc, mpsc};
use tokio::sync::watch;

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

    /// The PC's sleep need wait for no save any more.
    pub(crate) fn saved(&self) {
        self.tell(Heard::Saved);
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
