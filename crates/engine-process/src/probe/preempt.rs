//! How soon the kernel takes a processor away from a task that is inside a system call. Idle
//! priority says who is next; it cannot say when the kernel looks. Linux: "preempt=" of the
//! kernel's command-line parameters, `CONFIG_PREEMPT_DYNAMIC`.

use super::good;
use crate::cgroup::capability;
use flate2::read::GzDecoder;
use gleaner_engine::{Capability, Level};
use std::fs::{self, File};
use std::io::Read as _;

const NAME: &str = "kernel preemption";

/// A kernel's configuration is a quarter of a megabyte; more is none.
const CONFIG_MAX: u64 = 4 << 20;

/// What the kernel says of itself, each part empty where it does not.
#[derive(Debug, Clone, Default)]
struct Said {
    /// `/sys/kernel/debug/sched/preempt`: all models, the one in force in brackets.
    debug: String,
    /// The kernel's parameters.
    parameters: String,
    /// What it was built with.
    config: String,
    /// Its version, with the model it was built for.
    version: String,
}

impl Said {
    fn read() -> Self {
        let text = super::read;
        let release = text("/proc/sys/kernel/osrelease");
        let mut config = String::new();
        if let Ok(file) = File::open("/proc/config.gz") {
            let mut unpacked = GzDecoder::new(file).take(CONFIG_MAX);
            let _partial = unpacked.read_to_string(&mut config);
        }
        if config.is_empty() {
            let path = format!("/boot/config-{}", release.trim());
            config = fs::read_to_string(path).unwrap_or_default();
        }
        Self {
            debug: text("/sys/kernel/debug/sched/preempt"),
            parameters: text("/proc/cmdline"),
            config,
            version: text("/proc/version"),
        }
    }

    /// `none`, `voluntary`, `lazy` or `full`; none where it cannot be known.
    fn model(&self) -> Option<&str> {
        let bracketed = self.debug.split_once('(');
        let now = bracketed.and_then(|(_, rest)| Some(rest.split_once(')')?.0));
        let mut words = self.parameters.split_whitespace();
        let asked = words.find_map(|word| word.strip_prefix("preempt="));
        let has = |option: &str| self.config.lines().any(|line| line == option);
        let built = [
            ("CONFIG_PREEMPT_NONE=y", "none"),
            ("CONFIG_PREEMPT_VOLUNTARY=y", "voluntary"),
            ("CONFIG_PREEMPT_LAZY=y", "lazy"),
            ("CONFIG_PREEMPT=y", "full"),
            ("CONFIG_PREEMPT_RT=y", "full"),
        ];
        let built = built.into_iter().find(|(option, _)| has(option));
        now.or_else(|| asked.filter(|_| self.can_change()))
            .or_else(|| built.map(|(_, model)| model))
    }

    /// Whether the model can be chosen when the kernel starts.
    fn can_change(&self) -> bool {
        self.version.contains("PREEMPT_DYNAMIC")
            || self
                .config
                .lines()
                .any(|line| line == "CONFIG_PREEMPT_DYNAMIC=y")
    }

    /// Milliseconds between two looks of the scheduler.
    fn tick_ms(&self) -> Option<u32> {
        let hz = self
            .config
            .lines()
            .find_map(|line| line.strip_prefix("CONFIG_HZ="))?;
        let hz: u32 = hz.parse().ok()?;
        (hz > 0).then(|| 1000 / hz)
    }

    fn row(&self) -> Capability {
        let tick = self
            .tick_ms()
            .map_or_else(String::new, |ms| format!("; a look each {ms} ms"));
        match self.model() {
            None => good(
                NAME,
                format!("this kernel does not tell which it has{tick}"),
            ),
            Some("none") => capability(
                NAME,
                Level::Degraded,
                format!("none: a task keeps its processor to the end of a system call{tick}"),
                Some(match self.can_change() {
                    true => "add preempt=full to the kernel parameters and reboot".to_owned(),
                    false => {
                        "use a kernel with CONFIG_PREEMPT_DYNAMIC, with preempt=full".to_owned()
                    }
                }),
            ),
            Some(model) => good(NAME, format!("{model}{tick}")),
        }
    }
}

/// What this PC's kernel has.
pub(super) fn preemption() -> Capability {
    Said::read().row()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_counts_before_what_was_asked_and_built() {
        let none =
            "CONFIG_HZ_250=y\nCONFIG_HZ=250\nCONFIG_PREEMPT_NONE=y\nCONFIG_PREEMPT_DYNAMIC=y\n";
        for (debug, parameters, config, model) in [
            (
                "none voluntary (full)\n",
                "preempt=none",
                none,
                Some("full"),
            ),
            ("", "quiet preempt=voluntary", none, Some("voluntary")),
            ("", "quiet", none, Some("none")),
            ("", "preempt=full", "CONFIG_PREEMPT_NONE=y\n", Some("none")),
            ("", "", "CONFIG_PREEMPT_RT=y\n", Some("full")),
            ("", "quiet", "", None),
        ] {
            let said = Said {
                debug: debug.to_owned(),
                parameters: parameters.to_owned(),
                config: config.to_owned(),
                version: String::new(),
            };
            assert_eq!(said.model(), model, "{said:?}");
            let row = said.row();
            assert_eq!(row.level == Level::Good, model != Some("none"));
            assert_eq!(row.level == Level::Good, row.fix.is_none());
        }
        let said = Said {
            config: none.to_owned(),
            ..Said::default()
        };
        assert!(said.row().found.contains("each 4 ms"));
        assert!(said.row().fix.unwrap().contains("reboot"));
    }

    #[test]
    fn this_kernel_is_understood() {
        let row = preemption();
        assert_eq!(row.name, NAME);
        assert!(!row.found.is_empty());
    }
}
