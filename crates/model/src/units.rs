//! Quantities with their units: bytes, rates, CPUs, spans and instants.
//!
//! In a job file a quantity is a number or a text with a unit (`"1GiB"`, `"50MB/s"`, `"30min"`).
//! It is always written out as a plain number: bytes, bytes a second, seconds.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::ops::{Add, Sub};
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A quantity was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}; write {example}")]
pub struct UnitError {
    what: &'static str,
    example: &'static str,
    text: String,
}

/// A number of bytes. `kB MB GB TB` count by 1000, `KiB MiB GiB TiB` by 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

/// Bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rate(pub u64);

/// Processors, in thousandths of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpus {
    /// Thousandths of a processor.
    pub milli: u32,
}

/// A length of time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// Milliseconds.
    pub ms: u64,
}

/// An instant, in milliseconds since 1970-01-01T00:00Z. It never runs backwards in one process.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time {
    /// Milliseconds since 1970-01-01T00:00Z.
    pub ms: u64,
}

impl Span {
    /// A span of whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self {
            ms: seconds.saturating_mul(1000),
        }
    }

    /// The span in seconds, with its fraction.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a span of 2^53 ms is 285,000 years"
    )]
    pub fn as_seconds(self) -> f64 {
        self.ms as f64 / 1000.0
    }
}

impl Time {
    /// How long after `earlier` this is; zero where it is not later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        Span {
            ms: self.ms.saturating_sub(earlier.ms),
        }
    }
}

impl Add<Span> for Time {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self {
            ms: self.ms.saturating_add(span.ms),
        }
    }
}

impl Sub<Span> for Time {
    type Output = Self;
    fn sub(self, span: Span) -> Self {
        Self {
            ms: self.ms.saturating_sub(span.ms),
        }
    }
}

impl Cpus {
    /// One processor.
    pub const ONE: Self = Self { milli: 1000 };
}

/// Splits `"1.5 GiB"` into 1.5 and `GiB`.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'))
        .unwrap_or(text.len());
    let number = text[..end].replace('_', "").parse::<f64>().ok()?;
    Some((number, text[end..].trim()))
}

/// Rounds a product of a parsed number, refusing what a `u64` cannot hold.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to lie within 0 and 2^63 in the line before"
)]
fn whole(value: f64) -> Option<u64> {
    (0.0..9.2e18)
        .contains(&value)
        .then_some((value + 0.5) as u64)
}

fn bytes_unit(unit: &str) -> Option<f64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "ki" | "kib" => 1024.0,
        "mi" | "mib" => 1_048_576.0,
        "gi" | "gib" => 1_073_741_824.0,
        "ti" | "tib" => 1_099_511_627_776.0,
        _ => return None,
    })
}

impl FromStr for Bytes {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        number_and_unit(text)
            .and_then(|(number, unit)| whole(number * bytes_unit(unit)?))
            .map(Self)
            .ok_or_else(|| UnitError {
                what: "a size",
                example: "bytes as a number, or a text like \"512MiB\" or \"2GB\"",
                text: text.into(),
            })
    }
}

impl FromStr for Rate {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let size = text.trim().strip_suffix("/s").unwrap_or(text);
        size.parse::<Bytes>()
            .map(|bytes| Self(bytes.0))
            .map_err(|_| UnitError {
                what: "a rate",
                example: "bytes a second as a number, or a text like \"50MB/s\"",
                text: text.into(),
            })
    }
}

impl FromStr for Span {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let one = |text: &str| {
            let (number, unit) = number_and_unit(text)?;
            let scale = match unit {
                "ms" => 1.0,
                "" | "s" | "sec" | "second" | "seconds" => 1e3,
                "m" | "min" | "minute" | "minutes" => 60e3,
                "h" | "hour" | "hours" => 3600e3,
                "d" | "day" | "days" => 86_400e3,
                _ => return None,
            };
            whole(number * scale)
        };
        one(text).map(|ms| Self { ms }).ok_or_else(|| UnitError {
            what: "a length of time",
            example: "seconds as a number, or a text like \"90s\", \"30min\", \"2h\" or \"1d\"",
            text: text.into(),
        })
    }
}

