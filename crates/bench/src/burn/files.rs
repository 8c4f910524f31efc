//! Work for the disk, in the current directory. By the wall clock: who waits for a disk uses no
//! CPU.

use super::{Clock, Reading, timed};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// Bytes of the file that is written and read, and of one call.
const FILE_BYTES: usize = 16 << 20;
const CALL_BYTES: usize = 64 << 10;
/// Small files that are made and removed a slice, and their size.
const SMALL: u32 = 100;
const SMALL_BYTES: usize = 4 << 10;

pub(super) fn run(slices: u32) -> io::Result<Vec<Reading>> {
    run_in(Path::new("."), slices)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(super) fn run_in(dir: &Path, slices: u32) -> io::Result<Vec<Reading>> {
    let (how, bytes) = ((Clock::Wall, slices), FILE_BYTES as f64);
    let path = dir.join("burnt");
    let mut chunk = vec![7_u8; CALL_BYTES];
    let write = timed("write", how, bytes, || {
        let mut file = File::create(&path)?;
        for _ in 0..FILE_BYTES / CALL_BYTES {
            file.write_all(&chunk)?;
        }
        file.sync_all()
    })?;
    let read = timed("read", how, bytes, || {
        let mut file = File::open(&path)?;
        while file.read(&mut chunk)? > 0 {}
        Ok(())
    })?;
    fs::remove_file(&path)?;
    let small = timed("small", how, f64::from(SMALL), || {
        for number in 0..SMALL {
            fs::write(dir.join(format!("small-{number}")), &chunk[..SMALL_BYTES])?;
        }
        for number in 0..SMALL {
            fs::remove_file(dir.join(format!("small-{number}")))?;
        }
        Ok(())
    })?;
    Ok(vec![write, read, small])
}
