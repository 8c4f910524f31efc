//! What sources say at once, and where it goes.

use std::sync::Arc;

/// What cannot wait for the next sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SenseEvent {
    /// The owner touched the PC; at most every 100 ms.
    Input,
    /// Somebody waits for memory: at least 5 % of a second.
    MemoryPressed,
    /// Somebody waits for a disk: at least 15 % of a second.
    DiskPressed,
    /// The PC is about to sleep (true), or has woken (false). After `true` the PC waits for
    /// [`crate::Sensors::ready_to_sleep`], but never longer than the session manager allows (5 s).
    Sleeping(bool),
    /// A slow word changed (a session, power, heat, the network): a sample now shows it.
    Changed,
}

/// Where events go. Called from the sources' threads, so it must return at once: put the event
/// into a queue.
pub type EventSink = Arc<dyn Fn(SenseEvent) + Send + Sync>;
