//! The way to the server: one gRPC stream that comes back after every cut, or polls.
//!
//! It owns the connection and nothing else: what a message means, what a node holds and what is
//! sent again is the dispatch loop's business. In: [`v1::AgentMessage`]s over a queue made new
//! for each connection. Out: [`Input`]s.

pub(crate) mod backoff;
mod poll;
mod stream;
pub(crate) mod tls;
pub(crate) mod token;

use backoff::wait;

use crate::AgentError;
use crate::condition::Condition;
use crate::config::{AgentConfig, Token};
use crate::error::causes;
use crate::input::{Input, Inputs};
use gleaner_model::AttemptId;
use gleaner_wire::v1::pool_client::PoolClient;
use gleaner_wire::{MESSAGE_BYTES_MAX, v1};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

/// Most messages in one batch; a thousand cost the same write as one.
const BATCH_MAX: usize = 1024;

/// About the most bytes in one batch; a quarter of what a receiver accepts, since one message
/// more may be added.
const BATCH_BYTES: usize = MESSAGE_BYTES_MAX / 4;

/// Server batches that wait for the dispatch loop; the stream's flow control does the rest.
const INBOUND_MAX: usize = 16;

/// Wait for a connection, a welcome or the answer to a poll, in seconds.
const ANSWER_S: u64 = 15;

/// A try that took so long was a wait by itself: a server whose disk is full holds an agent until there
/// is space, and the next try should begin at once.
const HELD: Duration = Duration::from_secs(5);

/// A silent connection is probed after this many seconds, so that a server that vanished without
/// a word is noticed before the leases are over.
const PROBE_S: u64 = 10;

/// Beats that go out while the dispatch loop takes note of none. A loop that hangs ends nothing and
/// reports nothing: the server must not be told for ever that its tasks are in good hands.
const UNHEARD_MAX: u32 = 2;

/// What the link needs to know.
#[derive(Debug)]
pub(crate) struct Link {
    endpoint: Endpoint,
    host: Host,
    authorization: MetadataValue<Ascii>,
    poll: bool,
    inputs: Inputs,
    inbound: Arc<Semaphore>,
    condition: watch::Receiver<Condition>,
    /// Told when so many attempts of a job have ended here that the pool should hear of it.
    ends_due: Arc<Notify>,
    /// Beats of which the dispatch loop has not taken note.
    unheard: Arc<AtomicU32>,
}

