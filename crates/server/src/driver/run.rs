//! The driver's thread: drain, step, commit, release.

use super::batch::{Batch, EndFacts};
use super::handle::{Connect, Connected, FromNode, Link, Message, Outgoing, ReportQueue};
use super::side::{Side, View};
use super::{Board, DriverParts};
use crate::ServerError;
use crate::error::Trouble;
use gleaner_core::{Event, NewJob, Reply, Row, State};
use gleaner_model::{Digest, JobId, NodeId, Time};
use gleaner_store::{Loaded, ServerRow, Store, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Most events in one batch: some ten milliseconds of work before the commit.
const BATCH_EVENTS: u64 = 4096;

/// How long the load is measured before it is believed.
const WINDOW: Duration = Duration::from_millis(100);

/// Reports in a window from which on the pool counts as loaded: 320 a second, which is more than
/// somebody who runs one small task after the other makes.
const LOADED_EVENTS: u64 = 32;

/// How far apart commits of a loaded pool are where nothing but reports came. Each has a price
/// that does not depend on what is in it; agents hold their next tasks already, so that a later
/// acknowledgement costs them nothing. What users ask is never made to wait, nor is anything in
/// a pool that is not loaded.
const LINGER: Duration = Duration::from_millis(100);

/// How often time passes for the brain.
const TICK: Duration = Duration::from_millis(250);

/// First and longest wait between two tries to store after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The thread; ends when it is told to stop.
#[derive(Debug)]
pub(crate) struct DriverThread {
    thread: std::thread::JoinHandle<()>,
    stop: mpsc::Sender<Message>,
    /// Closed when the thread ends, however it does.
    ended: oneshot::Receiver<()>,
}

impl DriverThread {
    /// Returns when the thread has ended; before it was told to stop, because it panicked.
    pub(crate) async fn ended(&mut self) {
        // Nothing is ever sent: the other end goes with the thread.
        let _closed = (&mut self.ended).await;
    }

    /// Lets the driver commit what is queued, and waits for it.
    pub(crate) async fn join(self) -> Result<(), ServerError> {
        let Self { thread, stop, .. } = self;
        let _ended_before = stop.send(Message::Stop).await;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        joined
            .map_err(|_| ServerError::Panicked)?
            .map_err(|_| ServerError::Panicked)
    }
}

pub(super) fn spawn(
    parts: DriverParts,
    (stop, asked, reported): (mpsc::Sender<Message>, mpsc::Receiver<Message>, ReportQueue),
    board: Arc<Board>,
    merges: mpsc::UnboundedSender<JobId>,
) -> Result<DriverThread, ServerError> {
    let failed = |source| ServerError::Data {
        what: "start a thread for",
        path: "the driver".into(),
        source,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.map_err(failed)?;
    let mut driver = Driver {
        clock: Clock::new(parts.loaded.snapshot.latest),
        store: parts.store,
        brain: None,
        links: BTreeMap::new(),
        gone: Vec::new(),
        generation: 0,
        board,
        merges,
        load: Load::new(),
        backoff: BACKOFF.0,
        retry_at: Instant::now(),
    };
    let loaded = parts.loaded;
    let (ends, ended) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("driver".into())
        .spawn(move || {
            let _ends: oneshot::Sender<()> = ends;
            driver.restore(loaded);
            runtime.block_on(driver.run(Queues { asked, reported }));
        });
    Ok(DriverThread {
        thread: thread.map_err(failed)?,
        stop,
        ended,
    })
}

/// The brain's clock: the wall at the start, then only forward.
struct Clock {
    base: Time,
    started: Instant,
}

impl Clock {
    fn new(latest: Time) -> Self {
        Self {
            base: crate::wall::now().max(latest),
            started: Instant::now(),
        }
    }

    fn now(&self) -> Time {
        let elapsed = u64::try_from(self.started.elapsed().as_millis());
        self.base
            + gleaner_model::Span {
                ms: elapsed.unwrap_or(u64::MAX),
            }
    }
}

/// What is dropped and rebuilt when a commit fails.
struct Brain {
    state: State,
    side: Side,
}

struct Driver {
    clock: Clock,
    store: Arc<dyn Store>,
    /// None between a failed commit and the next that works.
    brain: Option<Brain>,
    links: BTreeMap<NodeId, (u64, Link)>,
    /// Nodes whose connection was cut since the last batch: the brain hears of it with the next.
    gone: Vec<NodeId>,
    generation: u64,
    board: Arc<Board>,
    merges: mpsc::UnboundedSender<JobId>,
    load: Load,
    backoff: Duration,
    retry_at: Instant,
}

/// Where messages come from.
struct Queues {
    /// What is answered as soon as it can be: users, connections, the server itself.
    asked: mpsc::Receiver<Message>,
    /// What agents report.
    reported: ReportQueue,
}

impl Queues {
    /// Waits for messages: at most until `wake`, and for reports not before `linger`.
    async fn wait(&mut self, messages: &mut Vec<Message>, linger: Instant, wake: Instant) {
        let lingers = linger > Instant::now();
        let wake = if lingers { wake.min(linger) } else { wake };
        tokio::select! {
            biased;
            message = self.asked.recv() => messages.extend(message),
            message = self.reported.messages.recv(), if !lingers => messages.extend(message),
            () = self.reported.enough.notified(), if lingers => {}
            () = tokio::time::sleep_until(wake.into()) => {}
        }
    }

    fn next(&mut self) -> Option<Message> {
        let asked = self.asked.try_recv().ok();
        asked.or_else(|| self.reported.messages.try_recv().ok())
    }
}

/// How thick reports come.
struct Load {
    since: Instant,
    events: u64,
    loaded: bool,
    last_commit: Instant,
}

impl Load {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            since: now,
            events: 0,
            loaded: false,
            last_commit: now,
        }
    }

    fn count(&mut self, events: u64) {
        self.events += events;
        let window = self.since.elapsed();
        if window >= WINDOW {
            // A quiet time makes a window long: what counts is the rate.
            let enough = u128::from(LOADED_EVENTS) * window.as_millis();
            self.loaded = u128::from(self.events) * WINDOW.as_millis() >= enough;
            self.events = 0;
            self.since = Instant::now();
        }
    }

    /// Until when reports may wait.
    fn linger(&self) -> Instant {
        match self.loaded {
            true => self.last_commit + LINGER,
            false => self.last_commit,
        }
    }
}

