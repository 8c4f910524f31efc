//! The server's messages: one function a kind. What cannot be understood is answered with a
//! reason that its user sees, never with a panic.

use super::{Dispatch, Slot};
use crate::logs::{Relay, chunk};
use crate::run::{JobTemplate, TaskPart, fault};
use gleaner_attempt::{Event, Grant, Saving, Wish};
use gleaner_model::{AttemptId, Engine, JobId, LeaseId, TaskId};
use gleaner_wire::v1::{self, server_message::Kind};
use std::collections::BTreeMap;
use std::sync::{Arc, Once};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// Most templates kept; a server that sends more on one connection is asked to start anew.
const TEMPLATES_MAX: usize = 4096;

/// Most log requests answered at once.
const RELAYS_MAX: usize = 64;

/// Log requests of users that are being answered or wait for their attempt to start.
#[derive(Debug, Default)]
pub(super) struct Relays {
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    attempt: AttemptId,
    ended: CancellationToken,
    /// None while the attempt has not started.
    work: Option<AbortHandle>,
    request: v1::LogRequest,
}

impl Relays {
    pub(super) fn stop_all(&mut self) {
        for (_, open) in std::mem::take(&mut self.open) {
            open.stop();
        }
    }

    pub(super) fn ended(&self, attempt: AttemptId) {
        for open in self.open.values().filter(|open| open.attempt == attempt) {
            open.ended.cancel();
        }
    }

    /// Those that run have the file open and finish by themselves.
    pub(super) fn forget(&mut self, attempt: AttemptId) {
        self.ended(attempt);
        self.open.retain(|_, open| open.attempt != attempt);
    }
}

impl Open {
    fn stop(self) {
        if let Some(work) = self.work {
            work.abort();
        }
    }
}

impl Dispatch {
    pub(super) fn serve(&mut self, message: v1::ServerMessage) {
        match message.kind {
            // The link has read it; nothing in it changes later.
            Some(Kind::Welcome(_)) => {}
            None => {
                static TOLD: Once = Once::new();
                TOLD.call_once(|| {
                    tracing::warn!(
                        target: "gleaner::agent",
                        "a message of a later server is passed over; upgrade the agent"
                    );
                });
            }
            Some(Kind::Bundle(bundle)) => self.bundle(bundle),
            Some(Kind::Revoke(revoke)) => {
                let attempts = revoke.attempts.into_iter().map(Into::into).collect();
                self.step(Event::Revoked(attempts));
            }
            Some(Kind::Acknowledge(acknowledge)) => {
                let attempts = acknowledge.attempts.into_iter().map(Into::into).collect();
                self.step(Event::Acknowledged(attempts));
            }
            Some(Kind::Wish(wish)) => self.wished(&wish.wish),
            Some(Kind::LogRequest(request)) => self.log_request(request),
            Some(Kind::Kept(kept)) => self.kept(&kept),
        }
    }

    fn wished(&mut self, word: &str) {
        let (wish, told) = match word {
            "pause" => (Wish::Pause, Some("pause")),
            "resume" => (Wish::Resume, None),
            "drain" => (Wish::Drain, Some("drain")),
            "evict" => (Wish::Evict, Some("evict")),
            other => {
                tracing::warn!(target: "gleaner::agent", wish = other, "unknown wish");
                return;
            }
        };
        self.parts.guests.wished(told);
        self.step(Event::Wished(wish));
    }

