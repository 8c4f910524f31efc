//! The shim: the single process that starts, watches and outlives nothing but one bundle.
//!
//! It is the `gleaner` binary, executed again before any thread exists. It owns the bundle's
//! cages, their groups, and the record of how each attempt ended, which it writes to disk
//! before it says a word. It takes orders from one agent at a time over a local socket; when
//! the agent is silent for three beats everything is frozen, and when the lease is over
//! everything is ended. It must not know the server, the job or any other bundle.

mod bay;
mod run;
mod save;
mod scratch;
mod work;

use crate::bundle::{self, Bay, Bundle};
use crate::cage::sys;
use crate::cage::zygote::Zygote;
use crate::cgroup::{Backend, DetectOptions, GroupPool};
use crate::image::{self, Root};
use crate::log::{log, now};
use crate::message::{Foreign, FromShim, Share, ToShim, buffer, receive, send_text};
use crate::priority::Means;
use bay::Bays;
use gleaner_engine::AttemptSpec;
use gleaner_model::{AttemptId, Reason};
use run::{Cause, Run};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, listen,
    socket_with,
};
use rustix::process::Resource;
pub(crate) use scratch::TEMPORARY;
use serde::Deserialize as _;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Missed beats after which nobody is taken to watch.
const MISSED_BEATS: u32 = 3;

/// How long a shim without work waits for an agent before it exits.
const LINGER: Duration = Duration::from_secs(2);

/// Longest sleep of the main loop.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// The same while there is nothing to watch.
const IDLE_SLEEP_MAX: Duration = Duration::from_secs(3600);

/// Groups kept ready for the next attempts of the bundle.
const GROUPS_READY: usize = 8;

/// Times that a dead agent's socket is emptied, 64 messages each: more than it can hold.
const LAST_ORDERS: u32 = 64;

/// Messages kept for an agent that does not read; then it is taken to be dead.
const OUTBOX_MAX: usize = 10_000;