impl Driver {
    async fn run(&mut self, mut queues: Queues) {
        let mut messages = Vec::new();
        let mut next_tick = Instant::now() + TICK;
        loop {
            queues
                .wait(&mut messages, self.load.linger(), next_tick)
                .await;
            let tick = Instant::now() >= next_tick;
            if tick {
                next_tick = Instant::now() + TICK;
            }
            let stop = match self.brain.take() {
                Some(brain) => self.batch(brain, &mut messages, &mut queues, tick),
                None => {
                    messages.extend(std::iter::from_fn(|| queues.next()));
                    queues.reported.waiting.store(0, Ordering::Relaxed);
                    self.refuse(&mut messages)
                }
            };
            if stop {
                return;
            }
        }
    }

    /// Steps and commits all that is here. True where the driver must end.
    fn batch(
        &mut self,
        mut brain: Brain,
        messages: &mut Vec<Message>,
        queues: &mut Queues,
        tick: bool,
    ) -> bool {
        let (mut batch, mut stop) = (Batch::default(), false);
        for node in std::mem::take(&mut self.gone) {
            self.step(&mut brain, &mut batch, Event::Gone(node), None);
        }
        for message in messages.drain(..) {
            stop |= self.take(&mut brain, message, &mut batch);
        }
        while batch.events < BATCH_EVENTS {
            let Some(message) = queues.next() else {
                break;
            };
            stop |= self.take(&mut brain, message, &mut batch);
        }
        if tick {
            self.step(&mut brain, &mut batch, Event::Tick, None);
        }
        brain
            .side
            .rows(std::mem::take(&mut batch.touched), &mut batch.server);
        queues
            .reported
            .waiting
            .fetch_sub(batch.reports, Ordering::Relaxed);
        self.load.count(batch.reports);
        match self.commit(&batch.rows, &batch.server) {
            Ok(()) => {
                self.release(&brain, batch);
                self.brain = Some(brain);
            }
            // The batch is dropped: whoever waits for an answer hears of the trouble.
            Err(error) => self.fail(&error),
        }
        stop
    }

