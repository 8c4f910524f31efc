//! Client settings: which server, with which token, trusting which certificate authority.

use crate::ClientError;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where settings may come from, in order. The caller reads its own environment.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// `--config FILE`
    pub flag: Option<PathBuf>,
    /// `$GLEANER_CONFIG`
    pub env: Option<PathBuf>,
    /// The user's home directory.
    pub home: Option<PathBuf>,
}

/// The settings of one pool.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `https://HOST:PORT`, without a path.
    pub server: String,
    /// The user's bearer token.
    pub token: String,
    /// PEM file of the pool's certificate authority; the system's authorities where absent.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

// The token is a secret: it must not reach a log through `{:?}`.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("server", &self.server)
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}

impl Places {
    /// The file that counts: the flag's, else the environment's, else the one in the home
    /// directory.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        let home = || Some(self.home.as_ref()?.join(".config/gleaner/client.toml"));
        self.flag.clone().or_else(|| self.env.clone()).or_else(home)
    }
}

impl Settings {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`ClientError::Settings`] with the file, what is wrong in it, and how to get a right one.
    pub fn load(places: &Places) -> Result<Self, ClientError> {
        let Some(file) = places.file() else {
            return Err(ClientError::Settings(
                "no client settings: give --config FILE or set GLEANER_CONFIG; `gleaner dev` \
                 starts a pool on this PC and prints the line to use"
                    .into(),
            ));
        };
        let text = std::fs::read_to_string(&file).map_err(|problem| missing(&file, &problem))?;
        let mut settings: Self = toml::from_str(&text).map_err(|problem| {
            ClientError::Settings(format!(
                "{}: {}; it needs `server = \"https://…\"`, `token = \"…\"` and, for a pool with \
                 its own authority, `ca = \"path of a PEM file\"`",
                file.display(),
                problem.message().replace('\n', " ")
            ))
        })?;
        settings.check(&file)?;
        if let (Some(ca), Some(folder)) = (&settings.ca, file.parent()) {
            // An absolute path stays as it is.
            settings.ca = Some(folder.join(ca));
        }
        Ok(settings)
    }

    fn check(&mut self, file: &Path) -> Result<(), ClientError> {
        let wrong = |what: String| ClientError::Settings(format!("{}: {what}", file.display()));
        self.server = self.server.trim_end_matches('/').to_owned();
        let plain_host = self.server.strip_prefix("http://").map(|rest| {
            let host = rest.strip_prefix('[').map_or_else(
                || rest.split(':').next().unwrap_or(rest),
                |six| six.split(']').next().unwrap_or(six),
            );
            host.to_owned()
        });
        match plain_host.as_deref() {
            Some("127.0.0.1" | "localhost" | "::1") => {}
            Some(host) => {
                return Err(wrong(format!(
                    "server: plain http would show the token to the network between here and \
                     {host}; write https://"
                )));
            }
            None if self.server.starts_with("https://") => {}
            None => {
                return Err(wrong(format!(
                    "server: {:?} is not an address; write \"https://HOST:PORT\"",
                    self.server
                )));
            }
        }
        if self.token.trim().is_empty() {
            return Err(wrong(
                "token: is empty; an admin makes one with `gleaner token new`".into(),
            ));
        }
        Ok(())
    }
}

fn missing(file: &Path, problem: &std::io::Error) -> ClientError {
    ClientError::Settings(format!(
        "cannot read the client settings {}: {problem}; start a pool on this PC with `gleaner dev` \
         and export the GLEANER_CONFIG that it prints, or give --config FILE; the admin of a pool \
         elsewhere has what to write there",
        file.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, ClientError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("client.toml");
        std::fs::write(&file, text).unwrap();
        Settings::load(&Places {
            flag: Some(file),
            ..Places::default()
        })
    }

    #[test]
    fn wrong_settings_say_what_to_write() {
        for (text, said) in [
            ("", "missing field `server`"),
            ("server = 'https://a'", "missing field `token`"),
            ("server = 'a:1'\ntoken = 't'", "is not an address"),
            (
                "server = 'http://far.example:1'\ntoken = 't'",
                "write https://",
            ),
            ("server = 'https://a'\ntoken = ''", "gleaner token new"),
            ("server = 'https://a'\ntokn = 't'", "unknown field `tokn`"),
        ] {
            let found = load(text).unwrap_err();
            assert!(found.to_string().contains(said), "{text}: {found}");
            assert_eq!(found.exit_code(), 2);
        }
    }

    #[test]
    fn good_settings_load_and_hide_their_token() {
        let settings =
            load("server = 'https://127.0.0.1:1/'\ntoken = 'secret'\nca = '/a/ca.pem'").unwrap();
        assert_eq!(settings.server, "https://127.0.0.1:1");
        assert_eq!(settings.ca.as_deref(), Some(Path::new("/a/ca.pem")));
        assert!(!format!("{settings:?}").contains("secret"));
        load("server = 'http://[::1]:80'\ntoken = 't'").unwrap();
    }

    #[test]
    fn the_flag_comes_before_the_environment_before_home() {
        let places = Places {
            flag: None,
            env: Some("/env".into()),
            home: Some("/home/u".into()),
        };
        assert_eq!(places.file(), Some("/env".into()));
        let places = Places {
            env: None,
            ..places
        };
        let file = places.file().unwrap();
        assert!(file.ends_with(".config/gleaner/client.toml"));
        assert!(
            Settings::load(&places)
                .unwrap_err()
                .to_string()
                .contains("gleaner dev")
        );
        Settings::load(&Places::default()).unwrap_err();
    }
}
