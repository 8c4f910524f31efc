//! For engines that put something of their own between a cage and the task in it: files of
//! scratch that are not the task's outputs as declared.

use super::ProcessEngine;
use crate::collect;
use gleaner_engine::{CollectedFile, EngineError};
use gleaner_model::AttemptId;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, renameat, unlinkat};
use std::fs::File;
use std::io::Write as _;
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

    /// Whether anything of this attempt is left here: until then its id is not free.
    #[must_use]
    pub fn knows(&self, attempt: AttemptId) -> bool {
        self.inner.state().attempts.contains_key(&attempt)
    }

    /// A plain file of an attempt's scratch, opened without following any link.
    ///
    /// # Errors
    /// Where the attempt is unknown or there is no such file.
    pub fn open_in_scratch(&self, attempt: AttemptId, name: &str) -> Result<File, EngineError> {
        collect::open_one(&self.places(attempt)?.0, name)
    }

    /// Puts a small file into an attempt's scratch, whole, for those in the cage to read and
    /// remove. Whatever they have made there, no link is followed.
    ///
    /// # Errors
    /// Where the attempt is unknown or the file cannot be written.
    pub fn write_in_scratch(
        &self,
        attempt: AttemptId,
        name: &str,
        content: &[u8],
    ) -> Result<(), EngineError> {
        let (scratch, _) = self.places(attempt)?;
        let write = || -> std::io::Result<()> {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let top = openat(CWD, &scratch, flags, Mode::empty())?;
            let part = format!("{name}.part");
            let _none_left = unlinkat(&top, &part, AtFlags::empty());
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = openat(&top, &part, flags, Mode::from_raw_mode(0o644))?;
            File::from(file).write_all(content)?;
            Ok(renameat(&top, &part, &top, name)?)
        };
        write().map_err(|error| EngineError::io("write into an attempt's scratch", error))
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
