//! Tables of single rules, and whole lives on a node whose engine, link and server misbehave.

mod saves;

use crate::*;
use gleaner_model::{JobId, LimitKind, TaskId, Time};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
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

#[test]
fn a_task_goes_from_lease_to_forgotten() {
    let mut desk = Desk::new(1000);
    assert_eq!(desk.step(grant(1, 1000, 1, 0..1)), [Action::Fetch(id(0))]);
    assert_eq!(desk.step(Event::Fetched(id(0))), [Action::Start(id(0))]);
    assert_eq!(desk.step(Event::Started(id(0))), []);
    let ended = desk.step(Event::Ended(id(0), exit(0)));
    assert_eq!(ended, [collect(0, exit(0), true)]);
    assert_eq!(desk.book.state(id(0)), Some(AttemptState::Finished));
    let reported = desk.step(Event::Collected(id(0), exit(0)));
    assert_eq!(reported, [Action::Report(id(0))]);
    let forgotten = desk.step(Event::Acknowledged(vec![id(0)]));
    assert_eq!(forgotten, [Action::Forget(id(0))]);
    assert_eq!((desk.book.held(), desk.book.wake_at()), (0, None));
}

#[test]
fn the_next_starts_before_the_ended_one_is_collected() {
    let mut desk = Desk::new(4000);
    assert_eq!(desk.running(grant(1, 1000, 2, 0..5)), [id(0), id(1)]);
    let actions = desk.run(Event::Ended(id(0), exit(0)));
    assert_eq!(actions, [Action::Start(id(2)), collect(0, exit(0), true)]);
}

#[test]
fn width_cpus_and_memory_each_bound_what_runs() {
    for (capacity, need, width, expected) in [
        (8000, 1000, 3, 3),
        (2000, 1000, 8, 2),
        (2500, 1000, 8, 2),
        // memory: ten tasks of 100 fill 1000
        (64_000, 1000, 32, 10),
        // larger than the node: alone
        (1000, 4000, 2, 1),
        // a width of nothing counts as one
        (4000, 1000, 0, 1),
    ] {
        let started = Desk::new(capacity).running(grant(1, need, width, 0..40));
        assert_eq!(started.len(), expected, "{capacity} {need} {width}");
    }
}

#[test]
fn small_tasks_do_not_overtake_a_large_one_for_ever() {
    let mut desk = Desk::new(2000);
    assert_eq!(desk.running(grant(1, 1000, 1, 0..1)), [id(0)]);
    assert_eq!(desk.running(grant(2, 2000, 1, 10..11)), []);
    assert_eq!(desk.running(grant(3, 1000, 1, 20..21)), []);
    assert_eq!(desk.running(Event::Ended(id(0), exit(0))), [id(10)]);
    assert_eq!(desk.running(Event::Ended(id(10), exit(0))), [id(20)]);
}

#[test]
fn fetching_stays_a_few_tasks_ahead() {
    let mut desk = Desk::new(2000);
    let fetches = desk.step(grant(1, 1000, 2, 0..100));
    assert_eq!(fetches.len(), 2 + FETCH_AHEAD as usize);
    // Two start, so two more are fetched.
    let mut more = Vec::new();
    for action in fetches {
        if let Action::Fetch(attempt) = action {
            more.extend(desk.step(Event::Fetched(attempt)));
        }
    }
    let fetch = |action: &&Action| matches!(action, Action::Fetch(_));
    assert_eq!(more.iter().filter(fetch).count(), 2);
    assert_eq!(desk.book.live(), 2);
}

#[test]
fn a_failed_fetch_is_reported_without_an_engine() {
    let mut desk = Desk::new(1000);
    desk.step(grant(1, 1000, 1, 0..1));
    let reason = Reason::Fetch {
        detail: String::from("gone"),
    };
    let actions = desk.step(Event::FetchFailed(id(0), reason.clone()));
    assert_eq!(actions, [collect(0, reason, false)]);
}

#[test]
fn revoked_attempts_leave_no_report_in_any_phase() {
    let mut desk = Desk::new(1000);
    desk.running(grant(1, 1000, 1, 0..40));
    desk.step(Event::Ended(id(0), exit(0)));
    desk.running(Event::Collected(id(0), exit(0)));
    desk.step(Event::Started(id(1)));
    // collected, running, ready, leased, unknown
    let all = vec![id(0), id(1), id(2), id(30), id(99)];
    let actions = desk.step(Event::Revoked(all));
    assert_eq!(
        actions,
        [
            Action::Forget(id(0)),
            stop(1),
            Action::Forget(id(2)),
            Action::Forget(id(30)),
            Action::Fetch(id(7)),
        ]
    );
    assert!(!desk.book.inventory().iter().any(|(held, _)| *held == id(1)));
    let ended = desk.step(Event::Ended(id(1), Reason::Cancelled));
    assert_eq!(ended[0], Action::Start(id(3)));
    assert!(ended.contains(&Action::Forget(id(1))));
}

