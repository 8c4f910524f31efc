//! Which engines this agent has, and whether tasks in them yield to the owner. Made once at
//! start, before the loop runs.

use crate::AgentError;
use crate::config::AgentConfig;
use crate::dispatch::ENGINE_BEAT_MS;
use crate::watch::sensing::{Begin, Nothing, this_pc};
use gleaner_engine::{Engine, Events};
use gleaner_engine_process::cgroup::time_below;
use gleaner_engine_process::priority::{Outcome, SelfTest};
use gleaner_engine_process::{ProcessConfig, ProcessEngine};
use gleaner_sense::OwnTime;
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
    process.executable = Some(launcher);
    process.beat = Duration::from_millis(ENGINE_BEAT_MS);
    process.fresh = config.fresh_cages;
    process.uid_range = config
        .uid_range
        .as_ref()
        .map(|range| *range.start()..range.end().saturating_add(1));
    if let Some(group) = &config.group {
        process.group_parent.clone_from(group);
    }
    let engine = ProcessEngine::new(process, events)
        .map_err(|error| AgentError::Engine(error.to_string()))?;
    let groups = engine.backend().accounts();
    let own = match groups.is_empty() {
        false => OwnTime::Groups(groups),
        true => OwnTime::Ask(Arc::new(time_below)),
    };
    // Desktops report to one agent of a PC, and not to a pool for trying out.
    let sensing = this_pc(own, home, config.dev.is_none());
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
        engines: vec![Arc::new(engine)],
        refused,
        again,
        sensing,
    })
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
