//! The PC side of a pool: keeps a link to the server, fetches blobs, runs tasks in engines,
//! collects results and reports them until the server has them.
//!
//! The agent never chooses what to run next, and does not know how an engine works. Stages and
//! their modules: `link` (the connection), `dispatch` (the one loop, driving the pure
//! `gleaner_attempt::Book`), `fetch`, `run`, `watch`, `collect`, and `logs` beside them.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod blobs;
mod clock;
mod collect;
mod config;
mod dispatch;
mod error;
mod fetch;
mod hands;
mod home;
mod link;
mod logs;
mod run;
#[cfg(test)]
mod tests;
mod watch;

pub use config::{AgentConfig, AtStop, DevShare, Token};
pub use error::AgentError;

use clock::Clock;
use dispatch::{Dispatch, Input, Inputs, Parts};
use fetch::Fetcher;
use fetch::cache::Cache;
use gleaner_engine::{Capability, Engine, Events, Level};
use gleaner_wire::v1;
use home::Home;
use link::Link;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch as channel};
use tokio_util::sync::CancellationToken;
use watch::Condition;
use watch::capacity::{Offer, offer, uname};

/// Runs an agent until `shutdown` is cancelled. Call it in a tokio runtime.
///
/// # Errors
/// Where the settings, the directory, the engines or the certificates cannot be used, or the
/// server refuses this node's token. A server that is away is no error: the agent waits for it.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> Result<(), AgentError> {
    run_with(config, shutdown, engines::build).await
}

mod engines {
    use super::{AgentConfig, AgentError, Arc, Engine, Events, Path};

    pub(super) fn build(
        _config: &AgentConfig,
        _home: &Path,
        _events: Events,
    ) -> Result<Vec<Arc<dyn Engine>>, AgentError> {
        Err(AgentError::Engine("no engine is built in".to_owned()))
    }
}

/// `build` makes the engines once the agent knows where their events go.
async fn run_with(
    config: AgentConfig,
    shutdown: CancellationToken,
    build: impl FnOnce(&AgentConfig, &Path, Events) -> Result<Vec<Arc<dyn Engine>>, AgentError>
    + Send
    + 'static,
) -> Result<(), AgentError> {
    let runtime = Handle::current();
    let (inputs, queue) = Inputs::queue();
    let (condition, seen) = channel::channel(Condition::at_start(None));
    let tls = match link::wants_tls(&config.server)? {
        true => Some(link::tls::client_config(&config)?),
        false => None,
    };
    let link = Link::new(&config, tls.as_ref(), inputs.clone(), seen)?;
    let blobs = blobs::Blobs::new(&config, tls.as_ref())?;
    let (ended, over) = oneshot::channel();
    let loop_inputs = inputs.clone();
    // Setting up waits for the disk and for programs; the loop then blocks by design.
    let prepare = move || -> Result<_, AgentError> {
        let home = Home::open(&config.data)?;
        let offer = offer(&config, home.path())?;
        let events = loop_inputs.clone();
        let events: Events = Arc::new(move |event| events.send(Input::Engine(event)));
        let engines = build(&config, &home.process(), events)?;
        let (hello, first) = introduce(&config, &home, offer, &engines);
        condition.send_replace(first);
        let cache = Arc::new(Cache::open(home.path(), offer.cache.0)?);
        let dispatch = Dispatch::new(Parts {
            engines,
            fetcher: Fetcher::new(blobs.clone(), cache),
            blobs,
            inputs: loop_inputs,
            runtime,
            hello,
            offer,
            condition,
            clock: Clock::start(),
            at_stop: config.at_stop,
        })?;
        Ok((dispatch, home))
    };
    let prepared = tokio::task::spawn_blocking(prepare).await;
    let (dispatch, home) = prepared.map_err(|error| AgentError::Engine(error.to_string()))??;
    std::thread::Builder::new()
        .name("gleaner-dispatch".to_owned())
        .spawn(move || {
            dispatch.run(&queue);
            // Whoever waits for the directory gets it when nothing works in it any more.
            drop(home);
            // Nobody waits any more where the caller gave up.
            let _unheard = ended.send(());
        })
        .map_err(|source| AgentError::Io {
            doing: "start the thread gleaner-dispatch".to_owned(),
            source,
        })?;
    let unlink = CancellationToken::new();
    let mut link = tokio::spawn(link.keep(unlink.clone()));
    let refused = tokio::select! {
        () = shutdown.cancelled() => None,
        ended = &mut link => Some(ended),
    };
    inputs.send(Input::Stop);
    if over.await.is_err() {
        return Err(AgentError::Engine(
            "the dispatch loop broke; see the log".to_owned(),
        ));
    }
    unlink.cancel();
    match refused {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(AgentError::Engine(error.to_string())),
        None => Ok(()),
    }
}

/// What the server is told of this node, and whether the node may work.
fn introduce(
    config: &AgentConfig,
    home: &Home,
    offer: Offer,
    engines: &[Arc<dyn Engine>],
) -> (v1::Hello, Condition) {
    let (host, arch) = uname();
    let (mut working, mut faults) = (Vec::new(), Vec::new());
    for engine in engines {
        match unusable(&engine.probe()) {
            None => working.push(engine.kind().as_str().to_owned()),
            Some(fault) => faults.push(fault),
        }
    }
    let refused = working.is_empty().then(|| faults.join("; "));
    let hello = v1::Hello {
        identity: home.identity().to_owned(),
        name: config.name.clone().unwrap_or(host),
        protocol: gleaner_wire::PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cpus_milli: offer.cpus.milli,
        memory_bytes: offer.memory.0,
        disk_bytes: offer.disk.0,
        arch,
        engines: working,
        labels: config.labels.clone().into_iter().collect(),
        refused: refused.clone().unwrap_or_default(),
        held: Vec::new(),
    };
    (hello, Condition::at_start(refused.as_deref()))
}

/// What an engine misses to work here, and what to do about it.
fn unusable(capabilities: &[Capability]) -> Option<String> {
    let missing = capabilities
        .iter()
        .filter(|capability| capability.level == Level::Missing)
        .map(|capability| match &capability.fix {
            Some(fix) => format!("{}: {}; {fix}", capability.name, capability.found),
            None => format!("{}: {}", capability.name, capability.found),
        })
        .collect::<Vec<_>>();
    (!missing.is_empty()).then(|| missing.join("; "))
}
