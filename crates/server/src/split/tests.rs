//! Splitting: every kind of axis, their combinations, and what is refused with which sentence.

use super::plan::JobPlan;
use super::{SplitError, SplitJob, plans::Plans, split};
use crate::images::Images;
use gleaner_blob::Blobs;
use gleaner_core::Row;
use gleaner_model::{BlobRef, Digest, JobId, Submission, Time, UserId};
use gleaner_store::{ImageRow, MemoryStore, Store};
use serde_json::{Value, json};
use std::sync::Arc;

struct Desk {
    _dir: tempfile::TempDir,
    blobs: Blobs,
    store: Arc<MemoryStore>,
    images: Vec<ImageRow>,
}

fn desk() -> Desk {
    let dir = tempfile::tempdir().unwrap();
    Desk {
        blobs: Blobs::open(&dir.path().join("blobs")).unwrap(),
        _dir: dir,
        store: Arc::new(MemoryStore::new()),
        images: Vec::new(),
    }
}

impl Desk {
    fn put(&self, content: impl AsRef<[u8]>) -> BlobRef {
        self.blobs.put_many(&[content]).unwrap()[0]
    }

    fn entry(&self, name: &str, content: &str) -> Value {
        let blob = self.put(content);
        json!({ "name": name, "digest": blob.digest, "size": blob.size, "mode": 0o640 })
    }

    fn split(&self, submission: Value) -> Result<SplitJob, SplitError> {
        let submission: Submission = serde_json::from_value(submission).unwrap();
        let images = Images::new(&self.images);
        let asked = (UserId(1), submission);
        split(self.store.as_ref(), &self.blobs, &images, asked)
    }

    /// Stores a job, forgets its plan, and compiles it again from its body.
    fn reopened(&self, job: SplitJob) -> Arc<JobPlan> {
        let row = Row::NewJob(JobId(1), Time { ms: 1 }, job.job);
        self.store.commit(&[row], &[]).unwrap();
        let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&self.store);
        Plans::new(store, self.blobs.clone()).get(JobId(1)).unwrap()
    }
}

fn sweep(axes: Value) -> Value {
    json!({ "spec": { "task": { "command": ["echo", "{a}", "{b}"] }, "sweep": axes } })
}

fn names(plan: &JobPlan) -> Vec<String> {
    (0..plan.count())
        .map(|index| plan.task_name(index))
        .collect()
}

#[test]
fn axes_combine_as_their_mode_says() {
    let desk = desk();
    for (axes, expected) in [
        (json!({}), vec![""]),
        (
            json!({ "a": { "range": [-1, 1] } }),
            vec!["a=-1", "a=0", "a=1"],
        ),
        (
            json!({ "b": { "list": ["x", 2, 0.5, true] } }),
            vec!["b=x", "b=2", "b=0.5", "b=true"],
        ),
        (
            json!({ "b": { "list": [1, 2] }, "a": { "list": ["x", "y", "z"] } }),
            vec![
                "a=x b=1", "a=x b=2", "a=y b=1", "a=y b=2", "a=z b=1", "a=z b=2",
            ],
        ),
        (
            json!({ "mode": "zip", "b": { "range": [1, 2] }, "a": { "list": ["x", "y"] } }),
            vec!["a=x b=1", "a=y b=2"],
        ),
    ] {
        let job = desk.split(sweep(axes.clone())).unwrap();
        assert_eq!(job.job.count as usize, expected.len(), "{axes}");
        assert_eq!(names(&job.plan), expected, "{axes}");
        assert_eq!(
            names(&desk.reopened(job)),
            expected,
            "{axes} after a restart"
        );
    }
}

#[test]
fn lines_are_values_each() {
    let desk = desk();
    let long: String = (0..1000).map(|n| format!("line {n}\r\n")).collect();
    for (text, count, at, value) in [
        ("one\ntwo\n", 2, 1, "two"),
        ("one\ntwo", 2, 1, "two"),
        ("one\r\ntwo\r\n", 2, 0, "one"),
        ("a\n\nb\n", 3, 1, ""),
        ("  spaced \n", 1, 0, "  spaced "),
        (&long, 1000, 777, "line 777"),
    ] {
        let mut submission = sweep(json!({ "a": { "lines": "names.txt" } }));
        submission["axes"] = json!({ "a": desk.put(text) });
        let job = desk.split(submission).unwrap();
        assert_eq!(job.job.count, count, "{text:?}");
        let plan = desk.reopened(job);
        assert_eq!(plan.task(at, 1).unwrap().values, [value]);
    }
}

