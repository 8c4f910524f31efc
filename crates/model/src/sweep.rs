//! `[sweep]` as its user writes it: how a job splits.
//!
//! Reading is written out by hand, because serde's untagged and flattened shapes can only say
//! that nothing matched, while the user needs to hear which key of which axis is wrong.

use crate::words::words;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

words!(
    /// How axes combine.
    SweepMode {
        /// Every combination; the last axis by name runs fastest.
        Product = "product",
        /// First with first, second with second; all axes have one length.
        Zip = "zip",
    }
);

/// `[sweep]`: `mode` and the axes by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// How axes combine.
    pub mode: SweepMode,
    /// The axes.
    pub axes: BTreeMap<String, Axis>,
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            mode: SweepMode::Product,
            axes: BTreeMap::new(),
        }
    }
}

/// One axis of a sweep: a table with one key, which says how the values come about.
#[derive(Debug, Clone, PartialEq)]
pub enum Axis {
    /// A glob; each file is an input of its task, the value is its name in the sandbox.
    Files(String),
    /// First and last whole number, both included.
    Range(i64, i64),
    /// The values themselves.
    List(Vec<Scalar>),
    /// A text file; each line is a value.
    Lines(String),
    /// A file cut into pieces; each piece is an input of its task.
    Split(Split),
}

/// One value of a list: text, number or boolean, used as the text it is written as.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    /// Used as it is.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number with a fraction; a whole one keeps its `.0`.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Int(number) => number.fmt(f),
            // Debug keeps the `.0` of 1.0 and the exponent of 1e-9, as people write them.
            Self::Float(number) => fmt::Debug::fmt(number, f),
            Self::Bool(truth) => truth.fmt(f),
        }
    }
}

words!(
    /// Where a split file may be cut.
    Records {
        /// After a newline.
        Lines = "lines",
        /// Anywhere.
        Bytes = "bytes",
        /// Before a line that starts with `>`.
        Fasta = "fasta",
    }
);

/// `{ split = FILE, records = "lines", per_task = N }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The file to cut.
    pub split: String,
    /// Where it may be cut.
    pub records: Records,
    /// Records (lines, bytes, sequences) in a piece; the last may have fewer.
    pub per_task: u64,
}

/// Every key that an axis may have.
const AXIS_KEYS: &[&str] = &[
    "files", "range", "list", "lines", "split", "records", "per_task",
];

/// Names that placeholders have already; an axis of that name could never be reached.
const TAKEN_NAMES: &[&str] = &["index", "outputs"];

const AXIS_SHAPE: &str = "an axis: { files = \"data/*.txt\" }, { range = [1, 10] }, \
    { list = [1, 2] }, { lines = \"names.txt\" } or { split = \"big.txt\", per_task = 100 }";

impl Serialize for Sweep {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(self.axes.len() + 1))?;
        map.serialize_entry("mode", &self.mode)?;
        for (name, axis) in &self.axes {
            map.serialize_entry(name, axis)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Sweep {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(SweepVisitor)
    }
}

struct SweepVisitor;

impl<'de> de::Visitor<'de> for SweepVisitor {
    type Value = Sweep;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of axes")
    }

    fn visit_map<M: de::MapAccess<'de>>(self, mut map: M) -> Result<Sweep, M::Error> {
        let mut sweep = Sweep::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == "mode" {
                sweep.mode = map.next_value::<Mode>()?.0;
                continue;
            }
            // The value first: a reader that knows lines blames the right one.
            let axis = map.next_value()?;
            if let Some(problem) = name_problem(&name) {
                return Err(de::Error::custom(problem));
            }
            if sweep.axes.insert(name.clone(), axis).is_some() {
                return Err(de::Error::custom(format!("the axis `{name}` stands twice")));
            }
        }
        Ok(sweep)
    }
}

/// What is wrong with an axis' name, if anything.
fn name_problem(name: &str) -> Option<String> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    if TAKEN_NAMES.contains(&name) {
        return Some(format!(
            "an axis cannot be called `{name}`: {{{name}}} means something already; choose another name"
        ));
    }
    (name.is_empty() || !name.chars().all(plain))
        .then(|| format!("{name:?} cannot name an axis; use letters, digits, `_`, `-` and `.`"))
}

