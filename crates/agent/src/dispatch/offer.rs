//! What the node offers, and how the server hears that it changed: over the connection that is
//! there, so that nothing on its way is disturbed.

use super::Dispatch;
use crate::condition::Condition;
use gleaner_attempt::{Capacity, Event};
use gleaner_engine::Saves;
use gleaner_model::{Bytes, NodeState};
use gleaner_wire::v1::{self, agent_message::Kind};

/// What a hello says of it.
pub(super) fn of(hello: &v1::Hello) -> v1::Offer {
    v1::Offer {
        cpus_milli: hello.cpus_milli,
        memory_bytes: hello.memory_bytes,
        disk_bytes: hello.disk_bytes,
        engines: hello.engines.clone(),
        images: hello.images,
        machine: hello.machine.clone(),
        guests: hello.guests.clone(),
        refused: hello.refused.clone(),
    }
}

impl Dispatch {
    /// Attempts start into what the node has and the owner does not need.
    pub(super) fn offer(&mut self) {
        let offered = self.parts.offer.memory.min(self.cap);
        let memory = match &self.decision {
            Some(decision) if !decision.admits => Bytes(0),
            Some(decision) => decision.room.min(offered),
            None => offered,
        };
        self.step(Event::Offered(Capacity {
            cpus: self.parts.offer.cpus,
            memory,
        }));
    }

    /// These engines work.
    pub(super) fn introduced(&mut self, engines: Vec<String>) {
        let guests = self.parts.engines.iter().map(|engine| engine.saves());
        let mut machine = guests.filter_map(|saves| match saves {
            Saves::Guest { machine } => Some(machine),
            Saves::Files | Saves::Nothing => None,
        });
        let machine = machine.next_back().unwrap_or_default();
        let price = self.parts.engines.iter().find_map(|e| e.guest_price());
        let guests = price.map(|price| price.to_string()).unwrap_or_default();
        let hello = &mut self.parts.hello;
        (hello.engines, hello.machine, hello.guests) = (engines, machine, guests);
        self.tell_offer();
    }

    /// The pool may have less or more of this node than before.
    pub(super) fn cap(&mut self, memory: Bytes, disk: Bytes) {
        let hello = &mut self.parts.hello;
        self.cap = memory;
        (hello.memory_bytes, hello.disk_bytes) = (memory.0, disk.0);
        self.tell_offer();
        self.offer();
    }

    /// What the self-test says changed.
    pub(super) fn tested(&mut self, base: Condition) {
        self.base = base;
        self.look_at_disk();
        self.parts.hello.refused = match self.base.state == NodeState::Refused {
            true => self.base.reason.clone(),
            false => String::new(),
        };
        self.tell_offer();
    }

    /// Tells the server what the node offers, where it was told something else. Without a
    /// connection the next one says so.
    pub(super) fn tell_offer(&mut self) {
        let offer = of(&self.parts.hello);
        if self.outgoing.is_some() && self.told != offer {
            self.told = offer.clone();
            self.send(Kind::Offer(offer));
        }
    }
}
