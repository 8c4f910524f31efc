//! A server without a brain: it takes a node in, sends what a test tells it to send, and keeps
//! what it hears. Blobs live in memory. It can vanish and come back.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use gleaner_model::{AttemptId, Digest};
use gleaner_wire::v1::agent_message::Kind;
use gleaner_wire::v1::pool_server::{Pool, PoolServer};
use gleaner_wire::v1::{self, server_message};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

const TOKEN: &str = "gln-node-s3cret";
const DEADLINE: Duration = Duration::from_secs(30);
/// The clock of a test may run far ahead of the beats that renew leases.
const LEASE_MS: u32 = 3_600_000;

pub(super) struct FakeServer {
    address: SocketAddr,
    tls: bool,
    fingerprint: String,
    shared: Arc<Shared>,
    heard: mpsc::UnboundedReceiver<Kind>,
    /// What came in between and was not asked for yet.
    kept: Vec<Kind>,
}

struct Shared {
    heard: mpsc::UnboundedSender<Kind>,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    away: bool,
    silent: bool,
    /// Connections that were turned away or broke off before a word was said.
    fruitless: u32,
    wants_poll: bool,
    /// Hellos are heard, but not welcomed yet.
    reserved: bool,
    /// The next node is told to beat so seldom that no test sees a second one.
    seldom: bool,
    connections: JoinSet<()>,
    stream: Option<mpsc::Sender<Result<v1::ServerBatch, Status>>>,
    /// Messages for a node that polls.
    queue: Vec<v1::ServerMessage>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    rotten: BTreeSet<Digest>,
    /// A download of these breaks off in the middle, once.
    broken: BTreeSet<Digest>,
    ranges: u32,
    uploads: u32,
    acknowledged: BTreeMap<AttemptId, u32>,
}

