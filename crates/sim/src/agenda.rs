//! What happens next: one queue of everything that is due, in order of time, ties in the order
//! in which they were noted.

use crate::link::{Down, Up};
use gleaner_attempt as attempt;
use gleaner_model::JobId;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Index of a PC in the world; its node id is one more.
pub(crate) type Pc = u32;

/// Something is due.
#[derive(Debug)]
pub(crate) enum Due {
    /// A message reaches the server.
    Arrive(Pc, u32, Box<Up>),
    /// A message reaches a PC.
    Deliver(Pc, u32, Box<Down>),
    /// The server's batch is durable.
    Commit(u32),
    /// The driver's clock.
    ServerTick(u32),
    /// The server comes back.
    ServerUp,
    /// The server sees that a connection ended.
    Gone(Pc, u32),
    /// The merge of a job is stored.
    Merged(u32, JobId),
    /// It is time for a beat on this connection.
    Beat(Pc, u32),
    /// An agent sees that its connection ended.
    Broken(Pc, u32),
    /// An agent tries to connect.
    Connect(Pc, u32),
    /// Something on the PC answers its book.
    Answer(Pc, Box<attempt::Event>),
    /// A program may have ended; the number says for which of its runs this was noted.
    Program(Pc, gleaner_model::AttemptId, u32),
    /// The book wants a tick.
    Wake(Pc),
    /// An agent starts.
    AgentUp(Pc),
    /// A PC is switched on.
    PowerOn(Pc),
    /// The owner does something else.
    Owner(Pc),
    /// A user looks at the pool.
    User(u32),
    /// Trouble.
    Fault,
    /// The server dies.
    ServerKill,
    /// Shares are looked at.
    Sample,
}

#[derive(Debug)]
struct Entry {
    at: u64,
    order: u64,
    due: Due,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    /// The heap gives the greatest first: the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Everything that is due.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Entry>,
    order: u64,
}

impl Agenda {
    /// Notes something for `at`, in milliseconds.
    pub(crate) fn note(&mut self, at: u64, due: Due) {
        self.order += 1;
        let order = self.order;
        self.heap.push(Entry { at, order, due });
    }

    /// The next, and its time.
    pub(crate) fn next(&mut self) -> Option<(u64, Due)> {
        self.heap.pop().map(|entry| (entry.at, entry.due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_of_time_then_of_noting() {
        let mut agenda = Agenda::default();
        for (at, pc) in [(5, 0), (3, 1), (5, 2), (3, 3)] {
            agenda.note(at, Due::Wake(pc));
        }
        let mut seen = Vec::new();
        while let Some((at, Due::Wake(pc))) = agenda.next() {
            seen.push((at, pc));
        }
        assert_eq!(seen, [(3, 1), (3, 3), (5, 0), (5, 2)]);
    }
}
