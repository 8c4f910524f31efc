//! By which names are a server and its nodes known?

use super::agent::{batch, bearer, door, hello, message};
use super::pool::TestPool;
use crate::{ServerConfig, start};
use gleaner_api::NodeView;
use gleaner_wire::v1;
use gleaner_wire::v1::agent_message::Kind as Say;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};

#[tokio::test]
async fn a_server_is_believed_by_the_names_of_its_admin_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = ServerConfig {
        names: vec!["pool.example".to_owned()],
        ..ServerConfig::new(data.clone(), anywhere)
    };
    let server = start(config).await.unwrap();
    let ca = std::fs::read(data.join("ca.pem")).unwrap();
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    for (name, believed) in [
        ("pool.example", true),
        ("localhost", true),
        ("other.example", false),
    ] {
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
            .no_proxy()
            .resolve(name, server.addr())
            .build()
            .unwrap();
        let page = format!("https://{name}:{}/metrics", server.addr().port());
        let answer = http.get(page).send().await;
        assert_eq!(answer.is_ok(), believed, "{name}: {answer:?}");
    }
    server.shutdown().await.unwrap();
}

/// A PC that was set up anew has the name of the node that it was before, and another number.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_two_nodes_have_is_refused_and_only_admins_steer_either() {
    let pool = TestPool::start().await;
    let (token, mut door) = (pool.node_token(), door(&pool).await);
    for identity in ["before", "anew"] {
        let hello = v1::Hello {
            name: "b12".to_owned(),
            ..hello(identity)
        };
        let call = batch(vec![message(Say::Hello(hello))]);
        door.poll(bearer(call, &token)).await.unwrap();
    }
    let (status, answer) = pool
        .client
        .post("/api/v1/nodes/b12/drain", &json!({}))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let sentence = answer["error"].as_str().unwrap_or_default();
    assert!(sentence.contains("called b12: 1, 2"), "{answer}");
    let looked = pool.client.request(Method::GET, "/api/v1/nodes/b12");
    let looked = looked.send().await.unwrap();
    assert_eq!(looked.status(), StatusCode::BAD_REQUEST);
    // A node is an admin's to steer, whatever it is called.
    let eva = json!({ "kind": "user", "name": "eva" });
    let (_, made) = pool.client.post("/api/v1/tokens", &eva).await;
    let mut eva = pool.client.clone();
    eva.token = made["secret"].as_str().unwrap_or_default().to_owned();
    let (status, _) = eva.post("/api/v1/nodes/2/drain", &json!({})).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, answer) = pool.client.post("/api/v1/nodes/2/drain", &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let nodes: Vec<NodeView> = pool.client.get("/api/v1/nodes").await;
    let states: Vec<String> = nodes.iter().map(|node| node.state.to_string()).collect();
    assert_eq!(states, ["online", "draining"]);
    pool.server.shutdown().await.unwrap();
}
