//! What a node offers changes while it works: the server hears of it, and nothing else happens.

use super::engine::FakeEngine;
use super::server::FakeServer;
use super::{Agent, DEADLINE, bundle, id, until};
use crate::owner::{self, Ask, NodeSettings};
use gleaner_model::{Bytes, Engine};
use gleaner_wire::v1::agent_message::Kind;
use gleaner_wire::v1::{self, server_message};
use std::path::Path;
use std::time::Instant;

async fn offered(server: &mut FakeServer) -> v1::Offer {
    server
        .hear(|kind| match kind {
            Kind::Offer(offer) => Some(offer.clone()),
            Kind::Hello(_)
            | Kind::Beat(_)
            | Kind::Progress(_)
            | Kind::Ended(_)
            | Kind::Saved(_)
            | Kind::LogChunk(_) => None,
        })
        .await
}

/// The owner of the node lets the pool have so much memory at most.
fn give(data: &Path, memory: Bytes) {
    let agent = owner::Agent::in_directory(data);
    let limits = NodeSettings {
        memory: Some(memory),
        ..NodeSettings::default()
    };
    let begun = Instant::now();
    // The socket opens a moment after the agent starts.
    while let Err(error) = agent.ask(&Ask::SetLimits {
        limits: limits.clone(),
    }) {
        assert!(begun.elapsed() < DEADLINE, "{error}");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_in_the_middle_of_a_dispatch_disturbs_nothing() {
    for polls in [false, true] {
        let mut server = FakeServer::start(false).await;
        if polls {
            server.want_poll();
        }
        let (engine, late) = FakeEngine::with_late(Engine::Wasm);
        let data = tempfile::tempdir().unwrap();
        let agent = Agent::start(&server, &engine, data.path());
        let hello = server.hello().await;
        assert_eq!(hello.engines, ["process"]);
        let granted = bundle(&["wait"], &[], 2);
        server.send(server_message::Kind::Bundle(granted)).await;
        late.pass();
        let offer = offered(&mut server).await;
        assert_eq!(offer.engines, ["process", "wasm"]);
        assert_eq!(
            (offer.cpus_milli, offer.memory_bytes, offer.images),
            (hello.cpus_milli, hello.memory_bytes, hello.images)
        );
        until("both run", || engine.starts().len() == 2).await;
        give(data.path(), Bytes(1 << 30));
        let offer = offered(&mut server).await;
        assert_eq!(offer.memory_bytes, 1 << 30);
        assert_eq!(offer.engines, ["process", "wasm"]);
        for index in 0..2 {
            engine.end(id(index));
            server.ended(id(index)).await;
        }
        until("all is discarded", || engine.holds() == 0).await;
        agent.stop().await.unwrap();
        assert_eq!(engine.starts().len(), 2, "each began once");
        let hellos = server.rest().iter();
        let hellos = hellos.filter(|kind| matches!(kind, Kind::Hello(_)));
        assert_eq!(hellos.count(), 0, "it connected anew");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_between_hello_and_welcome_is_told_behind_it() {
    let mut server = FakeServer::start(false).await;
    server.be_reserved(true);
    let (engine, late) = FakeEngine::with_late(Engine::Vm);
    let data = tempfile::tempdir().unwrap();
    let agent = Agent::start(&server, &engine, data.path());
    assert_eq!(server.hello().await.engines, ["process"]);
    late.pass();
    give(data.path(), Bytes(1 << 30));
    server.be_reserved(false);
    let mut offer = offered(&mut server).await;
    // The trial's end may come after the welcome.
    if offer.engines.len() == 1 {
        offer = offered(&mut server).await;
    }
    assert_eq!(
        (offer.engines.len(), offer.memory_bytes),
        (2, 1 << 30),
        "{offer:?}"
    );
    agent.stop().await.unwrap();
}