/// Runs a shim whose bundle is described in `dir`; standard input is the agent's socket.
pub(crate) fn main(dir: &Path) -> ExitCode {
    sys::reset_signals();
    // Our own session: a Ctrl-C that ends the agent must not end us before we could freeze.
    let _leads_already = rustix::process::setsid();
    // What cages are made of is for everybody in them, and what tasks make is the same on every
    // node, whatever whoever started the agent lets others read.
    let _theirs = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // A dozen open files an attempt; a cage's init sets its own bound.
    let mut files = rustix::process::getrlimit(Resource::Nofile);
    files.current = files.maximum;
    let _as_it_was = rustix::process::setrlimit(Resource::Nofile, files);
    match Shim::open(dir) {
        Ok(mut shim) => {
            shim.serve();
            ExitCode::SUCCESS
        }
        Err(error) => {
            log(&format!("the shim could not start: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What the poll woke us for.
#[derive(Debug, Clone, Copy)]
enum Source {
    Agent,
    NewAgent,
    Filled,
    Status(AttemptId),
    Notices(AttemptId),
    Init(AttemptId),
}

/// A scratch directory is filled, or why it is not.
type Filled = (AttemptId, Result<u64, Reason>);

struct Shim {
    bundle: Bundle,
    /// Where cages come from, or why there are none.
    zygote: Result<Zygote, Reason>,
    /// What cages are built on stays as long as they come.
    _root: Option<Root>,
    groups: GroupPool,
    listener: OwnedFd,
    agent: Option<OwnedFd>,
    /// Messages as they go out.
    outbox: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
    runs: BTreeMap<AttemptId, Run>,
    waiting: VecDeque<(AttemptSpec, Bay)>,
    bays: Bays,
    journal: File,
    /// From the threads that fill scratch directories, and what wakes us for it.
    filled: mpsc::Receiver<Filled>,
    fill_done: mpsc::Sender<Filled>,
    wake: OwnedFd,
    /// From the threads that copy what attempts save themselves by; they wake us too.
    saved: mpsc::Receiver<save::Saved>,
    save_done: mpsc::Sender<save::Saved>,
    /// Takes mount namespaces of ended cages; see [`let_go`].
    old_mounts: mpsc::Sender<OwnedFd>,
    filling: usize,
    last_beat: Instant,
    lease_end: Instant,
    unwatched: bool,
    /// What each attempt may have now.
    share: Share,
    idle_since: Instant,
    /// Orders that were not understood.
    passed_over: u32,
    /// It has told that there is no root, and is of no more use.
    spent: bool,
    quit: bool,
}

impl Shim {
    fn open(dir: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let bundle: Bundle = bundle::read(&Bundle::file(dir))?;
        // SAFETY: descriptor 0 is ours from birth and nothing else here uses it.
        let agent = unsafe { OwnedFd::from_raw_fd(0) };
        let agent = rustix::io::fcntl_dupfd_cloexec(&agent, 3)?;
        let backend = backend(&bundle);
        // Where there is no root, each attempt is told why.
        let (zygote, root) = match image::prepare(&bundle) {
            Ok(root) => {
                let zygote = Zygote::start(&bundle, root.as_ref(), Means::of(&backend))?;
                (Ok(zygote), root)
            }
            Err(reason) => (Err(reason), None),
        };
        // Threads may exist from here on.
        let groups = GroupPool::new(backend, bundle.group_prefix.clone(), GROUPS_READY);
        let listener = listener(dir)?;
        let (fill_done, filled) = mpsc::channel();
        let (save_done, saved) = mpsc::channel();
        let now = Instant::now();
        Ok(Self {
            zygote,
            _root: root,
            groups,
            listener,
            agent: Some(agent),
            outbox: VecDeque::new(),
            buffer: buffer(),
            runs: BTreeMap::new(),
            waiting: VecDeque::new(),
            bays: Bays::open(&bundle)?,
            journal: bundle::open_lines(&bundle.journal())?,
            filled,
            fill_done,
            saved,
            save_done,
            wake: rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?,
            old_mounts: let_go(),
            filling: 0,
            last_beat: now,
            lease_end: now + Duration::from_millis(bundle.lease_left_ms),
            unwatched: false,
            share: Share::default(),
            idle_since: now,
            passed_over: 0,
            spent: false,
            quit: false,
            bundle,
        })
    }

    fn serve(&mut self) {
        while !self.quit {
            let woken = self.wait();
            for source in woken {
                match source {
                    Source::Agent => self.hear_agent(),
                    Source::NewAgent => self.greet_agent(),
                    Source::Filled => {
                        self.take_filled();
                        self.take_saved();
                    }
                    Source::Status(attempt) => self.hear_init(attempt),
                    Source::Notices(attempt) => {
                        if let Some(run) = self.runs.get_mut(&attempt) {
                            run.refuse(Instant::now());
                        }
                    }
                    Source::Init(attempt) => self.init_ended(attempt),
                }
            }
            self.tick();
        }
        for run in self.runs.values_mut() {
            run.kill();
        }
    }

    /// Sleeps until something happens or is due.
    fn wait(&self) -> Vec<Source> {
        let now = Instant::now();
        let mut sources = vec![Source::NewAgent, Source::Filled];
        let mut polls = vec![
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::new(&self.wake, PollFlags::IN),
        ];
        if let Some(agent) = &self.agent {
            let more = if self.outbox.is_empty() {
                PollFlags::empty()
            } else {
                PollFlags::OUT
            };
            sources.push(Source::Agent);
            polls.push(PollFd::new(agent, PollFlags::IN | more));
        }
        for (attempt, run) in &self.runs {
            let Some(cage) = &run.cage else { continue };
            // Of one that runs the last word comes with its end, and with nothing before it.
            if let Some(status) = cage.status.as_ref().filter(|_| run.clock.is_none()) {
                sources.push(Source::Status(*attempt));
                polls.push(PollFd::new(status, PollFlags::IN));
            }
            if let Some(notices) = &cage.notices
                && run.answers_at(now).is_none()
            {
                sources.push(Source::Notices(*attempt));
                polls.push(PollFd::new(notices, PollFlags::IN));
            }
            sources.push(Source::Init(*attempt));
            polls.push(PollFd::new(&cage.pidfd, PollFlags::IN));
        }
        let sleep = self.sleep();
        let timeout = Timespec {
            tv_sec: i64::try_from(sleep.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(sleep.subsec_nanos()),
        };
        // An interrupted or failed poll is the same as one that timed out.
        if !matches!(poll(&mut polls, Some(&timeout)), Ok(1..)) {
            return Vec::new();
        }
        let woken = sources.into_iter().zip(&polls);
        woken
            .filter(|(_, poll)| !poll.revents().is_empty())
            .map(|(source, _)| source)
            .collect()
    }

    fn sleep(&self) -> Duration {
        let idle = self.runs.is_empty() && self.waiting.is_empty() && self.outbox.is_empty();
        if idle && self.agent.is_some() {
            // Nothing is due before the agent says something: an idle PC is not woken.
            return IDLE_SLEEP_MAX;
        }
        let now = Instant::now();
        let mut due = now + SLEEP_MAX;
        for run in self.runs.values().filter(|run| run.clock.is_some()) {
            let looks = run.frozen.is_empty().then_some(run.watch.next);
            let still = run.still_by.map(|_| now + save::STILL_LOOK);
            let paces = run.pace_at().or(still);
            for at in [
                looks,
                paces,
                run.press_at,
                run.kill_at,
                run.time_is_up(now),
                run.answers_at(now),
            ]
            .into_iter()
            .flatten()
            {
                due = due.min(at);
            }
        }
        if !self.unwatched {
            due = due.min(self.last_beat + self.silence());
        }
        due.saturating_duration_since(now)
    }

    /// How long the agent may be silent.
    fn silence(&self) -> Duration {
        Duration::from_millis(self.bundle.beat_ms) * MISSED_BEATS
    }

    fn hear_agent(&mut self) {
        self.flush();
        // A bounded number at a time, so that the attempts get their turn too.
        for _ in 0..64 {
            let Some(agent) = &self.agent else { return };
            match receive::<ToShim>(agent, &mut self.buffer, RecvFlags::DONTWAIT) {
                Ok(Some((message, _none))) => self.obey(message),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                said => match said.as_ref().err().and_then(Foreign::behind) {
                    Some(foreign) => self.pass_over(foreign),
                    // It is gone: wait for the next one.
                    None => {
                        self.agent = None;
                        self.outbox.clear();
                    }
                },
            }
        }
    }

    fn obey(&mut self, message: ToShim) {
        match message {
            ToShim::Start { bay, spec } => self.order(*spec, bay),
            ToShim::Control { attempt, control } => self.control(attempt, control),
            ToShim::Beat { lease_left_ms } => {
                let now = Instant::now();
                self.last_beat = now;
                self.lease_end = now + Duration::from_millis(lease_left_ms);
                if std::mem::take(&mut self.unwatched) {
                    self.thaw_all(Cause::Unwatched);
                }
            }
            ToShim::Save { attempt } => self.save(attempt),
            ToShim::Place { attempt, cpu } => self.place(attempt, cpu),
            ToShim::Share(share) => self.set_share(share),
            ToShim::Hold { on: true } => self.freeze_all(Cause::Held, Instant::now()),
            ToShim::Hold { on: false } => self.thaw_all(Cause::Held),
            ToShim::Usage { attempt, ask } => {
                let usage = self.runs.get(&attempt).map(Run::usage);
                self.tell(FromShim::Usage { ask, usage });
            }
            ToShim::Quit => self.quit = self.runs.is_empty() && self.waiting.is_empty(),
        }
    }

    /// A new agent takes over; the old one, if it still hangs about, is let go.
    fn greet_agent(&mut self) {
        let Ok(agent) = accept_with(&self.listener, SocketFlags::CLOEXEC) else {
            return;
        };
        // What the old one ordered before it died comes first: the new one is told of it, and
        // gives no bay of it away.
        for _ in 0..LAST_ORDERS {
            self.hear_agent();
        }
        self.agent = Some(agent);
        self.outbox.clear();
        self.let_all_go();
        let running = self
            .runs
            .iter()
            .map(|(attempt, run)| (*attempt, run.started));
        let waiting = self.waiting.iter().map(|(spec, _)| (spec.attempt, None));
        let all = running.chain(waiting).collect();
        self.tell(FromShim::Running(all));
    }

    fn tell(&mut self, message: FromShim) {
        match serde_json::to_vec(&message) {
            Ok(text) => self.tell_text(text),
            Err(error) => log(&format!("a message could not be written: {error}")),
        }
    }

    fn tell_text(&mut self, text: Vec<u8>) {
        if self.agent.is_some() && self.outbox.len() < OUTBOX_MAX {
            self.outbox.push_back(text);
            self.flush();
        }
    }

    fn flush(&mut self) {
        while let (Some(agent), Some(message)) = (&self.agent, self.outbox.front()) {
            match send_text(agent, message, &[], SendFlags::DONTWAIT) {
                Ok(()) => drop(self.outbox.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.agent = None;
                    self.outbox.clear();
                }
            }
        }
    }
}

/// What the agent found out, while that holds: another agent that ends may take the group of all
/// tasks away, and an older one said nothing.
fn backend(bundle: &Bundle) -> Backend {
    let told = Backend::deserialize(&bundle.groups).ok();
    told.filter(Backend::stands).unwrap_or_else(|| {
        Backend::detect(&DetectOptions {
            parent_name: bundle.group_parent.clone(),
            domain: bundle.group_domain.clone(),
            ask_systemd: false,
            ..DetectOptions::default()
        })
    })
}

/// A thread that drops what it is sent. The last to let go of a mount namespace waits for every
/// processor of the PC (an RCU grace period); attempts have no time for that.
fn let_go() -> mpsc::Sender<OwnedFd> {
    let (sender, receiver) = mpsc::channel::<OwnedFd>();
    std::thread::spawn(move || receiver.into_iter().for_each(drop));
    sender
}

/// The socket where a new agent finds us.
fn listener(dir: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let _absent = std::fs::remove_file(dir.join("socket"));
    bundle::with_address(dir, |address| Ok(bind(&socket, address)?))?;
    listen(&socket, 4)?;
    Ok(socket)
}
