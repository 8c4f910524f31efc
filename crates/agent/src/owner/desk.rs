//! The desk at which an owner asks: takes a question, looks at what the watch and the history
//! know, and answers. Socket, page and terminal view all come here.

use super::guests::Guests;
use super::ledger::{Ledger, MINUTE_MS};
use super::limits::{NodeSettings, must_be_stricter};
use super::overview::{Beside, Identity, Judged, judge, overview, why};
use super::page::html::Shown;
use super::page::{Behind, Page};
use super::peer::{Peer, Registry};
use super::protocol::{Answer, Ask, LimitsView, Mode, Offered, Overview, Refusal, Slot, Today};
use super::record::{Moment, Recorder};
use super::wall;
use crate::watch::status::{Order, Status};
use gleaner_harvest::{OwnerWish, Settings};
use gleaner_model::{Bytes, Span, Time, Usage};
use gleaner_sense::OwnTime;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How long an order may take to show in the status; it is written to a disk on the way.
const ORDER_WAIT: Duration = Duration::from_secs(10);

/// Time between two looks for the timeline and the history.
const LOOK: Duration = Duration::from_secs(5);

/// Time between two writes because of new jobs; of what comes in between, the next look writes.
const NEWS: Duration = Duration::from_secs(1);

/// The minutes of an idle PC are written this seldom, so that a disk that sleeps goes on
/// sleeping; what a crash loses of them is a gap in a drawing.
const WRITE_MINUTES: u64 = 10;

/// Most days of history in one answer.
const DAYS_MAX: u32 = 31;

/// Days on the page.
const PAGE_DAYS: u32 = 7;

/// Most users whose browsers are heard because they asked for the page; a PC has a few.
const PAGE_USERS_MAX: usize = 64;

/// Minutes of a slot of today.
const SLOT_MINUTES: u64 = 10;

/// How long a count of the agent's files is good, and most files counted.
const FILES_GOOD: Duration = Duration::from_secs(30);
const FILES_MAX: usize = 50_000;

/// Files in the agent's directory.
const OWNER_FILE: &str = "owner-limits.json";
const ADMIN_FILE: &str = "admin-settings.json";

/// What tells the rest of the agent what the owner wants.
pub(crate) trait Bell: Send + Sync {
    /// A pause, its end, or the owner's settings.
    fn order(&self, order: Order);
    /// What the admin set.
    fn admin(&self, settings: Settings);
    /// Offer the pool at most so much from now on.
    fn offer(&self, memory: Option<Bytes>, disk: Option<Bytes>) -> Offered;
}

/// What a desk begins with.
pub(crate) struct Furniture {
    pub(crate) identity: Identity,
    pub(crate) home: PathBuf,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) bell: Box<dyn Bell>,
    pub(crate) guests: Guests,
    /// How the processor time of tasks is known.
    pub(crate) own: OwnTime,
    /// What the node does where nobody sets anything.
    pub(crate) base: Settings,
    /// The page's port; any free one where 0.
    pub(crate) page_port: u16,
}

/// Limits and who set them.
#[derive(Debug, Clone)]
struct Limits {
    owner: NodeSettings,
    admin: NodeSettings,
    offered: Offered,
}

