//! Free space of the disk that holds the agent's directory.

use crate::board::Board;
use crate::moment::Moment;
use crate::thread::Stop;
use gleaner_model::Bytes;
use std::path::Path;
use std::time::Duration;

/// How often it is asked for. It may hang for minutes where the directory lies on a server that
/// is gone, and then only this word grows old.
const EVERY: Duration = Duration::from_secs(10);

/// Asks until the stop.
pub(crate) fn run(stop: &Stop, board: &Board, path: &Path) {
    loop {
        match rustix::fs::statvfs(path) {
            Ok(disk) => {
                let free = Bytes(disk.f_bavail.saturating_mul(disk.f_frsize));
                board.disk_free.seen(free, Moment::now());
                board
                    .disk_free
                    .describe(&format!("{} MiB free", free.0 >> 20));
            }
            Err(error) => {
                let detail = format!("{}: {error}", path.display());
                board
                    .disk_free
                    .failed(&detail, Some("the agent's directory must exist"));
            }
        }
        if !stop.wait(EVERY) {
            return;
        }
    }
}
