//! What the owner said, kept on disk so that it survives agent and PC: the pause and the
//! owner's settings. Files are replaced as a whole and synced before their name changes.

use gleaner_harvest::{OwnerSettings, OwnerWish};
use gleaner_model::Time;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The owner's pause: absent where the owner lets it work.
const WISH_FILE: &str = "owner-pause.json";

/// The owner's settings; a person may edit it while the agent is stopped.
const SETTINGS_FILE: &str = "owner.json";

/// The files, in the agent's directory.
#[derive(Debug, Clone)]
pub(crate) struct Keep {
    dir: PathBuf,
}

impl Keep {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// The owner's pause, if it lasts beyond `now`. One that cannot be read counts as a pause
    /// without an end: the owner said something, and nothing is lost by asking again.
    pub(crate) fn wish(&self, now: Time) -> Option<OwnerWish> {
        let endless = OwnerWish::Pause { until: None };
        match self.read(WISH_FILE) {
            Ok(None | Some(OwnerWish::Resume)) => None,
            Ok(Some(OwnerWish::Pause { until: Some(until) })) if until <= now => None,
            Ok(pause) => pause,
            Err(error) => {
                tracing::error!(
                    target: "gleaner::watch", %error,
                    "the owner's pause cannot be read; paused until `gleaner owner resume`"
                );
                Some(endless)
            }
        }
    }

    /// Makes a wish durable. Blocks for the disk.
    pub(crate) fn keep_wish(&self, wish: OwnerWish) -> io::Result<()> {
        match wish {
            OwnerWish::Pause { .. } => self.write(WISH_FILE, &wish),
            OwnerWish::Resume => match fs::remove_file(self.dir.join(WISH_FILE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => self.sync(),
            },
        }
    }

    /// The owner's settings. Those that cannot be read must not loosen anything, so they are
    /// an error that a person has to mend.
    pub(crate) fn settings(&self) -> io::Result<Option<OwnerSettings>> {
        self.read(SETTINGS_FILE)
    }

    /// Makes settings durable. Blocks for the disk.
    pub(crate) fn keep_settings(&self, settings: &OwnerSettings) -> io::Result<()> {
        self.write(SETTINGS_FILE, settings)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let path = self.dir.join(name);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {error}", path.display()),
            )
        })
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let fresh = self.dir.join(format!("{name}.new"));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        file.sync_all()?;
        fs::rename(&fresh, self.dir.join(name))?;
        self.sync()
    }

    /// A name is as durable as its directory.
    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_kept_until_it_ends_or_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::new(dir.path());
        let now = Time { ms: 10_000 };
        assert_eq!(keep.wish(now), None);
        let hour = OwnerWish::Pause {
            until: Some(Time { ms: 20_000 }),
        };
        let endless = OwnerWish::Pause { until: None };
        keep.keep_wish(hour).unwrap();
        assert_eq!(Keep::new(dir.path()).wish(now), Some(hour));
        assert_eq!(keep.wish(Time { ms: 20_000 }), None, "it is over");
        keep.keep_wish(endless).unwrap();
        assert_eq!(keep.wish(Time { ms: u64::MAX }), Some(endless));
        keep.keep_wish(OwnerWish::Resume).unwrap();
        keep.keep_wish(OwnerWish::Resume).unwrap();
        assert_eq!(keep.wish(now), None);
        // What a broken disk left counts as a pause: the owner comes first.
        fs::write(dir.path().join(WISH_FILE), "{\"wish\":").unwrap();
        assert_eq!(keep.wish(now), Some(endless));
    }

    #[test]
    fn settings_are_kept_and_broken_ones_are_no_settings() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::new(dir.path());
        assert_eq!(keep.settings().unwrap(), None);
        let settings = OwnerSettings {
            celsius_max: Some(70),
            ..OwnerSettings::default()
        };
        keep.keep_settings(&settings).unwrap();
        assert_eq!(keep.settings().unwrap(), Some(settings));
        fs::write(dir.path().join(SETTINGS_FILE), "{\"celsius\": 3}").unwrap();
        assert!(keep.settings().is_err(), "an unknown key is no setting");
    }
}