pub(crate) struct Desk {
    has: Furniture,
    ledger: Mutex<Ledger>,
    limits: Mutex<Limits>,
    recorder: Recorder,
    page: tokio::sync::Mutex<Option<String>>,
    registry: Arc<Registry>,
    /// Users who asked for the page, as owners: they may be so by a group, which a socket of the
    /// internet does not tell.
    page_users: Mutex<BTreeSet<u32>>,
    files: Mutex<Option<(Instant, u64)>>,
    stop: CancellationToken,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

/// Sums of one minute, until it is over.
#[derive(Debug, Default)]
struct Minute {
    number: u64,
    looks: u32,
    owner: u32,
    tasks: u32,
    paused: u32,
    /// Whether tasks used anything.
    busy: bool,
    /// When a new job was written down.
    new_job: Option<Instant>,
    unwritten: u64,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks, so what is behind it is always whole.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// Opens history, limits and recorder in the agent's directory, and tells the watch what
    /// admin and owner said before. Blocks for the disk.
    ///
    /// # Errors
    /// Where the history cannot be read or written.
    pub(crate) fn open(has: Furniture, stop: CancellationToken) -> std::io::Result<Self> {
        let now = wall::now();
        let ledger = Ledger::open(&has.home, now)?;
        for (job, name, user) in ledger.names() {
            has.guests.know(job, name, user);
        }
        let owner = NodeSettings::kept_in(&has.home.join(OWNER_FILE));
        let limits = Limits {
            owner: owner.clone().unwrap_or_else(NodeSettings::least),
            admin: NodeSettings::kept_in(&has.home.join(ADMIN_FILE)).unwrap_or_default(),
            offered: Offered::default(),
        };
        let desk = Self {
            recorder: Recorder::open(&has.home, has.own.clone()),
            ledger: Mutex::new(ledger),
            limits: Mutex::new(limits.clone()),
            page: tokio::sync::Mutex::new(None),
            registry: Arc::new(Registry::of_this_pc()),
            page_users: Mutex::default(),
            files: Mutex::new(None),
            has,
            stop,
        };
        lock(&desk.ledger).close_open_pause(now);
        desk.has.bell.admin(limits.admin.as_admin(&desk.has.base));
        // Where the file cannot be read the watch's own copy stands, and next to nothing is offered
        // until the owner says anew how much: that loosens nothing.
        if let Some(owner) = owner {
            desk.has.bell.order(Order::Settings(owner.as_owner()));
        }
        desk.offer();
        Ok(desk)
    }

    /// Who may ask.
    pub(super) const fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Answers an owner, whom the kernel has named.
    pub(super) async fn answer_peer(self: &Arc<Self>, ask: Ask, peer: Peer) -> Answer {
        if ask == Ask::Page {
            let mut users = lock(&self.page_users);
            users.insert(peer.uid);
            while users.len() > PAGE_USERS_MAX {
                users.pop_first();
            }
        }
        self.answer(ask).await
    }

    /// Answers an owner.
    pub(crate) async fn answer(self: &Arc<Self>, ask: Ask) -> Answer {
        let answer = match ask {
            Ask::Status => self.overview().await.map(Answer::from),
            Ask::Why => Ok(self.why()),
            Ask::History { days } => Ok(self.history(days)),
            Ask::Today => Ok(Answer::Today(self.today())),
            Ask::Pause { until } => self.wish(OwnerWish::Pause { until }).await,
            Ask::Resume => self.wish(OwnerWish::Resume).await,
            Ask::Limits => Ok(self.limits_view()),
            Ask::SetLimits { limits } => self.set_limits(limits).await,
            Ask::Page => self.open_page().await,
            Ask::Record { on } => self.record(on).await,
            Ask::RecordExport => self.export(),
        };
        answer.unwrap_or_else(Answer::Refused)
    }

    async fn overview(self: &Arc<Self>) -> Result<Overview, Refusal> {
        let desk = Arc::clone(self);
        // Counting files waits for the disk.
        let files = tokio::task::spawn_blocking(move || desk.disk_used()).await;
        let beside = Beside {
            connected: self.has.guests.is_linked(),
            offered: lock(&self.limits).offered,
            disk_used: files.map_err(|error| Refusal::no(error.to_string()))?,
            today: lock(&self.ledger).totals(wall::midnight()),
        };
        let status = self.has.status.borrow();
        Ok(overview(
            &self.has.identity,
            &status,
            &self.has.guests,
            &beside,
        ))
    }

    fn why(&self) -> Answer {
        let (judged, status) = (self.judged(), self.has.status.borrow());
        Answer::Why(Box::new(why(&self.has.identity, &status, judged)))
    }

    /// What the PC does now and why.
    fn judged(&self) -> Judged {
        let offered = lock(&self.limits).offered.cpus;
        judge(&self.has.status.borrow(), offered, self.has.guests.wish())
    }

