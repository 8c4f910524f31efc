//! Clients that fall silent in the middle of what they send.

use super::pool::{PATIENCE, TestPool, blob, digest};
use futures_util::{StreamExt as _, stream};
use reqwest::{Body, Method, StatusCode};
use std::time::Duration;

const SILENCE: Duration = Duration::from_millis(500);

async fn pool() -> TestPool {
    let dir = tempfile::tempdir().unwrap();
    TestPool::start_as(dir, |config| config.body_silence = SILENCE).await
}

/// A body that sends this and then nothing, without an end.
fn stalls_after(bytes: Vec<u8>) -> Body {
    let said = stream::iter([Ok::<_, std::io::Error>(bytes)]);
    Body::wrap_stream(said.chain(stream::pending()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_upload_is_given_up_and_goes_on_where_it_stopped() {
    let pool = pool().await;
    let whole: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let path = format!("/api/v1/blobs/{}", digest(&whole));
    let (first, rest) = whole.split_at(700_000);
    let stalled = pool.client.request(Method::PUT, &path);
    let answer = stalled.body(stalls_after(first.to_vec())).send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    assert_eq!(answer.headers()["x-offset"], first.len().to_string());
    let said = answer.text().await.unwrap();
    assert!(said.contains("nothing came for 0.5 s"), "{said}");
    let on = format!("{path}?offset={}", first.len());
    let on = pool.client.request(Method::PUT, &on).body(rest.to_vec());
    assert_eq!(on.send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(pool.client.content(&digest(&whole)).await, whole);
    // The same of a blob that is here: what is dropped must end too.
    let here = pool.client.request(Method::PUT, &path);
    let here = here.body(stalls_after(first.to_vec())).send().await;
    assert_eq!(here.unwrap().status(), StatusCode::OK);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_slow_but_not_silent_is_waited_for() {
    let pool = pool().await;
    let whole = b"one two three four five".to_vec();
    let words = stream::iter(whole.clone()).then(|byte| async move {
        // On purpose: slow, and never silent for long.
        tokio::time::sleep(SILENCE / 10).await;
        Ok::<_, std::io::Error>(vec![byte])
    });
    let path = format!("/api/v1/blobs/{}", blob(&whole).digest);
    let slow = pool.client.request(Method::PUT, &path);
    let answer = slow.body(Body::wrap_stream(words)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bodies_that_stall_are_given_up_too() {
    let pool = pool().await;
    for path in ["/api/v1/blobs/bulk", "/api/v1/jobs"] {
        let request = pool.client.request(Method::POST, path);
        let stalled = request.body(stalls_after(b"{".to_vec())).send().await;
        let answer = stalled.unwrap();
        assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT, "{path}");
        let said = answer.text().await.unwrap();
        assert!(said.contains("nothing came for"), "{path}: {said}");
    }
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_an_agent_that_stalls_is_given_up_too() {
    let pool = pool().await;
    let mut agent = pool.client.clone();
    agent.token = pool.node_token();
    let request = agent.request(Method::POST, "/gleaner.v1.Pool/Poll");
    let request = request.header("content-type", "application/grpc");
    let stalled = request.body(stalls_after(vec![0; 3])).send();
    let answer = tokio::time::timeout(PATIENCE, stalled).await;
    let answer = answer.expect("it is not waited for").unwrap();
    let said = answer.headers().get("grpc-message").unwrap();
    let said = said.to_str().unwrap().replace("%20", " ");
    assert!(said.contains("nothing came for"), "{said}");
    assert_ne!(answer.headers()["grpc-status"], "0");
    pool.server.shutdown().await.unwrap();
}
