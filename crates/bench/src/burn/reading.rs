//! What the work reads of itself, and how it is printed.

use std::fmt;
use std::io;
use std::str::FromStr;

/// What was read of one item of work; as text, a line of the program's output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    /// Which item: a name, and a size in bytes behind an `@` where there are several.
    pub(crate) item: String,
    /// Seconds of all slices.
    pub(crate) total_s: f64,
    /// Seconds of the shortest.
    pub(crate) best_s: f64,
    /// How many there were.
    pub(crate) slices: u32,
    /// What a slice did: bytes or calls.
    pub(crate) amount: f64,
    /// What came out of it, so that nobody is compared who did something else; 0 where nothing
    /// does.
    pub(crate) sum: u64,
}

impl Reading {
    /// The same, with what came out of it.
    pub(super) fn with_sum(self, words: impl IntoIterator<Item = u64>) -> Self {
        /// The prime of FNV-1a (Fowler, Noll and Vo).
        const PRIME: u64 = 0x0100_0000_01b3;
        let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(PRIME);
        let sum = words.into_iter().fold(1, mix);
        Self { sum, ..self }
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            item,
            total_s,
            best_s,
            slices,
            amount,
            sum,
        } = self;
        write!(
            f,
            "{item} {total_s:.9} {best_s:.9} {slices} {amount} {sum:x}"
        )
    }
}

impl FromStr for Reading {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("the work printed {line:?}, which is no reading");
        let words: Vec<&str> = line.split_whitespace().collect();
        let [item, total, best, slices, amount, sum] = words[..] else {
            return Err(wrong());
        };
        let number = |word: &str| {
            let number: Option<f64> = word.parse().ok();
            number
                .filter(|number| number.is_finite() && *number > 0.0)
                .ok_or_else(wrong)
        };
        Ok(Self {
            item: item.to_owned(),
            total_s: number(total)?,
            best_s: number(best)?,
            slices: slices.parse().map_err(|_| wrong())?,
            amount: number(amount)?,
            sum: u64::from_str_radix(sum, 16).map_err(|_| wrong())?,
        })
    }
}

/// The environment variable that makes every item go by the time that passes. In a guest that is
/// the finer clock: user-mode Linux counts CPU time in hundredths of a second.
pub(crate) const BY_WALL: &str = "GLEANER_BURN_BY_WALL";

/// What the clock counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Clock {
    /// CPU time of this process.
    Cpu,
    /// Time that passes: for what waits, or is done by other processes.
    Wall,
}

impl Clock {
    /// Seconds, at nanosecond resolution.
    #[cfg(not(target_os = "wasi"))]
    #[expect(clippy::cast_precision_loss, reason = "differences of some seconds")]
    fn seconds(self) -> f64 {
        let id = match self {
            Self::Cpu => rustix::time::ClockId::ProcessCPUTime,
            Self::Wall => rustix::time::ClockId::Monotonic,
        };
        let time = rustix::time::clock_gettime(id);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    }

    /// Seconds that passed; runtimes of WebAssembly tell no other time.
    #[cfg(target_os = "wasi")]
    fn seconds(self) -> f64 {
        static BEGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        BEGIN
            .get_or_init(std::time::Instant::now)
            .elapsed()
            .as_secs_f64()
    }
}

/// Does a slice so often and reads the clock around each.
pub(super) fn timed(
    item: impl Into<String>,
    (clock, slices): (Clock, u32),
    amount: f64,
    mut slice: impl FnMut() -> io::Result<()>,
) -> io::Result<Reading> {
    let clock = match std::env::var_os(BY_WALL) {
        Some(_) => Clock::Wall,
        None => clock,
    };
    let (mut total_s, mut best_s) = (0.0, f64::INFINITY);
    for _ in 0..slices {
        let before = clock.seconds();
        slice()?;
        let took = clock.seconds() - before;
        total_s += took;
        best_s = took.min(best_s);
    }
    // A coarse clock may not have moved; no time is below its resolution.
    Ok(Reading {
        item: item.into(),
        total_s: f64::max(total_s, 1e-9),
        best_s: f64::max(best_s, 1e-9),
        slices,
        amount,
        sum: 0,
    })
}
