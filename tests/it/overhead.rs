//! Does `gleaner bench overhead` run on the real engine, and leave nothing behind? Its figures
//! are not looked at, and it does no work that a busy PC would keep waiting: tasks run at idle
//! priority. What a report holds is tested beside its code.

use crate::pool::{Desk, binary, command, finish, until};
use std::fs;

#[test]
fn the_bytes_of_a_task_are_counted() {
    let desk = Desk::new();
    let dir = desk.path().display().to_string();
    let picture = desk.path().join("overhead.svg").display().to_string();
    let mut arguments = vec!["bench", "overhead", "--quick", "--engines", "process"];
    arguments.extend(["--only", "io", "--json", "--svg", &picture, "--dir", &dir]);
    let report = finish(&mut command(binary(), &desk, &arguments))
        .exits(0)
        .json();
    assert_eq!(report["bench"], "overhead");
    assert_eq!(report["setting"]["engines"], serde_json::json!(["process"]));
    assert_eq!(report["tables"], serde_json::json!([]));
    let rows = report["rows"].as_array().unwrap();
    let row = |name: &str| rows.iter().find(|row| row["name"] == name);
    let all = row("read and written for a task, process").unwrap();
    let disk = row("of that to and from disks, process").unwrap();
    // A task's orders, record and streams are some bytes, and no task is worth a megabyte.
    let kib = all["figure"].as_f64().unwrap();
    assert!((0.1..1024.0).contains(&kib), "{all}");
    assert!(disk["figure"].as_f64().is_some(), "{disk}");
    assert!(fs::read_to_string(&picture).unwrap().starts_with("<svg"));
    until("nothing is left", || {
        let mut files = fs::read_dir(desk.path()).unwrap().flatten();
        !files.any(|file| file.file_name().to_string_lossy().starts_with("gleaner-"))
    });
}

#[test]
fn parts_and_engines_that_there_are_not_are_refused() {
    let desk = Desk::new();
    for (option, word) in [
        ("--only", "disk"),
        ("--engines", "magic"),
        ("--rounds", "0"),
    ] {
        let arguments = ["bench", "overhead", option, word];
        finish(&mut command(binary(), &desk, &arguments))
            .exits(2)
            .complains_of(&[word]);
    }
}
