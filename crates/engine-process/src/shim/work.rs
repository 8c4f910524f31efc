//! What the shim does for its attempts: start, steer, watch, and bury them.

use super::run::{Cause, Found, Run, Said};
use super::{LINGER, Shim, log, now, scratch};
use crate::bundle::GuestNeeds;
use crate::bundle::{Bay, Line, add_line, add_text};
use crate::cage::{INNER_UID_FIRST, SLOTS};
use crate::cgroup::{Ask, Group, resource_limits};
use crate::message::{Foreign, FromShim, GoOn, Launch, Share, send};
use crate::place::place;
use gleaner_engine::{AttemptSpec, Control, Ending};
use gleaner_model::{AttemptId, Reason};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use std::collections::BTreeSet;
use std::error::Error;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Most scratch directories being filled at a time; more would only compete for the disk.
const FILLING_MAX: usize = 4;

/// Orders of another version that are told of in the log; an agent may repeat one for ever.
const PASSED_OVER_TOLD: u32 = 16;

/// What every attempt has to live with where no quota can be had.
const DISK_IS_WATCHED: &str =
    "disk: watched, not held by a quota: a task over its limit is ended, within a second";

/// The agent did not come back in time.
const LEASE_OVER: &str = "the agent on this PC was gone until the lease was over";

impl Shim {
    /// Takes an order: first written down, then done.
    pub(super) fn order(&mut self, spec: AttemptSpec, bay: Bay) {
        let waits = |(waiting, _): &(AttemptSpec, Bay)| waiting.attempt == spec.attempt;
        if self.runs.contains_key(&spec.attempt) || self.waiting.iter().any(waits) {
            return;
        }
        let line = Line::Start { bay, spec: &spec };
        if let Err(error) = add_line(&self.journal, &line) {
            let attempt = spec.attempt;
            let run = Run::new(spec, bay, SLOTS, Instant::now());
            self.runs.insert(attempt, run);
            let detail = format!("the attempt could not be written down: {error}");
            return self.bury_unborn(attempt, Reason::Engine { detail });
        }
        self.start(spec, bay);
    }

    /// An order of an agent of another version, which would not have given it to one of its own:
    /// what runs goes on. An attempt that cannot be begun here says so, or it would be waited for.
    pub(super) fn pass_over(&mut self, order: &Foreign) {
        if self.passed_over < PASSED_OVER_TOLD {
            self.passed_over += 1;
            log(&format!("passed over: {order}"));
        }
        let (Some(attempt), true) = (order.attempt, order.word == "Start") else {
            return;
        };
        // Who asks for its streams finds them empty.
        if let Some(Err(error)) = order.bay.map(|bay| self.bays.take(bay, None).map(drop)) {
            log(&format!("{attempt}: {error}"));
        }
        let detail = "it was sent to a sandbox that an agent of another version had made";
        let reason = Reason::Engine {
            detail: detail.to_owned(),
        };
        let ending = Box::new(Ending::bare(reason, now()));
        self.tell(FromShim::Ended { attempt, ending });
    }

    fn start(&mut self, spec: AttemptSpec, bay: Bay) {
        let used: BTreeSet<u32> = self.runs.values().map(|run| run.slot).collect();
        // A bay stays with the slot that had it where it can: its files need not change hands.
        let mut slots = [bay % SLOTS].into_iter().chain(0..SLOTS);
        let free = slots.find(|slot| !used.contains(slot));
        let Some(slot) = free.filter(|_| self.filling < FILLING_MAX) else {
            self.waiting.push_back((spec, bay));
            return;
        };
        let attempt = spec.attempt;
        let mut run = Run::new(spec, bay, slot, Instant::now());
        if let Err(reason) = &self.zygote {
            let reason = reason.clone();
            self.spent = true;
            // Who asks for its streams finds them empty.
            match self.bays.take(bay, None) {
                Ok(taken) => run.streams = Some(taken.streams),
                Err(error) => log(&format!("{attempt}: {error}")),
            }
            self.runs.insert(attempt, run);
            return self.bury_unborn(attempt, reason);
        }
        let owner = self.owner(slot);
        let prepared = self.bays.take(bay, owner).map(|taken| {
            run.streams = Some(taken.streams);
            run.scratch = Some(taken.scratch);
        });
        if self.unwatched {
            run.frozen.insert(Cause::Unwatched);
        }
        let empty = run.spec.inputs.is_empty();
        let scratch = (!empty).then_some(run.scratch.as_ref()).flatten();
        let filling = scratch.map(|dir| (dir.try_clone(), run.spec.clone()));
        self.runs.insert(attempt, run);
        match (prepared, filling) {
            (Ok(()), None) => self.launch(attempt),
            (Ok(()), Some((Ok(scratch), spec))) => {
                let (done, wake) = (self.fill_done.clone(), self.wake.try_clone());
                self.filling += 1;
                // Copying and hashing may take long; the others are watched meanwhile.
                std::thread::spawn(move || {
                    let filled = scratch::fill(&spec, &scratch, owner);
                    let _shim_ended = done.send((attempt, filled));
                    if let Ok(wake) = wake {
                        let _full = rustix::io::write(&wake, &1_u64.to_ne_bytes());
                    }
                });
            }
            (Err(error), _) => {
                let detail = format!("the directories of the attempt could not be made: {error}");
                self.bury_unborn(attempt, Reason::Engine { detail });
            }
            (Ok(()), Some((Err(error), _))) => {
                let detail = format!("the scratch directory cannot be filled: {error}");
                self.bury_unborn(attempt, Reason::Engine { detail });
            }
        }
    }

