//! A desk with one book on it, and what tests of it ask for; each file below is one question.

mod ahead;
mod lives;
mod orders;
mod reports;
mod running;
mod saves;

use crate::*;
use gleaner_model::{JobId, TaskId, Time};
use std::vec;

const LEASE: Span = Span { ms: 30_000 };

fn id(index: u32) -> AttemptId {
    TaskId::new(JobId(1), index).attempt(1)
}

fn cpus(milli: u32) -> Cpus {
    Cpus { milli }
}

fn grant(lease: u64, milli: u32, width: u32, tasks: core::ops::Range<u32>) -> Event {
    Event::Granted(Grant {
        lease: LeaseId(lease),
        cpus: cpus(milli),
        memory: Bytes(100),
        width,
        saving: Saving::default(),
        tasks: tasks.map(id).collect(),
    })
}

fn with(saving: Saving, mut event: Event) -> Event {
    if let Event::Granted(grant) = &mut event {
        grant.saving = saving;
    }
    event
}

/// A book on virtual time that is checked after every step.
struct Desk {
    book: Book,
    now: Time,
}

impl Desk {
    fn new(milli: u32) -> Self {
        let capacity = Capacity {
            cpus: cpus(milli),
            memory: Bytes(1000),
        };
        let mut desk = Self {
            book: Book::new(capacity),
            now: Time { ms: 1_000_000 },
        };
        desk.step(Event::LinkUp { lease: LEASE });
        desk
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let actions = self.book.step(self.now, event);
        self.book.check();
        actions
    }

    /// Fetches succeed at once; gives back everything else that was asked.
    fn run(&mut self, event: Event) -> Vec<Action> {
        let mut asked = Vec::new();
        let mut todo = self.step(event);
        while !todo.is_empty() {
            let mut next = Vec::new();
            for action in todo {
                if let Action::Fetch(attempt) = action {
                    next.extend(self.step(Event::Fetched(attempt)));
                } else {
                    asked.push(action);
                }
            }
            todo = next;
        }
        asked
    }

    fn running(&mut self, event: Event) -> Vec<AttemptId> {
        let mut running = Vec::new();
        for action in self.run(event) {
            if let Action::Start(attempt) = action {
                assert_eq!(self.step(Event::Started(attempt)), vec![]);
                running.push(attempt);
            }
        }
        running
    }

    fn after(&mut self, ms: u64) -> Vec<Action> {
        self.now = self.now + Span { ms };
        self.step(Event::Tick)
    }
}

fn exit(code: i32) -> Reason {
    Reason::Exit { code }
}

fn collect(index: u32, reason: Reason, ran: bool) -> Action {
    Action::Collect {
        attempt: id(index),
        reason,
        ran,
    }
}

fn stop(index: u32) -> Action {
    Action::Stop {
        attempt: id(index),
        grace_ms: STOP_GRACE_MS,
    }
}
