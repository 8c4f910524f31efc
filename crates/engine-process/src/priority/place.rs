//! Where processes stand that play a part in a measurement: the owner's programs, or somebody
//! else's daemon. Never a neighbour of our tasks inside our parent group: an idle group loses only
//! against its own neighbours, so there everything would look harmless.

use crate::cgroup::Backend;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a process stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// A program of the owner's session.
    Owner,
    /// A service that the system started.
    Daemon,
}

impl Stand {
    /// The group that systemd keeps for such processes.
    const fn slice(self) -> &'static str {
        match self {
            Self::Owner => "user.slice",
            Self::Daemon => "system.slice",
        }
    }
}

/// The place of some processes; what was made for it is removed with the value, so it must
/// outlive them.
#[derive(Debug)]
pub struct Place {
    stand: Stand,
    made: Option<PathBuf>,
}

impl Place {
    /// Nowhere yet.
    #[must_use]
    pub const fn new(stand: Stand) -> Self {
        Self { stand, made: None }
    }

    /// Puts processes where such programs run: a child of the right slice, else the top group.
    /// Without the right to do so they stay where they were started from. Says whether they
    /// were moved.
    pub fn put(&mut self, backend: &Backend, pids: &[i32]) -> bool {
        let add = |dir: &Path| {
            let mut pids = pids.iter();
            pids.all(|pid| fs::write(dir.join("cgroup.procs"), pid.to_string()).is_ok())
        };
        let Some(top) = backend.cpu_top() else {
            return false;
        };
        let word = match self.stand {
            Stand::Owner => "try",
            Stand::Daemon => "try-daemon",
        };
        let dir = top
            .join(self.stand.slice())
            .join(format!("gleaner-{word}-{}", std::process::id()));
        if dir.is_dir() || fs::create_dir(&dir).is_ok() {
            let placed = add(&dir);
            self.made = Some(dir);
            if placed {
                return true;
            }
        }
        add(&top)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A dead process leaves its group a moment after it was reaped.
        for _ in 0..50 {
            match &self.made {
                Some(dir) if fs::remove_dir(dir).is_err() => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::DetectOptions;

    #[test]
    fn without_groups_processes_stay_where_they_are() {
        let root = tempfile::tempdir().unwrap();
        let backend = Backend::detect(&DetectOptions {
            root: root.path().to_path_buf(),
            ask_systemd: false,
            ..DetectOptions::default()
        });
        for stand in [Stand::Owner, Stand::Daemon] {
            assert!(!Place::new(stand).put(&backend, &[1]), "{}", stand.slice());
        }
    }
}