    fn bundle(&mut self, bundle: v1::Bundle) {
        if self.book.held() == 0 {
            self.look_at_disk();
        }
        let (job, lease) = (JobId(bundle.job), LeaseId(bundle.lease));
        let attempt = |task: &v1::Task| TaskId::new(job, task.index).attempt(task.number);
        if let Some(template) = bundle.template {
            match JobTemplate::parse(template) {
                Ok(template) => {
                    self.parts.guests.named(job, &template.name, &template.user);
                    self.templates.insert(job, Arc::new(template));
                }
                Err(problem) => {
                    for task in &bundle.tasks {
                        self.decline(attempt(task), fault(&problem));
                    }
                    return;
                }
            }
        }
        let template = self.templates.get(&job).cloned();
        let Some(template) = template.filter(|_| self.templates.len() <= TEMPLATES_MAX) else {
            // A new connection brings every template again, and what was granted here goes back.
            tracing::warn!(target: "gleaner::agent", %job, "a bundle without its template");
            self.outgoing = None;
            return;
        };
        // A job that leaves its engine open has it chosen for each bundle.
        let named = Engine::from_word(&bundle.engine);
        let wanted = match bundle.engine.is_empty() {
            true => Some(template.engine),
            false => named,
        };
        let mut engines = self.parts.engines.iter();
        let engine = engines
            .find(|engine| Some(engine.kind()) == wanted)
            .cloned();
        let mut tasks = Vec::with_capacity(bundle.tasks.len());
        for task in bundle.tasks {
            let id = attempt(&task);
            if self.slots.contains_key(&id) {
                continue;
            }
            let part = TaskPart::parse(task);
            match (&engine, part) {
                (Some(engine), Ok(part)) => {
                    let slot = Slot::granted(engine, lease, &template, part);
                    self.slots.insert(id, slot);
                    tasks.push(id);
                }
                (None, _) => {
                    let named = wanted.map_or("of that name", Engine::as_str);
                    let why = format!("this node has no engine {named}");
                    self.decline(id, fault(&why));
                }
                (_, Err(problem)) => self.decline(id, fault(&problem)),
            }
        }
        self.step(Event::Granted(Grant {
            lease,
            cpus: template.limits.cpus,
            memory: template.limits.memory,
            width: bundle.width,
            saving: engine.map_or_else(Saving::default, |engine| template.saving(&*engine)),
            tasks,
        }));
    }

    fn log_request(&mut self, request: v1::LogRequest) {
        let number = request.request;
        if let Some(open) = self.relays.open.remove(&number) {
            open.stop();
        }
        if request.stop {
            return;
        }
        let attempt = request.attempt.map(AttemptId::from);
        let attempt = attempt.filter(|attempt| self.slots.contains_key(attempt));
        let room = self.relays.open.len() < RELAYS_MAX;
        let Some(attempt) = attempt.filter(|_| room) else {
            return self.no_log(&request);
        };
        let over = self
            .book
            .state(attempt)
            .is_some_and(|state| state.is_over());
        let ended = CancellationToken::new();
        if over {
            ended.cancel();
        }
        let open = Open {
            attempt,
            ended,
            work: None,
            request,
        };
        self.relays.open.insert(number, open);
        self.start_log(number);
    }

    /// Logs asked for before the attempt started, or had anything to show.
    pub(super) fn start_waiting_logs(&mut self, attempt: AttemptId) {
        let waiting: Vec<_> = self
            .relays
            .open
            .iter()
            .filter(|(_, open)| open.attempt == attempt && open.work.is_none())
            .map(|(number, _)| *number)
            .collect();
        for number in waiting {
            self.start_log(number);
        }
    }

    fn start_log(&mut self, number: u64) {
        let Some(open) = self.relays.open.get_mut(&number) else {
            return;
        };
        let slot = self.slots.get(&open.attempt);
        let streams = slot.and_then(|slot| slot.engine.streams(open.attempt).ok());
        match (streams, &self.outgoing) {
            (Some([stdout, stderr]), Some(outgoing)) => {
                let stderr_wanted = open.request.stream == "stderr";
                let relay = Relay {
                    file: if stderr_wanted { stderr } else { stdout },
                    request: open.request.clone(),
                    ended: open.ended.clone(),
                    outgoing: outgoing.clone(),
                };
                open.work = Some(self.parts.runtime.spawn(relay.run()).abort_handle());
            }
            // It has not started: its first event brings us back here.
            _ if open.request.follow && !open.ended.is_cancelled() => {}
            _ => {
                if let Some(open) = self.relays.open.remove(&number) {
                    self.no_log(&open.request);
                }
            }
        }
    }

    fn no_log(&self, request: &v1::LogRequest) {
        if let Some(outgoing) = &self.outgoing
            && outgoing
                .send(chunk(request.request, request.offset, Vec::new(), true))
                .is_err()
        {
            tracing::debug!(target: "gleaner::agent", "the link is gone");
        }
    }
}
