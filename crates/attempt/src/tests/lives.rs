//! Whole lives on a node whose engine, link and server misbehave.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;

/// A node whose engine and server answer late, in any order, and after the link was cut.
struct World {
    desk: Desk,
    chance: u64,
    link: bool,
    /// Answers that engine, fetcher and collector still owe.
    owed: Vec<Event>,
    /// In an engine; whether its stop was asked.
    engine: BTreeMap<AttemptId, bool>,
    started: BTreeSet<AttemptId>,
    /// Reports kept by the shell.
    kept: BTreeSet<AttemptId>,
    /// Reports that reached the server.
    reached: BTreeSet<AttemptId>,
    forgotten: BTreeSet<AttemptId>,
    revoked: BTreeSet<AttemptId>,
    next: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            desk: Desk::new(3000),
            chance: seed | 1,
            link: true,
            owed: Vec::new(),
            engine: BTreeMap::new(),
            started: BTreeSet::new(),
            kept: BTreeSet::new(),
            reached: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            revoked: BTreeSet::new(),
            next: 0,
        }
    }

    fn draw(&mut self, below: u32) -> u32 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        u32::try_from(self.chance >> 33).unwrap() % below
    }

    fn pick(&mut self, length: usize) -> usize {
        self.draw(u32::try_from(length).unwrap()) as usize
    }

    fn step(&mut self, event: Event) {
        for action in self.desk.step(event) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Fetch(attempt) => {
                let bad = Reason::Fetch {
                    detail: String::new(),
                };
                let answer = match self.draw(10) {
                    0 => Event::FetchFailed(attempt, bad),
                    _ => Event::Fetched(attempt),
                };
                self.owed.push(answer);
            }
            Action::Start(attempt) => {
                assert!(self.started.insert(attempt), "{attempt} started twice");
                self.engine.insert(attempt, false);
                match self.draw(10) {
                    0 => self.ends(
                        attempt,
                        Reason::Engine {
                            detail: String::new(),
                        },
                    ),
                    _ => self.owed.push(Event::Started(attempt)),
                }
            }
            Action::Pause(attempt) if self.engine.contains_key(&attempt) => {
                self.owed.push(Event::Paused(attempt));
            }
            Action::Resume(attempt) if self.engine.contains_key(&attempt) => {
                self.owed.push(Event::Resumed(attempt));
            }
            Action::Save { attempt, last } => self.save(attempt, last),
            Action::Stop { attempt, .. } => {
                if let Some(stopped) = self.engine.get_mut(&attempt) {
                    *stopped = true;
                }
            }
            Action::Collect {
                attempt,
                reason,
                ran,
            } => {
                assert_eq!(ran, self.started.contains(&attempt));
                assert!(
                    !self.engine.contains_key(&attempt),
                    "collected while it runs"
                );
                self.kept.insert(attempt);
                self.owed.push(Event::Collected(attempt, reason));
            }
            Action::Report(attempt) => {
                assert!(self.kept.contains(&attempt), "{attempt}: no report kept");
                assert!(self.link, "{attempt} reported without a link");
                if self.draw(5) > 0 {
                    self.reached.insert(attempt);
                }
            }
            Action::Forget(attempt) => {
                let done = self.reached.contains(&attempt) || self.revoked.contains(&attempt);
                assert!(done, "{attempt} forgotten before its report was safe");
                assert!(self.forgotten.insert(attempt), "{attempt} forgotten twice");
            }
            Action::Tell(..) => assert!(self.link),
            Action::Pause(_) | Action::Resume(_) | Action::Decline(..) => {}
        }
    }

    fn save(&mut self, attempt: AttemptId, last: bool) {
        let well = self.draw(3) > 0;
        self.owed.push(Event::Saved { attempt, well });
        if well && last && self.engine.contains_key(&attempt) {
            self.ends(attempt, Reason::Cancelled);
        }
    }

    fn ends(&mut self, attempt: AttemptId, reason: Reason) {
        self.engine.remove(&attempt);
        self.owed.push(Event::Ended(attempt, reason));
    }

    /// One owed answer arrives; those of one attempt keep their order.
    fn answer(&mut self) {
        if self.owed.is_empty() {
            return;
        }
        let mut at = self.pick(self.owed.len());
        if let Some(attempt) = subject(&self.owed[at]) {
            let first = self.owed.iter().position(|e| subject(e) == Some(attempt));
            at = first.unwrap_or(at);
        }
        let event = self.owed.remove(at);
        self.step(event);
    }

    fn end_one(&mut self, all: bool) {
        let running: Vec<_> = self.engine.iter().map(|(a, s)| (*a, *s)).collect();
        if running.is_empty() {
            return;
        }
        let (attempt, stopped) = running[self.pick(running.len())];
        match (stopped, self.draw(3)) {
            (true, _) => self.ends(attempt, Reason::Cancelled),
            (false, 0) => self.ends(attempt, exit(1)),
            (false, 1) => {
                let code = [0, 85][self.pick(2)];
                self.ends(attempt, exit(code));
            }
            (false, _) if all => self.ends(attempt, exit(0)),
            (false, _) => {}
        }
    }

    fn acknowledge(&mut self) {
        let safe: Vec<_> = self.reached.iter().copied().collect();
        if self.link && !safe.is_empty() {
            let pick = safe[self.pick(safe.len())];
            self.step(Event::Acknowledged(vec![pick]));
        }
    }

    fn random(&mut self) {
        match self.draw(20) {
            0 if self.link => {
                let (first, count) = (self.next, 1 + self.draw(6));
                self.next += count;
                let (milli, width) = (500 * (1 + self.draw(4)), 1 + self.draw(3));
                let saving = Saving {
                    itself: self.draw(2) == 0,
                    every: (self.draw(2) == 0).then_some(Span { ms: 5000 }),
                    whole: self.draw(3) == 0,
                };
                let bundle = grant(u64::from(first), milli, width, first..first + count);
                self.step(with(saving, bundle));
            }
            1 if self.link && self.next > 0 => {
                let victim = id(self.draw(self.next));
                self.revoked.insert(victim);
                self.step(Event::Revoked(vec![victim]));
            }
            2 => {
                self.link = !self.link;
                self.step(match self.link {
                    true => Event::LinkUp { lease: LEASE },
                    false => Event::LinkDown,
                });
            }
            3 => {
                let wish = [Wish::Pause, Wish::Resume, Wish::Drain, Wish::Evict][self.pick(4)];
                self.step(Event::Wished(wish));
            }
            4 => {
                let verdict = [Verdict::Run, Verdict::Pause, Verdict::Evict][self.pick(3)];
                self.step(Event::Judged(verdict));
            }
            5 | 6 => {
                let ms = u64::from(self.draw(20_000));
                self.desk.now = self.desk.now + Span { ms };
                self.step(Event::Tick);
            }
            7 | 8 => self.acknowledge(),
            9 | 10 => self.end_one(false),
            11 => {
                let memory = Bytes(u64::from(self.draw(1200)));
                let cpus = cpus(self.draw(4000));
                self.step(Event::Offered(Capacity { cpus, memory }));
            }
            12 => self.step(Event::Shed),
            13 => self.step(Event::SaveAll),
            _ => self.answer(),
        }
    }

    /// Everything becomes well again; then nothing may be left.
    fn settle(&mut self) {
        self.link = true;
        self.step(Event::LinkUp { lease: LEASE });
        self.step(Event::Wished(Wish::Resume));
        self.step(Event::Judged(Verdict::Run));
        self.step(Event::Offered(Capacity {
            cpus: cpus(3000),
            memory: Bytes(1000),
        }));
        for _ in 0..20_000 {
            if self.desk.book.held() == 0 {
                break;
            }
            self.answer();
            self.end_one(true);
            self.acknowledge();
            self.desk.now = self.desk.now + Span { ms: 1000 };
            self.step(Event::Tick);
        }
        assert_eq!(self.desk.book.inventory(), [], "left over");
        assert_eq!(self.desk.book.wake_at(), None);
    }
}

fn subject(event: &Event) -> Option<AttemptId> {
    match event {
        Event::Fetched(a)
        | Event::FetchFailed(a, _)
        | Event::Started(a)
        | Event::Paused(a)
        | Event::Resumed(a)
        | Event::Ended(a, _)
        | Event::Collected(a, _)
        | Event::Saved { attempt: a, .. } => Some(*a),
        Event::Granted(_)
        | Event::Revoked(_)
        | Event::Acknowledged(_)
        | Event::Wished(_)
        | Event::Judged(_)
        | Event::Offered(_)
        | Event::Shed
        | Event::SaveAll
        | Event::LinkUp { .. }
        | Event::LinkDown
        | Event::Beaten
        | Event::Adopted(_)
        | Event::Tick => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_attempt_is_reported_or_revoked_and_then_forgotten(seed in any::<u64>()) {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.random();
        }
        world.settle();
    }
}
