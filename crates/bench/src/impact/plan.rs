//! What is run when: owners, tasks, rules, and the shuffled order of a round. Pure.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What an owner does that has an answer time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// A key is pressed: 1 to 5 ms over 512 KiB, each 30 to 90 ms.
    Keys,
    /// A frame is drawn: 4 ms over 2 MiB, 60 a second.
    Frames,
    /// A page is rendered: 50 to 200 ms over 16 MiB, each second.
    Renders,
    /// A build on all processors: ten steps of 30 ms on each, each second.
    Compile,
    /// A file is saved: 64 KiB written and synced, eight blocks of 4 KiB read, each 40 to 80 ms.
    Saves,
}

/// What an owner does at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mix {
    /// Types before a moving picture.
    Desk,
    /// Renders pages and compiles.
    Work,
    /// Types and saves.
    Save,
    /// Is away: what the tasks get done then is what their work is measured by.
    Away,
}

/// What tasks live on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Arithmetic in registers.
    Cpu,
    /// The last cache level and the way to memory.
    Cache,
    /// Every page of 100 MiB, over and over.
    Memory,
    /// Writing and syncing a file.
    Disk,
}

/// Who decides how tasks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Our engine: the sandbox, with idle priority on the group.
    Gleaner,
    /// A daemon whose processes have nice 19.
    Nice19,
    /// A daemon whose processes are SCHED_IDLE.
    SchedIdle,
    /// The same daemon, suspended while other programs use more than a quarter of the CPUs.
    Boinc,
    /// Runs after fifteen minutes without input and at low load only.
    Condor,
}

macro_rules! words {
    ($type:ident: $($variant:ident $word:literal $text:literal),+ $(,)?) => {
        impl $type {
            /// All of them, in the order of reports.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name in options and JSON.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// For people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                let found = Self::ALL.iter().find(|one| one.word() == word);
                found.copied().ok_or_else(|| {
                    let all: Vec<&str> = Self::ALL.iter().map(|one| one.word()).collect();
                    format!("{word:?} is none of {}", all.join(", "))
                })
            }
        }
    };
}

words!(Model: Keys "keys" "keystroke", Frames "frames" "frame", Renders "renders" "page render",
    Compile "compile" "compile", Saves "saves" "save");
words!(Mix: Desk "desk" "typing and 60 Hz frames", Work "work" "page renders and a parallel compile",
    Save "save" "typing and file saves", Away "away" "nobody");
words!(Kind: Cpu "cpu" "CPU-bound", Cache "cache" "cache- and bandwidth-bound",
    Memory "memory" "memory-touching", Disk "disk" "disk-bound");
words!(Rule: Gleaner "gleaner" "gleaner", Nice19 "nice19" "nice 19, daemon",
    SchedIdle "sched-idle" "SCHED_IDLE, daemon", Boinc "boinc" "BOINC's 25 % rule",
    Condor "condor" "HTCondor, desktop");

impl Mix {
    /// What is done in it; the first is what the picture shows.
    #[must_use]
    pub const fn models(self) -> &'static [Model] {
        match self {
            Self::Desk => &[Model::Frames, Model::Keys],
            Self::Work => &[Model::Compile, Model::Renders],
            Self::Save => &[Model::Saves, Model::Keys],
            Self::Away => &[],
        }
    }

    /// The tasks that matter beside it where nothing else is asked for.
    #[must_use]
    pub const fn usual_kinds(self) -> &'static [Kind] {
        match self {
            Self::Desk => &[Kind::Cpu, Kind::Cache, Kind::Memory],
            Self::Work => &[Kind::Cpu, Kind::Memory],
            Self::Save => &[Kind::Disk],
            Self::Away => &[],
        }
    }
}

/// What a segment is run under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Beside {
    /// No task: what everything is compared with.
    None,
    /// No task again: what the comparison finds between equals is noise.
    NoneAgain,
    /// Tasks of a kind under a rule.
    Tasks(Kind, Rule),
}