#[test]
fn files_are_cut_where_their_records_end() {
    let desk = desk();
    let fasta = ">one\nAC\nGT\n>two\n\n>three\nA";
    for (text, records, per_task, expected) in [
        ("1\n2\n3\n", "lines", 2, vec!["1\n2\n", "3\n"]),
        ("1\n2\n3", "lines", 1, vec!["1\n", "2\n", "3"]),
        ("abcdefg", "bytes", 3, vec!["abc", "def", "g"]),
        ("abc", "bytes", 3, vec!["abc"]),
        (
            fasta,
            "fasta",
            1,
            vec![">one\nAC\nGT\n", ">two\n\n", ">three\nA"],
        ),
        (
            fasta,
            "fasta",
            2,
            vec![">one\nAC\nGT\n>two\n\n", ">three\nA"],
        ),
        (
            "; a comment\n>one\nA\n",
            "fasta",
            5,
            vec!["; a comment\n>one\nA\n"],
        ),
    ] {
        let axis = json!({ "split": "in/big.txt", "records": records, "per_task": per_task });
        let mut submission = sweep(json!({ "a": axis }));
        submission["axes"] = json!({ "a": desk.put(text) });
        let job = desk.split(submission).unwrap();
        let needs = job.needs.clone();
        let plan = desk.reopened(job);
        let mut cut = Vec::new();
        for index in 0..plan.count() {
            let task = plan.task(index, 1).unwrap();
            let digest = Digest(task.inputs[0].digest.as_slice().try_into().unwrap());
            assert!(needs.contains(&digest), "a piece could be swept");
            assert_eq!(task.inputs[0].name, format!("00000{index}-big.txt"));
            assert_eq!(task.inputs[0].name, task.values[0]);
            cut.push(String::from_utf8(desk.blobs.read(&digest, 1000).unwrap()).unwrap());
        }
        assert_eq!(cut, expected, "{records} {per_task}");
    }
}

#[test]
fn a_million_tasks_take_no_room_and_an_unused_value_is_not_sent() {
    let desk = desk();
    let spec = json!({
        "task": { "command": ["echo", "{{a}", "{index}", "{c}"], "env": { "X": "{a}" } },
        "sweep": { "a": { "range": [1, 1000] }, "b": { "range": [1, 1000] } },
    });
    let job = desk.split(json!({ "spec": spec })).unwrap();
    assert_eq!(job.job.count, 1_000_000);
    assert!(job.plan.memory() < 8192, "{}", job.plan.memory());
    assert!(job.job.body.len() < 2048, "{}", job.job.body.len());
    assert_eq!(job.plan.template().names, ["a", "index"]);
    assert_eq!(
        job.plan.task(999_999, 7).unwrap().values,
        ["1000", "999999"]
    );
    let plain = json!({ "task": { "command": ["true"] }, "sweep": { "a": { "range": [1, 9] } } });
    let plain = desk.split(json!({ "spec": plain })).unwrap();
    assert!(plain.plan.task(3, 1).unwrap().values.is_empty());
}

#[test]
fn a_hundred_thousand_lines_take_little_room() {
    let desk = desk();
    let text: String = (0..100_000)
        .map(|n| format!("a line of about fifty bytes, number {n:>12}\n"))
        .collect();
    let mut submission = sweep(json!({ "a": { "lines": "names.txt" } }));
    submission["axes"] = json!({ "a": desk.put(text) });
    let job = desk.split(submission).unwrap();
    assert_eq!(job.job.count, 100_000);
    assert!(job.plan.memory() < 100_000, "{}", job.plan.memory());
}

/// Each submission is refused under its key, with a sentence that holds the part.
fn refused(desk: &Desk, cases: Vec<(Value, &str, &str)>) {
    for (submission, key, part) in cases {
        match desk.split(submission.clone()) {
            Err(SplitError::Spec(error)) => {
                assert_eq!(error.key, key, "{submission} {error}");
                assert!(error.problem.contains(part), "{submission} {error}");
            }
            other => panic!("{submission} gave {:?}", other.map(|job| job.job.count)),
        }
    }
}

fn task(task: Value) -> Value {
    json!({ "spec": { "task": task } })
}

/// A task of one word, and one more table of the job file.
fn with(key: &str, value: Value) -> Value {
    let mut submission = task(json!({ "command": ["echo"] }));
    submission["spec"][key] = value;
    submission
}

