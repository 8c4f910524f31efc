//! What the admin and the owner may set for a node, in one shape: the owner's file, the admin's
//! file and the message between server and agent are the same keys. The owner can only be
//! stricter.

use super::hours;
use gleaner_harvest::{OwnerSettings, Settings};
use gleaner_model::{Bytes, Cpus, Policy, Span};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Least memory and disk that can be meant: below it no program starts. Who forgets the unit, or
/// writes 0 to stop all work, is told so.
const MEMORY_MIN: Bytes = Bytes(16 << 20);
const DISK_MIN: Bytes = Bytes(1 << 20);

/// When and how much a node works; what is absent is left to the other side, or to the default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// `continuous`, `screensaver`, `idle-after` or `night`.
    pub policy: Option<Policy>,
    /// Hours in which it may work, as in `mon-fri 18:00-08:00`.
    pub hours: Vec<String>,
    /// Whether it works on battery.
    pub battery: Option<bool>,
    /// Most processors for tasks while the owner is active.
    pub cpus: Option<Cpus>,
    /// Most processors for tasks at any time.
    pub cpus_max: Option<Cpus>,
    /// Most memory for tasks.
    pub memory: Option<Bytes>,
    /// Most disk for tasks.
    pub disk: Option<Bytes>,
    /// Temperature that ends work, in degrees Celsius.
    pub celsius: Option<i16>,
    /// How long tasks stay frozen before they are given back.
    pub frozen: Option<Span>,
}

impl NodeSettings {
    /// Reads what an admin wrote in TOML.
    ///
    /// # Errors
    /// A sentence that names the wrong key or value.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let read: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        read.check()?;
        Ok(read)
    }

    /// Reads what a server sent; nothing sent is nothing set.
    ///
    /// # Errors
    /// A sentence that names the wrong key or value.
    pub(crate) fn from_wire(json: &[u8]) -> Result<Self, String> {
        if json.is_empty() {
            return Ok(Self::default());
        }
        let read: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        read.check()?;
        Ok(read)
    }

    /// What was kept in a file, if anything; none where that cannot be told any more.
    pub(super) fn kept_in(path: &Path) -> Option<Self> {
        let read = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(Self::default()),
            Err(error) => Err(error.to_string()),
            Ok(text) if text.is_empty() => Err("it is empty".to_owned()),
            Ok(text) => Self::from_wire(&text),
        };
        read.inspect_err(|error| {
            tracing::error!(
                target: "gleaner::owner", path = %path.display(), error,
                "these settings cannot be read; set them anew, or remove the file"
            );
        })
        .ok()
    }

    /// Keeps them in a file, in place of what was there.
    pub(super) fn keep_in(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(true).mode(0o600);
        let mut file = options.open(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    }

    /// As much as nothing: of an owner who set something that nobody knows any more.
    pub(super) fn least() -> Self {
        Self {
            memory: Some(MEMORY_MIN),
            disk: Some(DISK_MIN),
            ..Self::default()
        }
    }

    /// Whether every value can be meant.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self) -> Result<(), String> {
        if self.hours.len() > hours::HOURS_MAX {
            return Err(format!("more than {} lines of hours", hours::HOURS_MAX));
        }
        self.schedule()?;
        // Below it any PC would stop for ever, above it none would stop at all.
        if self
            .celsius
            .is_some_and(|celsius| !(30..=110).contains(&celsius))
        {
            return Err("the temperature must be from 30 to 110 degrees Celsius".to_owned());
        }
        for (what, size, least) in [
            ("memory", self.memory, MEMORY_MIN),
            ("disk", self.disk, DISK_MIN),
        ] {
            if let Some(size) = size.filter(|size| *size < least) {
                return Err(format!(
                    "{size} of {what} is too little for any task; write a size with its unit, as in \
                     4GiB, and at least {least} (to stop all work there is `gleaner owner pause`)"
                ));
            }
        }
        Ok(())
    }

    fn schedule(&self) -> Result<Vec<gleaner_harvest::Hours>, String> {
        let mut all = Vec::new();
        for text in &self.hours {
            all.extend(hours::parse(text)?);
        }
        Ok(all)
    }

    /// As an owner's wishes. What [`check`](Self::check) has passed is whole.
    pub(crate) fn as_owner(&self) -> OwnerSettings {
        OwnerSettings {
            policy: self.policy,
            schedule: self.schedule().unwrap_or_default(),
            on_battery: self.battery,
            cpus_max: self.cpus_max,
            active_cpus: self.cpus,
            celsius_max: self.celsius,
            frozen_max: self.frozen,
        }
    }

    /// As an admin's settings, over `base`: what the node does where nobody sets anything.
    pub(crate) fn as_admin(&self, base: &Settings) -> Settings {
        Settings {
            policy: self.policy.unwrap_or(base.policy),
            schedule: match self.hours.is_empty() {
                true => base.schedule.clone(),
                false => self.schedule().unwrap_or_default(),
            },
            on_battery: self.battery.unwrap_or(base.on_battery),
            cpus_max: self.cpus_max.or(base.cpus_max),
            active_cpus: self.cpus.or(base.active_cpus),
            celsius_max: self.celsius.or(base.celsius_max),
            frozen_max: self.frozen.unwrap_or(base.frozen_max),
            lenient: base.lenient,
        }
    }
}

