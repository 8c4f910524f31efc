//! The axes of a job, each a function from a position to a value.

use super::lines::{Lines, LinesError};
use super::{SplitError, names, pieces, wrong};
use gleaner_blob::Blobs;
use gleaner_model::{Axis, BlobRef, Digest, FileEntry, MAX_TASKS, Scalar, Submission, SweepMode};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Most axes of one job: more cannot be meant, and each costs a little at every task.
const AXES_MAX: usize = 32;

/// One axis, ready to be asked.
#[derive(Debug)]
pub(super) enum PlanAxis {
    Range(i64, u32),
    List(Vec<String>),
    Lines(Lines),
    /// One JSON `FileEntry` a line: a `files` axis, or the pieces of a `split` one.
    Files(Lines),
}

/// A value, and the file that it names.
pub(super) struct Value<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) file: Option<FileEntry>,
}

impl PlanAxis {
    pub(super) fn count(&self) -> u32 {
        match self {
            Self::Range(_, count) => *count,
            Self::List(values) => u32::try_from(values.len()).unwrap_or(u32::MAX),
            Self::Lines(lines) | Self::Files(lines) => lines.count(),
        }
    }

    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Range(..) => 16,
            Self::List(values) => values.iter().map(|value| value.capacity() + 24).sum(),
            Self::Lines(lines) | Self::Files(lines) => lines.memory(),
        }
    }

    pub(super) fn value(&self, at: u32) -> std::io::Result<Value<'_>> {
        let plain = |text| Value { text, file: None };
        Ok(match self {
            Self::Range(first, _) => plain(Cow::Owned((first + i64::from(at)).to_string())),
            Self::List(values) => {
                let value = values.get(at as usize).map(String::as_str);
                plain(Cow::Borrowed(value.unwrap_or_default()))
            }
            Self::Lines(lines) => plain(Cow::Owned(lines.line(at)?)),
            Self::Files(lines) => {
                let entry: FileEntry = serde_json::from_str(&lines.line(at)?)?;
                Value {
                    text: Cow::Owned(entry.name.clone()),
                    file: Some(entry),
                }
            }
        })
    }
}

/// All axes of a submission, in order of their names.
pub(super) struct Axes {
    pub(super) axes: Vec<(String, PlanAxis)>,
    pub(super) pieces: BTreeMap<String, BlobRef>,
    pub(super) needs: Vec<Digest>,
}

/// Opens the axes. `pieces` are the listings made before; without them (at a submission) the
/// `split` axes are cut now, and every file is checked to be here.
pub(super) fn open(
    blobs: &Blobs,
    submission: &Submission,
    made: Option<&BTreeMap<String, BlobRef>>,
) -> Result<Axes, SplitError> {
    let mut all = Axes {
        axes: Vec::new(),
        pieces: BTreeMap::new(),
        needs: Vec::new(),
    };
    let sweep = &submission.spec.sweep;
    if sweep.axes.len() > AXES_MAX {
        let problem = format!("has {} axes; {AXES_MAX} are the most", sweep.axes.len());
        return Err(wrong("sweep", problem));
    }
    for (name, axis) in &sweep.axes {
        let key = format!("sweep.{name}");
        let axis = match axis {
            Axis::Range(first, last) => range(&key, *first, *last)?,
            Axis::List(values) => list(&key, values)?,
            Axis::Lines(path) => {
                let blob = blob_of(blobs, &key, path, submission.axes.get(name))?;
                all.needs.push(blob.digest);
                PlanAxis::Lines(index(blobs, &key, path, &blob)?)
            }
            Axis::Files(glob) => {
                let blob = blob_of(blobs, &key, glob, submission.axes.get(name))?;
                files(blobs, &key, &blob, made.is_none(), &mut all)?
            }
            Axis::Split(how) => {
                let listing = match made.and_then(|made| made.get(name)) {
                    Some(listing) => *listing,
                    None => {
                        let blob = blob_of(blobs, &key, &how.split, submission.axes.get(name))?;
                        let (listing, pieces) = pieces::cut(blobs, name, how, &blob)?;
                        all.needs.push(blob.digest);
                        all.needs.extend(pieces);
                        listing
                    }
                };
                all.pieces.insert(name.clone(), listing);
                files(blobs, &key, &listing, made.is_none(), &mut all)?
            }
        };
        if axis.count() == 0 {
            let problem = "has no values, so the job would have no tasks; give it at least one";
            return Err(wrong(key, problem));
        }
        all.axes.push((name.clone(), axis));
    }
    Ok(all)
}

