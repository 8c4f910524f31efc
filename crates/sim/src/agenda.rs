//! What happens next: one queue of everything that is due, in order of time, ties in the order
//! in which they were noted.

use crate::link::{Down, Up};
use gleaner_attempt as attempt;
use gleaner_model::JobId;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

/// Index of a PC in the world; its node id is one more.
pub(crate) type Pc = u32;

/// Something is due.
#[derive(Debug)]
pub(crate) enum Due {
    /// A message reaches the server.
    Arrive(Pc, u32, Up),
    /// A message reaches a PC.
    Deliver(Pc, u32, Down),
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
    /// The owner touches the PC.
    Touch(Pc),
    /// The judgement of a PC wants a sample.
    Look(Pc),
    /// A user looks at the pool.
    User(u32),
    /// Trouble.
    Fault,
    /// The server dies.
    ServerKill,
    /// Shares are looked at.
    Sample,
}

/// Milliseconds that the wheel holds: most of what is noted is due within a few seconds.
const WHEEL: usize = 1 << 14;

/// Something that is due beyond the wheel.
#[derive(Debug)]
struct Far {
    at: u64,
    order: u64,
    due: Due,
}

impl PartialEq for Far {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Far {}
impl PartialOrd for Far {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Far {
    /// The heap gives the greatest first: the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Everything that is due: a wheel of milliseconds (Varghese and Lauck, "Hashed and hierarchical
/// timing wheels", 1987), and a heap for what lies beyond it.
#[derive(Debug)]
pub(crate) struct Agenda {
    wheel: Vec<VecDeque<Due>>,
    /// Entries in the wheel.
    near: usize,
    now: u64,
    far: BinaryHeap<Far>,
    order: u64,
}

impl Agenda {
    /// An empty agenda that starts at `now`, in milliseconds.
    pub(crate) fn new(now: u64) -> Self {
        Self {
            wheel: (0..WHEEL).map(|_| VecDeque::new()).collect(),
            near: 0,
            now,
            far: BinaryHeap::new(),
            order: 0,
        }
    }

    /// Notes something for `at`, in milliseconds; what is past is due now.
    pub(crate) fn note(&mut self, at: u64, due: Due) {
        let at = at.max(self.now);
        if at - self.now < WHEEL as u64 {
            self.near += 1;
            self.slot(at).push_back(due);
        } else {
            self.order += 1;
            let order = self.order;
            self.far.push(Far { at, order, due });
        }
    }

    /// The next, and its time.
    pub(crate) fn next(&mut self) -> Option<(u64, Due)> {
        loop {
            let now = self.now;
            if let Some(due) = self.slot(now).pop_front() {
                self.near -= 1;
                return Some((now, due));
            }
            self.now = if self.near > 0 {
                now + 1
            } else {
                self.far.peek()?.at
            };
            self.bring_near();
        }
    }

    /// What has come within reach of the wheel goes into it, before anything else can be noted
    /// for the same millisecond.
    fn bring_near(&mut self) {
        let reach = self.now + WHEEL as u64;
        while self.far.peek().is_some_and(|far| far.at < reach) {
            if let Some(Far { at, due, .. }) = self.far.pop() {
                self.near += 1;
                self.slot(at).push_back(due);
            }
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::indexing_slicing,
        reason = "below the wheel's length after the remainder"
    )]
    fn slot(&mut self, at: u64) -> &mut VecDeque<Due> {
        &mut self.wheel[(at % WHEEL as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_of_time_then_of_noting() {
        let mut agenda = Agenda::new(1);
        let far = 5 + 3 * WHEEL as u64;
        for (at, pc) in [(far, 4), (5, 0), (3, 1), (5, 2), (far, 5), (3, 3), (0, 6)] {
            agenda.note(at, Due::Wake(pc));
        }
        let mut seen = Vec::new();
        while let Some((at, Due::Wake(pc))) = agenda.next() {
            seen.push((at, pc));
        }
        let near = [(1, 6), (3, 1), (3, 3), (5, 0), (5, 2)];
        let all: Vec<_> = near.into_iter().chain([(far, 4), (far, 5)]).collect();
        assert_eq!(seen, all);
    }
}