#[test]
fn a_stop_that_is_not_heard_is_asked_again() {
    let mut desk = Desk::new(1000);
    desk.step(grant(1, 1000, 1, 0..1));
    desk.step(Event::Fetched(id(0)));
    assert_eq!(desk.step(Event::Revoked(vec![id(0)])), [stop(0)]);
    // The engine may have had nothing to stop yet.
    assert_eq!(desk.step(Event::Started(id(0))), [stop(0)]);
    assert_eq!(desk.after(STOP_AGAIN_MS), [stop(0)]);
    let ended = desk.step(Event::Ended(id(0), Reason::Cancelled));
    assert_eq!(ended, [Action::Forget(id(0))]);
}

#[test]
fn pause_freezes_and_resume_goes_on() {
    for (pause, resume) in [
        (Event::Wished(Wish::Pause), Event::Wished(Wish::Resume)),
        (Event::Judged(Verdict::Pause), Event::Judged(Verdict::Run)),
    ] {
        let mut desk = Desk::new(1000);
        desk.running(grant(1, 1000, 1, 0..2));
        assert_eq!(desk.step(pause), [Action::Pause(id(0))]);
        desk.step(Event::Paused(id(0)));
        assert_eq!(desk.book.state(id(0)), Some(AttemptState::Paused));
        // Nothing starts while frozen, also when a place falls free.
        let ended = desk.step(Event::Ended(id(0), exit(0)));
        assert_eq!(ended, [collect(0, exit(0), true)]);
        assert_eq!(desk.step(resume), [Action::Start(id(1))]);
    }
}

#[test]
fn what_starts_while_the_node_pauses_is_frozen_at_once() {
    let mut desk = Desk::new(1000);
    desk.run(grant(1, 1000, 1, 0..1));
    let pause = desk.step(Event::Judged(Verdict::Pause));
    assert_eq!(pause, [Action::Pause(id(0))]);
    let started = desk.step(Event::Started(id(0)));
    assert_eq!(started, [Action::Pause(id(0))]);
}

#[test]
fn drain_gives_back_what_has_not_started() {
    let mut desk = Desk::new(1000);
    desk.running(grant(1, 1000, 1, 0..3));
    let drained = desk.step(Event::Wished(Wish::Drain));
    let why = Reason::Evicted {
        detail: String::from("the node is being drained"),
    };
    let back = [
        collect(1, why.clone(), false),
        collect(2, why.clone(), false),
    ];
    assert_eq!(drained, back);
    let more = desk.step(grant(2, 1000, 1, 7..8));
    assert_eq!(more, [Action::Decline(id(7), why)]);
    let ended = desk.step(Event::Ended(id(0), exit(0)));
    assert_eq!(ended, [collect(0, exit(0), true)]);
}

#[test]
fn evict_ends_what_runs_and_says_so() {
    for event in [Event::Wished(Wish::Evict), Event::Judged(Verdict::Evict)] {
        let mut desk = Desk::new(1000);
        desk.running(grant(1, 1000, 1, 0..1));
        assert_eq!(desk.step(event), [stop(0)]);
        let ended = desk.step(Event::Ended(id(0), Reason::Cancelled));
        let [Action::Collect { reason, .. }] = &ended[..] else {
            panic!("{ended:?}");
        };
        assert_eq!(reason.state(), AttemptState::Evicted);
    }
}

#[test]
fn want_of_memory_gives_the_youngest_back_one_at_a_time() {
    let mut desk = Desk::new(3000);
    assert_eq!(desk.step(Event::Shed), vec![], "there is nothing to give");
    assert_eq!(desk.running(grant(1, 1000, 3, 5..8)).len(), 3);
    // A frozen one goes as well.
    desk.step(Event::Judged(Verdict::Pause));
    assert_eq!(desk.step(Event::Shed), vec![stop(7)]);
    assert_eq!(desk.step(Event::Shed), vec![], "one is on its way");
    let evicted = Reason::Evicted {
        detail: "the node's owner needs the memory".into(),
    };
    assert_eq!(
        desk.step(Event::Ended(id(7), Reason::Cancelled)),
        vec![collect(7, evicted, true)]
    );
    assert_eq!(desk.step(Event::Shed), vec![stop(6)]);
}

#[test]
fn a_smaller_offer_starts_nothing_and_ends_nothing() {
    let mut desk = Desk::new(3000);
    assert_eq!(desk.running(grant(1, 1000, 3, 0..2)).len(), 2);
    let offered = |memory| {
        Event::Offered(Capacity {
            cpus: cpus(3000),
            memory: Bytes(memory),
        })
    };
    assert_eq!(desk.step(offered(250)), vec![]);
    assert_eq!(desk.running(grant(2, 1000, 3, 2..3)), vec![]);
    assert_eq!(desk.running(offered(300)), vec![id(2)]);
    // One that is too large runs alone, but not where nothing is offered.
    let mut desk = Desk::new(3000);
    assert_eq!(desk.step(offered(0)), vec![]);
    assert_eq!(desk.running(grant(1, 1000, 3, 0..2)), vec![]);
    assert_eq!(desk.running(offered(50)), vec![id(0)]);
}

