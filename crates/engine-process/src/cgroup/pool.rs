//! Groups that are used again: making one in each hierarchy costs more than a short task.

use super::{Backend, Group};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Clean groups ready to be handed out. Shared between threads.
#[derive(Debug)]
pub struct GroupPool {
    backend: Backend,
    prefix: String,
    /// Most groups kept ready; a small multiple of the CPUs is enough.
    capacity: usize,
    next: AtomicU64,
    ready: Mutex<Vec<Group>>,
}

impl GroupPool {
    /// An empty pool; group names are `prefix` and a number.
    #[must_use]
    pub const fn new(backend: Backend, prefix: String, capacity: usize) -> Self {
        Self {
            backend,
            prefix,
            capacity,
            next: AtomicU64::new(0),
            ready: Mutex::new(Vec::new()),
        }
    }

    /// The way groups are made.
    #[must_use]
    pub const fn backend(&self) -> &Backend {
        &self.backend
    }

    /// A clean, empty group, thawed and at zero.
    ///
    /// # Errors
    /// Where a new one is needed and cannot be made.
    pub fn take(&self) -> io::Result<Group> {
        let ready = self.ready.lock().ok().and_then(|mut ready| ready.pop());
        if let Some(group) = ready {
            return Ok(group);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.backend.create(&format!("{}-{number}", self.prefix))
    }

    /// Takes a group back. Whatever is still in it is killed; one that cannot be made clean is
    /// removed, so nothing of a task reaches the next one.
    ///
    /// # Errors
    /// Where it can be neither cleaned nor removed: a process hangs in the kernel.
    pub fn give_back(&self, mut group: Group) -> io::Result<()> {
        let room = self
            .ready
            .lock()
            .is_ok_and(|ready| ready.len() < self.capacity);
        let clean = room
            && match group.recycle() {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    group.kill()?;
                    group.recycle().is_ok()
                }
                done => done.is_ok(),
            };
        if !clean {
            if group.populated()? {
                group.kill()?;
            }
            return group.remove();
        }
        match self.ready.lock() {
            Ok(mut ready) => {
                ready.push(group);
                Ok(())
            }
            Err(_) => group.remove(),
        }
    }

    /// Removes the groups that are ready.
    pub fn clear(&self) {
        let ready = self
            .ready
            .lock()
            .map(|mut ready| std::mem::take(&mut *ready));
        for group in ready.unwrap_or_default() {
            if let Err(error) = group.remove() {
                tracing::warn!(group = %group.name(), %error, "a group could not be removed");
            }
        }
    }
}

impl Drop for GroupPool {
    fn drop(&mut self) {
        self.clear();
    }
}