    fn commit(&mut self, rows: &[Row], server: &[ServerRow]) -> Result<(), StoreError> {
        if rows.is_empty() && server.is_empty() {
            return Ok(());
        }
        self.store.commit(rows, server)?;
        self.load.last_commit = Instant::now();
        let counters = &self.board.counters;
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters
            .rows
            .fetch_add((rows.len() + server.len()) as u64, Ordering::Relaxed);
        Ok(())
    }

    fn step(
        &self,
        brain: &mut Brain,
        batch: &mut Batch,
        event: Event,
        end: Option<&EndFacts>,
    ) -> Option<Reply> {
        batch.events += u64::from(event != Event::Tick);
        let actions = brain.state.step(self.clock.now(), event);
        batch.absorb(actions, end, &mut brain.side)
    }

    fn take(&mut self, brain: &mut Brain, message: Message, batch: &mut Batch) -> bool {
        match message {
            Message::Submit(job, needs, answer) => {
                if let Some(reply) = self.submit(brain, batch, job, &needs) {
                    batch.replies.push((answer, reply));
                }
            }
            Message::User(event, answer) => {
                // An event that the brain does not answer is done all the same.
                let reply = self.step(brain, batch, event, None);
                batch
                    .replies
                    .push((answer, reply.unwrap_or(Reply::Accepted(0))));
            }
            Message::Rows(rows, event, answer) => {
                rows.iter().for_each(|row| brain.side.learn(row));
                // A job may have been deleted while its results were merged.
                let known = |row: &ServerRow| row.job().is_none_or(|job| brain.state.has_job(job));
                batch.server.extend(rows.into_iter().filter(known));
                if let Some(event) = event {
                    self.step(brain, batch, event, None);
                }
                batch.stored.push(answer);
            }
            Message::Connect(connect) => self.connect(brain, batch, *connect),
            Message::Node(reports) => {
                batch.reports += reports.len() as u64;
                for FromNode { event, blobs } in reports {
                    if let Event::Ended(end) = &event {
                        let facts = EndFacts::new(end, blobs);
                        self.step(brain, batch, event, Some(&facts));
                    } else {
                        self.step(brain, batch, event, None);
                    }
                }
            }
            Message::Offer(by, offer) => {
                // What an older connection offered is no longer so: the last hello says more.
                if self.links.get(&by.node).map(|link| link.0) == Some(by.generation) {
                    self.step(brain, batch, Event::Offer(offer), None);
                }
            }
            Message::Disconnect(gone) => self.disconnect(brain, batch, gone),
            Message::Tell(node, message) => {
                batch.outgoing.entry(node).or_default().push(message);
            }
            Message::Read(look) => batch.reads.push(look),
            Message::Stop => return true,
        }
        false
    }

    fn submit(
        &self,
        brain: &mut Brain,
        batch: &mut Batch,
        job: NewJob,
        needs: &[Digest],
    ) -> Option<Reply> {
        let reply = self.step(brain, batch, Event::Submit(job), None);
        if let Some(Reply::Submitted(id)) = &reply {
            let refs = needs.iter().map(|digest| ServerRow::Ref(*id, *digest));
            batch.server.extend(refs);
        }
        reply
    }

    fn connect(&mut self, brain: &mut Brain, batch: &mut Batch, connect: Connect) {
        let Connect {
            identity,
            version,
            mut hello,
            link,
            reply,
        } = connect;
        let (node, row) = brain.side.identify(&identity, &hello.name, &version);
        batch.server.extend(row);
        hello.node = node;
        self.generation += 1;
        // The connection before, if there is one, is cut by being dropped here.
        self.links.insert(node, (self.generation, link));
        // Whatever was meant for the connection before must not reach this one: the hello says
        // that it never came.
        batch.outgoing.insert(node, vec![Outgoing::Welcome(node)]);
        let connected = Connected {
            node,
            generation: self.generation,
        };
        batch.connected.push((reply, connected));
        self.step(brain, batch, Event::Hello(hello), None);
    }

