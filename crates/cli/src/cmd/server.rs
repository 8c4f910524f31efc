//! `gleaner server`: the server in the foreground.

use super::task_options::engine;
use crate::daemon::{self, DaemonOptions, runtime};
use crate::out::{Failure, Outcome, REFUSED, USAGE};
use gleaner_agent::owner::NodeSettings;
use gleaner_model::{EngineChoice, Span};
use gleaner_server::{ServerConfig, ServerError};
use std::net::{IpAddr, SocketAddr};
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
    /// A name or address by which users and nodes reach it, for its certificate; may be given more
    /// than once [default: this PC's name and addresses]
    #[arg(long, value_name = "NAME", value_parser = host)]
    name: Vec<String>,
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

/// What stands between `https://` and the port.
fn host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|six| six.strip_suffix(']'));
    let bare = bare.unwrap_or(text);
    let label = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        !part.is_empty() && part.len() <= 63 && part.chars().all(plain)
    };
    match bare.parse::<IpAddr>().is_ok() || bare.split('.').all(label) {
        true => Ok(bare.to_owned()),
        false => Err("write a name or an address alone, as in pool.example.org".to_owned()),
    }
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        self.daemon.start_log()?;
        let node_settings = self.node_settings()?;
        let config = ServerConfig {
            node_settings,
            store_url: self.store,
            blobs_url: self.blobs,
            names: self.name,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_server_is_a_name_and_nothing_else() {
        for (text, name) in [
            ("pool.example.org", "pool.example.org"),
            ("b12", "b12"),
            ("10.0.0.7", "10.0.0.7"),
            ("[fd00::2]", "fd00::2"),
            ("fd00::2", "fd00::2"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(name));
        }
        for wrong in [
            "",
            "https://pool",
            "pool:8421",
            "a..b",
            "pool/x",
            "*.org",
            "pöl",
        ] {
            assert!(host(wrong).is_err(), "{wrong:?}");
        }
    }
}