#[test]
fn tasks_that_cannot_be_meant_are_refused_with_a_sentence() {
    let input =
        |name: &str, source: &str| task(json!({ "command": ["x"], "inputs": { name: source } }));
    let x = |key: &str, value: Value| {
        let mut submission = task(json!({ "command": ["x"] }));
        submission["spec"]["task"][key] = value;
        submission
    };
    let digest = Digest([7; 32]).to_string();
    let cases = vec![
        (task(json!({ "command": [] })), "task.command", "is empty"),
        (
            task(json!({ "command": ["a\u{0}"] })),
            "task.command",
            "NUL",
        ),
        (x("image", json!("debian")), "task.image", "no image"),
        (x("outputs", json!(["../x"])), "task.outputs", "leads out"),
        (x("outputs", json!(["/etc/x"])), "task.outputs", "absolute"),
        (x("stdin", json!("a/../../b")), "task.stdin", "leads out"),
        (x("stdin", json!("absent")), "task.stdin", "none of"),
        (x("env", json!({ "a=b": "c" })), "task.env", "variable"),
        (input("../a", "a"), "task.inputs.../a", "leads out"),
        (input("a", "a.dat"), "task.inputs.a", "was not sent"),
        (input("a", "https://x/y"), "task.inputs.a", "download"),
        (input("a", &digest), "task.inputs.a", "not on the server"),
        (
            with("limits", json!({ "network": true })),
            "limits.network",
            "not supported",
        ),
        (
            with("limits", json!({ "memory": 0 })),
            "limits.memory",
            "is 0",
        ),
        (
            with("verify", json!({ "replicas": 2 })),
            "verify.replicas",
            "not supported",
        ),
        (
            with("verify", json!({ "command": ["x"] })),
            "verify.command",
            "not supported",
        ),
        (
            with("retry", json!({ "attempts": 0 })),
            "retry.attempts",
            "write 1 or more",
        ),
        (
            with(
                "collect",
                json!({ "merge": { "concat": "../all", "from": "x" } }),
            ),
            "collect.merge.concat",
            "leads out",
        ),
        (
            with("collect", json!({ "merge": { "command": [] } })),
            "collect.merge.command",
            "is empty",
        ),
    ];
    refused(&desk(), cases);
}

#[test]
fn patterns_that_are_no_globs_are_refused_with_a_sentence() {
    let of_task = |key: &str, glob: &str| {
        let mut submission = task(json!({ "command": ["x"] }));
        submission["spec"]["task"][key] = json!(["good*", glob]);
        submission
    };
    let merge = json!({ "merge": { "command": ["cat"], "outputs": ["{a,b"] } });
    let cases = vec![
        (of_task("outputs", "[x"), "task.outputs", "is not a glob"),
        (
            of_task("checkpoint_files", "[z-a]"),
            "task.checkpoint_files",
            "is not a glob",
        ),
        (
            with("collect", merge),
            "collect.merge.outputs",
            "not a glob",
        ),
    ];
    refused(&desk(), cases);
}

#[test]
fn what_cannot_be_saved_is_refused_with_a_sentence() {
    let key = "task.checkpoint";
    let cases = vec![
        (
            task(json!({ "command": ["x"], "checkpoint": "1min" })),
            key,
            "checkpoint_files",
        ),
        (
            task(json!({ "command": ["x"], "engine": "wasm", "checkpoint": "1min" })),
            key,
            "engine wasm",
        ),
        (
            task(json!({ "command": ["x"], "engine": "vm", "checkpoint": "10ms" })),
            key,
            "shorter than 1.0 s",
        ),
        (
            task(json!({ "command": ["x"], "checkpoint_files": ["/abs"] })),
            "task.checkpoint_files",
            "absolute",
        ),
    ];
    refused(&desk(), cases);
}

#[test]
fn a_guest_that_is_to_be_saved_whole_needs_a_node_that_can() {
    let table = [
        (json!({ "command": ["x"], "engine": "vm" }), false),
        (
            json!({ "command": ["x"], "engine": "vm", "checkpoint": "1min" }),
            true,
        ),
        (
            json!({ "command": ["x"], "engine": "vm", "checkpoint": "1min", "checkpoint_files": ["s"] }),
            false,
        ),
        (
            json!({ "command": ["x"], "checkpoint": "1min", "checkpoint_files": ["s"] }),
            false,
        ),
    ];
    for (written, saves) in table {
        let job = desk().split(task(written.clone())).unwrap().job;
        assert_eq!(job.need.saves, saves, "{written}");
    }
}