    fn disconnect(&mut self, brain: &mut Brain, batch: &mut Batch, gone: Connected) {
        let current = self.links.get(&gone.node).map(|link| link.0);
        if current == Some(gone.generation) {
            self.links.remove(&gone.node);
            self.step(brain, batch, Event::Gone(gone.node), None);
        }
    }

    /// Lets out what waited for the commit.
    fn release(&mut self, brain: &Brain, batch: Batch) {
        let counters = &self.board.counters;
        counters.events.fetch_add(batch.events, Ordering::Relaxed);
        counters
            .dispatched
            .fetch_add(batch.dispatched, Ordering::Relaxed);
        counters.done.fetch_add(batch.done, Ordering::Relaxed);
        for job in batch.changed {
            self.board.changes.bump(job, brain.state.is_over(job));
        }
        for job in batch.gone {
            self.board.changes.forget(job);
        }
        // Whoever sent an event may have stopped waiting: nothing to tell them.
        for (answer, connected) in batch.connected {
            let _gone = answer.send(connected);
        }
        for (node, messages) in batch.outgoing {
            self.send(node, messages);
        }
        for (answer, reply) in batch.replies {
            let _gone = answer.send(Ok(reply));
        }
        for answer in batch.stored {
            let _gone = answer.send(Ok(()));
        }
        for job in batch.merges {
            let _stopping = self.merges.send(job);
        }
        let view = View {
            state: &brain.state,
            side: &brain.side,
        };
        for look in batch.reads {
            look(&view);
        }
    }

    /// Hands messages to an agent's connection. One that does not take them is cut: it connects
    /// again and says what it holds.
    fn send(&mut self, node: NodeId, messages: Vec<Outgoing>) {
        let Some((_, link)) = self.links.get(&node) else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(_)) = link.sender.try_send(messages) {
            tracing::warn!(%node, "an agent does not read its messages; its connection is cut");
            self.board
                .counters
                .links_cut
                .fetch_add(1, Ordering::Relaxed);
            self.links.remove(&node);
            self.gone.push(node);
        }
    }

    fn restore(&mut self, mut loaded: Loaded) {
        let mut side = Side::new(&mut loaded);
        let (state, actions) = State::restore(loaded.snapshot, self.clock.now());
        let mut batch = Batch::default();
        batch.absorb(actions, None, &mut side);
        let brain = Brain { state, side };
        // What a restart makes due is as durable as everything else before it leaves.
        match self.commit(&batch.rows, &batch.server) {
            Ok(()) => {
                self.release(&brain, batch);
                self.brain = Some(brain);
                self.backoff = BACKOFF.0;
                self.board.set_trouble(None);
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Nothing of the batch leaves. Connections are cut: after the rebuild agents say anew what
    /// they hold.
    fn fail(&mut self, error: &StoreError) {
        tracing::error!(%error, "a batch could not be stored; none of it was answered");
        self.board
            .counters
            .failed_commits
            .fetch_add(1, Ordering::Relaxed);
        self.board.set_trouble(Some(Trouble {
            sentence: error.to_string(),
            full: matches!(error, StoreError::Full),
        }));
        self.links.clear();
        self.gone.clear();
        self.brain = None;
        self.retry_at = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF.1);
    }

    /// While the store takes nothing: answers go unsent (their askers hear of the trouble), and
    /// from time to time the store is tried.
    fn refuse(&mut self, messages: &mut Vec<Message>) -> bool {
        let stop = messages
            .iter()
            .any(|message| matches!(message, Message::Stop));
        messages.clear();
        if Instant::now() >= self.retry_at {
            match self.store.probe().and_then(|()| self.store.load()) {
                Ok(loaded) => {
                    tracing::info!("the store takes rows again");
                    self.restore(loaded);
                }
                Err(error) => self.fail(&error),
            }
        }
        stop
    }
}
