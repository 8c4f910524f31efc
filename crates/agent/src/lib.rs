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
mod condition;
mod config;
mod dispatch;
mod engines;
mod error;
mod fetch;
mod hands;
mod home;
mod input;
mod link;
mod logs;
pub mod owner;
mod run;
#[cfg(test)]
mod tests;
mod trials;
mod watch;

pub use config::{AgentConfig, AtStop, DevShare, Token};
pub use error::AgentError;

use clock::Clock;
use condition::Condition;
use dispatch::{Dispatch, Parts};
use engines::Built;
use fetch::Fetcher;
use fetch::cache::Cache;
use gleaner_engine::Events;
use gleaner_harvest::OwnerSettings;
use gleaner_wire::v1;
use home::Home;
use input::{Input, Inputs};
use link::Link;
use rustix::process::{Resource, Rlimit};
use std::path::Path;
use std::sync::{Arc, mpsc};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch as channel};
use tokio_util::sync::CancellationToken;
use watch::capacity::{Offer, offer, processors, uname};
use watch::{Setup, Watching};

/// Runs an agent until `shutdown` is cancelled. Call it in a tokio runtime.
///
/// # Errors
/// Where the settings, the directory, the engines or the certificates cannot be used, or the
/// server refuses this node's token. A server that is away is no error: the agent waits for it.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> Result<(), AgentError> {
    run_with(config, shutdown, engines::build).await
}

/// `build` makes the engines once the agent knows where their events go.
async fn run_with(
    config: AgentConfig,
    shutdown: CancellationToken,
    build: impl FnOnce(&AgentConfig, &Path, Events) -> Result<Built, AgentError> + Send + 'static,
) -> Result<(), AgentError> {
    let (inputs, queue) = Inputs::queue();
    let (condition, seen) = channel::channel(Condition::at_start(None));
    let tls = match link::wants_tls(&config.server)? {
        true => Some(link::tls::client_config(&config)?),
        false => None,
    };
    let ends_due = Arc::<Notify>::default();
    let news = (seen, Arc::clone(&ends_due));
    let link = Link::new(&config, tls.as_ref(), inputs.clone(), news)?;
    let blobs = blobs::Blobs::new(&config, tls.as_ref())?;
    let close = CancellationToken::new();
    let outside = Outside {
        inputs: inputs.clone(),
        condition,
        ends_due,
        blobs,
        runtime: Handle::current(),
        close: close.clone(),
    };
    // Setting up waits for the disk and for programs.
    let prepared = tokio::task::spawn_blocking(move || prepare(&config, build, outside)).await;
    let Ready {
        dispatch,
        home,
        built,
        desk,
        page,
    } = prepared.map_err(broke)??;
    let kept = owner::serve(desk, home.path(), &close, page);
    // What an earlier agent left is adopted now, before anything that takes long.
    let mut over = begin(dispatch, home, queue)?;
    let unlink = CancellationToken::new();
    let (told, unlinked) = (inputs.clone(), unlink.clone());
    let mut link = tokio::spawn(async move {
        let look = tokio::task::spawn_blocking(move || trials::find_out(built, told));
        look.await.map_err(broke)??;
        link.keep(unlinked).await
    });
    let (refused, broken) = tokio::select! {
        () = shutdown.cancelled() => (None, false),
        ended = &mut link => (Some(ended), false),
        // It ends by itself only where it broke. Nothing would end or be reported any more, so the
        // process ends, and the one that is started next adopts what runs.
        _ended = &mut over => (None, true),
    };
    inputs.send(Input::Stop);
    let broken = broken || over.await.is_err();
    close.cancel();
    kept.await.map_err(broke)?;
    if broken {
        unlink.cancel();
        return Err(AgentError::Engine(
            "the dispatch loop broke; see the log".to_owned(),
        ));
    }
    unlink.cancel();
    match refused {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(broke(error)),
        None => Ok(()),
    }
}

/// What the parts of an agent have to do with the world and with each other.
struct Outside {
    inputs: Inputs,
    condition: channel::Sender<Condition>,
    /// Tells the link that so many attempts of a job have ended here that the pool should hear.
    ends_due: Arc<Notify>,
    blobs: blobs::Blobs,
    runtime: Handle,
    /// Ends the owner's side, after everything else.
    close: CancellationToken,
}

/// An agent whose parts are made and do not run yet.
struct Ready {
    dispatch: Dispatch,
    home: Home,
    built: Built,
    desk: owner::Desk,
    /// Whether the owner's page opens at once.
    page: bool,
}

