//! Which back end works on this PC, found out by trying.

use super::options::{DetectOptions, own_groups};
use super::{Backend, Kind, none, v1, v2};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

impl Backend {
    /// Finds what is really usable: makes the parent group, puts it at idle priority, makes and
    /// removes a child. Never fails: where nothing works, groups are watched trees of processes.
    ///
    /// The parent stays when the process ends; an empty group costs nothing.
    #[must_use]
    pub fn detect(options: &DetectOptions) -> Self {
        let watch = |reason: String| {
            let proc = none::proc_root().to_path_buf();
            Self {
                inner: Kind::None(none::Watch { reason, proc }),
            }
        };
        let names = [Some(&options.parent_name), options.domain.as_ref()];
        for name in names.into_iter().flatten() {
            if let Err(error) = super::check_name(name) {
                return watch(error.to_string());
            }
        }
        let root = &options.root;
        let found = if root.join("cgroup.controllers").exists() {
            detect_v2(options).map(Kind::V2)
        } else {
            v1::Tree::detect(options).map(Kind::V1)
        };
        match found {
            Ok(inner) => Self { inner },
            Err(reason) => watch(reason),
        }
    }
}

fn detect_v2(options: &DetectOptions) -> Result<v2::Tree, String> {
    let first = v2::Tree::detect(options, &options.own);
    let Err(reason) = first else {
        return first;
    };
    if !options.ask_systemd || rustix::process::geteuid().is_root() {
        return Err(reason);
    }
    // A session started outside the user's systemd (a console or ssh login) may not write any
    // group, but that systemd may be asked to take this process in.
    move_to_user_scope().map_err(|error| format!("{reason}; {error}"))?;
    v2::Tree::detect(options, &own_groups())
}

/// How long the user's systemd may take to answer and to move us.
const SYSTEMD_WAIT: Duration = Duration::from_secs(3);

/// Asks the user's systemd for a delegated transient scope around this process.
///
/// `busctl` is run rather than a D-Bus library linked: it is there wherever that systemd is.
/// Source of the call: `org.freedesktop.systemd1`, StartTransientUnit.
fn move_to_user_scope() -> Result<(), String> {
    let pid = std::process::id().to_string();
    let unit = format!("gleaner-{pid}.scope");
    let before = own_groups();
    let call = [
        "--user",
        "--expect-reply=yes",
        "--timeout=3",
        "call",
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
        "StartTransientUnit",
        "ssa(sv)a(sa(sv))",
        &unit,
        "fail",
        "3",
        "PIDs",
        "au",
        "1",
        &pid,
        "Delegate",
        "b",
        "true",
        "Description",
        "s",
        "gleaner",
        "0",
    ];
    let mut child = Command::new("busctl")
        .args(call)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("busctl could not be started: {error}"))?;
    let end = Instant::now() + SYSTEMD_WAIT;
    loop {
        let ended = child.try_wait().ok().flatten();
        if ended.is_some_and(|status| !status.success()) {
            return Err("the user's systemd gave no scope".to_owned());
        }
        // The reply names a job; we are moved when it is done.
        if ended.is_some() && own_groups() != before {
            return Ok(());
        }
        if Instant::now() >= end {
            let _gone = child.kill();
            let _reaped = child.wait();
            return Err("the user's systemd did not answer in time".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// CPUs that can be used on this PC; they hardly ever change, so they are counted once.
pub(crate) fn online_cpus() -> u64 {
    static COUNT: OnceLock<u64> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let text = fs::read_to_string(Path::new("/sys/devices/system/cpu/online"));
        text.ok()
            .and_then(|text| count_list(text.trim()))
            .or_else(|| {
                let count = std::thread::available_parallelism().ok()?.get();
                u64::try_from(count).ok()
            })
            .unwrap_or(1)
            .max(1)
    })
}

/// How many numbers a kernel list like `0-3,8` holds.
fn count_list(text: &str) -> Option<u64> {
    text.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
            last.checked_sub(first).map(|span| span + 1)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::count_list;

    #[test]
    fn kernel_lists_are_counted() {
        for (text, count) in [
            ("0", Some(1)),
            ("0-1", Some(2)),
            ("0-3,8,10-11", Some(7)),
            ("", None),
            ("3-1", None),
        ] {
            assert_eq!(count_list(text), count, "{text}");
        }
    }
}
