//! For engines that put something of their own between a cage and the task in it: files of
//! scratch that are not the task's outputs as declared.

use super::ProcessEngine;
use crate::collect;
use gleaner_engine::{CollectedFile, EngineError};
use gleaner_model::AttemptId;
use std::fs::File;
use std::path::PathBuf;

impl ProcessEngine {
    /// Like [`gleaner_engine::Engine::collect`], of other outputs that lie in a directory of scratch.
    ///
    /// # Errors
    /// As [`gleaner_engine::Engine::collect`].
    pub fn collect_below(
        &self,
        attempt: AttemptId,
        directory: &str,
        outputs: &[String],
        max_bytes: u64,
    ) -> Result<Vec<CollectedFile>, EngineError> {
        let (scratch, run) = self.places(attempt)?;
        let top = collect::Top {
            scratch: &scratch,
            directory,
        };
        collect::collect(&top, &run, outputs, max_bytes)
    }

    /// A plain file of an attempt's scratch, opened without following any link.
    ///
    /// # Errors
    /// Where the attempt is unknown or there is no such file.
    pub fn open_in_scratch(&self, attempt: AttemptId, name: &str) -> Result<File, EngineError> {
        collect::open_one(&self.places(attempt)?.0, name)
    }

    /// Where its scratch directory and its streams lie.
    fn places(&self, attempt: AttemptId) -> Result<(PathBuf, PathBuf), EngineError> {
        let state = self.inner.state();
        let entry = state.attempts.get(&attempt);
        let entry = entry.ok_or(EngineError::Unknown(attempt))?;
        let (bundle, bay) = (&entry.bundle, entry.bay);
        Ok((bundle.scratch(bay), bundle.run(bay)))
    }
}