/// Where to connect, and how to make it safe.
#[derive(Debug, Clone)]
struct Host {
    address: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// How a session ended.
enum Over {
    /// The agent stops.
    Stopped,
    /// The server wants this node to poll.
    WantsPoll,
    /// The connection broke, or never was.
    Broken(Status),
}

impl Link {
    /// Checks the settings; connects to nothing yet.
    pub(crate) fn new(
        config: &AgentConfig,
        tls: Option<&ClientConfig>,
        inputs: Inputs,
        (condition, ends_due): (watch::Receiver<Condition>, Arc<Notify>),
    ) -> Result<Self, AgentError> {
        let uri = server_uri(&config.server)?;
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(443);
        let tls = tls
            .map(|tls| {
                let mut tls = tls.clone();
                tls.alpn_protocols = vec![b"h2".to_vec()];
                let bare = host.trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(bare).map_err(|_| setting(&config.server))?;
                Ok((Arc::new(tls), name))
            })
            .transpose()?;
        // The connector below makes the connection safe, so tonic must not try to.
        let plain = format!("http://{host}:{port}");
        let endpoint = Endpoint::from_shared(plain)
            .map_err(|_| setting(&config.server))?
            .origin(uri.clone())
            .connect_timeout(Duration::from_secs(ANSWER_S))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(PROBE_S))
            .keep_alive_timeout(Duration::from_secs(PROBE_S))
            .user_agent(concat!("gleaner-agent/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| AgentError::Tls(error.to_string()))?;
        Ok(Self {
            endpoint,
            host: Host {
                address: format!("{host}:{port}"),
                tls,
            },
            authorization: authorization(&config.token)?,
            poll: config.poll,
            inputs,
            inbound: Arc::new(Semaphore::new(INBOUND_MAX)),
            condition,
            ends_due,
            unheard: Arc::default(),
        })
    }

    /// Keeps the node connected until `stop`.
    ///
    /// # Errors
    /// Where the server refuses the token before it ever took it.
    pub(crate) async fn keep(mut self, stop: CancellationToken) -> Result<(), AgentError> {
        let (mut failures, mut welcomed) = (0_u32, false);
        loop {
            let begun = Instant::now();
            let (over, met) = self.session(&stop).await;
            self.inputs.send(Input::LinkDown);
            welcomed |= met;
            if met || begun.elapsed() >= HELD {
                failures = 0;
            }
            let status = match over {
                Over::Stopped => return Ok(()),
                Over::WantsPoll => {
                    self.poll = true;
                    continue;
                }
                Over::Broken(status) => status,
            };
            let refused = matches!(
                status.code(),
                Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition
            );
            if refused && !welcomed {
                return Err(AgentError::Refused(status.message().to_owned()));
            }
            failures = failures.saturating_add(1);
            let chance = crate::home::random::<8>().map_or(0, u64::from_le_bytes);
            let wait = wait(failures, chance);
            let why = explained(status.message());
            if status.code() == Code::Aborted {
                tracing::debug!(target: "gleaner::link", %why, "linking anew, by our own wish");
            } else {
                tracing::warn!(target: "gleaner::link", %why, ?wait, "no link to the server");
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One connection, from hello to its end; also says whether the server welcomed the node.
    async fn session(&mut self, stop: &CancellationToken) -> (Over, bool) {
        let mut met = false;
        let work = async {
            let channel = self.connect().await?;
            let client = PoolClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(2 * MESSAGE_BYTES_MAX);
            match self.poll {
                true => self.call(client, &mut met).await,
                false => self.stream(client, &mut met).await,
            }
        };
        let over = tokio::select! {
            () = stop.cancelled() => Over::Stopped,
            over = work => over.unwrap_or_else(Over::Broken),
        };
        (over, met)
    }

    async fn connect(&self) -> Result<Channel, Status> {
        let host = self.host.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let host = host.clone();
            async move { host.open().await.map(TokioIo::new) }
        });
        let connect = self.endpoint.connect_with_connector(connector);
        tokio::time::timeout(Duration::from_secs(ANSWER_S), connect)
            .await
            .map_err(|_| Status::deadline_exceeded("the server does not answer"))?
            .map_err(|error| Status::unavailable(causes(&error)))
    }

    /// What this node is and holds, from the dispatch loop.
    async fn hello(&self) -> Result<v1::AgentMessage, Status> {
        let (answer, hello) = oneshot::channel();
        self.inputs.send(Input::Connecting(answer));
        let hello = hello
            .await
            .map_err(|_| Status::cancelled("the agent stops"))?;
        Ok(message(v1::agent_message::Kind::Hello(hello)))
    }

    /// Hands a batch of the server to the dispatch loop; tells whether polling was asked for.
    async fn deliver(&self, batch: v1::ServerBatch) -> Result<(), Status> {
        let permit = Arc::clone(&self.inbound)
            .acquire_owned()
            .await
            .map_err(|_| Status::cancelled("the agent stops"))?;
        self.inputs.send(Input::FromServer(batch, permit));
        Ok(())
    }

    fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request
            .metadata_mut()
            .insert("authorization", self.authorization.clone());
        request
    }

    /// A fresh queue for what goes to the server, known to the dispatch loop from the welcome on.
    fn welcomed(&self, welcome: &v1::Welcome) -> mpsc::UnboundedReceiver<v1::AgentMessage> {
        let (outgoing, queue) = mpsc::unbounded_channel();
        self.inputs.send(Input::LinkUp {
            lease_ms: welcome.lease_ms,
            settings: welcome.settings.clone(),
            outgoing,
        });
        queue
    }

    /// None while the dispatch loop hangs: the node falls silent, and what it holds goes elsewhere.
    fn beat(&self) -> Option<v1::AgentMessage> {
        if self.unheard.load(Ordering::Relaxed) >= UNHEARD_MAX {
            tracing::warn!(target: "gleaner::link", "the dispatch loop hangs; no beat is sent");
            return None;
        }
        self.unheard.fetch_add(1, Ordering::Relaxed);
        self.inputs.send(Input::Beaten(Arc::clone(&self.unheard)));
        let condition = self.condition.borrow();
        Some(message(v1::agent_message::Kind::Beat(v1::Beat {
            state: condition.state.as_str().to_owned(),
            reason: condition.reason.clone(),
        })))
    }
}

impl Host {
    async fn open(self) -> std::io::Result<Box<dyn Io>> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(match self.tls {
            None => Box::new(tcp),
            Some((config, name)) => {
                let connector = tokio_rustls::TlsConnector::from(config);
                Box::new(connector.connect(name, tcp).await?)
            }
        })
    }
}

/// A connection, safe or plain.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Whether the server's address asks for TLS.
pub(crate) fn wants_tls(server: &str) -> Result<bool, AgentError> {
    Ok(server_uri(server)?.scheme_str() == Some("https"))
}

fn server_uri(server: &str) -> Result<Uri, AgentError> {
    let uri: Uri = server.parse().map_err(|_| setting(server))?;
    let host = uri.host().unwrap_or_default();
    let loopback = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(uri),
        Some("http") if loopback => Ok(uri),
        _ => Err(setting(server)),
    }
}

fn setting(server: &str) -> AgentError {
    AgentError::Setting {
        setting: "server",
        problem: format!(
            "{server:?} is not an address; write https://HOST:PORT (http:// only for loopback)"
        ),
    }
}

