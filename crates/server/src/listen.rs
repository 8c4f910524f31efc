//! The one port: TLS, then HTTP/1.1 or HTTP/2 as the client likes, REST and gRPC alike.

use crate::shared::Shared;
use crate::{agents, users};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Most connections at once: the agents of the largest pool promised, and users.
const CONNECTIONS_MAX: usize = 120_000;

/// One descriptor in four is kept from connections: for the store, and for blobs on their way. With
/// all of them taken the server could not even write down what it knows.
const DESCRIPTORS_KEPT: u64 = 4;

/// How long a client may take for its TLS handshake, and for the head of a request.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// How often an idle HTTP/2 connection is asked whether it lives, and how long it may take.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));

/// Windows of one HTTP/2 stream and of its connection, in bytes: an upload on a fast network
/// waits for no window, and a hundred thousand idle agents still cost nothing.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);

/// Streams of one HTTP/2 connection at once: a client's parallel transfers and its polls.
const STREAMS_MAX: u32 = 256;

/// Wait after a failed accept: the system is out of descriptors or memory.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// How long connections may end their answers when the server stops.
const GOODBYE: Duration = Duration::from_secs(3);

/// Accepts until the server stops.
pub(crate) fn start(
    shared: &Arc<Shared>,
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
) {
    let router = users::router(shared).merge(agents::router(shared));
    let door = Door {
        shared: Arc::clone(shared),
        router,
        tls: tls.map(TlsAcceptor::from),
        room: Arc::new(Semaphore::new(connections_max(raise_file_limit()))),
    };
    shared.tasks.spawn(door.open(listener));
}

/// Raises the bound of open files as far as it goes, and returns it. Most systems give a program
/// 1,024 to begin with and half a million for the asking; every agent takes one.
fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Connections at once where this many files may be open. Who comes when there are as many waits
/// until one ends; those that say nothing end soon.
fn connections_max(files: u64) -> usize {
    let connections = files - files / DESCRIPTORS_KEPT;
    usize::try_from(connections).map_or(CONNECTIONS_MAX, |max| max.clamp(1, CONNECTIONS_MAX))
}

#[derive(Clone)]
struct Door {
    shared: Arc<Shared>,
    router: axum::Router,
    tls: Option<TlsAcceptor>,
    room: Arc<Semaphore>,
}

impl Door {
    async fn open(self, listener: TcpListener) {
        loop {
            let Ok(place) = Arc::clone(&self.room).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shared.stop.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_WAIT).await;
                    continue;
                }
            };
            let door = self.clone();
            self.shared.tasks.spawn(async move {
                // Its place is free again when the connection is over.
                let _place = place;
                door.serve(stream).await;
            });
        }
    }

    async fn serve(self, stream: TcpStream) {
        // Small messages both ways: waiting for more to send would only add latency.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection broke at once");
            return;
        }
        match self.tls.clone() {
            None => self.speak(stream).await,
            Some(tls) => match tokio::time::timeout(HANDSHAKE_WAIT, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.speak(stream).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            },
        }
    }

    async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE_WAIT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_concurrent_streams(STREAMS_MAX)
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1);
        let service = TowerToHyperService::new(self.router);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shared.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(GOODBYE, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = %error, "a connection ended with an error");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_to_the_rest() {
        for (files, most) in [
            (0, 1),
            (256, 192),
            (1024, 768),
            (524_288, CONNECTIONS_MAX),
            (u64::MAX, CONNECTIONS_MAX),
        ] {
            assert_eq!(connections_max(files), most, "{files}");
        }
    }
}
