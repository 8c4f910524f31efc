//! An agent that connects, takes bundles, and reports what a given function makes of each task.

use super::pool::{PATIENCE, TestPool, digest};
use gleaner_model::{
    AttemptId, AttemptRecord, BlobRef, JobId, OutputFile, Reason, TaskId, Time, Usage,
};
use gleaner_wire::v1::agent_message::Kind as Say;
use gleaner_wire::v1::pool_client::PoolClient;
use gleaner_wire::v1::server_message::Kind as Hear;
use gleaner_wire::{PROTOCOL, v1};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Request, Status, Streaming};

pub(super) type Texts = BTreeMap<String, String>;

/// What a pretended program made: its exit code and its files.
pub(super) type Made = (i32, Vec<(String, Vec<u8>)>);

pub(super) struct FakeAgent {
    pub(super) node: u32,
    pub(super) say: mpsc::Sender<v1::AgentBatch>,
    pub(super) hear: Streaming<v1::ServerBatch>,
    pub(super) templates: BTreeMap<u64, v1::Template>,
    pub(super) acknowledged: Vec<AttemptId>,
    /// Heard but not looked at.
    waiting: Vec<Hear>,
}

pub(super) fn hello(identity: &str) -> v1::Hello {
    v1::Hello {
        identity: identity.to_owned(),
        name: format!("pc-{identity}"),
        protocol: PROTOCOL,
        version: "test".to_owned(),
        cpus_milli: 4000,
        memory_bytes: 64 << 30,
        disk_bytes: 64 << 30,
        arch: "x86_64".to_owned(),
        engines: vec!["process".to_owned()],
        ..v1::Hello::default()
    }
}

pub(super) fn message(kind: Say) -> v1::AgentMessage {
    v1::AgentMessage { kind: Some(kind) }
}

pub(super) fn batch(messages: Vec<v1::AgentMessage>) -> v1::AgentBatch {
    v1::AgentBatch { messages, node: 0 }
}

