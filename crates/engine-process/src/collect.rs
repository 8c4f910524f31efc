//! The files that come home from an ended attempt.
//!
//! The task made the names and everything behind them, so nothing is trusted: each file is
//! opened below scratch without following any link, must be a regular file with one name, and
//! must have a name that survives a trip through text.

use gleaner_engine::{CollectedFile, EngineError};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Most files of one attempt. A program that makes more should pack them.
const FILES_MAX: usize = 100_000;

/// Descriptors that outputs leave to the rest of the agent, which goes on meanwhile; half of all
/// where there are few.
const DESCRIPTORS_KEPT: u64 = 4096;

/// Files that may come home where so many may be open: each is, until it is sent.
fn files_max(descriptors: Option<u64>) -> usize {
    let descriptors = descriptors.unwrap_or(u64::MAX);
    let most = descriptors - DESCRIPTORS_KEPT.min(descriptors / 2);
    usize::try_from(most).map_or(FILES_MAX, |most| most.min(FILES_MAX))
}

const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

fn wrong(name: impl Into<String>, problem: impl Into<String>) -> EngineError {
    EngineError::Output {
        name: name.into(),
        problem: problem.into(),
    }
}

/// The set of declared outputs. `*` stays within a directory, `**` does not.
pub(crate) fn globs(outputs: &[String]) -> Result<GlobSet, EngineError> {
    let mut set = GlobSetBuilder::new();
    for output in outputs {
        let path = output.strip_prefix("./").unwrap_or(output);
        if Path::new(path).is_absolute() || Path::new(path).components().any(is_up) {
            return Err(wrong(
                output,
                "leaves the scratch directory; name files within it",
            ));
        }
        let glob = GlobBuilder::new(path).literal_separator(true).build();
        set.add(glob.map_err(|error| wrong(output, format!("is not a pattern: {error}")))?);
    }
    set.build()
        .map_err(|error| wrong("*", format!("is not a pattern: {error}")))
}

fn is_up(part: std::path::Component<'_>) -> bool {
    matches!(part, std::path::Component::ParentDir)
}

/// Where outputs lie.
#[derive(Debug)]
pub(crate) struct Top<'a> {
    /// The scratch directory, whose name is ours.
    pub(crate) scratch: &'a Path,
    /// A directory in it, whose name the attempt may have made; `.` for scratch itself.
    pub(crate) directory: &'a str,
}

impl<'a> Top<'a> {
    /// All of scratch.
    pub(crate) const fn whole(scratch: &'a Path) -> Self {
        let directory = ".";
        Self { scratch, directory }
    }

    fn open(&self) -> Result<OwnedFd, EngineError> {
        let doing = |error| EngineError::io("open the scratch directory", error);
        let scratch: OwnedFd = File::open(self.scratch).map_err(doing)?.into();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&scratch, self.directory, flags, Mode::empty(), WITHIN)
            .map_err(|error| doing(error.into()))
    }
}

/// One plain file below `scratch`.
pub(crate) fn open_one(scratch: &Path, name: &str) -> Result<File, EngineError> {
    let top = Top::whole(scratch).open()?;
    open_output(top.as_fd(), Path::new(name)).map(|(_, file)| file)
}

/// The attempt's streams, which come home whether they are asked for or not.
const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// Whether an output is a stream by its name. Patterns are for what the program writes.
fn is_stream(output: &str) -> bool {
    STREAMS.contains(&output.strip_prefix("./").unwrap_or(output))
}

/// Every output below `top`, and the streams; together at most `max_bytes`.
///
/// An output with the name of a stream is that stream. A file with such a name is refused: which of
/// the two was meant cannot be known.
pub(crate) fn collect(
    top: &Top<'_>,
    run: &Path,
    outputs: &[String],
    max_bytes: u64,
) -> Result<Vec<CollectedFile>, EngineError> {
    let mut files = Vec::new();
    let mut left = max_bytes;
    for name in STREAMS {
        let doing = format!("open {name}");
        let open = File::open(run.join(name)).map_err(|error| EngineError::io(&doing, error))?;
        files.push(charge(name.to_owned(), open, &mut left)?);
    }
    files.extend(matched(top, outputs, &mut left, is_stream)?);
    Ok(files)
}

