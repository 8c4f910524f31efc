//! What `gleaner doctor` shows of guests.

use crate::image::{Image, ImageError};
use crate::outcome::{Outcome, Trial, chosen};
use gleaner_engine::{Capability, Level};
use gleaner_guest::task::Accelerator;
use std::path::Path;

/// What to do where nothing works.
const MAKE: &str = "gleaner image guest";

fn row(name: &str, level: Level, found: String, fix: Option<&str>) -> Capability {
    Capability {
        name: name.to_owned(),
        level,
        found,
        fix: fix.map(str::to_owned),
    }
}

/// The outcomes as rows: whether guests run, and whether the processor helps.
#[must_use]
pub fn trial_rows(trials: &[Trial]) -> Vec<Capability> {
    let find = |accelerator| {
        let trial = trials.iter().find(|trial| trial.accelerator == accelerator);
        trial.map(|trial| &trial.outcome)
    };
    let best = chosen(trials).and_then(|best| Some((best, find(best)?)));
    let trial = match best {
        Some((best, Outcome::Works { took_ms })) => {
            let by = by(best);
            let found = format!("booted {by} and ran a program in {took_ms} ms");
            row("guest trial", Level::Good, found, None)
        }
        _ if trials.is_empty() => {
            let found = "not tried since this PC booted".to_owned();
            row("guest trial", Level::Missing, found, Some(MAKE))
        }
        _ => row("guest trial", Level::Missing, reasons(trials), Some(MAKE)),
    };
    vec![trial, virtualisation(find(Accelerator::Kvm))]
}

const fn by(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "on the processor's virtualisation",
        Accelerator::Uml => "on user-mode Linux",
        Accelerator::Tcg => "on QEMU's translation, the slowest there is,",
    }
}

fn reasons(trials: &[Trial]) -> String {
    let why = |trial: &Trial| match &trial.outcome {
        Outcome::Works { .. } => None,
        Outcome::Absent { why } | Outcome::Fails { why } => {
            Some(format!("{}: {why}", trial.accelerator.name()))
        }
    };
    let all: Vec<String> = trials.iter().filter_map(why).collect();
    all.join("; ")
}

/// Guests run without it too.
fn virtualisation(kvm: Option<&Outcome>) -> Capability {
    const NAME: &str = "virtualisation";
    const TURN_ON: &str = "turn on VT-x or AMD-V in the PC's firmware, and load kvm_intel or \
                           kvm_amd; inside a virtual machine, allow nested virtualisation";
    match kvm {
        Some(Outcome::Works { took_ms }) => {
            let found = format!("a guest boots on /dev/kvm, and ran a program in {took_ms} ms");
            row(NAME, Level::Good, found, None)
        }
        Some(Outcome::Fails { why }) => {
            let found = format!("present, but a guest does not boot on it: {why}");
            let fix = "where this is a virtual machine, let its host offer nested \
                       virtualisation that works; then `gleaner image guest`. Until then guests \
                       run without it";
            row(NAME, Level::Degraded, found, Some(fix))
        }
        Some(Outcome::Absent { why }) => {
            let fix = if Path::new("/dev/kvm").exists() {
                "install qemu-system-x86, and let the agent's user into the group kvm"
            } else {
                TURN_ON
            };
            let found = format!("not used: {why}");
            row(NAME, Level::Degraded, found, Some(fix))
        }
        None if Path::new("/dev/kvm").exists() => {
            let found = "present; no guest was tried on it since this PC booted".to_owned();
            row(NAME, Level::Degraded, found, Some(MAKE))
        }
        None => {
            let found = "none: /dev/kvm is absent; guests run without it".to_owned();
            row(NAME, Level::Degraded, found, Some(TURN_ON))
        }
    }
}

/// A kernel that is stopped by signals takes that for its end.
const NO_GROUPS: &str = "guests are paused by their control group, and there is none here";

/// What `gleaner doctor` shows of the parts of a guest.
#[must_use]
pub fn rows(image: &Result<Image, ImageError>, has_groups: bool) -> Vec<Capability> {
    let image = match image {
        Ok(image) => {
            let short: String = image.manifest.digest().chars().take(12).collect();
            let kernels = image.manifest.kernels_text();
            let packages = image.manifest.packages.len();
            let found = format!("{short}: {kernels}, {packages} packages");
            row("guest image", Level::Good, found, None)
        }
        Err(ImageError::NotBuilt(dir)) => {
            let found = format!("no guest image was built yet in {}", dir.display());
            row("guest image", Level::Missing, found, Some(MAKE))
        }
        Err(why) => row("guest image", Level::Missing, why.to_string(), Some(MAKE)),
    };
    let pause = if has_groups {
        let found = "by the group's freezer".to_owned();
        row("pausing guests", Level::Good, found, None)
    } else {
        let fix = "run the agent as a service, or let it have a control group of its own";
        row(
            "pausing guests",
            Level::Missing,
            NO_GROUPS.to_owned(),
            Some(fix),
        )
    };
    vec![image, pause]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(accelerator: Accelerator, outcome: Outcome) -> Trial {
        Trial {
            accelerator,
            outcome,
        }
    }

    fn fails(why: &str) -> Outcome {
        Outcome::Fails {
            why: why.to_owned(),
        }
    }

    #[test]
    fn what_is_missing_comes_with_a_fix() {
        let none = Err(ImageError::Altered("x".to_owned()));
        for row in rows(&none, false) {
            assert_eq!(row.level, Level::Missing);
            assert!(row.fix.is_some(), "{row:?}");
        }
    }

    #[test]
    fn the_best_that_works_is_chosen_and_the_rest_is_told() {
        let hangs = trial(Accelerator::Kvm, fails("the guest was silent for 10 s"));
        let works = trial(Accelerator::Uml, Outcome::Works { took_ms: 1 });
        assert_eq!(
            chosen(&[hangs.clone(), works.clone()]),
            Some(Accelerator::Uml)
        );
        assert_eq!(chosen(std::slice::from_ref(&hangs)), None);
        let rows = trial_rows(&[hangs.clone(), works]);
        let levels: Vec<Level> = rows.iter().map(|row| row.level).collect();
        assert_eq!(levels, [Level::Good, Level::Degraded]);
        assert!(
            rows[1]
                .found
                .contains("does not boot on it: the guest was silent"),
            "{rows:?}"
        );
        assert!(rows[1].fix.is_some());
        assert_eq!(trial_rows(&[hangs])[0].level, Level::Missing);
        assert_eq!(trial_rows(&[])[0].level, Level::Missing);
    }
}
