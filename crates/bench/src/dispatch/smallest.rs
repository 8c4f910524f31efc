//! The smallest program there is: it ends, and nothing else.
//!
//! A no-op of the system, `/bin/true`, brings a dynamic loader with it, which maps libraries and
//! asks the processor what it can do. In a virtual machine each of these questions (CPUID) leaves
//! the guest: most of what such a no-op costs there is no system's doing, and it is the same for
//! all. With this program beside it, what a system costs is seen by itself.
//!
//! The file is written from constants, so that nobody needs a compiler. Source of its form: "Tool
//! Interface Standard: Executable and Linking Format", version 1.2, and the 64-bit supplement.

use super::pool::Pool;
use crate::{BenchError, Doing as _};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Its name in the image.
pub(super) const NAME: &str = "gleaner-no-op";
/// The pool's name of an image that holds nothing else.
pub(super) const IMAGE: &str = "gleaner-no-op";

/// `exit_group(0)`.
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[
    0x31, 0xFF, // xor edi, edi
    0xB8, 0xE7, 0, 0, 0, // mov eax, 231
    0x0F, 0x05, // syscall
];
#[cfg(target_arch = "aarch64")]
const CODE: &[u8] = &[
    0x00, 0x00, 0x80, 0xD2, // mov x0, #0
    0xC8, 0x0B, 0x80, 0xD2, // mov x8, #94
    0x01, 0x00, 0x00, 0xD4, // svc #0
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const CODE: &[u8] = &[];

/// `e_machine`.
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(not(target_arch = "x86_64"))]
const MACHINE: u16 = 183;

/// Sizes of the two headers.
const FILE_HEADER: u16 = 64;
const PROGRAM_HEADER: u16 = 56;
/// Where the file is mapped.
const PLACE: u64 = 0x40_0000;
/// The largest page of any of these processors.
const ALIGNMENT: u64 = 0x1_0000;

/// The file's content.
fn content() -> Vec<u8> {
    let code_at = FILE_HEADER + PROGRAM_HEADER;
    let length = u64::from(code_at) + CODE.len() as u64;
    let mut file = Vec::new();
    let short = |file: &mut Vec<u8>, values: &[u16]| {
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    let word = |file: &mut Vec<u8>, values: &[u32]| {
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    let long = |file: &mut Vec<u8>, values: &[u64]| {
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    // 64 bits, little-endian, version 1, any operating system.
    file.extend(b"\x7FELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    short(&mut file, &[2, MACHINE]); // a program at a fixed place
    word(&mut file, &[1]);
    // Where it begins, where its one segment is described, and no sections.
    long(
        &mut file,
        &[PLACE + u64::from(code_at), FILE_HEADER.into(), 0],
    );
    word(&mut file, &[0]);
    short(&mut file, &[FILE_HEADER, PROGRAM_HEADER, 1, 0, 0, 0]);
    word(&mut file, &[1, 5]); // to be loaded; read and executed
    long(&mut file, &[0, PLACE, PLACE, length, length, ALIGNMENT]);
    file.extend(CODE);
    file
}

/// Writes the program into `dir` and runs it; none where it does not run here.
pub(super) fn make(dir: &Path) -> Result<Option<PathBuf>, BenchError> {
    if CODE.is_empty() {
        return Ok(None);
    }
    let programs = dir.join("bin");
    fs::create_dir_all(&programs).doing("make a directory")?;
    let path = programs.join(NAME);
    fs::write(&path, content()).doing("write the smallest program")?;
    fs::set_permissions(&path, Permissions::from_mode(0o755)).doing("make it executable")?;
    let status = Command::new(&path).stdin(Stdio::null()).status();
    // Where temporary files must not be executed it is not measured.
    Ok(status.is_ok_and(|status| status.success()).then_some(path))
}

/// Gives the pool an image with the program alone: a node has no other way to it that costs a task
/// nothing. Returns where it lies here.
pub(super) fn give(pool: &Pool) -> Result<Option<PathBuf>, BenchError> {
    let root = pool.scratch().join("smallest");
    let path = make(&root)?;
    if path.is_some() {
        let root = root.display().to_string();
        pool.call(&["image", "import", IMAGE, &root, "--json"])?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn it_is_small_and_runs() {
        assert!(content().len() < 200);
        let dir = tempfile::tempdir().unwrap();
        let path = make(dir.path()).unwrap();
        assert!(path.is_some_and(|path| path.ends_with("bin/gleaner-no-op")));
    }
}
