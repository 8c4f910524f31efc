//! The engine: tasks in, guests in cages, endings out.

use crate::ahead::{self, Ahead};
use crate::image::{Image, ImageError, Manifest, Program, Sealed};
use crate::machine;
use crate::probe::{self, Remembered};
use crate::saving::{self, Known};
use crate::translate::{self, Said};
use gleaner_engine::{
    Adopted, AfterSave, AttemptSpec, Capability, CollectedFile, Control, Ending, EngineError,
    EngineEvent, Events, Saves,
};
use gleaner_engine_process::{Caged, Cages, ProcessConfig, Runner};
use gleaner_guest::task::{Accelerator, GuestTask, NOTED_FILE, OUT_DIR, RECORD_FILE};
use gleaner_model::{AttemptId, GuestPrice, Reason};
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

pub(crate) fn io_error(doing: &str, source: impl Into<io::Error>) -> EngineError {
    EngineError::Io {
        doing: doing.to_owned(),
        source: source.into(),
    }
}

fn no_machine(why: impl fmt::Display) -> EngineError {
    io_error(
        "choose what runs the guest",
        io::Error::other(why.to_string()),
    )
}

impl Guests {
    /// What guests are made of, built where it is missing and can be.
    fn image(&self) -> Result<Image, ImageError> {
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
    fn spoilt(&self) -> Option<Reason> {
        let spoilt = self.sealed.whole(&self.config.image);
        // One that is gone was replaced by another, and the guest had the old one to the end.
        let altered = spoilt
            .err()
            .filter(|error| matches!(error, ImageError::Altered(_)));
        altered.map(|error| Reason::Engine {
            detail: format!("the guest's image was changed while it ran: {error}"),
        })
    }

    /// What runs the next guest: as set, as tried, or as an agent before us had tried.
    pub(crate) fn accelerator(&self, manifest: &Manifest) -> Accelerator {
        let chosen = *self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = || probe::chosen(&probe::recalled(&self.config.image, manifest));
        chosen.or_else(earlier).unwrap_or(Accelerator::Uml)
    }
}

impl Guests {
    /// The cage of a guest; `waits` where its task begins later.
    fn cage_of(
        &self,
        cages: &Cages,
        spec: &AttemptSpec,
        waits: bool,
    ) -> Result<AttemptSpec, EngineError> {
        let manifest = self.whole_image().map_err(no_machine)?;
        let accelerator = self.accelerator(&manifest);
        let moves = saving::moves(spec);
        let machine = machine::machine(&manifest, accelerator, moves).map_err(no_machine)?;
        cages
            .engine()
            .set_guest_needs(translate::needs(accelerator));
        let guest = GuestTask {
            base: saving::base(spec, &manifest),
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

impl Runner for Guests {
    type Config = VmConfig;

    const KIND: gleaner_model::Engine = gleaner_model::Engine::Vm;

    fn new(config: VmConfig, events: &Events) -> (Self, ProcessConfig) {
        let process = ProcessConfig {
            guest: Some(config.image.clone()),
            ..config.process.clone()
        };
        let guests = Self {
            known: Known::default(),
            ahead: Ahead::default(),
            events: Arc::clone(events),
            sealed: Sealed::default(),
            chosen: Mutex::new(config.accelerator),
            config,
        };
        (guests, process)
    }

    fn probe(&self, cages: &Cages) -> Vec<Capability> {
        let image = self.image();
        let has_groups = cages.engine().backend().has_groups();
        let mut rows = probe::rows(&image, has_groups);
        if let (Ok(image), true) = (&image, has_groups) {
            let trials = probe::trials(&self.config, image, Remembered::Believed);
            if let Some(best) = probe::chosen(&trials) {
                *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(best);
            }
            rows.extend(probe::trial_rows(&trials));
        }
        rows
    }

    fn cage(&self, cages: &Cages, spec: &AttemptSpec) -> Result<AttemptSpec, EngineError> {
        self.cage_of(cages, spec, false)
    }

    fn ending(&self, cages: &Cages, spec: &AttemptSpec, cage: &Ending) -> Ending {
        let guest = cages.told::<GuestTask>(spec.attempt);
        let accelerator = guest.map(|task| task.machine.accelerator);
        let last = cages.said(spec.attempt, RECORD_FILE).map(Said::Last);
        let noted = || cages.said(spec.attempt, NOTED_FILE).map(Said::Noted);
        let said = last.or_else(noted);
        let frozen_ms = ahead::frozen_ms(cages, spec.attempt);
        let cage = translate::without_waiting(cage, frozen_ms);
        let ending = translate::ending(spec, accelerator, &cage, said.as_ref());
        let spoilt = translate::is_the_guests(&ending.reason).then(|| self.spoilt());
        match spoilt.flatten() {
            Some(reason) => Ending { reason, ..ending },
            None => ending,
        }
    }

    fn collect(
        &self,
        cages: &Cages,
        spec: &AttemptSpec,
    ) -> Result<Vec<CollectedFile>, EngineError> {
        let cages = cages.engine();
        let has_outputs = cages.open_in_scratch(spec.attempt, RECORD_FILE).is_ok();
        // A guest that ended before it could tell has no directory of outputs.
        let directory = if has_outputs { OUT_DIR } else { "." };
        let max = spec.limits.output.0;
        cages.collect_below(spec.attempt, directory, &spec.outputs, max)
    }

    fn saves(&self, _cages: &Cages) -> Saves {
        self.what_saves()
    }

    fn guest_price(&self) -> Option<GuestPrice> {
        let manifest = Manifest::read(&self.config.image).ok()?;
        Some(match self.accelerator(&manifest) {
            Accelerator::Kvm => GuestPrice::Little,
            Accelerator::Uml => GuestPrice::Calls,
            Accelerator::Tcg => GuestPrice::Everything,
        })
    }

    fn save(
        self: &Arc<Self>,
        cages: &Cages,
        spec: &AttemptSpec,
        then: AfterSave,
    ) -> Result<(), EngineError> {
        self.begin_save(cages, spec, then)
    }

    /// Of an ended attempt: a guest's files cannot be read while it runs.
    fn saved(&self, cages: &Cages, spec: &AttemptSpec) -> Result<Vec<CollectedFile>, EngineError> {
        if let Some(guest) = self.saved_guest(cages, spec.attempt) {
            return guest;
        }
        let (max, saves) = (spec.limits.output.0, &spec.saving.files);
        let cages = cages.engine();
        let files = cages.collect_below(spec.attempt, OUT_DIR, saves, max)?;
        let stream = |file: &CollectedFile| matches!(file.name.as_str(), "stdout" | "stderr");
        Ok(files.into_iter().filter(|file| !stream(file)).collect())
    }

    fn prepares(&self) -> bool {
        true
    }

    fn prepare(self: &Arc<Self>, cages: &Cages, spec: &AttemptSpec) -> Result<(), EngineError> {
        self.boot_ahead(cages, spec)
    }

    fn is_prepared(&self, attempt: AttemptId) -> bool {
        self.waits(attempt)
    }

    fn begin(self: &Arc<Self>, cages: &Cages, spec: &AttemptSpec) -> Result<bool, EngineError> {
        self.begin_ahead(cages, spec)
    }

    fn reclaim(&self, cages: &Cages) {
        self.drop_all_ahead(cages);
    }

    fn heard(self: &Arc<Self>, cages: Option<&Cages>, event: &EngineEvent) -> bool {
        self.ahead_heard(cages, event) && self.known.heard(event)
    }

    fn steered(&self, attempt: AttemptId, control: Control) {
        self.known.asked(attempt, control);
        self.ahead.asked(attempt, control);
    }

    fn found(&self, cages: &Cages, cage: &Adopted) -> bool {
        self.has_begun(cages, cage)
    }

    fn found_ended(&self, attempt: AttemptId) {
        self.known.ended(attempt);
    }

    fn discards(&self, attempt: AttemptId) {
        self.ahead.discards(attempt);
    }

    fn discarded(&self, cages: &Cages, attempt: AttemptId) {
        self.forget_save(cages, attempt);
        ahead::forget_files(cages, attempt);
    }
}
