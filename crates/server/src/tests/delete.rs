//! Jobs that are deleted: what goes, what stays, and what a restart makes of it. And the engine
//! of jobs that leave it open.

use super::agent::{FakeAgent, Made, ended};
use super::pool::{PATIENCE, TestPool, blob};
use crate::collect::sweep;
use crate::{ServerConfig, start};
use gleaner_api::{ExplainView, JobView};
use gleaner_model::{AttemptId, Digest, EngineChoice, JobId, Span, TaskId};
use gleaner_wire::v1;
use gleaner_wire::v1::agent_message::Kind as Say;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

fn line(task: TaskId, _: &[String], _: &v1::Task) -> Made {
    let line = format!("result of {task}\n");
    (0, vec![("stdout".to_owned(), line.into_bytes())])
}

async fn delete(pool: &TestPool, job: JobId) -> (StatusCode, String) {
    let path = format!("/api/v1/jobs/{job}");
    let answer = pool.client.request(Method::DELETE, &path).send().await;
    let answer = answer.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

async fn status(pool: &TestPool, path: &str) -> StatusCode {
    let answer = pool.client.request(Method::GET, path).send().await;
    answer.unwrap().status()
}

/// Two jobs that share one input, and have one each of their own; both done.
async fn two_jobs(pool: &TestPool) -> (JobId, JobId) {
    let agent = FakeAgent::connect(pool, "a").await;
    let working = tokio::spawn(agent.work(line));
    pool.client
        .put_blobs(&[b"shared", b"own 1", b"own 2"])
        .await;
    let mut made = Vec::new();
    for own in ["own 1", "own 2"] {
        let name = |content: &str| format!("blake3:{}", blob(content.as_bytes()).digest);
        let job = pool
            .client
            .submit(json!({
                "task": {
                    "command": ["x"],
                    "inputs": { "shared": name("shared"), "own": name(own) },
                },
                "collect": { "merge": { "concat": "all", "from": "stdout" } },
            }))
            .await;
        made.push(pool.client.wait_done(job.id).await.id);
    }
    working.abort();
    (made[0], made[1])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_job_goes_with_all_that_only_it_needs() {
    let pool = TestPool::start().await;
    let (first, second) = two_jobs(&pool).await;
    let merged = pool.client.results(first).await.files;
    let merged: Digest = merged.last().unwrap().blob.digest;
    let (deleted, text) = delete(&pool, first).await;
    assert_eq!(deleted, StatusCode::OK, "{text}");
    assert_eq!(delete(&pool, first).await.0, StatusCode::NOT_FOUND);
    // A restart finds none of it, and gives its id to nobody.
    let pool = pool.restart().await;
    for path in ["", "/tasks", "/results", "/explain"] {
        let path = format!("/api/v1/jobs/{first}{path}");
        assert_eq!(status(&pool, &path).await, StatusCode::NOT_FOUND, "{path}");
    }
    let jobs: Vec<JobView> = pool.client.get("/api/v1/jobs").await;
    assert_eq!(jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [second]);
    sweep::once(&pool.server.shared, Duration::ZERO).await;
    let here = |digest: Digest| pool.server.shared.blobs.size(&digest).unwrap().is_some();
    assert!(!here(blob(b"own 1").digest) && !here(merged));
    assert!(here(blob(b"shared").digest) && here(blob(b"own 2").digest));
    let left = pool.client.results(second).await.files;
    let content = pool.client.content(&left[0].blob.digest).await;
    assert_eq!(content, format!("result of {second}.0\n").into_bytes());
    let next = pool.client.submit(json!({ "task": { "command": ["x"] } }));
    assert_eq!(next.await.id, JobId(second.0 + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_not_over_is_cancelled_first() {
    let pool = TestPool::start().await;
    let job = pool.client.submit(json!({ "task": { "command": ["x"] } }));
    let job = job.await.id;
    let (refused, text) = delete(&pool, job).await;
    assert_eq!(refused, StatusCode::CONFLICT, "{text}");
    assert!(text.contains(&format!("gleaner cancel {job}")), "{text}");
    let cancel = format!("/api/v1/jobs/{job}/cancel");
    assert_eq!(
        pool.client.post(&cancel, &json!({})).await.0,
        StatusCode::OK
    );
    assert_eq!(delete(&pool, job).await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_another_job_reads_outlives_the_job_that_made_it() {
    let pool = TestPool::start().await;
    let (first, _) = two_jobs(&pool).await;
    let content = format!("result of {first}.0\n").into_bytes();
    let digest = blob(&content).digest;
    let reader = pool
        .client
        .submit(json!({
            "task": { "command": ["x"], "inputs": { "in": format!("blake3:{digest}") } },
        }))
        .await;
    assert_eq!(delete(&pool, first).await.0, StatusCode::OK);
    sweep::once(&pool.server.shared, Duration::ZERO).await;
    assert_eq!(
        pool.client.content(&digest).await,
        content,
        "job {}",
        reader.id
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_were_over_for_long_enough_are_deleted_by_themselves() {
    let pool = TestPool::start().await;
    let (first, second) = two_jobs(&pool).await;
    sweep::expire(&pool.server.shared, Span::seconds(3600)).await;
    assert!(
        pool.server
            .shared
            .driver
            .job(first)
            .await
            .unwrap()
            .is_some()
    );
    let open = pool.client.submit(json!({ "task": { "command": ["x"] } }));
    let open = open.await.id;
    let gone = async {
        while pool
            .server
            .shared
            .driver
            .job(second)
            .await
            .unwrap()
            .is_some()
        {
            sweep::expire(&pool.server.shared, Span::default()).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    assert!(pool.server.shared.driver.job(open).await.unwrap().is_some());
}

/// Whoever asks while a server restarts waits for it; a file that is missing for a moment would
/// send them away.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_file_of_an_earlier_run_stays_until_the_server_is_ready() {
    let pool = TestPool::start().await;
    let data = pool.dir.path().join("data");
    let (file, store) = (data.join("client.toml"), data.join("store.sqlite"));
    pool.server.shutdown().await.unwrap();
    std::fs::write(&file, "server = \"https://old\"\n").unwrap();
    // It cannot start: what it is to keep its state in is a directory.
    let kept = data.join("kept");
    std::fs::rename(&store, &kept).unwrap();
    std::fs::create_dir(&store).unwrap();
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let failed = start(ServerConfig::new(data.clone(), listen)).await;
    assert!(failed.is_err(), "{failed:?}");
    let text = || std::fs::read_to_string(&file).unwrap();
    assert_eq!(text(), "server = \"https://old\"\n");
    std::fs::remove_dir(&store).unwrap();
    std::fs::rename(&kept, &store).unwrap();
    let server = start(ServerConfig::new(data.clone(), listen))
        .await
        .unwrap();
    assert!(
        text().starts_with("server = \"https://127.0.0.1:"),
        "{}",
        text()
    );
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pools_engine_is_that_of_jobs_that_name_none() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut config = ServerConfig::new(data.clone(), listen);
    config.default_engine = EngineChoice::Auto;
    let server = start(config).await.unwrap();
    let client = super::pool::Client::new(&data);
    let pool = TestPool {
        dir,
        server,
        client,
    };
    let mut hello = super::agent::hello("a");
    hello.engines.push("vm".to_owned());
    hello.guests = "calls".to_owned();
    hello.cpus_milli = 1000;
    let mut agent = FakeAgent::connect_as(&pool, hello).await.unwrap();
    let job = pool.client.submit(json!({
        "task": { "command": ["x"] }, "sweep": { "n": { "range": [1, 4] } },
    }));
    let job = job.await.id;
    // The first is measured as a process; it computes, so the next is a guest. The second guest's
    // program calls much, so that its job comes back.
    let mut engines = Vec::new();
    for system_seconds in [0.0, 1.0, 60.0, 0.0] {
        let (bundle, template) = agent.bundle().await;
        assert_eq!(template.engine, "process");
        engines.push(bundle.engine.clone());
        let engine = bundle.engine;
        let id = TaskId::new(job, bundle.tasks[0].index);
        let attempt: AttemptId = id.attempt(bundle.tasks[0].number);
        let end = v1::Ended {
            cpu_seconds: 100.0,
            busy_seconds: 100.0,
            system_seconds,
            engine,
            ..ended(attempt, &(0, Vec::new()))
        };
        agent.tell(Say::Ended(end)).await;
    }
    assert_eq!(engines, ["process", "vm", "vm", "process"]);
    let why: ExplainView = pool
        .client
        .get(&format!("/api/v1/jobs/{job}/explain"))
        .await;
    let said = why.engine.unwrap();
    assert!(said.contains("what calls took in guests"), "{said}");
    let named = pool
        .client
        .submit(json!({ "task": { "command": ["x"], "engine": "process" } }));
    let named = named.await.id;
    let why: ExplainView = pool
        .client
        .get(&format!("/api/v1/jobs/{named}/explain"))
        .await;
    assert_eq!(why.engine, None);
}
