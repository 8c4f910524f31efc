//! Attempts that nobody needs any more: their bays go to others, their bundles away.
//!
//! What is quick to see through is done at once; trees are removed by a thread of their own.
//! It must not know why an attempt is of no more use.

use super::link::Link;
use super::{Entry, GIVEN_MAX, Inner, State};
use crate::bundle::{self, Bay, Bundle};
use crate::message::ToShim;
use crate::remove;
use gleaner_model::AttemptId;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

/// Streams up to this long, in bytes, are read at once by whoever collects them.
const STREAM_READ_AT_ONCE: u64 = 4096;

/// What is removed in the background, and the bay that is free then.
pub(super) struct Rubbish {
    path: PathBuf,
    frees: Option<(Arc<Link>, Bay)>,
}

/// Removes until the engine is gone.
pub(super) fn remove_in_background(inner: &Arc<Inner>, removed: mpsc::Receiver<Rubbish>) {
    let weak = Arc::downgrade(inner);
    thread::spawn(move || {
        for Rubbish { path, frees } in removed {
            if let Err(error) = remove::tree(&path) {
                tracing::warn!(path = %path.display(), %error, "could not be removed");
            }
            if let (Some((link, bay)), Some(inner)) = (frees, weak.upgrade()) {
                inner.free(&link, bay);
            }
        }
    });
}

impl Inner {
    /// Removes the directory of a bundle that has neither shim nor attempts.
    pub(super) fn remove_if_unused(&self, state: &State, bundle: &Bundle) {
        if !state.is_taken(bundle.lease) {
            // Renamed while nobody can start anything, since the lease may come back any moment.
            let gone = bundle
                .dir
                .with_extension(format!("gone{}", crate::log::now().ms));
            if std::fs::rename(&bundle.dir, &gone).is_ok() {
                self.throw_away(gone);
            }
        }
    }

    pub(super) fn discard(&self, attempt: AttemptId) {
        let (entry, link, over) = {
            let mut state = self.state();
            let Some(entry) = state.attempts.get_mut(&attempt) else {
                return;
            };
            if entry.ended.is_none() {
                entry.unwanted = true;
                return;
            }
            let Some(entry) = state.attempts.remove(&attempt) else {
                return;
            };
            let lease = entry.bundle.lease;
            let busy = state
                .attempts
                .values()
                .any(|entry| entry.bundle.lease == lease);
            let mut over = false;
            let linked = state.links.get_mut(&lease);
            let link = linked.and_then(|linked| {
                linked.idle_since = (!busy).then(Instant::now);
                over = !busy && (self.config.fresh || linked.given >= GIVEN_MAX);
                // Where it cannot be written down a later agent may report it twice, at worst.
                let written = bundle::add_line(&linked.discarded, &attempt);
                written.ok().map(|()| Arc::clone(&linked.link))
            });
            let over = over.then(|| state.let_go(lease)).flatten();
            (entry, link, over)
        };
        self.clear(&entry, link);
        if let Some(link) = over {
            let _gone = link.send(&ToShim::Quit);
        }
        self.remove_if_unused(&self.state(), &entry.bundle);
    }

    /// Gives the bay of a discarded attempt to the next. The shim checks that nothing is left
    /// there; what takes long to remove, or may still be read, goes from here.
    fn clear(&self, entry: &Entry, link: Option<Arc<Link>>) {
        let run = entry.bundle.run(entry.bay);
        let scratch = entry.bundle.scratch(entry.bay);
        let Some(link) = link else {
            self.throw_away(run);
            return self.throw_away(scratch);
        };
        for name in ["stdout", "stderr"] {
            let path = run.join(name);
            let small = |file: std::fs::Metadata| file.len() <= STREAM_READ_AT_ONCE;
            if entry.shown || !path.symlink_metadata().is_ok_and(small) {
                let _absent = std::fs::remove_file(path);
            }
        }
        if !entry.saves.is_empty() {
            // Before the bay is free: the next attempt's copies go there.
            for left in [
                entry.bundle.saved(entry.bay),
                entry.bundle.saving(entry.bay),
            ] {
                if let Err(error) = remove::tree(&left) {
                    tracing::warn!(path = %left.display(), %error, "could not be removed");
                }
            }
        }
        if remove::is_bare(&scratch, crate::shim::TEMPORARY) {
            return self.free(&link, entry.bay);
        }
        let rubbish = Rubbish {
            path: scratch,
            frees: Some((link, entry.bay)),
        };
        let _ended = self.rubbish.send(rubbish);
    }

    fn free(&self, link: &Arc<Link>, bay: Bay) {
        let mut state = self.state();
        let linked = state.links.get_mut(&link.bundle.lease);
        if let Some(linked) = linked.filter(|linked| Arc::ptr_eq(&linked.link, link)) {
            linked.free.push(bay);
        }
    }

    pub(super) fn throw_away(&self, path: PathBuf) {
        let _ended = self.rubbish.send(Rubbish { path, frees: None });
    }
}
