//! Work for the processor alone. Sieve and matrix product are NDDE's; the other two stay in the
//! first cache and ask nothing of the kernel.

use super::{Clock, Reading, timed};
use std::hint::black_box;
use std::io;

/// Numbers of a sieve, and sieves a slice. Each sieve has memory of its own, as a program that
/// is run for it would.
const SIEVE: u32 = 200_000;
const SIEVES: u32 = 30;
/// Rows of a matrix, rows of a block that the second cache holds, and products a slice.
const MATRIX: usize = 256;
const BLOCK: usize = 64;
const PRODUCTS: u32 = 2;
/// Floating-point operations of a product.
const FLOP: f64 = 2.0 * 256.0 * 256.0 * 256.0;
/// Words of 8 bytes in the first cache.
const WORDS: usize = 2048;
/// Steps a slice.
const INTEGER_STEPS: u32 = 5_000_000;
const FLOAT_PASSES: u32 = 20_000;

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(super) fn run(slices: u32) -> io::Result<Vec<Reading>> {
    let how = (Clock::Cpu, slices);
    let mut primes = 0;
    let sieve = timed("sieve", how, f64::from(SIEVES), || {
        for round in 0..SIEVES {
            primes += black_box(sieve(SIEVE + round % 7));
        }
        Ok(())
    })?
    .with_sum([primes]);
    let [a, b] = [1.0, 2.0]
        .map(|from: f64| -> Vec<f64> { (0..MATRIX * MATRIX).map(|at| from + small(at)).collect() });
    let mut product = vec![0.0; MATRIX * MATRIX];
    let dgemm = timed("dgemm", how, f64::from(PRODUCTS) * FLOP, || {
        for _ in 0..PRODUCTS {
            product.fill(0.0);
            multiply(black_box(&a), black_box(&b), &mut product);
            black_box(&product);
        }
        Ok(())
    })?;
    let dgemm = dgemm.with_sum(product.iter().map(|number| number.to_bits()));
    let (mut words, mut seed) = (vec![1_u64; WORDS], 88_172_645_463_325_252);
    let integer = timed("integer", how, f64::from(INTEGER_STEPS), || {
        seed = integer(&mut words, seed);
        Ok(())
    })?;
    let integer = integer.with_sum(words);
    let mut numbers: Vec<f64> = (0..WORDS).map(|at| 0.1 + small(at) / 2.0).collect();
    let steps = f64::from(FLOAT_PASSES) * WORDS as f64;
    let float = timed("float", how, steps, || {
        for _ in 0..FLOAT_PASSES {
            float(black_box(&mut numbers));
        }
        Ok(())
    })?;
    let float = float.with_sum(numbers.iter().map(|number| number.to_bits()));
    Ok(vec![sieve, dgemm, integer, float])
}

/// A number from 0 to 1.
fn small(at: usize) -> f64 {
    f64::from(u32::try_from(at % 97).unwrap_or(0)) / 97.0
}

/// Counts the primes below `limit` (Eratosthenes).
fn sieve(limit: u32) -> u64 {
    let mut composite = vec![false; limit as usize];
    let mut count = 0;
    for n in 2..limit as usize {
        if composite[n] {
            continue;
        }
        count += 1;
        // Words have 32 bits on some machines, which no square of these numbers needs to fit.
        for multiple in (n.saturating_mul(n)..limit as usize).step_by(n) {
            composite[multiple] = true;
        }
    }
    count
}

/// Adds `a` times `b` to `product`, in blocks; all are square, row after row.
fn multiply(a: &[f64], b: &[f64], product: &mut [f64]) {
    for from in (0..MATRIX).step_by(BLOCK) {
        for (a, product) in a.chunks_exact(MATRIX).zip(product.chunks_exact_mut(MATRIX)) {
            for (factor, b) in a[from..from + BLOCK]
                .iter()
                .zip(b[from * MATRIX..].chunks_exact(MATRIX))
            {
                for (sum, b) in product.iter_mut().zip(b) {
                    *sum += factor * b;
                }
            }
        }
    }
}

/// Marsaglia's xorshift64 choosing the words that are multiplied (Knuth's MMIX factor).
fn integer(words: &mut [u64], mut seed: u64) -> u64 {
    for _ in 0..INTEGER_STEPS {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let at = usize::try_from(seed % WORDS as u64).unwrap_or(0);
        words[at] = words[at].wrapping_mul(6_364_136_223_846_793_005) ^ seed;
    }
    seed
}

/// A step of the logistic map for each number.
fn float(numbers: &mut [f64]) {
    for number in numbers {
        *number = 3.7 * *number * (1.0 - *number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sieve_counts_primes() {
        assert_eq!(sieve(100), 25);
        assert_eq!(sieve(200_000), 17_984);
    }

    #[test]
    fn the_product_is_the_product() {
        let one = |at: usize| f64::from(u8::from(at.is_multiple_of(MATRIX + 1)));
        let identity: Vec<f64> = (0..MATRIX * MATRIX).map(one).collect();
        let a: Vec<f64> = (0..MATRIX * MATRIX).map(small).collect();
        let mut product = vec![0.0; MATRIX * MATRIX];
        multiply(&a, &identity, &mut product);
        assert_eq!(product, a);
        multiply(&identity, &a, &mut product);
        let twice: Vec<f64> = a.iter().map(|number| number * 2.0).collect();
        assert_eq!(product, twice);
    }

    #[test]
    fn arithmetic_does_not_come_to_rest() {
        let mut words = vec![1; WORDS];
        let seed = integer(&mut words, 88_172_645_463_325_252);
        assert!(seed != 0 && words.iter().filter(|word| **word == 1).count() < WORDS / 100);
        let mut numbers = vec![0.3; WORDS];
        for _ in 0..1000 {
            float(&mut numbers);
        }
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
    }
}
