//! The REST calls, one method an endpoint. Bodies that are blobs are in [`crate::blobs`].

use crate::{ClientError, Settings};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::StreamExt as _;
use gleaner_api::{
    Accepted, ErrorBody, ExplainView, JobView, NewToken, NodeView, PoolView, ResultPage,
    TaskDetail, TaskView, TokenView,
};
use gleaner_model::{JobId, Submission, TaskId};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait for a connection before the server counts as away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence in an answer. Above the 25 s for which the server holds a long poll.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Window of one HTTP/2 stream and of the connection, in bytes: uploads and downloads should not
/// wait for window updates on a fast network.
const WINDOW_BYTES: u32 = 4 << 20;
/// Nodes asked for in one call: neither side holds more than half a megabyte of text for it.
const NODES_A_CALL: u32 = 1000;
/// Most bytes of an error body that are read and shown.
const ERROR_TEXT_BYTES_MAX: usize = 4096;

/// Fields of a query; absent ones are left out.
type Query<'q> = &'q [(&'q str, Option<&'q str>)];

fn number(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// A connection to one pool. Cheap to clone; keeps its connection alive between calls.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    server: String,
    token: Arc<str>,
}

/// What to ask of the listing of jobs.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobQuery {
    /// Only jobs before this one.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// What to ask of the listing of nodes.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeQuery {
    /// Only nodes with a higher number.
    pub after: Option<u32>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// What to ask of a job's tasks.
#[derive(Debug, Clone, Default)]
pub struct TaskQuery {
    /// Only tasks in this state.
    pub state: Option<String>,
    /// Only tasks after this index.
    pub after: Option<u32>,
    /// At most so many.
    pub limit: Option<u32>,
}

impl Client {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// The certificate authority's file cannot be read or holds no certificate.
    pub fn new(settings: &Settings) -> Result<Self, ClientError> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .tcp_nodelay(true)
            .http2_initial_stream_window_size(WINDOW_BYTES)
            .http2_initial_connection_window_size(WINDOW_BYTES)
            .user_agent(concat!("gleaner/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&settings.server) {
            // A proxy of the network's cannot know what runs on this PC.
            builder = builder.no_proxy();
        }
        builder = match &settings.ca {
            Some(ca) => builder.tls_backend_preconfigured(trusting(ca)?),
            None => {
                install_crypto();
                builder
            }
        };
        let http = builder.build().map_err(|problem| {
            ClientError::Settings(format!("cannot set up TLS: {}", chain(&problem)))
        })?;
        Ok(Self {
            http,
            server: settings.server.clone(),
            token: settings.token.as_str().into(),
        })
    }

