//! Where samples and events come from, as the loops see it. What reads the PC is another crate's
//! matter; a test puts its own words in here.

use super::Heard;
use super::status::Source;
use gleaner_harvest::{Resource, Sample};
use gleaner_model::Time;
use std::fmt;
use std::sync::{Arc, mpsc};

/// Something that will not wait for the next look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sensed {
    /// The owner touched the PC.
    Input,
    /// Somebody waits for this resource longer than the trigger allows.
    Pressed(Resource),
    /// The PC is about to sleep, or has woken.
    Sleeping(bool),
    /// Something else changed (power, sessions, a lock): worth a look now.
    Changed,
}

/// The sensors of a PC.
pub(crate) trait Sensing: Send + Sync + fmt::Debug {
    /// What they know now. Never blocks for longer than a file of the kernel takes.
    fn sample(&self, now: Time) -> Sample;

    /// Each of them and how it does.
    fn sources(&self) -> Vec<Source>;
}

/// Where events go. Called from threads of the sensors; never blocks.
#[derive(Debug, Clone)]
pub(crate) struct SensedSink(pub(super) mpsc::Sender<Heard>);

impl SensedSink {
    pub(crate) fn send(&self, event: Sensed) {
        if self.0.send(Heard::Sensed(event)).is_err() {
            tracing::trace!(target: "gleaner::watch", "stopped; an event came too late");
        }
    }
}

/// Begins sensing, once it is known where events go.
pub(crate) type Begin = Box<dyn FnOnce(SensedSink) -> Arc<dyn Sensing> + Send>;

/// A PC without any sensor: nobody is there to be disturbed, as far as it can tell.
#[derive(Debug)]
pub(crate) struct Nothing;

impl Sensing for Nothing {
    fn sample(&self, now: Time) -> Sample {
        Sample {
            at: now,
            ..Sample::default()
        }
    }

    fn sources(&self) -> Vec<Source> {
        Vec::new()
    }
}
