//! The desk's bell in a real agent: orders go to the watch, what the pool is offered to the
//! dispatch loop.

use super::desk::{Bell, Desk, Furniture};
use super::guests::Guests;
use super::overview::Identity;
use super::protocol::Offered;
use crate::AgentError;
use crate::config::AgentConfig;
use crate::home::Home;
use crate::input::{Input, Inputs};
use crate::watch::Watching;
use crate::watch::capacity::{Offer, uname};
use crate::watch::status::Order;
use gleaner_harvest::{OwnerSettings, Settings};
use gleaner_model::Bytes;
use gleaner_sense::OwnTime;
use tokio_util::sync::CancellationToken;

/// The parts of an agent that the owner's side works with.
pub(crate) struct Around {
    pub(crate) watching: Watching,
    pub(crate) inputs: Inputs,
    pub(crate) offer: Offer,
    pub(crate) guests: Guests,
    /// How the processor time of tasks is known.
    pub(crate) own: OwnTime,
    /// What whoever started the agent set.
    pub(crate) local: OwnerSettings,
}

struct AgentBell {
    watching: Watching,
    inputs: Inputs,
    offer: Offer,
}

impl Bell for AgentBell {
    fn order(&self, order: Order) {
        self.watching.window.orders.give(order);
    }

    fn admin(&self, settings: Settings) {
        self.watching.settings(settings);
    }

    fn offer(&self, memory: Option<Bytes>, disk: Option<Bytes>) -> Offered {
        let memory = memory.map_or(self.offer.memory, |most| most.min(self.offer.memory));
        let disk = disk.map_or(self.offer.disk, |most| most.min(self.offer.disk));
        self.inputs.send(Input::Capped { memory, disk });
        Offered {
            cpus: f64::from(self.offer.cpus.milli) / 1000.0,
            memory: memory.0,
            disk: disk.0,
        }
    }
}

/// The desk of an agent. Blocks for the disk.
///
/// # Errors
/// Where the history cannot be kept.
pub(crate) fn open(
    config: &AgentConfig,
    home: &Home,
    around: Around,
    stop: CancellationToken,
) -> Result<Desk, AgentError> {
    let base = Settings {
        lenient: config.lenient,
        ..Settings::default()
    };
    let furniture = Furniture {
        identity: Identity {
            id: home.identity().to_owned(),
            name: config.name.clone().unwrap_or_else(|| uname().0),
            server: config.server.clone(),
            data: home.path().display().to_string(),
        },
        home: home.path().to_owned(),
        status: around.watching.window.status.clone(),
        base: base.stricter(&around.local),
        guests: around.guests,
        own: around.own,
        page_port: config.page.unwrap_or(0),
        bell: Box::new(AgentBell {
            watching: around.watching,
            inputs: around.inputs,
            offer: around.offer,
        }),
    };
    Desk::open(furniture, stop).map_err(AgentError::io("keep the owner's history in", home.path()))
}
