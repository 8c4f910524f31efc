//! What guests are made of, what runs them, and how the cage of one is started.

use crate::image::{Image, ImageError, Manifest, Program, Sealed};
use crate::known::Known;
use crate::machine::{self, Moves};
use crate::outcome;
use crate::translate;
use crate::waiting::Ahead;
use gleaner_engine::{AttemptSpec, EngineError, Events};
use gleaner_engine_process::{Caged, Cages, ProcessConfig};
use gleaner_guest::task::{Accelerator, GuestTask};
use gleaner_model::Reason;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A busy PC boots a guest in half a minute, since guests run at idle priority.
const SILENCE: Duration = Duration::from_secs(180);

/// How the engine works on this PC.
#[derive(Debug, Clone)]
pub struct VmConfig {
    /// How cages are made. Its directory must be the engine's own.
    pub process: ProcessConfig,
    /// The directory of what guests are made of.
    pub image: PathBuf,
    /// The guest's program, of which an image is built where there is none; without it only an
    /// image that is there already will do.
    pub program: Option<Program>,
    /// How long a guest may be silent while it boots or is asked for something; pauses do not
    /// count.
    pub silence: Duration,
    /// What runs the guests; by default the best that a trial has shown to work.
    pub accelerator: Option<Accelerator>,
}

impl VmConfig {
    /// The usual settings.
    #[must_use]
    pub const fn new(process: ProcessConfig, image: PathBuf) -> Self {
        Self {
            process,
            image,
            program: None,
            silence: SILENCE,
            accelerator: None,
        }
    }
}

/// Runs attempts in guests. Cheap to share: all clones are one engine.
pub type VmEngine = Caged<Guests>;

/// What runs the tasks: guests, of one image.
pub struct Guests {
    pub(crate) config: VmConfig,
    pub(crate) known: Known,
    /// Guests whose tasks have not begun.
    pub(crate) ahead: Ahead,
    pub(crate) events: Events,
    /// The image when its files were hashed.
    sealed: Sealed,
    /// What the last trial chose.
    chosen: Mutex<Option<Accelerator>>,
}

impl fmt::Debug for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Guests");
        text.field("config", &self.config).finish_non_exhaustive()
    }
}

impl Guests {
    /// None runs yet.
    pub(crate) fn of(config: VmConfig, events: &Events) -> Self {
        Self {
            known: Known::default(),
            ahead: Ahead::default(),
            events: Arc::clone(events),
            sealed: Sealed::default(),
            chosen: Mutex::new(config.accelerator),
            config,
        }
    }

    /// What guests are made of, built where it is missing and can be.
    pub(crate) fn image(&self) -> Result<Image, ImageError> {
        let dir = &self.config.image;
        match &self.config.program {
            Some(program) => Image::open_or_build(dir, program),
            None => Image::open(dir),
        }
    }

    /// What the image says of itself. One whose files were changed since they were built is built
    /// anew where it can be.
    fn whole_image(&self) -> Result<Manifest, ImageError> {
        let whole = self.sealed.whole(&self.config.image);
        match (whole, &self.config.program) {
            (Err(ImageError::Altered(what)), Some(program)) => {
                tracing::warn!(
                    what,
                    "is not what was built; the guest's image is built anew"
                );
                Image::open_or_build(&self.config.image, program).map(|image| image.manifest)
            }
            (whole, _) => whole,
        }
    }

    /// Why what a guest did is not to be believed: a file that it ran on was changed under it.
    pub(crate) fn spoilt(&self) -> Option<Reason> {
        let spoilt = self.sealed.whole(&self.config.image);
        // One that is gone was replaced by another, and the guest had the old one to the end.
        let altered = spoilt
            .err()
            .filter(|error| matches!(error, ImageError::Altered(_)));
        altered.map(|error| Reason::Engine {
            detail: format!("the guest's image was changed while it ran: {error}"),
        })
    }

    /// From now on guests run on this.
    pub(crate) fn choose(&self, best: Accelerator) {
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(best);
    }

    /// What runs the next guest: as set, as tried, or as an agent before us had tried.
    pub(crate) fn accelerator(&self, manifest: &Manifest) -> Accelerator {
        let chosen = *self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = || outcome::chosen(&outcome::recalled(&self.config.image, manifest));
        chosen.or_else(earlier).unwrap_or(Accelerator::Uml)
    }

    /// The cage of a guest; `waits` where its task begins later.
    pub(crate) fn cage_of(
        &self,
        cages: &Cages,
        spec: &AttemptSpec,
        waits: bool,
    ) -> Result<AttemptSpec, EngineError> {
        let manifest = self.whole_image().map_err(no_machine)?;
        let accelerator = self.accelerator(&manifest);
        let moves = Moves::of(spec);
        let machine = machine::machine(&manifest, accelerator, moves).map_err(no_machine)?;
        cages
            .engine()
            .set_guest_needs(translate::needs(accelerator));
        let guest = GuestTask {
            base: base(spec, &manifest),
            waits,
            ..translate::guest_task(spec, &machine, self.config.silence)
        };
        // It goes onto the guest's disk as an input.
        let (file, text) = cages.tell(spec.attempt, &guest)?;
        Ok(translate::cage(spec, accelerator, &file, &text))
    }

    /// Starts the cage of an attempt with its guest in it; `waits` where its task begins later.
    pub(crate) fn launch(
        &self,
        cages: &Cages,
        spec: &AttemptSpec,
        waits: bool,
    ) -> Result<(), EngineError> {
        cages.start(spec, || self.cage_of(cages, spec, waits))
    }
}

fn no_machine(why: impl fmt::Display) -> EngineError {
    EngineError::io(
        "choose what runs the guest",
        io::Error::other(why.to_string()),
    )
}

/// What tells the file that the guest's root lies on from all others: the task's own image or the
/// base image.
fn base(spec: &AttemptSpec, manifest: &Manifest) -> String {
    match &spec.image {
        Some(image) => image.digest.to_string(),
        None => manifest.base(),
    }
}