fn authorization(token: &Token) -> Result<MetadataValue<Ascii>, AgentError> {
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {}", token.reveal())
            .parse()
            .map_err(|_| AgentError::Setting {
                setting: "token",
                problem: "it has characters that no token has; copy it again".to_owned(),
            })?;
    value.set_sensitive(true);
    Ok(value)
}

pub(crate) const fn message(kind: v1::agent_message::Kind) -> v1::AgentMessage {
    v1::AgentMessage { kind: Some(kind) }
}

/// About how many bytes a message is on the wire.
fn weight(message: &v1::AgentMessage) -> usize {
    use v1::agent_message::Kind;
    64 + match &message.kind {
        Some(Kind::Ended(ended)) => {
            let inline: usize = ended.inline.iter().map(Vec::len).sum();
            let texts = ended.record.len() + ended.reason.len() + ended.checkpoint.len();
            texts + inline + 34 * ended.blobs.len()
        }
        Some(Kind::Saved(saved)) => saved.checkpoint.len(),
        Some(Kind::LogChunk(chunk)) => chunk.data.len(),
        Some(Kind::Hello(hello)) => 40 * hello.held.len(),
        Some(Kind::Beat(_) | Kind::Progress(_) | Kind::Offer(_)) | None => 0,
    }
}

/// Moves queued messages into batches of bounded size.
#[derive(Debug, Default)]
struct Packer {
    waiting: std::collections::VecDeque<v1::AgentMessage>,
}

impl Packer {
    /// An end says more than any progress of the same attempt that has not left yet.
    fn drop_outrun(&mut self) {
        use v1::agent_message::Kind;
        let end = |message: &v1::AgentMessage| match &message.kind {
            Some(Kind::Ended(ended)) => ended.attempt.map(AttemptId::from),
            _ => None,
        };
        let ended: BTreeSet<AttemptId> = self.waiting.iter().filter_map(end).collect();
        self.waiting.retain(|message| match &message.kind {
            Some(Kind::Progress(progress)) => {
                let attempt = progress.attempt.map(AttemptId::from);
                attempt.is_none_or(|attempt| !ended.contains(&attempt))
            }
            _ => true,
        });
    }

    fn next(&mut self) -> Option<v1::AgentBatch> {
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES && messages.len() < BATCH_MAX {
            let Some(message) = self.waiting.pop_front() else {
                break;
            };
            bytes += weight(&message);
            messages.push(message);
        }
        (!messages.is_empty()).then_some(v1::AgentBatch { messages, node: 0 })
    }
}

/// What a broken link's words mean to whoever runs the agent.
fn explained(why: &str) -> Cow<'_, str> {
    if !why.contains("invalid peer certificate") {
        return Cow::Borrowed(why);
    }
    if why.contains("not valid for name") {
        return Cow::Owned(format!(
            "the server does not go by the name in --server ({why}); write another, or start the \
             server with --name for this one"
        ));
    }
    Cow::Owned(format!(
        "the server is not the one that this agent was told to trust ({why}); if the pool was made \
         anew, give the agent a new token, or the new ca.pem"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_authority_is_told_in_words() {
        let said = explained("transport error: invalid peer certificate: UnknownIssuer");
        assert!(
            said.contains("UnknownIssuer") && said.contains("a new token"),
            "{said}"
        );
        assert_eq!(explained("connection refused"), "connection refused");
        let said = explained(
            "invalid peer certificate: certificate not valid for name \"b12\"; certificate is only \
             valid for DnsName(\"localhost\")",
        );
        assert!(said.contains("--name") && !said.contains("token"), "{said}");
    }

    #[test]
    fn plain_http_only_on_loopback() {
        for (server, good) in [
            ("https://pool.example:7443", true),
            ("https://pool.example", true),
            ("https://[::1]:7443", true),
            ("http://127.0.0.1:7443", true),
            ("http://localhost:7443", true),
            ("http://[::1]:7443", true),
            ("http://pool.example:7443", false),
            ("pool.example:7443", false),
            ("ftp://127.0.0.1", false),
            ("", false),
        ] {
            assert_eq!(server_uri(server).is_ok(), good, "{server}");
        }
    }

    #[test]
    fn batches_are_bounded_by_count_and_by_bytes() {
        let chunk = |bytes: usize| {
            message(v1::agent_message::Kind::LogChunk(v1::LogChunk {
                data: vec![0; bytes],
                ..v1::LogChunk::default()
            }))
        };
        for (messages, bytes, first) in [
            (10, 10, 10),
            (BATCH_MAX + 5, 0, BATCH_MAX),
            (10, BATCH_BYTES, 1),
            (10, BATCH_BYTES / 2, 2),
        ] {
            let mut packer = Packer::default();
            packer.waiting.extend((0..messages).map(|_| chunk(bytes)));
            let mut sizes = Vec::new();
            while let Some(batch) = packer.next() {
                sizes.push(batch.messages.len());
            }
            assert_eq!((sizes[0], sizes.iter().sum::<usize>()), (first, messages));
        }
    }
}