    fn history(&self, days: u32) -> Answer {
        let days = u64::from(days.clamp(1, DAYS_MAX) - 1);
        let from = wall::midnight() - Span::seconds(days * 24 * 3600);
        self.tally(wall::now());
        Answer::History(lock(&self.ledger).since(from, wall::day))
    }

    fn today(&self) -> Today {
        let start = wall::midnight();
        Today {
            start,
            slot: u32::try_from(SLOT_MINUTES * 60).unwrap_or(u32::MAX),
            slots: lock(&self.ledger).slots(start, wall::now(), SLOT_MINUTES),
        }
    }

    fn limits_view(&self) -> Answer {
        let limits = lock(&self.limits).clone();
        Answer::Limits(Box::new(LimitsView {
            name: self.has.identity.name.clone(),
            policy: self
                .admin_settings()
                .stricter(&limits.owner.as_owner())
                .policy,
            owner: limits.owner,
            admin: limits.admin,
            offered: limits.offered,
        }))
    }

    /// What holds without the owner.
    fn admin_settings(&self) -> Settings {
        lock(&self.limits).admin.as_admin(&self.has.base)
    }

    async fn set_limits(self: &Arc<Self>, wanted: NodeSettings) -> Result<Answer, Refusal> {
        wanted.check().map_err(Refusal::usage)?;
        let (admin, said) = (self.admin_settings(), lock(&self.limits).admin.clone());
        must_be_stricter(&wanted, &admin, &said).map_err(Refusal::no)?;
        self.keep_settings(OWNER_FILE, &wanted).await?;
        lock(&self.limits).owner = wanted.clone();
        self.has.bell.order(Order::Settings(wanted.as_owner()));
        self.offer();
        Ok(self.limits_view())
    }

    async fn keep_settings(&self, name: &str, settings: &NodeSettings) -> Result<(), Refusal> {
        let (path, settings) = (self.has.home.join(name), settings.clone());
        let write = tokio::task::spawn_blocking(move || settings.keep_in(&path));
        let wrote = write
            .await
            .map_err(|error| Refusal::no(error.to_string()))?;
        wrote.map_err(|error| Refusal::no(format!("the limits cannot be kept: {error}")))
    }

    /// Tells the pool what it may use of this PC at most.
    fn offer(&self) {
        let mut limits = lock(&self.limits);
        let least = |one: Option<Bytes>, other: Option<Bytes>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let memory = least(limits.owner.memory, limits.admin.memory);
        let disk = least(limits.owner.disk, limits.admin.disk);
        limits.offered = self.has.bell.offer(memory, disk);
    }

    /// The pool said what its admin set.
    async fn hear_admin(&self, json: &[u8]) {
        let admin = match NodeSettings::from_wire(json) {
            Ok(admin) => admin,
            Err(problem) => {
                tracing::error!(
                    target: "gleaner::owner", problem,
                    "the admin's settings make no sense to this version; the last ones hold"
                );
                return;
            }
        };
        if lock(&self.limits).admin == admin {
            return;
        }
        if let Err(refusal) = self.keep_settings(ADMIN_FILE, &admin).await {
            tracing::error!(target: "gleaner::owner", "{}", refusal.sentence);
        }
        lock(&self.limits).admin = admin.clone();
        self.has.bell.admin(admin.as_admin(&self.has.base));
        self.offer();
    }

    /// Opens the page, if it is not open, and says its address.
    pub(crate) async fn open_page(self: &Arc<Self>) -> Result<Answer, Refusal> {
        let mut page = self.page.lock().await;
        let url = match &*page {
            Some(url) => url.clone(),
            None => {
                let port = self.has.page_port;
                let opened = Page::open(Arc::clone(self), port, self.stop.clone()).await;
                let url = opened.map_err(|error| Refusal::no(error.to_string()))?;
                page.insert(url).clone()
            }
        };
        Ok(Answer::Page { url })
    }

