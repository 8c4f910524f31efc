//! Who gets which processor, and when nobody gets one.

use crate::places::{Look, Move, Places, Standing, spread};
use crate::thresholds::{
    PLACE_AFTER, PLACE_IDLE_MAX, PLACE_JUDGE, PLACE_KEEP, PLACE_LOOSE, PLACE_TAKEN,
};
use gleaner_model::{AttemptId, Cpus, JobId, Load, TaskId, Time};
use proptest::collection::vec as many;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

fn id(index: u32) -> AttemptId {
    TaskId::new(JobId(1), index).attempt(1)
}

/// Attempts with these processors, numbered from 0.
fn asked(milli: &[u32]) -> BTreeMap<AttemptId, Cpus> {
    let all = milli.iter().zip(0..);
    all.map(|(&milli, index)| (id(index), Cpus { milli }))
        .collect()
}

fn places(all: &[(u32, u32)]) -> BTreeMap<AttemptId, u32> {
    all.iter().map(|&(index, cpu)| (id(index), cpu)).collect()
}

#[test]
fn attempts_that_fill_the_pc_are_spread_and_others_are_not() {
    // Processors, what is asked for, who was where, who is where.
    type Row<'a> = (&'a [u32], &'a [u32], &'a [(u32, u32)], &'a [(u32, u32)]);
    let table: &[Row<'_>] = &[
        (&[0, 1], &[1000, 1000], &[], &[(0, 0), (1, 1)]),
        // They stay where they are, also where the numbers would say otherwise.
        (&[0, 1], &[1000, 1000], &[(0, 1)], &[(0, 1), (1, 0)]),
        (&[0, 1], &[1000, 1000], &[(0, 1), (1, 1)], &[(0, 1), (1, 0)]),
        // A processor that is gone is nobody's.
        (&[4, 6], &[1000, 1000], &[(0, 5), (1, 4)], &[(0, 6), (1, 4)]),
        // More than there are processors: equal numbers, but for one.
        (
            &[0, 1],
            &[1000; 3],
            &[(0, 0), (1, 0), (2, 0)],
            &[(0, 0), (1, 0), (2, 1)],
        ),
        (
            &[0, 1, 2],
            &[1000; 4],
            &[(0, 0), (1, 0), (2, 1), (3, 1)],
            &[(0, 0), (1, 0), (2, 1), (3, 2)],
        ),
        // Halves make a whole.
        (&[0, 1], &[500, 1000, 500], &[], &[(0, 1), (1, 0), (2, 1)]),
        // Those that stay would leave one of seven processors with too little: all begin anew.
        (
            &[0, 1, 2, 3, 4, 5, 6],
            &[1000, 259, 1000, 71, 1000, 812, 1000, 929, 1000],
            &[(0, 2), (1, 2), (2, 0), (3, 0), (4, 0), (5, 1), (6, 0)],
            &[
                (0, 0),
                (1, 6),
                (2, 1),
                (3, 5),
                (4, 2),
                (5, 6),
                (6, 3),
                (7, 5),
                (8, 4),
            ],
        ),
        // Too few, too wide, too little on one of them, nothing to choose from.
        (&[0, 1], &[1000], &[(0, 0)], &[]),
        (&[0, 1], &[1000, 2000], &[(0, 0)], &[]),
        (&[0, 1], &[700, 700, 700], &[], &[]),
        (&[0, 1], &[0, 0, 0], &[], &[]),
        (&[0], &[1000, 1000], &[], &[]),
        (&[], &[1000], &[], &[]),
        (&[0, 1], &[], &[], &[]),
    ];
    for (cpus, milli, before, after) in table {
        let found = spread(cpus, &asked(milli), &places(before));
        assert_eq!(found, places(after), "{cpus:?} {milli:?} {before:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_processor_has_enough_to_do_or_none_is_given(
        count in 0..9_u32,
        milli in many(prop_oneof![4 => Just(1000_u32), 1 => 0..1100_u32], 0..24),
        before in many(0..10_u32, 0..24),
    ) {
        let cpus: Vec<u32> = (0..count).collect();
        let wanted = asked(&milli);
        let before: BTreeMap<_, _> = (0..).map(id).zip(before).collect();
        let found = spread(&cpus, &wanted, &before);
        let mut load: BTreeMap<u32, u32> = cpus.iter().map(|cpu| (*cpu, 0)).collect();
        for (attempt, cpu) in &found {
            *load.get_mut(cpu).unwrap() += wanted[attempt].milli;
        }
        if !found.is_empty() {
            prop_assert_eq!(found.len(), wanted.len());
            prop_assert!(load.values().all(|load| *load >= 1000));
            let most = load.values().max().unwrap();
            let least = load.values().min().unwrap();
            prop_assert!(most - least <= 1000);
        }
        // Whoever looks again finds nothing to do.
        prop_assert_eq!(&spread(&cpus, &wanted, &found), &found);
        // Whole attempts are given processors as soon as there are as many.
        if count >= 2 && milli.iter().all(|milli| *milli == 1000) {
            prop_assert_eq!(found.is_empty(), milli.len() < count as usize);
        }
    }
}

/// A PC of two processors and its attempts, each of one.
struct Pc {
    places: Places,
    now: u64,
    load: Option<Load>,
    whole: bool,
    attempts: BTreeMap<AttemptId, Standing>,
}

impl Pc {
    /// One with this many attempts that have run for a while, and are placed.
    fn filled(attempts: u32) -> Self {
        let mut pc = Self {
            places: Places::default(),
            now: 10_000,
            load: None,
            whole: true,
            attempts: BTreeMap::new(),
        };
        for index in 0..attempts {
            pc.start(index);
        }
        assert_eq!(pc.look(0), vec![], "they have just begun");
        assert_eq!(pc.look(PLACE_AFTER.ms).len(), attempts as usize);
        pc
    }

    fn start(&mut self, index: u32) {
        let standing = Standing {
            cpus: Cpus::ONE,
            runs: true,
            since: Time { ms: self.now },
        };
        self.attempts.insert(id(index), standing);
    }

    fn run(&mut self, index: u32, runs: bool) {
        self.attempts.get_mut(&id(index)).unwrap().runs = runs;
    }

    fn look(&mut self, later: u64) -> Vec<Move> {
        self.now += later;
        self.places.look(&Look {
            now: Time { ms: self.now },
            processors: &[0, 1],
            whole: self.whole,
            load: self.load,
            attempts: &self.attempts,
        })
    }

    /// Looks ten times a second for so long; who moved, in order.
    fn watch(&mut self, ms: u64) -> Vec<Move> {
        let looks = 0..ms / 100;
        looks.flat_map(|_| self.look(100)).collect()
    }
}

#[test]
fn short_tasks_are_never_told_where_to_run() {
    let mut pc = Pc::filled(2);
    for index in 2..50 {
        pc.attempts.remove(&id(index - 1));
        pc.start(index);
        // The one that lasts has its processor all the time.
        assert_eq!(pc.look(PLACE_AFTER.ms - 1), vec![], "{index}");
    }
}

#[test]
fn the_next_task_takes_the_place_of_the_last() {
    let mut pc = Pc::filled(2);
    pc.attempts.remove(&id(0));
    assert_eq!(pc.look(100), vec![], "another may come");
    pc.start(2);
    assert_eq!(pc.look(100), vec![]);
    assert_eq!(pc.look(PLACE_AFTER.ms), vec![(id(2), Some(0))]);
    pc.attempts.remove(&id(0));
    pc.attempts.remove(&id(1));
    assert_eq!(pc.look(100), vec![]);
    assert_eq!(pc.look(PLACE_KEEP.ms), vec![(id(2), None)], "it is alone");
    assert_eq!(pc.look(100), vec![]);
}

#[test]
fn a_paused_attempt_counts_for_nothing_and_keeps_its_place() {
    let mut pc = Pc::filled(2);
    pc.run(0, false);
    pc.run(1, false);
    assert_eq!(pc.watch(30_000), vec![]);
    pc.run(0, true);
    pc.run(1, true);
    assert_eq!(pc.look(100), vec![], "they are where they were");
    pc.run(0, false);
    pc.look(100);
    assert_eq!(pc.look(PLACE_KEEP.ms), vec![(id(1), None)]);
    // Its place is still its own when another runs beside it.
    pc.run(0, true);
    assert_eq!(pc.look(100), vec![(id(1), Some(1))]);
}

#[test]
fn where_a_part_is_kept_free_all_are_let_go() {
    let mut pc = Pc::filled(2);
    pc.whole = false;
    pc.look(100);
    assert_eq!(pc.look(PLACE_KEEP.ms), vec![(id(0), None), (id(1), None)]);
    pc.whole = true;
    assert_eq!(pc.look(100).len(), 2);
}

#[test]
fn attempts_that_wait_more_than_they_run_are_let_go_for_a_while() {
    let mut pc = Pc::filled(2);
    let load = |owner, tasks| Load {
        owner,
        tasks,
        ..Load::default()
    };
    // What a desk leaves is taken to the last bit.
    pc.load = Some(load(300, 1000 - 300 - PLACE_IDLE_MAX));
    assert_eq!(pc.watch(60_000), vec![]);
    // One of them waits for its disk; a second later nobody is held.
    pc.load = Some(load(300, 350));
    let soon = 2 * PLACE_JUDGE.ms + PLACE_KEEP.ms;
    let moved = pc.watch(soon);
    assert_eq!(moved, vec![(id(0), None), (id(1), None)]);
    pc.load = Some(load(0, 1000));
    assert_eq!(pc.watch(PLACE_LOOSE.ms - soon), vec![]);
    assert_eq!(pc.watch(soon).len(), 2, "it may be another now");
}

#[test]
fn who_is_behind_a_busy_owner_changes() {
    let mut pc = Pc::filled(2);
    pc.load = Some(Load {
        owner: 500,
        tasks: 500,
        stolen: 0,
        busiest: PLACE_TAKEN,
    });
    let moved = pc.watch(PLACE_JUDGE.ms + 100);
    assert_eq!(moved, vec![(id(0), Some(1)), (id(1), Some(0))]);
    let moved = pc.watch(PLACE_JUDGE.ms + 100);
    assert_eq!(moved, vec![(id(0), Some(0)), (id(1), Some(1))]);
}
