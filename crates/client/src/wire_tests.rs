//! Both ways of data against a server in this process: what breaks on the way is taken up again,
//! what is damaged does not count.

use crate::{Client, ClientError, Progress, Settings, fetch, prepare, submit};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use gleaner_api::{DigestList, ResultFile, ResultPage};
use gleaner_model::{BlobRef, Digest, JobId, JobSpec};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What the server has, and what it was asked.
#[derive(Debug, Default)]
struct Inner {
    blobs: BTreeMap<Digest, Vec<u8>>,
    partial: BTreeMap<Digest, Vec<u8>>,
    results: Vec<ResultFile>,
    submissions: Vec<serde_json::Value>,
    calls: Vec<String>,
    /// How many uploads of large blobs break in the middle.
    breaks: u32,
}

type Shared = Arc<Mutex<Inner>>;

fn digest(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

async fn missing(State(shared): State<Shared>, body: axum::Json<DigestList>) -> Response {
    let mut inner = shared.lock().unwrap();
    inner.calls.push("missing".into());
    let digests = body.0.digests.into_iter();
    let digests = digests
        .filter(|digest| !inner.blobs.contains_key(digest))
        .collect();
    axum::Json(DigestList { digests }).into_response()
}

async fn bulk(State(shared): State<Shared>, mut body: Bytes) -> Response {
    let mut inner = shared.lock().unwrap();
    inner.calls.push("bulk".into());
    let mut digests = Vec::new();
    while !body.is_empty() {
        let length = u64::from_le_bytes(body.split_to(8)[..].try_into().unwrap());
        let part = body.split_to(usize::try_from(length).unwrap());
        digests.push(digest(&part));
        inner.blobs.insert(digest(&part), part.to_vec());
    }
    axum::Json(DigestList { digests }).into_response()
}

async fn put(
    State(shared): State<Shared>,
    UrlPath(name): UrlPath<Digest>,
    Query(query): Query<HashMap<String, usize>>,
    body: Bytes,
) -> Response {
    let mut inner = shared.lock().unwrap();
    let offset = query["offset"];
    inner.calls.push(format!("put {offset}"));
    let breaks = inner.breaks > 0;
    let have = inner.partial.entry(name).or_default();
    have.truncate(offset);
    assert_eq!(have.len(), offset, "an upload goes on where the server is");
    if breaks {
        have.extend_from_slice(&body[..body.len() / 2]);
        inner.breaks -= 1;
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    have.extend_from_slice(&body);
    let whole = std::mem::take(have);
    assert_eq!(digest(&whole), name);
    inner.blobs.insert(name, whole);
    StatusCode::CREATED.into_response()
}

async fn head_or_get(
    State(shared): State<Shared>,
    UrlPath(name): UrlPath<Digest>,
    method: axum::http::Method,
) -> Response {
    let mut inner = shared.lock().unwrap();
    if method == axum::http::Method::HEAD {
        inner.calls.push("head".into());
        let offset = inner.partial.get(&name).map_or(0, Vec::len);
        return ([("x-offset", offset.to_string())], ()).into_response();
    }
    inner.calls.push("get".into());
    inner.blobs[&name].clone().into_response()
}

async fn get_bulk(State(shared): State<Shared>, body: axum::Json<DigestList>) -> Response {
    let mut inner = shared.lock().unwrap();
    inner.calls.push(format!("get {}", body.0.digests.len()));
    let mut frames = Vec::new();
    for digest in body.0.digests {
        let blob = &inner.blobs[&digest];
        frames.extend_from_slice(&(blob.len() as u64).to_le_bytes());
        frames.extend_from_slice(blob);
    }
    frames.into_response()
}

/// Two files a page, so that pages matter.
async fn results(
    State(shared): State<Shared>,
    Query(query): Query<HashMap<String, usize>>,
) -> Response {
    let inner = shared.lock().unwrap();
    let from = query.get("after").copied().unwrap_or(0);
    let files: Vec<ResultFile> = inner.results.iter().skip(from).take(2).cloned().collect();
    let end = from + files.len();
    let next = (end < inner.results.len()).then(|| end.to_string());
    axum::Json(ResultPage { files, next }).into_response()
}

async fn jobs(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: axum::Json<serde_json::Value>,
) -> Response {
    assert_eq!(headers[header::AUTHORIZATION], "Bearer secret");
    let mut inner = shared.lock().unwrap();
    inner.submissions.push(body.0);
    let view = serde_json::json!({
        "id": 7, "name": "n", "state": "waiting", "reason": "", "user": "u", "priority": 0,
        "tags": {}, "task_count": 1, "submitted": "2026-01-02T03:04:05Z", "started": null,
        "ended": null, "cpu_seconds": 0.0, "revision": 1,
        "tasks": {"waiting": 0, "ready": 1, "running": 0, "done": 0, "failed": 0, "cancelled": 0},
    });
    axum::Json(view).into_response()
}

/// A server that lives as long as the test.
struct Server {
    shared: Shared,
    client: Client,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start() -> Self {
        let shared = Shared::default();
        let app = Router::new()
            .route("/api/v1/jobs", post(jobs))
            .route("/api/v1/jobs/{job}/results", get(results))
            .route("/api/v1/blobs/missing", post(missing))
            .route("/api/v1/blobs/bulk", post(bulk))
            .route("/api/v1/blobs/get", post(get_bulk))
            .route("/api/v1/blobs/{digest}", get(head_or_get).put(put))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings {
            server: format!("http://{}", listener.local_addr().unwrap()),
            token: "secret".into(),
            ca: None,
        };
        Self {
            shared,
            client: Client::new(&settings).unwrap(),
            task: tokio::spawn(async move { axum::serve(listener, app).await }),
        }
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().unwrap().calls)
    }

    fn add_result(&self, index: Option<u32>, name: &str, content: &[u8]) {
        let mut inner = self.shared.lock().unwrap();
        let blob = BlobRef {
            digest: digest(content),
            size: content.len() as u64,
        };
        inner.blobs.insert(blob.digest, content.to_vec());
        inner.results.push(ResultFile {
            index,
            name: name.into(),
            blob,
            mode: 0o644,
        });
    }
}

fn job(base: &Path) -> JobSpec {
    for i in 0..5 {
        std::fs::write(base.join(format!("small{i}")), format!("small {i}")).unwrap();
    }
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(base.join("large"), large).unwrap();
    toml::from_str(
        "[task]\ncommand = ['true']\ninputs = { large = 'large' }\n[sweep]\nf = { files = 'small*' }\n",
    )
    .unwrap()
}

#[tokio::test]
async fn small_files_go_together_and_a_broken_upload_goes_on() {
    let server = Server::start().await;
    server.shared.lock().unwrap().breaks = 2;
    let folder = tempfile::tempdir().unwrap();
    let prepared = prepare(job(folder.path()), folder.path(), &Progress::default())
        .await
        .unwrap();
    let progress = Progress::default();
    let view = submit(&server.client, &prepared, &progress).await.unwrap();
    assert_eq!(view.id, JobId(7));
    let calls = server.calls();
    assert_eq!(
        calls,
        [
            "missing",
            "bulk",
            "put 0",
            "head",
            "put 6000000",
            "head",
            "put 9000000"
        ]
    );
    assert_eq!(progress.files_moved(), 7);
    assert_eq!(progress.bytes_moved(), progress.bytes_total());
    // What the server has is not sent again.
    submit(&server.client, &prepared, &progress).await.unwrap();
    assert_eq!(server.calls(), ["missing"]);
    let inner = server.shared.lock().unwrap();
    assert_eq!(inner.submissions.len(), 2);
    assert_eq!(inner.submissions[0]["files"][0]["name"], "large");
}

#[tokio::test]
async fn a_file_that_changed_since_it_was_hashed_is_refused() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let prepared = prepare(job(folder.path()), folder.path(), &Progress::default())
        .await
        .unwrap();
    std::fs::write(folder.path().join("small3"), "other").unwrap();
    let problem = submit(&server.client, &prepared, &Progress::default())
        .await
        .unwrap_err();
    assert!(
        problem
            .to_string()
            .contains("changed while it was being sent"),
        "{problem}"
    );
    assert!(server.shared.lock().unwrap().submissions.is_empty());
}

