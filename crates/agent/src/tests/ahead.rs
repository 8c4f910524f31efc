//! What engines do ahead of a start.

use super::engine::FakeEngine;
use super::server::FakeServer;
use super::{Agent, bundle, id, until};
use gleaner_model::{Bytes, Limits};
use gleaner_wire::v1::{self, server_message};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_task_that_starts_next_is_prepared_and_let_go_where_nobody_wants_it() {
    let mut server = FakeServer::start(false).await;
    let engine = Arc::new(FakeEngine::that_prepares());
    let data = tempfile::tempdir().unwrap();
    let agent = Agent::start(&server, &engine, data.path());
    server.hello().await;
    let mut four = bundle(&["wait"], &[], 4);
    let limits = Limits {
        memory: Bytes(1 << 20),
        ..Limits::default()
    };
    let template = four.template.as_mut().unwrap();
    template.limits = serde_json::to_vec(&limits).unwrap();
    server.send(server_message::Kind::Bundle(four)).await;
    until("two run and the next is prepared", || {
        engine.starts() == [id(0), id(1)] && engine.prepared() == [id(2)]
    })
    .await;
    engine.end(id(0));
    until("the next one", || {
        engine.starts().len() == 3 && engine.prepared() == [id(3)]
    })
    .await;
    let revoke = v1::Revoke {
        attempts: vec![id(3).into()],
    };
    server.send(server_message::Kind::Revoke(revoke)).await;
    until("nothing is", || engine.prepared().is_empty()).await;
    assert_eq!(engine.starts(), [id(0), id(1), id(2)]);
    agent.stop().await.unwrap();
}
