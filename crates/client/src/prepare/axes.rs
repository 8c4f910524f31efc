//! The axes of a sweep as far as this side needs them: the files behind them, and their values
//! where a path asks for them.

use super::{at, check_file, check_name};
use crate::{ClientError, glob};
use gleaner_model::{Axis, MAX_TASKS, Scalar, SpecError, Sweep, SweepMode, Template};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Largest file of a `lines` axis, in bytes: a million lines of 256 bytes.
const LINES_BYTES_MAX: u64 = 256 << 20;

/// The values of one axis.
#[derive(Debug)]
enum Values {
    Range(i64, i64),
    Texts(Vec<String>),
    /// Only the server knows them.
    Pieces,
}

/// All axes.
#[derive(Debug)]
pub(super) struct Axes {
    mode: SweepMode,
    values: BTreeMap<String, Values>,
    /// Value and path of each file on an axis; for `lines` and `split` the one file.
    files: BTreeMap<String, Vec<(String, PathBuf)>>,
    /// Axes whose files are inputs of their tasks.
    brought: BTreeSet<String>,
}

impl Values {
    fn count(&self) -> Option<u64> {
        match self {
            Self::Range(first, last) => Some(last.abs_diff(*first).saturating_add(1)),
            Self::Texts(texts) => Some(texts.len() as u64),
            Self::Pieces => None,
        }
    }

    fn get(&self, at: u64) -> Cow<'_, str> {
        match self {
            Self::Range(first, _) => Cow::Owned(first.saturating_add_unsigned(at).to_string()),
            Self::Texts(texts) => usize::try_from(at)
                .ok()
                .and_then(|at| texts.get(at))
                .map_or(Cow::Borrowed(""), |text| Cow::Borrowed(text)),
            Self::Pieces => Cow::Borrowed(""),
        }
    }
}

impl Axes {
    /// Finds the files behind the axes and counts the tasks as far as they can be counted here.
    pub(super) fn find(sweep: &Sweep, base: &Path) -> Result<Self, ClientError> {
        let mut axes = Self {
            mode: sweep.mode,
            values: BTreeMap::new(),
            files: BTreeMap::new(),
            brought: BTreeSet::new(),
        };
        for (name, axis) in &sweep.axes {
            let key = format!("sweep.{name}");
            let values = axes
                .find_one(name, axis, base)
                .map_err(|problem| at(key.as_str(), problem))?;
            if values.count() == Some(0) {
                let what = match axis {
                    Axis::Lines(file) => format!("{file} is empty"),
                    Axis::List(_) | Axis::Files(_) | Axis::Range(..) | Axis::Split(_) => {
                        "the list is empty".to_owned()
                    }
                };
                let problem = format!("{what}, so the job would have no task; give it a value");
                return Err(at(key, problem));
            }
            axes.values.insert(name.clone(), values);
        }
        axes.check_count()?;
        Ok(axes)
    }

    fn find_one(&mut self, name: &str, axis: &Axis, base: &Path) -> Result<Values, String> {
        match axis {
            Axis::Range(first, last) => Ok(Values::Range(*first, *last)),
            Axis::List(list) => Ok(Values::Texts(list.iter().map(Scalar::to_string).collect())),
            Axis::Files(pattern) => {
                let files = named_files(pattern, base)?;
                let texts = files.iter().map(|(value, _)| value.clone()).collect();
                self.files.insert(name.into(), files);
                self.brought.insert(name.into());
                Ok(Values::Texts(texts))
            }
            Axis::Lines(file) => {
                let path = base.join(file);
                check_file(&path)?;
                let values = lines(&path)?;
                self.files.insert(name.into(), vec![(file.clone(), path)]);
                Ok(values)
            }
            Axis::Split(split) => {
                let path = base.join(&split.split);
                check_file(&path)?;
                self.files
                    .insert(name.into(), vec![(split.split.clone(), path)]);
                Ok(Values::Pieces)
            }
        }
    }

    /// Refuses what the server would refuse, before hours of hashing and sending.
    fn check_count(&self) -> Result<(), ClientError> {
        let counts: Vec<(&String, u64)> = self
            .values
            .iter()
            .filter_map(|(name, values)| Some((name, values.count()?)))
            .collect();
        let total = match self.mode {
            SweepMode::Product => counts
                .iter()
                .fold(1_u64, |total, (_, count)| total.saturating_mul(*count)),
            SweepMode::Zip => {
                if let [(first, length), rest @ ..] = counts.as_slice()
                    && let Some((other, count)) = rest.iter().find(|(_, count)| count != length)
                {
                    return Err(at(
                        "sweep",
                        format!(
                            "mode = \"zip\" pairs the axes, but `{first}` has {length} values and \
                             `{other}` has {count}; make them equally long or use mode = \"product\""
                        ),
                    ));
                }
                counts.first().map_or(1, |(_, count)| *count)
            }
        };
        if total > MAX_TASKS {
            return Err(at(
                "sweep",
                format!(
                    "makes {} tasks, and a job may have {}; let each task do more, or submit \
                     several jobs",
                    grouped(total),
                    grouped(MAX_TASKS)
                ),
            ));
        }
        Ok(())
    }

    /// The files behind an axis.
    pub(super) fn files(&self, name: &str) -> &[(String, PathBuf)] {
        self.files.get(name).map_or(&[], Vec::as_slice)
    }

