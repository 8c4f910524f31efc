//! An attempt that is started and whose guest, booted ahead, is of no use: the old cage goes, then
//! the attempt gets another one by an ordinary boot. All it costs is time.

use super::{AHEAD, LOOK};
use crate::guests::Guests;
use crate::waiting::{State, Waiting, now};
use gleaner_engine::{AttemptSpec, Ending, Engine as _, EngineError, EngineEvent};
use gleaner_engine_process::Cages;
use gleaner_model::{AttemptId, Reason};
use std::fs;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for the end of a guest that is not wanted: a busy PC takes seconds to end one at
/// idle priority.
const GONE_MAX: Duration = Duration::from_secs(120);

impl Guests {
    /// Starts the attempt once nothing is left of the guest that it had.
    pub(super) fn start_again(
        self: &Arc<Self>,
        cages: &Cages,
        spec: &AttemptSpec,
    ) -> Result<(), EngineError> {
        let (guests, cages, spec) = (Arc::clone(self), cages.clone(), spec.clone());
        let starts = move || {
            if let Err(error) = guests.replace(&cages, &spec) {
                let attempt = spec.attempt;
                let detail = error.to_string();
                let ending = Box::new(Ending::bare(Reason::Engine { detail }, now()));
                (guests.events)(EngineEvent::Ended { attempt, ending });
            }
        };
        thread::Builder::new()
            .name("boot-guest-again".to_owned())
            .spawn(starts)
            .map(drop)
            .map_err(|error| EngineError::io("boot another guest", error))
    }

    fn replace(&self, cages: &Cages, spec: &AttemptSpec) -> Result<(), EngineError> {
        let attempt = spec.attempt;
        let begun = Instant::now();
        while cages.engine().knows(attempt) {
            if begun.elapsed() > GONE_MAX {
                self.ahead.all().remove(&attempt);
                let late = io::Error::from(io::ErrorKind::TimedOut);
                return Err(EngineError::io("end the guest that was booted ahead", late));
            }
            cages.engine().discard(attempt);
            thread::sleep(LOOK);
        }
        let _gone_already = fs::remove_file(cages.file(attempt, AHEAD));
        if !self.is_wanted_again(attempt) {
            return Ok(());
        }
        self.launch(cages, spec, false)
    }

    /// Whether nobody has discarded the attempt meanwhile. From here on it is like any other.
    fn is_wanted_again(&self, attempt: AttemptId) -> bool {
        let mut all = self.ahead.all();
        let again = |waiting: &Waiting| waiting.state == State::Again;
        all.get(&attempt).is_some_and(again) && all.remove(&attempt).is_some()
    }
}
