//! Agents through their door: polling, wishes, logs of running tasks, reports that come twice.

use super::agent::{FakeAgent, batch, bearer, door, ended, hello, message};
use super::pool::{PATIENCE, TestPool, digest};
use gleaner_api::{NodeView, TaskDetail};
use gleaner_model::{AttemptId, JobId, JobState, TaskId};
use gleaner_wire::v1;
use gleaner_wire::v1::agent_message::Kind as Say;
use gleaner_wire::v1::server_message::Kind as Hear;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

fn plain() -> Value {
    json!({ "task": { "command": ["echo", "x"] } })
}

fn attempt(bundle: &v1::Bundle, at: usize) -> AttemptId {
    let task = &bundle.tasks[at];
    TaskId::new(JobId(bundle.job), task.index).attempt(task.number)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_polls_gets_work_and_is_acknowledged() {
    let pool = TestPool::start().await;
    let token = pool.node_token();
    let mut door = door(&pool).await;
    let stranger = v1::AgentBatch {
        messages: Vec::new(),
        node: 7,
    };
    let refused = door.poll(bearer(stranger, &token)).await.unwrap_err();
    assert!(refused.message().contains("say hello first"), "{refused}");
    let beat = v1::Beat {
        state: "online".to_owned(),
        reason: String::new(),
    };
    let first = batch(vec![
        message(Say::Hello(hello("p"))),
        message(Say::Beat(beat.clone())),
    ]);
    let answer = door.poll(bearer(first, &token)).await.unwrap().into_inner();
    let Some(Hear::Welcome(welcome)) = answer.messages[0].kind.clone() else {
        panic!("no welcome")
    };
    let job = pool.client.submit(plain()).await;
    let call = |messages: Vec<v1::AgentMessage>| v1::AgentBatch {
        messages,
        node: welcome.node,
    };
    let mut said = vec![message(Say::Beat(beat))];
    let mut acknowledged = false;
    while !acknowledged {
        let answer = door
            .poll(bearer(call(std::mem::take(&mut said)), &token))
            .await
            .unwrap();
        let answer = answer.into_inner();
        assert!(answer.call_again_ms > 0);
        for kind in answer
            .messages
            .into_iter()
            .filter_map(|message| message.kind)
        {
            if let Hear::Bundle(bundle) = &kind {
                let made = (0, vec![("stdout".to_owned(), b"polled".to_vec())]);
                said.push(message(Say::Ended(ended(attempt(bundle, 0), &made))));
            }
            acknowledged |= matches!(kind, Hear::Acknowledge(_));
        }
    }
    pool.client.wait_done(job.id).await;
    let user = pool.client.token.clone();
    let refused = door
        .poll(bearer(call(Vec::new()), &user))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_comes_twice_or_after_a_restart_counts_once() {
    let pool = TestPool::start().await;
    let mut agent = FakeAgent::connect(&pool, "a").await;
    let job = pool.client.submit(plain()).await;
    let (bundle, _) = agent.bundle().await;
    let made = (0, vec![("stdout".to_owned(), b"once".to_vec())]);
    let report = ended(attempt(&bundle, 0), &made);
    // The server goes away before it hears the end; the agent keeps it and says so.
    let pool = pool.restart().await;
    let again = v1::Hello {
        held: vec![v1::Held {
            attempt: report.attempt,
            state: "running".to_owned(),
        }],
        ..hello("a")
    };
    let mut agent = FakeAgent::connect_as(&pool, again).await.unwrap();
    for _ in 0..2 {
        agent.tell(Say::Ended(report.clone())).await;
        let acknowledged = async {
            loop {
                for kind in agent.next().await.unwrap() {
                    if let Hear::Acknowledge(these) = kind {
                        return these;
                    }
                }
            }
        };
        let these = tokio::time::timeout(PATIENCE, acknowledged).await.unwrap();
        assert_eq!(these.attempts[0], report.attempt.unwrap());
    }
    let done = pool.client.wait_done(job.id).await;
    assert!(
        (done.cpu_seconds - 0.25).abs() < 1e-9,
        "counted twice: {}",
        done.cpu_seconds
    );
    assert_eq!(pool.client.results(job.id).await.files.len(), 1);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_too_large_to_travel_along_must_be_here_before_the_report() {
    let pool = TestPool::start().await;
    let mut agent = FakeAgent::connect(&pool, "a").await;
    let mut spec = plain();
    spec["retry"] = json!({ "attempts": 1 });
    let lost = pool.client.submit(spec).await;
    let large = vec![7; 100_000];
    let made = (0, vec![("stdout".to_owned(), large.clone())]);
    let with_blob = |bundle: &v1::Bundle| v1::Ended {
        inline: Vec::new(),
        blobs: vec![digest(&large).0.to_vec()],
        ..ended(attempt(bundle, 0), &made)
    };
    let (bundle, _) = agent.bundle().await;
    agent.tell(Say::Ended(with_blob(&bundle))).await;
    let failed = pool.client.wait(lost.id).await;
    assert_eq!(failed.state, JobState::Failed);
    let task: TaskDetail = pool
        .client
        .get(&format!("/api/v1/tasks/{}.0", lost.id))
        .await;
    assert!(
        task.task.reason.contains("never reached the server"),
        "{}",
        task.task.reason
    );
    let kept = pool.client.submit(plain()).await;
    pool.client.put_blobs(&[&large]).await;
    let (bundle, _) = agent.bundle().await;
    agent.tell(Say::Ended(with_blob(&bundle))).await;
    pool.client.wait_done(kept.id).await;
    // A sweep removes what nothing needs, and only that.
    pool.client.put_blobs(&[b"loose"]).await;
    crate::collect::sweep::once(&pool.server.shared, std::time::Duration::ZERO).await;
    let missing = json!({ "digests": [digest(b"loose"), digest(&large)] });
    let (_, missing) = pool.client.post("/api/v1/blobs/missing", &missing).await;
    assert_eq!(missing, json!({ "digests": [digest(b"loose")] }));
    let files = pool.client.results(kept.id).await.files;
    assert_eq!(pool.client.content(&files[0].blob.digest).await, large);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn output_of_a_running_task_is_relayed_and_then_read_from_the_store() {
    let pool = TestPool::start().await;
    let mut agent = FakeAgent::connect(&pool, "a").await;
    let job = pool.client.submit(plain()).await;
    let (bundle, _) = agent.bundle().await;
    let id = attempt(&bundle, 0);
    let progress = v1::Progress {
        attempt: Some(id.into()),
        state: "running".to_owned(),
    };
    agent.tell(Say::Progress(progress)).await;
    let path = format!("/api/v1/tasks/{}.0/logs?stream=stdout&follow=true", job.id);
    let client = pool.client.clone();
    let reading = tokio::spawn(async move {
        let answer = client.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.text().await.unwrap()
    });
    let asked = async {
        loop {
            for kind in agent.next().await.unwrap() {
                if let Hear::LogRequest(request) = kind {
                    return request;
                }
            }
        }
    };
    let request = tokio::time::timeout(PATIENCE, asked).await.unwrap();
    assert_eq!(
        (request.stream.as_str(), request.offset, request.follow),
        ("stdout", 0, true)
    );
    for (offset, text) in [(0, "first "), (6, "second ")] {
        let chunk = v1::LogChunk {
            request: request.request,
            offset,
            data: text.into(),
            last: offset > 0,
        };
        agent.tell(Say::LogChunk(chunk)).await;
    }
    let made = (
        0,
        vec![("stdout".to_owned(), b"first second third".to_vec())],
    );
    agent.tell(Say::Ended(ended(id, &made))).await;
    let text = tokio::time::timeout(PATIENCE, reading)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(text, "first second third");
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admins_wish_reaches_the_agent_and_outlives_a_restart() {
    let pool = TestPool::start().await;
    let mut agent = FakeAgent::connect(&pool, "a").await;
    let (status, answer) = pool
        .client
        .post("/api/v1/nodes/pc-a/drain", &json!(null))
        .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let wished = async {
        loop {
            for kind in agent.next().await.unwrap() {
                if matches!(&kind, Hear::Wish(wish) if wish.wish == "drain") {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, wished)
        .await
        .expect("the wish arrives");
    let pool = pool.restart().await;
    let _agent = FakeAgent::connect(&pool, "a").await;
    let node: NodeView = pool.client.get("/api/v1/nodes/1").await;
    assert_eq!(
        (node.name.as_str(), node.state.as_str()),
        ("pc-a", "draining")
    );
    pool.server.shutdown().await.unwrap();
}

/// What a node of 64 GiB does not have.
fn big() -> Value {
    json!({ "task": { "command": ["echo", "x"] }, "limits": { "memory": "100GiB" } })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_in_the_middle_of_a_dispatch_makes_no_second_attempt() {
    let pool = TestPool::start().await;
    let mut agent = FakeAgent::connect(&pool, "a").await;
    let (small, large) = (
        pool.client.submit(plain()).await,
        pool.client.submit(big()).await,
    );
    let offer = v1::Offer {
        cpus_milli: 4000,
        memory_bytes: 200 << 30,
        disk_bytes: 64 << 30,
        engines: vec!["process".to_owned(), "wasm".to_owned()],
        ..v1::Offer::default()
    };
    // The bundle of the first is on its way, or was not read yet.
    agent.tell(Say::Offer(offer)).await;
    let mut granted = Vec::new();
    while granted.len() < 2 {
        let (bundle, _) = agent.bundle().await;
        granted.push(attempt(&bundle, 0));
    }
    for id in &granted {
        let made = (0, vec![("stdout".to_owned(), b"x".to_vec())]);
        agent.tell(Say::Ended(ended(*id, &made))).await;
    }
    for job in [small.id, large.id] {
        pool.client.wait_done(job).await;
        let task: TaskDetail = pool.client.get(&format!("/api/v1/tasks/{job}.0")).await;
        assert_eq!(task.attempts_made.len(), 1, "{task:?}");
    }
    let node: NodeView = pool.client.get("/api/v1/nodes/1").await;
    assert_eq!(
        (node.engines.len(), node.memory),
        (2, 200 << 30),
        "{node:?}"
    );
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_by_poll_is_taken() {
    let pool = TestPool::start().await;
    let token = pool.node_token();
    let mut door = door(&pool).await;
    let first = batch(vec![message(Say::Hello(hello("p")))]);
    let answer = door.poll(bearer(first, &token)).await.unwrap().into_inner();
    let Some(Hear::Welcome(welcome)) = answer.messages[0].kind.clone() else {
        panic!("no welcome")
    };
    let job = pool.client.submit(big()).await;
    let offer = v1::Offer {
        cpus_milli: 4000,
        memory_bytes: 200 << 30,
        disk_bytes: 64 << 30,
        engines: vec!["process".to_owned()],
        ..v1::Offer::default()
    };
    let mut said = vec![message(Say::Offer(offer))];
    let granted = async {
        loop {
            let call = v1::AgentBatch {
                messages: std::mem::take(&mut said),
                node: welcome.node,
            };
            let answer = door.poll(bearer(call, &token)).await.unwrap().into_inner();
            for message in answer.messages {
                if let Some(Hear::Bundle(bundle)) = message.kind {
                    return bundle;
                }
            }
        }
    };
    let bundle = tokio::time::timeout(PATIENCE, granted).await.unwrap();
    assert_eq!(attempt(&bundle, 0).task.job, JobId(job.id.0));
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_agent_says_is_passed_over_and_the_stream_goes_on() {
    let pool = TestPool::start().await;
    let mut agent = FakeAgent::connect(&pool, "later").await;
    let job = pool.client.submit(plain()).await;
    let (bundle, _) = agent.bundle().await;
    let id = attempt(&bundle, 0);
    let word = || "dreaming".to_owned();
    // An unknown kind of message is none once it is read.
    let unknown = v1::AgentMessage { kind: None };
    let beat = v1::Beat {
        state: word(),
        reason: "for reasons of its own".to_owned(),
    };
    let progress = v1::Progress {
        attempt: Some(id.into()),
        state: word(),
    };
    let saved = v1::Saved {
        attempt: Some(id.into()),
        checkpoint: br#"{"taken":7,"kind":"dream"}"#.to_vec(),
    };
    let messages = vec![
        unknown,
        message(Say::Beat(beat)),
        message(Say::Progress(progress)),
        message(Say::Saved(saved)),
    ];
    agent.say.send(batch(messages)).await.unwrap();
    let kept = async {
        loop {
            for kind in agent.next().await.unwrap() {
                if let Hear::Kept(kept) = kind {
                    return kept;
                }
            }
        }
    };
    let kept = tokio::time::timeout(PATIENCE, kept).await.unwrap();
    assert_eq!((kept.taken, kept.kept), (7, false));
    // Connected anew, it holds its attempt in a state that nobody here knows.
    let again = v1::Hello {
        held: vec![v1::Held {
            attempt: Some(id.into()),
            state: word(),
        }],
        ..hello("later")
    };
    let agent = FakeAgent::connect_as(&pool, again).await.unwrap();
    let made = (0, vec![("stdout".to_owned(), b"once".to_vec())]);
    agent.tell(Say::Ended(ended(id, &made))).await;
    pool.client.wait_done(job.id).await;
    let detail: TaskDetail = pool.client.get(&format!("/api/v1/tasks/{}", id.task)).await;
    assert_eq!(detail.attempts_made.len(), 1, "it was never taken away");
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_page_by_page_or_all_at_once() {
    let pool = TestPool::start().await;
    let (token, mut door) = (pool.node_token(), door(&pool).await);
    for identity in 1..=5 {
        let hello = batch(vec![message(Say::Hello(hello(&identity.to_string())))]);
        door.poll(bearer(hello, &token)).await.unwrap();
    }
    for (query, expected) in [
        ("", vec![1, 2, 3, 4, 5]),
        ("?limit=2", vec![1, 2]),
        ("?after=2&limit=2", vec![3, 4]),
        ("?after=4&limit=2", vec![5]),
        ("?after=5", vec![]),
        ("?limit=0", vec![]),
    ] {
        let nodes: Vec<NodeView> = pool.client.get(&format!("/api/v1/nodes{query}")).await;
        let ids: Vec<u32> = nodes.iter().map(|node| node.id).collect();
        assert_eq!(ids, expected, "{query}");
    }
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_strangers_body_is_read() {
    let pool = TestPool::start().await;
    for call in ["Link", "Poll"] {
        // As a message it would be refused for what it is.
        let request = pool
            .client
            .request(Method::POST, &format!("/gleaner.v1.Pool/{call}"))
            .header("content-type", "application/grpc")
            .body(&b"\0\xff\xff\xff\xffno message"[..]);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "7", "{call} {answer:?}");
    }
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_countless_messages_is_refused_in_words_and_the_pool_goes_on() {
    let pool = TestPool::start().await;
    let token = pool.node_token();
    let empty = v1::AgentMessage { kind: None };
    let many = || batch(vec![empty.clone(); gleaner_wire::AGENT_MESSAGES_MAX + 1]);
    let mut door = door(&pool).await;
    let refused = door.poll(bearer(many(), &token)).await.unwrap_err();
    let said = "more than 4096 messages in one batch";
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains(said), "{refused}");
    let mut agent = FakeAgent::connect(&pool, "loud").await;
    agent.say.send(many()).await.unwrap();
    let heard = async {
        loop {
            match agent.hear.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a word"),
                Err(refused) => return refused,
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, heard).await.unwrap();
    assert!(refused.message().contains(said), "{refused}");
    FakeAgent::connect(&pool, "loud").await;
    pool.server.shutdown().await.unwrap();
}
