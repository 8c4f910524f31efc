//! Which shim an attempt gets; what that of a new bundle is told, and its user ids.

use super::link::Link;
use super::{FIRST_LEASE, GIVEN_MAX, Inner, Linked, State, device};
use crate::bundle::{Bay, Bundle};
use crate::cage::UIDS_OF_BUNDLE;
use gleaner_engine::{AttemptSpec, EngineError, ImageFile};
use gleaner_model::LeaseId;
use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Inner {
    /// A shim for the attempt and a bay there: its bundle's, or another of the same job (and
    /// so of the same user and image), or a new one.
    pub(super) fn link(
        self: &Arc<Self>,
        spec: &AttemptSpec,
        state: &mut State,
    ) -> Result<(Arc<Link>, Bay), EngineError> {
        let job = spec.attempt.task.job;
        let guests = (*self.needs(), self.guest_dir());
        let shows = |linked: &Linked| {
            let bundle = &linked.link.bundle;
            (bundle.guest_needs, bundle.guest_dir) == guests
        };
        let of_job = |linked: &&mut Linked| {
            linked.job == Some(job)
                && linked.given < GIVEN_MAX
                && linked.link.bundle.image == spec.image
                && shows(linked)
        };
        if !self.config.fresh {
            let linked = match state.links.get_mut(&spec.bundle) {
                Some(linked) if shows(linked) => Some(linked),
                _ => state.links.values_mut().find(of_job),
            };
            if let Some(linked) = linked {
                return Ok((Arc::clone(&linked.link), linked.bay()));
            }
        }
        if let Some(linked) = self.take_spare(spec, state) {
            linked.job = Some(job);
            return Ok((Arc::clone(&linked.link), linked.bay()));
        }
        let lease = match self.config.fresh || state.is_taken(spec.bundle) {
            true => LeaseId(self.next_fresh.fetch_add(1, Ordering::Relaxed)),
            false => spec.bundle,
        };
        let bundle = self.bundle(lease, spec.image.as_ref(), state)?;
        let link = Link::spawn(bundle, &self.executable, &self.nursery)?;
        let linked = self.listen(Arc::clone(&link), false, state)?;
        linked.job = Some(job);
        Ok((link, linked.bay()))
    }

    /// Which directory what guests are made of is now.
    fn guest_dir(&self) -> Option<(u64, u64)> {
        let data = std::fs::metadata(self.config.guest.as_ref()?).ok()?;
        Some((data.dev(), data.ino()))
    }

    /// What the shim of a new bundle is told.
    pub(super) fn bundle(
        &self,
        lease: LeaseId,
        image: Option<&ImageFile>,
        state: &State,
    ) -> Result<Bundle, EngineError> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let entries = state.attempts.values().map(|entry| &*entry.bundle);
        let links = state.links.values().map(|linked| &*linked.link.bundle);
        let leaving = state.leaving.iter().map(|link| &*link.bundle);
        let used: BTreeSet<u32> = entries
            .chain(links)
            .chain(leaving)
            .filter_map(|bundle| bundle.uid_first)
            .collect();
        let uid_first = match &self.uids {
            None => None,
            Some(range) => {
                let free = self.uid_blocks(range).find(|first| !used.contains(first));
                let full = std::io::Error::other("all user ids are in use; widen --uid-range");
                Some(free.ok_or_else(|| EngineError::io("choose user ids", full))?)
            }
        };
        let guest_needs = *self.needs();
        Ok(Bundle {
            dir: self.bundles().join(lease.to_string()),
            lease,
            uid_first,
            beat_ms: millis(self.config.beat),
            lease_left_ms: millis(FIRST_LEASE),
            ends_with_agent: !self.config.outlives,
            read_only: self.config.read_only.clone(),
            program: self.config.program.clone(),
            guest: self.config.guest.clone(),
            guest_dir: self.guest_dir(),
            image: image.cloned(),
            images: self.config.dir.join("images"),
            guest_needs,
            device: device::shown(guest_needs, &self.config.dir)?,
            group_parent: self.config.group_parent.clone(),
            group_domain: Some(self.domain.clone()),
            group_prefix: self.group_prefix(lease),
            groups: serde_json::to_value(&self.backend).unwrap_or_default(),
        })
    }

    /// First ids of all blocks, from a place of our own on, so that two agents on one PC that
    /// share the range seldom share a block.
    fn uid_blocks(&self, range: &Range<u32>) -> impl Iterator<Item = u32> + use<> {
        let blocks = (range.end - range.start) / UIDS_OF_BUNDLE;
        let digest = blake3::hash(self.tag.as_bytes());
        let own = digest.as_bytes().iter().take(4);
        let own = own.fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)) % blocks.max(1);
        let start = range.start;
        (0..blocks).map(move |at| start + (own + at) % blocks * UIDS_OF_BUNDLE)
    }
}
