//! Blobs through the users' door: broken uploads, ranges, many at once.

use super::pool::{TestPool, blob, digest};
use gleaner_api::DigestList;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|n| n.to_le_bytes()[1] ^ n.to_le_bytes()[0])
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_users_send_is_for_the_servers_account_alone() {
    let pool = TestPool::start().await;
    pool.client.put_blobs(&[b"mine"]).await;
    let data = pool.dir.path().join("data");
    for (name, mode) in [
        ("blobs", 0o700),
        ("store.sqlite", 0o600),
        ("store.sqlite-wal", 0o600),
    ] {
        let found = std::fs::metadata(data.join(name)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, mode, "{name}");
    }
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_broke_off_is_resumed_where_it_stopped() {
    let pool = TestPool::start().await;
    let whole = content(3 << 20);
    let path = format!("/api/v1/blobs/{}", digest(&whole));
    let (first, _) = whole.split_at(2 << 20);
    // A body that ends with an error in its middle, as a lost connection does.
    let parts = first.chunks(64 << 10).map(|part| Ok(part.to_vec()));
    let broken = parts
        .chain([Err(std::io::Error::other("unplugged"))])
        .collect::<Vec<_>>();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(broken));
    let sent = pool
        .client
        .request(Method::PUT, &path)
        .body(body)
        .send()
        .await;
    assert!(sent.is_err() || !sent.unwrap().status().is_success());
    let offset = async {
        loop {
            let head = pool
                .client
                .request(Method::HEAD, &path)
                .send()
                .await
                .unwrap();
            assert_eq!(head.status(), StatusCode::NOT_FOUND);
            let offset: usize = head.headers()["x-offset"]
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            if offset > 0 {
                return offset;
            }
        }
    };
    let offset = tokio::time::timeout(super::pool::PATIENCE, offset)
        .await
        .unwrap();
    let beyond = format!("{path}?offset={}", whole.len());
    let refused = pool
        .client
        .request(Method::PUT, &beyond)
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    let have: usize = refused.headers()["x-offset"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(have >= offset && have <= first.len(), "{have}");
    let rest = format!("{path}?offset={have}");
    let rest = pool
        .client
        .request(Method::PUT, &rest)
        .body(whole[have..].to_vec());
    assert_eq!(rest.send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(pool.client.content(&digest(&whole)).await, whole);
    // Sent again, it is taken at once: it is here.
    let again = pool.client.request(Method::PUT, &path).body(whole);
    assert_eq!(again.send().await.unwrap().status(), StatusCode::OK);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_and_an_unknown_digest_are_refused_in_words() {
    let pool = TestPool::start().await;
    let path = format!("/api/v1/blobs/{}", digest(b"right"));
    let wrong = pool
        .client
        .request(Method::PUT, &path)
        .body("wrong")
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let text = wrong.text().await.unwrap();
    assert!(text.contains("changed while it was sent"), "{text}");
    let missing = pool
        .client
        .request(Method::GET, &path)
        .send()
        .await
        .unwrap();
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    assert!(missing.text().await.unwrap().contains("upload it first"));
    let rubbish = pool
        .client
        .request(Method::GET, "/api/v1/blobs/rubbish")
        .send()
        .await
        .unwrap();
    assert_eq!(rubbish.status(), StatusCode::BAD_REQUEST);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_and_heaps_of_blobs_are_got_as_asked() {
    let pool = TestPool::start().await;
    let (large, small) = (content(700_000), content(10));
    pool.client.put_blobs(&[&large, &small, b""]).await;
    let path = format!("/api/v1/blobs/{}", digest(&large));
    for (range, expected) in [("bytes=0-9", 0..10), ("bytes=-5", 699_995..700_000)] {
        let part = pool
            .client
            .request(Method::GET, &path)
            .header("range", range);
        let part = part.send().await.unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
        assert!(
            part.headers()["content-range"]
                .to_str()
                .unwrap()
                .ends_with("/700000")
        );
        assert_eq!(part.bytes().await.unwrap(), large[expected]);
    }
    let beyond = pool
        .client
        .request(Method::GET, &path)
        .header("range", "bytes=700000-");
    assert_eq!(
        beyond.send().await.unwrap().status(),
        StatusCode::RANGE_NOT_SATISFIABLE
    );
    let asked = json!({ "digests": [digest(&small), digest(b""), digest(b"never")] });
    let (_, lacking) = pool.client.post("/api/v1/blobs/missing", &asked).await;
    let lacking: DigestList = serde_json::from_value(lacking).unwrap();
    assert_eq!(lacking.digests, [digest(b"never")]);
    let asked = json!({ "digests": [digest(&small), digest(b"")] });
    let heap = pool
        .client
        .request(Method::POST, "/api/v1/blobs/get")
        .json(&asked);
    let mut expected = (small.len() as u64).to_le_bytes().to_vec();
    expected.extend(&small);
    expected.extend(0_u64.to_le_bytes());
    assert_eq!(heap.send().await.unwrap().bytes().await.unwrap(), expected);
    let size = blob(&large).size;
    let head = pool
        .client
        .request(Method::HEAD, &path)
        .send()
        .await
        .unwrap();
    assert_eq!(head.headers()["content-length"], size.to_string());
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_the_disk_damaged_is_missing_and_can_be_sent_anew() {
    let pool = TestPool::start().await;
    let whole = content(100_000);
    let wanted = digest(&whole);
    let hex = wanted.hex();
    let file = pool
        .dir
        .path()
        .join("data/blobs")
        .join(&hex[..2])
        .join(&hex);
    let damage = || {
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, vec![0; whole.len()]).unwrap();
    };
    let asked = serde_json::to_value(DigestList {
        digests: vec![wanted],
    });
    let asked = asked.unwrap();
    // Whoever gets it, alone or with others, or names another length of it, brings it to light.
    let path = format!("/api/v1/blobs/{wanted}");
    pool.client.put_blobs(&[&whole]).await;
    damage();
    let got = pool
        .client
        .request(Method::GET, &path)
        .send()
        .await
        .unwrap();
    assert_ne!(got.bytes().await.unwrap(), whole);
    let gone = async {
        while file.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(super::pool::PATIENCE, gone)
        .await
        .unwrap();
    pool.client.put_blobs(&[&whole]).await;
    damage();
    let (status, answer) = pool.client.post("/api/v1/blobs/get", &asked).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
    pool.client.put_blobs(&[&whole]).await;
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "cut off").unwrap();
    let job = json!({
        "spec": {"task": {"command": ["true"], "inputs": {"in": "in"}}},
        "files": [{"name": "in", "digest": wanted, "size": whole.len(), "mode": 0o644}],
        "axes": {},
    });
    let (status, answer) = pool.client.post("/api/v1/jobs", &job).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    pool.client.put_blobs(&[&whole]).await;
    let (status, answer) = pool.client.post("/api/v1/jobs", &job).await;
    assert!(status.is_success(), "{status} {answer}");
    assert_eq!(pool.client.content(&wanted).await, whole);
    pool.server.shutdown().await.unwrap();
}

/// Method, path and body; status and a part of the sentence.
fn wrong_questions() -> Vec<(Method, &'static str, &'static str, u16, &'static str)> {
    let (get, post) = (Method::GET, Method::POST);
    vec![
        (get.clone(), "/nowhere", "", 404, "openapi.json"),
        (Method::DELETE, "/api/v1/jobs", "", 405, "method"),
        (get.clone(), "/api/v1/jobs/7", "", 404, "no job 7"),
        (get.clone(), "/api/v1/jobs/x", "", 404, "not a job id"),
        (get.clone(), "/api/v1/tasks/7.0", "", 404, "no job 7"),
        (get.clone(), "/api/v1/nodes/x", "", 404, "no node x"),
        (get.clone(), "/api/v1/jobs?limit=-1", "", 400, "limit"),
        (get.clone(), "/api/v1/blobs/%ff%fe", "", 400, "UTF-8"),
        (get, "/api/v1/jobs/1?after=x", "", 400, "after"),
        (
            post.clone(),
            "/api/v1/jobs/7/dance",
            "",
            404,
            "cannot dance",
        ),
        (post.clone(), "/api/v1/jobs", "{", 400, "cannot be read"),
        (
            post.clone(),
            "/api/v1/jobs",
            "{\"spec\":{},\"x\":1}",
            400,
            "task",
        ),
        (post, "/api/v1/blobs/bulk", "abc", 400, "cut off"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_is_answered_in_words() {
    let pool = TestPool::start().await;
    for (method, path, body, status, part) in wrong_questions() {
        let answer = pool
            .client
            .request(method.clone(), path)
            .body(body)
            .send()
            .await
            .unwrap();
        let (found, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(found.as_u16(), status, "{method} {path} {text}");
        let error: gleaner_api::ErrorBody = serde_json::from_str(&text).unwrap();
        assert!(error.error.contains(part), "{method} {path} {text}");
    }
    let document: serde_json::Value = pool.client.get("/api/v1/openapi.json").await;
    assert!(
        document["paths"]["/api/v1/jobs/{id}"]["get"].is_object(),
        "{document}"
    );
    let page = pool
        .client
        .request(Method::GET, "/metrics")
        .send()
        .await
        .unwrap();
    let page = page.text().await.unwrap();
    assert!(
        page.contains("gleaner_nodes{state=\"online\"} 0\n"),
        "{page}"
    );
    let front = pool.client.request(Method::GET, "/").send().await.unwrap();
    assert!(front.text().await.unwrap().contains("gleaner pool"));
    pool.server.shutdown().await.unwrap();
}
