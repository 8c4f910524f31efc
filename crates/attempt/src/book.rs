//! The book: every attempt that the node holds, and the rules by which they move on.

mod ahead;
mod check;
mod obey;
mod save;

use crate::bundle::Bundle;
use crate::entry::{Entry, Phase, Stop};
use crate::{
    Action, Adoption, Capacity, Event, Grant, HELD_MAX, RESEND_MS, SAVE_GRACE_MS, STOP_AGAIN_MS,
    STOP_GRACE_MS, TELL_DELAY_MS, Verdict, Wish,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use gleaner_model::{AttemptId, AttemptState, CHECKPOINT_EXIT_CODE, Reason, Span, Time};

/// Why attempts come back that were never taken.
const FULL: &str = "the node holds too many attempts; grant fewer at once";

/// All attempts of a node. See the crate's documentation for how to drive it.
#[derive(Debug, Clone)]
pub struct Book {
    capacity: Capacity,
    /// Processors (thousandths) and memory (bytes) of the live attempts.
    used: (u64, u64),
    live: u32,
    attempts: BTreeMap<AttemptId, Entry>,
    bundles: BTreeMap<u64, Bundle>,
    /// Bundles with something to fetch or start, in the order of their grants.
    pending: BTreeSet<u64>,
    next_bundle: u64,
    /// How many attempts have ever become live.
    begun: u64,
    /// Attempts by when the book must look at them again.
    timers: BTreeSet<(Time, AttemptId)>,
    /// Attempts by when they are to be saved.
    saves: BTreeSet<(Time, AttemptId)>,
    wish: Wish,
    verdict: Verdict,
    /// Whether live attempts were told to freeze.
    frozen: bool,
    link: bool,
    lease: Span,
    lease_until: Time,
}

impl Book {
    /// An empty book of a node that offers `capacity` and is not connected.
    #[must_use]
    pub const fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            used: (0, 0),
            live: 0,
            attempts: BTreeMap::new(),
            bundles: BTreeMap::new(),
            pending: BTreeSet::new(),
            next_bundle: 0,
            begun: 0,
            timers: BTreeSet::new(),
            saves: BTreeSet::new(),
            wish: Wish::Resume,
            verdict: Verdict::Run,
            frozen: false,
            link: false,
            lease: Span { ms: 0 },
            lease_until: Time { ms: 0 },
        }
    }

    /// Takes note of one event and says what must be done, in order.
    pub fn step(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Granted(grant) => self.granted(&grant, &mut out),
            Event::Revoked(attempts) => self.revoked(now, &attempts, &mut out),
            Event::Acknowledged(attempts) => self.acknowledged(&attempts, &mut out),
            Event::Wished(wish) => {
                self.wish = wish;
                self.obey(now, &mut out);
            }
            Event::Judged(verdict) => {
                self.verdict = verdict;
                self.obey(now, &mut out);
            }
            Event::Offered(capacity) => self.capacity = capacity,
            Event::Shed => self.shed(now, &mut out),
            Event::LinkUp { lease } => self.link_up(now, lease, &mut out),
            Event::LinkDown => self.link = false,
            Event::Beaten => self.lease_until = now + self.lease,
            Event::Fetched(attempt) => self.fetched(attempt),
            Event::FetchFailed(attempt, reason) => self.fetch_failed(attempt, reason, &mut out),
            Event::Started(attempt) => self.started(now, attempt, &mut out),
            Event::Paused(attempt) => self.froze(now, attempt, &Phase::Running, Phase::Paused),
            Event::Resumed(attempt) => self.froze(now, attempt, &Phase::Paused, Phase::Running),
            Event::Saved { attempt, well } => self.saved(now, attempt, well, &mut out),
            Event::Ended(attempt, reason) => self.ended(now, attempt, reason, &mut out),
            Event::Collected(attempt, reason) => self.collected(now, attempt, reason, &mut out),
            Event::Adopted(adoption) => self.adopted(now, &adoption, &mut out),
            Event::SaveAll => self.save_all(&mut out),
            Event::Tick => self.tick(now, &mut out),
        }
        self.schedule(now, &mut out);
        out
    }

    /// When [`Event::Tick`] is wanted next; none where time alone changes nothing.
    #[must_use]
    pub fn wake_at(&self) -> Option<Time> {
        let firsts = [self.timers.first(), self.saves.first()].into_iter();
        firsts.flatten().map(|(time, _)| *time).min()
    }

    /// What the node holds, for its hello. What the server took back is not among it.
    #[must_use]
    pub fn inventory(&self) -> Vec<(AttemptId, AttemptState)> {
        self.attempts
            .iter()
            .filter(|(_, entry)| entry.stop != Some(Stop::Revoked))
            .map(|(attempt, entry)| (*attempt, entry.phase.state()))
            .collect()
    }

    /// How many attempts engines have: started or about to, and not ended.
    #[must_use]
    pub const fn live(&self) -> u32 {
        self.live
    }

    /// How many attempts are held in whatever state.
    #[must_use]
    pub fn held(&self) -> usize {
        self.attempts.len()
    }

    /// Whether live attempts are told to be frozen.
    #[must_use]
    pub const fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// How long the leases last if no further beat gets through.
    #[must_use]
    pub const fn lease_left(&self, now: Time) -> Span {
        self.lease_until.since(now)
    }

    /// The state of an attempt; none where it is not held.
    #[must_use]
    pub fn state(&self, attempt: AttemptId) -> Option<AttemptState> {
        self.attempts.get(&attempt).map(|entry| entry.phase.state())
    }

    fn granted(&mut self, grant: &Grant, out: &mut Vec<Action>) {
        let key = self.next_bundle;
        let mut bundle = Bundle::granted(grant);
        let gives_back = self.gives_back();
        for attempt in grant.tasks.iter().copied() {
            if self.attempts.contains_key(&attempt) {
                continue;
            }
            if let Some(why) = gives_back {
                out.push(Action::Decline(attempt, evicted(why)));
                continue;
            }
            if self.attempts.len() >= HELD_MAX {
                out.push(Action::Decline(attempt, evicted(FULL)));
                continue;
            }
            self.attempts
                .insert(attempt, Entry::new(key, Phase::Leased));
            bundle.leased.push_back(attempt);
            bundle.held += 1;
        }
        if bundle.held > 0 {
            self.next_bundle += 1;
            self.bundles.insert(key, bundle);
            self.pending.insert(key);
        }
    }

    fn revoked(&mut self, now: Time, attempts: &[AttemptId], out: &mut Vec<Action>) {
        for attempt in attempts.iter().copied() {
            let Some(entry) = self.attempts.get_mut(&attempt) else {
                continue;
            };
            if entry.phase.is_live() {
                entry.stop = Some(Stop::Revoked);
                self.stop(now, attempt, out);
            } else {
                self.leave_queue(attempt);
                self.forget(attempt, out);
            }
        }
    }

    fn acknowledged(&mut self, attempts: &[AttemptId], out: &mut Vec<Action>) {
        for attempt in attempts.iter().copied() {
            let entry = self.attempts.get(&attempt);
            // Only what was reported can be acknowledged; anything else is a mix-up that the next
            // hello clears.
            if entry.is_some_and(|entry| matches!(entry.phase, Phase::Collected(_))) {
                self.forget(attempt, out);
            }
        }
    }

    fn those(&self, which: impl Fn(&Phase) -> bool) -> Vec<AttemptId> {
        self.attempts
            .iter()
            .filter(|(_, entry)| which(&entry.phase))
            .map(|(attempt, _)| *attempt)
            .collect()
    }

    fn link_up(&mut self, now: Time, lease: Span, out: &mut Vec<Action>) {
        self.link = true;
        self.lease = lease;
        self.lease_until = now + lease;
        // A hello has said each state; only reports and later changes are owed.
        let reported = self.those(|phase| matches!(phase, Phase::Collected(_)));
        for attempt in reported {
            self.set_due(attempt, Some(now + ms(RESEND_MS)));
            out.push(Action::Report(attempt));
        }
        for attempt in self.those(|phase| phase.is_pending() || phase.is_live()) {
            self.tell_later(now, attempt);
        }
    }

    fn fetched(&mut self, attempt: AttemptId) {
        let Some(entry) = self.attempts.get_mut(&attempt) else {
            return;
        };
        if entry.phase != Phase::Fetching {
            return;
        }
        entry.phase = Phase::Ready;
        if let Some(bundle) = self.bundles.get_mut(&entry.bundle) {
            bundle.fetching -= 1;
            bundle.ready.push_back(attempt);
        }
    }

    fn fetch_failed(&mut self, attempt: AttemptId, reason: Reason, out: &mut Vec<Action>) {
        let entry = self.attempts.get(&attempt);
        if entry.is_some_and(|entry| entry.phase == Phase::Fetching) {
            self.leave_queue(attempt);
            self.end(attempt, reason, false, out);
        }
    }

    fn started(&mut self, now: Time, attempt: AttemptId, out: &mut Vec<Action>) {
        let Some(entry) = self.attempts.get_mut(&attempt) else {
            return;
        };
        if entry.phase != Phase::Starting {
            return;
        }
        entry.phase = Phase::Running;
        // What was asked before the program ran may have found nothing to act on.
        if entry.stop.is_some() {
            self.stop(now, attempt, out);
        } else {
            if self.frozen {
                out.push(Action::Pause(attempt));
            }
            self.tell_later(now, attempt);
            self.save_later(now, attempt);
        }
    }

    fn froze(&mut self, now: Time, attempt: AttemptId, from: &Phase, to: Phase) {
        let entry = self.attempts.get_mut(&attempt);
        let Some(entry) = entry.filter(|entry| entry.phase == *from) else {
            return;
        };
        entry.phase = to;
        if entry.stop.is_none() {
            self.tell_later(now, attempt);
        }
    }

    fn ended(&mut self, now: Time, attempt: AttemptId, reason: Reason, out: &mut Vec<Action>) {
        let Some(entry) = self.attempts.get(&attempt) else {
            return;
        };
        if !entry.phase.is_live() {
            return;
        }
        let (stop, key) = (entry.stop, entry.bundle);
        let saves_itself = self.saving_of(attempt).itself;
        self.release(key);
        // The next program starts before anything is done for the one that ended.
        let reason = match (stop, reason) {
            (Some(Stop::Revoked), _) => {
                self.schedule(now, out);
                self.forget(attempt, out);
                return;
            }
            (Some(Stop::Evicted(why)), Reason::Cancelled) => evicted(why),
            (stop, Reason::Exit { code }) if saves_itself && code == CHECKPOINT_EXIT_CODE => {
                itself(stop)
            }
            // A program that ended well or by itself while being evicted keeps its own reason.
            (Some(Stop::Evicted(_)) | None, reason) => reason,
        };
        self.set_phase(attempt, Phase::Ended(reason.clone()));
        self.schedule(now, out);
        out.push(Action::Collect {
            attempt,
            reason,
            ran: true,
        });
    }

    fn collected(&mut self, now: Time, attempt: AttemptId, reason: Reason, out: &mut Vec<Action>) {
        let Some(entry) = self.attempts.get(&attempt) else {
            return;
        };
        if !matches!(entry.phase, Phase::Ended(_)) {
            return;
        }
        self.set_phase(attempt, Phase::Collected(reason));
        if self.link {
            self.set_due(attempt, Some(now + ms(RESEND_MS)));
            out.push(Action::Report(attempt));
        }
    }

    fn adopted(&mut self, now: Time, adoption: &Adoption, out: &mut Vec<Action>) {
        let attempt = adoption.attempt;
        if self.attempts.contains_key(&attempt) {
            return;
        }
        let key = self.next_bundle;
        self.next_bundle += 1;
        let mut bundle = Bundle::adopted(adoption);
        bundle.held = 1;
        self.bundles.insert(key, bundle);
        let entry = Entry::new(key, Phase::Running);
        self.attempts.insert(attempt, entry);
        if let Some(reason) = &adoption.ended {
            self.end(attempt, reason.clone(), true, out);
            return;
        }
        self.occupy(key);
        if self.frozen {
            out.push(Action::Pause(attempt));
        }
        self.tell_later(now, attempt);
        self.save_later(now, attempt);
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Action>) {
        self.save_those_due(now, out);
        while let Some((due, attempt)) = self.timers.first().copied() {
            if due > now {
                break;
            }
            self.set_due(attempt, None);
            let Some(entry) = self.attempts.get_mut(&attempt) else {
                continue;
            };
            if matches!(entry.phase, Phase::Collected(_)) {
                if self.link {
                    self.set_due(attempt, Some(now + ms(RESEND_MS)));
                    out.push(Action::Report(attempt));
                }
            } else if entry.stop.is_some() {
                self.stop(now, attempt, out);
            } else if self.link && entry.told != entry.phase.state() {
                entry.told = entry.phase.state();
                out.push(Action::Tell(attempt, entry.told));
            }
        }
    }

    /// Starts what fits and fetches what will be next, in the order of the grants.
    fn schedule(&mut self, now: Time, out: &mut Vec<Action>) {
        if self.frozen || self.wish != Wish::Resume || self.verdict != Verdict::Run {
            return;
        }
        let mut room = true;
        let mut at = 0;
        while let Some(key) = self.pending.range(at..).next().copied() {
            at = key + 1;
            // A large task that waits for room is not overtaken by small ones, or it might wait
            // for ever; fetching goes on.
            room = room && self.start_ready(key, out);
            self.fetch_next(now, key, out);
            let bundle = self.bundles.get(&key);
            if !bundle.is_some_and(Bundle::has_pending) {
                self.pending.remove(&key);
            }
        }
    }

    /// Says whether the node still has room after this bundle.
    fn start_ready(&mut self, key: u64, out: &mut Vec<Action>) -> bool {
        loop {
            let fits = match self.bundles.get(&key) {
                Some(bundle) if bundle.live < bundle.width && !bundle.ready.is_empty() => {
                    self.fits(bundle)
                }
                _ => return true,
            };
            if !fits {
                return false;
            }
            let bundle = self.bundles.get_mut(&key);
            let Some(attempt) = bundle.and_then(|bundle| bundle.ready.pop_front()) else {
                return true;
            };
            self.occupy(key);
            self.begun += 1;
            if let Some(entry) = self.attempts.get_mut(&attempt) {
                (entry.phase, entry.begun) = (Phase::Starting, self.begun);
            }
            out.push(Action::Start(attempt));
        }
    }

    /// A task larger than the whole node (its offer shrank since the grant) may run alone, but
    /// nothing starts into no memory at all.
    fn fits(&self, bundle: &Bundle) -> bool {
        let (cpus, memory) = self.used;
        self.live == 0 && self.capacity.memory.0 > 0
            || (cpus + u64::from(bundle.cpus.milli) <= u64::from(self.capacity.cpus.milli)
                && memory.saturating_add(bundle.memory.0) <= self.capacity.memory.0)
    }

    fn fetch_next(&mut self, now: Time, key: u64, out: &mut Vec<Action>) {
        while let Some(attempt) = self
            .bundles
            .get_mut(&key)
            .filter(|bundle| bundle.fetch_room() > 0)
            .and_then(|bundle| bundle.leased.pop_front())
        {
            if let Some(bundle) = self.bundles.get_mut(&key) {
                bundle.fetching += 1;
            }
            if let Some(entry) = self.attempts.get_mut(&attempt) {
                entry.phase = Phase::Fetching;
            }
            self.tell_later(now, attempt);
            out.push(Action::Fetch(attempt));
        }
    }

    fn stop(&mut self, now: Time, attempt: AttemptId, out: &mut Vec<Action>) {
        self.set_due(attempt, Some(now + ms(STOP_AGAIN_MS)));
        let given_back =
            self.attempts.get(&attempt).and_then(|entry| entry.stop) != Some(Stop::Revoked);
        let grace_ms = match given_back && self.has_time() && self.saving_of(attempt).itself {
            true => SAVE_GRACE_MS,
            false => STOP_GRACE_MS,
        };
        out.push(Action::Stop { attempt, grace_ms });
    }

    /// Takes a pending attempt out of its bundle's queue.
    fn leave_queue(&mut self, attempt: AttemptId) {
        let Some(entry) = self.attempts.get(&attempt) else {
            return;
        };
        let Some(bundle) = self.bundles.get_mut(&entry.bundle) else {
            return;
        };
        match entry.phase {
            Phase::Leased => bundle.leased.retain(|other| *other != attempt),
            Phase::Fetching => bundle.fetching -= 1,
            Phase::Ready => bundle.ready.retain(|other| *other != attempt),
            Phase::Starting
            | Phase::Running
            | Phase::Paused
            | Phase::Ended(_)
            | Phase::Collected(_) => {}
        }
    }

    fn end(&mut self, attempt: AttemptId, reason: Reason, ran: bool, out: &mut Vec<Action>) {
        self.set_phase(attempt, Phase::Ended(reason.clone()));
        out.push(Action::Collect {
            attempt,
            reason,
            ran,
        });
    }

    fn set_phase(&mut self, attempt: AttemptId, phase: Phase) {
        if let Some(entry) = self.attempts.get_mut(&attempt) {
            entry.phase = phase;
            entry.stop = None;
            entry.saving = false;
        }
        self.set_due(attempt, None);
        self.set_save_due(attempt, None);
    }

    fn occupy(&mut self, key: u64) {
        if let Some(bundle) = self.bundles.get_mut(&key) {
            bundle.live += 1;
            self.live += 1;
            self.used.0 += u64::from(bundle.cpus.milli);
            self.used.1 = self.used.1.saturating_add(bundle.memory.0);
        }
    }

    fn release(&mut self, key: u64) {
        if let Some(bundle) = self.bundles.get_mut(&key) {
            bundle.live -= 1;
            self.live -= 1;
            self.used.0 -= u64::from(bundle.cpus.milli);
            self.used.1 = self.used.1.saturating_sub(bundle.memory.0);
        }
    }

    fn forget(&mut self, attempt: AttemptId, out: &mut Vec<Action>) {
        self.set_due(attempt, None);
        self.set_save_due(attempt, None);
        let Some(entry) = self.attempts.remove(&attempt) else {
            return;
        };
        out.push(Action::Forget(attempt));
        if let Some(bundle) = self.bundles.get_mut(&entry.bundle) {
            bundle.held -= 1;
            if bundle.held == 0 {
                self.bundles.remove(&entry.bundle);
                self.pending.remove(&entry.bundle);
            }
        }
    }

    /// Arms the timer after which a changed state is told, unless it runs already.
    fn tell_later(&mut self, now: Time, attempt: AttemptId) {
        let entry = self.attempts.get(&attempt);
        if entry.is_some_and(|entry| entry.due.is_none() && entry.told != entry.phase.state()) {
            self.set_due(attempt, Some(now + ms(TELL_DELAY_MS)));
        }
    }

    fn set_due(&mut self, attempt: AttemptId, due: Option<Time>) {
        let Some(entry) = self.attempts.get_mut(&attempt) else {
            return;
        };
        if let Some(old) = entry.due.take() {
            self.timers.remove(&(old, attempt));
        }
        if let Some(new) = due {
            self.timers.insert((new, attempt));
        }
        entry.due = due;
    }
}

const fn ms(ms: u64) -> Span {
    Span { ms }
}

/// The program saved itself, of its own accord or because it was given back.
fn itself(stop: Option<Stop>) -> Reason {
    let why = match stop {
        Some(Stop::Evicted(why)) => why,
        Some(Stop::Revoked) | None => "to go on elsewhere",
    };
    Reason::Checkpointed {
        detail: format!("the program saved itself (exit code {CHECKPOINT_EXIT_CODE}): {why}"),
    }
}

fn evicted(why: &str) -> Reason {
    Reason::Evicted {
        detail: why.to_string(),
    }
}
