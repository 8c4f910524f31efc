//! Terminals: when somebody last typed in one, by the access time of its device.
//!
//! That covers consoles, terminal windows and logins over a network. The kernel moves a terminal's
//! access time when its program reads, in steps of eight seconds; output does not move it.
//!
//! Where the daemon `idle_detect` runs (the one that BOINC recommends on Linux), its word is taken
//! as if it were one more terminal: two numbers in shared memory, when it last looked and when it
//! last saw activity. Whoever forges them makes the PC look used, which every user can.

use crate::board::Board;
use crate::moment::Moment;
use crate::thread::Stop;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How often terminals are looked at; the kernel's own steps are longer.
const EVERY: Duration = Duration::from_secs(2);

/// Most terminals that are looked at.
const TERMINALS_MAX: usize = 1024;

/// Where `idle_detect` tells, below the device nodes.
const OTHER_DETECTOR: &str = "shm/idle_detect_shmem";

/// What it tells: two 64-bit numbers of seconds since 1970.
const OTHER_BYTES: usize = 16;

/// Looks until the stop.
pub(crate) fn run(stop: &Stop, board: &Board, dev: &Path) {
    let mut last: Option<(SystemTime, Moment)> = None;
    loop {
        let now = Moment::now();
        match look(dev) {
            Ok(Some((count, wall))) => {
                let at = moment(last, wall, now);
                last = Some((wall, at));
                board.terminal.seen(at, now);
                board.terminal.describe(&format!("{count} terminals"));
            }
            Ok(None) => {
                board.terminal.absent("no terminals");
            }
            Err(error) => {
                board
                    .terminal
                    .failed(&format!("{}: {error}", dev.display()), None);
            }
        }
        if !stop.wait(EVERY) {
            return;
        }
    }
}

/// The moment of a time. The same time as before is the same moment, even if somebody set the
/// clock meanwhile: else a clock set forward would make an owner who is there look long gone.
fn moment(last: Option<(SystemTime, Moment)>, wall: SystemTime, now: Moment) -> Moment {
    match last {
        Some((old, at)) if old == wall => at,
        _ => now.of_wall(wall),
    }
}

/// How many terminals there are, and when one was last read from.
fn look(dev: &Path) -> io::Result<Option<(usize, SystemTime)>> {
    let consoles = numbered(dev, "tty")?;
    let windows = match numbered(&dev.join("pts"), "") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let count = consoles.len() + windows.len();
    let other = other_detector(&dev.join(OTHER_DETECTOR));
    let last = consoles.into_iter().chain(windows).chain(other).max();
    Ok(last.map(|last| (count, last)))
}

