//! Submit files as people write them, and what becomes of them.

use super::*;
use proptest::prelude::*;
use std::fs;

/// A folder with the files that the texts name.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("data/deep")).unwrap();
    for name in [
        "run.sh",
        "data/a.dat",
        "data/b.dat",
        "data/deep/c.dat",
        "shared.txt",
    ] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    fs::write(
        dir.path().join("list.txt"),
        "# names\na.dat, 1 2\n\nb.dat, 3\n",
    )
    .unwrap();
    dir
}

fn job(text: &str) -> Value {
    let dir = folder();
    read(text, "sweep", dir.path()).unwrap().job
}

fn warnings(text: &str) -> String {
    let dir = folder();
    read(text, "sweep", dir.path()).unwrap().warnings.join("\n")
}

fn problem(text: &str) -> (usize, String) {
    let dir = folder();
    let wrong = read(text, "sweep", dir.path()).unwrap_err();
    (wrong.line, wrong.problem)
}

#[test]
fn one_program_many_times() {
    let text = "# a comment\n\
        Universe   = vanilla\n\
        Executable = run.sh\n\
        Arguments  = -seed $(Process) \\\n   -n $(steps)\n\
        steps = $(base)000\n\
        base = 10\n\
        request_cpus = 2\nRequestMemory = 2GB\nrequest_disk = 100\n\
        output = out.$(Cluster).$(Process)\nlog = log\n\
        transfer_input_files = shared.txt\n\
        transfer_output_files = res.dat, plots/\n\
        max_retries = 2\n+ProjectName = \"x\"\n\
        queue 10\n";
    assert_eq!(
        job(text),
        json!({
            "job": { "name": "sweep" },
            "task": {
                "command": ["./run.sh", "-seed", "{index}", "-n", "10000"],
                "inputs": { "shared.txt": "shared.txt" },
                "outputs": ["res.dat", "plots/**"],
            },
            "require": {},
            "retry": { "attempts": 3 },
            "limits": { "cpus": 2, "memory": "2GiB", "disk": "100KiB" },
            "sweep": { "mode": "zip", "Process": { "range": [0, 9] } },
        })
    );
    let told = warnings(text);
    assert!(told.contains("log, output, +ProjectName"), "{told}");
}

#[test]
fn a_single_task_has_no_sweep() {
    let text = "executable = /bin/echo\ntransfer_executable = false\narguments = \"'a {b}' $(Process)\"\nqueue\n";
    let job = job(text);
    assert_eq!(job["task"]["command"], json!(["/bin/echo", "a {{b}", "0"]));
    assert_eq!(job.get("sweep"), None);
    assert!(warnings(text).contains("no file comes home"));
}

#[test]
fn items_come_from_lists_lines_and_files() {
    let head = "executable = run.sh\ninput = $(f)\nqueue ";
    let values = |rest: &str| job(&format!("{head}{rest}\n"))["sweep"]["f"]["list"].clone();
    assert_eq!(values("f in (x, y z)"), json!(["x", "y", "z"]));
    assert_eq!(values("f in (x,\n y\n)"), json!(["x", "y"]));
    assert_eq!(values("f from (\n x\n y\n)"), json!(["x", "y"]));
    let found = json!(["data/a.dat", "data/b.dat"]);
    assert_eq!(values("f matching data/*.dat"), found);
    assert_eq!(values("f matching files data/*.dat, nothing*"), found);
    assert_eq!(values("f in [1:] (x, y, z)"), json!(["y", "z"]));
    assert_eq!(values("f in [::2] (x, y, z)"), json!(["x", "z"]));
    assert_eq!(values("2 f in (x, y)"), json!(["x", "x", "y", "y"]));
}

#[test]
fn values_of_a_line_go_to_their_names_and_names_may_be_commands() {
    let text = "executable = run.sh\ntransfer_input_files = data/$(file)\n\
        queue file, arguments from list.txt\n";
    let job = job(text);
    let task = &job["task"];
    // The tasks have two arguments and one: a shell tells them apart.
    let call = "exec \"$0\" {arguments_2}";
    assert_eq!(task["command"], json!(["/bin/sh", "-c", call, "./run.sh"]));
    assert_eq!(
        job["sweep"]["arguments_2"]["list"],
        json!(["'1' '2'", "'3'"])
    );
    assert_eq!(task["inputs"]["run.sh"], json!("./run.sh"));
    assert_eq!(task["inputs"]["{file}"], json!("data/{file}"));
}

