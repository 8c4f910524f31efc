//! The life of jobs from submit to results, through both doors.

use super::agent::{FakeAgent, Made, ended, hello};
use super::merges::Unreadable;
use super::pool::{PATIENCE, TestPool, blob};
use gleaner_api::{JobView, NodeView, PoolView, ResultFile, ResultPage, TaskDetail, TaskView};
use gleaner_model::{Digest, FileEntry, JobState, TaskId};
use gleaner_wire::v1;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

fn echo(_: TaskId, command: &[String], _: &v1::Task) -> Made {
    let line = format!("{}\n", command[1..].join(" "));
    (
        0,
        vec![
            ("stdout".to_owned(), line.into_bytes()),
            ("stderr".to_owned(), Vec::new()),
        ],
    )
}

fn stdout(files: &[ResultFile], index: u32) -> &ResultFile {
    let found = files
        .iter()
        .find(|file| file.index == Some(index) && file.name == "stdout");
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_of_axes_runs_and_its_results_come_back() {
    let pool = TestPool::start().await;
    let agent = FakeAgent::connect(&pool, "a").await;
    let working = tokio::spawn(agent.work(echo));
    let job = pool
        .client
        .submit(json!({
            "job": { "name": "pairs", "tags": { "project": "test" } },
            "task": { "command": ["echo", "{a}-{b}", "{index}"] },
            "sweep": { "b": { "list": ["x", "y"] }, "a": { "range": [1, 3] } },
        }))
        .await;
    assert_eq!((job.task_count, job.tags["project"].as_str()), (6, "test"));
    let done = pool.client.wait_done(job.id).await;
    assert_eq!(done.tasks.done, 6);
    assert!(
        (done.cpu_seconds - 1.5).abs() < 1e-9,
        "{}",
        done.cpu_seconds
    );
    let page = pool.client.results(job.id).await;
    assert_eq!((page.files.len(), page.next), (12, None));
    let expected = ["1-x 0", "1-y 1", "2-x 2", "2-y 3", "3-x 4", "3-y 5"];
    for (index, line) in (0..).zip(expected) {
        let content = pool
            .client
            .content(&stdout(&page.files, index).blob.digest)
            .await;
        assert_eq!(content, format!("{line}\n").into_bytes());
    }
    let tasks: Vec<TaskView> = pool
        .client
        .get(&format!("/api/v1/jobs/{}/tasks", job.id))
        .await;
    assert_eq!(tasks[3].name, "a=2 b=y");
    assert_eq!(
        (tasks[3].exit_code, tasks[3].node.as_deref()),
        (Some(0), Some("pc-a"))
    );
    let task: TaskDetail = pool
        .client
        .get(&format!("/api/v1/tasks/{}.5", job.id))
        .await;
    assert_eq!(task.attempts_made.len(), 1);
    let record = task.attempts_made[0].record.as_ref().unwrap();
    let times: Vec<Result<jiff::Timestamp, _>> = record
        .started
        .iter()
        .chain([&record.ended])
        .map(|time| time.parse())
        .collect();
    assert!(times.iter().all(Result::is_ok), "{record:?}");
    let logs = format!("/api/v1/tasks/{}.5/logs", job.id);
    let logs = pool
        .client
        .request(Method::GET, &logs)
        .send()
        .await
        .unwrap();
    assert_eq!(logs.text().await.unwrap(), "3-y 5\n");
    let beyond = format!("/api/v1/tasks/{}.99/logs", job.id);
    let beyond = pool.client.request(Method::GET, &beyond).send();
    let beyond = beyond.await.unwrap().text().await.unwrap();
    assert!(beyond.contains("has no task 99"), "{beyond}");
    let nodes: Vec<NodeView> = pool.client.get("/api/v1/nodes").await;
    assert_eq!(
        (nodes[0].tasks_done, nodes[0].version.as_str()),
        (6, "test")
    );
    pool.server.shutdown().await.unwrap();
    working.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_the_end_is_not_told_of_what_comes_before() {
    let pool = TestPool::start().await;
    let spec = json!({ "task": { "command": ["echo", "late"] } });
    let job = pool.client.submit(spec).await;
    let path = |pace: u32| {
        let (id, after) = (job.id, job.revision);
        format!("/api/v1/jobs/{id}?after={after}&pace_ms={pace}")
    };
    let asked = tokio::spawn(pool.client.request(Method::GET, &path(25_000)).send());
    let pause = format!("/api/v1/jobs/{}/pause", job.id);
    let (status, answer) = pool.client.post(&pause, &Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let seen: JobView = pool.client.get(&path(0)).await;
    assert_eq!(seen.state, JobState::Paused);
    assert!(seen.revision > job.revision && !asked.is_finished());
    let cancel = format!("/api/v1/jobs/{}/cancel", job.id);
    let (status, answer) = pool.client.post(&cancel, &Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let told = tokio::time::timeout(PATIENCE, asked).await.unwrap();
    let told: JobView = told.unwrap().unwrap().json().await.unwrap();
    assert_eq!(told.state, JobState::Cancelled);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_that_comes_late_tells_how_its_task_stands() {
    let pool = TestPool::start().await;
    let mut before = FakeAgent::connect(&pool, "a").await;
    let spec = json!({ "task": { "command": ["echo", "late"] } });
    let job = pool.client.submit(spec).await;
    assert_eq!(before.bundle().await.0.tasks[0].number, 1);
    // It comes back without what it was given, and then that ends well after all.
    let mut agent = FakeAgent::connect(&pool, "a").await;
    assert_eq!(agent.bundle().await.0.tasks[0].number, 2);
    let made = (0, vec![("stdout".to_owned(), b"late\n".to_vec())]);
    let success = ended(TaskId::new(job.id, 0).attempt(1), &made);
    agent.tell(v1::agent_message::Kind::Ended(success)).await;
    pool.client.wait_done(job.id).await;
    for follow in [false, true] {
        let logs = format!("/api/v1/tasks/{}.0/logs?follow={follow}", job.id);
        let logs = pool.client.request(Method::GET, &logs).send();
        assert_eq!(logs.await.unwrap().text().await.unwrap(), "late\n");
    }
    let path = format!("/api/v1/jobs/{}/tasks", job.id);
    let listed: Vec<TaskView> = pool.client.get(&path).await;
    let path = format!("/api/v1/tasks/{}.0", job.id);
    let detail: TaskDetail = pool.client.get(&path).await;
    assert_eq!(detail.attempts_made.len(), 2);
    for task in [&listed[0], &detail.task] {
        assert_eq!((task.attempts, task.exit_code), (2, Some(0)), "{task:?}");
        assert_eq!(task.node.as_deref(), Some("pc-a"));
        assert!(task.wall_seconds > 0.0, "{task:?}");
    }
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_tells_of_endless_seconds_leaves_numbers_in_the_listing() {
    let pool = TestPool::start().await;
    let mut agent = FakeAgent::connect(&pool, "a").await;
    let spec = json!({ "task": { "command": ["x"] }, "sweep": { "n": { "range": [1, 3] } } });
    let job = pool.client.submit(spec).await.id;
    let (bundle, _) = agent.bundle().await;
    for task in &bundle.tasks {
        let attempt = TaskId::new(job, task.index).attempt(task.number);
        let mut report = ended(attempt, &(0, Vec::new()));
        (report.cpu_seconds, report.busy_seconds) = (f64::MAX, f64::MAX);
        agent.tell(v1::agent_message::Kind::Ended(report)).await;
    }
    let seen = pool.client.wait_done(job).await;
    assert!(seen.cpu_seconds.is_finite(), "{}", seen.cpu_seconds);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_cannot_read_for_a_while_costs_no_task_its_tries() {
    let pool = TestPool::start().await;
    let lines = b"one\ntwo\n";
    pool.client.put_blobs(&[lines]).await;
    let submission = json!({
        "spec": {
            "task": { "command": ["echo", "{word}"] },
            "sweep": { "word": { "lines": "words.txt" } },
            "retry": { "attempts": 1 },
        },
        "axes": { "word": blob(lines) },
    });
    let (status, made) = pool.client.post("/api/v1/jobs", &submission).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let job: JobView = serde_json::from_value(made).unwrap();
    // The next server has to read the list anew, and cannot.
    let pool = pool.restart().await;
    let unreadable = Unreadable::new(&pool, lines);
    let agent = FakeAgent::connect(&pool, "a").await;
    let working = tokio::spawn(agent.work(echo));
    let task = TaskId::new(job.id, 0);
    let given_back = async {
        loop {
            // Its name cannot be had either, so it is not asked for through the door.
            let look = pool
                .server
                .shared
                .driver
                .read(move |view| view.state.task(task));
            let seen = look.await.unwrap().unwrap();
            if let Some(reason) = seen.reason {
                return reason.to_string();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let given_back = tokio::time::timeout(PATIENCE, given_back).await;
    let reason = given_back.expect("it comes back");
    assert!(reason.contains("the server could not send"), "{reason}");
    unreadable.mend();
    pool.client.wait_done(job.id).await;
    pool.server.shutdown().await.unwrap();
    working.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn both_kinds_of_merge_give_one_file() {
    let pool = TestPool::start().await;
    let agent = FakeAgent::connect(&pool, "a").await;
    let working = tokio::spawn(agent.work(|task, command, wire| {
        if command[0] == "join" {
            let names: Vec<&str> = wire
                .inputs
                .iter()
                .map(|input| input.name.as_str())
                .collect();
            assert_eq!(names, command[1..]);
            return (0, vec![("stdout".to_owned(), names.join(",").into_bytes())]);
        }
        echo(task, command, wire)
    }));
    let spec = |merge: Value| {
        json!({
            "task": { "command": ["echo", "{n}"] },
            "sweep": { "n": { "range": [10, 12] } },
            "collect": { "merge": merge },
        })
    };
    let concat = spec(json!({ "concat": "all.txt", "from": "stdout" }));
    let concat = pool.client.submit(concat).await;
    pool.client.wait_done(concat.id).await;
    let files = pool.client.results(concat.id).await.files;
    let all = files.last().unwrap();
    assert_eq!((all.index, all.name.as_str()), (None, "all.txt"));
    assert_eq!(pool.client.content(&all.blob.digest).await, b"10\n11\n12\n");
    let command = spec(json!({ "command": ["join", "{outputs}"] }));
    let command = pool.client.submit(command).await;
    assert_eq!(command.task_count, 4);
    pool.client.wait_done(command.id).await;
    let files = pool.client.results(command.id).await.files;
    let joined = files.last().unwrap();
    assert_eq!((joined.index, joined.name.as_str()), (None, "stdout"));
    let content = pool.client.content(&joined.blob.digest).await;
    assert_eq!(content, b"0/stdout,1/stdout,2/stdout");
    let broken = spec(json!({ "concat": "all.txt", "from": "nothing.txt" }));
    let broken = pool.client.submit(broken).await;
    let broken = pool.client.wait(broken.id).await;
    assert!(
        broken.reason.contains("made no file `nothing.txt`"),
        "{}",
        broken.reason
    );
    pool.server.shutdown().await.unwrap();
    working.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_of_many_outputs_gets_a_listing_of_them() {
    let pool = TestPool::start().await;
    let agent = FakeAgent::connect(&pool, "a").await;
    let working = tokio::spawn(agent.work(|task, command, wire| {
        if command[0] == "join" {
            assert!(wire.inputs.is_empty());
            let digest = Digest(wire.listing.as_slice().try_into().unwrap());
            let text = format!("{digest} {}", command.len() - 1);
            return (0, vec![("stdout".to_owned(), text.into_bytes())]);
        }
        echo(task, command, wire)
    }));
    let spec = json!({
        "task": { "command": ["echo", "{n}"] },
        "sweep": { "n": { "range": [0, 299] } },
        "collect": { "merge": { "command": ["join", "{outputs}"] } },
    });
    let job = pool.client.submit(spec).await;
    pool.client.wait_done(job.id).await;
    let path = format!("/api/v1/jobs/{}/results?after=300", job.id);
    let merged: ResultPage = pool.client.get(&path).await;
    let text = pool.client.content(&merged.files[0].blob.digest).await;
    let text = String::from_utf8(text).unwrap();
    let (digest, arguments) = text.split_once(' ').unwrap();
    assert_eq!(arguments, "300");
    let listing = pool.client.content(&digest.parse().unwrap()).await;
    let lines = listing
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let entries: Vec<FileEntry> = lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(
        (entries.len(), entries[299].name.as_str()),
        (300, "299/stdout")
    );
    // Contents that travelled inside a report are found by their digest like any other.
    assert_eq!(
        pool.client.content(&entries[299].blob.digest).await,
        b"299\n"
    );
    pool.server.shutdown().await.unwrap();
    working.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_lines_and_pieces_reach_their_tasks() {
    let pool = TestPool::start().await;
    let (one, two, names, text) = (
        &b"one"[..],
        &b"two"[..],
        &b"ann\nbob\n"[..],
        &b"1\n2\n3\n"[..],
    );
    let entry = |name: &str, content: &[u8]| {
        let blob = blob(content);
        json!({ "name": name, "digest": blob.digest, "size": blob.size, "mode": 0o755 })
    };
    let listing = format!("{}\n{}\n", entry("d/1.txt", one), entry("d/2.txt", two));
    pool.client
        .put_blobs(&[one, two, names, text, listing.as_bytes()])
        .await;
    let (status, job) = pool
        .client
        .post(
            "/api/v1/jobs",
            &json!({
                "spec": {
                    "task": {
                        "command": ["./tool", "{f}", "{name}", "{piece}"],
                        "inputs": { "in-{name}": "in/{name}.dat", "fixed": "fix.dat" },
                        "stdin": "{piece}",
                    },
                    "sweep": {
                        "mode": "zip",
                        "f": { "files": "d/*.txt" },
                        "name": { "lines": "names.txt" },
                        "piece": { "split": "in/text", "per_task": 2 },
                    },
                },
                "files": [
                    entry("./tool", one), entry("in/ann.dat", one), entry("in/bob.dat", two),
                    entry("fix.dat", two),
                ],
                "axes": { "f": blob(listing.as_bytes()), "name": blob(names), "piece": blob(text) },
            }),
        )
        .await;
    assert_eq!(status, StatusCode::CREATED, "{job}");
    // Everything the job is made of is needed from now on, pieces of a cut file included.
    crate::collect::sweep::once(&pool.server.shared, Duration::ZERO).await;
    for content in [one, two, names, text, listing.as_bytes(), b"1\n2\n", b"3\n"] {
        assert_eq!(pool.client.content(&blob(content).digest).await, content);
    }
    let mut agent = FakeAgent::connect(&pool, "a").await;
    let (bundle, template) = agent.bundle().await;
    let named = |inputs: &[v1::Input]| {
        let pairs = inputs
            .iter()
            .map(|input| (input.name.clone(), input.digest.clone()));
        pairs.collect::<Vec<_>>()
    };
    let is = |name: &str, content: &[u8]| (name.to_owned(), blob(content).digest.0.to_vec());
    assert_eq!(template.names, ["f", "name", "piece"]);
    assert_eq!(template.command[0], "./tool");
    assert_eq!(named(&template.inputs), [is("fixed", two), is("tool", one)]);
    assert_eq!(bundle.tasks.len(), 2);
    assert_eq!(bundle.tasks[0].values, ["d/1.txt", "ann", "000000-text"]);
    assert_eq!(bundle.tasks[1].values, ["d/2.txt", "bob", "000001-text"]);
    let inputs = [
        is("in-bob", two),
        is("d/2.txt", two),
        is("000001-text", b"3\n"),
    ];
    assert_eq!(named(&bundle.tasks[1].inputs), inputs);
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_jobs_tokens_and_nodes() {
    let pool = TestPool::start().await;
    let before = FakeAgent::connect(&pool, "same").await.node;
    let job = pool
        .client
        .submit(json!({ "task": { "command": ["echo", "x"] }, "require": { "arch": "riscv64" } }))
        .await;
    let token = pool.client.token.clone();
    let pool = pool.restart().await;
    assert_eq!(pool.client.token, token);
    let found: Vec<JobView> = pool.client.get("/api/v1/jobs").await;
    assert_eq!(found.iter().map(|job| job.id).collect::<Vec<_>>(), [job.id]);
    let other = FakeAgent::connect(&pool, "other").await;
    let again = FakeAgent::connect(&pool, "same").await;
    assert_eq!((again.node, other.node), (before, before + 1));
    let explain: gleaner_api::ExplainView = pool
        .client
        .get(&format!("/api/v1/jobs/{}/explain", job.id))
        .await;
    assert_eq!(
        (explain.rule.as_deref(), explain.nodes_failing),
        (Some("arch"), 2)
    );
    let view: PoolView = pool.client.get("/api/v1/pool").await;
    assert_eq!(
        (view.nodes_online, view.trouble, view.user.as_str()),
        (2, None, "admin")
    );
    pool.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_open_for_the_right_tokens_only() {
    let pool = TestPool::start().await;
    for (token, expected) in [
        ("", StatusCode::UNAUTHORIZED),
        ("gln-user-0000", StatusCode::UNAUTHORIZED),
        (&pool.node_token(), StatusCode::FORBIDDEN),
    ] {
        let mut client = pool.client.clone();
        client.token = token.to_owned();
        let answer = client
            .request(Method::GET, "/api/v1/jobs")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), expected);
    }
    let wrong = v1::Hello {
        protocol: 99,
        ..hello("a")
    };
    let refused = FakeAgent::connect_as(&pool, wrong).await.err().unwrap();
    assert!(
        refused.message().contains("speaks protocol"),
        "{}",
        refused.message()
    );
    let (status, made) = pool
        .client
        .post("/api/v1/tokens", &json!({ "kind": "user", "name": "eva" }))
        .await;
    assert_eq!(status, StatusCode::CREATED);
    let mut eva = pool.client.clone();
    eva.token = made["secret"].as_str().unwrap().to_owned();
    let view: PoolView = eva.get("/api/v1/pool").await;
    assert_eq!(view.user, "eva");
    let job = pool
        .client
        .submit(json!({ "task": { "command": ["echo"] } }))
        .await;
    let (status, _) = eva
        .post(&format!("/api/v1/jobs/{}/cancel", job.id), &json!(null))
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, _) = eva
        .post("/api/v1/tokens", &json!({ "kind": "user", "name": "x" }))
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let path = format!("/api/v1/tokens/{}", made["id"].as_str().unwrap());
    let revoked = pool
        .client
        .request(Method::DELETE, &path)
        .send()
        .await
        .unwrap();
    assert_eq!(revoked.status(), StatusCode::NO_CONTENT);
    // Nobody shuts everybody out, themselves among them.
    let last = pool.client.request(Method::DELETE, "/api/v1/tokens/1");
    let last = last.send().await.unwrap();
    assert_eq!(last.status(), StatusCode::CONFLICT);
    let answer = eva
        .request(Method::GET, "/api/v1/pool")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    pool.server.shutdown().await.unwrap();
}
