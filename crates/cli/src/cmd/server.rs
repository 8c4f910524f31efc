//! `gleaner server`: the server in the foreground.

use super::task_options::engine;
use crate::daemon::{self, DaemonOptions, runtime};
use crate::out::{Failure, Outcome, REFUSED, USAGE};
use gleaner_agent::owner::NodeSettings;
use gleaner_model::{EngineChoice, Span};
use gleaner_server::{ServerConfig, ServerError};
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
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8421", value_parser = daemon::address)]
    listen: SocketAddr,
    /// Where the state lives: sqlite:FILE or memory: [default: sqlite in DIR]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Where blobs live: file:DIR [default: in DIR]
    #[arg(long, value_name = "URL")]
    blobs: Option<String>,
    /// What nodes may do and when, in TOML [default: node-settings.toml in DIR, if it is there]
    #[arg(long, value_name = "FILE")]
    node_settings: Option<PathBuf>,
    /// What contains tasks of jobs that name no engine: process, vm, wasm, or auto for a guest
    /// where a job loses little by it
    #[arg(long, value_name = "ENGINE", default_value = "process", value_parser = engine)]
    engine: EngineChoice,
    /// Delete jobs that have been over for so long, as `gleaner delete` does [default: never]
    #[arg(long, value_name = "TIME")]
    keep_jobs: Option<Span>,
    /// Plain http instead of TLS, on a loopback address only
    #[arg(long)]
    plain_http: bool,
    #[command(flatten)]
    daemon: DaemonOptions,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        self.daemon.start_log()?;
        let node_settings = self.node_settings()?;
        let config = ServerConfig {
            node_settings,
            store_url: self.store,
            blobs_url: self.blobs,
            plain_http: self.plain_http,
            default_engine: self.engine,
            keep_jobs: self.keep_jobs,
            ..ServerConfig::new(self.data, self.listen)
        };
        let runtime = runtime()?;
        runtime
            .block_on(gleaner_server::run(config, self.daemon.told_to_stop()))
            .map_err(|problem| {
                let code =
                    match matches!(problem, ServerError::Url { .. } | ServerError::PlainHttp(_)) {
                        true => USAGE,
                        false => REFUSED,
                    };
                Failure::new(code, problem.to_string())
            })?;
        Ok(0)
    }

    /// What the admin set for nodes, as nodes understand it. A wrong file keeps the server from
    /// starting: nodes must never work without the rules that somebody thought they have.
    fn node_settings(&self) -> Result<Option<String>, Failure> {
        let file = match &self.node_settings {
            Some(file) => file.clone(),
            None => self.data.join("node-settings.toml"),
        };
        let failed = |problem: String| Failure::usage(format!("{}: {problem}", file.display()));
        let text = match std::fs::read_to_string(&file) {
            Err(problem)
                if problem.kind() == std::io::ErrorKind::NotFound
                    && self.node_settings.is_none() =>
            {
                return Ok(None);
            }
            text => text.map_err(|problem| failed(problem.to_string()))?,
        };
        let settings = NodeSettings::from_toml(&text).map_err(failed)?;
        let json = serde_json::to_string(&settings);
        json.map(Some)
            .map_err(|problem| failed(problem.to_string()))
    }
}