    /// Every path that has to be hashed.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.files.values().flatten().map(|(_, path)| path.clone())
    }

    /// Refuses two files that would have one name in one sandbox.
    pub(super) fn check_names(&self, inputs: &BTreeSet<String>) -> Result<(), ClientError> {
        let mut taken: BTreeMap<&str, &str> = inputs
            .iter()
            .map(|name| (name.as_str(), "task.inputs"))
            .collect();
        for axis in &self.brought {
            let files = self.files(axis);
            let own: BTreeSet<&str> = files.iter().map(|(value, _)| value.as_str()).collect();
            if let Some((name, other)) = own.iter().find_map(|name| taken.get_key_value(name)) {
                return Err(at(
                    format!("sweep.{axis}"),
                    format!("brings a file named `{name}`, and so does {other}; rename one"),
                ));
            }
            taken.extend(own.into_iter().map(|name| (name, axis.as_str())));
        }
        Ok(())
    }

    /// Every text that `source` becomes over the sweep.
    pub(super) fn expand(&self, source: &str) -> Result<BTreeSet<String>, SpecError> {
        let template = Template::parse(source, &|name| {
            name == "index" || self.values.contains_key(name)
        });
        let mut used: BTreeSet<&str> = template.names().collect();
        let with_index = used.remove("index");
        if with_index {
            used.extend(self.values.keys().map(String::as_str));
        }
        let axes: Vec<(&str, &Values)> = self
            .values
            .iter()
            .filter(|(name, _)| used.contains(name.as_str()))
            .map(|(name, values)| (name.as_str(), values))
            .collect();
        let mut counts = Vec::new();
        for (name, values) in &axes {
            counts.push(values.count().ok_or_else(|| SpecError {
                key: String::new(),
                problem: format!(
                    "the pieces of `{name}` are cut by the server, so a path on this PC cannot \
                     depend on {}",
                    if with_index { "{index}" } else { "them" }
                ),
            })?);
        }
        let total = match self.mode {
            SweepMode::Product => counts.iter().product(),
            SweepMode::Zip => counts.first().copied().unwrap_or(1),
        };
        let mut filled = BTreeSet::new();
        for index in 0..total {
            let places = self.places(&counts, index);
            let value = |name: &str| {
                if name == "index" {
                    return Some(Cow::Owned(index.to_string()));
                }
                let at = axes.iter().position(|(axis, _)| *axis == name)?;
                Some(axes[at].1.get(places[at]))
            };
            filled.insert(template.fill(&value).map_err(|e| SpecError {
                key: String::new(),
                problem: e.to_string(),
            })?);
        }
        Ok(filled)
    }

    /// Where each axis stands at a task; the last axis by name runs fastest.
    fn places(&self, counts: &[u64], index: u64) -> Vec<u64> {
        if self.mode == SweepMode::Zip {
            return vec![index; counts.len()];
        }
        let mut rest = index;
        let mut places = vec![0; counts.len()];
        for (place, count) in places.iter_mut().zip(counts).rev() {
            *place = rest % count;
            rest /= count;
        }
        places
    }
}

/// `1,000,000`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The files of a glob with their names in the sandbox.
fn named_files(pattern: &str, base: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let paths = glob::files(base, pattern).map_err(|problem| format!("`{pattern}` {problem}"))?;
    if paths.is_empty() {
        return Err(format!(
            "no file matches `{pattern}` in {}; globs are relative to the job file, and without one \
             to where you are",
            base.display()
        ));
    }
    if paths.len() as u64 > MAX_TASKS {
        return Err(format!(
            "`{pattern}` matches {} files, and a job may have {MAX_TASKS} tasks",
            paths.len()
        ));
    }
    let mut named = Vec::with_capacity(paths.len());
    for path in paths {
        named.push((sandbox_name(&path, path.file_name())?, path));
    }
    let names: BTreeSet<&String> = named.iter().map(|(name, _)| name).collect();
    if names.len() == named.len() {
        return Ok(named);
    }
    // Files of one name in several folders keep the folders that tell them apart.
    let root = base.join(glob::fixed_part(pattern));
    for (name, path) in &mut named {
        let relative = path.strip_prefix(&root).map(Path::as_os_str);
        *name = sandbox_name(path, relative.ok())?;
    }
    Ok(named)
}

/// What a file is called in the sandbox: a part of its path, if commands can hold it.
fn sandbox_name(path: &Path, part: Option<&std::ffi::OsStr>) -> Result<String, String> {
    let name = part.and_then(std::ffi::OsStr::to_str).ok_or_else(|| {
        format!("the name of {path:?} is not UTF-8 text, which commands cannot hold; rename it")
    })?;
    check_name(name)?;
    Ok(name.to_owned())
}

fn lines(path: &Path) -> Result<Values, String> {
    let shown = path.display();
    let about = std::fs::metadata(path).map_err(|e| format!("cannot read {shown}: {e}"))?;
    if about.len() > LINES_BYTES_MAX {
        return Err(format!(
            "{shown} is larger than 256 MiB; use `split` for long files"
        ));
    }
    let bytes = std::fs::read(path).map_err(|e| format!("cannot read {shown}: {e}"))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| format!("{shown} is not UTF-8 text, so its lines cannot be values"))?;
    Ok(Values::Texts(text.lines().map(str::to_owned).collect()))
}