#[tokio::test]
async fn results_come_in_pages_once_and_go_on_where_they_stopped() {
    let server = Server::start().await;
    let large = vec![7_u8; 1 << 20];
    server.add_result(None, "all.txt", b"all");
    server.add_result(Some(0), "stdout", b"zero");
    server.add_result(Some(1), "stdout", b"zero");
    server.add_result(Some(1), "deep/large.bin", &large);
    server.add_result(Some(2), "stdout", b"");
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results-7");
    let get = async || fetch(&server.client, JobId(7), &results, &Progress::default()).await;
    let fetched = get().await.unwrap();
    assert_eq!((fetched.files, fetched.kept), (5, 0));
    assert_eq!(std::fs::read(results.join("all.txt")).unwrap(), b"all");
    assert_eq!(std::fs::read(results.join("1/stdout")).unwrap(), b"zero");
    assert_eq!(
        std::fs::read(results.join("1/deep/large.bin")).unwrap(),
        large
    );
    assert_eq!(std::fs::read(results.join("2/stdout")).unwrap(), b"");
    server.calls();
    std::fs::write(results.join("1/stdout"), "ZERO").unwrap();
    let fetched = get().await.unwrap();
    assert_eq!((fetched.files, fetched.kept), (1, 4));
    assert_eq!(server.calls(), ["get 1"]);
    assert_eq!(std::fs::read(results.join("1/stdout")).unwrap(), b"zero");
}

