//! What the long-running commands share: their log, and how they are told to stop.

use crate::out::Failure;
use std::net::SocketAddr;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// What is logged where nothing else is asked for.
const DEFAULT_LOG: &str = "info";

/// Options of every daemon.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct DaemonOptions {
    /// What to log to standard error, as in debug or gleaner_server=debug,info [else $RUST_LOG]
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Stop when standard input ends: set by a parent that must not be outlived
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

impl DaemonOptions {
    /// Starts logging to standard error.
    pub(crate) fn start_log(&self) -> Result<(), Failure> {
        let wanted = self.log.clone().or_else(|| std::env::var("RUST_LOG").ok());
        let wanted = wanted.unwrap_or_else(|| DEFAULT_LOG.to_owned());
        let filter = EnvFilter::try_new(&wanted)
            .map_err(|problem| Failure::usage(format!("--log {wanted}: {problem}")))?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            // It would say so on standard error, which is what could not be written: a full disk
            // under the log must not end a daemon.
            .log_internal_errors(false)
            .with_ansi(crate::out::has_colour(crate::out::is_watched()))
            .init();
        Ok(())
    }

    /// Ends when the daemon should: SIGINT, SIGTERM, or the end of its parent.
    pub(crate) async fn told_to_stop(self) {
        let parent_gone = async {
            if self.until_stdin_closes {
                stdin_closed().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = parent_gone => {}
            () = signalled() => {}
        }
    }
}

/// An address to listen on, as words; a name has several, and one has to be meant.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an address of this PC and a port, as in 127.0.0.1:8421, or 0.0.0.0:8421 for all of \
         its networks"
            .to_owned()
    })
}

/// SIGINT or SIGTERM.
pub(crate) async fn signalled() {
    let (int, term) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (Ok(mut int), Ok(mut term)) = (int, term) else {
        // Without handlers the default ones end the process, which is what was asked for.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}

/// The other end of a pipe closes when its process ends, however it ends.
async fn stdin_closed() {
    let (closed, wait) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own: the read never returns before the parent ends, and a runtime that
    // waits for it would not end either.
    let reader = std::thread::Builder::new()
        .name("parent".into())
        .spawn(move || {
            let mut nothing = std::io::sink();
            // Whether it ended well or with an error, there is no parent any more.
            let _ended = std::io::copy(&mut std::io::stdin().lock(), &mut nothing);
            drop(closed);
        });
    if reader.is_err() {
        return;
    }
    // The sender is dropped without a message; that is the message.
    let _closed = wait.await;
}

/// The runtime of a daemon: one thread a core.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|problem| Failure::usage(format!("cannot start: {problem}")))
}