    /// The server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}/api/v1/{path}", self.server))
            .bearer_auth(&self.token)
    }

    /// Sends, and turns an answer that is no success into an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let answer = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        let text = answer.bytes().await.unwrap_or_default();
        Err(refusal(status, &text))
    }

    pub(crate) fn unreachable(&self, problem: &reqwest::Error) -> ClientError {
        let mut problem = chain(&problem);
        problem.push_str(advice(&problem));
        ClientError::Unreachable {
            server: self.server.clone(),
            problem,
        }
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let answer = self.send(request).await?;
        let body = answer.bytes().await.map_err(|e| self.unreachable(&e))?;
        serde_json::from_slice(&body).map_err(|problem| {
            ClientError::Transfer(format!(
                "the server at {} gave an answer that this version does not understand \
                 ({problem}); are both the same version?",
                self.server
            ))
        })
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: Query<'_>,
    ) -> Result<T, ClientError> {
        let query = query_text(query);
        self.json(self.request(Method::GET, &format!("{path}{query}")))
            .await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    /// The pool, and who the token says we are.
    ///
    /// # Errors
    /// As every call: [`ClientError::Unreachable`] or [`ClientError::Refused`].
    pub async fn pool(&self) -> Result<PoolView, ClientError> {
        self.get("pool", &[]).await
    }

    /// Submits a job whose files are uploaded.
    ///
    /// # Errors
    /// As every call; a wrong job file is refused with its key.
    pub async fn submit(&self, submission: &Submission) -> Result<JobView, ClientError> {
        self.post("jobs", submission).await
    }

    /// Jobs, newest first.
    ///
    /// # Errors
    /// As every call.
    pub async fn jobs(&self, query: &JobQuery) -> Result<Vec<JobView>, ClientError> {
        self.get(
            "jobs",
            &[
                ("before", number(query.before).as_deref()),
                ("limit", number(query.limit).as_deref()),
            ],
        )
        .await
    }

    /// One job.
    ///
    /// # Errors
    /// As every call.
    pub async fn job(&self, job: JobId) -> Result<JobView, ClientError> {
        self.get(&format!("jobs/{job}"), &[]).await
    }

    /// One job, when its revision is another than `after`: at once where the job is over, else
    /// after `pace` at the earliest, and after 25 s whatever happened.
    ///
    /// # Errors
    /// As every call.
    pub async fn job_after(
        &self,
        job: JobId,
        after: u64,
        pace: Duration,
    ) -> Result<JobView, ClientError> {
        let pace_ms = u64::try_from(pace.as_millis()).unwrap_or(u64::MAX);
        let (after, pace_ms) = (number(Some(after)), number(Some(pace_ms)));
        let query = [("after", after.as_deref()), ("pace_ms", pace_ms.as_deref())];
        self.get(&format!("jobs/{job}"), &query).await
    }

    /// A page of a job's tasks.
    ///
    /// # Errors
    /// As every call.
    pub async fn tasks(&self, job: JobId, query: &TaskQuery) -> Result<Vec<TaskView>, ClientError> {
        self.get(
            &format!("jobs/{job}/tasks"),
            &[
                ("state", query.state.as_deref()),
                ("after", number(query.after).as_deref()),
                ("limit", number(query.limit).as_deref()),
            ],
        )
        .await
    }

    /// One task with its attempts.
    ///
    /// # Errors
    /// As every call.
    pub async fn task(&self, task: TaskId) -> Result<TaskDetail, ClientError> {
        self.get(&format!("tasks/{task}"), &[]).await
    }

    /// A page of a job's result files.
    ///
    /// # Errors
    /// As every call.
    pub async fn results(
        &self,
        job: JobId,
        after: Option<&str>,
    ) -> Result<ResultPage, ClientError> {
        self.get(&format!("jobs/{job}/results"), &[("after", after)])
            .await
    }

    /// Why a job waits.
    ///
    /// # Errors
    /// As every call.
    pub async fn explain(&self, job: JobId) -> Result<ExplainView, ClientError> {
        self.get(&format!("jobs/{job}/explain"), &[]).await
    }

    /// `cancel`, `pause`, `resume` or `retry` of a job.
    ///
    /// # Errors
    /// As every call.
    pub async fn control_job(&self, job: JobId, verb: &str) -> Result<Accepted, ClientError> {
        self.post(&format!("jobs/{job}/{verb}"), &()).await
    }

    /// Deletes a job that is over, with its results.
    ///
    /// # Errors
    /// As every call.
    pub async fn delete_job(&self, job: JobId) -> Result<Accepted, ClientError> {
        self.json(self.request(Method::DELETE, &format!("jobs/{job}")))
            .await
    }

    /// `cancel` or `retry` of a task.
    ///
    /// # Errors
    /// As every call.
    pub async fn control_task(&self, task: TaskId, verb: &str) -> Result<Accepted, ClientError> {
        self.post(&format!("tasks/{task}/{verb}"), &()).await
    }

    /// All nodes.
    ///
    /// # Errors
    /// As every call.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, ClientError> {
        let mut query = NodeQuery {
            after: None,
            limit: Some(NODES_A_CALL),
        };
        let mut all = Vec::new();
        loop {
            let page = self.nodes_page(&query).await?;
            let whole = page.len() < usize::try_from(NODES_A_CALL).unwrap_or(usize::MAX);
            query.after = page.last().map(|node| node.id);
            all.extend(page);
            if whole {
                return Ok(all);
            }
        }
    }

    /// Some nodes, by number.
    ///
    /// # Errors
    /// As every call.
    pub async fn nodes_page(&self, query: &NodeQuery) -> Result<Vec<NodeView>, ClientError> {
        let (after, limit) = (number(query.after), number(query.limit));
        let query = [("after", after.as_deref()), ("limit", limit.as_deref())];
        self.get("nodes", &query).await
    }

    /// One node, by name or number.
    ///
    /// # Errors
    /// As every call.
    pub async fn node(&self, node: &str) -> Result<NodeView, ClientError> {
        self.get(&format!("nodes/{}", path_segment(node)), &[])
            .await
    }

    /// `pause`, `resume`, `drain` or `evict` of a node.
    ///
    /// # Errors
    /// As every call.
    pub async fn control_node(&self, node: &str, verb: &str) -> Result<Accepted, ClientError> {
        self.post(&format!("nodes/{}/{verb}", path_segment(node)), &())
            .await
    }

    /// All tokens, without their secrets.
    ///
    /// # Errors
    /// As every call.
    pub async fn tokens(&self) -> Result<Vec<TokenView>, ClientError> {
        self.get("tokens", &[]).await
    }

    /// Makes a token; the answer is the only one that holds the secret.
    ///
    /// # Errors
    /// As every call.
    pub async fn new_token(&self, token: &NewToken) -> Result<TokenView, ClientError> {
        self.post("tokens", token).await
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// As every call.
    pub async fn revoke_token(&self, id: &str) -> Result<(), ClientError> {
        let path = format!("tokens/{}", path_segment(id));
        self.send(self.request(Method::DELETE, &path))
            .await
            .map(drop)
    }

    /// Bytes of a task's `stdout` or `stderr` from `offset` on; with `follow` until the task is
    /// over.
    ///
    /// # Errors
    /// As every call; the stream ends with [`ClientError::Unreachable`] when the connection breaks.
    pub async fn logs(
        &self,
        task: TaskId,
        stream: &str,
        offset: u64,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<Bytes, ClientError>> + use<>, ClientError> {
        let path = format!("tasks/{task}/logs?stream={stream}&offset={offset}&follow={follow}");
        let answer = self.send(self.request(Method::GET, &path)).await?;
        let me = self.clone();
        Ok(answer
            .bytes_stream()
            .map(move |part| part.map_err(|e| me.unreachable(&e))))
    }
}

/// `?a=b&c=d` of the fields that are there; empty where none is.
fn query_text(query: Query<'_>) -> String {
    let mut text = String::new();
    for (key, value) in query {
        if let Some(value) = value {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(key);
            text.push('=');
            text.push_str(&path_segment(value));
        }
    }
    text
}

/// Percent-encodes what may not stand in one segment of a path or in a value of a query.
pub(crate) fn path_segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b':') {
            out.push(char::from(byte));
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

/// An answer that is no success, as the server's sentence or as much of its text as is fit to show.
fn refusal(status: StatusCode, text: &[u8]) -> ClientError {
    let (message, key) = match serde_json::from_slice::<ErrorBody>(text) {
        Ok(body) => (without_key(body.error, body.key.as_deref()), body.key),
        Err(_) => {
            let shown = String::from_utf8_lossy(&text[..text.len().min(ERROR_TEXT_BYTES_MAX)]);
            (
                format!("the server answered {status}: {}", shown.trim()),
                None,
            )
        }
    };
    let message = match status {
        StatusCode::UNAUTHORIZED => format!("{message}; check `token` in the client settings"),
        _ => message,
    };
    ClientError::Refused {
        status: status.as_u16(),
        message,
        key,
    }
}

/// The sentence alone: the key is shown in front of it by whoever knows the file.
fn without_key(sentence: String, key: Option<&str>) -> String {
    let rest = key.and_then(|key| sentence.strip_prefix(key)?.strip_prefix(": "));
    rest.map(str::to_owned).unwrap_or(sentence)
}

/// What to do about a certificate that is not believed.
fn advice(problem: &str) -> &'static str {
    if problem.contains("not valid for name") {
        return "; write one of these as `server` in the client settings, or let the pool's admin \
                start the server with --name for the other";
    }
    match problem.contains("certificate") {
        true => "; `ca` in the client settings must be the authority of this server",
        false => "",
    }
}