    async fn record(&self, on: Option<bool>) -> Result<Answer, Refusal> {
        if let Some(on) = on {
            let recorder = self.recorder.clone();
            let switch = tokio::task::spawn_blocking(move || recorder.switch(on, wall::now()));
            let switched = switch
                .await
                .map_err(|error| Refusal::no(error.to_string()))?;
            switched.map_err(|error| Refusal::no(format!("nothing can be kept: {error}")))?;
        }
        let (on, gaps, since) = self.recorder.state();
        Ok(Answer::Record { on, gaps, since })
    }

    fn export(&self) -> Result<Answer, Refusal> {
        let usage = self.recorder.export().ok_or_else(|| {
            Refusal::no("nothing was recorded here; `gleaner owner record on` begins")
        })?;
        serde_json::to_value(usage)
            .map(Answer::Histogram)
            .map_err(|error| Refusal::no(error.to_string()))
    }

    /// Keeps history and timeline until `stop`.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut status = self.has.status.clone();
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut minute = Minute::default();
        self.note_mode().await;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                _ = ticks.tick() => self.look(&mut minute).await,
                Ok(()) = status.changed() => self.note_mode().await,
                () = self.has.guests.news() => self.hear_news(&mut minute).await,
                settings = self.has.guests.settings() => self.hear_admin(&settings).await,
            }
        }
        self.tally(wall::now());
        lock(&self.ledger).close_open_pause(wall::now());
        self.flush().await;
        self.recorder.keep();
    }

    /// A change of what the PC does is noted when it happens, and on the disk at once.
    async fn note_mode(self: &Arc<Self>) {
        let judged = self.judged();
        let urgent = {
            let mut ledger = lock(&self.ledger);
            ledger.changed(wall::now(), judged.mode, (&judged.rule, &judged.reason));
            ledger.is_urgent()
        };
        if urgent {
            self.flush().await;
        }
    }

    /// Whom an attempt runs for must be known though this agent dies in the next moment. Many
    /// small jobs wait for the next look instead of keeping the disk busy.
    async fn hear_news(self: &Arc<Self>, minute: &mut Minute) {
        self.note_mode().await;
        let news = self.tally(wall::now());
        minute.busy |= news;
        if news && minute.new_job.is_none_or(|then| then.elapsed() > NEWS) {
            minute.new_job = Some(Instant::now());
            self.flush().await;
        }
    }

    async fn look(self: &Arc<Self>, minute: &mut Minute) {
        let now = wall::now();
        {
            let mode = self.judged().mode;
            let status = self.has.status.borrow();
            for one in &status.running {
                let usage = Usage {
                    cpu_seconds: one.cpu_seconds,
                    memory_peak: one.memory.0,
                    read_bytes: one.disk.0,
                    ..Usage::default()
                };
                self.has.guests.uses(one.attempt, &usage);
            }
            let held = matches!(mode, Mode::Paused | Mode::Refused);
            minute.look(status.shares.owner, status.shares.harvested, held);
            self.recorder.note(Moment {
                now,
                hour: wall::hour_of_week(now),
                idle: 1000_u16.saturating_sub(status.shares.owner),
                input: status.sample.input.value().copied(),
                tasks_run: !status.running.is_empty(),
            });
        }
        minute.busy |= self.tally(now);
        let (number, urgent) = (now.ms / MINUTE_MS, lock(&self.ledger).is_urgent());
        if number == minute.number {
            if urgent {
                self.flush().await;
            }
            return;
        }
        let busy = minute.busy || urgent;
        if let Some(slot) = minute.close(number) {
            lock(&self.ledger).minute(number - 1, slot);
        }
        if busy || minute.unwritten >= WRITE_MINUTES {
            minute.unwritten = 0;
            self.flush().await;
        }
    }

    /// Moves what was done since the last time into the history; says whether there was any.
    fn tally(&self, now: Time) -> bool {
        let done = self.has.guests.take();
        let mut ledger = lock(&self.ledger);
        for (job, tally) in &done {
            let name = self.has.guests.name(*job);
            ledger.worked(now, *job, (&name.job, &name.user), tally);
        }
        !done.is_empty()
    }

    async fn flush(self: &Arc<Self>) {
        let desk = Arc::clone(self);
        let write = move || lock(&desk.ledger).flush(wall::now());
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(target: "gleaner::owner", %error, "the history is not written");
            }
            Err(error) => tracing::error!(target: "gleaner::owner", %error, "no history"),
        }
    }

    /// Bytes of the agent's directory, counted at most every half minute.
    fn disk_used(&self) -> u64 {
        let mut files = lock(&self.files);
        match *files {
            Some((counted, bytes)) if counted.elapsed() < FILES_GOOD => bytes,
            _ => {
                let bytes = count(&self.has.home);
                *files = Some((Instant::now(), bytes));
                bytes
            }
        }
    }
}