#[test]
fn an_end_of_its_own_survives_an_eviction() {
    let mut desk = Desk::new(1000);
    desk.running(grant(1, 1000, 1, 0..1));
    desk.step(Event::Wished(Wish::Evict));
    let limit = Reason::Limit {
        limit: LimitKind::Memory,
    };
    let ended = desk.step(Event::Ended(id(0), limit.clone()));
    assert_eq!(ended, [collect(0, limit, true)]);
}

#[test]
fn results_are_kept_while_the_server_is_away_and_sent_when_it_is_back() {
    let mut desk = Desk::new(1000);
    desk.running(grant(1, 1000, 1, 0..2));
    desk.step(Event::LinkDown);
    desk.now = desk.now + Span { ms: 10 * LEASE.ms };
    assert_eq!(desk.book.lease_left(desk.now), Span { ms: 0 });
    // The lease is over, and still the attempt goes on, and the next one starts.
    let ended = desk.step(Event::Ended(id(0), exit(0)));
    assert_eq!(ended, [Action::Start(id(1)), collect(0, exit(0), true)]);
    assert_eq!(desk.step(Event::Started(id(1))), []);
    assert_eq!(desk.step(Event::Collected(id(0), exit(0))), []);
    assert_eq!(desk.after(2 * RESEND_MS), []);
    let up = desk.step(Event::LinkUp { lease: LEASE });
    assert_eq!(up, [Action::Report(id(0))]);
    assert_eq!(desk.book.lease_left(desk.now), LEASE);
    let told = desk.after(TELL_DELAY_MS);
    assert_eq!(told, [Action::Tell(id(1), AttemptState::Running)]);
    let again = desk.after(RESEND_MS - TELL_DELAY_MS);
    assert_eq!(again, [Action::Report(id(0))]);
    desk.step(Event::Acknowledged(vec![id(0)]));
    assert_eq!(desk.after(RESEND_MS), []);
}

#[test]
fn beats_renew_the_lease() {
    let mut desk = Desk::new(1000);
    desk.now = desk.now + Span { ms: 9000 };
    assert_eq!(desk.book.lease_left(desk.now).ms, 21_000);
    desk.step(Event::Beaten);
    assert_eq!(desk.book.lease_left(desk.now), LEASE);
}

#[test]
fn only_states_that_last_are_told() {
    let mut desk = Desk::new(1000);
    desk.running(grant(1, 1000, 1, 0..2));
    // The first ends before anybody heard of it; the second lasts.
    desk.running(Event::Ended(id(0), exit(0)));
    desk.step(Event::Started(id(1)));
    let told = desk.after(TELL_DELAY_MS);
    assert_eq!(told, [Action::Tell(id(1), AttemptState::Running)]);
    assert_eq!(desk.after(TELL_DELAY_MS), []);
    // While the link is down nothing is told; afterwards it is.
    desk.step(Event::LinkDown);
    desk.step(Event::Paused(id(1)));
    assert_eq!(desk.after(TELL_DELAY_MS), []);
    desk.step(Event::LinkUp { lease: LEASE });
    let told = desk.after(TELL_DELAY_MS);
    assert_eq!(told, [Action::Tell(id(1), AttemptState::Paused)]);
}

#[test]
fn adopted_attempts_count_and_report_like_others() {
    let mut desk = Desk::new(1000);
    desk.step(Event::LinkDown);
    let adoption = |index, ended| {
        Event::Adopted(Adoption {
            attempt: id(index),
            lease: LeaseId(9),
            cpus: cpus(1000),
            memory: Bytes(100),
            saving: Saving::default(),
            ended,
        })
    };
    let over = desk.step(adoption(0, Some(exit(3))));
    assert_eq!(over, [collect(0, exit(3), true)]);
    assert_eq!(desk.step(adoption(1, None)), []);
    assert_eq!(desk.step(adoption(1, None)), []);
    let held = [
        (id(0), AttemptState::Failed),
        (id(1), AttemptState::Running),
    ];
    assert_eq!(desk.book.inventory(), held);
    desk.step(Event::LinkUp { lease: LEASE });
    // The node is full with what was adopted.
    assert_eq!(desk.running(grant(2, 1000, 1, 5..6)), []);
    assert_eq!(desk.running(Event::Ended(id(1), exit(0))), [id(5)]);
}

#[test]
fn a_second_grant_of_the_same_attempt_changes_nothing() {
    let mut desk = Desk::new(1000);
    desk.running(grant(1, 1000, 1, 0..2));
    assert_eq!(desk.step(grant(1, 1000, 1, 0..2)), []);
    assert_eq!(desk.book.held(), 2);
}

#[test]
fn more_than_the_bound_is_declined() {
    let mut desk = Desk::new(1000);
    let bound = u32::try_from(HELD_MAX).unwrap();
    let actions = desk.step(grant(1, 1000, 1, 0..bound + 3));
    let declined = |action: &&Action| matches!(action, Action::Decline(..));
    assert_eq!(actions.iter().filter(declined).count(), 3);
    assert_eq!(desk.book.held(), HELD_MAX);
}

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