/// The causes of an error in one line; reqwest's own text says only that sending failed.
fn chain(problem: &dyn std::error::Error) -> String {
    let mut causes = Vec::new();
    let mut next = problem.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    let last = causes.pop().unwrap_or_else(|| problem.to_string());
    // Some libraries end their sentences with a page for programmers.
    last.split(": https://").next().unwrap_or(&last).to_owned()
}

fn is_loopback(server: &str) -> bool {
    let host = server.split("://").nth(1).unwrap_or(server);
    ["127.", "localhost", "[::1]"]
        .iter()
        .any(|local| host.starts_with(local))
}

/// reqwest and rustls are built without a default provider; one may be installed already.
pub(crate) fn install_crypto() {
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
}

/// TLS that trusts the pool's own authority and nobody else.
fn trusting(ca: &Path) -> Result<rustls::ClientConfig, ClientError> {
    let wrong = |what: String| ClientError::Settings(format!("ca: {}: {what}", ca.display()));
    let mut roots = rustls::RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(ca).map_err(|problem| wrong(problem.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|problem| wrong(problem.to_string()))?;
        roots
            .add(certificate)
            .map_err(|problem| wrong(problem.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|problem| wrong(problem.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_key_once() {
        for body in [
            r#"{"error": "limits.memory: is 0", "key": "limits.memory"}"#,
            r#"{"error": "is 0", "key": "limits.memory"}"#,
        ] {
            let refused = refusal(StatusCode::UNPROCESSABLE_ENTITY, body.as_bytes());
            assert_eq!(refused.to_string(), "limits.memory: is 0");
            assert_eq!(refused.exit_code(), 2);
        }
        let refused = refusal(StatusCode::BAD_GATEWAY, b"<html>");
        assert!(refused.to_string().contains("502"), "{refused}");
        assert_eq!(refused.exit_code(), 4);
        for (status, code) in [
            (StatusCode::BAD_REQUEST, 2),
            (StatusCode::PAYLOAD_TOO_LARGE, 2),
            (StatusCode::UNPROCESSABLE_ENTITY, 2),
            (StatusCode::UNAUTHORIZED, 4),
            (StatusCode::FORBIDDEN, 4),
            (StatusCode::NOT_FOUND, 4),
            (StatusCode::CONFLICT, 4),
            (StatusCode::SERVICE_UNAVAILABLE, 4),
        ] {
            let refused = refusal(status, br#"{"error": "no"}"#);
            assert_eq!(refused.exit_code(), code, "{status}");
        }
    }

    #[test]
    fn a_name_that_is_not_the_servers_is_no_wrong_authority() {
        let other = "invalid peer certificate: certificate not valid for name \"10.0.0.7\"; \
                     certificate is only valid for DnsName(\"localhost\")";
        assert!(advice(other).contains("--name"));
        assert!(advice("invalid peer certificate: UnknownIssuer").contains("`ca`"));
        assert_eq!(advice("connection refused"), "");
    }

    #[test]
    fn queries_and_segments_are_escaped() {
        assert_eq!(
            query_text(&[("a", Some("x y")), ("b", None), ("c", Some("1"))]),
            "?a=x%20y&c=1"
        );
        assert_eq!(query_text(&[("a", None)]), "");
        assert_eq!(path_segment("b12/..é"), "b12%2F..%C3%A9");
    }
}
