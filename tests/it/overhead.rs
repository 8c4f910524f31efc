//! Does `gleaner bench overhead` tell what it promises to, and leave nothing behind? Its figures
//! are not looked at: this PC may be busy.

use crate::pool::{Desk, binary, command, finish, until};
use serde_json::Value;
use std::fs;

/// Runs parts of the benchmark for processes, with its files in `desk`.
fn report(desk: &Desk, more: &[&str]) -> Value {
    let dir = desk.path().display().to_string();
    let mut arguments = vec!["bench", "overhead", "--quick", "--engines", "process"];
    arguments.extend(["--rounds", "2", "--json", "--dir", &dir]);
    arguments.extend(more);
    let done = finish(&mut command(binary(), desk, &arguments));
    // A missed promise is an exit code of its own; on a busy PC it may happen.
    assert!([0, 1].contains(&done.code), "{done:?}");
    done.json()
}

#[test]
fn every_part_has_its_table_and_its_promise() {
    let desk = Desk::new();
    let picture = desk.path().join("overhead.svg");
    let svg = picture.display().to_string();
    let report = report(
        &desk,
        &["--only", "cpu,files,calls,start,io", "--svg", &svg],
    );
    assert_eq!(report["bench"], "overhead");
    assert_eq!(report["setting"]["engines"], serde_json::json!(["process"]));
    let tables = report["tables"].as_array().unwrap();
    let groups: Vec<&str> = tables
        .iter()
        .map(|table| table["group"].as_str().unwrap())
        .collect();
    assert_eq!(groups, ["cpu", "files", "calls"]);
    for line in tables
        .iter()
        .flat_map(|table| table["lines"].as_array().unwrap())
    {
        assert!(line["native"].as_f64().unwrap() > 0.0, "{line}");
        let own = &line["engines"][0];
        assert!(own["ratio"].as_f64().unwrap() > 0.0, "{line}");
        assert_eq!(own["pairs"], 2, "{line}");
    }
    let rows = report["rows"].as_array().unwrap();
    for name in [
        "CPU-bound program, process over native",
        "start to end of /bin/true, contained, p50",
        "read and written for a task, process",
    ] {
        assert!(
            rows.iter().any(|row| row["name"] == name),
            "{name}: {rows:?}"
        );
    }
    assert!(fs::read_to_string(picture).unwrap().starts_with("<svg"));
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
