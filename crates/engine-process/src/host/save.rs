//! The files by which programs save themselves: copies that shims make while an attempt runs, and
//! what lies in scratch when it has ended.

use super::Inner;
use crate::collect::{self, Top};
use crate::message::ToShim;
use gleaner_engine::{AfterSave, CollectedFile, EngineError};
use gleaner_model::AttemptId;

impl Inner {
    pub(super) fn save(&self, attempt: AttemptId, then: AfterSave) -> Result<(), EngineError> {
        if then == AfterSave::End {
            let text = "a process cannot be saved whole, only the files that it saves itself by";
            return Err(EngineError::Unsupported(text.to_owned()));
        }
        // One that has ended says so by its end.
        let Some(link) = self.link_of(attempt)? else {
            return Ok(());
        };
        let sent = link.send(&ToShim::Save { attempt });
        sent.map_err(|error| EngineError::io("save an attempt", error))
    }

    pub(super) fn saved(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError> {
        let (dir, files, mut max) = {
            let state = self.state();
            let entry = state.attempts.get(&attempt);
            let entry = entry.ok_or(EngineError::Unknown(attempt))?;
            let (bundle, bay) = (&entry.bundle, entry.bay);
            match entry.ended {
                Some(_) => (bundle.scratch(bay), entry.saves.clone(), entry.output_max),
                None => (bundle.saved(bay), vec!["**".to_owned()], entry.output_max),
            }
        };
        collect::below(&Top::whole(&dir), &files, &mut max)
    }
}
