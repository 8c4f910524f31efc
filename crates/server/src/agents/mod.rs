//! The agents' side: gRPC in, events to the driver; bundles and acknowledgements back.
//!
//! A connection holds no state that matters: what it needs to know after it broke, the agent says
//! in its next hello and the driver knows anyway.

mod carried;
mod dispatch;
mod hear;
mod link;
pub(crate) mod logs;
mod poll;
pub(crate) mod polls;

use crate::driver::{Connect, Connected, Link, Message};
use crate::shared::Shared;
use crate::silence;
use axum::extract::{self, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response as AxumResponse;
use futures_util::stream::BoxStream;
use gleaner_core::{NodeHello, NodeOffer};
use gleaner_model::{Bytes, Cpus, Engine, GuestPrice, NodeId};
use gleaner_store::TokenKind;
use gleaner_wire::v1::pool_server::{Pool, PoolServer};
use gleaner_wire::{MESSAGE_BYTES_MAX, PROTOCOL, v1};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

/// Milliseconds between beats: a lease outlives two that are lost.
pub(crate) const BEAT_MS: u32 = 10_000;

/// Three beats and a little: an agent that is silent for longer has lost its leases.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Longest name, identity or version of an agent, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// Most labels of a node.
const LABELS_MAX: usize = 256;

/// How long a hello waits while the store takes nothing, on a full disk say: less than an agent
/// waits for its welcome. One that is sent away comes back ever more seldom, and would be missed when
/// there is space again.
const TROUBLE_HOLD: Duration = Duration::from_secs(10);

/// How often it looks whether that is over.
const TROUBLE_LOOK: Duration = Duration::from_millis(100);

/// The gRPC service.
#[derive(Debug, Clone)]
pub(crate) struct Agents(Arc<Shared>);

/// Starts what goes on beside the agents' calls.
pub(crate) fn start(shared: &Arc<Shared>) {
    shared.tasks.spawn(poll::let_go(Arc::clone(shared)));
}

/// The service as a part of the server's router.
pub(crate) fn router(shared: &Arc<Shared>) -> axum::Router {
    let service = PoolServer::new(Agents(Arc::clone(shared)))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    // Before anything of a body is read: what a stranger sends costs nothing.
    let tokens = Arc::clone(shared);
    let service = InterceptedService::new(service, move |request: Request<()>| {
        admit(&tokens, &request).map(|()| request)
    });
    // What neither door knows is answered by the other side, in words.
    tonic::service::Routes::new(service)
        .into_axum_router()
        .layer(from_fn_with_state(Arc::clone(shared), bound))
        .reset_fallback()
}

/// A call's body ends. That of a stream does not: beats tell whether its agent lives.
async fn bound(state: State<Arc<Shared>>, request: extract::Request, next: Next) -> AxumResponse {
    match request.uri().path().ends_with("/Poll") {
        true => silence::bound(state, request, next).await,
        false => next.run(request).await,
    }
}

/// Only nodes' tokens open this door.
fn admit(shared: &Shared, request: &Request<()>) -> Result<(), Status> {
    let headers = request.metadata().clone().into_headers();
    match shared.tokens.of(&headers).map(|who| who.kind) {
        Some(TokenKind::Node) => Ok(()),
        Some(TokenKind::Admin | TokenKind::User) => Err(Status::permission_denied(
            "this is a user's token; an agent needs a node's token",
        )),
        None => Err(Status::unauthenticated(
            "the token is missing, wrong or revoked; ask the pool's admin for a node's token",
        )),
    }
}

#[tonic::async_trait]
impl Pool for Agents {
    type LinkStream = BoxStream<'static, Result<v1::ServerBatch, Status>>;

    async fn link(
        &self,
        request: Request<Streaming<v1::AgentBatch>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        Ok(Response::new(link::open(&self.0, request.into_inner())))
    }

    async fn poll(
        &self,
        request: Request<v1::AgentBatch>,
    ) -> Result<Response<v1::ServerBatch>, Status> {
        let answer = poll::answer(&self.0, request.into_inner()).await?;
        Ok(Response::new(answer))
    }
}

/// Hands a hello to the driver; the connection is known once it is durable.
async fn connect(shared: &Shared, hello: v1::Hello, link: Link) -> Result<Connected, Status> {
    let connect = check(hello)?;
    out_of_trouble(shared).await;
    let (reply, answer) = oneshot::channel();
    let connect = Connect {
        link,
        reply,
        ..connect
    };
    shared
        .driver
        .send(Message::Connect(Box::new(connect)))
        .await;
    answer.await.map_err(|_| {
        let trouble = shared.driver.trouble();
        let sentence = trouble.map(|trouble| trouble.sentence);
        Status::unavailable(sentence.unwrap_or_else(|| "the server is shutting down".into()))
    })
}

/// Waits while the store takes nothing, a bounded time.
async fn out_of_trouble(shared: &Shared) {
    let over = async {
        while shared.driver.trouble().is_some() {
            tokio::time::sleep(TROUBLE_LOOK).await;
        }
    };
    tokio::select! {
        () = over => {}
        () = tokio::time::sleep(TROUBLE_HOLD) => {}
        () = shared.stop.cancelled() => {}
    }
}

/// A hello in the brain's words. Its link is filled in by the caller.
fn check(hello: v1::Hello) -> Result<Connect, Status> {
    if hello.protocol != PROTOCOL {
        return Err(Status::failed_precondition(format!(
            "this server speaks protocol {PROTOCOL}, the agent {}; give both the same version",
            hello.protocol
        )));
    }
    let texts = [
        &hello.identity,
        &hello.name,
        &hello.version,
        &hello.arch,
        &hello.machine,
    ];
    if hello.identity.is_empty() || hello.name.is_empty() {
        return Err(Status::invalid_argument(
            "an agent needs an identity and a name",
        ));
    }
    if texts.iter().any(|text| text.len() > NAME_BYTES_MAX) || hello.labels.len() > LABELS_MAX {
        return Err(Status::invalid_argument("the hello is too long"));
    }
    let node = NodeHello {
        node: NodeId(0),
        name: hello.name,
        cpus: Cpus {
            milli: hello.cpus_milli,
        },
        memory: Bytes(hello.memory_bytes),
        disk: Bytes(hello.disk_bytes),
        arch: hello.arch,
        engines: engines(&hello.engines),
        images: hello.images,
        labels: hello.labels.into_iter().collect(),
        machine: word(hello.machine),
        guests: guests(&hello.guests),
        refused: word(hello.refused),
        held: hello.held.into_iter().filter_map(hear::held).collect(),
    };
    let (sender, _) = tokio::sync::mpsc::channel(1);
    Ok(Connect {
        identity: hello.identity,
        version: hello.version,
        hello: node,
        link: Link {
            sender,
            _cut: tokio_util::sync::CancellationToken::new().drop_guard(),
        },
        reply: oneshot::channel().0,
    })
}

/// An offer in the brain's words.
fn offer(node: NodeId, offer: v1::Offer) -> Result<NodeOffer, Status> {
    if offer.machine.len() > NAME_BYTES_MAX {
        return Err(Status::invalid_argument("the offer is too long"));
    }
    Ok(NodeOffer {
        node,
        cpus: Cpus {
            milli: offer.cpus_milli,
        },
        memory: Bytes(offer.memory_bytes),
        disk: Bytes(offer.disk_bytes),
        engines: engines(&offer.engines),
        images: offer.images,
        machine: word(offer.machine),
        guests: guests(&offer.guests),
        refused: word(offer.refused),
    })
}

/// An engine that this server does not know is of no use to it.
fn engines(words: &[String]) -> Vec<Engine> {
    let known = words.iter().filter_map(|word| Engine::from_word(word));
    known.collect()
}

/// Where an agent does not say what its guests make dear, nobody knows.
fn guests(word: &str) -> GuestPrice {
    GuestPrice::from_word(word).unwrap_or(GuestPrice::Everything)
}

/// A text that is empty where there is none.
fn word(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
