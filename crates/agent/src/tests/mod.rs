//! Whole agents against a fake server and a fake engine: what a user, an admin and a bad network
//! can do to one.

mod ahead;
mod broken;
pub(crate) mod engine;
mod offers;
mod places;
mod server;
mod watch;

use crate::config::{AgentConfig, AtStop, Token};
use crate::engines::Built;
use crate::{AgentError, run_with};
use engine::FakeEngine;
use gleaner_model::{
    AttemptId, AttemptRecord, AttemptState, Cpus, Digest, JobId, Limits, Reason, TaskId,
};
use gleaner_sense::OwnTime;
use gleaner_wire::v1::agent_message::Kind;
use gleaner_wire::v1::{self, server_message};
use server::FakeServer;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use watch::FakeSensors;

const DEADLINE: Duration = Duration::from_secs(30);

struct Agent {
    stop: CancellationToken,
    work: JoinHandle<Result<(), AgentError>>,
}

impl Agent {
    fn start(server: &FakeServer, engine: &Arc<FakeEngine>, data: &Path) -> Self {
        Self::start_with(server, engine, data, |_| {})
    }

    fn start_with(
        server: &FakeServer,
        engine: &Arc<FakeEngine>,
        data: &Path,
        change: impl FnOnce(&mut AgentConfig),
    ) -> Self {
        let sensors = Arc::default();
        Self::sensing(server, engine, data, (change, &sensors))
    }

    /// An agent whose sensors say what the test wants.
    fn sensing(
        server: &FakeServer,
        engine: &Arc<FakeEngine>,
        data: &Path,
        (change, sensors): (impl FnOnce(&mut AgentConfig), &Arc<FakeSensors>),
    ) -> Self {
        let sensors = Arc::clone(sensors);
        let token = Token::new(&server.token());
        let mut config = AgentConfig::new(&server.url(), token, data.to_owned());
        config.cpus = Some(Cpus { milli: 2000 });
        change(&mut config);
        let (stop, engine) = (CancellationToken::new(), Arc::clone(engine));
        let work = run_with(config, stop.clone(), move |_, _, events| {
            engine.hear(events);
            Ok(Built {
                engines: engine.all(),
                refused: None,
                again: None,
                clock: sensors.clock(),
                sensing: Box::new(move |sink| {
                    sensors.begin(sink);
                    sensors
                }),
                own: OwnTime::Nothing,
            })
        });
        Self {
            stop,
            work: tokio::spawn(work),
        }
    }

    async fn stop(self) -> Result<(), AgentError> {
        self.stop.cancel();
        let ended = tokio::time::timeout(DEADLINE, self.work).await;
        ended.expect("the agent does not stop").unwrap()
    }
}

fn id(index: u32) -> AttemptId {
    TaskId::new(JobId(1), index).attempt(1)
}

fn bundle(command: &[&str], outputs: &[&str], tasks: u32) -> v1::Bundle {
    v1::Bundle {
        lease: 1,
        job: 1,
        width: 2,
        engine: String::new(),
        template: Some(v1::Template {
            names: vec!["x".into()],
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
            limits: serde_json::to_vec(&Limits::default()).unwrap(),
            engine: "process".into(),
            ..v1::Template::default()
        }),
        tasks: (0..tasks)
            .map(|index| v1::Task {
                index,
                number: 1,
                values: vec![format!("v{index}")],
                ..v1::Task::default()
            })
            .collect(),
    }
}

fn input(name: &str, digest: Digest, size: usize) -> v1::Input {
    v1::Input {
        name: name.to_owned(),
        digest: digest.0.to_vec(),
        size: size as u64,
        mode: 0o644,
    }
}

fn reason(ended: &v1::Ended) -> Reason {
    serde_json::from_slice(&ended.reason).unwrap()
}

fn record(ended: &v1::Ended) -> AttemptRecord {
    serde_json::from_slice(&gleaner_wire::unpack_record(&ended.record).unwrap()).unwrap()
}

/// Waits for what another thread does; the deadline is generous and only met by a fault.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Scene {
    server: FakeServer,
    engine: Arc<FakeEngine>,
    data: tempfile::TempDir,
    agent: Agent,
}

