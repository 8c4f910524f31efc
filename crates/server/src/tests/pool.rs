//! A server in a directory of its own, and a client of it.

use crate::{ServerConfig, ServerHandle, start};
use gleaner_api::{JobView, ResultPage};
use gleaner_model::{BlobRef, Digest, JobId, JobState};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// How long anything that must happen may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct TestPool {
    pub(super) dir: tempfile::TempDir,
    pub(super) server: ServerHandle,
    pub(super) client: Client,
}

#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    pub(super) base: String,
    pub(super) token: String,
}

pub(super) fn digest(content: &[u8]) -> Digest {
    Digest(*blake3::hash(content).as_bytes())
}

pub(super) fn blob(content: &[u8]) -> BlobRef {
    BlobRef {
        digest: digest(content),
        size: content.len() as u64,
    }
}

fn setting(text: &str, key: &str) -> String {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{key} = \"")));
    line.unwrap().trim_end_matches('"').to_owned()
}

impl Client {
    pub(super) fn new(data: &Path) -> Self {
        let text = std::fs::read_to_string(data.join("client.toml")).unwrap();
        let ca = std::fs::read(setting(&text, "ca")).unwrap();
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
            .no_proxy()
            .build()
            .unwrap();
        Self {
            http,
            base: setting(&text, "server"),
            token: setting(&text, "token"),
        }
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.base);
        self.http.request(method, url).bearer_auth(&self.token)
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.request(Method::GET, path).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let answer = self
            .request(Method::POST, path)
            .json(body)
            .send()
            .await
            .unwrap();
        let status = answer.status();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub(super) async fn put_blobs(&self, contents: &[&[u8]]) {
        let mut body = Vec::new();
        for content in contents {
            body.extend((content.len() as u64).to_le_bytes());
            body.extend(*content);
        }
        let request = self.request(Method::POST, "/api/v1/blobs/bulk").body(body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }

    pub(super) async fn content(&self, digest: &Digest) -> Vec<u8> {
        let path = format!("/api/v1/blobs/{digest}");
        let answer = self.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.bytes().await.unwrap().to_vec()
    }

    pub(super) async fn submit(&self, spec: Value) -> JobView {
        let (status, answer) = self.post("/api/v1/jobs", &json!({ "spec": spec })).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        serde_json::from_value(answer).unwrap()
    }

    /// Follows a job by its revisions until it is over.
    pub(super) async fn wait(&self, job: JobId) -> JobView {
        let waiting = async {
            let mut seen: JobView = self.get(&format!("/api/v1/jobs/{job}")).await;
            while !seen.state.is_over() {
                let path = format!("/api/v1/jobs/{job}?after={}", seen.revision);
                seen = self.get(&path).await;
            }
            seen
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("the job ends in time")
    }

    pub(super) async fn wait_done(&self, job: JobId) -> JobView {
        let seen = self.wait(job).await;
        assert_eq!(seen.state, JobState::Done, "{}", seen.reason);
        seen
    }

    pub(super) async fn results(&self, job: JobId) -> ResultPage {
        self.get(&format!("/api/v1/jobs/{job}/results")).await
    }
}

impl TestPool {
    pub(super) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(super) async fn start_in(dir: tempfile::TempDir) -> Self {
        Self::start_as(dir, |_| {}).await
    }

    pub(super) async fn start_as(
        dir: tempfile::TempDir,
        change: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let data = dir.path().join("data");
        let mut config = ServerConfig::new(data.clone(), listen);
        change(&mut config);
        let server = start(config).await.unwrap();
        Self {
            client: Client::new(&data),
            dir,
            server,
        }
    }

    pub(super) fn node_token(&self) -> String {
        let path = self.dir.path().join("data/node.token");
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    pub(super) async fn restart(self) -> Self {
        self.server.shutdown().await.unwrap();
        Self::start_in(self.dir).await
    }
}
