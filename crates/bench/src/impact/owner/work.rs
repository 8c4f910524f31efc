//! The owner's fixed work: so many steps over a buffer, or a save. The steps are calibrated once,
//! before any task runs, and never again: under every condition the work is the same.

use super::super::plan::{Chance, Model};
use crate::{BenchError, Doing as _};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Instant;

/// A step goes on by a cache line.
const LINE_WORDS: usize = 8;
/// Trials of the calibration; the best counts, as nothing makes a PC faster than it is.
const TRIALS: u32 = 12;
/// Steps of one trial: a few milliseconds.
const TRIAL_STEPS: u32 = 2_000_000;
/// A save writes this much.
const SAVE_BYTES: usize = 64 << 10;
/// The file that a save overwrites, block after block.
const SAVED_BYTES: u64 = 4 << 20;
/// The file that is read beside it.
const READ_BYTES: u64 = 64 << 20;
/// Reads a save.
const READS: u32 = 8;

/// Work over a buffer.
#[derive(Debug)]
pub(crate) struct Steps {
    buffer: Vec<u64>,
    at: usize,
    a_us: f64,
}

impl Steps {
    /// Work over as much memory as this model touches, calibrated.
    pub(crate) fn calibrated(model: Model) -> Self {
        let bytes = match model {
            Model::Keys | Model::Compile | Model::Saves => 512 << 10,
            Model::Frames => 2 << 20,
            Model::Renders => 16 << 20,
        };
        let mut steps = Self {
            buffer: vec![1; bytes / size_of::<u64>()],
            at: 0,
            a_us: 0.0,
        };
        let trial = |steps: &mut Self| {
            let started = Instant::now();
            steps.take(TRIAL_STEPS);
            f64::from(TRIAL_STEPS) / (started.elapsed().as_secs_f64() * 1e6)
        };
        steps.a_us = (0..TRIALS).map(|_| trial(&mut steps)).fold(1.0, f64::max);
        steps
    }

    /// The same work with a buffer of its own.
    pub(crate) fn another(&self) -> Self {
        Self {
            buffer: vec![1; self.buffer.len()],
            at: 0,
            a_us: self.a_us,
        }
    }

    /// Works as long as `us` microseconds are on a quiet PC.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "work of at most some seconds"
    )]
    pub(crate) fn work(&mut self, us: u64) {
        self.take((us as f64 * self.a_us) as u32);
    }

    fn take(&mut self, steps: u32) {
        let mut sum = 0_u64;
        for _ in 0..steps {
            self.at += LINE_WORDS;
            if self.at >= self.buffer.len() {
                self.at = 0;
            }
            let word = &mut self.buffer[self.at];
            *word = word.wrapping_mul(6_364_136_223_846_793_005) ^ sum;
            sum = sum.wrapping_add(*word >> 7);
        }
        black_box(sum);
    }
}

/// A block as direct reads want it in memory.
#[derive(Debug, Clone)]
#[repr(align(4096))]
struct Block([u8; 4096]);

/// Saving and reading files.
#[derive(Debug)]
pub(crate) struct Saver {
    saved: File,
    read: File,
    text: Vec<u8>,
    block: Box<Block>,
    chance: Chance,
    at: u64,
}

impl Saver {
    /// Makes the files in `dir`; they go with it.
    pub(crate) fn new(dir: &Path) -> Result<Self, BenchError> {
        let (saved, read) = (dir.join("saved"), dir.join("read"));
        let text = vec![b'x'; SAVE_BYTES];
        let fill = File::create(&read).doing("make a file to read")?;
        for at in (0..READ_BYTES).step_by(SAVE_BYTES) {
            fill.write_all_at(&text, at)
                .doing("fill a file to read; is the disk full?")?;
        }
        fill.sync_all().doing("sync a file to read")?;
        // Past the page cache where the file system can, so that a read is a read.
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(i32::from_ne_bytes(OFlags::DIRECT.bits().to_ne_bytes()))
            .open(&read);
        let mut block = Box::new(Block([0; 4096]));
        let direct = direct.and_then(|file| file.read_at(&mut block.0, 0).map(|_| file));
        let read = direct.map_or_else(|_| File::open(&read).doing("open a file to read"), Ok)?;
        Ok(Self {
            saved: File::create(saved).doing("make a file to save")?,
            read,
            text,
            block,
            chance: Chance::new(5),
            at: 0,
        })
    }

    /// One save and its reads.
    pub(crate) fn save(&mut self) -> std::io::Result<()> {
        self.saved.write_all_at(&self.text, self.at)?;
        self.saved.sync_data()?;
        self.at = (self.at + SAVE_BYTES as u64) % SAVED_BYTES;
        for _ in 0..READS {
            let at = self.chance.between(0, READ_BYTES / 4096) * 4096;
            self.read.read_exact_at(&mut self.block.0, at)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_work_takes_more_steps() {
        let mut steps = Steps::calibrated(Model::Keys);
        assert!(steps.a_us >= 1.0);
        let words = steps.buffer.len();
        steps.a_us = 1.0;
        steps.at = 0;
        steps.work(10);
        assert_eq!(steps.at, 10 * LINE_WORDS % words);
        assert_eq!(steps.another().buffer.len(), words);
    }

    #[test]
    fn a_save_reaches_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut saver = Saver::new(dir.path()).unwrap();
        saver.save().unwrap();
        saver.save().unwrap();
        let saved = std::fs::read(dir.path().join("saved")).unwrap();
        assert_eq!(saved.len(), 2 * SAVE_BYTES);
    }
}
