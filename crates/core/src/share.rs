//! Whose turn it is: fair share between users.
//!
//! Turns are kept in order; decay moves all users alike, so a turn is recomputed when its user
//! changes and otherwise once a minute.

use crate::row::{Row, UserRow};
use crate::state::State;
use crate::user::User;
use alloc::vec::Vec;
use core::cmp::Reverse;
use gleaner_model::{JobId, Span, UserId};

/// Uses are stored at most this often; a crash forgets no more accounting than that.
const SAVE_EACH: Span = Span::seconds(10);

/// Turns are recomputed at least this often.
pub(crate) const REFRESH_EACH: Span = Span::seconds(60);

impl State {
    /// Makes a user known.
    pub(crate) fn meet(&mut self, user: UserId) {
        let now = self.now;
        self.users
            .entry(user)
            .or_insert_with(|| User::new(user, now));
    }

    /// Charges CPU seconds to a user.
    pub(crate) fn charge(&mut self, user: UserId, seconds: f64) {
        let now = self.now;
        if let Some(user) = self.users.get_mut(&user) {
            user.charge(now, seconds);
        }
        self.requeue(user);
    }

    /// Changes the processors that a user holds, in thousandths.
    pub(crate) fn hold(&mut self, user: UserId, more: u64, less: u64) {
        if let Some(user) = self.users.get_mut(&user) {
            user.running = (user.running + more).saturating_sub(less);
        }
        self.requeue(user);
    }

    /// Puts a user where it belongs in the queue, after anything about it changed.
    pub(crate) fn requeue(&mut self, id: UserId) {
        let Some(user) = self.users.get_mut(&id) else {
            return;
        };
        let turn = (!user.waiting.is_empty()).then(|| user.turn_without(0));
        if turn == user.turn {
            return;
        }
        if let Some(old) = user.turn {
            self.queue.remove(&old);
        }
        user.turn = turn;
        if let Some(new) = turn {
            self.queue.insert(new);
        }
    }

    /// Puts a job into its user's queue or takes it out, after its ready tasks, its pause or its
    /// state changed.
    pub(crate) fn reindex(&mut self, job: JobId) {
        let Some(job) = self.jobs.get_mut(&job) else {
            return;
        };
        let offers = job.offers();
        if offers == job.queued {
            return;
        }
        job.queued = offers;
        let (user, need) = (job.spec.user, job.need);
        let place = (Reverse(job.spec.priority), job.id);
        let Some(owner) = self.users.get_mut(&user) else {
            return;
        };
        if offers {
            owner.waiting.entry(need).or_default().insert(place);
        } else if let Some(group) = owner.waiting.get_mut(&need) {
            group.remove(&place);
            if group.is_empty() {
                owner.waiting.remove(&need);
            }
        }
        self.requeue(user);
    }

    /// Once a minute every turn is recomputed; uses that changed are stored.
    pub(crate) fn keep_shares(&mut self) {
        let now = self.now;
        if now.since(self.refreshed) >= REFRESH_EACH {
            self.refreshed = now;
            let ids: Vec<UserId> = self.users.keys().copied().collect();
            for id in ids {
                if let Some(user) = self.users.get_mut(&id) {
                    user.decay(now);
                }
                self.requeue(id);
            }
        }
        for user in self.users.values_mut() {
            if user.unsaved && now.since(user.saved) >= SAVE_EACH {
                user.unsaved = false;
                user.saved = now;
                self.rows.push(Row::User(UserRow {
                    user: user.id,
                    used: user.used,
                    at: user.at,
                }));
            }
        }
    }
}
