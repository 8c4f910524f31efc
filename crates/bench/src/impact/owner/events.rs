//! When an owner's events are due and how much work each is. Pure: the same seed gives the same
//! events, so that those of two conditions can be paired.

use super::super::plan::{Chance, Model};

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    /// Microseconds after the segment's start.
    pub(crate) due_us: u64,
    /// CPU time that its work takes on a quiet PC, in microseconds, on each thread.
    pub(crate) work_us: u64,
}

/// Time between two frames of a 60 Hz screen, in microseconds.
pub(crate) const FRAME_US: u64 = 16_667;

/// The events of one model that are due within `length_us`.
pub(crate) fn events(model: Model, seed: u64, length_us: u64) -> Vec<Event> {
    let mut chance = Chance::new(seed ^ ((model as u64 + 1) << 32));
    let mut events = Vec::new();
    let mut due_us = match model {
        Model::Keys | Model::Saves => chance.between(0, 60_000),
        Model::Frames | Model::Compile => 0,
        // Between two compiles, so that the two seldom wait for each other.
        Model::Renders => 500_000,
    };
    while due_us < length_us {
        let (work_us, gap_us) = match model {
            Model::Keys => (chance.between(1000, 5000), chance.between(30_000, 90_000)),
            Model::Frames => (4000, FRAME_US),
            Model::Renders => (chance.between(50_000, 200_000), 1_000_000),
            Model::Compile => (10 * 30_000, 1_000_000),
            // Nearly all of a save is waiting for the disk.
            Model::Saves => (0, chance.between(40_000, 80_000)),
        };
        events.push(Event { due_us, work_us });
        due_us += gap_us;
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_events() {
        for model in Model::ALL {
            let one = events(*model, 7, 4_000_000);
            assert_eq!(one, events(*model, 7, 4_000_000));
            assert!(one.is_sorted_by_key(|event| event.due_us));
            assert!(one.iter().all(|event| event.due_us < 4_000_000));
        }
        assert_ne!(
            events(Model::Keys, 7, 1_000_000),
            events(Model::Keys, 8, 1_000_000)
        );
    }

    #[test]
    fn rates_and_work_are_as_described() {
        for (model, count, work) in [
            (Model::Keys, 500..=2000, 1000..5000),
            (Model::Frames, 3595..=3605, 4000..4001),
            (Model::Renders, 59..=60, 50_000..200_000),
            (Model::Compile, 60..=60, 300_000..300_001),
            (Model::Saves, 750..=1500, 0..1),
        ] {
            let events = events(model, 3, 60_000_000);
            assert!(count.contains(&events.len()), "{model}: {}", events.len());
            assert!(events.iter().all(|event| work.contains(&event.work_us)));
        }
    }
}