/// Every file below `top` that a pattern matches, and at least one for each pattern; takes their
/// sizes off `left`.
pub(crate) fn below(
    top: &Top<'_>,
    outputs: &[String],
    left: &mut u64,
) -> Result<Vec<CollectedFile>, EngineError> {
    matched(top, outputs, left, |_| false)
}

/// As [`below`], but nothing has to match an output that `is_there` already.
fn matched(
    top: &Top<'_>,
    outputs: &[String],
    left: &mut u64,
    is_there: impl Fn(&str) -> bool,
) -> Result<Vec<CollectedFile>, EngineError> {
    let mut files = Vec::new();
    if outputs.is_empty() {
        return Ok(files);
    }
    let set = globs(outputs)?;
    let top = top.open()?;
    let mut seen: Vec<bool> = outputs.iter().map(|output| is_there(output)).collect();
    let max = files_max(getrlimit(Resource::Nofile).current);
    for path in matches(&top, &set)? {
        for at in set.matches(&path) {
            if let Some(seen) = seen.get_mut(at) {
                *seen = true;
            }
        }
        let (name, file) = open_output(top.as_fd(), &path)?;
        if STREAMS.contains(&name.as_str()) {
            return Err(wrong(
                name,
                "has the name of a stream; give the file another one",
            ));
        }
        if files.len() >= max {
            return Err(wrong(
                name,
                format!("is one of over {max}; pack them into one"),
            ));
        }
        files.push(charge(name, file, left)?);
    }
    match seen
        .iter()
        .position(|seen| !seen)
        .and_then(|at| outputs.get(at))
    {
        Some(missing) => Err(wrong(missing, "is missing: the program did not write it")),
        None => Ok(files),
    }
}

/// Takes the file's size off what may come home.
fn charge(name: String, file: File, left: &mut u64) -> Result<CollectedFile, EngineError> {
    let stat = fstat(&file).map_err(|error| EngineError::io("look at an output", error))?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    *left = left.checked_sub(size).ok_or_else(|| {
        let problem = "makes the outputs larger than limits.output; raise it or write less";
        wrong(name.as_str(), problem)
    })?;
    Ok(CollectedFile {
        name,
        file,
        size,
        mode: stat.st_mode & 0o777,
    })
}

/// Paths of all files that the set matches, in order; pipes and sockets are none.
fn matches(top: &OwnedFd, set: &GlobSet) -> Result<Vec<PathBuf>, EngineError> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(dir) = left.pop() {
        let at = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &dir
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(open) = openat2(top, at, flags, Mode::empty(), WITHIN) else {
            // Closed by the task, or too deep to name: nothing in it can be asked for.
            continue;
        };
        let entries =
            Dir::read_from(&open).map_err(|error| EngineError::io("read scratch", error))?;
        for entry in entries {
            let entry = entry.map_err(|error| EngineError::io("read scratch", error))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || dir.as_os_str().is_empty() && name == b".tmp" {
                continue;
            }
            let path = dir.join(std::ffi::OsStr::from_bytes(name));
            if set.is_match(&path) {
                found.push((path.clone(), no_file(entry.file_type())));
            }
            if entry.file_type() == FileType::Directory {
                left.push(path);
            }
        }
    }
    found.sort();
    // What a wide pattern matches beside files is no output; where it is all there is, it was
    // meant, and that is a mistake.
    let files = found.iter().filter(|(_, mistake)| mistake.is_none());
    let files: Vec<PathBuf> = files.map(|(path, _)| path.clone()).collect();
    match found.first() {
        Some((path, Some(mistake))) if files.is_empty() => {
            let path = path.to_string_lossy();
            Err(wrong(path.clone(), mistake.replace("{}", &path)))
        }
        _ => Ok(files),
    }
}