/// When `idle_detect` last saw activity. Anybody may put anything in that place, so only a plain
/// file is read, and a word that is not kept up is taken for what it says: some time ago.
fn other_detector(path: &Path) -> Option<SystemTime> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    // A pipe in its place must not hold us up.
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let mut file = options.open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = [0_u8; OTHER_BYTES];
    file.read_exact(&mut bytes).ok()?;
    let seconds = i64::from_ne_bytes(bytes[8..].try_into().ok()?);
    let since = Duration::from_secs(u64::try_from(seconds).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// Access times of the entries called `prefix` and a number. `tty` alone is every process's own
/// terminal, which any program touches, and tty0 is whichever is in front.
fn numbered(directory: &Path, prefix: &str) -> io::Result<Vec<SystemTime>> {
    let mut times = Vec::new();
    for entry in fs::read_dir(directory)?.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let ours = number.is_some_and(|n| {
            !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && !(prefix == "tty" && n == "0")
        });
        if !ours || times.len() >= TERMINALS_MAX {
            continue;
        }
        // One that was closed meanwhile is no news.
        if let Ok(accessed) = entry.metadata().and_then(|meta| meta.accessed()) {
            times.push(accessed);
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path, ago: u64) -> SystemTime {
        let file = fs::File::create(path).unwrap();
        let at = SystemTime::now() - Duration::from_secs(ago);
        let times = fs::FileTimes::new()
            .set_accessed(at)
            .set_modified(SystemTime::now());
        file.set_times(times).unwrap();
        fs::metadata(path).unwrap().accessed().unwrap()
    }

    #[test]
    fn the_terminal_last_typed_in_counts() {
        let dev = tempfile::tempdir().unwrap();
        fs::create_dir(dev.path().join("pts")).unwrap();
        assert_eq!(look(dev.path()).unwrap(), None);
        touch(&dev.path().join("tty"), 0);
        touch(&dev.path().join("tty0"), 0);
        touch(&dev.path().join("ttyS0"), 0);
        touch(&dev.path().join("pts/ptmx"), 0);
        assert_eq!(
            look(dev.path()).unwrap(),
            None,
            "none of these is a terminal"
        );
        touch(&dev.path().join("tty1"), 900);
        let last = touch(&dev.path().join("pts/4"), 60);
        touch(&dev.path().join("pts/11"), 300);
        assert_eq!(look(dev.path()).unwrap(), Some((3, last)));
    }

    #[test]
    fn another_detector_is_believed_when_it_saw_somebody() {
        let dev = tempfile::tempdir().unwrap();
        let path = dev.path().join(OTHER_DETECTOR);
        fs::create_dir(path.parent().unwrap()).unwrap();
        let long_ago = touch(&dev.path().join("tty1"), 900);
        assert_eq!(look(dev.path()).unwrap(), Some((1, long_ago)));
        let now = SystemTime::now();
        let seconds = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let write = |active: i64| {
            let words = [i64::try_from(seconds).unwrap(), active];
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            fs::write(&path, bytes).unwrap();
        };
        write(i64::try_from(seconds).unwrap() - 60);
        let (_, last) = look(dev.path()).unwrap().unwrap();
        let ago = now.duration_since(last).unwrap();
        assert!(ago >= Duration::from_secs(60) && ago < Duration::from_secs(62));
        // It cannot make anybody else's activity disappear.
        for nonsense in [0, -1, i64::MIN] {
            write(nonsense);
            assert_eq!(look(dev.path()).unwrap(), Some((1, long_ago)));
        }
        fs::write(&path, "short").unwrap();
        assert_eq!(look(dev.path()).unwrap(), Some((1, long_ago)));
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert_eq!(look(dev.path()).unwrap(), Some((1, long_ago)));
    }

    #[test]
    fn a_clock_that_is_set_moves_nothing() {
        let now = Moment::now();
        // By a clock that was since set forward by a day.
        let wall = SystemTime::now() - Duration::from_secs(86_400);
        assert_eq!(moment(Some((wall, now)), wall, now), now);
        let typed = SystemTime::now() + Duration::from_secs(60);
        assert_eq!(moment(Some((wall, now)), typed, now), now);
    }

    #[test]
    fn a_missing_tree_is_a_failure() {
        look(Path::new("/nowhere/at/all")).unwrap_err();
    }

    /// A terminal of the kernel's own: typing moves its time, output does not.
    #[test]
    fn a_real_terminal_is_seen() {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let Ok(master) = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY) else {
            return; // No terminals can be had in this sandbox.
        };
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&name)
            .unwrap();
        if !Path::new(&name).starts_with("/dev/pts") {
            return;
        }
        // The kernel moves the time in steps only, so it is put back first.
        let old = SystemTime::now() - Duration::from_secs(3600);
        slave
            .set_times(fs::FileTimes::new().set_accessed(old))
            .unwrap();
        rustix::io::write(&master, b"x\n").unwrap();
        let mut byte = [0_u8; 2];
        rustix::io::read(&slave, &mut byte).unwrap();
        let (count, last) = look(Path::new("/dev")).unwrap().unwrap();
        assert!(count >= 1);
        let ago = SystemTime::now().duration_since(last).unwrap_or_default();
        assert!(ago < Duration::from_secs(1800), "{ago:?}");
    }
}