/// One segment to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// The owner.
    pub mix: Mix,
    /// And what beside.
    pub beside: Beside,
    /// Same seed, same events.
    pub seed: u64,
}

/// What to choose from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Owners.
    pub mixes: Vec<Mix>,
    /// Tasks; none means each owner's usual ones.
    pub kinds: Option<Vec<Kind>>,
    /// Rules.
    pub rules: Vec<Rule>,
}

impl Choice {
    /// Tasks beside this owner.
    pub(crate) fn kinds_of(&self, mix: Mix) -> Vec<Kind> {
        let usual = || mix.usual_kinds().to_vec();
        self.kinds.clone().unwrap_or_else(usual)
    }

    /// Every task that is run at all.
    pub(crate) fn all_kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self
            .mixes
            .iter()
            .flat_map(|mix| self.kinds_of(*mix))
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// The segments of a round in their shuffled order.
    pub(crate) fn round(&self, round: u32) -> Vec<Step> {
        let mut chance = Chance::new(u64::from(round) + 1);
        let mut steps = Vec::new();
        for mix in &self.mixes {
            // One seed a round and owner: under every condition the same events come.
            let seed = chance.next();
            let step = |beside| Step {
                mix: *mix,
                beside,
                seed,
            };
            steps.extend([step(Beside::None), step(Beside::NoneAgain)]);
            for kind in self.kinds_of(*mix) {
                let rules = self.rules.iter().copied();
                steps.extend(rules.map(|rule| step(Beside::Tasks(kind, rule))));
            }
        }
        steps.extend(self.all_kinds().into_iter().map(|kind| Step {
            mix: Mix::Away,
            beside: Beside::Tasks(kind, Rule::Gleaner),
            seed: 0,
        }));
        chance.shuffle(&mut steps);
        steps
    }
}

/// Marsaglia's xorshift64: the same seed gives the same chances on every PC.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        // A zero would stay zero; the multiplication parts neighbouring seeds.
        let mut chance = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..4 {
            chance.next();
        }
        chance
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From `low` up to and without `high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low).max(1)
    }

    pub(crate) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or(0)
    }

    fn shuffle<T>(&mut self, values: &mut [T]) {
        for at in (1..values.len()).rev() {
            let other = self.index(at + 1);
            values.swap(at, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn all() -> Choice {
        Choice {
            mixes: vec![Mix::Desk, Mix::Work, Mix::Save],
            kinds: None,
            rules: Rule::ALL.to_vec(),
        }
    }

    #[test]
    fn a_round_has_each_condition_once_and_none_twice() {
        let steps = all().round(0);
        let set: BTreeSet<Step> = steps.iter().copied().collect();
        assert_eq!(set.len(), steps.len());
        for mix in [Mix::Desk, Mix::Work, Mix::Save] {
            let of_mix: Vec<&Step> = steps.iter().filter(|step| step.mix == mix).collect();
            assert_eq!(of_mix.len(), 2 + mix.usual_kinds().len() * Rule::ALL.len());
            assert!(of_mix.iter().all(|step| step.seed == of_mix[0].seed));
        }
        let away = steps.iter().filter(|step| step.mix == Mix::Away).count();
        assert_eq!(away, Kind::ALL.len());
    }

    #[test]
    fn rounds_differ_in_order_and_seed_and_repeat_in_the_next_run() {
        let (one, two) = (all().round(0), all().round(1));
        assert_ne!(one, two);
        assert_eq!(one, all().round(0));
        let seed = |steps: &[Step]| steps.iter().find(|s| s.mix == Mix::Desk).unwrap().seed;
        assert_ne!(seed(&one), seed(&two));
    }

    #[test]
    fn words_are_read_back() {
        for rule in Rule::ALL {
            assert_eq!(rule.word().parse(), Ok(*rule));
        }
        let problem = "keyboard".parse::<Mix>().unwrap_err();
        assert!(problem.contains("desk, work, save"), "{problem}");
    }
}