    /// The host's user id of a slot, where we may give one.
    fn owner(&self, slot: u32) -> scratch::Owner {
        self.bundle.uid_first.map(|first| first + slot)
    }

    /// The first place that no cage runs in: few attempts at a time need few places, and whatever
    /// the zygote keeps for one is copied and closed for every cage.
    fn free_place(&self) -> u32 {
        let used: BTreeSet<u32> = self.runs.values().filter_map(|run| run.place).collect();
        (0..).find(|place| !used.contains(place)).unwrap_or(SLOTS)
    }

    pub(super) fn take_filled(&mut self) {
        let _count = rustix::io::read(&self.wake, &mut [0; 8]);
        while let Ok((attempt, filled)) = self.filled.try_recv() {
            self.filling -= 1;
            let Some(run) = self.runs.get_mut(&attempt) else {
                continue;
            };
            match (filled, run.forced.take()) {
                (_, Some(reason)) | (Err(reason), None) => self.bury_unborn(attempt, reason),
                (Ok(bytes), None) => {
                    run.input_bytes = bytes;
                    self.launch(attempt);
                }
            }
        }
        self.start_waiting();
    }

    fn start_waiting(&mut self) {
        while let Some((spec, bay)) = self.waiting.pop_front() {
            let before = self.waiting.len();
            self.start(spec, bay);
            if self.waiting.len() > before {
                // No room yet; it went to the back, and only its turn was lost.
                return;
            }
        }
    }

    fn launch(&mut self, attempt: AttemptId) {
        if let Err(error) = self.try_launch(attempt) {
            let detail = error.to_string();
            self.bury_unborn(attempt, Reason::Engine { detail });
        }
    }

