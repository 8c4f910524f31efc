//! The guest's program: part of this binary, or a file.

use super::{ImageError, kernels};
use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Its name where it is a file.
const NAME: &str = "gleaner-guest";

/// Where it lies from `gleaner`, in packages and in builds.
const PLACES: [&str; 3] = [".", "../lib/gleaner", "../guest/release"];

/// Names another one than those that are found by themselves.
const SETTING: &str = "GLEANER_GUEST";

/// Nothing in builds that are not for release; `build.rs` says why.
static BUILT_IN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/program"));

/// Where the guest's program is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// In this binary.
    BuiltIn,
    /// A file of its own.
    File(PathBuf),
}

impl Program {
    /// Its bytes. One that is not static, or for another processor, would end the guest at once.
    ///
    /// # Errors
    /// Where it is missing or no such program.
    pub(super) fn read(&self) -> Result<Cow<'static, [u8]>, ImageError> {
        match self {
            Self::BuiltIn if BUILT_IN.is_empty() => Err(ImageError::NoProgram(
                "this build of gleaner has no program for guests",
            )),
            Self::BuiltIn => Ok(Cow::Borrowed(BUILT_IN)),
            Self::File(path) => checked(path).map(Cow::Owned),
        }
    }
}

/// The guest's program: where `GLEANER_GUEST` says, else the one in this binary, else one beside
/// `gleaner`, as builds have it.
///
/// # Errors
/// Where no guest can run anyhow, since there is no kernel for one, or where there is no program.
pub fn find_program(gleaner: &Path) -> Result<Program, ImageError> {
    kernels::installed()?;
    if let Some(program) = std::env::var_os(SETTING) {
        let wanted = !program.is_empty();
        let file = wanted.then(|| Program::File(program.into()));
        return file.ok_or(ImageError::NoProgram("GLEANER_GUEST is set to nothing"));
    }
    if !BUILT_IN.is_empty() {
        return Ok(Program::BuiltIn);
    }
    let beside = gleaner.parent().unwrap_or_else(|| Path::new("."));
    let mut places = PLACES
        .map(|place| beside.join(place).join(NAME))
        .into_iter();
    // What a plain build makes of it is linked dynamically and of no use.
    let found = places.find(|path| checked(path).is_ok());
    let missing = "this build of gleaner has no program for guests, and none lies beside it";
    found
        .map(Program::File)
        .ok_or(ImageError::NoProgram(missing))
}

fn checked(path: &Path) -> Result<Vec<u8>, ImageError> {
    let wrong = |problem| ImageError::Program {
        path: path.display().to_string(),
        problem,
    };
    let program = fs::read(path).map_err(|error| {
        let absent = error.kind() == ErrorKind::NotFound;
        wrong(if absent {
            "is missing"
        } else {
            "cannot be read"
        })
    })?;
    match needs_loader(&program) {
        Some(false) => Ok(program),
        Some(true) => Err(wrong("is not linked statically")),
        None => Err(wrong("is not a program of this processor")),
    }
}

/// Whether an ELF file for 64 bits names an interpreter: the System V ABI's `PT_INTERP`.
fn needs_loader(head: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let all = head.get(at..at + bytes)?;
        let sum = all
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Some(sum)
    };
    // Class 64 bits, little-endian.
    (head.get(..6)? == b"\x7fELF\x02\x01").then_some(())?;
    let start = usize::try_from(number(32, 8)?).ok()?;
    let (size, count) = (usize::try_from(number(54, 2)?).ok()?, number(56, 2)?);
    let mut at = start;
    for _ in 0..count {
        if number(at, 4)? == u64::from(INTERPRETER) {
            return Some(true);
        }
        at = at.checked_add(size)?;
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_a_loader_is_told_from_one_that_does_not() {
        let elf = |kind: u8| {
            let mut head = b"\x7fELF\x02\x01".to_vec();
            head.resize(64, 0);
            head[32] = 64;
            head[54] = 56;
            head[56] = 2;
            head.resize(64 + 2 * 56, 0);
            head[64] = 1;
            head[64 + 56] = kind;
            head
        };
        assert_eq!(needs_loader(&elf(1)), Some(false));
        assert_eq!(needs_loader(&elf(3)), Some(true));
        assert_eq!(needs_loader(b"#!/bin/sh"), None);
        assert_eq!(needs_loader(&elf(1)[..100]), None);
        let error = Program::File("/no/such".into()).read().unwrap_err();
        assert!(error.to_string().contains("is missing"), "{error}");
    }

    #[test]
    fn a_program_that_is_built_in_needs_no_loader() {
        match Program::BuiltIn.read() {
            Ok(program) => assert_eq!(needs_loader(&program), Some(false)),
            Err(error) => assert!(error.to_string().contains("release build"), "{error}"),
        }
    }
}
