//! What the book asks for, done: one function an action.

use super::{Dispatch, InputFiles};
use crate::collect::{Draft, Leaves, Upload, upload};
use crate::input::Input;
use crate::run::fault;
use gleaner_attempt::{Action, Event};
use gleaner_engine::{Control, EngineEvent};
use gleaner_model::{AttemptId, AttemptState, Reason};
use gleaner_wire::v1;
use std::sync::Arc;

impl Dispatch {
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Fetch(attempt) => self.fetch(attempt),
            Action::Start(attempt) => self.start(attempt),
            Action::Pause(attempt) => self.steer(attempt, Control::Pause),
            Action::Resume(attempt) => self.steer(attempt, Control::Resume),
            Action::Save { attempt, last } => self.save(attempt, last),
            Action::Stop { attempt, grace_ms } => self.steer(attempt, Control::Stop { grace_ms }),
            Action::Collect {
                attempt, reason, ..
            } => self.collect(attempt, reason),
            Action::Report(attempt) => self.report(attempt),
            Action::Tell(attempt, state) => self.tell(attempt, state),
            Action::Forget(attempt) => self.forget(attempt),
            Action::Decline(attempt, reason) => self.decline(attempt, reason),
        }
    }

    fn fetch(&mut self, attempt: AttemptId) {
        let Some(slot) = self.slots.get_mut(&attempt) else {
            return self.unexpected(&Action::Fetch(attempt));
        };
        let wanted = match &slot.task {
            Some((template, task)) => match task.unfit(&*slot.engine) {
                Some(reason) => Err(reason),
                None => template.wanted(task),
            },
            None => Err(fault("an adopted attempt has nothing to fetch")),
        };
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(reason) => {
                let failed = Event::FetchFailed(attempt, reason);
                return self.follow_up.push_back(failed);
            }
        };
        if let Some(inputs) = self.parts.fetcher.at_hand(&wanted) {
            slot.inputs = inputs;
            return self.follow_up.push_back(Event::Fetched(attempt));
        }
        let (fetcher, inputs) = (self.parts.fetcher.clone(), self.parts.inputs.clone());
        let window = self.parts.watching.window.clone();
        let work = self.parts.runtime.spawn(async move {
            window.may_transfer().await;
            let outcome = fetcher.fetch(wanted).await;
            inputs.send(Input::Fetched(attempt, outcome));
        });
        slot.work = Some(work.abort_handle());
    }

    pub(super) fn fetched(&mut self, attempt: AttemptId, outcome: Result<InputFiles, Reason>) {
        let Some(slot) = self.slots.get_mut(&attempt) else {
            return;
        };
        slot.work = None;
        let event = match outcome {
            Ok(inputs) => {
                self.parts.guests.moved(attempt, inputs.brought);
                slot.inputs = inputs;
                Event::Fetched(attempt)
            }
            Err(reason) => Event::FetchFailed(attempt, reason),
        };
        self.step(event);
    }

    /// Calls the engine from here: it returns at once, and the next program should not wait for
    /// another thread to wake up.
    fn start(&mut self, attempt: AttemptId) {
        // What was prepared is its own now.
        self.ahead.remove(&attempt);
        let Some(slot) = self.slots.get_mut(&attempt) else {
            return self.unexpected(&Action::Start(attempt));
        };
        let spec = match &slot.task {
            Some((template, task)) => {
                let files = std::mem::take(&mut slot.inputs.files);
                let image = slot.inputs.image.take();
                template.spec(attempt, slot.lease, task, (files, image))
            }
            None => Err(fault("an adopted attempt cannot be started")),
        };
        let started = spec.and_then(|spec| {
            let start = slot.engine.start(spec);
            start.map_err(|error| fault(&error.to_string()))
        });
        match started {
            Ok(()) => {
                slot.in_engine = true;
                let held = slot.held(self.parts.clock.now());
                self.parts.watching.roster.add(attempt, held);
            }
            Err(reason) => self.follow_up.push_back(Event::Ended(attempt, reason)),
        }
    }

    fn steer(&mut self, attempt: AttemptId, control: Control) {
        let Some(slot) = self.slots.get(&attempt) else {
            return;
        };
        let engine = Arc::clone(&slot.engine);
        self.steerer.give(move || {
            if let Err(error) = engine.control(attempt, control) {
                tracing::warn!(target: "gleaner::run", %attempt, ?control, %error, "not steered");
            }
        });
    }

    pub(super) fn engine_event(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Started { attempt, .. } => {
                self.parts
                    .watching
                    .roster
                    .set(attempt, AttemptState::Running);
                self.step(Event::Started(attempt));
                self.start_waiting_logs(attempt);
            }
            EngineEvent::Paused { attempt } => {
                self.parts
                    .watching
                    .roster
                    .set(attempt, AttemptState::Paused);
                self.step(Event::Paused(attempt));
            }
            EngineEvent::Resumed { attempt } => {
                self.parts
                    .watching
                    .roster
                    .set(attempt, AttemptState::Running);
                self.step(Event::Resumed(attempt));
            }
            EngineEvent::Saved { attempt, outcome } => self.engine_saved(attempt, outcome),
            EngineEvent::Ended { attempt, ending } => {
                let reason = ending.reason.clone();
                self.parts.watching.roster.remove(attempt);
                self.parts.guests.ended(attempt, &ending.usage);
                self.relays.ended(attempt);
                if let Some(slot) = self.slots.get_mut(&attempt) {
                    slot.ending = Some(ending);
                }
                self.step(Event::Ended(attempt, reason));
                self.start_waiting_logs(attempt);
            }
        }
    }

    fn collect(&mut self, attempt: AttemptId, reason: Reason) {
        let now = self.parts.clock.now();
        let Some(slot) = self.slots.get_mut(&attempt) else {
            return;
        };
        let used = std::mem::take(&mut slot.inputs);
        let Some(ending) = slot.ending.take().filter(|_| slot.in_engine) else {
            let mut draft = Draft::bare(attempt, reason, None, now);
            draft.went_on(slot.saves.from, slot.saves.count);
            let (reason, report) = draft.seal();
            slot.report = Some(report);
            return self.follow_up.push_back(Event::Collected(attempt, reason));
        };
        let (engine, limits) = (Arc::clone(&slot.engine), Arc::clone(&slot.limits));
        let (blobs, uploads) = (self.parts.blobs.clone(), Arc::clone(&self.uploads));
        let (inputs, runtime) = (self.parts.inputs.clone(), self.parts.runtime.clone());
        let (fetcher, guests) = (self.parts.fetcher.clone(), self.parts.guests.clone());
        let (from, count) = (slot.saves.from, slot.saves.count);
        let leaves = Leaves::of(&reason, slot.saves.left.take(), &slot.saves.how);
        self.collectors.give(move || {
            if matches!(reason, Reason::Integrity { .. }) {
                // Another try must not meet the same rotten blob.
                fetcher.recheck(&used);
            }
            drop(used);
            let mut draft = Draft::collect(&*engine, attempt, reason, &ending, &limits);
            draft.went_on(from, count);
            draft.take_saved(&*engine, leaves, &limits, now);
            let done = move |draft: Draft| {
                let (reason, report) = draft.seal();
                inputs.send(Input::Collected(attempt, reason, Box::new(report)));
            };
            if draft.uploads.is_empty() {
                return done(draft);
            }
            runtime.spawn(async move {
                guests.moved(attempt, draft.uploads.iter().map(Upload::size).sum());
                if let Err(reason) = upload(&blobs, &uploads, &draft.uploads).await {
                    draft.refuse(reason);
                }
                done(draft);
            });
        });
    }

    fn report(&mut self, attempt: AttemptId) {
        let report = self
            .slots
            .get(&attempt)
            .and_then(|slot| slot.report.clone());
        match report {
            Some(report) => self.send_end(report),
            None => self.unexpected(&Action::Report(attempt)),
        }
    }

    fn tell(&self, attempt: AttemptId, state: AttemptState) {
        self.send(v1::agent_message::Kind::Progress(v1::Progress {
            attempt: Some(attempt.into()),
            state: state.as_str().to_owned(),
        }));
    }

    fn forget(&mut self, attempt: AttemptId) {
        let Some(slot) = self.slots.remove(&attempt) else {
            return;
        };
        slot.abort();
        self.parts.watching.roster.remove(attempt);
        self.relays.forget(attempt);
        if slot.in_engine {
            self.collectors.give(move || slot.engine.discard(attempt));
        }
    }

    pub(super) fn decline(&mut self, attempt: AttemptId, reason: Reason) {
        self.slots.remove(&attempt);
        let now = self.parts.clock.now();
        let (_, report) = Draft::bare(attempt, reason, None, now).seal();
        self.send_end(report);
    }
}