#[test]
fn as_many_arguments_in_each_task_are_words_of_the_command() {
    let text = "executable = run.sh\narguments = \"-v '$(a)' $(Step)\"\n\
        queue 2 a from (\n two words\n other words\n)\n";
    let job = job(text);
    let command = json!(["./run.sh", "-v", "{a}", "{Step}"]);
    assert_eq!(job["task"]["command"], command);
    let words = json!(["two words", "two words", "other words", "other words"]);
    assert_eq!(job["sweep"]["a"]["list"], words);
    assert_eq!(job["sweep"]["Step"]["list"], json!(["0", "1", "0", "1"]));
}

#[test]
fn paths_come_apart_in_macros_and_names() {
    let text = "executable = run.sh\narguments = $Fn(f) $(f:none)\ninput = $(f)\n\
        queue f in (data/a.dat, data/b.dat)\n";
    let job = job(text);
    assert_eq!(job["task"]["command"], json!(["./run.sh", "{f_n}", "{f}"]));
    assert_eq!(job["task"]["inputs"], json!({ "{name}": "{f}" }));
    assert_eq!(job["task"]["stdin"], "{name}");
    assert_eq!(job["sweep"]["f_n"]["list"], json!(["a", "b"]));
    assert_eq!(job["sweep"]["name"]["list"], json!(["a.dat", "b.dat"]));
}

#[test]
fn tasks_items_and_steps_are_counted_apart() {
    let command = |queue: &str| {
        let text = "executable = run.sh\narguments = $(Process) $(ItemIndex) $(Step)\nqueue ";
        job(&format!("{text}{queue}\n"))["task"]["command"].clone()
    };
    let said = |words: [&str; 3]| json!(["./run.sh", words[0], words[1], words[2]]);
    assert_eq!(command("1"), said(["0", "0", "0"]));
    assert_eq!(command("10"), said(["{index}", "0", "{index}"]));
    assert_eq!(command("x in (a, b)"), said(["{index}", "{index}", "0"]));
    let both = command("2 x in (a, b)");
    assert_eq!(both, said(["{index}", "{ItemIndex}", "{Step}"]));
}

#[test]
fn folders_bring_their_files() {
    let inputs = |list: &str| {
        let text = format!("executable = run.sh\ntransfer_input_files = {list}\nqueue\n");
        job(&text)["task"]["inputs"].clone()
    };
    let whole = json!({
        "data/a.dat": "data/a.dat", "data/b.dat": "data/b.dat", "data/deep/c.dat": "data/deep/c.dat",
    });
    assert_eq!(inputs("data"), whole);
    let flat = json!({ "c.dat": "data/deep/c.dat", "shared.txt": "shared.txt" });
    assert_eq!(inputs("data/deep/, shared.txt"), flat);
    assert_eq!(
        inputs("https://example.org/x/y.tar"),
        json!({ "y.tar": "https://example.org/x/y.tar" })
    );
}

#[test]
fn an_environment_is_sent_as_it_is_named() {
    let text =
        "executable = run.sh\nenvironment = \"A=$(Process) B='x {y}'\"\ngetenv = true\nqueue 2\n";
    assert_eq!(
        job(text)["task"]["env"],
        json!({ "A": "{index}", "B": "x {{y}" })
    );
    assert!(warnings(text).contains("is not sent"));
}

#[test]
fn programs_that_save_themselves_and_run_for_a_while_only() {
    let text = "executable = run.sh\ncheckpoint_exit_code = 85\n\
        transfer_checkpoint_files = state, more\nallowed_execute_duration = 600\n\
        requirements = Arch == \"X86_64\" && (Room == \"b12\")\njob_batch_name = \"night\"\n\
        priority = -3\nqueue 1\n";
    let job = job(text);
    assert_eq!(job["task"]["checkpoint_files"], json!(["state", "more"]));
    assert_eq!(job["limits"]["time"], "600s");
    assert_eq!(
        job["require"],
        json!({ "arch": "x86_64", "labels": { "Room": "b12" } })
    );
    assert_eq!(job["job"], json!({ "name": "night", "priority": -3 }));
}