/// The value of `mode`, with a sentence for those who meant an axis of that name.
struct Mode(SweepMode);

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ModeVisitor;
        impl de::Visitor<'_> for ModeVisitor {
            type Value = Mode;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"product\" or \"zip\" (no axis can be called mode)")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Mode, E> {
                SweepMode::from_word(word)
                    .map(Mode)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(word), &self))
            }
        }
        from.deserialize_any(ModeVisitor)
    }
}

impl Serialize for Axis {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(None)?;
        match self {
            Self::Files(glob) => map.serialize_entry("files", glob)?,
            Self::Range(first, last) => map.serialize_entry("range", &[first, last])?,
            Self::List(values) => map.serialize_entry("list", values)?,
            Self::Lines(file) => map.serialize_entry("lines", file)?,
            Self::Split(split) => {
                map.serialize_entry("split", &split.split)?;
                map.serialize_entry("records", &split.records)?;
                map.serialize_entry("per_task", &split.per_task)?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Axis {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(AxisVisitor)
    }
}

struct AxisVisitor;

/// What has been read of an axis so far.
#[derive(Default)]
struct AxisKeys {
    /// The one key that says what kind of axis it is.
    kind: Option<(String, Axis)>,
    records: Option<Records>,
    per_task: Option<u64>,
}

impl<'de> de::Visitor<'de> for AxisVisitor {
    type Value = Axis;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(AXIS_SHAPE)
    }

    fn visit_map<M: de::MapAccess<'de>>(self, mut map: M) -> Result<Axis, M::Error> {
        let mut keys = AxisKeys::default();
        while let Some(key) = map.next_key::<String>()? {
            let axis = match key.as_str() {
                "files" => Axis::Files(map.next_value()?),
                "range" => map
                    .next_value::<Ends>()
                    .map(|ends| Axis::Range(ends.0, ends.1))?,
                "list" => Axis::List(map.next_value()?),
                "lines" => Axis::Lines(map.next_value()?),
                "split" => Axis::Split(Split {
                    split: map.next_value()?,
                    records: Records::Lines,
                    per_task: 0,
                }),
                "records" => {
                    keys.records = Some(map.next_value()?);
                    continue;
                }
                "per_task" => {
                    keys.per_task = Some(map.next_value()?);
                    continue;
                }
                _ => return Err(de::Error::unknown_field(&key, AXIS_KEYS)),
            };
            if let Some((other, _)) = &keys.kind {
                return Err(de::Error::custom(format!(
                    "an axis has one kind of values, not both `{other}` and `{key}`; make two axes of it"
                )));
            }
            keys.kind = Some((key, axis));
        }
        keys.finish()
    }
}

impl AxisKeys {
    fn finish<E: de::Error>(self) -> Result<Axis, E> {
        match self.kind {
            None => Err(E::custom(format!(
                "nothing says what the values are; write {AXIS_SHAPE}"
            ))),
            Some((_, Axis::Split(split))) => match self.per_task {
                None => Err(E::missing_field("per_task")),
                Some(0) => Err(E::custom("`per_task` is 0; write 1 or more")),
                Some(per_task) => Ok(Axis::Split(Split {
                    per_task,
                    records: self.records.unwrap_or(split.records),
                    ..split
                })),
            },
            Some((kind, axis)) => match (self.records, self.per_task) {
                (None, None) => Ok(axis),
                (records, _) => {
                    let key = if records.is_some() {
                        "records"
                    } else {
                        "per_task"
                    };
                    Err(E::custom(format!(
                        "`{key}` goes with `split`, not with `{kind}`"
                    )))
                }
            },
        }
    }
}

/// The two ends of a range.
struct Ends(i64, i64);

