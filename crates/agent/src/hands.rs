//! A few threads for work that blocks: engines, hashing, removing directories. Work of one set
//! of hands with one thread is done in the order in which it was given.

use crate::AgentError;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

type Work = Box<dyn FnOnce() + Send>;

/// Threads that wait for work; they end when this is dropped and all work is done.
#[derive(Debug)]
pub(crate) struct Hands {
    queue: mpsc::Sender<Work>,
}

impl Hands {
    /// `count` threads with this name.
    pub(crate) fn new(name: &'static str, count: usize) -> Result<Self, AgentError> {
        let (queue, work) = mpsc::channel::<Work>();
        let work = Arc::new(Mutex::new(work));
        for _ in 0..count {
            let work = Arc::clone(&work);
            let take = move || work.lock().unwrap_or_else(PoisonError::into_inner).recv();
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || {
                    while let Ok(work) = take() {
                        work();
                    }
                })
                .map_err(|source| AgentError::Io {
                    doing: format!("start the thread {name}"),
                    source,
                })?;
        }
        Ok(Self { queue })
    }

    /// Gives work away. The queue holds at most a few items an attempt.
    pub(crate) fn give(&self, work: impl FnOnce() + Send + 'static) {
        if self.queue.send(Box::new(work)).is_err() {
            tracing::error!(target: "gleaner::agent", "all worker threads are gone");
        }
    }
}
