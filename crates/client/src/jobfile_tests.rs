//! Tests of reading job files: what is accepted, and what a wrong one is told.

use super::*;

const GOOD: &str = r#"
[job]
name = "screening"
tags = { project = "hiv" }

[task]
command = ["vina", "--ligand", "{ligand}"]
inputs = { "receptor.pdbqt" = "data/receptor.pdbqt" }
outputs = ["docked.pdbqt"]
env = { OMP_NUM_THREADS = "1" }
checkpoint = "10min"

[require]
arch = "x86_64"
labels = { room = "b12" }

[sweep]
ligand = { files = "ligands/*.pdbqt" }
seed = { range = [1, 10] }

[limits]
cpus = 1
memory = "1GiB"
time = "30min"
disk_io = "50MB/s"

[retry]
attempts = 3

[verify]
replicas = 1

[collect]
merge = { concat = "all.pdbqt", from = "docked.pdbqt" }
"#;

fn toml_error(text: &str) -> String {
    parse(Path::new("job.toml"), text, Format::Toml)
        .unwrap_err()
        .to_string()
}

#[test]
fn a_whole_job_file_reads_alike_in_toml_and_json() {
    let spec = parse(Path::new("job.toml"), GOOD, Format::Toml).unwrap();
    let json = serde_json::to_string_pretty(&spec).unwrap();
    assert_eq!(
        parse(Path::new("job.json"), &json, Format::Json).unwrap(),
        spec
    );
    let toml = toml::to_string(&spec).unwrap();
    assert_eq!(
        parse(Path::new("job.toml"), &toml, Format::Toml).unwrap(),
        spec
    );
}

/// A whole job file, and what is said about it.
const WRONG_FILES: &[(&str, &str)] = &[
    (
        "[task]\ncomand = ['true']\n",
        "job.toml:2: task.comand: unknown key; did you mean `command`?",
    ),
    (
        "[taks]\ncommand = ['true']\n",
        "job.toml:1: taks: unknown key; did you mean `task`?",
    ),
    (
        "[task]\ncommand = ['true']\nmemory = '1GiB'\n",
        "job.toml:3: task.memory: unknown key; `memory` belongs into [limits]",
    ),
    (
        "command = ['true']\n",
        "command: unknown key; `command` belongs into [task]",
    ),
    (
        "[job]\nname = 'x'\n",
        "task: is missing; every job has a table [task] with a command",
    ),
    (
        "[task]\noutputs = []\n",
        "task.command: is missing; write command = [",
    ),
    (
        "[task]\ncommand = 'true'\n",
        "job.toml:2: task.command: invalid type: string \"true\", expected a sequence; write a list",
    ),
    (
        "[task]\ncommand = ['a', 3]\n",
        "job.toml:2: task.command[1]: invalid type: integer `3`, expected a string",
    ),
    ("[task]\ncommand = ['true'\n", "job.toml:"),
];

/// What follows a good `[task]` of two lines, and what is said about it.
const WRONG_TABLES: &[(&str, &str)] = &[
    (
        "[limits]\nmemory = '1Gig'\n",
        "job.toml:4: limits.memory: \"1Gig\" is not a size; write bytes as a number, or a text like",
    ),
    (
        "[limits]\ntime = 'soon'\n",
        "limits.time: \"soon\" is not a length of time; write seconds",
    ),
    (
        "[limits]\ncpus = 0\n",
        "limits.cpus: \"0\" is not a number of CPUs",
    ),
    (
        "[limits]\nprocesses = -1\n",
        "limits.processes: invalid value: integer `-1`",
    ),
    (
        "[limits]\nnetwork = 'yes'\n",
        "limits.network: invalid type",
    ),
    (
        "[limits]\nmemroy = 1\n",
        "job.toml:4: limits.memroy: unknown key; did you mean `memory`?",
    ),
    (
        "[sweep]\na = { rang = [1, 2] }\n",
        "job.toml:4: sweep.a.rang: unknown key; did you mean `range`?",
    ),
    (
        "[sweep]\na = { range = [1] }\n",
        "sweep.a.range: invalid length 1, expected [first, last]",
    ),
    (
        "[sweep]\na = [1, 2]\n",
        "job.toml:4: sweep.a: invalid type: sequence, expected an axis: { files =",
    ),
    (
        "[sweep]\nmode = 'random'\n",
        "sweep.mode: invalid value: string \"random\", expected \"product\" or \"zip\"",
    ),
    (
        "[collect]\nmerge = { concat = 'x' }\n",
        "job.toml:4: collect.merge: write either { concat",
    ),
    (
        "[collect]\nmerge = { concta = 'x' }\n",
        "collect.merge.concta: unknown key; did you mean `concat`?",
    ),
    (
        "[retry]\nattempts = 'three'\n",
        "retry.attempts: invalid type",
    ),
];