impl FakeServer {
    pub(super) async fn start(tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, fingerprint) = certificates();
        let (sender, heard) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            heard: sender,
            now: Mutex::default(),
        });
        let acceptor = tls.then_some(acceptor);
        tokio::spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self {
            address,
            tls,
            fingerprint,
            shared,
            heard,
            kept: Vec::new(),
        }
    }

    pub(super) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub(super) fn token(&self) -> String {
        format!("{TOKEN}-{}", self.fingerprint)
    }

    fn now<T>(&self, change: impl FnOnce(&mut Now) -> T) -> T {
        change(&mut self.shared.now.lock().unwrap())
    }

    /// All connections break, and no new one is taken.
    pub(super) fn vanish(&self) {
        self.now(|now| {
            now.away = true;
            now.stream = None;
            now.connections.abort_all();
        });
    }

    /// How often somebody came in vain.
    pub(super) fn fruitless(&self) -> u32 {
        self.now(|now| now.fruitless)
    }

    pub(super) fn come_back(&self) {
        self.now(|now| now.away = false);
    }

    /// Reports are heard, but not acknowledged.
    pub(super) fn be_silent(&self, silent: bool) {
        self.now(|now| now.silent = silent);
    }

    /// Only news come from the node that says hello next, no beat.
    pub(super) fn want_news_only(&self) {
        self.now(|now| now.seldom = true);
    }

    pub(super) fn want_poll(&self) {
        self.now(|now| now.wants_poll = true);
    }

    /// From now on a welcome waits until this is taken back.
    pub(super) fn be_reserved(&self, reserved: bool) {
        self.now(|now| now.reserved = reserved);
    }

    pub(super) fn add_blob(&self, content: &[u8]) -> Digest {
        let digest = Digest(*blake3::hash(content).as_bytes());
        self.now(|now| now.blobs.insert(digest, content.to_vec()));
        digest
    }

    pub(super) fn rot(&self, digest: Digest) {
        self.now(|now| now.rotten.insert(digest));
    }

    pub(super) fn break_off(&self, digest: Digest) {
        self.now(|now| now.broken.insert(digest));
    }

    pub(super) fn blob(&self, digest: Digest) -> Option<Vec<u8>> {
        self.now(|now| now.blobs.get(&digest).cloned())
    }

    /// Requests for a part of a blob; uploads.
    pub(super) fn counts(&self) -> (u32, u32) {
        self.now(|now| (now.ranges, now.uploads))
    }

    pub(super) fn acknowledged(&self, attempt: AttemptId) -> u32 {
        self.now(|now| now.acknowledged.get(&attempt).copied().unwrap_or(0))
    }

    pub(super) async fn send(&self, kind: server_message::Kind) {
        let message = v1::ServerMessage { kind: Some(kind) };
        let stream = self.now(|now| {
            if now.wants_poll {
                now.queue.push(message.clone());
            }
            now.stream.clone()
        });
        if let Some(stream) = stream {
            let batch = v1::ServerBatch {
                messages: vec![message],
                call_again_ms: 0,
            };
            stream.send(Ok(batch)).await.unwrap();
        }
    }

    /// The first message for which `want` has an answer; others are kept for later.
    pub(super) async fn hear<T>(&mut self, mut want: impl FnMut(&Kind) -> Option<T>) -> T {
        for at in 0..self.kept.len() {
            if let Some(found) = want(&self.kept[at]) {
                self.kept.remove(at);
                return found;
            }
        }
        tokio::time::timeout(DEADLINE, async {
            loop {
                let kind = self.heard.recv().await.unwrap();
                match want(&kind) {
                    Some(found) => return found,
                    None if matches!(kind, Kind::Beat(_)) => {}
                    None => self.kept.push(kind),
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("not heard; kept: {:?}", self.kept))
    }

    pub(super) async fn hello(&mut self) -> v1::Hello {
        self.hear(|kind| match kind {
            Kind::Hello(hello) => Some(hello.clone()),
            Kind::Beat(_)
            | Kind::Offer(_)
            | Kind::Progress(_)
            | Kind::Ended(_)
            | Kind::Saved(_)
            | Kind::LogChunk(_) => None,
        })
        .await
    }

    pub(super) async fn ended(&mut self, attempt: AttemptId) -> v1::Ended {
        self.hear(|kind| match kind {
            Kind::Ended(ended) if ended.attempt == Some(attempt.into()) => Some(ended.clone()),
            Kind::Hello(_)
            | Kind::Beat(_)
            | Kind::Offer(_)
            | Kind::Progress(_)
            | Kind::Ended(_)
            | Kind::Saved(_)
            | Kind::LogChunk(_) => None,
        })
        .await
    }

    /// Passes over everything that came so far.
    pub(super) fn forget(&mut self) {
        while self.heard.try_recv().is_ok() {}
        self.kept.clear();
    }

    /// What was kept and not asked for.
    pub(super) fn rest(&mut self) -> &[Kind] {
        while let Ok(kind) = self.heard.try_recv() {
            self.kept.push(kind);
        }
        &self.kept
    }
}

fn certificates() -> (TlsAcceptor, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let chain = vec![leaf.der().clone(), ca.der().clone()];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key.into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let fingerprint = blake3::hash(ca.der()).to_hex().to_string();
    (TlsAcceptor::from(Arc::new(config)), fingerprint)
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let router = Router::new()
        .route("/api/v1/blobs/missing", post(missing))
        .route("/api/v1/blobs/bulk", post(bulk))
        .route("/api/v1/blobs/{digest}", get(download).put(upload))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(Arc::clone(&shared));
    let pool = tonic::service::Routes::new(PoolServer::new(Service(Arc::clone(&shared))));
    let router = pool.into_axum_router().merge(router);
    while let Ok((tcp, _)) = listener.accept().await {
        let service = TowerToHyperService::new(router.clone());
        let tls = tls.clone();
        let mut now = shared.now.lock().unwrap();
        if now.away {
            now.fruitless += 1;
            continue;
        }
        let turned_away = Arc::clone(&shared);
        now.connections.spawn(async move {
            let builder = Builder::new(TokioExecutor::new());
            // A cut connection is part of these tests.
            let _cut = match tls {
                None => builder.serve_connection(TokioIo::new(tcp), service).await,
                Some(tls) => match tls.accept(tcp).await {
                    Ok(io) => builder.serve_connection(TokioIo::new(io), service).await,
                    Err(_) => {
                        turned_away.now.lock().unwrap().fruitless += 1;
                        Ok(())
                    }
                },
            };
        });
    }
}

struct Service(Arc<Shared>);

impl Service {
    fn answers(shared: &Shared, batch: &v1::AgentBatch) -> Vec<v1::ServerMessage> {
        let mut answers = Vec::new();
        for message in &batch.messages {
            let kind = message.kind.as_ref().unwrap();
            let mut now = shared.now.lock().unwrap();
            if let Kind::Hello(_) = kind {
                answers.push(server_message::Kind::Welcome(v1::Welcome {
                    node: 7,
                    lease_ms: LEASE_MS,
                    beat_ms: if now.seldom { 3_600_000 } else { 200 },
                    protocol: gleaner_wire::PROTOCOL,
                    settings: Vec::new(),
                }));
            }
            if let Kind::Ended(ended) = kind
                && !now.silent
            {
                let attempt = ended.attempt.unwrap();
                *now.acknowledged.entry(attempt.into()).or_default() += 1;
                answers.push(server_message::Kind::Acknowledge(v1::Acknowledge {
                    attempts: vec![attempt],
                }));
            }
        }
        let message = |kind| v1::ServerMessage { kind: Some(kind) };
        answers.into_iter().map(message).collect()
    }

    /// After the answers have left: what a test sends next must come behind a welcome.
    fn pass_on(shared: &Shared, batch: v1::AgentBatch) {
        for message in batch.messages {
            // The test may be over.
            let _late = shared.heard.send(message.kind.unwrap());
        }
    }

    fn authorized<T>(request: &Request<T>) -> Result<(), Status> {
        let bearer = request.metadata().get("authorization");
        match bearer.and_then(|value| value.to_str().ok()) {
            Some(value) if value.starts_with(&format!("Bearer {TOKEN}-")) => Ok(()),
            _ => Err(Status::unauthenticated(
                "this token is not known; make a new one",
            )),
        }
    }
}

#[tonic::async_trait]
impl Pool for Service {
    type LinkStream = ReceiverStream<Result<v1::ServerBatch, Status>>;

    async fn link(
        &self,
        request: Request<Streaming<v1::AgentBatch>>,
    ) -> Result<tonic::Response<Self::LinkStream>, Status> {
        Self::authorized(&request)?;
        let (sender, receiver) = mpsc::channel(64);
        let call_again_ms = {
            let mut now = self.0.now.lock().unwrap();
            now.stream = (!now.wants_poll).then(|| sender.clone());
            u32::from(now.wants_poll) * 100
        };
        let shared = Arc::clone(&self.0);
        let mut inbound = request.into_inner();
        tokio::spawn(async move {
            if call_again_ms > 0 {
                let batch = v1::ServerBatch {
                    messages: Vec::new(),
                    call_again_ms,
                };
                sender.send(Ok(batch)).await.unwrap();
                return;
            }
            while let Ok(Some(batch)) = inbound.message().await {
                let first = matches!(batch.messages[0].kind, Some(Kind::Hello(_)));
                let reserved = || shared.now.lock().unwrap().reserved;
                if first && reserved() {
                    Self::pass_on(&shared, batch.clone());
                    while reserved() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
                let answer = v1::ServerBatch {
                    messages: Self::answers(&shared, &batch),
                    call_again_ms: 0,
                };
                let sent = sender.send(Ok(answer)).await;
                Self::pass_on(&shared, batch);
                if sent.is_err() {
                    return;
                }
            }
        });
        Ok(tonic::Response::new(ReceiverStream::new(receiver)))
    }

    async fn poll(
        &self,
        request: Request<v1::AgentBatch>,
    ) -> Result<tonic::Response<v1::ServerBatch>, Status> {
        Self::authorized(&request)?;
        let batch = request.into_inner();
        let hello = matches!(batch.messages[0].kind, Some(Kind::Hello(_)));
        assert_eq!(batch.node, if hello { 0 } else { 7 });
        let mut messages = Self::answers(&self.0, &batch);
        Self::pass_on(&self.0, batch);
        messages.append(&mut self.0.now.lock().unwrap().queue);
        Ok(tonic::Response::new(v1::ServerBatch {
            messages,
            call_again_ms: 100,
        }))
    }
}

type Here = State<Arc<Shared>>;

async fn download(State(shared): Here, Path(digest): Path<String>, headers: HeaderMap) -> Response {
    let digest: Digest = digest.parse().unwrap();
    let mut now = shared.now.lock().unwrap();
    let Some(mut content) = now.blobs.get(&digest).cloned() else {
        let body = r#"{"error":"no such blob"}"#;
        return (StatusCode::NOT_FOUND, body).into_response();
    };
    if now.rotten.contains(&digest) {
        content[0] ^= 1;
    }
    let size = content.len();
    if now.broken.remove(&digest) {
        // Announces all and sends half.
        let half: Bytes = content[..size / 2].to_vec().into();
        let pieces: Vec<Result<Bytes, std::io::Error>> =
            vec![Ok(half), Err(std::io::Error::other("cut"))];
        let body = axum::body::Body::from_stream(tokio_stream::iter(pieces));
        return ([(header::CONTENT_LENGTH, size)], body).into_response();
    }
    let from = headers.get(header::RANGE).map(|range| {
        let range = range.to_str().unwrap();
        let from = range
            .strip_prefix("bytes=")
            .unwrap()
            .strip_suffix('-')
            .unwrap();
        from.parse::<usize>().unwrap()
    });
    match from {
        None => content.into_response(),
        Some(from) => {
            now.ranges += 1;
            let range = format!("bytes {from}-{}/{size}", size - 1);
            let rest = content.split_off(from);
            let headers = [(header::CONTENT_RANGE, range)];
            (StatusCode::PARTIAL_CONTENT, headers, rest).into_response()
        }
    }
}

async fn upload(State(shared): Here, Path(digest): Path<String>, body: Bytes) -> StatusCode {
    let digest: Digest = digest.parse().unwrap();
    assert_eq!(blake3::hash(&body).as_bytes(), &digest.0);
    let mut now = shared.now.lock().unwrap();
    now.blobs.insert(digest, body.to_vec());
    now.uploads += 1;
    StatusCode::OK
}

async fn bulk(State(shared): Here, body: Bytes) -> StatusCode {
    let (mut now, mut rest) = (shared.now.lock().unwrap(), &body[..]);
    while let Some((length, after)) = rest.split_first_chunk::<8>() {
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
        let (content, after) = after.split_at(length);
        let digest = Digest(*blake3::hash(content).as_bytes());
        now.blobs.insert(digest, content.to_vec());
        now.uploads += 1;
        rest = after;
    }
    StatusCode::OK
}

async fn missing(State(shared): Here, body: String) -> String {
    let asked: BTreeMap<String, Vec<Digest>> = serde_json::from_str(&body).unwrap();
    let now = shared.now.lock().unwrap();
    let lacking: Vec<_> = asked["digests"]
        .iter()
        .filter(|digest| !now.blobs.contains_key(digest))
        .collect();
    serde_json::to_string(&BTreeMap::from([("digests", lacking)])).unwrap()
}