#[test]
fn sweeps_of_nothing_or_of_too_much_are_refused_with_a_sentence() {
    let cases = vec![
        (
            sweep(json!({ "a": { "list": [] } })),
            "sweep.a",
            "has no values",
        ),
        (
            sweep(json!({ "a": { "range": [1, 1_000_000_000] } })),
            "sweep.a",
            "makes 1000000000 tasks; one job may have 1000000",
        ),
        (
            sweep(json!({ "a": { "range": [i64::MIN, i64::MAX] } })),
            "sweep.a",
            "makes 18446744073709551616 tasks",
        ),
        (
            sweep(json!({ "a": { "range": [1, 100_000] }, "b": { "range": [1, 10_000] } })),
            "sweep",
            "makes 1000000000 tasks",
        ),
        (
            sweep(json!({ "mode": "zip", "a": { "range": [1, 2] }, "b": { "range": [1, 3] } })),
            "sweep.mode",
            "`a` has 2 and `b` has 3",
        ),
    ];
    refused(&desk(), cases);
}

#[test]
fn axes_whose_files_are_not_fit_are_refused_with_a_sentence() {
    let desk = desk();
    let axis = |axis: Value, blob: BlobRef| {
        let mut submission = sweep(json!({ "f": axis }));
        submission["axes"] = json!({ "f": blob });
        submission
    };
    let lines = |content: &[u8]| axis(json!({ "lines": "n.txt" }), desk.put(content));
    let files = |entries: &[Value]| {
        let text: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
        axis(json!({ "files": "*" }), desk.put(text))
    };
    let one = desk.entry("one", "1");
    let never = json!({ "name": "never", "digest": Digest([7; 32]), "size": 1, "mode": 420 });
    let cases = vec![
        (
            sweep(json!({ "f": { "lines": "n.txt" } })),
            "sweep.f",
            "was not sent",
        ),
        (lines(b""), "sweep.f", "has no values"),
        (lines(b"a\n\xff"), "sweep.f", "line 2 is not UTF-8"),
        (lines(b"a\0"), "sweep.f", "NUL"),
        (lines(&[b'x'; 20_000]), "sweep.f", "longer than"),
        (files(&[]), "sweep.f", "has no values"),
        (files(&[json!(7)]), "sweep.f", "no file entry"),
        (
            files(&[one.clone(), one.clone()]),
            "sweep.f",
            "stands twice",
        ),
        (files(&[never]), "sweep.f", "was not uploaded"),
        (files(&[desk.entry("../x", "x")]), "sweep.f", "leads out"),
    ];
    refused(&desk, cases);
}

#[test]
fn an_image_that_nobody_made_is_told_with_the_nearest_name() {
    let mut desk = desk();
    let submission = || {
        let mut submission = task(json!({ "command": ["x"] }));
        submission["spec"]["task"]["image"] = json!("debain");
        submission
    };
    let error = desk.split(submission()).unwrap_err().to_string();
    assert!(error.contains("gleaner image import"), "{error}");
    let names = ["alpine", "debian", "vina"];
    let row = |name: &str| ImageRow {
        name: name.to_owned(),
        blob: desk.put(name),
        created: Time { ms: 1 },
        user: UserId(1),
        note: String::new(),
    };
    desk.images = names.iter().map(|name| row(name)).collect();
    let error = desk.split(submission()).unwrap_err().to_string();
    assert!(error.contains("did you mean \"debian\"?"), "{error}");
}

#[test]
fn inputs_that_vary_are_all_looked_up_before_the_job_is_taken() {
    let desk = desk();
    let submission = |last: &str| {
        json!({
            "spec": {
                "task": { "command": ["x"], "inputs": { "in-{a}": "dir/{a}.dat" } },
                "sweep": { "a": { "range": [1, 2] } },
            },
            "files": [desk.entry("dir/1.dat", "one"), desk.entry(last, "two")],
        })
    };
    let job = desk.split(submission("dir/2.dat")).unwrap();
    let task = job.plan.task(1, 1).unwrap();
    assert_eq!(
        (task.inputs[0].name.as_str(), task.inputs[0].mode),
        ("in-2", 0o640)
    );
    assert_eq!(task.inputs[0].digest, desk.put("two").digest.0);
    let error = desk.split(submission("dir/3.dat")).unwrap_err();
    assert!(
        error.to_string().contains("dir/2.dat was not sent"),
        "{error}"
    );
}

#[test]
fn a_file_of_an_axis_must_not_hide_an_input_of_every_task() {
    let desk = desk();
    let listing = desk.put(format!("{}\n", desk.entry("same", "1")));
    let submission = json!({
        "spec": {
            "task": { "command": ["x"], "inputs": { "same": "other" } },
            "sweep": { "f": { "files": "*" } },
        },
        "files": [desk.entry("other", "2")],
        "axes": { "f": listing },
    });
    let error = desk.split(submission).unwrap_err();
    assert!(
        error.to_string().contains("also an input of every task"),
        "{error}"
    );
}
