//! The matrix product of the BLAS that numpy uses on this PC: its script, and what a guest needs of
//! the PC to run the same. A guest sees nothing of the PC, so it gets an image of the files that
//! `python3` and numpy load here, and both sides run the same BLAS.

use crate::{BenchError, Doing as _};
use gleaner_engine::ImageFile;
use gleaner_model::Digest;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

/// Rows of the matrices that are multiplied, products a slice, and slices.
const WORK: [u32; 3] = [1000, 1, 5];
/// Most bytes of an image: numpy and its BLAS are some 60 MiB.
const IMAGE_MAX_BYTES: u64 = 2 << 30;
/// The interpreter on the PC, and in a sandbox that shows the PC's programs.
pub(crate) const PYTHON: &str = "python3";

/// Prints a reading as [`crate::burn`] does. Words behind the numbers are where modules lie.
const SCRIPT: &str = "
import os, sys, time
sys.path.extend(sys.argv[4:])
import numpy
clock = time.perf_counter if 'GLEANER_BURN_BY_WALL' in os.environ else time.process_time
n, products, slices = map(int, sys.argv[1:4])
a = numpy.full((n, n), 0.5) + numpy.eye(n)
b = numpy.full((n, n), 0.25)
# New memory for each product would be measured with it, as dgemm of a BLAS gets none.
c = numpy.empty((n, n))
numpy.matmul(a, b, out=c)
times = []
for _ in range(slices):
    before = clock()
    for _ in range(products):
        numpy.matmul(a, b, out=c)
    times.append(clock() - before)
print('blas', sum(times), min(times), slices, 2 * n ** 3 * products, 0)
";

/// Copies what the interpreter has loaded with a module to below a directory, with the libraries
/// that the loader finds for it, each to where it was found. Prints the interpreter and where modules lie.
const COLLECT: &str = r"
import importlib, os, re, shutil, subprocess, sys, sysconfig
importlib.import_module(sys.argv[1])
root = sys.argv[2]
program = os.path.realpath(sys.executable)
files = {program}
for module in list(sys.modules.values()):
    files |= {getattr(module, '__file__', None), getattr(module, '__cached__', None)}
files = {os.path.abspath(path) for path in files if path and os.path.isfile(path)}
code = [path for path in files if path == program or '.so' in os.path.basename(path)]
for path in code:
    found = subprocess.run(['ldd', path], capture_output=True, text=True, check=True).stdout
    files |= {os.path.abspath(path) for path in re.findall(r'(/\S+) \(0x', found)}
for path in files:
    os.makedirs(os.path.dirname(root + path), exist_ok=True)
    shutil.copy2(path, root + path)
# Where an interpreter does not find this directory, it complains.
os.makedirs(root + sysconfig.get_path('platstdlib') + '/lib-dynload', exist_ok=True)
print(program)
for path in sys.path:
    if path:
        print(os.path.abspath(path))
";

/// What a guest runs the script with.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    /// Everything that the interpreter loads, as an image.
    pub(crate) image: ImageFile,
    /// The interpreter's path in the image.
    python: String,
    /// Where modules lie.
    modules: Vec<String>,
}

impl Root {
    /// Of this PC's interpreter and a module, in `dir`.
    ///
    /// # Errors
    /// Where the interpreter does not load the module, or the disk has no room.
    pub(crate) fn new(module: &str, dir: &Path) -> Result<Self, BenchError> {
        let files = tempfile::tempdir_in(dir).doing("make a directory")?;
        let output = Command::new(PYTHON)
            .args(["-c", COLLECT, module])
            .arg(files.path())
            .stdin(Stdio::null())
            .output()
            .doing("run python3")?;
        let broken = |why: &str| {
            let why = why.lines().last().unwrap_or_default();
            BenchError::Broken(format!("no image with {module} for guests: {why}"))
        };
        if !output.status.success() {
            return Err(broken(&String::from_utf8_lossy(&output.stderr)));
        }
        let printed = String::from_utf8_lossy(&output.stdout);
        let mut lines = printed.lines().map(str::to_owned);
        let python = lines.next().ok_or_else(|| broken("it told no paths"))?;
        let source = dir.join(format!("{module}.image"));
        let mut file = File::create(&source).doing("make an image")?;
        let imported = gleaner_image::import(files.path(), IMAGE_MAX_BYTES)
            .map_err(|problem| broken(&problem.to_string()))?;
        let written = imported.tree.write(&mut file);
        let (_, digest) = written.map_err(|problem| broken(&problem.to_string()))?;
        Ok(Self {
            image: ImageFile {
                source: fs::canonicalize(source).doing("find the image")?,
                digest: Digest(digest),
            },
            python,
            modules: lines.collect(),
        })
    }

    /// The script's command in the image.
    pub(crate) fn command(&self) -> Vec<String> {
        let words = [self.python.clone()].into_iter().chain(arguments());
        words.chain(self.modules.iter().cloned()).collect()
    }
}

/// The script's arguments.
pub(crate) fn arguments() -> impl Iterator<Item = String> {
    let script = ["-c", SCRIPT].into_iter().map(str::to_owned);
    script.chain(WORK.iter().map(u32::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overhead::sides::readings;

    #[test]
    fn its_line_is_a_reading() {
        // As Python prints floats and integers.
        let run = readings("blas 0.3451 0.0650000001 5 2000000000 0").unwrap();
        assert_eq!(run[0].item, "blas");
        assert_eq!(run[0].slices, WORK[2]);
    }

    #[test]
    fn an_image_holds_the_interpreter_the_module_and_their_libraries() {
        let dir = tempfile::tempdir().unwrap();
        // A module with a library of its own, which every Python has.
        let root = Root::new("ctypes", dir.path()).unwrap();
        let tree = gleaner_image::open(File::open(&root.image.source).unwrap()).unwrap();
        assert!(tree.find(&root.python).is_some(), "{}", root.python);
        let names = tree.walk().into_iter().map(|(name, _)| name);
        let names: Vec<String> = names.map(|name| String::from_utf8(name).unwrap()).collect();
        for part in ["ctypes/__init__.py", "/os.py", "/libc.so.6", "/libffi.so"] {
            assert!(names.iter().any(|name| name.contains(part)), "{part}");
        }
        assert_eq!(root.command()[1], "-c");
        assert!(root.command().len() > 6, "where modules lie is told");
    }

    #[test]
    fn a_module_that_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let problem = Root::new("no_such_module", dir.path()).unwrap_err();
        assert!(problem.to_string().contains("No module"), "{problem}");
    }
}
