//! Which engines this agent has, and whether tasks in them yield to the owner. Made once at
//! start, before the loop runs.

use crate::AgentError;
use crate::clock::Clock;
use crate::config::AgentConfig;
use crate::dispatch::ENGINE_BEAT_MS;
use crate::watch::sensing::{Begin, Nothing, this_pc};
use gleaner_engine::{Engine, Events};
use gleaner_engine_process::cgroup::time_below;
use gleaner_engine_process::priority::{Outcome, SelfTest};
use gleaner_engine_process::{ProcessConfig, ProcessEngine, default_uid_range, domain_name};
use gleaner_engine_vm::{VmConfig, VmEngine, image, machine};
use gleaner_sense::OwnTime;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often the self-test is tried when it gave no answer. Each must be made before the engine,
/// which may move a plain user's agent away from the owner's session.
const TESTS: usize = 3;

/// Wait before an unclear self-test is tried again, in seconds: what kept a processor busy may
/// have ended.
const AGAIN_S: u64 = 20;

/// Engines and what is known of their priority.
pub(crate) struct Built {
    pub(crate) engines: Vec<Arc<dyn Engine>>,
    /// Why work is refused; none where tasks yield to the owner.
    pub(crate) refused: Option<String>,
    /// Asks again later, where the answer was unclear.
    pub(crate) again: Option<Testing>,
    /// What senses the owner.
    pub(crate) sensing: Begin,
    /// How the processor time of tasks is known.
    pub(crate) own: OwnTime,
    /// What everything is timed by.
    pub(crate) clock: Clock,
}

/// For where there is nothing to sense.
pub(crate) fn no_sensing() -> Begin {
    Box::new(|_sink| Arc::new(Nothing))
}

/// Self-tests that are left.
pub(crate) struct Testing {
    engine: ProcessEngine,
    left: Vec<SelfTest>,
    cache: PathBuf,
}

/// What a self-test says.
enum Fitness {
    Fit,
    Refused(String),
    Unclear(String),
}

/// The engines of this build, and their self-test.
pub(crate) fn build(
    config: &AgentConfig,
    home: &Path,
    events: Events,
) -> Result<Built, AgentError> {
    let launcher = match &config.launcher {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(AgentError::io(
            "find the running program,",
            Path::new("gleaner"),
        ))?,
    };
    let tests = if config.self_test { TESTS } else { 0 };
    let left = (0..tests).map(|_| SelfTest::prepare(&launcher)).collect();
    let mut process = ProcessConfig::new(home.join("process"));
    process.executable = Some(launcher.clone());
    process.beat = Duration::from_millis(ENGINE_BEAT_MS);
    process.fresh = config.fresh_cages;
    process.uid_range = config
        .uid_range
        .as_ref()
        .map(|range| *range.start()..range.end().saturating_add(1));
    if let Some(group) = &config.group {
        process.group_parent.clone_from(group);
    }
    // One group for the tasks of all engines: a bound on it is one on all of them together.
    process.domain = Some(domain_name(home));
    let vm = guests(&mut process, &launcher, home, &events);
    let wasm = web_assembly(&mut process, &launcher, home, &events);
    // Processes start often and are short; guests and WebAssembly wait for more than a shim.
    process.spare = true;
    let engine = ProcessEngine::new(process, events)
        .map_err(|error| AgentError::Engine(error.to_string()))?;
    let groups = engine.backend().accounts();
    let own = match groups.is_empty() {
        false => OwnTime::Groups(groups),
        true => OwnTime::Ask(Arc::new(time_below)),
    };
    // Desktops report to one agent of a PC, and not to a pool for trying out.
    let sensing = this_pc(own.clone(), home, config.dev.is_none());
    let mut testing = Testing {
        engine: engine.clone(),
        left,
        cache: home.join("self-test.json"),
    };
    let (refused, again) = match &config.dev {
        Some(dev) => {
            let refused = dev.self_test.get_or_init(|| testing.insist()).clone();
            (refused, None)
        }
        None => match testing.next() {
            Fitness::Fit => (None, None),
            Fitness::Refused(why) => (Some(why), None),
            Fitness::Unclear(why) => (Some(why), Some(testing)),
        },
    };
    Ok(Built {
        engines: [Arc::new(engine) as Arc<dyn Engine>]
            .into_iter()
            .chain(wasm)
            .chain(vm)
            .collect(),
        refused,
        again,
        sensing,
        own,
        clock: Clock::start(),
    })
}

