//! Does a job file do what it says: sweeps, placeholders, inputs, outputs, limits, merges?

use crate::pool::{Desk, Pool, begun};

/// Standard outputs of a job's tasks, in order.
fn stdouts(desk: &Desk, tasks: usize) -> Vec<String> {
    (0..tasks)
        .map(|index| desk.read(&format!("out/{index}/stdout")))
        .collect()
}

#[test]
fn a_job_without_a_sweep_is_one_task() {
    let desk = Desk::new();
    let (id, out) = Pool::shared().submit_and_wait(
        &desk,
        "[task]\ncommand = [\"echo\", \"{index}\", \"{axis}\"]\n",
    );
    out.exits(0);
    assert_eq!(stdouts(&desk, 1), ["0 {axis}\n"]);
    let job = Pool::shared().job(&id);
    assert_eq!(
        (job["name"].as_str(), job["state"].as_str()),
        (Some("echo"), Some("done"))
    );
}

#[test]
fn axes_multiply_and_the_last_runs_fastest() {
    let desk = Desk::new();
    let job = r#"
        [task]
        command = ["echo", "{index}:{letter}{number} {{literal} {unknown}"]
        [sweep]
        letter = { list = ["a", "b"] }
        number = { range = [-1, 1] }
    "#;
    Pool::shared().submit_and_wait(&desk, job).1.exits(0);
    let expected: Vec<String> = ["a-1", "a0", "a1", "b-1", "b0", "b1"]
        .iter()
        .enumerate()
        .map(|(i, values)| format!("{i}:{values} {{literal}} {{unknown}}\n"))
        .collect();
    assert_eq!(stdouts(&desk, 6), expected);
}

#[test]
fn zipped_axes_go_together() {
    let desk = Desk::new();
    let job = r#"
        [task]
        command = ["echo", "{a}{b}"]
        [sweep]
        mode = "zip"
        a = { range = [1, 3] }
        b = { list = ["x", 2.5, true] }
    "#;
    Pool::shared().submit_and_wait(&desk, job).1.exits(0);
    assert_eq!(stdouts(&desk, 3), ["1x\n", "22.5\n", "3true\n"]);
}

#[test]
fn files_are_inputs_of_their_tasks() {
    let desk = Desk::new();
    desk.write("data/b.txt", "B")
        .write("data/a.txt", "A")
        .write("data/not.dat", "-");
    let job = "[task]\ncommand = [\"sh\", \"-c\", \"ls | wc -l; cat \\\"$0\\\"\", \"{f}\"]\n[sweep]\nf = { files = \"data/*.txt\" }\n";
    Pool::shared().submit_and_wait(&desk, job).1.exits(0);
    assert_eq!(stdouts(&desk, 2), ["1\nA", "1\nB"]);
}

#[test]
fn lines_are_values() {
    let desk = Desk::new();
    desk.write("names.txt", "first line\nsecond\nno newline at the end");
    let job = "[task]\ncommand = [\"printf\", \"%s\", \"<{n}>\"]\n[sweep]\nn = { lines = \"names.txt\" }\n";
    Pool::shared().submit_and_wait(&desk, job).1.exits(0);
    assert_eq!(
        stdouts(&desk, 3),
        ["<first line>", "<second>", "<no newline at the end>"]
    );
}

#[test]
fn a_split_file_loses_nothing() {
    let desk = Desk::new();
    let lines: String = (0..25).map(|i| format!("line {i}\n")).collect();
    desk.write("lines.txt", &lines);
    desk.write("seq.fasta", ">a\nACGT\nAC\n>b\nG\n>c\nTTT\n");
    let table = [
        (
            "lines.txt",
            "records = \"lines\", per_task = 10",
            3,
            lines.clone(),
        ),
        (
            "lines.txt",
            "records = \"bytes\", per_task = 100",
            2,
            lines.clone(),
        ),
        (
            "seq.fasta",
            "records = \"fasta\", per_task = 2",
            2,
            desk.read("seq.fasta"),
        ),
    ];
    for (file, how, pieces, whole) in table {
        let job = format!(
            "[task]\ncommand = [\"cat\", \"{{p}}\"]\n[sweep]\np = {{ split = \"{file}\", {how} }}\n\
             [collect]\nmerge = {{ concat = \"whole\", from = \"stdout\" }}\n"
        );
        Pool::shared().submit_and_wait(&desk, &job).1.exits(0);
        assert_eq!(desk.read("out/whole"), whole, "{file} {how}");
        assert!(desk.exists(&format!("out/{}/stdout", pieces - 1)), "{how}");
        assert!(!desk.exists(&format!("out/{pieces}/stdout")), "{how}");
        std::fs::remove_dir_all(desk.path().join("out")).unwrap();
    }
}

