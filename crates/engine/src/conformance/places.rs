//! The promise about attempts that are held to a processor, seen from outside of them: guests and
//! runners of WebAssembly show their programs none of the PC's processors.

use super::{Bench, Case, DEADLINE};
use crate::AttemptSpec;
use gleaner_model::AttemptId;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

/// Every promise, by name.
pub(super) const CASES: &[(&str, Case)] = &[(
    "an attempt is held to a processor, and let go",
    held_to_a_processor,
)];

/// Looks at what was forked since it was placed, and the time between them.
const LOOKS: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(5);

fn held_to_a_processor(bench: &Bench) {
    // Two processes that stay and one that is always another.
    let script = "while :; do echo x; sleep 0.01; done & while :; do :; done";
    is_held(bench, &bench.script(script));
}

/// Holds this attempt, which must say something when it is ready, to the last of our processors,
/// and lets it go again; all its threads follow at once.
///
/// # Panics
/// Where one does not.
pub fn is_held(bench: &Bench, spec: &AttemptSpec) {
    let own = processors("self").unwrap_or_default();
    let last = own.rsplit([',', '-']).next().unwrap_or_default();
    let others = caged();
    bench.start(spec);
    bench.started(spec.attempt);
    bench.spoken(spec.attempt);
    let of_it = || {
        let all = caged();
        all.difference(&others).copied().collect::<BTreeSet<u32>>()
    };
    let everywhere = |wanted: &str| {
        let mut seen = 0;
        for process in of_it() {
            for thread in names(&format!("/proc/{process}/task")) {
                // One that has ended meanwhile is nowhere.
                let Some(found) = processors(&format!("{process}/task/{thread}")) else {
                    continue;
                };
                assert_eq!(found, wanted, "thread {thread} of process {process}");
                seen += 1;
            }
        }
        seen
    };
    assert!(everywhere(&own) > 0, "nothing of it is seen");
    for _ in 0..2 {
        bench.engine().place(spec.attempt, last.parse().ok());
        obeyed(bench, spec.attempt);
        for _ in 0..LOOKS {
            assert!(everywhere(last) > 0);
            std::thread::sleep(BETWEEN);
        }
        bench.engine().place(spec.attempt, None);
        obeyed(bench, spec.attempt);
        assert!(everywhere(&own) > 0);
    }
    // A processor that no PC has is no processor, and changes nothing.
    for none in [1_000_000, u32::MAX] {
        bench.engine().place(spec.attempt, Some(none));
    }
    obeyed(bench, spec.attempt);
    assert!(everywhere(&own) > 0);
    bench.engine().discard(spec.attempt);
    bench.ending(spec.attempt);
    bench.engine().place(spec.attempt, None);
}

/// Orders are obeyed one after the other, and this one is answered.
fn obeyed(bench: &Bench, attempt: AttemptId) {
    let end = Instant::now() + DEADLINE;
    while let Err(error) = bench.engine().usage(attempt) {
        assert!(Instant::now() < end, "{error}");
    }
}

fn names(dir: &str) -> Vec<u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// A line of a process' or thread's `status` (proc(5)).
fn status(of: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{of}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().to_owned())
}

fn processors(of: &str) -> Option<String> {
    status(of, "Cpus_allowed_list:")
}

/// The processes below this one that have a number of their own, too: those in a cage.
fn caged() -> BTreeSet<u32> {
    let depth = |of: &str| Some(status(of, "NSpid:")?.split_whitespace().count());
    let ours = depth("self");
    let parents: BTreeMap<u32, u32> = names("/proc")
        .into_iter()
        .filter_map(|process| {
            let parent = status(&process.to_string(), "PPid:")?;
            Some((process, parent.parse().ok()?))
        })
        .collect();
    let below = |process: &u32| {
        let mut above = std::iter::successors(Some(*process), |one| parents.get(one).copied());
        above.any(|one| one == std::process::id())
    };
    let all = parents.keys().copied().filter(below);
    all.filter(|process| depth(&process.to_string()) > ours)
        .collect()
}