/// Whether the owner's wishes loosen anything that holds without them: nothing may be set that
/// would not be obeyed.
///
/// # Errors
/// A sentence that names the first such wish and what the admin allows.
pub(crate) fn must_be_stricter(
    owner: &NodeSettings,
    admin: &Settings,
    admin_said: &NodeSettings,
) -> Result<(), String> {
    let wish = owner.as_owner();
    let both = admin.stricter(&wish);
    let looser = |what: &str, allowed: &str| {
        Err(format!(
            "the admin of the pool allows {what} {allowed}; an owner can only be stricter"
        ))
    };
    if wish.policy.is_some_and(|policy| policy != both.policy) {
        return looser("the policy", &format!("{} or a stricter one", admin.policy));
    }
    if !wish.schedule.is_empty() && hours::minutes(&wish.schedule) != hours::minutes(&both.schedule)
    {
        return looser("work", &format!("only in {}", admin_said.hours.join(", ")));
    }
    if wish.on_battery == Some(true) && !both.on_battery {
        return looser("work", "only on mains power");
    }
    let cpus = [
        ("while you are active", wish.active_cpus, both.active_cpus),
        ("at any time", wish.cpus_max, both.cpus_max),
    ];
    for (when, wished, allowed) in cpus {
        if let (Some(wished), Some(allowed)) = (wished, allowed)
            && wished > allowed
        {
            return looser("at most", &format!("{allowed} CPUs {when}"));
        }
    }
    let sizes = [
        ("memory", owner.memory, admin_said.memory),
        ("disk", owner.disk, admin_said.disk),
    ];
    for (what, wished, allowed) in sizes {
        if let (Some(wished), Some(allowed)) = (wished, allowed)
            && wished > allowed
        {
            return looser("at most", &format!("{allowed} of {what}"));
        }
    }
    if let (Some(wished), Some(allowed)) = (wish.celsius_max, both.celsius_max)
        && wished > allowed
    {
        return looser("work", &format!("up to {allowed} °C"));
    }
    if wish.frozen_max.is_some_and(|span| span > both.frozen_max) {
        return looser("tasks to stay frozen for", &both.frozen_max.to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin() -> (Settings, NodeSettings) {
        let said = NodeSettings::from_toml(
            "policy = \"screensaver\"\nhours = [\"mon-fri 18:00-08:00\", \"sat-sun\"]\n\
             cpus = 2\nmemory = \"4GiB\"\ncelsius = 85\nfrozen = \"10min\"\n",
        )
        .unwrap();
        (said.as_admin(&Settings::default()), said)
    }

    #[test]
    fn an_owner_can_only_be_stricter_and_is_told_what_holds() {
        let (settings, said) = admin();
        let owner = |toml: &str| {
            let owner = NodeSettings::from_toml(toml).unwrap();
            must_be_stricter(&owner, &settings, &said)
        };
        for stricter in [
            "",
            "policy = \"night\"",
            "policy = \"screensaver\"",
            "hours = [\"sat-sun\"]",
            "hours = [\"mon 19:00-20:00\"]",
            "battery = false",
            "cpus = 1",
            "cpus_max = 64",
            "memory = \"1GiB\"\ndisk = \"500GB\"",
            "celsius = 70",
            "frozen = \"1min\"",
        ] {
            assert_eq!(owner(stricter), Ok(()), "{stricter}");
        }
        for (looser, word) in [
            ("policy = \"continuous\"", "screensaver"),
            ("hours = [\"mon 17:00-20:00\"]", "mon-fri 18:00-08:00"),
            ("battery = true", "mains"),
            ("cpus = 3", "2 CPUs"),
            ("memory = \"8GiB\"", "4 GiB"),
            ("celsius = 90", "85"),
            ("frozen = \"1h\"", "10 min"),
        ] {
            let sentence = owner(looser).unwrap_err();
            assert!(sentence.contains(word), "{looser}: {sentence}");
            assert!(sentence.contains("only be stricter"), "{sentence}");
        }
    }

    #[test]
    fn a_wrong_key_or_value_is_named() {
        for (toml, word) in [
            ("polcy = \"night\"", "polcy"),
            ("policy = \"lazy\"", "lazy"),
            ("hours = [\"noonish\"]", "noonish"),
            ("celsius = 400", "Celsius"),
            ("cpus = 0", "CPUs"),
            ("cpus = nan", "CPUs"),
            ("cpus_max = -1", "CPUs"),
            ("memory = 0", "owner pause"),
            ("memory = \"4\"", "4GiB"),
            ("disk = 0", "unit"),
            ("frozen = -1", "length of time"),
        ] {
            let sentence = NodeSettings::from_toml(toml).unwrap_err();
            assert!(sentence.contains(word), "{toml}: {sentence}");
        }
    }

    #[test]
    fn what_the_server_sends_is_what_the_admin_wrote() {
        let (_, said) = admin();
        let json = serde_json::to_vec(&said).unwrap();
        assert_eq!(NodeSettings::from_wire(&json).unwrap(), said);
        assert_eq!(NodeSettings::from_wire(b""), Ok(NodeSettings::default()));
        NodeSettings::from_wire(b"{\"a\":1}").unwrap_err();
    }
}