impl<'de> Deserialize<'de> for Ends {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct EndsVisitor;
        impl<'de> de::Visitor<'de> for EndsVisitor {
            type Value = Ends;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[first, last]: two whole numbers, both included")
            }
            fn visit_seq<S: de::SeqAccess<'de>>(self, mut seq: S) -> Result<Ends, S::Error> {
                let mut ends = Vec::new();
                while let Some(end) = seq.next_element::<i64>()? {
                    ends.push(end);
                    if ends.len() > 2 {
                        break;
                    }
                }
                match *ends {
                    [first, last] if first <= last => Ok(Ends(first, last)),
                    [first, last] => Err(de::Error::custom(format!(
                        "the range [{first}, {last}] is empty; write the smaller number first"
                    ))),
                    _ => Err(de::Error::invalid_length(ends.len(), &self)),
                }
            }
        }
        from.deserialize_any(EndsVisitor)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl de::Visitor<'_> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true or false")
            }
            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(truth))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Int(number))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
                i64::try_from(number)
                    .map(Scalar::Int)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar::Float(number))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.into()))
            }
        }
        from.deserialize_any(ScalarVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    const ALL_KINDS: &str = r#"
        mode = "zip"
        a = { files = "ligands/*.pdbqt" }
        b = { range = [-1, 10] }
        c = { list = ["x", 1, 0.5, true] }
        d = { lines = "names.txt" }
        e = { split = "big.fasta", records = "fasta", per_task = 500 }
        f = { split = "big.txt", per_task = 1 }
    "#;

    fn toml_sweep(text: &str) -> Result<Sweep, String> {
        toml::from_str(text).map_err(|e: toml::de::Error| e.message().to_string())
    }

    #[test]
    fn every_axis_reads_and_comes_back_the_same_in_toml_and_json() {
        let sweep = toml_sweep(ALL_KINDS).unwrap();
        assert_eq!(sweep.mode, SweepMode::Zip);
        assert_eq!(sweep.axes["b"], Axis::Range(-1, 10));
        assert!(matches!(&sweep.axes["f"], Axis::Split(s) if s.records == Records::Lines));
        assert_eq!(
            toml_sweep(&toml::to_string(&sweep).unwrap()).unwrap(),
            sweep
        );
        let json = serde_json::to_string(&sweep).unwrap();
        assert!(json.contains(r#""b":{"range":[-1,10]}"#), "{json}");
        assert_eq!(serde_json::from_str::<Sweep>(&json).unwrap(), sweep);
    }

    #[test]
    fn a_wrong_axis_is_told_what_is_wrong() {
        for (text, said) in [
            ("a = { fils = 'x' }", "unknown field `fils`"),
            ("a = { range = [1, 2], list = [1] }", "not both `"),
            ("a = {}", "nothing says what the values are"),
            ("a = [1, 2]", "{ range = [1, 10] }"),
            ("a = { range = [1] }", "[first, last]"),
            ("a = { range = [1, 2, 3] }", "[first, last]"),
            ("a = { range = [2, 1] }", "is empty"),
            ("a = { range = 7 }", "[first, last]"),
            ("a = { list = [[1]] }", "a text, a number, true or false"),
            ("a = { split = 'x' }", "missing field `per_task`"),
            ("a = { split = 'x', per_task = 0 }", "write 1 or more"),
            (
                "a = { files = 'x', per_task = 2 }",
                "`per_task` goes with `split`",
            ),
            (
                "a = { split = 'x', per_task = 2, records = 'words' }",
                "unknown variant `words`",
            ),
            ("mode = 'random'", "\"product\" or \"zip\""),
            ("mode = { list = [1] }", "no axis can be called mode"),
            ("index = { list = [1] }", "cannot be called `index`"),
            ("'a b' = { list = [1] }", "cannot name an axis"),
        ] {
            let found = toml_sweep(text).unwrap_err();
            assert!(found.contains(said), "{text}: {found}");
        }
    }

    #[test]
    fn scalars_are_used_as_they_are_written() {
        let sweep = toml_sweep("a = { list = ['x', 1, 1.0, 0.5, 1e-9, false] }").unwrap();
        let Axis::List(values) = &sweep.axes["a"] else {
            panic!("not a list")
        };
        let texts: Vec<String> = values.iter().map(Scalar::to_string).collect();
        assert_eq!(texts, ["x", "1", "1.0", "0.5", "1e-9", "false"]);
    }
}
