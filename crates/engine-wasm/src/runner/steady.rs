//! Clocks and chance that are the same in every run, for programs that ask for that.
//!
//! Clocks begin at a fixed moment and go on by a fixed step whenever they are read, so a program
//! that waits for one gets there. Chance is the extendable output of BLAKE3 over the program's
//! arguments and environment: the same task draws the same numbers anywhere, and two tasks of a
//! sweep draw different ones.

use rand_core::TryRng;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

/// The moment at which the wall clock begins: 2000-01-01 00:00 UTC, in seconds since 1970.
const BEGIN: Duration = Duration::from_secs(946_684_800);

/// How far a clock goes on when it is read.
const STEP: Duration = Duration::from_micros(1);

/// Counts readings.
#[derive(Debug, Default)]
struct Readings(AtomicU64);

impl Readings {
    fn next(&self) -> Duration {
        let read = self.0.fetch_add(1, Ordering::Relaxed);
        Duration::from_nanos(read.saturating_mul(nanos(STEP)))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The time of day.
#[derive(Debug, Default)]
pub(crate) struct SteadyWall(Readings);

impl HostWallClock for SteadyWall {
    fn resolution(&self) -> Duration {
        STEP
    }

    fn now(&self) -> Duration {
        BEGIN + self.0.next()
    }
}

/// The time since the program began.
#[derive(Debug, Default)]
pub(crate) struct SteadyMonotonic(Readings);

impl HostMonotonicClock for SteadyMonotonic {
    fn resolution(&self) -> u64 {
        nanos(STEP)
    }

    fn now(&self) -> u64 {
        nanos(self.0.next())
    }
}

/// A stream of bytes that looks like chance.
pub(crate) struct Chance(blake3::OutputReader);

impl Chance {
    /// The one of this program.
    pub(crate) fn of(command: &[String], env: &[(String, String)]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("gleaner wasm deterministic random 1");
        let texts = env.iter().flat_map(|(name, value)| [name, value]);
        for text in command.iter().chain(texts) {
            // With its length, so that no two lists of texts are one.
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        Self(hasher.finalize_xof())
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }
}

impl TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.bytes()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}
