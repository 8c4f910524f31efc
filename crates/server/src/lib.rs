//! The server of a pool: takes jobs from users, gives tasks to agents, keeps what comes back.
//!
//! One process, one port. `driver` owns the brain ([`gleaner_core::State`]) and the store: every
//! event goes through it, a whole batch is committed at once, and only then do replies and
//! dispatches leave. `users` speaks REST, `agents` gRPC, `split` turns a submission into tasks,
//! `collect` merges results and sweeps blobs. The server never knows how an engine works, and it
//! decides nothing that the brain decides.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod agents;
mod auth;
mod collect;
mod contents;
mod data;
mod driver;
mod error;
mod images;
mod listen;
mod metrics;
mod shared;
mod silence;
mod split;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
mod users;
mod wall;

pub use error::ServerError;

use gleaner_model::{EngineChoice, Span};
use shared::Shared;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where a server keeps its data and where it listens.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Its data directory; made where it does not exist.
    pub data: PathBuf,
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the state lives: `sqlite:PATH` or `memory:`; `store.sqlite` in the data directory
    /// where absent.
    pub store_url: Option<String>,
    /// Where blobs live: `file:PATH`; `blobs` in the data directory where absent.
    pub blobs_url: Option<String>,
    /// Names and addresses under which clients reach it, besides those of this machine.
    pub names: Vec<String>,
    /// Plain HTTP instead of TLS. Only on a loopback address.
    pub plain_http: bool,
    /// What nodes are told of when and how much to work, as JSON that agents understand. Nothing
    /// here reads it.
    pub node_settings: Option<String>,
    /// What contains tasks of jobs that do not name an engine.
    pub default_engine: EngineChoice,
    /// How long jobs that are over stay before they are deleted; for ever where none.
    pub keep_jobs: Option<Span>,
    /// How long a client may send nothing in the middle of what it sends.
    pub body_silence: Duration,
}

/// How long a client may send nothing in the middle of what it sends: longer than a network is lost
/// for between two rooms. An upload goes on where it stopped.
const BODY_SILENCE: Duration = Duration::from_secs(60);

impl ServerConfig {
    /// A server with everything in `data`, over TLS.
    #[must_use]
    pub const fn new(data: PathBuf, listen: SocketAddr) -> Self {
        Self {
            data,
            listen,
            store_url: None,
            blobs_url: None,
            names: Vec::new(),
            plain_http: false,
            node_settings: None,
            default_engine: EngineChoice::Process,
            keep_jobs: None,
            body_silence: BODY_SILENCE,
        }
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct ServerHandle {
    addr: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
    driver: driver::DriverThread,
    #[cfg(test)]
    shared: Arc<Shared>,
}

impl ServerHandle {
    /// The address it listens on, with the port it really got.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown` ends, then as [`ServerHandle::shutdown`].
    ///
    /// # Errors
    /// The driver's thread panicked: a bug. Without it nothing could be answered any more, so the
    /// process had better end and be started again.
    pub async fn until(mut self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        tokio::select! {
            () = shutdown => {}
            () = self.driver.ended() => tracing::error!("the driver broke; the server ends"),
        }
        self.shutdown().await
    }

    /// Stops taking connections, lets answers in progress end, and commits what is queued.
    ///
    /// # Errors
    /// The driver's thread panicked: a bug.
    pub async fn shutdown(self) -> Result<(), ServerError> {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.driver.join().await
    }
}

/// Starts a server and returns as soon as it takes connections. `client.toml` and `node.token`
/// lie in the data directory then.
///
/// # Errors
/// The data directory, the store or the address cannot be used.
pub async fn start(config: ServerConfig) -> Result<ServerHandle, ServerError> {
    if config.plain_http && !config.listen.ip().is_loopback() {
        return Err(ServerError::PlainHttp(config.listen));
    }
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .map_err(|source| ServerError::Listen {
            addr: config.listen,
            source,
        })?;
    let addr = listener
        .local_addr()
        .map_err(|source| ServerError::Listen {
            addr: config.listen,
            source,
        })?;
    let opened = tokio::task::spawn_blocking(move || data::open(config, addr));
    let opened = opened.await.map_err(|_| ServerError::Panicked)??;
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (driver, handle, merges) = driver::start(opened.driver)?;
    let shared = Arc::new(Shared::new(
        opened.parts,
        handle,
        stop.clone(),
        tasks.clone(),
    ));
    agents::start(&shared);
    collect::start(&shared, merges);
    listen::start(&shared, listener, opened.tls);
    opened.welcome.write()?;
    tracing::info!(%addr, "listening");
    Ok(ServerHandle {
        addr,
        stop,
        tasks,
        driver,
        #[cfg(test)]
        shared,
    })
}

/// Runs a server until `shutdown` ends.
///
/// # Errors
/// As [`start`] and [`ServerHandle::until`].
pub async fn run(
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    start(config).await?.until(shutdown).await
}