    fn try_launch(&mut self, attempt: AttemptId) -> Result<(), Box<dyn Error>> {
        let per_task_uid = self.bundle.uid_first.is_some();
        let place = self.free_place();
        let Some(run) = self.runs.get_mut(&attempt) else {
            return Ok(());
        };
        run.place = Some(place);
        let scratch = self.bundle.scratch(run.bay);
        let group = self.groups.take()?;
        let ask = Ask {
            limits: &run.spec.limits,
            scratch: &scratch,
            own_processes: 1,
        };
        let missing = group.apply(&ask);
        run.cpus_held = Group::holds_cpus(&missing);
        run.degraded.extend(missing);
        run.degraded.push(DISK_IS_WATCHED.to_owned());
        let zygote = self.zygote.as_mut().map_err(|reason| reason.to_string())?;
        run.degraded.extend(zygote.degraded.iter().cloned());
        run.grouped = self.groups.backend().has_groups();
        let Some([stdout, stderr]) = &run.streams else {
            return Err("its streams are gone".into());
        };
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        );
        let (ours, theirs) = pair?;
        let grouped = self.groups.backend().has_groups();
        let mut launch = launch_of(run, place, per_task_uid, grouped);
        let group = run.group.insert(group);
        let files = group.join_files()?;
        if self.bundle.guest.is_some() && self.bundle.guest_needs == GuestNeeds::Tracing {
            // All of a guest's memory is shared memory to the host.
            launch.shared_memory_max = run.spec.limits.memory.0;
        }
        launch.waits = files.is_none();
        let mut fds = vec![theirs.as_fd(), stdout.as_fd(), stderr.as_fd()];
        fds.extend(files.iter().flatten().map(AsFd::as_fd));
        if !run.frozen.is_empty() {
            // It stops where it enters its group.
            let _slow = group.freeze(true);
        }
        let pid = zygote.launch(launch, &fds)?;
        drop(theirs);
        // Until it enters its group it is our own code; from then on it is limited.
        let limited = match files {
            Some(_) => Ok(()),
            None => group.add(pid).and_then(|()| {
                if !run.frozen.is_empty() && !matches!(group.freeze(true), Ok(true)) {
                    run.press_at = Some(Instant::now());
                }
                send(&ours, &GoOn, &[], SendFlags::empty())
            }),
        };
        run.launched(pid, ours)?;
        run.take_share(self.share, &scratch);
        if let Err(error) = limited {
            run.not_run = Some(Reason::Engine {
                detail: format!("the limits of the attempt could not be set: {error}"),
            });
            run.kill();
        }
        Ok(())
    }

    pub(super) fn control(&mut self, attempt: AttemptId, control: Control) {
        let now = Instant::now();
        let Some(run) = self.runs.get_mut(&attempt) else {
            if matches!(control, Control::Stop { .. }) {
                self.stop_waiting(attempt);
            }
            return;
        };
        match control {
            Control::Pause => {
                run.freeze(Cause::Asked, now);
                self.tell(FromShim::Paused { attempt });
            }
            Control::Resume => {
                // A thaw after too many faults would only begin them again.
                if run.thaw(Cause::Asked, now) {
                    self.tell(FromShim::Resumed { attempt });
                }
            }
            Control::Slow { permille } => run.slow(permille),
            Control::Stop { grace_ms } => {
                run.end(
                    Reason::Cancelled,
                    Duration::from_millis(grace_ms.into()),
                    now,
                );
            }
        }
    }

    /// What each attempt may have changes.
    pub(super) fn set_share(&mut self, share: Share) {
        self.share = share;
        for run in self.runs.values_mut() {
            run.take_share(share, &self.bundle.dir);
        }
    }

    /// Holds an attempt to a processor, or to none. One that has ended, or has no process yet, is
    /// not held: the agent asks for what runs.
    pub(super) fn place(&mut self, attempt: AttemptId, cpu: Option<u32>) {
        let Some(run) = self.runs.get_mut(&attempt) else {
            return;
        };
        if let Some(group) = run.group.as_ref().filter(|_| run.placed != cpu) {
            place(group, cpu);
            run.placed = cpu;
        }
    }

    /// A new agent does not know who was placed where.
    pub(super) fn let_all_go(&mut self) {
        let all: Vec<AttemptId> = self.runs.keys().copied().collect();
        for attempt in all {
            self.place(attempt, None);
        }
    }

    /// One that had no slot yet.
    fn stop_waiting(&mut self, attempt: AttemptId) {
        let is = |(spec, _): &(AttemptSpec, Bay)| spec.attempt == attempt;
        let at = self.waiting.iter().position(is);
        let Some((spec, bay)) = at.and_then(|at| self.waiting.remove(at)) else {
            return;
        };
        let mut run = Run::new(spec, bay, SLOTS, Instant::now());
        // Who asks for its streams finds them empty.
        match self.bays.take(bay, None) {
            Ok(taken) => run.streams = Some(taken.streams),
            Err(error) => log(&format!("{attempt}: {error}")),
        }
        self.runs.insert(attempt, run);
        self.bury_unborn(attempt, Reason::Cancelled);
    }

    pub(super) fn hear_init(&mut self, attempt: AttemptId) {
        while let Some(run) = self.runs.get_mut(&attempt) {
            let at = now();
            match run.hear(&mut self.buffer, Instant::now(), at) {
                Some(Said::Started) => self.tell(FromShim::Started { attempt, at }),
                Some(Said::Nothing) => {}
                None => return,
            }
        }
    }

    pub(super) fn init_ended(&mut self, attempt: AttemptId) {
        // Its last words may still be on the way to us.
        self.hear_init(attempt);
        if self.runs.get(&attempt).is_some_and(Run::reap) {
            self.bury(attempt);
        }
    }

    fn bury_unborn(&mut self, attempt: AttemptId, reason: Reason) {
        if let Some(run) = self.runs.get_mut(&attempt) {
            run.not_run.get_or_insert(reason);
        }
        self.bury(attempt);
    }

    /// Writes how it ended, then says so.
    fn bury(&mut self, attempt: AttemptId) {
        let Some(mut run) = self.runs.remove(&attempt) else {
            return;
        };
        let ending = run.ending(Instant::now(), now());
        let ending = Box::new(ending);
        let told = serde_json::to_vec(&FromShim::Ended { attempt, ending }).unwrap_or_default();
        if let Err(error) = add_text(&self.journal, &told) {
            log(&format!(
                "the result of {attempt} could not be written: {error}"
            ));
        }
        if let Some(mounts) = run.mounts.take() {
            // Where the thread is gone they are let go of here.
            let _gone = self.old_mounts.send(mounts);
        }
        if let Some(at) = run.started.filter(|_| run.brief) {
            self.tell(FromShim::Started { attempt, at });
        }
        self.tell_text(told);
        // The agent can go on while we clean up.
        if let Some(group) = run.group.take()
            && let Err(error) = self.groups.give_back(group)
        {
            log(&format!(
                "the group of {attempt} could not be cleaned: {error}"
            ));
        }
        self.start_waiting();
        self.idle_since = Instant::now();
    }

    pub(super) fn thaw_all(&mut self, cause: Cause) {
        let now = Instant::now();
        let all: Vec<AttemptId> = self.runs.keys().copied().collect();
        for attempt in all {
            if self
                .runs
                .get_mut(&attempt)
                .is_some_and(|run| run.thaw(cause, now))
            {
                self.tell(FromShim::Resumed { attempt });
            }
        }
    }

    /// What is due by the clock.
    pub(super) fn tick(&mut self) {
        self.copy_those_still();
        let now = Instant::now();
        if !self.unwatched && now >= self.last_beat + self.silence() {
            self.unwatched = true;
            self.freeze_all(Cause::Unwatched, now);
        }
        let deserted = self.bundle.ends_with_agent && self.agent.is_none();
        let over = deserted || self.unwatched && now >= self.lease_end;
        let mut frozen = Vec::new();
        for (attempt, run) in &mut self.runs {
            if over {
                let detail = LEASE_OVER.to_owned();
                run.end(Reason::Lost { detail }, Duration::ZERO, now);
                continue;
            }
            if run.kill_at.is_some_and(|at| now >= at) {
                run.kill();
            }
            run.press(now);
            run.keep_pace(now, super::now());
            let due = now >= run.watch.next || run.time_is_up(now).is_some_and(|at| now >= at);
            if run.clock.is_none() || !due || run.forced.is_some() {
                continue;
            }
            match run.look(now, super::now()) {
                Found::Fine => {}
                Found::End(reason) => run.end(reason, Duration::ZERO, now),
                Found::FreezeForFaults => {
                    if run.freeze(Cause::Faults, now) {
                        frozen.push(*attempt);
                    }
                }
            }
        }
        for attempt in frozen {
            self.tell(FromShim::Paused { attempt });
        }
        if over {
            self.drop_waiting();
        }
        let busy = !self.runs.is_empty() || !self.waiting.is_empty();
        let lonely = self.agent.is_none() && now >= self.idle_since + LINGER || deserted;
        // Without a root it is of no use; the next try gets another.
        let spent = self.spent && self.outbox.is_empty();
        self.quit |= (lonely || spent) && !busy;
    }

    pub(super) fn freeze_all(&mut self, cause: Cause, now: Instant) {
        let all: Vec<AttemptId> = self.runs.keys().copied().collect();
        for attempt in all {
            let ran = self
                .runs
                .get_mut(&attempt)
                .is_some_and(|run| run.freeze(cause, now));
            if ran {
                self.tell(FromShim::Paused { attempt });
            }
        }
    }

    fn drop_waiting(&mut self) {
        while let Some((spec, _)) = self.waiting.front() {
            let attempt = spec.attempt;
            self.stop_waiting(attempt);
        }
    }
}