impl FromStr for Cpus {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        number_and_unit(text)
            .filter(|(number, unit)| unit.is_empty() && *number > 0.0 && *number <= 4096.0)
            .and_then(|(number, _)| whole(number * 1000.0))
            .and_then(|milli| u32::try_from(milli).ok())
            // Less than a thousandth would round to nothing.
            .filter(|milli| *milli > 0)
            .map(|milli| Self { milli })
            .ok_or_else(|| UnitError {
                what: "a number of CPUs",
                example: "a number from 0.001 to 4096, like 1, 2 or 0.5",
                text: text.into(),
            })
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        for (scale, unit) in UNITS {
            if self.0 >= scale {
                let tenths = u128::from(self.0) * 10 / u128::from(scale);
                return match tenths % 10 {
                    0 => write!(f, "{} {unit}", tenths / 10),
                    tenth => write!(f, "{}.{tenth} {unit}", tenths / 10),
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", Bytes(self.0))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.milli % 1000 {
            0 => write!(f, "{}", self.milli / 1000),
            rest => {
                let text = format!("{}.{rest:03}", self.milli / 1000);
                f.write_str(text.trim_end_matches('0'))
            }
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, ms) = (self.ms / 1000, self.ms % 1000);
        match s {
            0 => write!(f, "{ms} ms"),
            1..60 => write!(f, "{s}.{} s", ms / 100),
            60..3600 => write!(f, "{} min {:02} s", s / 60, s % 60),
            3600..86_400 => write!(f, "{} h {:02} min", s / 3600, s / 60 % 60),
            _ => write!(f, "{} d {:02} h", s / 86_400, s / 3600 % 24),
        }
    }
}

/// A number as it stands in a file: whole, with a fraction, or a text with a unit.
enum Written {
    Number(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Written;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a text with a unit")
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Written, E> {
                Ok(Written::Text(v.to_string()))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Written, E> {
                Ok(Written::Text(v.to_string()))
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Written, E> {
                Ok(Written::Number(v))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Written, E> {
                Ok(Written::Text(v.into()))
            }
        }
        from.deserialize_any(Visitor)
    }
}

impl Written {
    fn parse<T: FromStr<Err = UnitError>, E: de::Error>(self) -> Result<T, E> {
        match self {
            Self::Number(number) => number.to_string().parse(),
            Self::Text(text) => text.parse(),
        }
        .map_err(E::custom)
    }
}

macro_rules! quantity_serde {
    ($name:ident, |$this:ident| $number:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Written::deserialize(from)?.parse()
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                let $this = self;
                $number.serialize(out)
            }
        }
    };
}

quantity_serde!(Bytes, |this| this.0);
quantity_serde!(Rate, |this| this.0);
quantity_serde!(Cpus, |this| f64::from(this.milli) / 1000.0);
quantity_serde!(Span, |this| this.as_seconds());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_by_1000_or_1024_as_written() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("1kB", 1000),
            ("1 KiB", 1024),
            ("1.5GiB", 1_610_612_736),
            ("2GB", 2_000_000_000),
            ("10_000", 10_000),
            ("3tib", 3 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1", "1GiBs", "1 2", "9e99", "99999999TiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans_rates_and_cpus() {
        for (text, ms) in [
            ("90", 90_000),
            ("1.5s", 1500),
            ("30min", 1_800_000),
            ("2h", 7_200_000),
            ("5ms", 5),
        ] {
            assert_eq!(text.parse(), Ok(Span { ms }), "{text}");
        }
        assert_eq!("1 week".parse::<Span>().ok(), None);
        assert_eq!("50MB/s".parse(), Ok(Rate(50_000_000)));
        assert_eq!("0.5".parse(), Ok(Cpus { milli: 500 }));
        for text in ["0", "0.0004", "-1", "1cpu", "1e9", "NaN", "inf", "4097"] {
            assert!(text.parse::<Cpus>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_shows_what_to_write() {
        let error = "soon".parse::<Span>().unwrap_err().to_string();
        assert!(
            error.contains("\"soon\"") && error.contains("30min"),
            "{error}"
        );
    }

    #[test]
    fn quantities_are_shown_for_people_and_sent_as_numbers() {
        assert_eq!(Bytes(1 << 30).to_string(), "1 GiB");
        assert_eq!(Bytes(1_610_612_736).to_string(), "1.5 GiB");
        assert_eq!(Span { ms: 3_725_000 }.to_string(), "1 h 02 min");
        assert_eq!(Cpus { milli: 2500 }.to_string(), "2.5");
        assert_eq!(serde_json::to_string(&Bytes(5)).unwrap(), "5");
        assert_eq!(
            serde_json::from_str::<Span>("\"1min\"").unwrap(),
            Span { ms: 60_000 }
        );
        assert_eq!(
            serde_json::from_str::<Span>("0.25").unwrap(),
            Span { ms: 250 }
        );
    }

    #[test]
    fn instants_never_go_below_zero_or_wrap() {
        let (a, b) = (Time { ms: 5 }, Time { ms: 9 });
        assert_eq!((b.since(a).ms, a.since(b).ms), (4, 0));
        assert_eq!((a - Span { ms: 10 }).ms, 0);
        assert_eq!((Time { ms: u64::MAX } + Span { ms: 1 }).ms, u64::MAX);
    }
}
