//! The driver over a store that fails when it is told to.

use super::*;
use gleaner_core::{
    AttemptRow, CheckpointRow, Event, MergeKind, Need, NewJob, NodeHello, NodeOffer, Reply, Row,
    Target,
};
use gleaner_model::{
    Bytes, Cpus, Digest, Engine, EngineChoice, GuestPrice, NodeId, OutputFile, Retry, TaskId,
    UserId,
};
use gleaner_store::{MemoryStore, ServerRow, StoreError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// A store on a disk that can be full.
#[derive(Debug, Default)]
struct Moody {
    inner: MemoryStore,
    full: AtomicBool,
}

impl Moody {
    fn mood(&self) -> Result<(), StoreError> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(StoreError::Full),
            false => Ok(()),
        }
    }
}

impl Store for Moody {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.inner.load()
    }
    fn commit(&self, rows: &[Row], server: &[ServerRow]) -> Result<(), StoreError> {
        self.mood()?;
        self.inner.commit(rows, server)
    }
    fn probe(&self) -> Result<(), StoreError> {
        self.mood()
    }
    fn job_body(&self, job: JobId) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.job_body(job)
    }
    fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRow>, StoreError> {
        self.inner.attempts(task)
    }
    fn last_attempts(&self, job: JobId, from: u32, to: u32) -> Result<Vec<AttemptRow>, StoreError> {
        self.inner.last_attempts(job, from, to)
    }
    fn results(&self, job: JobId, from: u32, limit: usize) -> Result<Vec<AttemptRow>, StoreError> {
        self.inner.results(job, from, limit)
    }
    fn merged(&self, job: JobId) -> Result<Vec<OutputFile>, StoreError> {
        self.inner.merged(job)
    }
    fn inline(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.inline(digest)
    }
    fn checkpoint(&self, task: TaskId) -> Result<Option<CheckpointRow>, StoreError> {
        self.inner.checkpoint(task)
    }

    fn purge(&self) -> Result<bool, StoreError> {
        self.mood()?;
        self.inner.purge()
    }

    fn is_referenced(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.inner.is_referenced(digest)
    }
}

fn job() -> NewJob {
    NewJob {
        user: UserId(1),
        name: "job".to_owned(),
        priority: 0,
        count: 3,
        need: Need {
            cpus: Cpus::ONE,
            memory: Bytes(1),
            disk: Bytes(1),
            engine: EngineChoice::Process,
            image: false,
            arch: None,
            labels: std::collections::BTreeMap::new(),
            saves: false,
        },
        retry: Retry::default(),
        merge: MergeKind::None,
        body: b"body".to_vec(),
    }
}

fn start_driver(store: &Arc<Moody>) -> (DriverThread, Handle) {
    let store: Arc<dyn Store> = Arc::<Moody>::clone(store);
    let loaded = store.load().unwrap();
    let (thread, handle, _due) = start(DriverParts { store, loaded }).unwrap();
    (thread, handle)
}

async fn connect(
    handle: &Handle,
    identity: &str,
) -> (NodeId, mpsc::Receiver<Vec<Outgoing>>, CancellationToken) {
    let (connected, heard, cut) = link(handle, identity).await;
    (connected.node, heard, cut)
}

async fn link(
    handle: &Handle,
    identity: &str,
) -> (Connected, mpsc::Receiver<Vec<Outgoing>>, CancellationToken) {
    let (sender, heard) = mpsc::channel(16);
    let (reply, connected) = oneshot::channel();
    let cut = CancellationToken::new();
    let hello = NodeHello {
        node: NodeId(0),
        name: identity.to_owned(),
        cpus: Cpus { milli: 8000 },
        memory: Bytes(1 << 40),
        disk: Bytes(1 << 40),
        arch: "x86_64".to_owned(),
        engines: vec![Engine::Process],
        guests: GuestPrice::Everything,
        images: true,
        labels: std::collections::BTreeMap::new(),
        machine: None,
        refused: None,
        held: Vec::new(),
    };
    let connect = Connect {
        identity: identity.to_owned(),
        version: "1".to_owned(),
        hello,
        link: Link {
            sender,
            _cut: cut.clone().drop_guard(),
        },
        reply,
    };
    assert!(handle.send(Message::Connect(Box::new(connect))).await);
    (connected.await.unwrap(), heard, cut)
}

