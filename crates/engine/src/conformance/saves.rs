//! Promises about attempts that are saved, one function each.

use super::{Bench, Case, DEADLINE, Files, read_all};
use crate::{AfterSave, AttemptSpec, Control, EngineError, Saves};
use gleaner_model::{AttemptId, Bytes, CheckpointKind, Reason};
use std::time::{Duration, Instant};

/// Every promise, by name.
pub(super) const CASES: &[(&str, Case)] = &[
    (
        "what a program saves itself by goes into its next attempt",
        saves_itself,
    ),
    ("a program told to end may save itself", saves_when_told),
    ("running programs are saved standing still", saved_running),
    ("saved files stay within scratch", saved_within),
];

fn text(files: &Files, name: &str) -> String {
    let bytes = files.get(name).map(Vec::as_slice).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

fn saved(bench: &Bench, attempt: AttemptId) -> Result<Files, EngineError> {
    bench.engine().saved(attempt).map(read_all)
}

/// A program that does one step each time it is started, and says 85 until it is through.
const STEPS: &str = "n=$(cat state/n 2>/dev/null || echo 0); n=$((n+1)); mkdir -p state; \
     echo $n > state/n; echo $n >> log; [ $n -ge 3 ] || exit 85; cat log > out";

fn saves_itself(bench: &Bench) {
    let mut carried: Vec<(String, Vec<u8>)> = Vec::new();
    for step in 1..=3 {
        let mut spec = bench.script(STEPS);
        spec.outputs = vec!["out".to_owned()];
        spec.saving.files = vec!["state/*".to_owned(), "log".to_owned()];
        let inputs = carried.iter();
        spec.inputs = inputs
            .map(|(name, content)| bench.input(name, content, 0o644))
            .collect();
        bench.start(&spec);
        let ending = bench.ending(spec.attempt);
        let code = if step < 3 { 85 } else { 0 };
        assert_eq!(ending.reason, Reason::Exit { code }, "{ending:?}");
        if step < 3 {
            let files = saved(bench, spec.attempt);
            let files = files.unwrap_or_else(|error| panic!("{error}"));
            let names: Vec<&str> = files.keys().map(String::as_str).collect();
            assert_eq!(names, ["log", "state/n"], "no streams among them");
            carried = files.into_iter().collect();
        } else {
            let files = bench.engine().collect(spec.attempt).map(read_all);
            let files = files.unwrap_or_default();
            assert_eq!(text(&files, "out"), "1\n2\n3\n", "each step done once");
        }
        bench.engine().discard(spec.attempt);
    }
}

/// Files that belong together; a copy of a program that runs on would have one without the other.
const PAIR: &str = "i=0; while :; do i=$((i+1)); echo $i > a; echo $i > b; sleep 0.01; done";

fn looping(bench: &Bench, script: &str) -> AttemptSpec {
    let mut spec = bench.script(script);
    spec.saving.files = vec!["a".to_owned(), "b".to_owned()];
    spec
}

fn saves_when_told(bench: &Bench) {
    let script = "trap 'echo told >> b; sleep 1; echo 7 > a; exit 85' TERM; echo ready; \
                  while :; do sleep 0.05; done";
    let spec = looping(bench, script);
    bench.start(&spec);
    bench.started(spec.attempt);
    bench.spoken(spec.attempt);
    // Whoever asks does so again where that takes a while.
    for _ in 0..3 {
        let stop = Control::Stop { grace_ms: 60_000 };
        let told = bench.engine().control(spec.attempt, stop);
        assert!(told.is_ok(), "{told:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let ending = bench.ending(spec.attempt);
    assert_eq!(ending.reason, Reason::Exit { code: 85 }, "{ending:?}");
    let files = saved(bench, spec.attempt).unwrap_or_default();
    assert_eq!(
        (text(&files, "a"), text(&files, "b")),
        ("7\n".into(), "told\n".into()),
        "each of its processes is told once"
    );
    bench.engine().discard(spec.attempt);
}

/// Saves once; what came of it.
fn save(bench: &Bench, attempt: AttemptId, before: usize) -> Result<CheckpointKind, String> {
    let asked = bench.engine().save(attempt, AfterSave::GoOn);
    assert!(asked.is_ok(), "{asked:?}");
    bench.saved(attempt, before)
}

fn saved_running(bench: &Bench) {
    if bench.engine().saves() != Saves::Files {
        return;
    }
    let spec = looping(bench, PAIR);
    bench.start(&spec);
    bench.started(spec.attempt);
    let number = |files: &Files, name: &str| text(files, name).trim().parse::<u64>().ok();
    let (mut last, mut done, mut round) = (0, 0, 0);
    let end = Instant::now() + DEADLINE;
    while done < 5 && Instant::now() < end {
        // Until the program has written both, there is nothing to save; and where no kernel
        // freezes, processes that come and go may not stand still in time. Both are told.
        let outcome = save(bench, spec.attempt, round);
        round += 1;
        if let Err(why) = outcome {
            let known = ["is missing", "stand still"];
            assert!(known.iter().any(|known| why.contains(known)), "{why}");
            continue;
        }
        let files = saved(bench, spec.attempt).unwrap_or_default();
        // A file that was just opened to be written is empty.
        if let (Some(a), Some(b)) = (number(&files, "a"), number(&files, "b")) {
            assert!(
                a == b || a == b + 1,
                "{a} and {b} were not saved at one moment"
            );
            assert!(a >= last, "an older copy");
            (last, done) = (a, done + 1);
        }
    }
    assert_eq!(done, 5, "it was hardly ever saved");
    let stopped = bench
        .engine()
        .control(spec.attempt, Control::Stop { grace_ms: 0 });
    assert!(stopped.is_ok(), "{stopped:?}");
    assert_eq!(bench.ending(spec.attempt).reason, Reason::Cancelled);
    // And now as the program left them.
    let files = saved(bench, spec.attempt).unwrap_or_default();
    let a = number(&files, "a");
    assert!(a.is_none_or(|a| a >= last), "{a:?} after {last}");
    bench.engine().discard(spec.attempt);
}

fn saved_within(bench: &Bench) {
    for (script, says) in [
        ("ln -s /etc/passwd a; echo x > b; exit 85", "symbolic link"),
        ("echo x > a; exit 85", "is missing"),
        ("mkdir a; echo x > b; exit 85", "directory"),
        (
            "head -c 3m /dev/zero > a; echo x > b; exit 85",
            "limits.output",
        ),
    ] {
        let mut spec = looping(bench, script);
        spec.limits.output = Bytes(1 << 20);
        bench.start(&spec);
        bench.ending(spec.attempt);
        match saved(bench, spec.attempt) {
            Err(EngineError::Output { problem, .. }) => {
                assert!(
                    problem.contains(says) || problem.contains("is missing"),
                    "{problem}"
                );
            }
            other => panic!("{script} gave {other:?}"),
        }
        bench.engine().discard(spec.attempt);
    }
}