/// The engine for guests, where this PC has a kernel for them. Whether one boots is found out
/// when the engine is asked what it can do. Without it the agent works all the same.
fn guests(
    process: &mut ProcessConfig,
    launcher: &Path,
    home: &Path,
    events: &Events,
) -> Option<Arc<dyn Engine>> {
    let program = image::find_program(launcher).ok()?;
    let cages = ProcessConfig {
        dir: home.join("vm"),
        ..process.clone()
    };
    let mut config = VmConfig::new(cages, image::default_dir());
    config.program = Some(program);
    config.accelerator = machine::asked().unwrap_or_else(|error| {
        tracing::warn!(target: "gleaner::agent", error, "guests run on what works best");
        None
    });
    if rustix::process::geteuid().is_root() {
        let all = process.uid_range.clone().or_else(default_uid_range)?;
        let (tasks, guests) = split(&all)?;
        process.uid_range = Some(tasks);
        config.process.uid_range = Some(guests);
    }
    match VmEngine::new(config, Arc::clone(events)) {
        Ok(engine) => Some(Arc::new(engine)),
        Err(error) => {
            tracing::warn!(target: "gleaner::agent", %error, "no guests on this node");
            None
        }
    }
}

/// The engine for WebAssembly. Whether a program runs is found out when the engine is asked what
/// it can do. Without it the agent works all the same.
#[cfg(feature = "wasm")]
fn web_assembly(
    process: &mut ProcessConfig,
    launcher: &Path,
    home: &Path,
    events: &Events,
) -> Option<Arc<dyn Engine>> {
    use gleaner_engine_wasm::{WasmConfig, WasmEngine};
    let mut cages = ProcessConfig {
        dir: home.join("wasm"),
        ..process.clone()
    };
    if rustix::process::geteuid().is_root() {
        let all = process.uid_range.clone().or_else(default_uid_range)?;
        let (tasks, own) = split(&all)?;
        process.uid_range = Some(tasks);
        cages.uid_range = Some(own);
    }
    let config = WasmConfig {
        process: cages,
        runner: launcher.to_owned(),
    };
    match WasmEngine::new(config, Arc::clone(events)) {
        Ok(engine) => Some(Arc::new(engine)),
        Err(error) => {
            tracing::warn!(target: "gleaner::agent", %error, "no WebAssembly on this node");
            None
        }
    }
}

/// This build has no engine for WebAssembly.
#[cfg(not(feature = "wasm"))]
fn web_assembly(_: &mut ProcessConfig, _: &Path, _: &Path, _: &Events) -> Option<Arc<dyn Engine>> {
    None
}

/// The engines' user ids must not meet; fewer attempts run elsewhere than in processes, so each
/// other engine gets a quarter of what is left.
/// None where the range is too short for both.
fn split(all: &Range<u32>) -> Option<(Range<u32>, Range<u32>)> {
    /// Ids of one bundle of tasks.
    const BUNDLE: u32 = 65;
    let length = all.end.checked_sub(all.start)?;
    let at = all.end - (length / 4).max(BUNDLE).min(length);
    (at - all.start >= BUNDLE).then_some((all.start..at, at..all.end))
}

impl Testing {
    fn next(&mut self) -> Fitness {
        let Some(test) = self.left.pop() else {
            return Fitness::Fit;
        };
        match test.run(self.engine.backend(), Some(&self.cache)) {
            Outcome::Passed { share, cached } => {
                tracing::info!(
                    target: "gleaner::watch", basis_points = share, cached,
                    "share of a contended processor that tasks take"
                );
                Fitness::Fit
            }
            Outcome::Refused { sentence, .. } => Fitness::Refused(sentence),
            Outcome::Unclear { sentence } => Fitness::Unclear(sentence),
        }
    }

    /// Tests until there is an answer or no test is left: why work is refused.
    fn insist(&mut self) -> Option<String> {
        loop {
            match self.next() {
                Fitness::Fit => return None,
                Fitness::Unclear(_) if !self.left.is_empty() => {}
                Fitness::Refused(why) | Fitness::Unclear(why) => return Some(why),
            }
        }
    }

    /// Tests again after a while; `None` where nothing is left to try. Blocks.
    pub(crate) fn later(mut self) -> Option<Option<String>> {
        while !self.left.is_empty() {
            std::thread::sleep(Duration::from_secs(AGAIN_S));
            match self.next() {
                Fitness::Fit => return Some(None),
                Fitness::Refused(why) => return Some(Some(why)),
                Fitness::Unclear(_) => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_never_share_a_user_id() {
        assert_eq!(split(&(1000..1400)), Some((1000..1300, 1300..1400)));
        assert_eq!(split(&(0..130)), Some((0..65, 65..130)));
        for short in [0..65, 0..129, 5..5] {
            assert_eq!(split(&short), None, "{short:?}");
        }
    }
}
