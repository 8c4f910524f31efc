//! Saved attempts on their way to the server: engines save, files are hashed and uploaded, and
//! what the server has not made durable is told again after every reconnect.
//!
//! It must not know how an engine saves, nor when: the book says when.

use super::Dispatch;
use crate::collect::{self, Upload, upload};
use crate::input::{Input, Saved};
use gleaner_attempt::{Event, Saving};
use gleaner_engine::{AfterSave, EngineEvent};
use gleaner_model::{AttemptId, Checkpoint, CheckpointKind};
use gleaner_wire::v1;
use std::sync::Arc;
use tokio::task::AbortHandle;

/// What a slot keeps about saves.
#[derive(Debug, Default)]
pub(super) struct SlotSaves {
    /// How it is saved.
    pub(super) how: Saving,
    /// Which attempt it went on from.
    pub(super) from: Option<AttemptId>,
    /// How often the task was saved so far, as far as is known here.
    pub(super) count: u32,
    /// The save under way is its last.
    last: bool,
    /// What its last save made; goes with the report.
    pub(super) left: Option<CheckpointKind>,
    /// What the server has not answered for.
    untold: Option<(u64, v1::Saved)>,
    /// An upload on its way.
    pub(super) work: Option<AbortHandle>,
}

impl SlotSaves {
    pub(super) fn new(how: Saving, from: Option<AttemptId>, count: u32) -> Self {
        Self {
            how,
            from,
            count,
            ..Self::default()
        }
    }
}

impl Dispatch {
    pub(super) fn save(&mut self, attempt: AttemptId, last: bool) {
        let Some(slot) = self.slots.get_mut(&attempt) else {
            return;
        };
        slot.saves.last = last;
        let (engine, inputs) = (Arc::clone(&slot.engine), self.parts.inputs.clone());
        let then = match last {
            true => AfterSave::End,
            false => AfterSave::GoOn,
        };
        self.steerer.give(move || {
            if let Err(error) = engine.save(attempt, then) {
                let outcome = Err(error.to_string());
                inputs.send(Input::Engine(EngineEvent::Saved { attempt, outcome }));
            }
        });
    }

    /// The engine has saved it, or not.
    pub(super) fn engine_saved(
        &mut self,
        attempt: AttemptId,
        outcome: Result<CheckpointKind, String>,
    ) {
        let now = self.parts.clock.now();
        let Some(slot) = self.slots.get_mut(&attempt) else {
            return;
        };
        let kind = match outcome {
            Ok(kind) if slot.saves.last => {
                slot.saves.left = Some(kind);
                return self.step(Event::Saved {
                    attempt,
                    well: true,
                });
            }
            Ok(kind) => kind,
            Err(why) => return self.not_saved(attempt, &why),
        };
        let (engine, limits) = (Arc::clone(&slot.engine), Arc::clone(&slot.limits));
        let (blobs, uploads) = (self.parts.blobs.clone(), Arc::clone(&self.uploads));
        let (inputs, runtime) = (self.parts.inputs.clone(), self.parts.runtime.clone());
        let guests = self.parts.guests.clone();
        self.collectors.give(move || {
            let (checkpoint, files) = match collect::saved(&*engine, (attempt, kind), &limits, now)
            {
                Ok(taken) => taken,
                Err(error) => return inputs.send(Input::Saved(attempt, Err(error.to_string()))),
            };
            runtime.spawn(async move {
                guests.moved(attempt, files.iter().map(Upload::size).sum());
                let sent = upload(&blobs, &uploads, &files).await;
                let told = sent.map_err(|reason| reason.to_string());
                inputs.send(Input::Saved(attempt, told.map(|()| message(&checkpoint))));
            });
        });
    }

    /// The PC is about to sleep.
    pub(super) fn save_all(&mut self) {
        self.sleeps = true;
        // Without a connection it would come too late.
        if self.outgoing.is_some() {
            self.step(Event::SaveAll);
        }
    }

    /// Lets the PC sleep where it waits for saves and the server has them all.
    pub(super) fn let_sleep(&mut self) {
        let saving = self.outgoing.is_some() && self.book.is_saving();
        if self.sleeps && !saving {
            self.sleeps = false;
            self.parts.watching.saved();
        }
    }

    fn not_saved(&mut self, attempt: AttemptId, why: &str) {
        tracing::warn!(target: "gleaner::collect", %attempt, why, "not saved");
        self.step(Event::Saved {
            attempt,
            well: false,
        });
    }

    /// Its files are at the server.
    pub(super) fn saved(&mut self, attempt: AttemptId, saved: Saved) {
        let Some(slot) = self.slots.get_mut(&attempt) else {
            return;
        };
        match saved {
            Ok((taken, told)) => {
                slot.saves.untold = Some((taken, told.clone()));
                self.send(v1::agent_message::Kind::Saved(told));
            }
            Err(why) => self.not_saved(attempt, &why),
        }
    }

    /// A new connection: what was told on the one before may never have come.
    pub(super) fn tell_saved_again(&self) {
        for slot in self.slots.values() {
            if let Some((_, told)) = &slot.saves.untold {
                self.send(v1::agent_message::Kind::Saved(told.clone()));
            }
        }
    }

    pub(super) fn kept(&mut self, kept: &v1::Kept) {
        let attempt = kept.attempt.map(AttemptId::from);
        let Some((attempt, slot)) = attempt.and_then(|at| Some((at, self.slots.get_mut(&at)?)))
        else {
            return;
        };
        if slot
            .saves
            .untold
            .take_if(|(taken, _)| *taken == kept.taken)
            .is_none()
        {
            return;
        }
        slot.saves.count += u32::from(kept.kept);
        let well = kept.kept;
        self.step(Event::Saved { attempt, well });
    }
}

fn message(checkpoint: &Checkpoint) -> (u64, v1::Saved) {
    let told = v1::Saved {
        attempt: Some(checkpoint.attempt.into()),
        checkpoint: collect::json(checkpoint),
    };
    (checkpoint.taken.ms, told)
}
