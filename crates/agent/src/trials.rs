//! Finds out which engines work on this PC, and asks those again that did not.
//!
//! A trial is a real start, which takes seconds and on a PC whose owner is busy may come to
//! nothing, although the engine would work; and what is missing today may be installed tomorrow.
//! So a no is no answer for ever. In: engines. Out: what the loop is to offer.

use crate::AgentError;
use crate::condition::Condition;
use crate::engines::Built;
use crate::input::{Input, Inputs};
use gleaner_engine::{Capability, Engine, Level};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often an engine is asked what it can do before its answer is taken for a no: on a PC that
/// is very busy a trial may come too late.
const PROBES: u32 = 3;

/// Time before what did not work is tried again: whatever kept the PC busy may be over.
const AGAIN: Duration = Duration::from_secs(300);

/// Longest time between two tries; each is twice the last. A try costs a boot at idle priority.
const AGAIN_MAX: Duration = Duration::from_secs(4 * 3600);

/// Asks the engines what they can do, and tells the loop. Takes seconds on a busy PC, so only
/// the first is waited for: it runs what jobs ask for that ask for nothing.
pub(crate) fn find_out(built: Built, inputs: Inputs) -> Result<(), AgentError> {
    let mut engines = built.engines.into_iter();
    let (mut working, mut fault_of_first) = (Vec::new(), None);
    if let Some(first) = engines.next() {
        match fault(&*first) {
            None => working.push(first.kind().as_str().to_owned()),
            fault => fault_of_first = fault,
        }
    }
    let refused = fault_of_first.or(built.refused);
    if let Some(why) = &refused {
        tracing::error!(target: "gleaner::watch", why, "this node refuses work");
    }
    inputs.send(Input::Introduced(working.clone()));
    inputs.send(Input::Condition(Condition::at_start(refused.as_deref())));
    let others: Vec<_> = engines.collect();
    if !others.is_empty() {
        beside("gleaner-engines", inputs.clone(), move |inputs| {
            let pauses = std::iter::successors(Some(AGAIN), |pause| {
                Some(pause.saturating_mul(2).min(AGAIN_MAX))
            });
            try_others(others, pauses, |name| {
                working.push(name.to_owned());
                inputs.send(Input::Introduced(working.clone()));
            });
        })?;
    }
    match built.again {
        Some(again) => beside("gleaner-selftest", inputs, move |inputs| {
            if let Some(refused) = again.later() {
                inputs.send(Input::Condition(Condition::at_start(refused.as_deref())));
            }
        }),
        None => Ok(()),
    }
}

/// Tries engines until all work, nobody else holds them, or the pauses are over. Each that works
/// is said at once: the next trial may take a minute, or build an image first.
fn try_others(
    mut engines: Vec<Arc<dyn Engine>>,
    mut pauses: impl Iterator<Item = Duration>,
    mut works: impl FnMut(&'static str),
) {
    loop {
        engines.retain(|engine| {
            let name = engine.kind().as_str();
            let Some(why) = fault(&**engine) else {
                works(name);
                return false;
            };
            tracing::warn!(target: "gleaner::agent", engine = name, why, "not offered");
            true
        });
        // An engine that is waited for ends with its agent all the same.
        let left: Vec<Weak<dyn Engine>> = engines.iter().map(Arc::downgrade).collect();
        drop(std::mem::take(&mut engines));
        let Some(pause) = pauses.next().filter(|_| !left.is_empty()) else {
            return;
        };
        std::thread::sleep(pause);
        engines.extend(left.iter().filter_map(Weak::upgrade));
    }
}

/// Does something slow beside the loop, which then hears of it.
fn beside(
    name: &str,
    inputs: Inputs,
    work: impl FnOnce(Inputs) + Send + 'static,
) -> Result<(), AgentError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || work(inputs))
        .map(drop)
        .map_err(|source| AgentError::Io {
            doing: format!("start the thread {name}"),
            source,
        })
}

/// What keeps an engine from working, however often it is asked.
fn fault(engine: &dyn Engine) -> Option<String> {
    let mut fault = None;
    for _ in 0..PROBES {
        fault = unusable(&engine.probe());
        if fault.is_none() {
            break;
        }
    }
    fault
}

/// What an engine misses to work here, and what to do about it.
fn unusable(capabilities: &[Capability]) -> Option<String> {
    let missing = capabilities
        .iter()
        .filter(|capability| capability.level == Level::Missing)
        .map(|capability| match &capability.fix {
            Some(fix) => format!("{}: {}; {fix}", capability.name, capability.found),
            None => format!("{}: {}", capability.name, capability.found),
        })
        .collect::<Vec<_>>();
    (!missing.is_empty()).then(|| missing.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::engine::FakeEngine;
    use gleaner_model::Engine as Kind;

    #[test]
    fn what_did_not_work_is_tried_again_until_it_does() {
        let (_, late) = FakeEngine::with_late(Kind::Vm);
        late.fail_probes(2 * PROBES + 1);
        late.pass();
        let mut worked = Vec::new();
        let pauses = std::iter::repeat(Duration::ZERO);
        try_others(Arc::clone(&late).all(), pauses, |name| worked.push(name));
        assert_eq!(worked, ["vm"]);
    }

    #[test]
    fn what_never_works_is_let_go_with_the_agent() {
        let (_, late) = FakeEngine::with_late(Kind::Vm);
        late.fail_probes(u32::MAX);
        late.pass();
        // Nobody but the trials has it, so there is nothing to come back to.
        let pauses = std::iter::repeat(Duration::ZERO);
        try_others(late.all(), pauses, |name| panic!("{name} works"));
    }
}