pub(super) fn bearer<T>(body: T, token: &str) -> Request<T> {
    let mut request = Request::new(body);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

pub(super) async fn door(pool: &TestPool) -> PoolClient<Channel> {
    let ca = std::fs::read(pool.dir.path().join("data/ca.pem")).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .domain_name("localhost");
    let url = format!("https://{}", pool.server.addr());
    let channel = Channel::from_shared(url).unwrap().tls_config(tls).unwrap();
    PoolClient::new(channel.connect().await.unwrap())
}

/// An end as an agent reports it; files up to the bound travel with it.
pub(super) fn ended(attempt: AttemptId, (code, files): &Made) -> v1::Ended {
    let reason = Reason::Exit { code: *code };
    let outputs = files.iter().map(|(name, content)| OutputFile {
        name: name.clone(),
        blob: BlobRef {
            digest: digest(content),
            size: content.len() as u64,
        },
        mode: 0o644,
    });
    let record = AttemptRecord {
        attempt,
        reason: reason.clone(),
        engine: None,
        started: Some(Time { ms: 1 }),
        ended: Time { ms: 2 },
        wall_seconds: 0.5,
        paused_seconds: 0.0,
        usage: Usage {
            cpu_seconds: 0.25,
            ..Usage::default()
        },
        limits: Vec::new(),
        refused_calls: BTreeMap::new(),
        degraded: Vec::new(),
        outputs: outputs.collect(),
        went_on_from: None,
        checkpoints: 0,
    };
    v1::Ended {
        attempt: Some(attempt.into()),
        reason: serde_json::to_vec(&reason).unwrap(),
        cpu_seconds: 0.25,
        busy_seconds: 0.5,
        system_seconds: 0.0,
        faults: 0,
        engine: String::new(),
        record: serde_json::to_vec(&record).unwrap(),
        inline: files.iter().map(|(_, content)| content.clone()).collect(),
        blobs: Vec::new(),
        checkpoint: Vec::new(),
    }
}

/// A text of the template, its placeholders filled in.
pub(super) fn fill(text: &str, texts: &Texts) -> String {
    let template = gleaner_model::Template::parse(text, &|name| texts.contains_key(name));
    template
        .fill(&|name| texts.get(name).map(|value| value.as_str().into()))
        .unwrap()
}

impl FakeAgent {
    pub(super) async fn connect(pool: &TestPool, identity: &str) -> Self {
        Self::connect_as(pool, hello(identity)).await.unwrap()
    }

    pub(super) async fn connect_as(pool: &TestPool, hello: v1::Hello) -> Result<Self, Status> {
        let (say, said) = mpsc::channel(16);
        say.send(batch(vec![message(Say::Hello(hello))]))
            .await
            .unwrap();
        let request = bearer(ReceiverStream::new(said), &pool.node_token());
        let hear = door(pool).await.link(request).await?.into_inner();
        let mut agent = Self {
            node: 0,
            say,
            hear,
            templates: BTreeMap::new(),
            acknowledged: Vec::new(),
            waiting: Vec::new(),
        };
        let mut first = agent.next().await?;
        let Hear::Welcome(welcome) = first.remove(0) else {
            panic!("the first message is no welcome");
        };
        agent.waiting = first;
        agent.node = welcome.node;
        let beat = v1::Beat {
            state: "online".to_owned(),
            reason: String::new(),
        };
        agent.tell(Say::Beat(beat)).await;
        Ok(agent)
    }

    pub(super) async fn tell(&self, kind: Say) {
        self.say.send(batch(vec![message(kind)])).await.unwrap();
    }

    /// The next messages; fails when the stream ends.
    pub(super) async fn next(&mut self) -> Result<Vec<Hear>, Status> {
        if !self.waiting.is_empty() {
            return Ok(std::mem::take(&mut self.waiting));
        }
        let next = tokio::time::timeout(PATIENCE, self.hear.message()).await;
        let next = next.expect("the server says something in time")?;
        let next = next.ok_or_else(|| Status::aborted("the server ended the stream"))?;
        Ok(next
            .messages
            .into_iter()
            .filter_map(|message| message.kind)
            .collect())
    }

    /// The next bundle, with the template that holds for it.
    pub(super) async fn bundle(&mut self) -> (v1::Bundle, v1::Template) {
        loop {
            for kind in self.next().await.unwrap() {
                match kind {
                    Hear::Bundle(bundle) => {
                        if let Some(template) = &bundle.template {
                            self.templates.insert(bundle.job, template.clone());
                        }
                        let template = self.templates[&bundle.job].clone();
                        return (bundle, template);
                    }
                    Hear::Acknowledge(acknowledge) => {
                        let attempts = acknowledge.attempts.into_iter().map(AttemptId::from);
                        self.acknowledged.extend(attempts);
                    }
                    Hear::Welcome(_)
                    | Hear::Revoke(_)
                    | Hear::Wish(_)
                    | Hear::Kept(_)
                    | Hear::LogRequest(_) => {}
                }
            }
        }
    }

    /// Runs bundles for ever, until the stream ends. `program` sees the filled command.
    pub(super) async fn work(
        mut self,
        program: impl Fn(TaskId, &[String], &v1::Task) -> Made + Send,
    ) {
        loop {
            let Ok(messages) = self.next().await else {
                return;
            };
            let mut reports = Vec::new();
            for kind in messages {
                let Hear::Bundle(bundle) = kind else { continue };
                if let Some(template) = &bundle.template {
                    self.templates.insert(bundle.job, template.clone());
                }
                let template = &self.templates[&bundle.job];
                for task in &bundle.tasks {
                    let id = TaskId::new(JobId(bundle.job), task.index);
                    let texts: Texts = template
                        .names
                        .iter()
                        .cloned()
                        .zip(task.values.iter().cloned())
                        .collect();
                    let command: Vec<String> = match task.command.is_empty() {
                        true => template
                            .command
                            .iter()
                            .map(|text| fill(text, &texts))
                            .collect(),
                        false => task.command.clone(),
                    };
                    let made = program(id, &command, task);
                    reports.push(message(Say::Ended(ended(id.attempt(task.number), &made))));
                }
            }
            if !reports.is_empty() && self.say.send(batch(reports)).await.is_err() {
                return;
            }
        }
    }
}
