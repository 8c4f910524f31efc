//! Shims of this pool that are still there when their agents are gone: waited for, then killed.
//! Killing a shim kills its sandbox.

use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// A shim notices that its agent is gone and ends; it may take a moment to remove scratch.
const END_WITHIN: Duration = Duration::from_secs(4);
/// How often to look.
const POLL: Duration = Duration::from_millis(50);

/// Returns when no shim works in `data` any more.
pub(super) async fn end_shims(data: &Path) {
    let started = Instant::now();
    loop {
        let shims = shims(data);
        if shims.is_empty() {
            return;
        }
        if started.elapsed() > END_WITHIN {
            for shim in shims {
                // It may have ended in between.
                let _gone = kill_process(shim, Signal::KILL);
            }
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Processes whose command line is that of a shim in `data`.
fn shims(data: &Path) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.flatten().filter_map(|entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        is_shim(&line, data).then_some(pid)
    });
    pids.collect()
}

fn is_shim(line: &[u8], data: &Path) -> bool {
    let words: Vec<std::ffi::OsString> = line
        .split(|byte| *byte == 0)
        .map(|word| std::ffi::OsStr::from_bytes(word).to_owned())
        .collect();
    let below = words
        .get(2)
        .is_some_and(|dir| Path::new(dir).starts_with(data));
    below && gleaner_engine_process::is_shim_call(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shims_of_the_folder_are_ours() {
        for (line, ours) in [
            (
                &b"gleaner\0__shim\0/pool/node-1/process/bundles/1\0"[..],
                true,
            ),
            (b"gleaner\0__shim\0/pool2/node-1/process/bundles/1\0", false),
            (b"gleaner\0agent\0/pool/node-1\0", false),
            (b"gleaner\0", false),
            (b"", false),
        ] {
            assert_eq!(is_shim(line, Path::new("/pool")), ours, "{line:?}");
        }
    }
}