impl Scene {
    /// An agent that was welcomed.
    async fn new() -> (Self, v1::Hello) {
        Self::with(false, |_, _| {}).await
    }

    async fn with(
        tls: bool,
        change: impl FnOnce(&FakeServer, &mut AgentConfig),
    ) -> (Self, v1::Hello) {
        let mut server = FakeServer::start(tls).await;
        let engine = Arc::new(FakeEngine::new());
        let data = tempfile::tempdir().unwrap();
        let change = |config: &mut AgentConfig| change(&server, config);
        let agent = Agent::start_with(&server, &engine, data.path(), change);
        let hello = server.hello().await;
        let scene = Self {
            server,
            engine,
            data,
            agent,
        };
        (scene, hello)
    }

    async fn grant(&self, bundle: v1::Bundle) {
        self.server.send(server_message::Kind::Bundle(bundle)).await;
    }

    async fn wish(&self, wish: &str) {
        let wish = v1::Wish { wish: wish.into() };
        self.server.send(server_message::Kind::Wish(wish)).await;
    }

    async fn gone(&self) {
        until("everything is discarded", || self.engine.holds() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_a_task_is_run_and_its_result_reported() {
    let (mut scene, hello) = Scene::with(true, |_, config| {
        config.name = Some("pc-7".into());
        config.labels.insert("room".into(), "b12".into());
    })
    .await;
    assert_eq!((hello.name.as_str(), hello.cpus_milli), ("pc-7", 2000));
    assert_eq!(hello.labels["room"], "b12");
    assert_eq!(
        (hello.engines, hello.held.len()),
        (vec!["process".to_owned()], 0)
    );
    scene
        .grant(bundle(&["print", "{x} of {index}"], &[], 3))
        .await;
    for index in 0..3 {
        let ended = scene.server.ended(id(index)).await;
        assert_eq!(reason(&ended), Reason::Exit { code: 0 });
        let record = record(&ended);
        assert_eq!(record.engine, Some(gleaner_model::Engine::Process));
        assert_eq!((ended.cpu_seconds, ended.busy_seconds), (1.25, 2.0));
        assert_eq!(record.outputs.len(), 2);
        // stdout and (once for all empty files) the empty one travel in the report.
        let text = format!("v{index} of {index}");
        assert!(ended.inline.contains(&text.into_bytes()), "{ended:?}");
        assert_eq!((ended.inline.len(), ended.blobs.len()), (2, 0));
    }
    scene.gone().await;
    assert_eq!(scene.server.counts(), (0, 0));
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_fingerprint_or_token_is_refused() {
    let server = FakeServer::start(true).await;
    let engine = Arc::new(FakeEngine::new());
    let data = tempfile::tempdir().unwrap();
    let agent = Agent::start_with(&server, &engine, data.path(), |config| {
        let token = server.token().replace("s3cret", "stolen");
        config.token = Token::new(&token);
    });
    let refused = tokio::time::timeout(DEADLINE, agent.work).await;
    let refused = refused.unwrap().unwrap().unwrap_err();
    assert!(
        matches!(&refused, AgentError::Refused(why) if why.contains("not known")),
        "{refused}"
    );
    // A server with another CA is never told anything: the agent waits for the right one.
    let mut impostor = server;
    let agent = Agent::start_with(&impostor, &engine, data.path(), |config| {
        config.token = Token::new(&format!("gln-node-s3cret-{}", "0".repeat(64)));
    });
    until("it tried twice", || impostor.fruitless() >= 2).await;
    assert!(impostor.rest().is_empty());
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_are_fetched_once_resumed_and_listed() {
    let (mut scene, _) = Scene::new().await;
    let big = vec![b'b'; 3 << 20];
    let (large, small) = (scene.server.add_blob(&big), scene.server.add_blob(b"one"));
    scene.server.break_off(large);
    let entry = |name: &str, digest: Digest, size: usize| {
        format!(r#"{{"name":"{name}","digest":"{digest}","size":{size},"mode":420}}"#)
    };
    let two = scene.server.add_blob(b"two");
    let lines = [entry("m/2", two, 3), entry("m/1", small, 3)].join("\n");
    let listing = scene.server.add_blob(lines.as_bytes());
    let mut tasks = bundle(&["cat"], &[], 2);
    for task in &mut tasks.tasks {
        task.inputs.push(input("large", large, big.len()));
    }
    let template = tasks.template.as_mut().unwrap();
    template.inputs.push(input("{x}.txt", small, 3));
    tasks.tasks[1].inputs.clear();
    tasks.tasks[1].listing = listing.0.to_vec();
    scene.grant(tasks).await;
    let first = record(&scene.server.ended(id(0)).await);
    assert_eq!(first.reason, Reason::Exit { code: 0 });
    let stdout = &first.outputs[0];
    assert_eq!(
        stdout.blob.size,
        ("large=;v0.txt=one;".len() + big.len()) as u64
    );
    let printed = scene.server.blob(stdout.blob.digest).unwrap();
    assert!(printed.ends_with(b";v0.txt=one;"));
    let second = scene.server.ended(id(1)).await;
    assert!(
        second
            .inline
            .contains(&b"m/1=one;m/2=two;v1.txt=one;".to_vec()),
        "{second:?}"
    );
    // The broken transfer went on where it stopped, and stdout of the first was uploaded.
    assert_eq!(scene.server.counts(), (1, 1));
    scene.gone().await;
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_content_is_integrity_and_a_missing_blob_is_transfer() {
    let (mut scene, _) = Scene::new().await;
    let rotten = scene.server.add_blob(b"good");
    scene.server.rot(rotten);
    let absent = Digest([9; 32]);
    let mut tasks = bundle(&["cat"], &[], 2);
    tasks.tasks[0].inputs.push(input("a", rotten, 4));
    tasks.tasks[1].inputs.push(input("a", absent, 4));
    scene.grant(tasks).await;
    let first = reason(&scene.server.ended(id(0)).await);
    assert!(matches!(first, Reason::Integrity { .. }), "{first}");
    let second = reason(&scene.server.ended(id(1)).await);
    let told = matches!(&second, Reason::Fetch { detail } if detail.contains("no such blob"));
    assert!(told, "{second}");
    assert_eq!(scene.engine.starts(), []);
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_rots_in_the_cache_fails_one_attempt_and_is_fetched_anew() {
    let (mut scene, _) = Scene::new().await;
    let blob = scene.server.add_blob(b"good");
    let mut tasks = bundle(&["cat"], &[], 1);
    tasks.tasks[0].inputs.push(input("a", blob, 4));
    scene.grant(tasks.clone()).await;
    scene.server.ended(id(0)).await;
    std::fs::write(scene.data.path().join("blobs").join(blob.hex()), "evil").unwrap();
    tasks.tasks[0].index = 1;
    scene.grant(tasks.clone()).await;
    let rotten = reason(&scene.server.ended(id(1)).await);
    assert!(matches!(rotten, Reason::Integrity { .. }), "{rotten}");
    tasks.tasks[0].index = 2;
    scene.grant(tasks).await;
    let fine = scene.server.ended(id(2)).await;
    assert_eq!(reason(&fine), Reason::Exit { code: 0 });
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_travel_in_the_report_or_as_blobs_and_missing_ones_are_told() {
    for (bytes, inline, uploads) in [(4096, 2, 0), (4097, 1, 1), (300_000, 1, 1)] {
        let (mut scene, _) = Scene::new().await;
        let size = bytes.to_string();
        scene
            .grant(bundle(&["write", "out", &size], &["out"], 1))
            .await;
        let ended = scene.server.ended(id(0)).await;
        assert_eq!(
            (ended.inline.len(), ended.blobs.len()),
            (inline, uploads),
            "{bytes}"
        );
        let record = record(&ended);
        let out = record
            .outputs
            .iter()
            .find(|output| output.name == "out")
            .unwrap();
        let content = vec![b'x'; bytes];
        assert_eq!(out.blob.digest.0, *blake3::hash(&content).as_bytes());
        let stored = scene.server.blob(out.blob.digest);
        assert_eq!(stored, (uploads == 1).then_some(content));
        scene.agent.stop().await.unwrap();
    }
    let (mut scene, _) = Scene::new().await;
    scene.grant(bundle(&["missing"], &["out"], 1)).await;
    let ended = scene.server.ended(id(0)).await;
    let why = reason(&ended);
    assert!(
        matches!(&why, Reason::Output { detail } if detail.contains("missing")),
        "{why}"
    );
    assert_eq!(
        record(&ended).outputs.len(),
        2,
        "what it printed comes home"
    );
    // A program that failed keeps its own reason.
    let mut failed = bundle(&["exit", "3"], &["out"], 1);
    failed.tasks[0].index = 5;
    scene.grant(failed).await;
    let ended = scene.server.ended(id(5)).await;
    assert_eq!(reason(&ended), Reason::Exit { code: 3 });
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_outlast_a_server_that_is_away_and_are_acknowledged_once() {
    let (mut scene, _) = Scene::new().await;
    let mut tasks = bundle(&["wait"], &["out"], 2);
    tasks.template.as_mut().unwrap().outputs.clear();
    scene.grant(tasks).await;
    until("both run", || scene.engine.starts().len() == 2).await;
    // One ends while the server hears but does not answer, one while it is away.
    scene.server.be_silent(true);
    scene.engine.end(id(0));
    scene.server.ended(id(0)).await;
    scene.server.vanish();
    scene.engine.print(id(1), &"y".repeat(10_000));
    scene.engine.end(id(1));
    until("the agent looked for it", || scene.server.fruitless() > 0).await;
    scene.server.be_silent(false);
    scene.server.come_back();
    let hello = scene.server.hello().await;
    let held: Vec<_> = hello.held.iter().map(|held| held.state.as_str()).collect();
    assert_eq!(held, ["finished", "finished"]);
    for index in 0..2 {
        scene.server.ended(id(index)).await;
    }
    scene.gone().await;
    for index in 0..2 {
        assert_eq!(scene.server.acknowledged(id(index)), 1);
    }
    assert_eq!(scene.engine.starts().len(), 2, "nothing ran twice");
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_attempt_is_stopped_without_a_report() {
    let (mut scene, _) = Scene::new().await;
    scene.grant(bundle(&["wait"], &[], 3)).await;
    until("two run", || scene.engine.starts().len() == 2).await;
    let attempts = [0, 1, 2].map(|index| id(index).into()).to_vec();
    let revoke = server_message::Kind::Revoke(v1::Revoke { attempts });
    scene.server.send(revoke).await;
    scene.gone().await;
    assert_eq!(scene.engine.starts().len(), 2, "the third never started");
    let reported = |kind: &Kind| matches!(kind, Kind::Ended(_));
    assert!(!scene.server.rest().iter().any(reported));
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_agent_adopts_what_the_old_one_left() {
    let (mut scene, hello) = Scene::new().await;
    scene.grant(bundle(&["wait"], &[], 2)).await;
    until("both run", || scene.engine.starts().len() == 2).await;
    until("beats come", || scene.engine.beats() > 0).await;
    scene.agent.stop().await.unwrap();
    scene.engine.deafen();
    // One ends while no agent is there.
    scene.engine.end(id(0));
    let agent = Agent::start(&scene.server, &scene.engine, scene.data.path());
    let again = scene.server.hello().await;
    assert_eq!(again.identity, hello.identity);
    let held: Vec<_> = again.held.iter().map(|held| held.state.as_str()).collect();
    // What runs stands still until the new agent's sensors have spoken.
    assert_eq!(held[0], "finished");
    assert!(matches!(held[1], "running" | "paused"), "{held:?}");
    scene.server.ended(id(0)).await;
    scene.engine.end(id(1));
    scene.server.ended(id(1)).await;
    until("all is discarded", || scene.engine.holds() == 0).await;
    assert_eq!(scene.engine.starts().len(), 2);
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_ends_its_work_leaves_nothing() {
    let (mut scene, _) = Scene::with(false, |_, config| config.at_stop = AtStop::End).await;
    scene.grant(bundle(&["wait"], &[], 4)).await;
    until("two run", || scene.engine.starts().len() == 2).await;
    scene.agent.stop().await.unwrap();
    assert_eq!(scene.engine.holds(), 0);
    assert_eq!(scene.engine.starts().len(), 2);
    let _reports = scene.server.rest();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admins_wishes_are_obeyed() {
    let (mut scene, _) = Scene::new().await;
    scene.grant(bundle(&["wait"], &[], 3)).await;
    until("two run", || scene.engine.starts().len() == 2).await;
    scene.wish("pause").await;
    let told = |state: AttemptState| {
        move |kind: &Kind| match kind {
            Kind::Progress(progress) if progress.state == state.as_str() => Some(()),
            Kind::Hello(_)
            | Kind::Beat(_)
            | Kind::Offer(_)
            | Kind::Progress(_)
            | Kind::Ended(_)
            | Kind::Saved(_)
            | Kind::LogChunk(_) => None,
        }
    };
    scene.server.hear(told(AttemptState::Paused)).await;
    scene.wish("resume").await;
    scene.server.hear(told(AttemptState::Running)).await;
    scene.wish("drain").await;
    let drained = reason(&scene.server.ended(id(2)).await);
    assert_eq!(drained.state(), AttemptState::Evicted);
    scene.wish("evict").await;
    for index in 0..2 {
        let evicted = reason(&scene.server.ended(id(index)).await);
        assert_eq!(evicted.state(), AttemptState::Evicted);
    }
    scene.gone().await;
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_polls_where_the_server_wants_it() {
    let (mut scene, _) = Scene::with(false, |server, _| server.want_poll()).await;
    scene.grant(bundle(&["print", "polled"], &[], 2)).await;
    for index in 0..2 {
        let ended = scene.server.ended(id(index)).await;
        assert!(ended.inline.contains(&b"polled".to_vec()));
    }
    scene.gone().await;
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_followed_to_its_end() {
    let (mut scene, _) = Scene::new().await;
    scene.grant(bundle(&["wait"], &[], 1)).await;
    until("it runs", || scene.engine.starts().len() == 1).await;
    let ask = |request, attempt: AttemptId, offset, follow| {
        server_message::Kind::LogRequest(v1::LogRequest {
            request,
            attempt: Some(attempt.into()),
            stream: "stdout".into(),
            offset,
            follow,
            stop: false,
        })
    };
    scene.engine.print(id(0), "hello ");
    scene.server.send(ask(1, id(0), 0, true)).await;
    scene.server.send(ask(2, id(0), 2, false)).await;
    scene.server.send(ask(3, id(9), 0, true)).await;
    let text = async |server: &mut FakeServer, number: u64, wanted: &str| {
        let (mut text, mut last) = (String::new(), false);
        while !last && text != wanted {
            let (data, end) = server
                .hear(|kind| match kind {
                    Kind::LogChunk(chunk) if chunk.request == number => {
                        Some((chunk.data.clone(), chunk.last))
                    }
                    Kind::Hello(_)
                    | Kind::Beat(_)
                    | Kind::Offer(_)
                    | Kind::Progress(_)
                    | Kind::Ended(_)
                    | Kind::Saved(_)
                    | Kind::LogChunk(_) => None,
                })
                .await;
            text.push_str(&String::from_utf8(data).unwrap());
            last = end;
        }
        (text, last)
    };
    let server = &mut scene.server;
    assert_eq!(
        text(server, 3, "-").await,
        (String::new(), true),
        "not here"
    );
    assert_eq!(text(server, 2, "-").await, ("llo ".into(), true));
    assert_eq!(text(server, 1, "hello ").await, ("hello ".into(), false));
    scene.engine.print(id(0), "world");
    scene.engine.end(id(0));
    assert_eq!(
        text(&mut scene.server, 1, "-").await,
        ("world".into(), true)
    );
    scene.agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_agents_do_not_share_a_directory() {
    let (scene, _) = Scene::new().await;
    let second = Agent::start(&scene.server, &scene.engine, scene.data.path());
    let error = second.work.await.unwrap().unwrap_err();
    assert!(matches!(error, AgentError::InUse(_)), "{error}");
    scene.agent.stop().await.unwrap();
}