/// Makes the parts of an agent. Blocks.
fn prepare(
    config: &AgentConfig,
    build: impl FnOnce(&AgentConfig, &Path, Events) -> Result<Built, AgentError>,
    outside: Outside,
) -> Result<Ready, AgentError> {
    let home = Home::open(&config.data)?;
    let offer = offer(config, home.path())?;
    let inputs = outside.inputs;
    let engine_inputs = inputs.clone();
    let events: Events = Arc::new(move |event| engine_inputs.send(Input::Engine(event)));
    raise_file_limit();
    let mut built = build(config, home.path(), events)?;
    let cache = Arc::new(Cache::open(home.path(), offer.cache.0)?);
    let clock = built.clock;
    let watching = begin_watch(config, &mut built, &home, (inputs.clone(), clock, offer))?;
    let guests = owner::guests::Guests::default();
    let around = owner::Around {
        watching: watching.clone(),
        inputs: inputs.clone(),
        offer,
        guests: guests.clone(),
        own: built.own.clone(),
        local: started_with(config),
    };
    let desk = owner::open(config, &home, around, outside.close)?;
    let dispatch = Dispatch::new(Parts {
        engines: built.engines.clone(),
        fetcher: Fetcher::new(outside.blobs.clone(), cache),
        blobs: outside.blobs,
        inputs,
        runtime: outside.runtime,
        hello: introduce(config, &home, offer),
        offer,
        home: home.path().to_owned(),
        condition: outside.condition,
        ends_due: outside.ends_due,
        clock,
        watching,
        guests,
        at_stop: config.at_stop,
    })?;
    Ok(Ready {
        dispatch,
        home,
        built,
        desk,
        page: config.page.is_some(),
    })
}

/// Starts the loops that keep tasks out of the owner's way.
fn begin_watch(
    config: &AgentConfig,
    built: &mut Built,
    home: &Home,
    (inputs, clock, offer): (Inputs, Clock, Offer),
) -> Result<Watching, AgentError> {
    watch::start(Setup {
        engines: built.engines.clone(),
        sensing: std::mem::replace(&mut built.sensing, engines::no_sensing()),
        inputs,
        clock,
        home: home.path(),
        offer,
        settings: started_with(config),
        lenient: config.lenient,
        processors: processors(),
    })
}

/// What whoever started the agent set.
fn started_with(config: &AgentConfig) -> OwnerSettings {
    OwnerSettings {
        policy: Some(config.policy),
        ..OwnerSettings::default()
    }
}

/// Starts the loop on its thread, since it may block; the answer comes when it has stopped.
fn begin(
    dispatch: Dispatch,
    home: Home,
    queue: mpsc::Receiver<Input>,
) -> Result<oneshot::Receiver<()>, AgentError> {
    let (ended, over) = oneshot::channel();
    std::thread::Builder::new()
        .name("gleaner-dispatch".to_owned())
        .spawn(move || {
            dispatch.run(&queue);
            // Whoever waits for the directory gets it when nothing works in it any more.
            drop(home);
            // Nobody waits any more where the caller gave up.
            let _unheard = ended.send(());
        })
        .map(|_| over)
        .map_err(|source| AgentError::Io {
            doing: "start the thread gleaner-dispatch".to_owned(),
            source,
        })
}

/// What the server is told of this node; what its engines can do is found out later.
fn introduce(config: &AgentConfig, home: &Home, offer: Offer) -> v1::Hello {
    let (host, arch) = uname();
    v1::Hello {
        identity: home.identity().to_owned(),
        name: config.name.clone().unwrap_or(host),
        protocol: gleaner_wire::PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cpus_milli: offer.cpus.milli,
        memory_bytes: offer.memory.0,
        disk_bytes: offer.disk.0,
        arch,
        images: true,
        labels: config.labels.clone().into_iter().collect(),
        ..v1::Hello::default()
    }
}

fn broke(error: tokio::task::JoinError) -> AgentError {
    AgentError::Engine(error.to_string())
}

/// Outputs are open while they are collected, and there may be thousands. Tasks get a limit of
/// their own from their engine.
fn raise_file_limit() {
    const FILES: u64 = 65_536;
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(FILES);
    let raised = Rlimit {
        current: Some(hard.min(FILES).max(limit.current.unwrap_or(0))),
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!(target: "gleaner::agent", %error, "the limit of open files stays");
    }
}
