//! Does `gleaner bench impact` measure what it says, and leave nothing behind?

use crate::pool::{Desk, binary, command, finish, outcome, signal, until};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// A benchmark as short as it gets, with its files in `desk`.
fn arguments(desk: &Desk) -> Vec<String> {
    let dir = desk.path().display();
    format!(
        "bench impact --quick --tasks cpu --seconds 0.8 --inputs 3 --agent 0 --json --dir {dir}"
    )
    .split_whitespace()
    .map(str::to_owned)
    .collect()
}

/// Whether anything of a benchmark in `desk` is left: files or processes.
fn is_clean(desk: &Desk) -> bool {
    let files = fs::read_dir(desk.path()).unwrap().flatten();
    let mut files = files.filter(|file| {
        let name = file.file_name();
        name.to_str()
            .is_some_and(|name| name.starts_with("gleaner-impact-"))
    });
    let word = desk.path().display().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let one_of_ours = ["gleaner-owner", "gleaner-task", "__shim"];
        line.contains(&word) && one_of_ours.iter().any(|name| line.contains(name))
    });
    files.next().is_none() && !processes
}

/// Groups of the benchmark with this process id.
fn has_groups(pid: u32) -> bool {
    let name = format!("gleaner-impact-{pid}");
    let below = |dir: &Path| -> bool {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.any(|found| found.starts_with(&name))
    };
    let top = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_dir(top).into_iter().flatten().flatten();
    below(top) || controllers.into_iter().any(|dir| below(&dir.path()))
}

#[test]
fn a_quick_look_gives_figures_that_make_sense() {
    let desk = Desk::new();
    let arguments = arguments(&desk);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = finish(&mut command(binary(), &desk, &arguments));
    // A missed promise is an exit code of its own; on a busy PC it may happen.
    assert!([0, 1].contains(&done.code), "{done:?}");
    let report = done.json();
    assert_eq!(report["bench"], "impact");
    // No task twice, one kind under two rules and without an owner: twice.
    assert_eq!(
        report["segments"].as_array().unwrap().len(),
        2 * (2 + 2 + 1)
    );
    let cells = report["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 1 + 2);
    assert_eq!(cells[0]["rule"], Value::Null);
    for cell in cells {
        let answers = cell["answers"].as_array().unwrap();
        assert_eq!(answers.len(), 2, "frames and keys: {cell}");
        for one in answers {
            assert!(one["p50"]["figure"].as_f64().unwrap() > 0.0, "{one}");
            assert!(one["base_ms"][0].as_f64().unwrap() > 0.5, "{one}");
            assert!(one["events"].as_u64().unwrap() > 5, "{one}");
        }
        let share = cell["harvested"]["figure"].as_f64();
        assert!(
            share.is_none_or(|share| (0.0..=1.05).contains(&share)),
            "{cell}"
        );
    }
    for row in report["rows"].as_array().unwrap() {
        let verdict = row["verdict"].as_str().unwrap();
        assert!(["met", "missed", "cannot tell"].contains(&verdict), "{row}");
        // Two rounds are too few for any verdict about time or shares.
        if row["unit"] == "% more" || row["name"].as_str().unwrap().contains("harvested") {
            assert_eq!(verdict, "cannot tell", "{row}");
        }
    }
    until("nothing is left", || is_clean(&desk));
}

#[test]
fn an_interrupted_benchmark_leaves_nothing() {
    let desk = Desk::new();
    let arguments = arguments(&desk);
    let mut command = std::process::Command::new(binary());
    let child = command
        .args(&arguments)
        .current_dir(desk.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    until("a peer's task runs", || {
        let dirs = fs::read_dir(desk.path()).unwrap().flatten();
        dirs.into_iter()
            .any(|dir| dir.path().join("peers/cpu-SchedIdle-0").exists())
    });
    assert!(!is_clean(&desk));
    signal(pid, "INT");
    outcome(child).exits(130);
    until("nothing is left", || is_clean(&desk));
    assert!(!has_groups(pid));
}

#[test]
fn words_that_it_does_not_know_are_refused() {
    let desk = Desk::new();
    for (option, word) in [
        ("--tasks", "gpu"),
        ("--owners", "gamer"),
        ("--rules", "none"),
    ] {
        finish(&mut command(
            binary(),
            &desk,
            &["bench", "impact", option, word],
        ))
        .exits(2)
        .complains_of(&[word, "is none of"]);
    }
}
