//! What people see, letter by letter. `UPDATE_EXPECT=1 cargo test` rewrites the expected texts.

use super::*;
use expect_test::{Expect, expect};
use gleaner_model::Reason;

fn plain() -> Look {
    Look {
        colour: false,
        width: None,
        now: "2026-01-02T03:04:05Z".parse().unwrap(),
    }
}

fn check(text: &str, expected: &Expect) {
    expected.assert_eq(text);
}

#[test]
fn jobs_look_like_this() {
    check(
        &jobs::list(&[samples::job()], plain()),
        &expect![[r#"
        JOB  NAME       STATE    DONE   RUNNING  FAILED  USER  AGE         TOOK        REASON
        7    screening  running  12/40  3        1       ana   4 min 05 s  4 min 04 s
    "#]],
    );
    check(
        &jobs::one(&samples::job(), plain()),
        &expect![[r#"
        JOB        7
        name       screening
        state      running
        user       ana
        priority   0
        tag        project = hiv
        tasks      40
          ready    24
          running  3
          done     12
          failed   1
        submitted  2026-01-02T03:00:00Z
        started    2026-01-02T03:00:01Z
        took       4 min 04 s
        CPU time   13 min 32 s
    "#]],
    );
    check(
        &jobs::list(&[], plain()),
        &expect![[r#"
        no jobs yet; `gleaner run -- CMD` or `gleaner submit FILE` makes one
    "#]],
    );
}

#[test]
fn tasks_look_like_this() {
    check(
        &tasks::list(&[samples::task()], plain()),
        &expect![[r#"
        TASK  NAME                   STATE   NODE    TRIES  CODE  CPU     WALL    REASON
        7.3   ligand=a.pdbqt seed=4  failed  b12-03  3            12.5 s  13.0 s  limit memory passed
    "#]],
    );
    let reason = Reason::Limit {
        limit: LimitKind::Memory,
    };
    check(
        &tasks::one(&samples::task_ended(reason), plain()),
        &expect![[r#"
            TASK  NAME                   STATE   NODE    TRIES  CODE  CPU     WALL    REASON
            7.3   ligand=a.pdbqt seed=4  failed  b12-03  3            12.5 s  13.0 s  limit memory passed

            ATTEMPT  STATE   NODE    PEAK MEMORY  REASON
            7.3.3    failed  b12-03  1 GiB        limit memory passed
            7.3.3: ran in the engine vm
            7.3.3: limit memory is 1 GiB, was 1 GiB: ended
            7.3.3: refused ptrace 2 times
        "#]],
    );
}

#[test]
fn nodes_and_tokens_look_like_this() {
    check(
        &nodes::list(&[samples::node()], plain()),
        &expect![[r#"
        NODE  NAME    STATE   RUNNING  CPUS    MEMORY          DONE  SEEN   REASON
        2     b12-03  online  3        3 of 4  3 GiB of 8 GiB  12    6.0 s
    "#]],
    );
    check(
        &nodes::one(&samples::node(), plain()),
        &expect![[r#"
        NODE          b12-03
        number        2
        state         online
        architecture  x86_64
        engines       process
        label         room = b12
        CPUs          3 of 4
        memory        3 GiB of 8 GiB
        disk          100 GiB
        running       3
        tasks done    12
        last heard    6.0 s ago
        version       0.1.0
    "#]],
    );
    check(
        &tokens::list(&[samples::token()], plain()),
        &expect![[r#"
        TOKEN  KIND  NAME    STATE  AGE
        4      node  b12-03  valid  1 d 00 h
    "#]],
    );
}

#[test]
fn colour_stands_only_where_it_is_asked_for() {
    let coloured = Look {
        colour: true,
        ..plain()
    };
    assert!(jobs::list(&[samples::job()], coloured).contains("\u{1b}["));
    assert!(!jobs::list(&[samples::job()], plain()).contains('\u{1b}'));
}

#[test]
fn every_state_of_the_pool_has_a_tone() {
    let states = gleaner_model::JobState::ALL.iter().map(|s| s.as_str());
    let states = states.chain(gleaner_model::NodeState::ALL.iter().map(|s| s.as_str()));
    for word in states.filter(|word| *word != "cancelled") {
        assert_ne!(tone(word), Tone::Plain, "{word}");
    }
}

#[test]
fn a_narrow_terminal_has_whole_words_and_fewer_columns() {
    let mut job = samples::job();
    job.name = "a name that is\nlonger than anybody needs".into();
    job.reason = "1 of 40 tasks failed; task 7.3: exit code 1".into();
    let narrow = Look {
        width: Some(66),
        ..plain()
    };
    check(
        &jobs::list(&[job.clone()], narrow),
        &expect![[r#"
            JOB  NAME                      STATE    DONE   FAILED
            7    a name that is longer t…  running  12/40  1
                1 of 40 tasks failed; task 7.3: exit code 1
        "#]],
    );
    let shown = jobs::list(
        &[job.clone()],
        Look {
            width: Some(200),
            ..plain()
        },
    );
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert!(shown.ends_with("exit code 1\n"), "{shown}");
    for width in [0, 1, 20, 40, 80] {
        let shown = jobs::list(
            &[job.clone()],
            Look {
                width: Some(width),
                ..plain()
            },
        );
        assert_eq!(shown.lines().count(), 3, "{width}: {shown}");
    }
}