/// The blob that stands for the file of an axis.
fn blob_of(
    blobs: &Blobs,
    key: &str,
    path: &str,
    blob: Option<&BlobRef>,
) -> Result<BlobRef, SplitError> {
    let Some(blob) = blob else {
        return Err(wrong(
            key,
            format!("{path} was not sent with the job; submit it again"),
        ));
    };
    match blobs.renew(&blob.digest)? {
        Some(size) => Ok(BlobRef {
            digest: blob.digest,
            size,
        }),
        None => Err(wrong(
            key,
            format!("{path} was not uploaded; submit it again"),
        )),
    }
}

fn range(key: &str, first: i64, last: i64) -> Result<PlanAxis, SplitError> {
    // A range that runs backwards has no values; the caller says so.
    let count = (i128::from(last) - i128::from(first) + 1).max(0);
    let fits = u32::try_from(count)
        .ok()
        .filter(|count| u64::from(*count) <= MAX_TASKS);
    match fits {
        Some(count) => Ok(PlanAxis::Range(first, count)),
        None => Err(wrong(key, too_many(count.unsigned_abs()))),
    }
}

fn list(key: &str, values: &[Scalar]) -> Result<PlanAxis, SplitError> {
    if values.len() as u64 > MAX_TASKS {
        return Err(wrong(key, too_many(values.len() as u128)));
    }
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    if texts.iter().any(|text| text.contains('\0')) {
        return Err(wrong(
            key,
            "has a value with a NUL byte, which no argument may hold",
        ));
    }
    Ok(PlanAxis::List(texts))
}

fn too_many(count: u128) -> String {
    format!(
        "makes {count} tasks; one job may have {MAX_TASKS}: let each task do more, or make \
         several jobs of it"
    )
}

fn index(blobs: &Blobs, key: &str, path: &str, blob: &BlobRef) -> Result<Lines, SplitError> {
    Lines::index(blobs, blob, &mut |_, _| Ok(())).map_err(|error| unfit(key, path, error))
}

fn unfit(key: &str, path: &str, error: LinesError) -> SplitError {
    match error {
        LinesError::Blob(error) => SplitError::Blob(error),
        LinesError::Line { .. } | LinesError::TooMany => wrong(key, format!("{path}: {error}")),
    }
}

/// Indexes a listing of files. At a submission each name is checked, and each blob must be here.
fn files(
    blobs: &Blobs,
    key: &str,
    listing: &BlobRef,
    check: bool,
    all: &mut Axes,
) -> Result<PlanAxis, SplitError> {
    let mut seen = BTreeSet::new();
    let mut failed = None;
    let mut look = |_: u32, line: &str| {
        if !check {
            return Ok(());
        }
        let entry: FileEntry =
            serde_json::from_str(line).map_err(|error| format!("is no file entry: {error}"))?;
        if let Some(problem) = names::problem(&entry.name) {
            return Err(format!("{:?} {problem}", entry.name));
        }
        match blobs.renew(&entry.blob.digest) {
            Ok(Some(_)) => {}
            Ok(None) => {
                return Err(format!(
                    "{:?} was not uploaded; submit it again",
                    entry.name
                ));
            }
            Err(error) => {
                failed = Some(error);
                return Err(String::new());
            }
        }
        all.needs.push(entry.blob.digest);
        if !seen.insert(entry.name.clone()) {
            let problem = "stands twice; files of one axis need different names";
            return Err(format!("{:?} {problem}", entry.name));
        }
        Ok(())
    };
    let indexed = Lines::index(blobs, listing, &mut look);
    all.needs.push(listing.digest);
    match (indexed, failed) {
        (_, Some(error)) => Err(error.into()),
        (Ok(lines), None) => Ok(PlanAxis::Files(lines)),
        (Err(error), None) => Err(unfit(key, "its listing", error)),
    }
}

/// How many tasks the axes make together.
pub(super) fn count(axes: &[(String, PlanAxis)], mode: SweepMode) -> Result<u32, SplitError> {
    let counts = axes.iter().map(|(_, axis)| axis.count());
    match mode {
        SweepMode::Zip => {
            let mut lengths = axes.iter().map(|(name, axis)| (name, axis.count()));
            let Some((first, length)) = lengths.next() else {
                return Ok(1);
            };
            if let Some((name, other)) = lengths.find(|(_, other)| *other != length) {
                let problem = format!(
                    "zip pairs values, but `{first}` has {length} and `{name}` has {other}; make \
                     them equally long, or use mode = \"product\""
                );
                return Err(wrong("sweep.mode", problem));
            }
            Ok(length)
        }
        SweepMode::Product => {
            let product = counts.fold(1_u128, |product, count| {
                product.saturating_mul(u128::from(count))
            });
            let fits = u32::try_from(product)
                .ok()
                .filter(|n| u64::from(*n) <= MAX_TASKS);
            fits.ok_or_else(|| wrong("sweep", too_many(product)))
        }
    }
}
