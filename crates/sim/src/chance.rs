//! The only source of chance: xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom
//! number generators", 2019), seeded through SplitMix64 as its authors advise.

/// A stream of numbers that follows from its seed alone.
#[derive(Debug, Clone)]
pub(crate) struct Chance {
    state: [u64; 4],
}

/// One step of SplitMix64: also a good hash of a counter.
pub(crate) const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number in 0..1 that follows from three others.
pub(crate) fn fixed(a: u64, b: u64, c: u64) -> f64 {
    unit(mix(a ^ mix(b ^ mix(c))))
}

/// A number in 0..1 from 64 random bits.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// The whole part of a number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "callers give finite, non-negative values far below 2^63"
)]
pub(crate) const fn whole(value: f64) -> u64 {
    value as u64
}

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        let a = mix(seed);
        let b = mix(a);
        let c = mix(b);
        Self {
            state: [a, b, c, mix(c)],
        }
    }

    pub(crate) const fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number in `low..=high`.
    pub(crate) const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// Yes with this probability.
    pub(crate) fn likely(&mut self, probability: f64) -> bool {
        unit(self.next()) < probability
    }

    /// Milliseconds until something that comes on average each `mean_s` seconds.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 36 times the mean, which is days"
    )]
    pub(crate) fn wait_ms(&mut self, mean_s: f64) -> u64 {
        let unit = unit(self.next()).min(1.0 - f64::EPSILON);
        (-(1.0 - unit).ln() * mean_s * 1000.0) as u64 + 1
    }

    /// A number in 0..1.
    pub(crate) fn unit(&mut self) -> f64 {
        unit(self.next())
    }

    /// A length of Weibull's distribution, in milliseconds.
    pub(crate) fn weibull_ms(&mut self, shape: f64, scale_s: f64) -> u64 {
        let unit = self.unit().min(1.0 - f64::EPSILON);
        whole(scale_s * 1000.0 * (-(1.0 - unit).ln()).powf(1.0 / shape)) + 1
    }

    /// A number of the normal distribution (Box and Muller, "A note on the generation of random
    /// normal deviates", 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).max(f64::MIN_POSITIVE).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// A length of the lognormal distribution, in milliseconds.
    pub(crate) fn lognormal_ms(&mut self, median_s: f64, sigma: f64) -> u64 {
        // Four deviations: longer ones are other states, not longer pauses.
        let normal = self.normal().clamp(-4.0, 4.0);
        whole(median_s * 1000.0 * (sigma * normal).exp()) + 1
    }

    /// A number of a distribution that is given by its quantiles.
    pub(crate) fn quantile(&mut self, of: &[(f64, f64)]) -> f64 {
        let unit = self.unit();
        let above = of.iter().position(|(share, _)| *share >= unit).unwrap_or(0);
        let (Some(high), Some(low)) = (of.get(above), of.get(above.saturating_sub(1))) else {
            return 0.0;
        };
        let width = high.0 - low.0;
        if width <= 0.0 {
            return high.1;
        }
        low.1 + (high.1 - low.1) * (unit - low.0) / width
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let len = u64::try_from(from.len()).unwrap_or(u64::MAX);
        let at = self.next().checked_rem(len)?;
        from.get(usize::try_from(at).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_are_those_of_the_reference() {
        // xoshiro256++ from state 1, 2, 3, 4, as the reference implementation gives them.
        let mut chance = Chance {
            state: [1, 2, 3, 4],
        };
        let first: Vec<u64> = (0..4).map(|_| chance.next()).collect();
        let expected = [
            41_943_041,
            58_720_359,
            3_588_806_011_781_223,
            3_591_011_842_654_386,
        ];
        assert_eq!(first, expected);
        // SplitMix64 from seed 0.
        assert_eq!(mix(0), 0xE220_A839_7B1D_CDAF);
    }

    #[test]
    fn waits_have_their_mean() {
        let mut chance = Chance::new(7);
        let sum: u64 = (0..20_000).map(|_| chance.wait_ms(10.0)).sum();
        let mean = sum / 20_000;
        assert!((9_700..10_300).contains(&mean), "{mean}");
    }
}
