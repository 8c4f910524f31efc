//! Which ends of attempts are reported without waiting for more of them. Pure.
//!
//! The server gives out what comes next by what it has heard: it fills a node's queue up again when
//! half of it is used. So a job's ends are due once as many have ended as are still to come, and at
//! the latest with the last one, for which somebody may wait.

use gleaner_model::JobId;
use std::collections::BTreeMap;

/// Jobs remembered. Whoever has more on one node hears of some ends earlier.
const JOBS_MAX: usize = 1024;

/// The ends of one job since they were due the last time.
#[derive(Debug)]
struct Ends {
    count: u32,
    /// At how many to look whether they are due: to count what is left takes a while.
    look: u32,
}

/// The ends that wait, by job.
#[derive(Debug, Default)]
pub(super) struct Due {
    jobs: BTreeMap<JobId, Ends>,
}

impl Due {
    /// An attempt of `job` has ended; `left` counts those on this node that have not. Whether the
    /// ends so far are due.
    pub(super) fn end(&mut self, job: JobId, left: impl FnOnce() -> u32) -> bool {
        if self.jobs.len() >= JOBS_MAX && !self.jobs.contains_key(&job) {
            self.jobs.clear();
        }
        let ends = self.jobs.entry(job).or_insert(Ends { count: 0, look: 1 });
        ends.count += 1;
        if ends.count < ends.look {
            return false;
        }
        let left = left();
        if left == 0 {
            self.jobs.remove(&job);
            return true;
        }
        let due = ends.count >= left;
        if due {
            ends.count = 0;
        }
        // There they are due if nothing comes in meanwhile.
        ends.look = (ends.count + left).div_ceil(2);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends all of `count` attempts; says at how many left the ends were due.
    fn due_at(count: u32, mut more: impl FnMut(u32) -> u32) -> (Vec<u32>, u32) {
        let (mut due, mut left, mut looks) = (Due::default(), count, 0);
        let mut found = Vec::new();
        while left > 0 {
            left -= 1;
            let is_due = due.end(JobId(1), || {
                looks += 1;
                left
            });
            if is_due {
                found.push(left);
                left += more(left);
            }
        }
        assert!(due.jobs.is_empty(), "nothing is kept of a job that is over");
        (found, looks)
    }

    #[test]
    fn each_end_of_one_at_a_time_is_due() {
        let mut due = Due::default();
        for job in [1, 1, 2, 1] {
            assert!(due.end(JobId(job), || 0));
        }
    }

    #[test]
    fn ends_are_due_with_half_of_what_is_there_and_with_the_last() {
        let (found, looks) = due_at(100, |_| 0);
        assert_eq!(found, [50, 25, 12, 6, 3, 1, 0]);
        assert!(looks < 20, "{looks}");
    }

    #[test]
    fn whoever_gets_more_in_time_reports_half_a_queue_at_a_time() {
        let mut grants = 5;
        let (found, looks) = due_at(400, |_| {
            grants -= i32::from(grants > 0);
            if grants > 0 { 200 } else { 0 }
        });
        // The first look of a job comes at once, and what came in later is found at the next.
        assert!(found.len() < 20 && looks < 40, "{found:?} {looks}");
        assert_eq!(found[0], 200);
        assert_eq!(found.last(), Some(&0));
    }

    #[test]
    fn jobs_do_not_share_their_ends_and_are_not_remembered_for_ever() {
        let mut due = Due::default();
        assert!(!due.end(JobId(1), || 10));
        assert!(!due.end(JobId(2), || 10));
        for job in 0..5000 {
            assert!(!due.end(JobId(job), || 2));
            assert!(due.jobs.len() <= JOBS_MAX);
        }
    }
}
