//! Which machine a guest gets: what runs it here, and for QEMU the type of machine and the model
//! of the processor.
//!
//! Types of machines have versions, and a version never changes: a guest that was saved on one
//! goes on only on the same. So the type is not the newest of this PC but one that most have.

use crate::image::{Manifest, kernels};
use gleaner_engine::AttemptSpec;
use gleaner_guest::task::{Accelerator, Machine};
use rustix::fs::Access;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Names an accelerator that is to be used whatever the trial would choose.
pub const SETTING: &str = "GLEANER_ACCEL";

/// QEMU, in the userland that cages are shown.
const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// Types of machines by preference: what every QEMU from 6.2 on has, as Ubuntu 22.04 and Debian
/// 12 and all that came later.
const KIND: &str = "pc-q35-6.2";

/// What types of this kind begin with, where QEMU is older or has dropped that one.
const KINDS: &str = "pc-q35-";

/// The first processor with all of x86-64-v2 (System V ABI, x86-64 psABI levels): a model that
/// every PC of the last fifteen years can be, so that a saved guest can move.
const CPU_OF_ALL: &str = "Nehalem";

/// This PC's own, which only virtualisation has.
const CPU_OF_HOST: &str = "host";

/// Where the processor's own virtualisation is.
const KVM: &str = "/dev/kvm";

/// Whether a guest may have to go on elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moves {
    /// It never leaves this PC: it may see its processor.
    Never,
    /// It may: it sees what all PCs have.
    Perhaps,
}

impl Moves {
    /// Only what is saved, or was, can go on elsewhere.
    pub(crate) const fn of(spec: &AttemptSpec) -> Self {
        match (&spec.saving.every, &spec.saving.restore) {
            (None, None) => Self::Never,
            _ => Self::Perhaps,
        }
    }
}

/// The accelerator that the environment asks for.
///
/// # Errors
/// Where it names none that there is, as a sentence.
pub fn asked() -> Result<Option<Accelerator>, String> {
    let Some(name) = std::env::var_os(SETTING).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let found = Accelerator::ALL
        .into_iter()
        .find(|accelerator| name == accelerator.name());
    let unknown = || format!("{SETTING} is none of kvm, uml and tcg");
    found.map(Some).ok_or_else(unknown)
}

/// The machine by this accelerator, if the PC has its parts. Says nothing of whether it runs.
///
/// # Errors
/// What is missing and what to do about it, as a sentence.
pub(crate) fn machine(
    manifest: &Manifest,
    accelerator: Accelerator,
    moves: Moves,
) -> Result<Machine, String> {
    if accelerator == Accelerator::Kvm {
        rustix::fs::access(KVM, Access::READ_OK | Access::WRITE_OK)
            .map_err(|error| no_device(&error.into()))?;
    }
    if manifest.kernel(accelerator).is_none() {
        return Err(match (accelerator, kernels::no_qemu()) {
            (Accelerator::Uml, _) => "install user-mode-linux".to_owned(),
            (_, Some(why)) => why.to_string(),
            (_, None) => "the image was made before QEMU was installed".to_owned(),
        });
    }
    let cpu = match (accelerator, moves) {
        (Accelerator::Kvm, Moves::Never) => CPU_OF_HOST,
        // Fewer kinds of instructions are less to translate.
        (Accelerator::Kvm | Accelerator::Tcg, _) => CPU_OF_ALL,
        (Accelerator::Uml, _) => "",
    };
    let kind = match accelerator {
        Accelerator::Uml => String::new(),
        Accelerator::Kvm | Accelerator::Tcg => kind()?,
    };
    Ok(Machine {
        accelerator,
        kind,
        cpu: cpu.to_owned(),
    })
}

fn no_device(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    let kind = error.kind();
    if kind == NotFound {
        format!("{KVM} is absent")
    } else if kind == PermissionDenied {
        format!("{KVM} is not open to this user; add it to the group kvm")
    } else {
        format!("{KVM}: {error}")
    }
}

/// QEMU's type of machine, asked for once.
fn kind() -> Result<String, String> {
    static KIND_HERE: OnceLock<Result<String, String>> = OnceLock::new();
    let ask = || {
        let mut command = Command::new(QEMU);
        let listed = command.args(["-M", "help"]).stdin(Stdio::null()).output();
        let listed = listed.map_err(|error| format!("{QEMU}: {error}"))?;
        choose(&String::from_utf8_lossy(&listed.stdout))
            .ok_or_else(|| format!("{QEMU} has no machine of the kind {KINDS}*"))
    };
    KIND_HERE.get_or_init(ask).clone()
}

/// From the list that QEMU prints: a name, spaces, what it is.
fn choose(list: &str) -> Option<String> {
    let names = list
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let mut kinds: Vec<&str> = names.filter(|name| name.starts_with(KINDS)).collect();
    kinds.sort_by_key(|name| {
        let version = name.strip_prefix(KINDS).unwrap_or_default();
        let numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
        numbers.collect::<Vec<u32>>()
    });
    let known = kinds.iter().find(|name| **name == KIND);
    // Older than ours: its newest. Newer, and ours is gone: its oldest, which others have too.
    let older = kinds.last().filter(|last| !newer(last));
    let any = known.or(older).or_else(|| kinds.first());
    any.map(|name| (*name).to_owned())
}

fn newer(kind: &str) -> bool {
    let major = |kind: &str| -> Option<u32> {
        let version = kind.strip_prefix(KINDS)?;
        version.split('.').next()?.parse().ok()
    };
    major(kind) > major(KIND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_machine_is_one_that_others_have_too() {
        for (list, chosen) in [
            (
                "pc-q35-7.2 Standard PC\npc-q35-6.2 Standard PC\npc-i440fx-6.2 x\n",
                Some("pc-q35-6.2"),
            ),
            (
                "q35 alias\npc-q35-4.2 x\npc-q35-5.0 x\n",
                Some("pc-q35-5.0"),
            ),
            ("pc-q35-10.0 x\npc-q35-9.2 x\n", Some("pc-q35-9.2")),
            ("microvm x\n", None),
        ] {
            assert_eq!(choose(list).as_deref(), chosen, "{list}");
        }
    }
}
