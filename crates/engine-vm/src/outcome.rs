//! What came of trials, and what of that is remembered until the PC boots again or the image
//! changes.

use crate::image::Manifest;
use gleaner_guest::task::{Accelerator, DIED, SILENT};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// What a sentence about a PC without time for us says.
pub(crate) const BUSY: &str = "is this PC very busy?";

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A guest ran a program.
    Works {
        /// From the start of the cage to the program's end, in milliseconds.
        took_ms: u64,
    },
    /// There is nothing to try with.
    Absent {
        /// What is missing, as a sentence.
        why: String,
    },
    /// None did.
    Fails {
        /// Why, as a sentence.
        why: String,
    },
}

/// One accelerator and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// What was tried.
    pub accelerator: Accelerator,
    /// What came of it.
    pub outcome: Outcome,
}

/// Outcomes and when they stop being true.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) boot: String,
    pub(crate) image: String,
    pub(crate) trials: Vec<Trial>,
}

/// The accelerator to use, if any works.
#[must_use]
pub fn chosen(trials: &[Trial]) -> Option<Accelerator> {
    let works = |trial: &&Trial| matches!(trial.outcome, Outcome::Works { .. });
    let works = trials.iter().filter(works).map(|trial| trial.accelerator);
    works.min()
}

/// Whether the PC has to boot again for another outcome: what a device did that hangs, or ends whoever
/// uses it. What else fails is tried again, since that costs little: a PC that is busy, or whose disk
/// is full, is so now, and what is not installed may be in a moment.
pub(crate) fn lasts(trial: &Trial) -> bool {
    match &trial.outcome {
        Outcome::Works { .. } => true,
        Outcome::Absent { .. } => false,
        Outcome::Fails { why } => {
            let did = [DIED, SILENT].iter().any(|words| why.starts_with(words));
            did && trial.accelerator == Accelerator::Kvm
        }
    }
}

pub(crate) fn remember(cache: &Path, known: &Kept) {
    let written = serde_json::to_vec(known)
        .map_err(std::io::Error::from)
        .and_then(|text| fs::write(cache, text));
    if let Err(error) = written {
        tracing::warn!(%error, "the outcome of the guest's trial is not remembered");
    }
}

/// What is known of an image without running a guest.
pub(crate) fn recalled(dir: &Path, manifest: &Manifest) -> Vec<Trial> {
    recall(&cache(dir), &boot(), &manifest.digest())
}

pub(crate) fn cache(image: &Path) -> PathBuf {
    image.with_extension("trial.json")
}

pub(crate) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// What earlier trials found, as far as it still holds. An empty boot id is nobody's.
pub(crate) fn recall(cache: &Path, boot: &str, image: &str) -> Vec<Trial> {
    let known: Kept = fs::read(cache)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let holds = known.boot == boot && known.image == image && !boot.is_empty();
    if holds { known.trials } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(why: &str) -> Outcome {
        Outcome::Fails {
            why: why.to_owned(),
        }
    }

    #[test]
    fn an_outcome_holds_for_one_boot_and_one_image() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("probe.json");
        let trials = vec![Trial {
            accelerator: Accelerator::Uml,
            outcome: Outcome::Works { took_ms: 1500 },
        }];
        let known = Kept {
            boot: "a".to_owned(),
            image: "x".to_owned(),
            trials: trials.clone(),
        };
        remember(&cache, &known);
        assert_eq!(recall(&cache, "a", "x"), trials);
        assert_eq!(recall(&cache, "b", "x"), []);
        assert_eq!(recall(&cache, "a", "y"), []);
        fs::write(&cache, "{").unwrap();
        assert_eq!(recall(&cache, "a", "x"), []);
    }

    #[test]
    fn a_busy_pc_a_full_disk_and_a_package_that_is_not_there_are_asked_again() {
        let silent = "the guest was silent for 10 s; its last words: none";
        let died = "the guest's kernel ended by itself; its last words: none";
        let late = format!("late; {BUSY}");
        let full = "the disk of this PC is full";
        let of = |accelerator, outcome| Trial {
            accelerator,
            outcome,
        };
        let table = [(silent, true), (died, true), (&late, false), (full, false)];
        for (why, kept) in table {
            assert_eq!(lasts(&of(Accelerator::Kvm, fails(why))), kept, "{why}");
            // A kernel that is translated may give up on a PC that has no time for it.
            assert!(!lasts(&of(Accelerator::Tcg, fails(why))), "{why}");
        }
        let why = "install it".to_owned();
        assert!(!lasts(&of(Accelerator::Kvm, Outcome::Absent { why })));
    }
}
