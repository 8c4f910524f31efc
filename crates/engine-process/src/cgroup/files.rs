//! Control files of a cgroup: one-line reads and writes, and the two formats they come in.
//!
//! It knows paths and texts, no controller. Files are opened without being created, so that a
//! missing one is an error and never an ordinary file left in somebody's directory.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// No control file that is read here is longer; `io.stat` of a PC with 100 disks is 10 KiB.
const FILE_MAX_BYTES: usize = 256 << 10;

/// `memory.stat`, the longest that is read for each task, has 1.5 KiB.
const FILE_USUAL_BYTES: usize = 4 << 10;

/// No line of a control file is longer, in bytes.
const LINE_MAX_BYTES: usize = 1 << 10;

/// Reads a control file.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    read_open(&File::open(path)?)
}

/// Reads a control file that is open already, as it stands now; with few system calls, since
/// nearly all are short.
pub(crate) fn read_open(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; FILE_USUAL_BYTES];
    let mut length = 0;
    while length < FILE_MAX_BYTES {
        if length == bytes.len() {
            bytes.resize(length * 2, 0);
        }
        let room = bytes.get_mut(length..).unwrap_or_default();
        let room_bytes = room.len();
        match file.read_at(room, u64::try_from(length).unwrap_or(0)) {
            Ok(0) => break,
            Ok(count) => {
                length += count;
                // The kernel stops early only where the next line had no room.
                if count + LINE_MAX_BYTES < room_bytes {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Writes a control file in one system call, as the kernel wants it.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// A file that holds one number; `max` reads as the largest.
pub(crate) fn number(path: &Path) -> Option<u64> {
    parse_number(&read(path).ok()?)
}

/// The number in the text of such a file.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// The value of a key in a file of `key value` lines.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
}

/// Sum of `rbytes=` and of `wbytes=` over the devices of an `io.stat`.
pub(crate) fn io_stat(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        text.split_whitespace()
            .filter_map(|word| word.strip_prefix(key))
            .filter_map(|value| value.parse::<u64>().ok())
            .sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

/// Sum of the `Read` and of the `Write` lines of a version 1 `io_service_bytes` file.
pub(crate) fn io_service_bytes(text: &str) -> (u64, u64) {
    let sum = |kind: &str| {
        text.lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let (_device, found, value) = (words.next()?, words.next()?, words.next()?);
                (found == kind).then(|| value.parse::<u64>().ok())?
            })
            .sum()
    };
    (sum("Read"), sum("Write"))
}

/// The processes of a group, by pid.
pub(crate) fn processes(path: &Path) -> io::Result<Vec<i32>> {
    Ok(read(path)?
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect())
}

/// Waits until `done` accepts the text of a `cgroup.events` file, or `limit` is over.
///
/// The kernel wakes a poll for priority data at each change of such a file (Control Group v2,
/// section "[Un]populated Notification").
pub(crate) fn wait_event(
    path: &Path,
    limit: Duration,
    done: impl Fn(&str) -> bool,
) -> io::Result<bool> {
    let end = Instant::now() + limit;
    let mut file = File::open(path)?;
    loop {
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        if done(&text) {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // A cap on one wait: kernels before 5.2 never wake for `frozen`.
        let left = left.min(Duration::from_millis(20));
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Pauses between two looks at something that has no event to wait for: a twentieth of what a
/// pause of a task may take.
pub(crate) fn short_wait() {
    std::thread::sleep(Duration::from_micros(250));
}

/// Removes a group's directory once its last process is gone.
///
/// # Errors
/// Where it is still busy after all tries: the kernel lets go of a dead process a moment after
/// its parent hears of it, never seconds.
pub(crate) fn remove_dir(dir: &Path) -> io::Result<()> {
    /// With [`short_wait`] between: at least 0.4 s.
    const TRIES: u32 = 1600;
    let mut last = None;
    for _ in 0..TRIES {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = Some(error),
            Err(error) => return Err(error),
        }
        short_wait();
    }
    Err(last.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EBUSY)))
}

/// Makes a group's directory; one that is there already is fine.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Whether we may write a file or make entries in a directory.
pub(crate) fn writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

/// A group's path in one hierarchy, from the text of `/proc/PID/cgroup`: the line of a
/// version 1 controller, or the `0::` line for `""`.
pub(crate) fn own_path<'a>(own: &'a str, controller: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        let found = match controller {
            "" => number == "0" && names.is_empty(),
            controller => names.split(',').any(|name| name == controller),
        };
        found.then_some(path)
    })
}

/// The directories from a hierarchy's top down to our own group, the top first. A path that is
/// not below `top` (a container that sees only a part) gives the top alone.
pub(crate) fn way_down(top: &Path, own: &str) -> Vec<std::path::PathBuf> {
    let mut all = vec![top.to_path_buf()];
    let mut dir = top.to_path_buf();
    for part in own.split('/').filter(|part| !part.is_empty()) {
        dir.push(part);
        if !dir.is_dir() || part == ".." {
            all.truncate(1);
            break;
        }
        all.push(dir.clone());
    }
    all
}
