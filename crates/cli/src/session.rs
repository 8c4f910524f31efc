//! The connection that a client command works with, and the runtime it runs on.

use crate::out::Failure;
use gleaner_client::{Client, Places, Settings};
use std::path::PathBuf;

/// What every client command gets.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
}

/// Where settings come from on this PC.
pub(crate) fn places(flag: Option<PathBuf>) -> Places {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    Places {
        flag,
        env: set("GLEANER_CONFIG").map(PathBuf::from),
        home: set("HOME").map(PathBuf::from),
    }
}

impl Session {
    pub(crate) fn open(config: Option<PathBuf>) -> Result<Self, Failure> {
        let settings = Settings::load(&places(config))?;
        Ok(Self {
            client: Client::new(&settings)?,
        })
    }
}

/// Runs a client command. One thread: it starts faster than a pool of them, and a client waits
/// for the network most of the time.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|problem| Failure::usage(format!("cannot start: {problem}")))?;
    let outcome = runtime.block_on(work);
    // A blocking read of a file that hangs must not keep the command from ending.
    runtime.shutdown_background();
    outcome
}
