//! The engine: tasks in, guests in cages, endings out.

use crate::ahead;
use crate::guests::{Guests, VmConfig};
use crate::image::Manifest;
use crate::probe::{self, Remembered};
use crate::translate::{self, Said};
use gleaner_engine::{
    Adopted, AfterSave, AttemptSpec, Capability, CollectedFile, Control, Ending, EngineError,
    EngineEvent, Events, Saves,
};
use gleaner_engine_process::{Cages, ProcessConfig, Runner};
use gleaner_guest::task::{Accelerator, GuestTask, NOTED_FILE, OUT_DIR, RECORD_FILE};
use gleaner_model::{AttemptId, GuestPrice};
use std::sync::Arc;

impl Runner for Guests {
    type Config = VmConfig;

    const KIND: gleaner_model::Engine = gleaner_model::Engine::Vm;

    fn new(config: VmConfig, events: &Events) -> (Self, ProcessConfig) {
        let process = ProcessConfig {
            guest: Some(config.image.clone()),
            ..config.process.clone()
        };
        (Self::of(config, events), process)
    }

    fn probe(&self, cages: &Cages) -> Vec<Capability> {
        let image = self.image();
        let has_groups = cages.engine().backend().has_groups();
        let mut rows = probe::rows(&image, has_groups);
        if let (Ok(image), true) = (&image, has_groups) {
            let trials = probe::trials(&self.config, image, Remembered::Believed);
            if let Some(best) = probe::chosen(&trials) {
                self.choose(best);
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
