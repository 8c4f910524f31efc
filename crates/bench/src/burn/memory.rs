//! NDDE's memory sweep: read, write, and read-modify-write of regions from those that the first
//! cache holds to those that no cache holds. What has been touched is apart from the first touch,
//! which is the kernel's work.

use super::{Clock, Reading, timed};
use std::hint::black_box;
use std::io;

/// Smallest region in bytes.
const SMALLEST: usize = 4 << 10;
/// Each region is so many times as large as the one before.
const STEP: usize = 4;
/// Bytes that a slice goes over, in as many passes as that takes; one pass at least.
const SLICE_BYTES: usize = 64 << 20;
/// Smallest region that is touched first under the clock: smaller ones come out of memory that
/// the program has.
const TOUCHED_FROM: usize = 1 << 20;
/// Bytes that are touched first in one slice.
const TOUCH_BYTES: usize = 16 << 20;
const PAGE_BYTES: usize = 4 << 10;
const WORD_BYTES: usize = 8;

/// Sizes of the sweep up to so many MiB, in bytes.
pub(super) fn sizes(largest_mib: u32) -> Vec<usize> {
    let largest = (largest_mib as usize) << 20;
    std::iter::successors(Some(SMALLEST), |size| size.checked_mul(STEP))
        .take_while(|size| *size <= largest)
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(super) fn run(largest_mib: u32, slices: u32) -> io::Result<Vec<Reading>> {
    let how = (Clock::Cpu, slices);
    let mut readings = Vec::new();
    for size in sizes(largest_mib) {
        if size >= TOUCHED_FROM {
            readings.push(touch(size)?);
        }
        let mut region = vec![1_u64; size / WORD_BYTES];
        let passes = (SLICE_BYTES / size).max(1);
        let bytes = (passes * size) as f64;
        let mut add = |name: &str, pass: &mut dyn FnMut(&mut [u64])| -> io::Result<()> {
            let slice = || {
                for _ in 0..passes {
                    pass(black_box(&mut region));
                }
                Ok(())
            };
            let reading = timed(format!("{name}@{size}"), how, bytes, slice)?;
            readings.push(reading.with_sum([sum_of(&region)]));
            Ok(())
        };
        add("read", &mut |region| {
            black_box(sum_of(region));
        })?;
        let mut value = 0;
        add("write", &mut |region| {
            value += 1;
            region.fill(black_box(value));
        })?;
        add("change", &mut |region| {
            for word in region {
                *word = word.wrapping_add(1);
            }
        })?;
    }
    Ok(readings)
}

fn sum_of(region: &[u64]) -> u64 {
    let add = |sum: u64, word: &u64| sum.wrapping_add(*word);
    region.iter().fold(0, add)
}

/// A word of every page of regions that are new each time.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn touch(size: usize) -> io::Result<Reading> {
    let regions = (TOUCH_BYTES / size).max(1);
    let pages = (regions * size / PAGE_BYTES) as f64;
    timed(format!("touch@{size}"), (Clock::Cpu, 1), pages, || {
        for _ in 0..regions {
            touch_new(size);
        }
        Ok(())
    })
}

/// Gets memory from the kernel, touches each page of it and gives it back.
pub(super) fn touch_new(bytes: usize) {
    let mut region = vec![0_u64; bytes / WORD_BYTES];
    for page in region.chunks_mut(PAGE_BYTES / WORD_BYTES) {
        page[0] = 1;
    }
    black_box(&mut region);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_goes_from_4_kib_to_256_mib() {
        assert_eq!(sizes(1), [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20]);
        assert_eq!(sizes(256).len(), 9);
        assert_eq!(sizes(256).last(), Some(&(256 << 20)));
    }
}
