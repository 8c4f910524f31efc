//! What an earlier agent left: attempts that run on, results that nobody fetched, and rubbish.

use super::link::{Link, Running, io_error};
use super::{Inner, Reason, adopted_entry};
use crate::bundle::{self, Bundle};
use gleaner_engine::{Adopted, Ending, EngineError};
use gleaner_model::{AttemptId, Usage};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The record of an attempt whose end nobody saw.
pub(crate) fn lost_ending(detail: &str) -> Ending {
    Ending {
        reason: Reason::Lost {
            detail: detail.to_owned(),
        },
        started: None,
        ended: crate::shim::now(),
        wall_seconds: 0.0,
        paused_seconds: 0.0,
        usage: Usage::default(),
        limits: Vec::new(),
        refused_calls: BTreeMap::new(),
        degraded: Vec::new(),
    }
}

pub(crate) fn adopt(inner: &Arc<Inner>) -> Result<Vec<Adopted>, EngineError> {
    let dir = inner.bundles();
    let entries =
        fs::read_dir(&dir).map_err(|error| io_error("read the engine's directory", error))?;
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
                let bundle = Bundle { dir: path, ..found };
                if inner.state().links.contains_key(&bundle.lease) {
                    alive.insert(bundle.group_prefix.clone());
                    continue;
                }
                if adopt_bundle(inner, &bundle, &mut all) {
                    alive.insert(bundle.group_prefix.clone());
                }
            }
            Ok(_) | Err(_) => drop(inner.rubbish.send(path)),
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
fn adopt_bundle(inner: &Arc<Inner>, bundle: &Bundle, all: &mut Vec<Adopted>) -> bool {
    let (link, running) = match Link::adopt(bundle.clone()) {
        Ok((link, running)) => (Some(link), running),
        Err(error) => {
            tracing::info!(bundle = %bundle.lease, %error, "its shim is gone");
            (None, Running::new())
        }
    };
    let running: BTreeMap<AttemptId, _> = running.into_iter().collect();
    let mut state = inner.state();
    for run in fs::read_dir(bundle.runs()).into_iter().flatten().flatten() {
        let Some(adopted) = adopt_run(&run.path(), link.is_some(), &running) else {
            let name = run.file_name();
            for rubbish in [run.path(), bundle.cages().join(name)] {
                let _ended = inner.rubbish.send(rubbish);
            }
            continue;
        };
        let entry = adopted_entry(bundle, &adopted.spec, adopted.ending.as_deref());
        state.attempts.insert(adopted.spec.attempt, entry);
        all.push(adopted);
    }
    let alive = link.is_some();
    match link {
        // What it says from now on finds its attempt.
        Some(link) => inner.listen(link, None, &mut state),
        None => {
            drop(state);
            inner.remove_if_unused(bundle);
        }
    }
    alive
}

fn adopt_run(
    run: &Path,
    shim_lives: bool,
    running: &BTreeMap<AttemptId, Option<gleaner_model::Time>>,
) -> Option<Adopted> {
    let spec = bundle::spec(run).ok()?;
    let started = running.get(&spec.attempt);
    let ending = match (started, bundle::result(run)) {
        (Some(_), _) if shim_lives => None,
        (_, Ok(ending)) => Some(ending),
        (_, Err(_)) => Some(lost_ending("its shim died while no agent was there to see")),
    };
    Some(Adopted {
        started: started
            .copied()
            .flatten()
            .or_else(|| ending.as_ref()?.started),
        spec,
        ending: ending.map(Box::new),
    })
}