#[test]
fn wrong_job_files_name_line_key_problem_and_remedy() {
    for (text, said) in WRONG_FILES {
        let found = toml_error(text);
        assert!(
            found.contains(said),
            "{text}\n  gave   {found}\n  wanted {said}"
        );
    }
    for (rest, said) in WRONG_TABLES {
        let found = toml_error(&format!("[task]\ncommand = ['true']\n{rest}"));
        assert!(
            found.contains(said),
            "{rest}\n  gave   {found}\n  wanted {said}"
        );
    }
}

#[test]
fn wrong_json_names_its_line_too() {
    let text = "{\n \"task\": {\"command\": [\"true\"]},\n \"limits\": {\"memory\": \"much\"}\n}";
    let found = parse(Path::new("job.json"), text, Format::Json)
        .unwrap_err()
        .to_string();
    assert!(
        found.starts_with("job.json:3: limits.memory: \"much\" is not a size"),
        "{found}"
    );
    let found = parse(Path::new("job.json"), "{\n", Format::Json)
        .unwrap_err()
        .to_string();
    assert!(found.starts_with("job.json:2: EOF"), "{found}");
}

/// The list of keys here must be the model's, or advice would be wrong.
#[test]
fn every_table_knows_the_keys_of_the_model() {
    for (table, keys) in KEYS {
        let text = if table.is_empty() {
            "\"zzz\" = 1".to_owned()
        } else {
            format!("[{table}]\nzzz = 1\n")
        };
        let found = match *table {
            "sweep" => continue,
            _ => toml_error(&text),
        };
        let (_, known) = found.split_once("Known here: ").unwrap();
        let known: Vec<&str> = known
            .split(", ")
            .map(|word| word.trim_matches('`'))
            .collect();
        assert_eq!(&known, keys, "[{table}]");
    }
}

#[test]
fn a_key_that_the_server_refuses_is_found_in_the_file() {
    assert_eq!(line_of_key(GOOD, "limits.memory"), Some(23));
    assert_eq!(line_of_key(GOOD, "sweep.seed"), Some(19));
    assert_eq!(line_of_key(GOOD, "sweep"), Some(17));
    assert_eq!(line_of_key(GOOD, "task.inputs.receptor.pdbqt"), Some(8));
    assert_eq!(line_of_key(GOOD, "nothing"), None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.toml");
    std::fs::write(&path, GOOD).unwrap();
    let file = read_job_file(&path).unwrap();
    let refused = ClientError::Refused {
        status: 422,
        message: "no node has that much".into(),
        key: Some("limits.memory".into()),
    };
    let shown = file.locate(refused).to_string();
    assert!(
        shown.ends_with("job.toml:23: limits.memory: no node has that much"),
        "{shown}"
    );
}

#[test]
fn a_file_that_is_no_job_file_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let say = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read_job_file(&path).unwrap_err().to_string()
    };
    assert!(say("a.toml", b"\xff\xfe").contains("is not UTF-8 text"));
    assert!(say("a.sub", b"queue").contains("names no program"));
    assert!(
        read_job_file(folder.path())
            .unwrap_err()
            .to_string()
            .contains("is a directory")
    );
    let absent = read_job_file(&folder.path().join("none")).unwrap_err();
    assert!(absent.to_string().contains("No such file"));
    assert_eq!(absent.exit_code(), 2);
}

#[test]
fn a_syntax_error_in_json_names_no_key_of_its_own() {
    let text = "{\"task\":{\"command\":[\"echo\"],}}";
    let said = parse(Path::new("job.json"), text, Format::Json).unwrap_err();
    assert_eq!(said.to_string(), "job.json:1: task: trailing comma");
}

#[test]
fn a_file_without_an_end_is_refused() {
    let said = read_job_file(Path::new("/dev/zero")).unwrap_err();
    assert!(said.to_string().contains("larger than 16 MiB"), "{said}");
}
