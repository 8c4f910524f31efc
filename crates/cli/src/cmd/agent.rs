//! `gleaner agent`: this PC as a node, in the foreground.

use crate::daemon::{DaemonOptions, runtime};
use crate::out::{Failure, Outcome, REFUSED, USAGE};
use gleaner_agent::{AgentConfig, AgentError, AtStop, DevShare, Token};
use gleaner_model::{Bytes, Cpus, Policy};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// The environment variable that may hold the token.
const TOKEN_VARIABLE: &str = "GLEANER_TOKEN";

/// Run an agent: this PC works for a pool while its owner does not need it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address of the server, https://HOST:PORT
    #[arg(long, value_name = "URL")]
    server: String,
    /// File with this node's token; else $GLEANER_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where it keeps everything; one agent a directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Name in listings [default: the host's]
    #[arg(long)]
    name: Option<String>,
    /// When to work: continuous, screensaver, idle-after or night
    #[arg(long, value_name = "P", default_value = "continuous", value_parser = policy)]
    policy: Policy,
    /// Port of loopback on which the owner's page is always open [default: when it is asked for]
    #[arg(long, value_name = "PORT")]
    owner_page: Option<u16>,
    /// A label that jobs can require
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Processors offered [default: all]
    #[arg(long, value_name = "N")]
    cpus: Option<Cpus>,
    /// Memory offered [default: most of it]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// Disk offered [default: most of what is free]
    #[arg(long, value_name = "SIZE")]
    disk: Option<Bytes>,
    /// Most bytes of cached inputs
    #[arg(long, value_name = "SIZE")]
    cache: Option<Bytes>,
    /// As root: host uids for attempts, first-last [default: outside every account's]
    #[arg(long, value_name = "A-B", value_parser = uids)]
    uid_range: Option<RangeInclusive<u32>>,
    /// PEM file of the authority to trust instead of the token's fingerprint
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Call now and then instead of keeping a connection
    #[arg(long)]
    poll: bool,
    /// Share no namespace between tasks of a job, at several times the price of a start
    #[arg(long)]
    fresh_cages: bool,
    /// Name of the control group that holds all tasks
    #[arg(long, value_name = "NAME", hide = true)]
    group: Option<String>,
    /// How many agents of one `gleaner dev` share this PC
    #[arg(long, value_name = "N", hide = true)]
    dev_nodes: Option<u32>,
    /// Heed schedule, battery, heat and memory also as one of a pool on one PC
    #[arg(long, hide = true)]
    strict: bool,
    /// Another agent of the same group has measured idle priority
    #[arg(long, hide = true)]
    no_self_test: bool,
    #[command(flatten)]
    daemon: DaemonOptions,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

fn policy(text: &str) -> Result<Policy, String> {
    Policy::from_word(text).ok_or_else(|| {
        let words: Vec<&str> = Policy::ALL.iter().map(|policy| policy.as_str()).collect();
        format!("write one of {}", words.join(", "))
    })
}

fn uids(text: &str) -> Result<RangeInclusive<u32>, String> {
    let ends = text.split_once('-').and_then(|(first, last)| {
        Some((
            first.trim().parse::<u32>().ok()?,
            last.trim().parse::<u32>().ok()?,
        ))
    });
    match ends {
        Some((0, _)) => Err("uid 0 is root and never given to a task; start above it".to_owned()),
        Some((first, last)) if first <= last => Ok(first..=last),
        _ => Err("write first-last, as in 700000-765535".to_owned()),
    }
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        self.daemon.start_log()?;
        let (config, daemon) = self.config()?;
        let runtime = runtime()?;
        runtime
            .block_on(async {
                let stop = CancellationToken::new();
                let told = stop.clone();
                tokio::spawn(async move {
                    daemon.told_to_stop().await;
                    told.cancel();
                });
                gleaner_agent::run(config, stop).await
            })
            .map_err(|problem| {
                let code = match matches!(problem, AgentError::Setting { .. }) {
                    true => USAGE,
                    false => REFUSED,
                };
                Failure::new(code, problem.to_string())
            })?;
        Ok(0)
    }

    fn config(self) -> Result<(AgentConfig, DaemonOptions), Failure> {
        let token = self.token()?;
        let config = AgentConfig {
            name: self.name,
            labels: self.label.into_iter().collect::<BTreeMap<_, _>>(),
            cpus: self.cpus,
            memory: self.memory,
            disk: self.disk,
            cache: self.cache,
            uid_range: self.uid_range,
            fresh_cages: self.fresh_cages,
            group: self.group,
            ca: self.ca,
            poll: self.poll,
            self_test: !self.no_self_test,
            policy: self.policy,
            page: self.owner_page,
            // A pool for trying out works on any laptop at any hour.
            lenient: self.dev_nodes.is_some() && !self.strict,
            // A dev pool leaves nothing behind; a service is adopted by its next version.
            at_stop: if self.dev_nodes.is_some() {
                AtStop::End
            } else {
                AtStop::Leave
            },
            dev: self.dev_nodes.map(DevShare::new),
            ..AgentConfig::new(self.server.trim_end_matches('/'), token, self.data)
        };
        Ok((config, self.daemon))
    }

    fn token(&self) -> Result<Token, Failure> {
        let text = match &self.token_file {
            Some(file) => std::fs::read_to_string(file).map_err(|problem| {
                Failure::usage(format!(
                    "cannot read the token {}: {problem}",
                    file.display()
                ))
            })?,
            None => std::env::var(TOKEN_VARIABLE).map_err(|_| {
                Failure::usage(format!(
                    "no token: give --token-file FILE or set {TOKEN_VARIABLE}; an admin makes one \
                     with `gleaner token new --kind node --name NAME`"
                ))
            })?,
        };
        if text.trim().is_empty() {
            return Err(Failure::usage("the token is empty"));
        }
        Ok(Token::new(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_uids_never_hold_root() {
        assert_eq!(uids("700000-700999").unwrap(), 700_000..=700_999);
        for (text, said) in [("0-10", "root"), ("9-3", "first-last"), ("x", "first-last")] {
            assert!(uids(text).unwrap_err().contains(said), "{text}");
        }
    }
}