async fn heard(from: &mut mpsc::Receiver<Vec<Outgoing>>) -> Vec<Outgoing> {
    tokio::time::timeout(PATIENCE, from.recv())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn nothing_leaves_when_a_commit_fails_and_all_goes_on_afterwards() {
    let store = Arc::new(Moody::default());
    let (thread, handle) = start_driver(&store);
    let (node, mut agent, cut) = connect(&handle, "a").await;
    assert!(matches!(heard(&mut agent).await[0], Outgoing::Welcome(n) if n == node));
    store.full.store(true, Ordering::SeqCst);
    let refused = handle.submit(job(), Vec::new()).await.unwrap_err();
    assert!(refused.full, "{refused:?}");
    assert!(refused.sentence.contains("full"), "{refused:?}");
    // The agent got no bundle of the job that was not stored, and its connection was cut.
    assert!(agent.recv().await.is_none());
    cut.cancelled().await;
    // It stays refused while the disk is full, and the reason can be asked for.
    let refused = handle
        .user(Event::Cancel(Target::Job(JobId(1))))
        .await
        .unwrap_err();
    assert!(refused.full);
    assert_eq!(handle.trouble(), Some(refused));
    store.full.store(false, Ordering::SeqCst);
    let recovered = async {
        while handle.trouble().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, recovered)
        .await
        .expect("it goes on when there is space");
    // The job that was refused does not exist; its number was never given.
    let reply = handle.submit(job(), Vec::new()).await.unwrap();
    assert_eq!(reply, Reply::Submitted(JobId(1)));
    let (again, mut agent, _cut) = connect(&handle, "a").await;
    assert_eq!(again, node);
    let said = heard(&mut agent).await;
    assert!(matches!(said[0], Outgoing::Welcome(_)));
    thread.join().await.unwrap();
}

#[tokio::test]
async fn a_new_connection_gets_nothing_that_was_meant_for_the_old_one() {
    let store = Arc::new(Moody::default());
    let (thread, handle) = start_driver(&store);
    let (node, mut first, cut) = connect(&handle, "a").await;
    let (again, mut second, _cut) = connect(&handle, "a").await;
    assert_eq!(node, again);
    cut.cancelled().await;
    assert!(matches!(heard(&mut first).await[0], Outgoing::Welcome(_)));
    assert!(first.recv().await.is_none());
    assert!(matches!(heard(&mut second).await[0], Outgoing::Welcome(_)));
    // The end of the first connection, heard late, does not end the second.
    let old = Connected {
        node,
        generation: 1,
    };
    handle.disconnect(old).await;
    let connected = handle
        .read(move |view| view.state.node(node).unwrap().connected)
        .await;
    assert!(connected.unwrap());
    thread.join().await.unwrap();
}

#[tokio::test]
async fn an_agent_that_does_not_read_is_cut() {
    let store = Arc::new(Moody::default());
    let (thread, handle) = start_driver(&store);
    let (node, agent, cut) = connect(&handle, "a").await;
    for request in 0..64 {
        let ask = gleaner_wire::v1::LogRequest {
            request,
            ..gleaner_wire::v1::LogRequest::default()
        };
        handle.send(Message::Tell(node, Outgoing::Log(ask))).await;
        // One batch each: the queue counts batches.
        handle.read(|_| ()).await.unwrap();
    }
    tokio::time::timeout(PATIENCE, cut.cancelled())
        .await
        .unwrap();
    let gone = async {
        while handle
            .read(move |view| view.state.node(node).unwrap().connected)
            .await
            .unwrap()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("the brain hears that it is gone");
    assert_eq!(handle.counters().links_cut.load(Ordering::SeqCst), 1);
    drop(agent);
    thread.join().await.unwrap();
}

#[tokio::test]
async fn revisions_change_with_jobs_and_wake_who_waits() {
    let store = Arc::new(Moody::default());
    let (thread, handle) = start_driver(&store);
    handle.submit(job(), Vec::new()).await.unwrap();
    let before = handle.changes().revision(JobId(1));
    let mut changes = handle.changes().watch(JobId(1));
    let reply = handle
        .user(Event::Cancel(Target::Job(JobId(1))))
        .await
        .unwrap();
    assert!(matches!(reply, Reply::Accepted(_)), "{reply:?}");
    tokio::time::timeout(PATIENCE, changes.changed())
        .await
        .unwrap()
        .unwrap();
    assert!(handle.changes().revision(JobId(1)) > before);
    thread.join().await.unwrap();
    let stopped = handle.submit(job(), Vec::new()).await.unwrap_err();
    assert_eq!(stopped, Trouble::stopping());
}

#[tokio::test]
async fn what_an_older_connection_offered_is_dropped() {
    let store = Arc::new(Moody::default());
    let (thread, handle) = start_driver(&store);
    let (older, _heard, _cut) = link(&handle, "a").await;
    let (newer, _heard, _cut) = link(&handle, "a").await;
    for (by, gib, now) in [(older, 1, 1 << 10), (newer, 2, 2)] {
        let offer = NodeOffer {
            node: by.node,
            cpus: Cpus { milli: 8000 },
            memory: Bytes(gib << 30),
            disk: Bytes(1 << 40),
            engines: vec![Engine::Process],
            images: true,
            machine: None,
            guests: GuestPrice::Everything,
            refused: None,
        };
        handle.offer(by, offer).await;
        // A disconnection of nobody comes behind it in the same queue.
        let nobody = Connected {
            node: NodeId(99),
            generation: 0,
        };
        handle.disconnect(nobody).await;
        let memory = async || {
            let look = move |view: &View<'_>| view.state.node(by.node).unwrap().memory;
            handle.read(look).await.unwrap()
        };
        let begun = std::time::Instant::now();
        while handle.queued() > 0 || memory().await != Bytes(now << 30) {
            assert!(begun.elapsed() < PATIENCE, "{gib}");
            tokio::task::yield_now().await;
        }
    }
    thread.join().await.unwrap();
}