#[test]
fn inputs_keep_their_mode_and_their_names() {
    let desk = Desk::new();
    desk.script("tools/hello.sh", "#!/bin/sh\necho hello from $0\n")
        .write("data/x", "plain\n");
    let job = r#"
        [task]
        command = ["sh", "-c", "./bin/hello; test -x in/data && echo executable; cat in/data"]
        inputs = { "bin/hello" = "tools/hello.sh", "in/data" = "data/x" }
    "#;
    Pool::shared().submit_and_wait(&desk, job).1.exits(0);
    assert_eq!(stdouts(&desk, 1), ["hello from ./bin/hello\nplain\n"]);
}

#[test]
fn a_program_of_ones_own_is_sent_along() {
    let desk = Desk::new();
    desk.script("mine.sh", "#!/bin/sh\necho mine $1\n");
    let job = "[task]\ncommand = [\"./mine.sh\", \"{i}\"]\n[sweep]\ni = { range = [1, 2] }\n";
    Pool::shared().submit_and_wait(&desk, job).1.exits(0);
    assert_eq!(stdouts(&desk, 2), ["mine 1\n", "mine 2\n"]);
}

#[test]
fn standard_input_and_environment() {
    let desk = Desk::new();
    desk.write("q.txt", "from stdin\n");
    let job = r#"
        [task]
        command = ["sh", "-c", "cat; echo $SEED; echo $LANG"]
        inputs = { "query" = "q.txt" }
        stdin = "query"
        env = { SEED = "s{i}" }
        [sweep]
        i = { range = [4, 4] }
    "#;
    Pool::shared().submit_and_wait(&desk, job).1.exits(0);
    assert_eq!(stdouts(&desk, 1), ["from stdin\ns4\nC.UTF-8\n"]);
}

#[test]
fn outputs_come_home_by_glob() {
    let desk = Desk::new();
    let job = r#"
        [task]
        command = ["sh", "-c", "mkdir -p d; echo 1 > d/a.out; echo 2 > b.out; echo 3 > c.log; echo e >&2"]
        outputs = ["*.out", "d/*.out"]
    "#;
    Pool::shared().submit_and_wait(&desk, job).1.exits(0);
    let list: Vec<String> = desk
        .list()
        .into_iter()
        .filter(|name| name.starts_with("out/"))
        .collect();
    assert_eq!(
        list,
        [
            "out/0/b.out",
            "out/0/d/a.out",
            "out/0/stderr",
            "out/0/stdout"
        ]
    );
    assert_eq!(desk.read("out/0/stderr"), "e\n");
}

#[test]
fn a_missing_output_fails_the_task_and_is_named() {
    let desk = Desk::new();
    let job =
        "[task]\ncommand = [\"true\"]\noutputs = [\"never-written.txt\"]\n[retry]\nattempts = 1\n";
    let (id, out) = Pool::shared().submit_and_wait(&desk, job);
    out.exits(1);
    let task = &Pool::shared().tasks(&id)[0];
    assert!(
        task["reason"]
            .as_str()
            .unwrap()
            .contains("never-written.txt"),
        "{task}"
    );
}

#[test]
fn failures_are_tried_again_and_counted() {
    let desk = Desk::new();
    let job = "[task]\ncommand = [\"sh\", \"-c\", \"exit 9\"]\n[retry]\nattempts = 2\n";
    let (id, out) = Pool::shared().submit_and_wait(&desk, job);
    out.exits(1);
    let task = Pool::shared().task(&format!("{id}.0"));
    assert_eq!(begun(&task).len(), 2, "{task}");
    assert_eq!(task["exit_code"], 9, "{task}");
    assert_eq!(Pool::shared().job(&id)["state"], "failed");
}