/// Text, line, and what is said of it.
const REFUSED: &[(&str, usize, &str)] = &[
    ("executable = run.sh\n", 1, "has no queue"),
    ("queue", 1, "names no program"),
    ("executable = gone.sh\nqueue", 1, "gone.sh is not there"),
    (
        "executable = run.sh\nargumnets = 1\nqueue",
        2,
        "did you mean `arguments`",
    ),
    (
        "executable = run.sh\nuniverse = grid\nqueue",
        2,
        "universe grid is not read",
    ),
    (
        "executable = run.sh\nrequest_gpus = 1\nqueue",
        2,
        "request_gpus is not read",
    ),
    (
        "executable = run.sh\nshould_transfer_files = NO\nqueue",
        2,
        "share no file system",
    ),
    (
        "executable = run.sh\narguments = $(Cluster)\nqueue",
        2,
        "job's number",
    ),
    (
        "executable = run.sh\narguments = $(proces)\nqueue",
        2,
        "is not set",
    ),
    (
        "executable = run.sh\narguments = $$(Arch)\nqueue",
        2,
        "node's own description",
    ),
    (
        "executable = run.sh\narguments = $RANDOM_INTEGER(1,2)\nqueue",
        2,
        "is not read",
    ),
    (
        "executable = run.sh\na = $(b)\nb = $(a)\narguments = $(a)\nqueue",
        4,
        "leads back",
    ),
    ("executable = run.sh\nif true\nqueue", 2, "`if` is not read"),
    ("executable = run.sh\nqueue 0", 2, "makes no task"),
    ("executable = run.sh\nqueue 1000001", 2, "at most 1000000"),
    ("executable = run.sh\nqueue x from gone.txt", 2, "gone.txt"),
    (
        "executable = run.sh\nqueue x from ls |",
        2,
        "command's output",
    ),
    ("executable = run.sh\nqueue x in (a, b", 2, "has no end"),
    ("executable = run.sh\nqueue x in ()", 2, "the list is empty"),
    ("executable = run.sh\nqueue 1\nqueue 2", 3, "second queue"),
    (
        "executable = run.sh\nqueue 1\narguments = x",
        3,
        "stands after queue",
    ),
    (
        "executable = run.sh\nrequest_memory = x\nqueue",
        2,
        "is no size",
    ),
    (
        "executable = run.sh\nrequest_cpus = $(Process)\nqueue 2",
        2,
        "the same for all",
    ),
    (
        "executable = run.sh\ntransfer_output_files = ../x\nqueue",
        2,
        "leads out",
    ),
    (
        "executable = run.sh\ncheckpoint_exit_code = 1\nqueue",
        2,
        "exit code 85",
    ),
    ("executable = run.sh\nnonsense\nqueue", 2, "is no setting"),
    (
        "executable = run.sh\ntransfer_input_files = data/a.dat, a.dat\nqueue",
        2,
        "two files",
    ),
];

#[test]
fn what_would_mean_something_else_is_refused_with_its_line() {
    for (text, line, says) in REFUSED {
        let (at, problem) = problem(text);
        assert!(problem.contains(says), "{text:?}: {problem}");
        assert_eq!(at, *line, "{text:?}: {problem}");
    }
}

proptest! {
    #[test]
    fn nothing_that_is_written_breaks_the_reader(text in "(?s).{0,300}", tail in "[ -~\n]{0,200}") {
        let dir = folder();
        let _wrong = read(&text, "x", dir.path());
        let text = format!("executable = run.sh\n{tail}\nqueue 3 a, b from list.txt\n");
        let _any = read(&text, "x", dir.path());
    }

    #[test]
    fn every_task_gets_the_words_that_were_meant(words in proptest::collection::vec("[a-z' ]{1,6}", 1..4)) {
        // Through the new syntax and back.
        let quoted: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', "''"))).collect();
        let text = format!("executable = run.sh\narguments = \"{}\"\nqueue 2\n", quoted.join(" "));
        let command = job(&text)["task"]["command"].clone();
        let read: Vec<&str> = command.as_array().unwrap().iter().skip(1).map(|word| word.as_str().unwrap()).collect();
        prop_assert_eq!(read, words);
    }
}
