//! What an earlier agent left: attempts that run on, results that nobody fetched, and rubbish.

use super::link::{Link, Running};
use super::{Entry, Inner, Reason};
use crate::bundle::Past;
use crate::bundle::{self, Bundle};
use gleaner_engine::{Adopted, Ending, EngineError};
use gleaner_model::AttemptId;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

/// The record of an attempt whose end nobody saw.
pub(crate) fn lost_ending(detail: &str) -> Ending {
    let detail = detail.to_owned();
    Ending::bare(Reason::Lost { detail }, crate::log::now())
}

pub(crate) fn adopt(inner: &Arc<Inner>) -> Result<Vec<Adopted>, EngineError> {
    let dir = inner.bundles();
    let entries = fs::read_dir(&dir)
        .map_err(|error| EngineError::io("read the engine's directory", error))?;
    let mut all = Vec::new();
    let mut alive = BTreeSet::new();
    for entry in entries.flatten() {
        let path = entry.path();
        match bundle::read::<Bundle>(&Bundle::file(&path)) {
            // The directory may have been moved with all it holds.
            Ok(found)
                if !path
                    .extension()
                    .is_some_and(|end| end.to_string_lossy().starts_with("gone")) =>
            {
                let bundle = Arc::new(Bundle { dir: path, ..found });
                if inner.state().links.contains_key(&bundle.lease) {
                    alive.insert(bundle.group_prefix.clone());
                    continue;
                }
                if adopt_bundle(inner, &bundle, &mut all) {
                    alive.insert(bundle.group_prefix.clone());
                }
            }
            Ok(_) | Err(_) => inner.throw_away(path),
        }
    }
    let ours = format!("{}-", inner.tag);
    let keep = |name: &str| {
        let of_alive = || {
            let prefix = name.rsplit_once('-').map_or(name, |parts| parts.0);
            alive.contains(prefix)
        };
        !name.starts_with(&ours) || of_alive()
    };
    inner.backend.sweep_stale(&keep);
    Ok(all)
}

/// Says whether a shim lives there.
fn adopt_bundle(inner: &Arc<Inner>, bundle: &Arc<Bundle>, all: &mut Vec<Adopted>) -> bool {
    let (link, running) = match Link::adopt(Arc::clone(bundle)) {
        Ok((link, running)) => (Some(link), running),
        Err(error) => {
            tracing::info!(bundle = %bundle.lease, %error, "its shim is gone");
            (None, Running::new())
        }
    };
    let running: BTreeMap<AttemptId, _> = running.into_iter().collect();
    // Only now: what its shim was ordered to the last is in the journal.
    let past = bundle::past(bundle);
    let next = past.values().map(|past| past.bay + 1).max().unwrap_or(0);
    let used: BTreeSet<String> = past.values().map(|past| past.bay.to_string()).collect();
    let mut state = inner.state();
    for past in past.into_values() {
        let past = adopt_run(past, link.is_some(), &running);
        let attempt = past.spec.attempt;
        state.attempts.insert(attempt, adopted_entry(bundle, &past));
        let started = running.get(&attempt).copied().flatten();
        all.push(Adopted {
            started: started.or_else(|| past.ending.as_ref()?.started),
            spec: past.spec,
            ending: past.ending.map(Box::new),
        });
    }
    let alive = link.is_some();
    let listens = match link {
        // What it says from now on finds its attempt.
        Some(link) => inner.listen(link, true, &mut state).map(|linked| {
            // Old bays that nobody uses are left to the end of the bundle.
            linked.next = next;
            // One that was made ahead, or that an earlier agent was done with, gets nothing more.
            linked.idle_since = running.is_empty().then(std::time::Instant::now);
        }),
        None => Ok(()),
    };
    drop(state);
    if let Err(error) = listens {
        tracing::warn!(bundle = %bundle.lease, %error, "its shim is not heard");
    }
    for dir in [bundle.cages(), bundle.runs()] {
        for bay in fs::read_dir(dir).into_iter().flatten().flatten() {
            if !used.contains(&*bay.file_name().to_string_lossy()) {
                inner.throw_away(bay.path());
            }
        }
    }
    if !alive {
        inner.remove_if_unused(&inner.state(), bundle);
    }
    alive
}

/// What an attempt is to the new agent: it runs, or it has ended somehow.
fn adopt_run(
    past: Past,
    shim_lives: bool,
    running: &BTreeMap<AttemptId, Option<gleaner_model::Time>>,
) -> Past {
    let runs = shim_lives && running.contains_key(&past.spec.attempt);
    let ending = match past.ending {
        _ if runs => None,
        Some(ending) => Some(ending),
        None => Some(lost_ending("its shim died while no agent was there to see")),
    };
    Past { ending, ..past }
}

/// Enters an attempt that an earlier agent began.
fn adopted_entry(bundle: &Arc<Bundle>, past: &Past) -> Entry {
    Entry {
        bundle: Arc::clone(bundle),
        bay: past.bay,
        shown: false,
        outputs: past.spec.outputs.clone(),
        saves: past.spec.saving.files.clone(),
        output_max: past.spec.limits.output.0,
        ended: past.ending.as_ref().map(|ending| ending.usage),
        unwanted: false,
    }
}
