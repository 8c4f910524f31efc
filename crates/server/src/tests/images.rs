//! Images: only what was built as one gets a name, jobs keep what the name stood for, names go
//! and their files after them.

use super::pool::{Client, TestPool, digest};
use crate::collect::sweep::once;
use gleaner_api::{ImageView, JobView};
use gleaner_model::Digest;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// An image with one file of this content.
fn image(content: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), content).unwrap();
    let times = std::fs::File::options()
        .append(true)
        .open(dir.path().join("file"))
        .unwrap();
    times.set_modified(std::time::UNIX_EPOCH).unwrap();
    let tree = gleaner_image::import(dir.path(), gleaner_image::BYTES_MAX)
        .unwrap()
        .tree;
    let mut bytes = Vec::new();
    tree.write(&mut bytes).unwrap();
    bytes
}

async fn name(client: &Client, name: &str, file: Digest) -> (StatusCode, Value) {
    let new = json!({ "name": name, "digest": file, "note": "test" });
    client.post("/api/v1/images", &new).await
}

async fn remove(client: &Client, name: &str) -> StatusCode {
    let path = format!("/api/v1/images/{name}");
    let answer = client.request(Method::DELETE, &path).send().await.unwrap();
    answer.status()
}

async fn submit(client: &Client, image: &str) -> (StatusCode, Value) {
    let spec = json!({ "task": { "command": ["true"], "image": image } });
    client.post("/api/v1/jobs", &json!({ "spec": spec })).await
}

fn blob_file(data: &Path, digest: Digest) -> bool {
    let blobs = gleaner_blob::Blobs::open(&data.join("data/blobs")).unwrap();
    blobs.open_blob(&digest).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_keeps_the_file_that_its_image_was() {
    let pool = TestPool::start().await;
    let client = pool.client.clone();
    let (one, two) = (image(b"one"), image(b"two"));
    client.put_blobs(&[&one, &two]).await;
    let (status, answer) = name(&client, "tool:1", digest(&one)).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let made: ImageView = serde_json::from_value(answer).unwrap();
    assert_eq!((made.id.as_str(), made.size), ("tool:1", one.len() as u64));
    assert_eq!(made.user, "admin");

    let (status, answer) = submit(&client, "tool:1").await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let job: JobView = serde_json::from_value(answer).unwrap();
    // The same name for another file changes nothing for a job that is here.
    assert_eq!(
        name(&client, "tool:1", digest(&two)).await.0,
        StatusCode::CREATED
    );
    let by_digest = submit(&client, &digest(&two).to_string()).await;
    assert_eq!(by_digest.0, StatusCode::CREATED, "{}", by_digest.1);

    let pool = pool.restart().await;
    let client = pool.client.clone();
    let again: JobView = client.get(&format!("/api/v1/jobs/{}", job.id)).await;
    let kept = again.image.unwrap();
    assert_eq!((kept.name.as_str(), kept.digest), ("tool:1", digest(&one)));
    let all: Vec<ImageView> = client.get("/api/v1/images").await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].digest, digest(&two));
    assert_eq!(remove(&client, "tool:1").await, StatusCode::NO_CONTENT);
    assert_eq!(remove(&client, "tool:1").await, StatusCode::NOT_FOUND);
    let (status, answer) = submit(&client, "tool:1").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("`gleaner image list`"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_goes_with_its_last_name_unless_a_job_needs_it() {
    let pool = TestPool::start().await;
    let client = &pool.client;
    let (kept, gone) = (image(b"kept"), image(b"gone"));
    client.put_blobs(&[&kept, &gone]).await;
    for (text, file) in [("kept", &kept), ("gone", &gone), ("twin", &gone)] {
        assert_eq!(
            name(client, text, digest(file)).await.0,
            StatusCode::CREATED
        );
    }
    assert_eq!(submit(client, "kept").await.0, StatusCode::CREATED);
    let there = |bytes: &[u8]| blob_file(pool.dir.path(), digest(bytes));
    for (text, left) in [("kept", true), ("gone", true), ("twin", false)] {
        assert_eq!(remove(client, text).await, StatusCode::NO_CONTENT);
        once(&pool.server.shared, Duration::ZERO).await;
        assert_eq!(there(&gone), left, "{text}");
        assert!(there(&kept));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_built_as_an_image_gets_no_name() {
    let pool = TestPool::start().await;
    let client = &pool.client;
    let good = image(b"good");
    let mut altered = good.clone();
    // The mode of the root: nothing of a file's content.
    altered[1152 + 4] ^= 2;
    let cut = good[..good.len() - 4096].to_vec();
    let text = b"no file system at all".repeat(1000);
    client.put_blobs(&[&good, &altered, &cut, &text]).await;
    for bytes in [&altered, &cut, &text] {
        let (status, answer) = name(client, "bad", digest(bytes)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(
            error.contains("not an image that `gleaner image import` built"),
            "{error}"
        );
        // Nor does a job get it by its digest.
        let (status, _) = submit(client, &digest(bytes).to_string()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    for bad in ["", "a/b", "-x", "blake3:00", "a b"] {
        let (status, answer) = name(client, bad, digest(&good)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad:?}: {answer}");
    }
    let (status, _) = name(client, "never-sent", digest(b"never sent")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_users_image_is_left_alone() {
    let pool = TestPool::start().await;
    let bytes = image(b"mine");
    pool.client.put_blobs(&[&bytes]).await;
    assert_eq!(
        name(&pool.client, "mine", digest(&bytes)).await.0,
        StatusCode::CREATED
    );
    let asked = json!({ "kind": "user", "name": "eva" });
    let (_, token) = pool.client.post("/api/v1/tokens", &asked).await;
    let mut eva = pool.client.clone();
    eva.token = token["secret"].as_str().unwrap().to_owned();
    assert_eq!(
        name(&eva, "mine", digest(&bytes)).await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(remove(&eva, "mine").await, StatusCode::FORBIDDEN);
    assert_eq!(submit(&eva, "mine").await.0, StatusCode::CREATED);
    assert_eq!(
        name(&eva, "hers", digest(&bytes)).await.0,
        StatusCode::CREATED
    );
    assert_eq!(remove(&pool.client, "hers").await, StatusCode::NO_CONTENT);
}
