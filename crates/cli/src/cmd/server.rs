//! `gleaner server`: the server in the foreground.

use crate::daemon::{DaemonOptions, runtime};
use crate::out::{Failure, Outcome, REFUSED};
use gleaner_server::ServerConfig;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Run a server: one port for users, agents and the page
///
/// At its first start it makes its own certificate authority, and writes client.toml for the first
/// user and node.token for nodes into DIR.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where it keeps everything: this directory is the pool
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Address and port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8421")]
    listen: SocketAddr,
    /// Where the state lives: sqlite:FILE or memory: [default: sqlite in DIR]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Where blobs live: file:DIR [default: in DIR]
    #[arg(long, value_name = "URL")]
    blobs: Option<String>,
    /// Plain http instead of TLS, on a loopback address only
    #[arg(long)]
    plain_http: bool,
    #[command(flatten)]
    daemon: DaemonOptions,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        self.daemon.start_log()?;
        let config = ServerConfig {
            store_url: self.store,
            blobs_url: self.blobs,
            plain_http: self.plain_http,
            ..ServerConfig::new(self.data, self.listen)
        };
        let runtime = runtime()?;
        runtime
            .block_on(gleaner_server::run(config, self.daemon.told_to_stop()))
            .map_err(|problem| Failure::new(REFUSED, problem.to_string()))?;
        Ok(0)
    }
}