impl Behind for Desk {
    fn admits(&self, uid: u32) -> bool {
        let asked = lock(&self.page_users).contains(&uid);
        asked || self.registry.admits_uid(uid)
    }

    async fn shown(self: &Arc<Self>) -> Result<Shown, Refusal> {
        let overview = self.overview().await?;
        let Answer::History(history) = self.history(PAGE_DAYS) else {
            return Err(Refusal::no("the history cannot be read"));
        };
        Ok(Shown {
            overview,
            today: self.today(),
            history,
        })
    }

    /// Gives an order and waits until it holds: whoever pauses wants to know that it did.
    async fn wish(self: &Arc<Self>, wish: OwnerWish) -> Result<Answer, Refusal> {
        if let OwnerWish::Pause { until: Some(until) } = wish
            && until <= wall::now()
        {
            return Err(Refusal::usage("this pause would have ended already"));
        }
        let mut status = self.has.status.clone();
        self.has.bell.order(Order::Wish(wish));
        let holds = |status: &Status| match wish {
            OwnerWish::Pause { .. } => status.wish == Some(wish),
            OwnerWish::Resume => !matches!(status.wish, Some(OwnerWish::Pause { .. })),
        };
        match tokio::time::timeout(ORDER_WAIT, status.wait_for(holds)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(Refusal::no("the agent is stopping")),
            Err(_) => {
                let words = "the agent has not taken it yet; `gleaner owner status` tells when";
                return Err(Refusal::no(words));
            }
        }
        self.note_mode().await;
        self.overview().await.map(Answer::from)
    }
}

impl From<Overview> for Answer {
    fn from(overview: Overview) -> Self {
        Self::Status(Box::new(overview))
    }
}

impl Minute {
    fn look(&mut self, owner: u16, tasks: u16, paused: bool) {
        self.looks += 1;
        self.owner += u32::from(owner);
        self.tasks += u32::from(tasks);
        self.paused += u32::from(paused) * 1000;
    }

    /// Ends the minute, if there is anything of it, and begins another.
    fn close(&mut self, next: u64) -> Option<Slot> {
        let mean = |sum: u32| u16::try_from(sum / self.looks.max(1)).unwrap_or(u16::MAX);
        let slot = Slot {
            owner: mean(self.owner),
            tasks: mean(self.tasks),
            paused: mean(self.paused),
        };
        // The first minute is the rest of one, and one after a sleep is not the last one.
        let whole = self.number + 1 == next;
        *self = Self {
            number: next,
            new_job: self.new_job,
            unwritten: self.unwritten + 1,
            ..Self::default()
        };
        whole.then_some(slot)
    }
}

/// Bytes of the files under a directory, the first of them where there are very many.
fn count(dir: &Path) -> u64 {
    let (mut bytes, mut left, mut dirs) = (0_u64, FILES_MAX, vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        // A task's files come and go while this looks.
        let Ok(entries) = std::fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            if left == 0 {
                return bytes;
            }
            left -= 1;
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                dirs.push(entry.path());
            } else {
                // What it takes of the disk: a file with holes is smaller than it looks.
                let blocks = std::os::unix::fs::MetadataExt::blocks(&meta);
                bytes = bytes.saturating_add(blocks.saturating_mul(512));
            }
        }
    }
    bytes
}