/// What is wrong with asking for something that holds no content of its own; none for the rest,
/// which may turn out to be no regular file when it is opened.
fn no_file(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::Directory => Some("is a directory; ask for {}/**"),
        FileType::Fifo | FileType::Socket => Some("is not a regular file"),
        FileType::RegularFile
        | FileType::Symlink
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => None,
    }
}

fn open_output(top: BorrowedFd<'_>, path: &Path) -> Result<(String, File), EngineError> {
    let shown = || path.to_string_lossy().into_owned();
    let name = path
        .to_str()
        .filter(|name| !name.chars().any(char::is_control));
    let name = name.ok_or_else(|| {
        wrong(
            shown(),
            "has a name with bytes that are not plain UTF-8 text; rename it",
        )
    })?;
    // A pipe must not make us wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = openat2(top, path, flags, Mode::empty(), WITHIN);
    let file = file.map_err(|error| match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::XDEV => {
            wrong(name, "is a symbolic link; write a file instead")
        }
        rustix::io::Errno::NXIO => wrong(name, "is not a regular file"),
        other => wrong(name, format!("cannot be read: {}", io::Error::from(other))),
    })?;
    let stat = fstat(&file).map_err(|error| EngineError::io("look at an output", error))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(wrong(name, "is not a regular file"));
    }
    if stat.st_nlink != 1 {
        return Err(wrong(name, "has more than one hard link; copy it instead"));
    }
    Ok((name.to_owned(), File::from(file)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn try_collect(
        outputs: &[&str],
        max: u64,
        fill: impl FnOnce(&Path),
    ) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let (scratch, run) = (dir.path().join("scratch"), dir.path().join("run"));
        for dir in [&scratch, &run] {
            fs::create_dir(dir).unwrap();
        }
        for name in ["stdout", "stderr"] {
            fs::write(run.join(name), "").unwrap();
        }
        fill(&scratch);
        let outputs: Vec<String> = outputs.iter().map(|&text| text.to_owned()).collect();
        let files = collect(&Top::whole(&scratch), &run, &outputs, max)
            .map_err(|error| error.to_string())?;
        Ok(files.into_iter().map(|file| file.name).collect())
    }

    #[test]
    fn files_come_by_name_and_by_pattern_with_the_streams() {
        let names = try_collect(&["a.txt", "out/*.png", "deep/**"], 100, |dir| {
            fs::write(dir.join("a.txt"), "a").unwrap();
            fs::write(dir.join("b.txt"), "b").unwrap();
            fs::create_dir_all(dir.join("out/sub")).unwrap();
            fs::create_dir_all(dir.join("deep/er")).unwrap();
            fs::write(dir.join("out/1.png"), "1").unwrap();
            fs::write(dir.join("out/sub/2.png"), "2").unwrap();
            let pipe = dir.join("out/pipe.png");
            rustix::fs::mkfifoat(rustix::fs::CWD, pipe, Mode::RUSR).unwrap();
            fs::write(dir.join("deep/er/x"), "x").unwrap();
        });
        assert_eq!(
            names.unwrap(),
            ["stdout", "stderr", "a.txt", "deep/er/x", "out/1.png"]
        );
    }

    #[test]
    fn an_output_with_the_name_of_a_stream_is_the_stream() {
        for outputs in [
            &["stdout"][..],
            &["stderr"],
            &["./stdout", "stderr", "stdout"],
        ] {
            let names = try_collect(outputs, 100, |_| {});
            assert_eq!(names.unwrap(), STREAMS, "{outputs:?}");
        }
        let names = try_collect(&["stdout", "a"], 100, |dir| {
            fs::write(dir.join("a"), "a").unwrap();
        });
        assert_eq!(names.unwrap(), ["stdout", "stderr", "a"]);
        // What is written decides whether a pattern, or another directory's file, is missing.
        for output in ["std*", "deep/stdout", "stdout/x"] {
            let refused = try_collect(&[output], 100, |_| {}).unwrap_err();
            assert!(refused.contains("is missing"), "{output}: {refused}");
        }
        let refused = try_collect(&["stdout"], 100, |dir| {
            fs::write(dir.join("stdout"), "not the stream").unwrap();
        });
        let refused = refused.unwrap_err();
        assert!(refused.contains("name of a stream"), "{refused}");
    }

    #[test]
    fn a_literal_glob_matches_its_name_and_no_other() {
        let odd = [
            "a[1].txt",
            "a*b",
            "what?",
            "{x,y}",
            "back\\slash",
            "]",
            "[!a]",
            "a-b",
            "plain",
        ];
        for name in odd {
            let set = globs(&[gleaner_engine::literal(name)]).unwrap();
            assert!(set.is_match(name), "{name}");
            let others = odd
                .into_iter()
                .chain(["a1.txt", "aXb", "whatX", "x", "y", "b"]);
            for other in others.filter(|other| *other != name) {
                assert!(!set.is_match(other), "{name} matches {other}");
            }
        }
    }

    #[test]
    fn a_saved_file_is_no_stream() {
        let dir = tempfile::tempdir().unwrap();
        let files = below(&Top::whole(dir.path()), &["stdout".to_owned()], &mut 9);
        assert!(files.unwrap_err().to_string().contains("is missing"));
    }

    #[test]
    fn what_leaves_scratch_is_refused_with_a_sentence() {
        type Fill = fn(&Path);
        let cases: [(&str, Fill, &str); 9] = [
            ("../x", |_| {}, "leaves the scratch directory"),
            ("/etc/passwd", |_| {}, "leaves the scratch directory"),
            ("missing", |_| {}, "is missing"),
            (
                "link",
                |dir| symlink("/etc/passwd", dir.join("link")).unwrap(),
                "symbolic link",
            ),
            (
                "dir/passwd",
                |dir| symlink("/etc", dir.join("dir")).unwrap(),
                "is missing",
            ),
            (
                "hard",
                |dir| {
                    fs::write(dir.join("one"), "x").unwrap();
                    fs::hard_link(dir.join("one"), dir.join("hard")).unwrap();
                },
                "hard link",
            ),
            (
                "pipe",
                |dir| {
                    rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("pipe"), Mode::RUSR).unwrap();
                },
                "not a regular file",
            ),
            (
                "sub",
                |dir| fs::create_dir(dir.join("sub")).unwrap(),
                "is a directory",
            ),
            (
                "*",
                |dir| fs::write(dir.join("new\nline"), "").unwrap(),
                "rename it",
            ),
        ];
        for (output, fill, says) in cases {
            let error = try_collect(&[output], 100, fill).unwrap_err();
            assert!(error.contains(says), "{output}: {error}");
        }
        let latin = |dir: &Path| {
            let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
            fs::write(dir.join(name), "").unwrap();
        };
        assert!(
            try_collect(&["*"], 100, latin)
                .unwrap_err()
                .contains("rename it")
        );
    }

    #[test]
    fn outputs_leave_descriptors_to_the_agent() {
        for (descriptors, most) in [
            (Some(1024), 512),
            (Some(20_000), 15_904),
            (Some(1 << 20), FILES_MAX),
            (None, FILES_MAX),
        ] {
            assert_eq!(files_max(descriptors), most);
        }
    }

    #[test]
    fn outputs_are_bounded_together() {
        let fill = |dir: &Path| {
            fs::write(dir.join("a"), [0; 60]).unwrap();
            fs::write(dir.join("b"), [0; 60]).unwrap();
        };
        assert_eq!(try_collect(&["a"], 100, fill).unwrap().len(), 3);
        let error = try_collect(&["a", "b"], 100, fill).unwrap_err();
        assert!(error.contains("limits.output"), "{error}");
    }
}