#[test]
fn concatenation_is_in_task_order() {
    let desk = Desk::new();
    let job = r#"
        [task]
        command = ["sh", "-c", "echo {i} > part; echo noise"]
        outputs = ["part"]
        [sweep]
        i = { range = [0, 60] }
        [collect]
        merge = { concat = "all.txt", from = "part" }
    "#;
    Pool::shared().submit_and_wait(&desk, job).1.exits(0);
    let expected: String = (0..=60).map(|i| format!("{i}\n")).collect();
    assert_eq!(desk.read("out/all.txt"), expected);
}

#[test]
fn a_merge_command_sees_every_output_in_order() {
    let desk = Desk::new();
    desk.write("header.txt", "sum of\n");
    let job = r#"
        [task]
        command = ["sh", "-c", "echo {i} > part"]
        outputs = ["part"]
        [sweep]
        i = { range = [0, 11] }
        [collect.merge]
        command = ["sh", "-c", "cat header \"$@\" > sum; cat 7/part >> sum", "merge", "{outputs}"]
        inputs = { "header" = "header.txt" }
        outputs = ["sum"]
    "#;
    Pool::shared().submit_and_wait(&desk, job).1.exits(0);
    let numbers: String = (0..=11).map(|i| format!("{i}\n")).collect();
    assert_eq!(desk.read("out/sum"), format!("sum of\n{numbers}7\n"));
}

#[test]
fn json_is_the_same_shape() {
    let desk = Desk::new();
    desk.write("job.json", r#"{ "job": { "name": "j" }, "task": { "command": ["echo", "{i}"] }, "sweep": { "i": { "range": [5, 6] } } }"#);
    let pool = Pool::shared();
    let out = pool
        .gleaner(&desk, &["submit", "job.json", "--wait"])
        .exits(0);
    let second = desk
        .list()
        .into_iter()
        .find(|name| name.ends_with("/1/stdout"));
    assert_eq!(
        desk.read(&second.unwrap_or_else(|| panic!("{out:?} {:?}", desk.list()))),
        "6\n"
    );
}

#[test]
fn submit_and_wait_fetches_by_itself() {
    let desk = Desk::new();
    desk.write("job.toml", "[job]\nname = \"w\"\n[task]\ncommand = [\"echo\", \"{i}\"]\n[sweep]\ni = { range = [1, 3] }\n[collect]\nmerge = { concat = \"all\", from = \"stdout\" }\n");
    Pool::shared()
        .gleaner(&desk, &["submit", "job.toml", "--wait"])
        .exits(0);
    let merged = desk
        .list()
        .into_iter()
        .find(|name| name.ends_with("/all"))
        .unwrap();
    assert!(merged.starts_with("results-"), "{merged}");
    assert_eq!(desk.read(&merged), "1\n2\n3\n");
}

#[test]
fn memory_beyond_the_limit_ends_the_task_and_says_so() {
    let desk = Desk::new();
    let job = r#"
        [task]
        command = ["perl", "-e", "my $x = 'x' x (400 << 20); sleep 1"]
        [limits]
        memory = "64MiB"
        [retry]
        attempts = 1
    "#;
    let (id, out) = Pool::shared().submit_and_wait(&desk, job);
    out.exits(1);
    let task = &Pool::shared().tasks(&id)[0];
    assert!(
        task["reason"].as_str().unwrap().contains("memory"),
        "{task}"
    );
}

#[test]
fn many_small_tasks_are_all_there_once() {
    let desk = Desk::new();
    let tasks = 300;
    let job = format!(
        "[task]\ncommand = [\"echo\", \"{{i}}\"]\n[sweep]\ni = {{ range = [1, {tasks}] }}\n\
         [collect]\nmerge = {{ concat = \"all\", from = \"stdout\" }}\n"
    );
    Pool::shared().submit_and_wait(&desk, &job).1.exits(0);
    let expected: String = (1..=tasks).map(|i| format!("{i}\n")).collect();
    assert_eq!(desk.read("out/all"), expected);
}
