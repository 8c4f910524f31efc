//! Copies of the files by which a running program saves itself, made while it stands still.
//!
//! The copies lie beside the streams, out of the program's reach, until the next are whole. They
//! are made by a thread, since a gigabyte takes seconds; the shim goes on watching meanwhile.

use super::Shim;
use super::run::Cause;
use crate::bundle::{Bay, Bundle};
use crate::collect::{self, Top};
use crate::message::FromShim;
use crate::remove;
use gleaner_engine::{AttemptSpec, CollectedFile};
use gleaner_model::AttemptId;
use rustix::fs::ioctl_ficlone;
use std::error::Error;
use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an attempt may take to stand still: one at idle priority on a busy PC gets a turn
/// within seconds, and does nothing else meanwhile.
const STILL_WITHIN: Duration = Duration::from_secs(30);

/// How often the shim looks whether it does.
pub(super) const STILL_LOOK: Duration = Duration::from_millis(500);

/// An attempt's copies are made, or why not.
pub(super) type Saved = (AttemptId, Result<(), String>);

impl Shim {
    /// Freezes an attempt and has its files copied.
    pub(super) fn save(&mut self, attempt: AttemptId) {
        // One that has ended says so by itself.
        let Some(run) = self.runs.get_mut(&attempt) else {
            return;
        };
        let refusal = match (&run.clock, run.spec.saving.files.is_empty()) {
            (None, _) => Some("its program has not started"),
            (_, true) => Some("the job names no checkpoint_files"),
            _ if run.frozen.contains(&Cause::Saved) => Some("it is being saved already"),
            _ => None,
        };
        if let Some(why) = refusal {
            let error = Some(why.to_owned());
            return self.tell(FromShim::Saved { attempt, error });
        }
        let now = Instant::now();
        run.freeze(Cause::Saved, now);
        run.still_by = Some(now + STILL_WITHIN);
        self.copy_when_still(attempt);
    }

    /// Looks after those that were asked to stand still and did not at once: what gets no
    /// processor cannot even stop.
    pub(super) fn copy_those_still(&mut self) {
        let waiting = self.runs.iter().filter(|(_, run)| run.still_by.is_some());
        let waiting: Vec<AttemptId> = waiting.map(|(attempt, _)| *attempt).collect();
        for attempt in waiting {
            self.copy_when_still(attempt);
        }
    }

    fn copy_when_still(&mut self, attempt: AttemptId) {
        let Some(run) = self.runs.get_mut(&attempt) else {
            return;
        };
        let still = run.group.as_ref().map(|group| group.freeze(true));
        if !matches!(still, Some(Ok(true))) {
            if run.still_by.is_some_and(|by| Instant::now() >= by) {
                let why = "it does not stand still; the next try is due later".to_owned();
                self.saved(attempt, Err(why));
            }
            return;
        }
        run.still_by = None;
        let (places, spec) = (Places::of(&self.bundle, run.bay), run.spec.clone());
        let (done, wake) = (self.save_done.clone(), self.wake.try_clone());
        std::thread::spawn(move || {
            let copied = places.copy(&spec).map_err(|error| error.to_string());
            let _shim_ended = done.send((attempt, copied));
            if let Ok(wake) = wake {
                let _full = rustix::io::write(&wake, &1_u64.to_ne_bytes());
            }
        });
    }

    pub(super) fn take_saved(&mut self) {
        while let Ok((attempt, copied)) = self.saved.try_recv() {
            self.saved(attempt, copied);
        }
    }

    /// Lets it go on, and says how it went. Nobody asks any more where it has ended.
    fn saved(&mut self, attempt: AttemptId, copied: Result<(), String>) {
        let Some(run) = self.runs.get_mut(&attempt) else {
            return;
        };
        run.still_by = None;
        if run.thaw(Cause::Saved, Instant::now()) {
            // Whoever asked for a pause meanwhile, and took it back, waits for this.
            self.tell(FromShim::Resumed { attempt });
        }
        let error = copied.err();
        self.tell(FromShim::Saved { attempt, error });
    }
}

/// From where to where.
struct Places {
    scratch: PathBuf,
    part: PathBuf,
    whole: PathBuf,
}

impl Places {
    fn of(bundle: &Bundle, bay: Bay) -> Self {
        Self {
            scratch: bundle.scratch(bay),
            part: bundle.saving(bay),
            whole: bundle.saved(bay),
        }
    }

    fn copy(&self, spec: &AttemptSpec) -> Result<(), Box<dyn Error>> {
        remove::tree(&self.part)?;
        fs::create_dir(&self.part)?;
        let copied = self.copy_files(spec);
        if copied.is_err() {
            remove::tree(&self.part)?;
            return copied;
        }
        remove::tree(&self.whole)?;
        fs::rename(&self.part, &self.whole)?;
        Ok(())
    }

    fn copy_files(&self, spec: &AttemptSpec) -> Result<(), Box<dyn Error>> {
        let mut left = spec.limits.output.0;
        for file in collect::below(&Top::whole(&self.scratch), &spec.saving.files, &mut left)? {
            copy_one(file, &self.part)?;
        }
        Ok(())
    }
}

/// Shares the blocks where the file system can.
fn copy_one(from: CollectedFile, dir: &Path) -> Result<(), Box<dyn Error>> {
    let path = dir.join(&from.name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut to = File::create_new(&path)?;
    if ioctl_ficlone(&to, &from.file).is_err() {
        std::io::copy(&mut from.file.take(from.size), &mut to)?;
    }
    to.set_permissions(Permissions::from_mode(from.mode | 0o400))?;
    Ok(())
}
