//! The bounds of one program: memory as it asks for it, and the marks by which its end is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wasmtime::ResourceLimiter;

/// What a table's element takes, in bytes; wasmtime says a pointer's worth.
const ELEMENT_BYTES: usize = size_of::<usize>();

/// The program asked for more memory than it may have.
#[derive(Debug, thiserror::Error)]
#[error("the program needs more memory than `limits.memory`")]
pub(crate) struct Full;

/// The program's time is over.
#[derive(Debug, thiserror::Error)]
#[error("the program needs more time than `limits.time`")]
pub(crate) struct Late;

/// Counts what a program has.
#[derive(Debug)]
pub(crate) struct Meter {
    max: u64,
    now: u64,
    /// Also read by whoever ends a program that is late.
    peak: Arc<AtomicU64>,
}

impl Meter {
    pub(crate) fn new(max: u64) -> Self {
        Self {
            max,
            now: 0,
            peak: Arc::default(),
        }
    }

    /// The peak, to be read from another thread.
    pub(crate) fn shared_peak(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.peak)
    }

    /// The most it had or asked for, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Whether it ever asked for too much.
    pub(crate) fn is_full(&self) -> bool {
        self.peak() > self.max
    }

    /// From `current` to `desired` bytes.
    fn grow(&mut self, current: usize, desired: usize) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        let then = self.now.saturating_add(more);
        self.peak.fetch_max(then, Ordering::Relaxed);
        if then > self.max {
            return Err(Full.into());
        }
        self.now = then;
        Ok(true)
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Beyond what the module itself allows: its own affair, it gets -1.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(current, desired)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let bytes = |elements: usize| elements.saturating_mul(ELEMENT_BYTES);
        self.grow(bytes(current), bytes(desired))
    }
}