#[tokio::test]
async fn a_job_without_results_leaves_no_folder() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results-7");
    let fetched = fetch(&server.client, JobId(7), &results, &Progress::default()).await;
    assert_eq!(fetched.unwrap().files, 0);
    assert!(!results.exists());
}

#[tokio::test]
async fn a_damaged_blob_never_stands_under_its_name() {
    let server = Server::start().await;
    server.add_result(Some(0), "small", b"right");
    server.add_result(Some(1), "large", &vec![7_u8; 1 << 20]);
    let folder = tempfile::tempdir().unwrap();
    let get = async || {
        fetch(
            &server.client,
            JobId(7),
            folder.path(),
            &Progress::default(),
        )
        .await
    };
    let spoil = |content: &[u8]| {
        let mut inner = server.shared.lock().unwrap();
        let name = digest(content);
        let blob = inner.blobs.get_mut(&name).unwrap();
        blob[0] ^= 1;
    };
    spoil(&vec![7_u8; 1 << 20]);
    let problem = get().await.unwrap_err();
    assert!(matches!(problem, ClientError::Transfer(_)), "{problem}");
    let left: Vec<_> = std::fs::read_dir(folder.path().join("1"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // The other way round: what is small is looked at by itself.
    spoil(&vec![7_u8; 1 << 20]);
    spoil(b"right");
    std::fs::remove_file(folder.path().join("0/small")).ok();
    let problem = get().await.unwrap_err();
    assert!(matches!(problem, ClientError::Transfer(_)), "{problem}");
    assert!(!folder.path().join("0/small").exists());
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address_and_a_way_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let settings = Settings {
        server: format!("http://{address}"),
        token: "t".into(),
        ca: None,
    };
    let problem = Client::new(&settings).unwrap().pool().await.unwrap_err();
    let said = problem.to_string();
    assert!(
        said.contains(&address.to_string()) && said.contains("gleaner dev"),
        "{said}"
    );
    assert!(said.contains("refused"), "{said}");
    assert_eq!(problem.exit_code(), 3);
}