/// The cage that a spec asks for.
fn launch_of(run: &Run, place: u32, per_task_uid: bool, grouped: bool) -> Launch {
    let (spec, slot) = (&run.spec, run.slot);
    let mut env: Vec<(String, String)> = [
        ("PATH", crate::cage::init::PATH),
        ("HOME", "/scratch"),
        ("TMPDIR", "/scratch/.tmp"),
        ("LANG", "C.UTF-8"),
    ]
    .into_iter()
    .filter(|(name, _)| !spec.env.contains_key(*name))
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    env.extend(
        spec.env
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    let limits = &spec.limits;
    // The init counts as a process of the task's user, and for a plain user the zygote too.
    let ours = if per_task_uid { 1 } else { 2 };
    let resource = |(number, value): (_, u64)| {
        let extra = if number == libc::RLIMIT_NPROC {
            ours
        } else {
            0
        };
        Some((i32::try_from(number).ok()?, value + extra))
    };
    let resources = if grouped {
        Vec::new()
    } else {
        resource_limits(limits)
            .into_iter()
            .filter_map(resource)
            .collect()
    };
    Launch {
        place,
        uid: INNER_UID_FIRST + if per_task_uid { slot } else { 0 },
        scratch: run.bay.to_string(),
        command: spec.command.clone(),
        env,
        stdin: spec.stdin.clone(),
        file_max: limits.disk.0.max(limits.output.0),
        shared_memory_max: limits.memory.0 / 2,
        resources,
        waits: true,
    }
}
